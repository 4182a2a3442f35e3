"""The families of functions that the *code* domain draws from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fusion_core.corpus.names import Draw

Arguments = Callable[[Draw, int], tuple[Any, ...]]


@dataclass(frozen=True)
class Kind:
    """A family of functions.

    Attributes:
        verbs: beginnings of the function's name.
        parameters: names of the parameters.
        about: docstring lines; `{k}` stands for the function's constant.
        bodies: equivalent bodies, the lines separated by `|`, indented by leading dots.
        arguments: draws the arguments of one example.
        compute: what the function returns, given the constant and the arguments.
    """

    verbs: str
    parameters: str
    about: tuple[str, ...]
    bodies: tuple[str, ...]
    arguments: Arguments
    compute: Callable[..., Any]


def _numbers(draw: Draw, k: int) -> tuple[Any, ...]:
    size = draw.number(3, 5)
    return ([draw.number(1, 12) for _ in range(size)],)


def _numbers_and_limit(draw: Draw, k: int) -> tuple[Any, ...]:
    return (*_numbers(draw, k), draw.number(2, 12))


def _integer(draw: Draw, k: int) -> tuple[Any, ...]:
    return (draw.number(1, 30),)


def _small(draw: Draw, k: int) -> tuple[Any, ...]:
    return (draw.number(1, 6),)


def _word(draw: Draw, k: int) -> tuple[Any, ...]:
    return (draw.name("identifier"),)


def _words(draw: Draw, k: int) -> tuple[Any, ...]:
    return (draw.names("identifier", 3),)


def _word_and_count(draw: Draw, k: int) -> tuple[Any, ...]:
    return (draw.name("identifier"), draw.number(2, 3))


def _two_lists(draw: Draw, k: int) -> tuple[Any, ...]:
    left = [draw.number(1, 12) for _ in range(3)]
    return (left, [draw.number(1, 12) for _ in range(3)])


KINDS: tuple[Kind, ...] = (
    Kind(
        "scale multiply",
        "values",
        ("Multiply every value by {k}.", "Return the values times {k}."),
        (
            "return [value * {k} for value in values]",
            "result = []|for value in values:|..result.append(value * {k})|return result",
        ),
        _numbers,
        lambda k, values: [value * k for value in values],
    ),
    Kind(
        "shift raise",
        "values",
        ("Add {k} to every value.",),
        (
            "return [value + {k} for value in values]",
            "result = []|for value in values:|..result.append(value + {k})|return result",
        ),
        _numbers,
        lambda k, values: [value + k for value in values],
    ),
    Kind(
        "filter keep",
        "values, limit",
        ("Keep the values above the limit.",),
        (
            "return [value for value in values if value > limit]",
            "kept = []|for value in values:|..if value > limit:|....kept.append(value)|return kept",
        ),
        _numbers_and_limit,
        lambda k, values, limit: [value for value in values if value > limit],
    ),
    Kind(
        "count tally",
        "values, limit",
        ("Count the values below the limit.",),
        (
            "return sum(1 for value in values if value < limit)",
            "count = 0|for value in values:|..if value < limit:|....count += 1|return count",
        ),
        _numbers_and_limit,
        lambda k, values, limit: sum(1 for value in values if value < limit),
    ),
    Kind(
        "largest highest",
        "values",
        ("Return the largest value.",),
        (
            "return max(values)",
            "best = values[0]|for value in values[1:]:|..if value > best:|....best = value"
            "|return best",
        ),
        _numbers,
        lambda k, values: max(values),
    ),
    Kind(
        "smallest lowest",
        "values",
        ("Return the smallest value.",),
        ("return min(values)", "return sorted(values)[0]"),
        _numbers,
        lambda k, values: min(values),
    ),
    Kind(
        "clamp bound",
        "value",
        ("Limit the value to at most {k}.",),
        ("return min(value, {k})", "if value > {k}:|..return {k}|return value"),
        _integer,
        lambda k, value: min(value, k),
    ),
    Kind(
        "divides fits",
        "number",
        ("Tell whether the number is divisible by {k}.",),
        ("return number % {k} == 0", "if number % {k} == 0:|..return True|return False"),
        _integer,
        lambda k, number: number % k == 0,
    ),
    Kind(
        "reverse flip",
        "text",
        ("Return the text backwards.",),
        (
            "return text[::-1]",
            'result = ""|for letter in text:|..result = letter + result|return result',
        ),
        _word,
        lambda k, text: text[::-1],
    ),
    Kind(
        "repeat echo",
        "text, times",
        ("Repeat the text, joined by dashes.",),
        ('return "-".join([text] * times)', 'parts = [text] * times|return "-".join(parts)'),
        _word_and_count,
        lambda k, text, times: "-".join([text] * times),
    ),
    Kind(
        "shout upper",
        "words",
        ("Return the words in capitals.",),
        (
            "return [word.upper() for word in words]",
            "return list(map(str.upper, words))",
        ),
        _words,
        lambda k, words: [word.upper() for word in words],
    ),
    Kind(
        "measure lengths",
        "words",
        ("Map each word to its length.",),
        (
            "return {word: len(word) for word in words}",
            "table = {}|for word in words:|..table[word] = len(word)|return table",
        ),
        _words,
        lambda k, words: {word: len(word) for word in words},
    ),
    Kind(
        "combine merge",
        "left, right",
        ("Add two lists item by item.",),
        (
            "return [a + b for a, b in zip(left, right)]",
            "total = []|for a, b in zip(left, right):|..total.append(a + b)|return total",
        ),
        _two_lists,
        lambda k, left, right: [a + b for a, b in zip(left, right, strict=True)],
    ),
    Kind(
        "span steps",
        "count",
        ("List the first multiples of {k}.",),
        (
            "return [{k} * i for i in range(1, count + 1)]",
            "result = []|for i in range(count):|..result.append({k} * (i + 1))|return result",
        ),
        _small,
        lambda k, count: [k * i for i in range(1, count + 1)],
    ),
    Kind(
        "power grow",
        "depth",
        ("Multiply {k} by two, depth times over.",),
        (
            "if depth == 0:|..return {k}|return 2 * {self}(depth - 1)",
            "result = {k}|for _ in range(depth):|..result *= 2|return result",
        ),
        _small,
        lambda k, depth: k * 2**depth,
    ),
    Kind(
        "initials letters",
        "words",
        ("Join the first letters of the words.",),
        (
            'return "".join(word[0] for word in words)',
            'letters = ""|for word in words:|..letters += word[0]|return letters',
        ),
        _words,
        lambda k, words: "".join(word[0] for word in words),
    ),
)
