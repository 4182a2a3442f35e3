"""Rows on side paths of texts that have been read, against plain reading of each whole path."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny
import torch
from tokenizers import Tokenizer

from fusion_core import models
from fusion_core.errors import InputError, TooLargeError
from fusion_core.models import Branches, LoadedModel, branches
from fusion_core.models.checks import check_causal
from fusion_core.tokens import TextTokenizer

LENGTHS = (30, 0, 7, 45)
"""Tokens of texts; the windows of `tiny.SMALL` have moved on in the longer ones."""


def loaded(kind: str, start: int | None = 0, dtype: Any = None, **more: Any) -> LoadedModel:
    """Make a tiny model of an architecture."""
    network = tiny.network(kind, **more).to(dtype or torch.float32).requires_grad_(False)
    backend = Tokenizer.from_str(tiny.byte_bpe().backend_tokenizer.to_str())
    tokenizer = TextTokenizer(backend, kind, start_id=start, eos_id=0)
    positions = check_causal(kind, network, tokenizer)
    return LoadedModel(kind, tokenizer, network, models.context_of(network.config, positions), 0)


def texts(lengths: tuple[int, ...], seed: int = 0) -> list[np.ndarray]:
    """Draw tokens."""
    rng = np.random.default_rng(seed)
    return [rng.integers(2, 300, n) for n in lengths]


def plainly(model: LoadedModel, path: list[int]) -> torch.Tensor:
    """Read a path from its start, alone: (vocabulary,) log-probabilities."""
    start = model.tokenizer.start_id
    batch = torch.tensor([[*([] if start is None else [start]), *path]])
    logits = model.network(input_ids=batch, use_cache=False).logits[0, -1].float()
    allowed = torch.ones_like(logits, dtype=torch.bool)
    allowed[torch.as_tensor(model.tokenizer.unused_ids, dtype=torch.int64)] = False
    return logits.masked_fill(~allowed, -torch.inf).log_softmax(0)


def drawn_nodes(
    text: np.ndarray, paths: list[list[int]], rng: np.random.Generator, least: int
) -> list[tuple[int, int]]:
    """Draw nodes of a text, a third of them at its end, and note their whole paths."""
    asked: list[tuple[int, int]] = []
    for _ in range(int(rng.integers(0, 8))):
        n = len(text)
        if n + 1 + len(paths) == least:
            break  # nothing to branch off from
        parent = (
            n if n >= least and rng.random() < 0.3 else int(rng.integers(least, n + 1 + len(paths)))
        )
        before = text[:parent].tolist() if parent <= n else paths[parent - n - 1]
        token = int(rng.integers(2, 300))
        paths.append([*before, token])
        asked.append((parent, token))
    return asked


def worst(model: LoadedModel, lengths: tuple[int, ...] = LENGTHS) -> tuple[str, float]:
    """Ask random tries in three calls: the way, and the largest error of a log-probability."""
    rng = np.random.default_rng(1)
    ids = texts(lengths)
    logits, made = Branches.read(model, ids)
    off = 0.0
    for text, row in zip(ids, logits, strict=True):
        has_start = int(model.tokenizer.start_id is not None)
        if len(text):
            last = models.log_softmax(model, row[None, len(text) - 1 + has_start])[0]
            off = max(off, difference(last, plainly(model, text.tolist())))
    paths: list[list[list[int]]] = [[] for _ in ids]
    for _ in range(3):
        before = [len(p) for p in paths]
        least = int(model.tokenizer.start_id is None)
        asked = [drawn_nodes(t, p, rng, least) for t, p in zip(ids, paths, strict=True)]
        for rows, known, first in zip(made.rows(asked), paths, before, strict=True):
            assert rows.shape == (len(known) - first, model.tokenizer.size)
            for row, path in zip(rows, known[first:], strict=True):
                off = max(off, difference(row, plainly(model, path)))
    return made.way, off


def difference(ours: torch.Tensor, expected: torch.Tensor) -> float:
    finite = torch.isfinite(expected)
    assert ours.dtype == torch.float32 and torch.equal(torch.isfinite(ours), finite)
    return float((ours - expected)[finite].abs().max())


CHUNKED = {"layer_types": ["chunked_attention", "full_attention"]}
MIXED = {"layer_types": ["sliding_attention", "full_attention"]}


@pytest.mark.parametrize(
    ("kind", "way", "more"),
    [
        ("llama", "tree", {}),
        ("gpt2", "tree", {}),
        ("gpt_neox", "tree", {}),
        ("opt", "tree", {}),
        ("deepseek_v3", "tree", {}),
        ("gemma3_text", "tree", MIXED),
        ("gpt_oss", "tree", MIXED),
        ("mistral", "tree", {}),
        ("llama", "tree", {"attn_implementation": "eager"}),
        ("mpt", "copies", {}),
        ("bloom", "copies", {}),
        ("falcon", "copies", {"alibi": True}),
        ("gpt_neo", "copies", {}),
        ("llama4_text", "copies", CHUNKED | {"attention_chunk_size": 8}),
        ("mamba", "again", {}),
        ("rwkv", "again", {}),
        ("jamba", "again", {}),
        ("bart", "again", {}),
    ],
)
def test_side_paths_are_read_as_whole_texts_are(kind: str, way: str, more: dict[str, Any]) -> None:
    """Cached keys and padded batches went wrong for callers in huggingface/transformers#18104."""
    taken, off = worst(loaded(kind, **more))
    assert taken == way
    assert off < 1e-4


@pytest.mark.parametrize(
    ("kind", "way"), [("llama", "tree"), ("opt", "tree"), ("mpt", "copies"), ("mamba", "again")]
)
def test_without_a_start_token(kind: str, way: str) -> None:
    model = loaded(kind, start=None)
    taken, off = worst(model)
    assert taken == way and off < 1e-4
    _, made = Branches.read(model, texts((5,)))
    with pytest.raises(InputError, match="no start token"):
        made.rows([[(0, 7)]])


@pytest.mark.parametrize(
    ("kind", "way"),
    [("llama", "tree"), ("mpt", "copies"), ("bloom", "copies"), ("gpt_neo", "copies")],
)
def test_half_precision_takes_the_same_way(kind: str, way: str) -> None:
    """What is wrong for a network must not pass as rounding."""
    taken, off = worst(loaded(kind, dtype=torch.bfloat16))
    assert taken == way and off < 0.5


@pytest.mark.parametrize(
    ("kind", "window", "ways"),
    [
        ("gpt_neo", {"window_size": 48}, ["copies", "copies", "copies"]),
        ("gemma3_text", {"sliding_window": 48}, ["tree", "tree", "tree"]),
        ("mistral", {"sliding_window": 48}, ["tree", "tree", "tree"]),
        ("llama4_text", CHUNKED | {"attention_chunk_size": 48}, ["tree", "copies", "copies"]),
    ],
)
def test_a_window_counts_from_where_a_text_reaches_it(
    kind: str, window: dict[str, Any], ways: list[str]
) -> None:
    """Short texts first: what was found right for them is tried anew for longer ones."""
    model = loaded(kind, max_position_embeddings=256, **window)
    found = [worst(model, lengths) for lengths in ((5, 9), (100, 30), (200,))]
    assert [way for way, _ in found] == ways
    assert max(off for _, off in found) < 1e-4


@pytest.mark.parametrize("kind", ["llama", "mpt"])
def test_a_path_beyond_what_was_tried_is_read_again(monkeypatch, kind: str) -> None:
    monkeypatch.setattr(branches, "SLACK", 2)
    model = loaded(kind)
    ids = texts((6,))
    _, made = Branches.read(model, ids)
    assert made.way != "again"
    chain = [(6, 3), *((7 + i, 4 + i) for i in range(9))]
    rows = [*made.rows([chain[:1]])[0], *made.rows([chain[1:]])[0]]
    assert made.way == "again"
    for n, row in enumerate(rows):
        assert difference(row, plainly(model, [*ids[0], *range(3, 4 + n)])) < 1e-4


@pytest.mark.parametrize("kind", ["llama", "mpt", "rwkv"])
def test_batches_change_no_row(monkeypatch, kind: str) -> None:
    """A node at a time, a copied prefix at a time."""
    from fusion_core.models import branch_ways

    model = loaded(kind)
    ids = texts((20, 11))
    asked = [[(i, 5 + i) for i in range(21)] + [(21, 9), (42, 8)], [(3, 4), (12, 6)]]
    whole = Branches.read(model, ids)[1].rows(asked)
    monkeypatch.setattr(branch_ways, "batch_tokens", lambda _: 1)
    monkeypatch.setattr(branch_ways, "COPIED_BYTES", (1, 1 << 14))
    for ours, expected in zip(Branches.read(model, ids)[1].rows(asked), whole, strict=True):
        assert torch.allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "mpt", "mamba"])
def test_what_cannot_be_asked_is_refused_and_leaves_no_trace(kind: str) -> None:
    model = loaded(kind, max_position_embeddings=64)
    ids = texts((10, 4))
    _, made = Branches.read(model, ids)
    for parent in (-1, 11, 12):
        with pytest.raises(InputError, match=f"Row {parent} "):
            made.rows([[(parent, 5)], []])
    assert [len(r) for r in made.rows([[], []])] == [0, 0]
    row = made.rows([[], [(4, 5)]])[1][0]
    assert difference(row, plainly(model, [*ids[1], 5])) < 1e-4
    if model.context is not None:
        full = texts((model.context - 1,))
        _, made = Branches.read(model, full)
        assert made.rows([[(model.context - 2, 5)]])[0].shape[0] == 1
        with pytest.raises(TooLargeError, match="at most"):
            made.rows([[(model.context - 1, 5)]])
        with pytest.raises(TooLargeError, match="at most"):
            Branches.read(model, texts((model.context,)))
