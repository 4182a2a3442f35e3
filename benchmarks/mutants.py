"""Small faults in a module's source: the mutants of cosmic-ray that are near, and some more."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.number_replacer import NumberReplacer
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator

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
    """List the stretches of annotations, decorators, `__all__`, guards and limits of memory."""
    nodes: list[Any] = []
    for node in ast.walk(ast.parse(source)):
        nodes += [getattr(node, "annotation", None), getattr(node, "returns", None)]
        nodes += getattr(node, "decorator_list", [])
        name = ast.unparse(node.targets[0]) if isinstance(node, ast.Assign) else ""
        listed = name == "__all__" or name.endswith("CELLS")
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
