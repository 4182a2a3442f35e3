"""The toy corpus: seeded text of three domains, and questions about it.

*reasoning* is word problems with worked answers, *commonsense* short stories and facts of one small
world, *code* Python functions with examples that run, *mixed* documents in which these meet. The
three have different registers, so that a model can be good at one and poor at the others. Splits
share rules, facts and templates, but no person, town, pet or identifier, and no pair of numbers
from which a problem starts.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from fusion_core.corpus import functions, mixed, problems, stories
from fusion_core.corpus.names import ENTITY_KINDS, SPLITS, Draw, entities

__all__ = [
    "DOMAINS",
    "ENTITY_KINDS",
    "SEPARATOR",
    "SPLITS",
    "Exercise",
    "Question",
    "documents",
    "entities",
    "exercises",
    "questions",
    "text",
    "write",
]

DOMAINS: tuple[str, ...] = ("reasoning", "commonsense", "code")
SEPARATOR = "<|endoftext|>"

_WRITERS: dict[str, Callable[[Draw], str]] = {
    "reasoning": problems.document,
    "commonsense": stories.document,
    "code": functions.document,
    "mixed": mixed.document,
}
_ASKERS: dict[str, Callable[[Draw], tuple[str, str, list[str]]]] = {
    "reasoning": problems.question,
    "commonsense": stories.question,
    "code": functions.question,
}
_EXAMINERS: dict[str, Callable[[Draw], tuple[str, str, str]]] = {
    "reasoning": problems.exercise,
    "code": functions.exercise,
}


@dataclass(frozen=True)
class Exercise:
    """A task whose answer is written freely.

    Attributes:
        prompt: the beginning of a document.
        answer: the right answer: of a word problem without its unit, of a function a body that the
            checks accept.
        checks: what is run after prompt and body of a function; empty for a word problem.
    """

    prompt: str
    answer: str
    checks: str = ""


@dataclass(frozen=True)
class Question:
    """A multiple-choice question in its domain's format.

    Attributes:
        prompt: the beginning of a document.
        choices: continuations of the prompt, leading space included; all different.
        answer: index of the right one.
    """

    prompt: str
    choices: tuple[str, ...]
    answer: int

    def __post_init__(self) -> None:
        """Checks that the answer is one of several different choices."""
        if len(set(self.choices)) != len(self.choices) or len(self.choices) < 2:
            raise ValueError(f"choices must be at least two and differ: {self.choices}")
        if not 0 <= self.answer < len(self.choices):
            raise ValueError(f"answer {self.answer} is not an index of {len(self.choices)} choices")


def documents(domain: str, split: str, *, seed: int = 0) -> Iterator[str]:
    """Streams the documents of a domain, without end.

    Args:
        domain: one of `DOMAINS`, or `mixed`.
        split: one of `SPLITS`.
        seed: equal seeds give equal streams, on every Python version.

    Yields:
        Documents of roughly 150 to 700 bytes without leading or trailing blank lines.

    Raises:
        ValueError: if there is no such domain or split.
    """
    _check(domain, split, _WRITERS)
    return _stream(domain, split, seed)


def text(domain: str, split: str, n_bytes: int, *, seed: int = 0) -> list[str]:
    """Takes the first documents of a stream.

    Args:
        domain: one of `DOMAINS`, or `mixed`.
        split: one of `SPLITS`.
        n_bytes: the documents' joint length in UTF-8 bytes stays within this limit.
        seed: as in `documents`.

    Returns:
        As many of the stream's first documents as fit.
    """
    taken: list[str] = []
    room = n_bytes
    for document in documents(domain, split, seed=seed):
        room -= len(document.encode())
        if room < 0:
            break
        taken.append(document)
    return taken


def write(path: str | Path, texts: list[str]) -> None:
    """Writes a document file: UTF-8, separator lines between the documents.

    Args:
        path: the file to write.
        texts: the documents.
    """
    joined = f"\n{SEPARATOR}\n".join(texts)
    Path(path).write_text(f"{joined}\n" if texts else "", encoding="utf-8", newline="\n")


def questions(domain: str, split: str, n: int, *, seed: int = 0) -> list[Question]:
    """Draws multiple-choice questions of four choices each.

    Args:
        domain: one of `DOMAINS`.
        split: one of `SPLITS`.
        n: how many.
        seed: equal seeds give equal questions.

    Returns:
        Questions that the world, the arithmetic or the program decides.

    Raises:
        ValueError: if there is no such domain or split.
    """
    _check(domain, split, _ASKERS)
    asked: list[Question] = []
    for i in range(n):
        draw = Draw(f"{seed}/{domain}/{split}/question {i}", split)
        prompt, right, wrong = _ASKERS[domain](draw)
        choices = [right, *wrong]
        draw.rng.shuffle(choices)
        asked.append(Question(prompt, tuple(choices), choices.index(right)))
    return asked


def exercises(domain: str, split: str, n: int, *, seed: int = 0) -> list[Exercise]:
    """Draws tasks whose answers are written freely.

    Args:
        domain: "reasoning" or "code".
        split: one of `SPLITS`.
        n: how many.
        seed: equal seeds give equal tasks.

    Raises:
        ValueError: if there is no such split, or the domain has no such tasks.
    """
    _check(domain, split, _EXAMINERS)
    draws = (Draw(f"{seed}/{domain}/{split}/exercise {i}", split) for i in range(n))
    return [Exercise(*_EXAMINERS[domain](draw)) for draw in draws]


def _stream(domain: str, split: str, seed: int) -> Iterator[str]:
    for i in count():
        yield _WRITERS[domain](Draw(f"{seed}/{domain}/{split}/{i}", split))


def _check(domain: str, split: str, known: dict[str, Callable]) -> None:
    if domain not in known:
        raise ValueError(f"no domain is called {domain!r}; choose from {', '.join(known)}")
    if split not in SPLITS:
        raise ValueError(f"no split is called {split!r}; choose from {', '.join(SPLITS)}")
