"""Document tokens: which a model reads before a document, and which end it.

What a tokenizer calls BOS need not be what documents began with: a chat model's may open a turn.
The candidates are tried on short documents, and the one that its tokenizer names is taken unless
another makes the model predict clearly better.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fusion_core.errors import InputError, shown
from fusion_core.io.files import DOCUMENT_TOKENS, write_whole
from fusion_core.tokens import TextTokenizer

NONE = "none"
"""How a person names that nothing is read before a document, or that nothing ends it."""

SEPARATORS = (
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|begin_of_text|>",
    "<|startoftext|>",
    "<|end_of_document|>",
    "</s>",
    "<s>",
    "<eos>",
    "<bos>",
    "<|eos|>",
    "<|bos|>",
)
"""What the vocabularies of public models call the token between two documents."""

PROBE = (
    "The town lies on a river, an hour from the coast. Most of its people work in the harbour.",
    "def mean(values):\n    return sum(values) / len(values)\n",
)
"""Short documents on which candidates are tried."""

PROBE_TOKENS = 48
"""Most tokens of them that are read."""

MARGIN = 0.03
"""Share of its cross-entropy by which another candidate must be better than the stated one. With
SmolLM2-135M-Instruct, whose BOS opens a turn of a chat, the separator is better by 0.14; with
Gemma-3-270M every other candidate is worse by more than half."""

KNOWN_LANGUAGE = 0.5
"""Share of an even guess's cross-entropy below which a model knows the language of the documents.
Models that do not (toys, such as those embedded here, reach 0.7 to 1.1) say nothing by it: they
read best what disturbs them least."""


Scored = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray | None]]
"""Lists of ids -> log-probabilities of all ids but the first, or None where they cannot be read."""


@dataclass(frozen=True)
class DocumentTokens:
    """What is read before a document, what ends it, and how that is known.

    Attributes:
        start: id, or None.
        ends: ids, the one that is taught first.
        how: how the start was found: "named" by a person, "recorded" with the model, "measured",
            or "stated" by the tokenizer, where there was nothing to choose by.
        nats: cross-entropy a token of each start that was tried, by its id; none where the model
            does not know the language of the documents.
    """

    start: int | None
    ends: tuple[int, ...]
    how: str = "stated"
    nats: tuple[tuple[int | None, float], ...] = ()


def choose(
    tokenizer: TextTokenizer,
    stated: Sequence[int],
    scored: Scored,
    *,
    context: int | None = None,
    folder: Path | None = None,
    start: str | None = None,
    end: str | None = None,
) -> DocumentTokens:
    """Say what a model reads before a document and what ends it.

    Args:
        tokenizer: with what its configuration names.
        stated: ids that end a text, as the model's configurations name them.
        scored: reads the model; lists that it cannot read have no scores.
        context: most tokens that the model reads at once.
        folder: of the model, where what it was trained with may be recorded.
        start: a control token of the vocabulary, or `NONE`; None finds it.
        end: the same of what ends a document.

    Raises:
        InputError: the vocabulary has no such token.
    """
    kept = recorded(folder, tokenizer)
    ends = list(stated)
    nats: tuple[tuple[int | None, float], ...] = ()
    if start is not None:
        begins, how = token_of(tokenizer, start), "named"
    elif kept is not None:
        begins, how = kept.start, kept.how
    else:
        longest = min(PROBE_TOKENS, (context or PROBE_TOKENS + 1) - 1)
        nats = _measure(tokenizer, _candidates(tokenizer, ends), scored, longest)
        if nats and min(x for _, x in nats) > KNOWN_LANGUAGE * math.log(tokenizer.size):
            nats = ()
        begins, how = _best(tokenizer.start_id, nats), "measured" if nats else "stated"
    if end is not None:
        named = token_of(tokenizer, end)
        chosen = [] if named is None else [named, *ends]
    elif kept is not None:
        chosen = [*kept.ends, *ends]
    else:
        # A separator before a document is what ends the one before.
        separates = how == "measured" and begins not in (None, tokenizer.start_id)
        chosen = [begins, *ends] if separates and begins is not None else list(ends)
    return DocumentTokens(begins, tuple(dict.fromkeys(chosen)), how, nats)


def token_of(tokenizer: TextTokenizer, name: str) -> int | None:
    """Find a token that a person named; None for `NONE`.

    Raises:
        InputError: the vocabulary has no such token, or it is text.
    """
    if name == NONE:  # which is a word of every large vocabulary, too
        return None
    control = tokenizer.added_ids | tokenizer.special_ids
    found = {tokenizer.entry(i): i for i in control}.get(name)
    if found is None:
        named = ", ".join(tokenizer.entry(i) for i in sorted(control)[:8])
        raise InputError(
            f"{tokenizer.name} has no control token {shown(name)}: choose one of its own, such as "
            f"{named}, or {NONE}."
        )
    return found


def stated_ends(network: Any, tokenizer: TextTokenizer) -> list[int]:
    """List what the tokenizer and both configurations name as end of text.

    Only tokens that are read whole count: configurations of other people's vocabularies keep
    defaults that are letters there.
    """
    stated = list(tokenizer.end_ids)
    config = network.config
    for where in (getattr(network, "generation_config", None), config, config.get_text_config()):
        value = getattr(where, "eos_token_id", None)
        stated += [value] if isinstance(value, int) else list(value or ())
    known = tokenizer.added_ids | set(tokenizer.end_ids)
    return [i for i in dict.fromkeys(stated) if i in known]


def _candidates(tokenizer: TextTokenizer, ends: Sequence[int]) -> list[int | None]:
    """List what documents may begin with; nothing at all comes last."""
    special = {tokenizer.entry(i): i for i in tokenizer.special_ids}
    separators = [special[s] for s in SEPARATORS if s in special]
    stated = [tokenizer.start_id] if tokenizer.start_id is not None else []
    return [*dict.fromkeys([*stated, *separators, *ends]), None]


def _measure(
    tokenizer: TextTokenizer, candidates: Sequence[int | None], scored: Scored, longest: int
) -> tuple[tuple[int | None, float], ...]:
    """Measure each candidate: nats a token after the first of every document, which all predict."""
    texts = [e.ids[e.text_tokens][:longest] for e in tokenizer.encode_batch(list(PROBE))]
    texts = [t for t in texts if len(t) > 1]
    heads = [[] if c is None else [c] for c in candidates]
    read = [np.concatenate([head, t]).astype(np.int64) for head in heads for t in texts]
    logprobs = scored(read)
    found = []
    for n, start in enumerate(candidates):
        some = logprobs[n * len(texts) : (n + 1) * len(texts)]
        kept = [x[1 - len(t) :] for x, t in zip(some, texts, strict=True) if x is not None]
        if kept and len(kept) == len(texts):
            found.append((start, -float(np.mean(np.concatenate(kept)))))
    return tuple(found) if len(found) > 1 else ()


def scored_by(network: Any) -> Scored:
    """Let a network in evaluation mode score lists of ids, two at once."""

    @torch.inference_mode()
    def scored(read: Sequence[np.ndarray]) -> list[np.ndarray | None]:
        rows = network.get_input_embeddings().weight.shape[0]
        found: list[np.ndarray | None] = [None] * len(read)
        known = [n for n, line in enumerate(read) if (line < rows).all()]
        for some in (known[n : n + 2] for n in range(0, len(known), 2)):
            padded = np.zeros((len(some), max(len(read[n]) for n in some)), np.int64)
            for row, n in zip(padded, some, strict=True):
                row[: len(read[n])] = read[n]
            ids = torch.as_tensor(padded, device=next(network.parameters()).device)
            logprobs = network(input_ids=ids, use_cache=False).logits[:, :-1].float()
            logprobs = logprobs.log_softmax(-1).gather(2, ids[:, 1:, None])[:, :, 0]
            for row, n in zip(logprobs.cpu().numpy(), some, strict=True):
                found[n] = row[: len(read[n]) - 1]
        return found

    return scored


def _best(stated: int | None, nats: Sequence[tuple[int | None, float]]) -> int | None:
    """Take the stated start, unless another is clearly better."""
    known = dict(nats)
    if stated not in known:
        return stated if not known else min(known, key=lambda s: known[s])
    best = min(known, key=lambda s: known[s])
    return best if known[best] < (1 - MARGIN) * known[stated] else stated


# What a model was trained with -----------------------------------------------------------------


def record(folder: Path, tokenizer: TextTokenizer) -> None:
    """Keep beside a model what its documents began and ended with while it was trained.

    Raises:
        OSError: the file cannot be written.
    """
    start = None if tokenizer.start_id is None else tokenizer.entry(tokenizer.start_id)
    values = {"start": start, "end": [tokenizer.entry(i) for i in tokenizer.end_ids]}
    write_whole(folder / DOCUMENT_TOKENS, json.dumps(values, ensure_ascii=False).encode())


def recorded(folder: Path | None, tokenizer: TextTokenizer) -> DocumentTokens | None:
    """Read what `record` kept; None where there is nothing that this vocabulary knows."""
    if folder is None or not (folder / DOCUMENT_TOKENS).is_file():
        return None
    try:
        values = json.loads((folder / DOCUMENT_TOKENS).read_text(encoding="utf-8"))
        start, ends = values["start"], values["end"]
        begins = None if start is None else token_of(tokenizer, start)
        found = begins, tuple(token_of(tokenizer, e) for e in ends)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, InputError):
        return None
    return DocumentTokens(found[0], tuple(i for i in found[1] if i is not None), "recorded")
