"""How many small faults the tests notice: mutation testing.

    FUSELAB_TESTDATA=… python benchmarks/mutation.py

changes one place of a module at a time, runs the tests that are meant for it, and writes
benchmarks/results/mutation.md: for each module how many of the mutants were killed, and every one
that lived with the reason, where there is one. Modules, their tests and the reasons stand in
benchmarks/mutation.toml. ``--module fusion_core/align/by_bytes.py`` writes one module's part anew,
``--sample 0`` tries every mutant.

The mutants are those of cosmic-ray: comparisons, arithmetic, constants by one, and/or, not, loops
without a round. Of its replacements of an operator only the near ones are taken, since `a ** b` for
`a + b` is killed by any test at all, and 0 becomes 1 alone, since axis -1 of a vector is its axis
0; what it lacks stands in mutants.py: keywords that are left out, min for max, calls and statements
that are skipped. Annotations and decorators do nothing and are left alone, and so are limits of
memory (`…CELLS`). Its own runner starts Python for each mutant, where importing torch takes longer
than the tests. Here everything but the project is imported once, and each mutant is tried in a
fork, on a copy of the tree in a temporary folder.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.abc
import importlib.util
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mutants import Mutant, mutants

HERE = Path(__file__).resolve().parent
SETTINGS = tomllib.loads((HERE / "mutation.toml").read_text(encoding="utf-8"))
RESULTS = HERE / "results" / "mutation.md"
HEAD = """
# Mutants

`FUSELAB_TESTDATA=… python benchmarks/mutation.py`: of every module some mutants, drawn with a seed,
and what lived of them with the reason. At least 85 % of a room's are to be killed.
"""

# Trying them ------------------------------------------------------------------------------------


class Instead(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    """Import hook that reads one module from a string."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self.name, self.path, self.source = name, path, source

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        """Answer for the one module."""
        if name != self.name:
            return None
        inside = [str(self.path.parent)] if self.path.name == "__init__.py" else None
        return importlib.util.spec_from_file_location(
            name, self.path, loader=self, submodule_search_locations=inside
        )

    def get_filename(self, fullname: str) -> str:
        """Name the file, as the module's `__file__`."""
        return str(self.path)

    def get_data(self, path: str | Path) -> bytes:
        """Return the source; there is no other."""
        if Path(path) != self.path:
            raise OSError(path)
        return self.source.encode()


class Trial:
    """The tests of a module, run in forks on a copy of the tree."""

    def __init__(self, copy: Path, module: str, tests: Sequence[str]) -> None:
        self.copy, self.path, self.tests = copy, copy / module, tests
        self.name = module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        self.log = copy / "log.txt"

    def start(self, source: str, note: Path | None = None) -> int:
        """Fork, and run the tests there with the module read from ``source``."""
        pid = os.fork()
        if pid:
            return pid
        code = 70
        try:
            os.setsid()
            self.quiet()
            sys.meta_path.insert(0, Instead(self.name, self.path, source))
            code = self.pytest()
            if note:
                code = code or 71 * (self.name not in sys.modules)
                loaded = [n for n, m in sys.modules.items() if not self.ours(m)]
                note.write_text("\n".join(loaded), encoding="utf-8")
        finally:
            os._exit(code)

    def quiet(self) -> None:
        """Work in the copy, and write to the log."""
        os.chdir(self.copy)
        out = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)

    def ours(self, module: Any) -> bool:
        """Tell whether a module belongs to the project."""
        return str(self.copy) in str(getattr(module, "__file__", ""))

    def pytest(self) -> int:
        """Run the tests until one fails."""
        import hypothesis
        import pytest

        phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]  # one failure will do
        hypothesis.settings.register_profile(
            "mutation", derandomize=True, database=None, phases=phases
        )
        hypothesis.settings.load_profile("mutation")
        sys.path[:0] = [str(self.copy), str(self.copy / "tests")]
        plain = ["-xq", "-pno:cacheprovider", "-pno:nbmake", "-oaddopts=", "-Wignore"]
        return int(pytest.main([*plain, "-m", "not slow and not real", *self.tests]))

    def baseline(self) -> float:
        """Run the tests on the module as it is; return the seconds that they take.

        Twice: what the first run has imported is imported here, for all later forks.
        """
        source, note = self.path.read_text(encoding="utf-8"), self.copy / "modules.txt"
        for _ in range(2):
            begin = time.monotonic()
            _, status = os.waitpid(self.start(source, note), 0)
            if status:
                raise SystemExit(f"{self.name} as it is:\n" + self.log.read_text("utf-8"))
            seconds = time.monotonic() - begin
            for name in note.read_text("utf-8").split():
                with suppress(Exception):
                    importlib.import_module(name)
        return seconds

    def survivors(self, some: Sequence[Mutant], limit: float, jobs: int) -> list[Mutant]:
        """Try mutants, some at a time; what is not over by the limit is killed."""
        waiting, lived = list(some), []
        running: dict[int, tuple[Mutant, float]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    mutant = waiting.pop(0)
                    running[self.start(mutant.source)] = mutant, time.monotonic() + limit
                time.sleep(0.02)
                lived += self.finished(running)
        finally:
            for pid in running:  # a key was pressed
                os.killpg(pid, signal.SIGKILL)
        return sorted(lived, key=lambda m: m.line)

    @staticmethod
    def finished(running: dict[int, tuple[Mutant, float]]) -> list[Mutant]:
        """Take away what is done, and what is late; return what has lived."""
        lived = []
        for pid, (mutant, end) in list(running.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if not done and time.monotonic() < end:
                continue
            del running[pid]
            if not done:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            elif status == 0:
                lived.append(mutant)
                print(f"lives: {mutant.line}: {mutant.old} -> {mutant.new}", flush=True)
        return lived


def sampled(module: str, every: list[Mutant], n: int, seed: int) -> list[Mutant]:
    """Draw n mutants of a module, or take all where n is 0."""
    if not n or n >= len(every):
        return every
    return random.Random(f"{seed} {module}").sample(every, n)


# The table --------------------------------------------------------------------------------------


def reason(module: str, mutant: Mutant) -> str:
    """Look up why a mutant cannot be killed."""
    for known in SETTINGS["module"][module].get("lives", []) + SETTINGS["lives"]:
        if known["old"] in mutant.old and known["new"] in mutant.new:
            return str(known["why"])
    return "not explained"


def section(module: str, possible: int, n: int, lived: list[Mutant]) -> str:
    """Write what came of a module as Markdown."""
    lines = [f"## `{module}`", "", f"{n - len(lived)} of {n} killed; {possible} are possible."]
    lines += [""] * bool(lived)
    for m in lived:
        lines.append(f"- {m.line}: `{m.old}` -> `{m.new}`: {reason(module, m)}")
    return "\n".join(lines) + "\n"


def table(sections: dict[str, str]) -> str:
    """Sum the sections up."""
    lines = [
        "| module | possible | tried | killed | share |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    rooms: dict[str, list[int]] = {}
    for module, text in sections.items():
        killed, n, possible = map(int, re.findall(r"(\d+) of (\d+) killed; (\d+)", text)[0])
        lines.append(f"| `{module}` | {possible} | {n} | {killed} | {killed / max(n, 1):.0%} |")
        room = rooms.setdefault(module.split("/")[1].removesuffix(".py"), [0, 0, 0])
        room[:] = [a + b for a, b in zip(room, (possible, n, killed), strict=True)]
    for room, (possible, n, killed) in rooms.items():
        lines.append(f"| *{room}* | {possible} | {n} | {killed} | {killed / max(n, 1):.0%} |")
    return "\n".join(lines) + "\n"


def update(module: str, text: str) -> None:
    """Put a module's section in its place in the results."""
    found = RESULTS.read_text(encoding="utf-8").split("\n## `")[1:] if RESULTS.exists() else []
    sections = {part.split("`")[0]: f"## `{part}".strip() + "\n" for part in found} | {module: text}
    kept = {name: sections[name] for name in SETTINGS["module"] if name in sections}
    parts = [HEAD.strip() + "\n", table(kept), *kept.values()]
    RESULTS.write_text("\n".join(parts), encoding="utf-8")


def main() -> None:
    """Try the mutants of all modules, or of some."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--module", action="append", help="try this one; may be repeated")
    parser.add_argument("--sample", type=int, default=40, help="mutants a module; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        copy = copied(Path(folder) / "tree")
        for module in options.module or SETTINGS["module"]:
            trial = Trial(copy, module, SETTINGS["module"][module]["tests"])
            every = mutants(trial.path.read_text(encoding="utf-8"))
            some = sampled(module, every, options.sample, options.seed)
            lived = trial.survivors(some, 5 + 5 * trial.baseline(), options.jobs)
            print(f"{module}: {len(some) - len(lived)} of {len(some)} killed", flush=True)
            update(module, section(module, len(every), len(some), lived))


def copied(copy: Path) -> Path:
    """Copy what the tests need of the tree."""
    copy.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", "*.safetensors")
    for part in ("fusion_core", "tests", "app"):
        shutil.copytree(HERE.parent / part, copy / part, ignore=ignored)
    return copy


if __name__ == "__main__":
    main()
