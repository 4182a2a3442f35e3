"""The toy suite: models on the test split of the embedded domains."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from . import compare, corpus
from .models import LoadedModel
from .records import Progress

DOCUMENTS = 20
QUESTIONS = 20


def toy(
    readers: Sequence[LoadedModel],
    *,
    documents: int = DOCUMENTS,
    questions: int = QUESTIONS,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, dict]:
    """Score models on held-out documents and questions of every domain.

    A question is answered with the choice that makes prompt and choice together most probable, so
    that models with different tokenizers answer by the same rule.

    Args:
        readers: models.
        documents: test documents a domain.
        questions: multiple-choice questions a domain.
        seed: of the generated text.
        progress: told of every domain.

    Returns:
        For each model's name the figures of `compare.bits_per_byte` over all documents, and
        ``tasks`` with ``bits_per_byte`` and ``accuracy`` a domain.
    """
    tasks: dict[str, dict[str, dict[str, float]]] = {m.name: {} for m in readers}
    read: dict[str, list[dict]] = {m.name: [] for m in readers}
    for done, domain in enumerate(corpus.DOMAINS):
        if progress:
            progress(f"reading {domain}", done / len(corpus.DOMAINS))
        texts = list(islice(corpus.documents(domain, "test", seed=seed), documents))
        scores = compare.bits_per_byte(readers, texts)
        right = {m.name: 0 for m in readers}
        for question in corpus.questions(domain, "test", questions, seed=seed):
            answers = compare.most_probable(
                readers, [question.prompt + c for c in question.choices]
            )
            for name, choice in answers.items():
                right[name] += choice == question.answer
        for name, score in scores.items():
            read[name].append(score)
            tasks[name][domain] = {
                "bits_per_byte": score["bits_per_byte"],
                "accuracy": right[name] / questions if questions else float("nan"),
            }
    return {name: _over_all(read[name]) | {"tasks": tasks[name]} for name in tasks}


def _over_all(scores: Sequence[dict]) -> dict:
    """Bring the figures of `compare.bits_per_byte` of several domains together."""
    n_bytes = sum(s["bytes"] for s in scores)
    means = {
        name: sum(s[name] * s["bytes"] for s in scores) / n_bytes
        for name in ("bits_per_byte", "lost_share")
    }
    lossless = all(s["lossless"] for s in scores)
    return scores[0] | means | {"bytes": n_bytes, "lossless": lossless}
