"""Programs that models write: what hostile ones try is refused, and nothing outlives them.

The cases are what sandboxes of published code benchmarks warn of: programs that run for ever, take
all memory, write files, start processes, reach for the network or for their parent.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import psutil
import pytest

from fusion_core import corpus
from fusion_core.benchmark import execution
from fusion_core.errors import InputError

PASSING = {
    "imports": "import math\nfrom typing import List\nassert math.sqrt(4) == 2",
    "prints": "print('x' * 100_000)",
    "memory": "x = bytearray(50_000_000)\nassert len(x)",
    "errors that are caught": "try:\n    1 / 0\nexcept ZeroDivisionError:\n    pass",
}
HOSTILE = {
    "wrong": ("assert 1 == 2", "failed"),
    "syntax": ("def (", "failed"),
    "nul": ("a = '\0'", "failed"),
    "endless": ("while True: pass", "time"),
    "endless, deaf": (
        "while True:\n try:\n  while True: pass\n except BaseException: pass",
        "time",
    ),
    "huge number": ("9 ** 9 ** 9 ** 9", "time"),
    "10 GB list": ("x = [0] * (10 * 2**30 // 8)", "memory"),
    "growing list": ("x = []\nwhile True: x.append(bytearray(10**6))", "memory"),
    "fork bomb": ("import os\nwhile True: os.fork()", "failed"),
    "fork bomb, deaf": (
        "import os\nfor i in range(10**5):\n try: os.fork()\n except OSError: pass\n1 / 0",
        "failed",
    ),
    "thread": ("import _thread\n_thread.start_new_thread(print, ())", "failed"),
    "another program": ("import os\nos.execv('/bin/true', ['true'])", "failed"),
    "end": ("raise SystemExit(0)", "failed"),
    "end by sys": ("import sys\nsys.exit(0)", "failed"),
    "end at once": ("import os\nos._exit(0)", "failed"),
    "kills its parent": ("import os\nos.kill(os.getppid(), 9)", "failed"),
    "kills its group": ("import os\nos.killpg(0, 9)", "failed"),
    "reads a file": ("open('/etc/passwd').read()", "failed"),
    "lists a folder": ("import os\nos.listdir('/')", "failed"),
    "socket": ("import _socket\n_socket.socket()", "failed"),
    "waits": ("import time\ntime.sleep(1000)", "failed"),
    "floods": ("import os\nwhile True: os.write(1, b'x' * 1000)", "failed"),
    "recursion": ("def f(): f()\nf()", "failed"),
    "raises its limits": (
        "import ctypes\nl = (ctypes.c_ulong * 2)(2**40, 2**40)\n"
        "assert ctypes.CDLL(None).setrlimit(9, l) == 0",
        "failed",
    ),
    "a seeming answer": ("import os\nos.write(1, b'passed')\nos._exit(0)", "failed"),
}


@pytest.mark.parametrize("case", PASSING)
def test_a_program_that_comes_to_its_end_passes(case: str) -> None:
    assert execution.run(PASSING[case]) == "passed"


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_program_is_contained(case: str) -> None:
    program, wanted = HOSTILE[case]
    began, before = time.monotonic(), {p.pid for p in psutil.Process().children(recursive=True)}
    assert execution.run(program, seconds=1, memory=200 << 20) == wanted
    assert time.monotonic() - began < 4 + execution.STARTING + 5
    assert {p.pid for p in psutil.Process().children(recursive=True)} <= before


WRITES = {
    "open": "open({0!r}, 'w').write('x')",
    "os": "import os\nos.close(os.open({0!r}, os.O_CREAT | os.O_WRONLY))",
    "link": "import os\nos.symlink('/etc/passwd', {0!r})",
    "folder": "import os\nos.mkdir({0!r})",
    "shell": "import ctypes\nctypes.CDLL(None).system(b'touch ' + {0!r}.encode())\n1 / 0",
    "through a process": "import os\nos.posix_spawn('/bin/touch', ['touch', {0!r}], {{}})",
}


@pytest.mark.parametrize("way", WRITES)
def test_no_file_is_written(way: str, tmp_path: Path) -> None:
    made = tmp_path / "made"
    assert execution.run(WRITES[way].format(str(made)), seconds=2) == "failed"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "way",
    [
        "import os\nassert 'FUSELAB_SECRET' not in os.environ and 'PATH' not in os.environ\n1 / 0",
        "import os\nopen(f'/proc/{os.getppid()}/environ').read()",
        "import os\nos.read(os.open('/proc/self/environ', os.O_RDONLY), 10)",
        "import ctypes\nassert ctypes.CDLL(None).getenv(b'FUSELAB_SECRET')",
    ],
)
def test_the_environment_is_out_of_reach(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSELAB_SECRET", "x")
    assert execution.run(way, seconds=2) == "failed"


def test_every_right_body_of_the_toy_suite_passes_and_an_empty_one_fails() -> None:
    for item in corpus.exercises("code", "test", 6, seed=3):
        assert execution.run(item.prompt + item.answer + item.checks) == "passed"
        assert execution.run(f"{item.prompt}    pass\n{item.checks}") == "failed"


@pytest.mark.parametrize("system", ["win32", "darwin", "linux"])
def test_where_nothing_contains_programs_none_is_run(
    system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    if system == "linux":
        monkeypatch.setattr(execution.sandbox, "CALLS", {})
    with pytest.raises(InputError, match="leave --run-code out"):
        execution.run("pass")
