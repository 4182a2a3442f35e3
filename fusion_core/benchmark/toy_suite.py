"""The toy suite: models on held-out documents and tasks of the embedded domains.

    reasoning     word problems: the worked answer is written, and its last line must be right
    commonsense   the ends of facts: one of four is chosen, by log-likelihood a byte
    code          functions: the body is written and run against the docstring's examples; where
                  that is not asked for, one of four values of a call is chosen

Text is written greedily, so that equal models answer alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import numpy as np

from fusion_core import compare, corpus
from fusion_core.config import Sampling
from fusion_core.generation import Ensemble, stream
from fusion_core.models import LoadedModel
from fusion_core.reading import read_documents
from fusion_core.records import Progress

from . import execution
from .accuracy import Accuracy, constant

DOCUMENTS = 20
QUESTIONS = 20
ANSWER_BYTES = 256
"""Length after which a written answer is given up; the longest right one has less than half of it."""

LINE_OUTSIDE = (
    "\nassert",
    "\ndef",
    "\nclass",
    "\nif",
    "\nprint",
    "\n#",
    "\n@",
    "\nfrom",
    "\nimport",
)
"""Beginnings of lines that end a function's body."""

MANY = 500
"""Problems among whose answers the most frequent one is looked for."""


def toy(
    readers: Sequence[LoadedModel],
    *,
    documents: int = DOCUMENTS,
    questions: int = QUESTIONS,
    seed: int = 0,
    run_code: bool = False,
    progress: Progress | None = None,
) -> dict[str, dict]:
    """Score models on held-out documents and tasks of every domain.

    Args:
        readers: models.
        documents: test documents a domain.
        questions: tasks a domain.
        seed: of the generated text.
        run_code: run what models write as code, see `execution.run`.
        progress: told of every domain, and of every model on its tasks.

    Returns:
        For each model's name the figures of `compare.bits_per_byte` over all documents, and
        ``tasks``: a domain's ``bits_per_byte``, ``how`` its questions are answered and the figures
        of `Accuracy.to_report`.

    Raises:
        InputError: code is to be run where nothing could contain it.
    """
    if run_code:
        execution.check()
    tasks: dict[str, dict[str, dict[str, Any]]] = {m.name: {} for m in readers}
    read: dict[str, list[dict]] = {m.name: [] for m in readers}
    for done, domain in enumerate(corpus.DOMAINS):
        say = _part(progress, done, len(corpus.DOMAINS))
        say(f"reading {domain}", 0)
        texts = list(islice(corpus.documents(domain, "test", seed=seed), documents))
        for name, score in compare.bits_per_byte(readers, texts).items():
            read[name].append(score)
            tasks[name][domain] = {"bits_per_byte": score["bits_per_byte"]}
        how = HOW[domain][run_code and domain == "code"]
        for n, model in enumerate(readers if questions else ()):
            say(f"{model.name} answers {domain}", n / len(readers))
            accuracy = ANSWERED[how](model, domain, questions, seed)
            tasks[model.name][domain] |= {"how": how} | accuracy.to_report()
    return {name: _over_all(read[name]) | {"tasks": tasks[name]} for name in tasks}


def _part(progress: Progress | None, done: int, parts: int) -> Progress:
    """Return what is told the progress of one of several parts."""

    def say(stage: str, share: float) -> None:
        if progress:
            progress(stage, (done + share) / parts)

    return say


def _over_all(scores: Sequence[dict]) -> dict:
    """Bring the figures of `compare.bits_per_byte` of several domains together."""
    n_bytes = sum(s["bytes"] for s in scores)
    means = {
        name: sum(s[name] * s["bytes"] for s in scores) / n_bytes
        for name in ("bits_per_byte", "lost_share")
    }
    lossless = all(s["lossless"] for s in scores)
    return scores[0] | means | {"bytes": n_bytes, "lossless": lossless}


# Tasks ------------------------------------------------------------------------------------------


def exact_match(model: LoadedModel, domain: str, number: int, seed: int = 0) -> Accuracy:
    """Let a model work out word problems, and compare the answers it writes."""
    asked = corpus.exercises(domain, "test", number, seed=seed)
    right = sum(
        answer_of(written(model, item.prompt, ("\n\n", "\nProblem"))) == item.answer
        for item in asked
    )
    many = corpus.exercises(domain, "train", MANY, seed=seed)
    return Accuracy(right, number, constant([item.answer for item in many]))


def multiple_choice(model: LoadedModel, domain: str, number: int, seed: int = 0) -> Accuracy:
    """Let a model choose how documents go on."""
    asked = corpus.questions(domain, "test", number, seed=seed)
    chosen = choices(model, [(q.prompt, q.choices) for q in asked])
    right = sum(c == q.answer for c, q in zip(chosen, asked, strict=True))
    return Accuracy(right, number, sum(1 / len(q.choices) for q in asked) / number)


def execution_match(model: LoadedModel, domain: str, number: int, seed: int = 0) -> Accuracy:
    """Let a model write functions, and run them against their examples."""
    right = 0
    for item in corpus.exercises(domain, "test", number, seed=seed):
        body = written(model, item.prompt, LINE_OUTSIDE)
        right += execution.run(f"{item.prompt}{body}\n{item.checks}\n") == "passed"
    return Accuracy(right, number, 0.0)


ANSWERED: dict[str, Callable[[LoadedModel, str, int, int], Accuracy]] = {
    "exact match": exact_match,
    "choice": multiple_choice,
    "run": execution_match,
}
"""Ways of answering: model, domain, number of questions, seed -> accuracy."""

HOW = {
    "reasoning": ("exact match",),
    "commonsense": ("choice",),
    "code": ("choice", "run"),
}
"""How the questions of each domain are answered, and how where programs may be run."""


def written(model: LoadedModel, prompt: str, stop: Sequence[str]) -> str:
    """Let a model continue a prompt greedily, up to where it ends or a stop string begins."""
    sampling = Sampling(temperature=0, max_new_tokens=ANSWER_BYTES, stop=tuple(stop))
    text = ""
    for step in stream(Ensemble(model), prompt, sampling):
        text += step.text
        if len(text) > ANSWER_BYTES:
            break
    return text


def answer_of(solution: str) -> str:
    """Return the answer that a worked solution ends with, without its unit; "" without one."""
    found = re.search(r"^Answer: *(\S+)", solution, re.MULTILINE)
    return found[1] if found else ""


def choices(model: LoadedModel, asked: Sequence[tuple[str, Sequence[str]]]) -> list[int]:
    """Choose among continuations by their log-likelihood a byte.

    What a continuation costs is the difference between the texts with it and without it, whatever
    tokens they share.

    Args:
        model: the model.
        asked: prompts with their continuations.

    Returns:
        The index of each prompt's best continuation.
    """
    texts = [t for prompt, ends in asked for t in (prompt, *(prompt + e for e in ends))]
    nats = iter([r.nats[0] for r in read_documents([model], texts, compare.SCORED)])
    chosen = []
    for _, ends in asked:
        before = next(nats)
        costs = [(next(nats) - before) / len(e.encode()) for e in ends]
        chosen.append(int(np.argmin(costs)))
    return chosen
