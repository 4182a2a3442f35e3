"""What can go wrong, for callers who want to tell the cases apart.

    FusionError
    ├── InputError            a value, text or option that a person gave cannot be used
    ├── ModelNotFoundError    a model name leads nowhere
    ├── ModelFormatError      a model or tokenizer is there, but cannot be used
    └── TooLargeError         a text or a model exceeds a stated limit

Every message is one sentence that says what was looked for and what to do.
The command line prints it and exits with status 2; the app shows it and keeps its state. Memory
that runs out has no type of its own: `is_out_of_memory` knows it by its many names. `sentence` is
what a face says of either.
"""

from __future__ import annotations

import errno
import reprlib
from typing import Any

SHORT_OF_MEMORY = (
    "Memory is short for this: read shorter texts, choose smaller models or a smaller batch_size, "
    "or close other programs."
)

_SAID = (
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "out of memory",
    "std::bad_alloc",
    "_status_alloc_failed",
)
"""What a RuntimeError of torch says where memory ran out, in lower case: CPU, CUDA, MPS, cuBLAS."""

LONGEST_QUOTE = 60
"""Characters of a quoted value."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = LONGEST_QUOTE - 10


class FusionError(Exception):
    """Base of every error that FuseLab raises on purpose."""

    def __init__(self, message: str) -> None:
        """Keep the message on one line, whatever file names or texts were quoted in it."""
        super().__init__(" ".join(str(message).split()))


class InputError(FusionError):
    """A value, text or option that a person gave cannot be used."""


class ModelNotFoundError(FusionError):
    """A model name leads to no model."""


class ModelFormatError(FusionError):
    """A model or tokenizer exists but is broken, incomplete or of an unsupported kind."""


class TooLargeError(FusionError):
    """A text or a model exceeds a stated limit."""


def is_out_of_memory(error: BaseException) -> bool:
    """Tell memory that ran out from other faults, on any device, without loading torch.

    numpy and pyarrow derive their own from MemoryError; torch has a class for devices, found by
    name, and on a CPU raises a bare RuntimeError; an interpreter that has no memory left for the
    exception itself raises a SystemError. What was raised *from* such an error counts, what
    merely came up while it was handled does not.
    """
    seen: set[int] = set()
    now: BaseException | None = error
    while now is not None and id(now) not in seen:
        seen.add(id(now))
        named = any(kind.__name__ == "OutOfMemoryError" for kind in type(now).__mro__)
        full = isinstance(now, OSError) and now.errno == errno.ENOMEM
        told = isinstance(now, RuntimeError) and any(s in str(now).lower() for s in _SAID)
        if isinstance(now, MemoryError | SystemError) or named or full or told:
            return True
        now = now.__cause__
    return False


def sentence(error: BaseException) -> str | None:
    """Say what a person can do about an error; None for a fault of FuseLab's own."""
    known = isinstance(error, FusionError)
    # A model that could not be read for want of memory is not broken, whatever wrapped the error.
    if (not known or isinstance(error, ModelFormatError)) and is_out_of_memory(error):
        return SHORT_OF_MEMORY
    return str(error) if known else None


def shown(value: Any) -> str:
    """Quote a value of any kind in a message: short, and without characters that cannot be seen."""
    if value is None:
        return "nothing"
    words = _SHORT.repr(value)
    return words if len(words) <= LONGEST_QUOTE else f"{words[: LONGEST_QUOTE - 2]} …"


def size_of(n_bytes: float) -> str:
    """Write a number of bytes for a reader, in three digits."""
    if n_bytes < 1000:
        return f"{n_bytes:,.0f} bytes"
    for unit in ("kB", "MB", "GB"):
        n_bytes /= 1000
        if n_bytes < 1000 or unit == "GB":
            break
    if n_bytes < 10:
        words = f"{n_bytes:.2f}".removesuffix("0")  # 1.44, but 1.0
    else:
        words = f"{n_bytes:,.{1 if n_bytes < 100 else 0}f}"
    return f"{words} {unit}"
