"""What programs may ask: typed endpoints for `gradio_client`, and as MCP tools.

The same limits hold as on the page. A wrong argument is answered with one sentence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import lru_cache, wraps
from typing import Any

import gradio as gr

from fusion_core import models, pipeline, reports
from fusion_core.errors import FusionError

from . import cards, work_writing, writing
from .session import Kept, Session

Report = dict[str, Any]


def connect(session: Session) -> None:
    """Add the endpoints to the page that is being built."""
    groups = {"analyse": _reading(session), "generate": [_writing(session)]}
    for group, functions in groups.items():
        for function in functions:
            gr.api(
                _answered(function),
                api_name=function.__name__,
                concurrency_id=group,
                concurrency_limit=2,
            )


def _answered(function: Callable[..., Report]) -> Callable[..., Report]:
    """Turn what a caller did wrong into an answer; a fault of ours stays one."""

    @wraps(function)
    def answer(*args: Any, **kwargs: Any) -> Report:
        try:
            return reports.finite(function(*args, **kwargs))
        except FusionError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return answer


def _reading(session: Session) -> list[Callable[..., Report]]:
    tokenizer = lru_cache(maxsize=32)(models.load_tokenizer)

    def align(target: str, sources: list[str], text: str, method: str = "bytes") -> Report:
        """Align the tokens of several models on one text, byte for byte.

        Args:
            target: name of the model that would be taught: zoo:NAME, or a hub id.
            sources: names of the models that would teach.
            text: what they read.
            method: "bytes", or "dtw" for the published dynamic time warping.

        Returns:
            bytes, target (its tokens with byte offsets), and for each source its tokens, groups of
            tokens that close at the same byte, and coverage.
        """
        request = session.request(target, sources, text)
        first, *others = [tokenizer(name) for name in request.names]
        return reports.align_report(*pipeline.align(first, others, text, method))

    def fuse(
        target: str,
        sources: list[str],
        text: str,
        operator: str = "min_ce",
        level: str = "sequence",
        strategy: str = "prefix",
        top_k: int = 10,
    ) -> Report:
        """Fuse what several models expect at every token of a text.

        Args:
            target: name of the model in whose tokens is fused.
            sources: names of the models that are fused.
            text: what they read.
            operator: min_ce, avg_ce, confidence, mean or product.
            level: one choice for the whole text ("sequence"), or one for each token ("token").
            strategy: vocabulary mapping: prefix, exact, mined, statistical, retokenise or ot.
            top_k: tokens kept of a fused row.

        Returns:
            For each target token the fused row, its winner, weights, kept mass and where each fused
            token's probability came from; bits per byte of every model and of the fused rows.
        """
        kept = _kept(session, target, sources, text, operator, level, strategy, top_k)
        pieces = [kept.pieces[name] for name in kept.request.sources]
        return reports.fused_report(kept.analysis, kept.pieces[kept.request.target], pieces)

    def distributions(
        target: str,
        sources: list[str],
        text: str,
        index: int,
        operator: str = "min_ce",
        level: str = "sequence",
        strategy: str = "prefix",
        top_k: int = 10,
    ) -> Report:
        """Show what every model expected at one token of a text, and what was fused there.

        Args:
            target: name of the model in whose tokens is fused.
            sources: names of the models that are fused.
            text: what they read.
            index: which of the target's tokens, from 0, its start token not counted.
            operator: as in fuse.
            level: as in fuse.
            strategy: as in fuse.
            top_k: as in fuse.

        Returns:
            The token; for each source its own row, what was carried over, kept mass and
            cross-entropy in nats; the target's own row; the fused row and its winner.
        """
        kept = _kept(session, target, sources, text, operator, level, strategy, top_k)
        return cards.cards(kept.analysis, index, kept.pieces)

    return [align, distributions, fuse]


def _writing(session: Session) -> Callable[..., Report]:
    def generate(
        target: str,
        sources: list[str],
        prompt: str,
        operator: str = "confidence",
        max_new_tokens: int = 64,
        temperature: float = 0.8,
        top_p: float = 0.95,
        seed: int = 0,
    ) -> Report:
        """Continue a prompt with the target, with each source, and with all sources fused.

        Args:
            target: name of the model in whose tokens the fused text is written.
            sources: names of the models that are fused.
            prompt: what is continued.
            operator: confidence, mean or product.
            max_new_tokens: most tokens of each text.
            temperature: 0 takes the most probable token.
            top_p: share of the probability that is drawn from.
            seed: of the draws.

        Returns:
            The continuations: target, sources by name, and ensemble.
        """
        asked = writing.request(
            session,
            target,
            sources,
            prompt,
            operator=operator,
            new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
        )
        last(session.shelf.loading(asked.names))
        return work_writing.texts(session.shelf.key, asked)

    return generate


def _kept(session: Session, target: str, sources: list[str], text: str, *fusion: Any) -> Kept:
    names = ("operator", "level", "strategy", "top_k")
    request = session.request(target, sources, text, **dict(zip(names, fusion, strict=True)))
    return last(session.analyse(request))


def last(steps: Iterator[Any]) -> Any:
    """Return what an iterator gives last, behind sentences of progress; None of nothing."""
    kept = deque(steps, maxlen=1)
    return kept[0] if kept else None
