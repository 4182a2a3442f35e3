"""Word problems with worked answers: the *reasoning* domain.

Every line of work is a chain of equal arithmetic expressions (`47 + 38 = 77 + 8 = 85`) or an order
(`Mara > Tilo > Besa`), so that an answer can be checked without knowing the problem.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from fusion_core.corpus.names import Draw

_GOODS = "pencil apple ticket stamp marble notebook sticker brick candle button postcard ribbon"
GOODS = [*_GOODS.split(), "cushion", "tile", "lamp", "badge"]


@dataclass(frozen=True)
class Problem:
    """A word problem and its solution.

    Attributes:
        statement: what is given and what is asked.
        work: lines of equations or orders, the last of which leads to the answer.
        answer: the answer, without its unit.
        unit: what the answer counts, or the empty string.
        wrong: plausible wrong answers, all different from the answer.
    """

    statement: str
    work: tuple[str, ...]
    answer: str
    unit: str
    wrong: tuple[str, ...]


def add(a: int, b: int) -> str:
    """Works out a sum by tens and ones: `47 + 38 = 77 + 8 = 85`."""
    middle = f" = {a + b - b % 10} + {b % 10}" if a >= 10 and b >= 10 and b % 10 else ""
    return f"{a} + {b}{middle} = {a + b}"


def subtract(a: int, b: int) -> str:
    """Works out a difference by tens and ones: `85 - 38 = 55 - 8 = 47`."""
    middle = f" = {a - b + b % 10} - {b % 10}" if b >= 10 and b % 10 else ""
    return f"{a} - {b}{middle} = {a - b}"


def multiply(a: int, b: int) -> str:
    """Works out a product by tens and ones: `6 * 14 = 60 + 24 = 84`."""
    middle = f" = {a * (b - b % 10)} + {a * (b % 10)}" if b > 10 and b % 10 else ""
    return f"{a} * {b}{middle} = {a * b}"


def divide(a: int, b: int) -> str:
    """Works out a division through its product: `84 / 6 = 6 * 14 / 6 = 14`."""
    return f"{a} / {b} = {b} * {a // b} / {b} = {a // b}"


def _numeric(draw: Draw, statement: str, work: list[str], answer: int, unit: str) -> Problem:
    """Makes a problem whose wrong answers are slips of one, of ten, or of two digits swapped."""
    slips = [answer + 1, answer - 1, answer + 10, answer - 10, answer + 2, answer + 11]
    swapped = int(str(answer)[::-1])
    wrong = [str(n) for n in dict.fromkeys([swapped, *slips]) if n not in (answer, 0) and n > 0]
    return Problem(statement, tuple(work), str(answer), unit, tuple(draw.some(wrong, 3)))


def _shopping(draw: Draw) -> Problem:
    a, b = draw.pair((2, 9), (3, 19))
    who, item = draw.name("pupil"), draw.one(GOODS)
    ask = draw.one(["How much does {} pay?", "What is the total price for {}?"]).format(who)
    given = f"{who} buys {a} {item}s. Each {item} costs {b} €."
    return _numeric(draw, f"{given} {ask}", [multiply(a, b)], a * b, "€")


def _change(draw: Draw) -> Problem:
    a, b = draw.pair((2, 6), (3, 15))
    who, item = draw.name("pupil"), draw.one(GOODS)
    paid = (a * b // 50 + 1) * 50
    given = f"{who} takes {a} {item}s at {b} € each and pays with {paid} €."
    work = [multiply(a, b), subtract(paid, a * b)]
    return _numeric(draw, f"{given} How much change is due?", work, paid - a * b, "€")


def _sharing(draw: Draw) -> Problem:
    a, b = draw.pair((3, 9), (4, 15))
    who, item = draw.name("pupil"), draw.one(GOODS)
    given = f"{who} shares {a * b} {item}s equally among {a} children."
    ask = f"How many {item}s does each child receive?"
    return _numeric(draw, f"{given} {ask}", [divide(a * b, a)], b, f"{item}s")


def _gain_and_loss(draw: Draw) -> Problem:
    a, b = draw.pair((12, 60), (11, 39))
    c = draw.number(3, 11)
    who, other = draw.names("pupil", 2)
    item = draw.one(GOODS)
    given = f"{who} has {a} {item}s, gets {b} more and then gives {c} to {other}."
    work = [add(a, b), subtract(a + b, c)]
    ask = f"How many {item}s are left for {who}?"
    return _numeric(draw, f"{given} {ask}", work, a + b - c, f"{item}s")


def _journey(draw: Draw) -> Problem:
    a, b = draw.pair((2, 8), (4, 19))
    who, way = draw.name("pupil"), draw.one(["cycles", "runs", "rows", "drives"])
    if draw.chance(0.5):
        given = f"{who} {way} for {a} hours at {b} km per hour. How long is the route?"
        return _numeric(draw, given, [multiply(a, b)], a * b, "km")
    given = f"{who} {way} {a * b} km at a steady {b} km per hour. How long does the trip last?"
    return _numeric(draw, given, [divide(a * b, b)], a, "hours")


def _ages(draw: Draw) -> Problem:
    a, b = draw.pair((6, 30), (2, 19))
    years = draw.number(3, 12)
    who, other = draw.names("pupil", 2)
    given = f"{who} is {a} years old. {other} is {b} years older than {who}."
    work = [add(a, b), add(a + b, years)]
    ask = f"How old will {other} be in {years} years?"
    return _numeric(draw, f"{given} {ask}", work, a + b + years, "years")


def _sequence(draw: Draw) -> Problem:
    a, b = draw.pair((1, 30), (2, 12))
    terms = [a + b * i for i in range(4)]
    listed = ", ".join(map(str, terms))
    ask = draw.one(["What comes next?", "Find the following term.", "Continue the sequence."])
    work = [subtract(terms[1], terms[0]), add(terms[3], b)]
    return _numeric(draw, f"{draw.name('pupil')} writes {listed}. {ask}", work, terms[3] + b, "")


def _rectangle(draw: Draw) -> Problem:
    a, b = draw.pair((3, 9), (4, 19))
    thing = draw.one(["garden", "poster", "field", "carpet", "board"])
    given = f"The {thing} of {draw.name('pupil')} is {b} m long and {a} m wide."
    if draw.chance(0.5):
        return _numeric(draw, f"{given} What is its area?", [multiply(a, b)], a * b, "m²")
    work = [add(a, b), multiply(2, a + b)]
    return _numeric(draw, f"{given} What is its perimeter?", work, 2 * (a + b), "m")


def _temperature(draw: Draw) -> Problem:
    a, b = draw.pair((2, 24), (3, 18))
    who = draw.name("pupil")
    if draw.chance(0.5) and a > b:
        given = f"{who} measures {a} °C at noon. By night the reading falls by {b} degrees."
        return _numeric(draw, f"{given} What is it then?", [subtract(a, b)], a - b, "°C")
    given = f"{who} measures {a} °C at dawn. By noon the reading rises by {b} degrees."
    return _numeric(draw, f"{given} What is it then?", [add(a, b)], a + b, "°C")


def _percentage(draw: Draw) -> Problem:
    a, b = draw.pair((2, 30), (1, 9))
    who, item = draw.name("pupil"), draw.one(GOODS)
    given = f"{who} owns {10 * a} {item}s and sells {10 * b} percent of them."
    work = [divide(10 * a, 10), multiply(b, a)]
    return _numeric(draw, f"{given} How many {item}s are sold?", work, a * b, f"{item}s")


def _conversion(draw: Draw) -> Problem:
    a, b = draw.pair((2, 9), (5, 55))
    small, large, factor = draw.one(
        [("minutes", "hours", 60), ("days", "weeks", 7), ("months", "years", 12)]
    )
    rest = b % factor or 1
    given = f"{draw.name('pupil')} trains for {a} {large} and {rest} {small}."
    work = [multiply(a, factor), add(a * factor, rest)]
    ask = f"How many {small} is that altogether?"
    return _numeric(draw, f"{given} {ask}", work, a * factor + rest, small)


def _difference(draw: Draw) -> Problem:
    a, b = draw.pair((12, 60), (11, 39))
    who, other = draw.names("pupil", 2)
    item = draw.one(GOODS)
    given = f"{who} collected {a + b} {item}s and {other} collected {a}."
    ask = f"How many {item}s more does {who} have?"
    return _numeric(draw, f"{given} {ask}", [subtract(a + b, a)], b, f"{item}s")


def _packing(draw: Draw) -> Problem:
    a, b = draw.pair((3, 9), (3, 12))
    rest = draw.number(1, a - 1)
    total = a * b + rest
    item = draw.one(GOODS)
    given = f"{draw.name('pupil')} packs {total} {item}s into boxes of {a}."
    work = [multiply(a, b), subtract(total, a * b)]
    return _numeric(draw, f"{given} How many {item}s remain unpacked?", work, rest, f"{item}s")


_ORDERS = (
    ("taller than", "tallest", "shortest"),
    ("older than", "oldest", "youngest"),
    ("faster than", "fastest", "slowest"),
    ("heavier than", "heaviest", "lightest"),
    ("ahead of", "first", "last"),
)


def _ordering(draw: Draw) -> Problem:
    chain = draw.names("pupil", draw.number(4, 5))
    relation, top, bottom = draw.one(_ORDERS)
    clues = [f"{a} is {relation} {b}." for a, b in pairwise(chain)]
    draw.rng.shuffle(clues)
    wants_top = draw.chance(0.5)
    ask = f"Who is {top if wants_top else bottom}?"
    answer = chain[0] if wants_top else chain[-1]
    wrong = tuple(draw.some([name for name in chain if name != answer], 3))
    return Problem(" ".join([*clues, ask]), (" > ".join(chain),), answer, "", wrong)


def _queue(draw: Draw) -> Problem:
    a, b = draw.pair((3, 28), (4, 27))
    who = draw.name("pupil")
    given = f"In a queue {a} people stand before {who} and {b} people stand behind."
    work = [add(a, b), add(a + b, 1)]
    return _numeric(draw, f"{given} How many people are in the queue?", work, a + b + 1, "people")


KINDS: tuple[Callable[[Draw], Problem], ...] = (
    _shopping,
    _change,
    _sharing,
    _gain_and_loss,
    _journey,
    _ages,
    _sequence,
    _rectangle,
    _temperature,
    _percentage,
    _conversion,
    _difference,
    _packing,
    _ordering,
    _queue,
)


def problem(draw: Draw) -> Problem:
    """Draws a problem of any kind."""
    return draw.one(KINDS)(draw)


def solution(item: Problem) -> str:
    """Writes the worked answer of a problem, one step a line."""
    steps = [f"Step {i}: {line}" for i, line in enumerate(item.work, 1)]
    return "\n".join([*steps, f"Answer: {item.answer} {item.unit}".rstrip()])


def document(draw: Draw) -> str:
    """Writes one problem, or two where one is short, with worked answers."""
    parts: list[str] = []
    while sum(map(len, parts)) < 170:
        item = problem(draw)
        parts.append(f"Problem: {item.statement}\n{solution(item)}")
    return "\n\n".join(parts)


def question(draw: Draw) -> tuple[str, str, list[str]]:
    """Draws a problem and stops before its last result.

    Returns:
        The prompt, the right continuation and the wrong ones.
    """
    item = problem(draw)
    steps = [f"Step {i}: {line}" for i, line in enumerate(item.work, 1)]
    last = steps[-1]
    if " = " in last:
        steps[-1] = last[: last.rindex(" = ") + 2]
        prompt = "\n".join([f"Problem: {item.statement}", *steps])
    else:
        prompt = "\n".join([f"Problem: {item.statement}", *steps, "Answer:"])
    return prompt, f" {item.answer}", [f" {wrong}" for wrong in item.wrong]


def exercise(draw: Draw) -> tuple[str, str, str]:
    """Draws a problem whose work is to be written.

    Returns:
        The statement, the answer without its unit, and nothing to run.
    """
    item = problem(draw)
    return f"Problem: {item.statement}\n", item.answer, ""
