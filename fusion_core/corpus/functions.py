"""Small Python functions with docstring and examples that run: the *code* domain."""

from dataclasses import dataclass
from typing import Any

from fusion_core.corpus.function_kinds import KINDS, Kind
from fusion_core.corpus.names import Draw


@dataclass(frozen=True)
class Function:
    """One generated function.

    Attributes:
        name: its name.
        signature: the `def` line.
        about: the docstring's first line.
        body: the indented body.
        examples: calls with the values they return.
    """

    name: str
    signature: str
    about: str
    body: str
    examples: tuple[tuple[str, Any], ...]


def function(draw: Draw, kind: Kind | None = None) -> Function:
    """Draws a function with three different examples.

    Args:
        draw: the stream of choices.
        kind: the family, or None for any.
    """
    kind = kind or draw.one(KINDS)
    k, _ = draw.pair((2, 9), (0, 99))
    name = f"{draw.one(kind.verbs.split())}_{draw.name('identifier')}"
    lines = draw.one(kind.bodies).replace("{self}", name).replace("{k}", str(k)).split("|")
    body = "\n".join(
        "    " + "  " * (len(line) - len(line.lstrip("."))) + line.lstrip(".") for line in lines
    )
    examples: dict[str, Any] = {}
    while len(examples) < 3:
        arguments = kind.arguments(draw, k)
        call = f"{name}({', '.join(quoted(value) for value in arguments)})"
        examples[call] = kind.compute(k, *arguments)
    signature = f"def {name}({kind.parameters}):"
    about = draw.one(kind.about).replace("{k}", str(k))
    return Function(name, signature, about, body, tuple(examples.items()))


def quoted(value: Any) -> str:
    """Spells a value as Python does, but with double quotes around strings."""
    return repr(value).replace("'", '"')


def source(item: Function, intro: str = "") -> str:
    """Writes a function whose docstring holds one example, and asserts for the other two.

    Args:
        item: the function.
        intro: more docstring text to put above the examples.
    """
    call, value = item.examples[0]
    doc = f'    """{item.about}\n\n{intro}    >>> {call}\n    {value!r}\n    """'
    checks = [f"assert {call} == {quoted(value)}" for call, value in item.examples[1:]]
    return "\n".join([item.signature, doc, item.body, "", *checks])


def document(draw: Draw) -> str:
    """Writes one function with its examples."""
    return source(function(draw))


def slips(draw: Draw, value: Any) -> list[Any]:
    """Lists wrong values of the same type, as a careless reader would give.

    Args:
        draw: the stream of choices.
        value: the right value.

    Returns:
        At least three different wrong values, or none for a truth value.
    """
    if isinstance(value, bool):
        return []
    if isinstance(value, int):
        return [value + 1, value + 2, value - 1, value + 10, 2 * value + 3]
    if isinstance(value, str):
        return [value + value[0], value[1:] + value[0], value[:-1], value[::-1] + "e"]
    if isinstance(value, dict):
        return [{word: length + d for word, length in value.items()} for d in (1, -1, 2)]
    bumped = [[*value[:-1], last] for last in slips(draw, value[-1])[:2]] if value else [[1], [2]]
    return [*bumped, value[:-1], value[::-1], [*value, *value[:1]], [0, *value]]


def question(draw: Draw) -> tuple[str, str, list[str]]:
    """Draws a function and stops before the value of its last call.

    Returns:
        The prompt, the right continuation and the wrong ones.
    """
    while True:
        item = function(draw)
        value = item.examples[-1][1]
        right = quoted(value)
        wrong = [quoted(slip) for slip in slips(draw, value)]
        wrong = [text for text in dict.fromkeys(wrong) if text != right]
        if len(wrong) >= 3:
            prompt = source(item).rsplit(" == ", 1)[0] + " =="
            return prompt, f" {right}", [f" {text}" for text in draw.some(wrong, 3)]


def exercise(draw: Draw) -> tuple[str, str, str]:
    """Draws a function whose body is to be written.

    Returns:
        The document up to the body, a right body, and asserts for all of its examples.
    """
    item = function(draw)
    checks = "\n".join(f"assert {call} == {value!r}" for call, value in item.examples)
    return source(item).partition(item.body)[0], f"{item.body}\n", checks
