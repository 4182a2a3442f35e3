"""Blocks and batches: every position once, labels and rows of the token after it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from block_examples import (
    END,
    PAD,
    SIZE,
    START,
    Given,
    blocks_of,
    example,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fusion_core import models
from fusion_core.losses import IGNORED
from fusion_core.training import (
    Blocks,
    Collator,
    pack,
    prompt_tokens,
)

# Packing --------------------------------------------------------------------------------------


def check_packing(lengths: Sequence[int], size: int, seed: int = 0) -> list[list]:
    blocks = pack(np.array(lengths, np.int64), size, seed)
    covered = Counter((d, at) for block in blocks for d, a, b in block for at in range(a, b))
    assert covered == Counter((d, at) for d, n in enumerate(lengths) for at in range(n))
    assert all(0 < sum(b - a for _, a, b in block) <= size for block in blocks)
    assert all(a < b for block in blocks for _, a, b in block)
    return blocks


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 40), max_size=30), st.integers(1, 25), st.integers(0, 5))
def test_every_position_is_packed_once(lengths: list[int], size: int, seed: int) -> None:
    blocks = check_packing(lengths, size, seed)
    assert blocks == pack(np.array(lengths, np.int64), size, seed)
    for document, n in enumerate(lengths):
        pieces = sorted((a, b) for block in blocks for d, a, b in block if d == document)
        assert len(pieces) == -(-n // size)  # only what is longer than a block is cut
    # of two blocks that are each at most half full, one would have been spared
    assert sum(sum(b - a for _, a, b in x) * 2 <= size for x in blocks) <= 1


def test_nothing_to_pack() -> None:
    assert pack(np.zeros(0, np.int64), 8) == []
    assert pack(np.zeros(3, np.int64), 8) == []


def test_long_documents_are_cut_and_their_rest_shares_a_block() -> None:
    blocks = check_packing([21, 0, 3], 8)
    whole = [block for block in blocks if len(block) == 1]
    assert sorted(whole) == [[(0, 0, 8)], [(0, 8, 16)]]
    assert sorted(next(b for b in blocks if len(b) == 2)) == [(0, 16, 21), (2, 0, 3)]


def test_the_seed_decides_among_documents_of_one_length() -> None:
    lengths = np.full(60, 3)
    packings = [pack(lengths, 10, seed) for seed in (0, 0, 1)]
    assert packings[0] == packings[1] != packings[2]


@pytest.mark.parametrize("seed", range(3))
def test_packing_is_close_to_the_least_number_of_blocks(seed: int) -> None:
    draw = np.random.default_rng(seed)
    for lengths in (draw.integers(1, 300, 800), draw.lognormal(4, 1, 800).astype(int)):
        least = -(-int(lengths.sum()) // 256)
        assert least <= len(check_packing(lengths.tolist(), 256, seed)) <= least + 2


# A document's positions -----------------------------------------------------------------------


@pytest.mark.parametrize("taught", [True, False])
@pytest.mark.parametrize("end_id", [END, None])
@pytest.mark.parametrize("start_id", [START, None])
@pytest.mark.parametrize("m", [0, 1, 2, 7])
def test_labels_are_what_follows(
    m: int, start_id: int | None, end_id: int | None, taught: bool
) -> None:
    blocks = blocks_of([m], 64, taught=taught, start_id=start_id, end_id=end_id)
    one = example(m, taught=taught)
    line = [x for x in (start_id, *one.ids.tolist(), end_id) if x is not None]
    n = max(0, len(line) - 1)
    assert blocks.positions == n and len(blocks) == (n > 0)
    if not n:
        return
    (read,) = blocks[0]
    assert read.inputs.tolist() == line[:-1]
    assert read.labels.tolist() == line[1:]
    assert read.inputs.dtype == read.labels.dtype == torch.int64
    if not taught:
        assert read.rows is None and not read.weight.any()
        return
    for i, label in enumerate(read.labels.tolist()):
        if label == end_id:
            assert read.rows.ids[i].tolist() == [-1, -1]
            assert read.rows.probs[i].tolist() == [0, 0] and read.rows.tail[i] == 1
            assert read.weight[i] == 0
        else:
            at = one.ids.tolist().index(label)
            assert read.rows.ids[i, 0] == label
            assert torch.equal(read.rows.probs[i], one.rows.probs[at])
            assert read.rows.tail[i] == one.rows.tail[at]
            assert read.weight[i] == float(one.kept[at] > 0)
    assert (read.rows.vocab_size, read.rows.temperature) == (SIZE, 1.5)


@pytest.mark.parametrize("end_id", [END, None])
@pytest.mark.parametrize("start_id", [START, None])
@pytest.mark.parametrize("size", [1, 3, 4, 5, 9])
def test_cut_documents_read_as_whole_ones(
    size: int, start_id: int | None, end_id: int | None
) -> None:
    options = {"start_id": start_id, "end_id": end_id, "weigh_by_kept": True}
    cut, whole = (blocks_of([9], s, **options) for s in (size, 64))
    one = whole[0][0]
    pieces = sorted((first, last) for block in cut.blocks for _, first, last in block)
    assert len(pieces) == -(-whole.positions // size)
    read = [cut.read(example(9), *piece) for piece in pieces]
    for name in ("inputs", "labels", "weight"):
        assert torch.equal(torch.cat([getattr(p, name) for p in read]), getattr(one, name))
    for name in ("ids", "probs", "tail"):
        joined = torch.cat([getattr(p.rows, name) for p in read])
        assert torch.equal(joined, getattr(one.rows, name))


def test_weights() -> None:
    one = example(6)
    plain, by_kept = (blocks_of([6], 16, weigh_by_kept=w) for w in (False, True))
    assert plain.read(one, 0, 7).weight.tolist() == [0, 1, 1, 1, 0, 1, 0]
    assert by_kept.read(one, 0, 7).weight.tolist() == [0, 0.25, 0.5, 0.75, 0, 0.25, 0]
    assert by_kept.read(one, 2, 5).weight.tolist() == [0.5, 0.75, 0]
    unknown = example(6, kept=False)
    for blocks in (plain, by_kept):
        assert blocks.read(unknown, 0, 7).weight.tolist() == [1] * 6 + [0]


def test_blocks_hold_every_document() -> None:
    lengths = [5, 0, 30, 12, 1, 8]
    blocks = blocks_of(lengths, 16)
    assert blocks.positions == sum(lengths) + len(lengths)
    labels = Counter(x for i in range(len(blocks)) for p in blocks[i] for x in p.labels.tolist())
    every = Counter(x for i, m in enumerate(lengths) for x in example(m, i).ids.tolist())
    assert labels == every + Counter({END: len(lengths)})
    assert blocks.blocks == blocks_of(lengths, 16).blocks


# Batches --------------------------------------------------------------------------------------


def triples(batch: dict[str, Tensor]) -> Counter:
    found: Counter = Counter()
    for line, at in (batch["labels"] != IGNORED).nonzero().tolist():
        names = ("fused_ids", "fused_probs", "fused_tail", "fused_weight")
        row = tuple(str(batch[n][line, at].tolist()) for n in names if n in batch)
        found[int(batch["input_ids"][line, at]), int(batch["labels"][line, at]), row] += 1
    return found


@pytest.mark.parametrize("taught", [True, False])
def test_both_layouts_hold_the_same(taught: bool) -> None:
    blocks = blocks_of([5, 30, 12, 1, 8, 3], 16, taught=taught)
    some = [blocks[i] for i in range(len(blocks))]
    packed, apart = Collator(16, PAD)(some), Collator(16, PAD, packed=False)(some)
    assert triples(packed) == triples(apart)
    assert triples(packed).total() == blocks.positions
    assert packed["input_ids"].shape == (len(blocks), 16)
    pieces = [p for block in some for p in block]
    longest = max(len(p.inputs) for p in pieces)
    assert apart["input_ids"].shape == (len(pieces), longest)
    assert "attention_mask" not in packed
    assert apart["attention_mask"].sum(1).tolist() == [len(p.inputs) for p in pieces]
    for batch in (packed, apart):
        nothing = batch["labels"] == IGNORED
        assert (batch["input_ids"][nothing] == PAD).all()
        assert torch.equal(batch["shift_labels"], batch["labels"])
        assert ("fused_ids" in batch) == taught
        if taught:
            assert (batch["fused_ids"][nothing] == -1).all()
            assert not batch["fused_probs"][nothing].any()
            assert (batch["fused_tail"][nothing] == 1).all()
            assert not batch["fused_weight"][nothing].any()
            assert batch["fused_weight"].any()
    assert torch.equal(apart["attention_mask"] == 0, apart["labels"] == IGNORED)


def test_positions_start_anew_with_every_document() -> None:
    blocks = blocks_of([5, 1, 3, 30], 16)
    some = [blocks[i] for i in range(len(blocks))]
    packed, apart = Collator(16, PAD)(some), Collator(16, PAD, packed=False)(some)
    for line, block in enumerate(some):
        lengths = [len(p.inputs) for p in block]
        lengths.append(16 - sum(lengths))
        expected = [at for n in lengths for at in range(n)]
        assert packed["position_ids"][line].tolist() == expected
    for positions, mask in zip(apart["position_ids"], apart["attention_mask"], strict=True):
        assert positions[mask == 1].tolist() == list(range(int(mask.sum())))


def test_rows_of_several_widths_and_none() -> None:
    narrow, plain = example(3), example(2, 1, taught=False)
    wide = example(2, 2)
    more = torch.tensor([[-1], [-1]])
    rows = replace(
        wide.rows,
        ids=torch.cat([wide.rows.ids, more], 1),
        probs=torch.cat([wide.rows.probs, torch.zeros(2, 1)], 1),
    )
    examples = Given([narrow, plain, replace(wide, rows=rows)])
    blocks = Blocks(examples, 16, start_id=START, end_id=None)
    for packed in (True, False):
        batch = Collator(16, PAD, packed)([blocks[i] for i in range(len(blocks))])
        assert batch["fused_ids"].shape[-1] == 3
        taught = batch["fused_ids"][..., 0] >= 0
        assert int(taught.sum()) == 5
        assert torch.equal(batch["fused_ids"][..., 0][taught], batch["labels"][taught])
        assert not batch["fused_weight"][~taught].any()
        assert (batch["fused_tail"][~taught] == 1).all()


def test_prompts_are_read_but_not_taught() -> None:
    tokenizer = models.load_tokenizer("zoo:llama")
    text = "Question: 2 + 3?\nAnswer: 5\nAnswer: 7"
    encoding = tokenizer.encode(text)
    ids = torch.as_tensor(encoding.ids[encoding.text_tokens])
    count = prompt_tokens(tokenizer, ids, "Answer:")
    shown = [tokenizer.text_of(part.tolist()) for part in (ids[:count], ids[count:])]
    assert shown[0] == "Question: 2 + 3?\nAnswer:"
    assert shown[1] is not None and shown[1].strip() == "5\nAnswer: 7"
    assert prompt_tokens(tokenizer, ids, "nowhere") == 0
    assert prompt_tokens(tokenizer, ids, "7") == len(ids)
    given = replace(example(len(ids)), ids=ids, kept=torch.ones(len(ids)))
    for start in (tokenizer.start_id, None):
        blocks = Blocks(
            Given([given]),
            512,
            start_id=start,
            end_id=tokenizer.eos_id,
            prompt=lambda x: prompt_tokens(tokenizer, x, "Answer:"),
        )
        (piece,) = blocks[0]
        taught = piece.labels[piece.labels != IGNORED].tolist()
        assert taught == [*ids[count:].tolist(), tokenizer.eos_id]
        assert float(piece.weight.sum()) == len(ids) - count
        cut = blocks.read(given, 2, len(ids))  # a piece that begins within the prompt
        found = cut.labels[cut.labels != IGNORED].tolist()
        assert found == taught[: len(found)] and len(found) >= len(taught) - 1
