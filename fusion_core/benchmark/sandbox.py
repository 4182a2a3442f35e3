"""Sandboxed interpreter: the script that runs one untrusted program. Nothing calls it.

It is run as ``python -I -S -B sandbox.py`` with an empty environment, takes a JSON object with
``program``, ``word``, ``memory`` (bytes) and ``seconds`` on stdin, and writes the word to stdout
where the program came to its end. The program may compute, and nothing else: a filter of the
kernel (seccomp) lets through the system calls that memory, clocks and an end of the process need.
Files, sockets, processes, threads and signals are all refused, so that it imports no module that
is not in `MODULES`.
"""

import contextlib
import ctypes
import io
import json
import math
import os
import struct
import sys
from importlib import import_module

MODULES = (
    *("abc", "array", "bisect", "calendar", "cmath", "collections", "copy", "dataclasses"),
    *("datetime", "decimal", "enum", "fractions", "functools", "hashlib", "heapq", "itertools"),
    *("json", "math", "numbers", "operator", "queue", "random", "re", "statistics", "string"),
    *("textwrap", "time", "typing", "unicodedata"),
)
"""What a program may import: these, and what they import themselves."""

ANSWER_BYTES = 4096

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | 1  # EPERM
NUMBER, ARCHITECTURE = 0, 4
"""Offsets in the `seccomp_data` of a system call."""

_NAMES = (
    *("read", "write", "close", "fstat", "lseek", "mmap", "mprotect", "munmap", "brk"),
    *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "mremap", "madvise", "getpid", "exit"),
    *("gettimeofday", "sigaltstack", "futex", "clock_gettime", "exit_group", "getrandom", "rseq"),
)
_X86_64 = (0, 1, 3, 5, 8, 9, 10, 11, 12, 13, 14, 15, 25, 28, 39, 60, 96, 131, 202, 228, 231)
_ARM = (63, 64, 57, 80, 62, 222, 226, 215, 214, 134, 135, 139, 216, 233, 172, 93, 169, 132, 98)
CALLS = {
    "x86_64": (0xC000003E, dict(zip(_NAMES, (*_X86_64, 318, 334), strict=True))),
    "aarch64": (0xC00000B7, dict(zip(_NAMES, (*_ARM, 113, 94, 278, 293), strict=True))),
}
"""The kernel's name of each architecture, and the numbers of the calls that a program may make."""


class _Program(ctypes.Structure):
    """A filter as the kernel takes it (`sock_fprog`)."""

    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def restrict_calls() -> None:
    """Refuse all system calls of this process but those in `CALLS`, for good."""
    architecture, calls = CALLS[os.uname().machine]
    numbers = list(calls.values())
    code = [
        (LOAD, 0, 0, ARCHITECTURE),
        (JUMP_IF_EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, REFUSE),
        (LOAD, 0, 0, NUMBER),
        *((JUMP_IF_EQUAL, len(numbers) - i, 0, n) for i, n in enumerate(numbers)),
        (RETURN, 0, 0, REFUSE),
        (RETURN, 0, 0, ALLOW),
    ]
    packed = b"".join(struct.pack("HBBI", *line) for line in code)
    libc = ctypes.CDLL(None, use_errno=True)
    given = ctypes.byref(_Program(len(code), packed))
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        PR_SET_SECCOMP, SECCOMP_MODE_FILTER, given
    ):
        raise OSError(ctypes.get_errno(), "the kernel takes no filter of system calls")


def limit(memory: int, seconds: float) -> None:
    """Let this process take no more memory, time and output."""
    import resource  # not everywhere, and the parent reads this file as a module

    with open("/proc/self/statm", encoding="ascii") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    late = math.ceil(seconds)
    for kind, most in (
        (resource.RLIMIT_AS, now + memory),
        (resource.RLIMIT_CPU, late),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, ANSWER_BYTES),
    ):
        resource.setrlimit(kind, (most, most))


class _Nowhere(io.TextIOBase):
    """Stream that forgets what is printed."""

    def write(self, text: str) -> int:
        """Take a text."""
        return len(text)


def main() -> None:
    """Run the program that stdin holds."""
    given = json.loads(sys.stdin.buffer.read())
    for name in MODULES:
        with contextlib.suppress(ImportError):  # a Python that was built without it
            import_module(name)
    sys.stdout = sys.stderr = _Nowhere()
    code = None
    with contextlib.suppress(Exception):
        code = compile(given["program"], "program", "exec")
    limit(given["memory"], given["seconds"])
    restrict_calls()
    if code is None:
        answer = "failed"
    else:
        try:
            exec(code, {"__name__": "__main__"})
            answer = given["word"]
        except MemoryError:
            answer = "memory"
        except BaseException:  # also what only ends a program, such as SystemExit
            answer = "failed"
    os.write(1, answer.encode())
    os._exit(0)


if __name__ == "__main__":
    main()
