"""Execution of programs that a model wrote: each in a sandboxed process of its own."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
from typing import Literal

from fusion_core.errors import InputError

from . import sandbox

MEMORY, SECONDS = 256 << 20, 5.0
STARTING = 10.0
"""Seconds that an interpreter may take to start, beside those of the program."""

Outcome = Literal["passed", "failed", "memory", "time"]
"""How a program ended: as wanted; with an error, or before its end; short of memory; too late."""


def run(program: str, *, memory: int = MEMORY, seconds: float = SECONDS) -> Outcome:
    """Run an untrusted Python program.

    It has an empty environment, no file, socket, process, thread or signal, and imports nothing
    but the modules of `sandbox.MODULES`: see there. A program that looks for a way to seem right
    may find one; that is no more than a wrong figure.

    Args:
        program: its source; it passes by coming to its end without an error.
        memory: bytes it may take beside the interpreter.
        seconds: processor time after which it is ended; four times as long by the clock, for a
            machine that does other things.

    Raises:
        InputError: this system cannot contain a program.
    """
    check()
    word = secrets.token_hex(16)
    given = {"program": program, "word": word, "memory": memory, "seconds": seconds}
    with tempfile.TemporaryFile() as answer:
        try:
            ran = subprocess.run(
                [sys.executable, "-I", "-S", "-B", "-X", "utf8", sandbox.__file__],
                input=json.dumps(given).encode(),
                stdout=answer,
                stderr=subprocess.PIPE,
                timeout=4 * seconds + STARTING,
                env={},
                cwd="/",
                start_new_session=True,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "time"
        answer.seek(0)
        said = answer.read(len(word) + 1).decode("ascii", "replace")
    if said == word and ran.returncode == 0:
        return "passed"
    if b"no filter of system calls" in ran.stderr:
        raise InputError(_REFUSED)
    killed = -ran.returncode in (9, 24)  # SIGKILL and SIGXCPU: the limit of processor time
    return "time" if killed else "memory" if said == "memory" else "failed"


_REFUSED = (
    "Programs that models write are run on Linux alone (x86-64 or ARM), where the kernel can keep "
    "them from files and the network: leave --run-code out."
)


def check() -> None:
    """Refuse to run programs where nothing could contain them.

    Raises:
        InputError: this is no Linux, or one of another architecture.
    """
    if not sys.platform.startswith("linux") or os.uname().machine not in sandbox.CALLS:
        raise InputError(_REFUSED)
