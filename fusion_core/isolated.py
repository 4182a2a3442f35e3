"""Isolated call: one function in a process of its own, within limits of memory and time.

What a stranger's file does to that process, it does to no other: a page that reads such files
outlives them, and the memory that they took is the system's again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from . import errors
from .errors import TooLargeError, sentence

SECONDS = 300.0
"""Longest call unless its caller says otherwise."""

_ANSWER = "fuselab-answer:"


def call(
    function: str,
    *args: Any,
    memory: int,
    seconds: float = SECONDS,
    what: str,
) -> Any:
    """Call a function of this library in a process of its own.

    Args:
        function: as ``module:name``, the module without ``fusion_core.``.
        *args: plain data.
        memory: bytes that the call may take beside the libraries that its module imports. Where
            there is a CUDA device nothing is limited: its addresses alone are more than that.
        seconds: after which it is ended.
        what: names in an error what did not fit, such as "The model a/b".

    Returns:
        What it returns, which is plain data.

    Raises:
        FusionError: what the call raised; `TooLargeError` where its process did not live.
        RuntimeError: a fault of ours, with its traceback.
    """
    package = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    given = {"function": function, "args": args, "memory": memory, "seconds": seconds}
    try:
        ran = subprocess.run(
            [sys.executable, "-m", __name__],
            input=json.dumps(given),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=seconds,
            env={**os.environ, "OMP_WAIT_POLICY": "passive", "PYTHONPATH": path},
            check=False,
        )
        written = ran.stdout.rpartition(_ANSWER)[2]
        answer = json.loads(written) if _ANSWER in ran.stdout else {}
    except subprocess.TimeoutExpired:
        answer = {"late": True}
    except ValueError:
        answer = {}
    if "returned" in answer:
        return answer["returned"]
    if "kind" in answer:
        raise getattr(errors, answer["kind"])(answer["said"])
    if "fault" in answer:
        raise RuntimeError(answer["fault"])
    limit = f"{seconds:.0f} seconds" if "late" in answer else errors.size_of(memory)
    raise TooLargeError(f"{what} took more than {limit} where it was tried: choose another one.")


def main() -> None:
    """Answer one call, given on stdin, on stdout."""
    given = json.loads(sys.stdin.read())
    module, _, name = given["function"].partition(":")
    function = getattr(import_module(f"fusion_core.{module}"), name)
    _limit(given["memory"], given["seconds"])
    try:
        answer = {"returned": function(*given["args"])}
    except Exception as error:
        said = sentence(error)
        full = errors.is_out_of_memory(error)
        kind = "TooLargeError" if full else type(error).__name__
        answer = {"kind": kind, "said": said} if said else {"fault": traceback.format_exc()}
    print(_ANSWER + json.dumps(answer), flush=True)


def _limit(memory: int, seconds: float) -> None:
    """Let this process take no more memory and time, where the system can see to that."""
    import psutil

    with suppress(ImportError, ValueError, OSError):
        import resource

        torch = sys.modules.get("torch")
        if torch is None or not torch.cuda.is_available():
            most = psutil.Process().memory_info().vms + memory
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
        late = int(seconds * (os.cpu_count() or 1)) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (late, late))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
