"""How many small faults the tests notice: mutation testing.

    FUSELAB_TESTDATA=… python benchmarks/mutation.py

changes one place of a module at a time, runs the tests that are meant for it, and writes
benchmarks/results/mutation.md: for each module how many of the mutants were killed, and every one
that lived with the reason, where there is one. Modules, their tests and the reasons stand in
benchmarks/mutation.toml. ``--module fusion_core/align/by_bytes.py`` tries one module and prints
its survivors, ``--sample 0`` every mutant.

The mutants are those of cosmic-ray: comparisons, arithmetic, constants by one, and/or, not, loops
without a round. Of its replacements of an operator only the near ones are taken, since `a ** b` for
`a + b` is killed by any test at all, and 0 becomes 1 alone, since axis -1 of a vector is its
axis 0; what it lacks stands below: keywords that are left out, min
for max, calls and statements that are skipped. Annotations and decorators do nothing and are left
alone. Its own runner starts Python for each mutant, where importing torch takes longer than the
tests. Here everything but the project is imported once, and each mutant is tried in a fork, on a
copy of the tree in a temporary folder.
"""

from __future__ import annotations

import argparse
import ast
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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.number_replacer import NumberReplacer
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator

HERE = Path(__file__).resolve().parent
SETTINGS = tomllib.loads((HERE / "mutation.toml").read_text(encoding="utf-8"))
JOBS = 2
NEAR = """
Binary: Add_Sub Sub_Add Mul_Div Div_Mul FloorDiv_Div FloorDiv_Mul Mod_FloorDiv Pow_Mul RShift_LShift
    LShift_RShift BitOr_BitAnd BitAnd_BitOr BitXor_BitOr
Comparison: Eq_NotEq NotEq_Eq Lt_LtE Lt_GtE LtE_Lt LtE_Gt Gt_GtE Gt_LtE GtE_Gt GtE_Lt Is_IsNot
    IsNot_Is
Unary: Delete_USub Delete_Not Delete_Invert
"""
OTHERS = (
    "AddNot ReplaceTrueWithFalse ReplaceFalseWithTrue ReplaceAndWithOr ReplaceOrWithAnd "
    "ReplaceBreakWithContinue ReplaceContinueWithBreak NumberReplacer ZeroIterationForLoop"
)
SWAPS = [
    *("min max", "amin amax", "minimum maximum", "argmin argmax", "floor ceil", "sin cos"),
    *("any all", "ones zeros", "new_ones new_zeros", "ones_like zeros_like", '"left" "right"'),
]
AUGMENTED = {"+=", "-=", "*=", "/=", "|=", "&="}
GUARDS = {"strict", "device"}
"""Keywords that only guard, or that show on an accelerator alone."""

SKIPPED = {"clip", "clamp", "clamp_", "abs", "masked_fill", "detach", "unique", "sort", "T", "log"}
"""Attributes whose call, or mention, can be left out."""


# What cosmic-ray lacks --------------------------------------------------------------------------


class Own(Operator):
    """Operator whose mutants are written as text in the place of a node."""

    def texts(self, node: Any) -> Iterable[str]:
        """Write what may stand in a node's place."""
        raise NotImplementedError

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        """List the node's place once for each text."""
        for _ in self.texts(node):
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """Put a text in the node's place."""
        prefix = node.get_first_leaf().prefix
        return parso.python.tree.Name(list(self.texts(node))[index], node.start_pos, prefix)

    @classmethod
    def examples(cls) -> tuple[()]:
        """Nothing: cosmic-ray's tests of its plugins ask for it."""
        return ()


class SwapName(Own):
    """min for max, and the like."""

    def texts(self, node: Any) -> Iterable[str]:
        """Write what may stand in a node's place."""
        pairs = [pair.split() for pair in SWAPS]
        other = dict(pairs) | {b: a for a, b in pairs}
        if node.type in ("name", "string") and node.value in other:
            yield other[node.value]


class DropKeyword(Own):
    """A call without one of its keyword arguments."""

    def texts(self, node: Any) -> Iterable[str]:
        """Write what may stand in a node's place."""
        if node.type == "trailer" and node.children[0] == "(" and len(node.children) == 3:
            inside = node.children[1]
            parts = inside.children[::2] if inside.type == "arglist" else [inside]
            for part in parts:
                named = part.type == "argument" and part.children[1] == "="
                if named and part.children[0].value not in GUARDS:
                    rest = [p.get_code().strip() for p in parts if p is not part]
                    yield f"({', '.join(rest)})"


class SkipCall(Own):
    """A chain of calls without one of them."""

    def texts(self, node: Any) -> Iterable[str]:
        """Write what may stand in a node's place."""
        if node.type != "atom_expr":
            return
        for i, child in enumerate(node.children):
            if child.type == "trailer" and child.children[-1] in SKIPPED:
                call = i + 1 < len(node.children) and node.children[i + 1].get_code()[0] == "("
                rest = node.children[:i] + node.children[i + 1 + call :]
                yield "".join(part.get_code() for part in rest).strip()


class SkipStatement(Own):
    """A statement that changes something in place, left out."""

    def texts(self, node: Any) -> Iterable[str]:
        """Write what may stand in a node's place."""
        changes = node.type == "expr_stmt" and (
            node.children[0].type in ("atom_expr", "power") or node.children[1] in AUGMENTED
        )
        call = node.type == "atom_expr" and node.parent.type == "simple_stmt"
        if changes or call:
            yield "pass"


# Mutants ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mutant:
    """A module with one place changed; `old` and `new` are that line, before and after."""

    line: int
    old: str
    new: str
    source: str


def operators() -> list[Operator]:
    """List the operators that make mutants."""
    names = list(OTHERS.split())
    for kind, near in (part.split(":") for part in NEAR.replace("\n    ", " ").strip().split("\n")):
        middle = "" if kind == "Unary" else "Operator"
        stem = f"Replace{kind}Operator" if middle else "ReplaceUnaryOperator"
        names += [f"{stem}_{one}" for one in near.split()]
    own = [SwapName(), DropKeyword(), SkipCall(), SkipStatement()]
    return [get_operator(f"core/{name}")() for name in names] + own


def left_alone(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """List the stretches of annotations, decorators, `__all__` and keywords that guard."""
    nodes: list[Any] = []
    for node in ast.walk(ast.parse(source)):
        nodes += [getattr(node, "annotation", None), getattr(node, "returns", None)]
        nodes += getattr(node, "decorator_list", [])
        listed = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        if listed or (isinstance(node, ast.keyword) and node.arg in GUARDS):
            nodes.append(node)
    return [
        ((n.lineno, n.col_offset), (n.end_lineno, n.end_col_offset)) for n in nodes if n is not None
    ]


def mutants(source: str) -> list[Mutant]:
    """Make every mutant of a module, each once, by line."""
    found: dict[str, Mutant] = {}
    still, plain = left_alone(source), ast.dump(ast.parse(source))
    nodes = list(ast_nodes(get_ast(source)))
    for operator in operators():
        places = [place for node in nodes for place in operator.mutation_positions(node)]
        for i, (start, _) in enumerate(places):
            if any(first <= start < last for first, last in still):
                continue
            if isinstance(operator, NumberReplacer) and i % 2 and number_at(source, start) == "0":
                continue
            changed = mutate_code(source, operator, i)
            # As if `not` were left out; a star among parameters taken for a product.
            if "not not" in changed or re.search(r"[(,]\s*[/+-],", changed):
                continue
            with suppress(SyntaxError):
                dump = ast.dump(ast.parse(changed))
                if dump != plain:
                    found.setdefault(dump, named(source, changed))
    return sorted(found.values(), key=lambda m: (m.line, m.new))


def number_at(source: str, start: tuple[int, int]) -> str:
    """Read the number at a line and column."""
    found = re.match(r"[\w.]+", source.split("\n")[start[0] - 1][start[1] :])
    return found[0] if found else ""


def named(source: str, changed: str) -> Mutant:
    """Find the line that differs."""
    before, after = source.split("\n"), changed.split("\n")
    line = next(i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b)
    new = re.sub(r"(?<=[-(\[=]) (?=[-\d])", "", " ".join(after[line].split()))
    return Mutant(line + 1, before[line].strip(), new, changed)


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

        hypothesis.settings.register_profile("mutation", derandomize=True, database=None)
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

    def survivors(self, some: Sequence[Mutant], limit: float) -> list[Mutant]:
        """Try mutants, `JOBS` at a time; what is not over by the limit is killed."""
        waiting, running, lived = list(some), {}, []  # type: ignore[var-annotated]
        while waiting or running:
            while waiting and len(running) < JOBS:
                mutant = waiting.pop(0)
                running[self.start(mutant.source)] = mutant, time.monotonic() + limit
            time.sleep(0.02)
            for pid, (mutant, end) in list(running.items()):
                done, status = os.waitpid(pid, os.WNOHANG)
                late = not done and time.monotonic() > end
                if late:
                    os.killpg(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                if done or late:
                    del running[pid]
                    if done and status == 0:
                        lived.append(mutant)
                        print(f"lives: {mutant.line}: {mutant.old} -> {mutant.new}", flush=True)
        return sorted(lived, key=lambda m: m.line)


def sampled(module: str, every: list[Mutant], n: int, seed: int) -> list[Mutant]:
    """Draw n mutants of a module, or take all where n is 0."""
    if not n or n >= len(every):
        return every
    return random.Random(f"{seed} {module}").sample(every, n)


# The table --------------------------------------------------------------------------------------


def reason(module: str, mutant: Mutant) -> str:
    """Look up why a mutant cannot be killed."""
    for known in SETTINGS["module"][module].get("lives", []):
        if known["old"] in mutant.old and known["new"] in mutant.new:
            return str(known["why"])
    return "not explained"


def report(tried: dict[str, tuple[int, int, float, list[Mutant]]], options: Any) -> str:
    """Write the results as Markdown."""
    lines = ["# Mutants", "", "`python benchmarks/mutation.py`"]
    lines[-1] += f"; at most {options.sample} mutants a module, drawn with seed {options.seed}."
    lines += ["", "| module | possible | tried | killed | share | seconds |"]
    lines += ["| --- | ---: | ---: | ---: | ---: | ---: |"]
    for module, (possible, n, seconds, lived) in tried.items():
        killed = n - len(lived)
        share = f"{killed / max(n, 1):.0%}"
        lines.append(f"| `{module}` | {possible} | {n} | {killed} | {share} | {seconds:.0f} |")
    n, lives = (sum(x) for x in zip(*((t[1], len(t[3])) for t in tried.values()), strict=True))
    lines += [f"| all | | {n} | {n - lives} | {(n - lives) / max(n, 1):.0%} | |", ""]
    lines += ["## What lived", ""]
    for module, (*_, lived) in tried.items():
        for m in lived:
            lines.append(f"- `{module}:{m.line}` `{m.old}` -> `{m.new}`: {reason(module, m)}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Try the mutants of all modules, or of one."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--module", action="append", help="try this one, and write no file")
    parser.add_argument("--sample", type=int, default=80, help="mutants a module; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    tried = {}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "tree"
        for part in ("fusion_core", "tests", "app", "pyproject.toml"):
            whole = HERE.parent / part
            ignore = shutil.ignore_patterns("__pycache__", "*.safetensors")
            copying = shutil.copytree if whole.is_dir() else shutil.copy
            copy.mkdir(exist_ok=True)
            copying(whole, copy / part, **({"ignore": ignore} if whole.is_dir() else {}))
        for module in options.module or SETTINGS["module"]:
            begin = time.monotonic()
            source = (copy / module).read_text(encoding="utf-8")
            trial = Trial(copy, module, SETTINGS["module"][module]["tests"])
            limit = 5 + 4 * trial.baseline()
            every = mutants(source)
            some = sampled(module, every, options.sample, options.seed)
            lived = trial.survivors(some, limit)
            tried[module] = len(every), len(some), time.monotonic() - begin, lived
            print(f"{module}: {len(some) - len(lived)} of {len(some)} killed", flush=True)
    text = report(tried, options)
    if options.module:
        print(text)
    else:
        (HERE / "results" / "mutation.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
