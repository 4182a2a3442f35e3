"""The toy suite: models on the test split of the embedded domains."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from . import corpus, pipeline
from .models import LoadedModel
from .reading import Progress

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
        For each model's name: ``bits_per_byte`` and ``bytes`` over all documents, and ``tasks``
        with ``bits_per_byte`` and ``accuracy`` a domain.
    """
    tasks: dict[str, dict[str, dict[str, float]]] = {m.name: {} for m in readers}
    nats = {m.name: 0.0 for m in readers}
    n_bytes = 0
    for done, domain in enumerate(corpus.DOMAINS):
        if progress:
            progress(f"reading {domain}", done / len(corpus.DOMAINS))
        texts = list(islice(corpus.documents(domain, "test", seed=seed), documents))
        scores = pipeline.bits_per_byte(readers, texts)
        right = {m.name: 0 for m in readers}
        for question in corpus.questions(domain, "test", questions, seed=seed):
            answers = pipeline.most_probable(
                readers, [question.prompt + c for c in question.choices]
            )
            for name, choice in answers.items():
                right[name] += choice == question.answer
        n_bytes += next(iter(scores.values()))["bytes"]
        for name, score in scores.items():
            nats[name] += score["bits_per_byte"] * score["bytes"]
            tasks[name][domain] = {
                "bits_per_byte": score["bits_per_byte"],
                "accuracy": right[name] / questions if questions else float("nan"),
            }
    return {
        name: {"bits_per_byte": nats[name] / n_bytes, "bytes": n_bytes, "tasks": tasks[name]}
        for name in tasks
    }
