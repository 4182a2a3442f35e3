"""Documents on their way into a model: examples, blocks, batches, and models that read them."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fusion_core import corpus, models, zoo
from fusion_core.cache import Cache, building
from fusion_core.config import FusionConfig
from fusion_core.losses import IGNORED, token_losses
from fusion_core.models import LoadedModel
from fusion_core.records import SparseRows
from fusion_core.train import (
    Blocks,
    CachedRowsDataset,
    Collator,
    Example,
    Positions,
    TextDataset,
    pack,
    prompt_tokens,
    supports_packing,
)

START, END, PAD, SIZE = 1, 2, 0, 1000
TEXTS = ["the cats sat, the cat 東京 sat", "a", "the " * 12, "sat thesat", "he sat"]


class Given:
    """ExampleDataset that are there."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._lessons = examples
        self.lengths = np.array([len(x.ids) for x in examples], np.int64)

    def __len__(self) -> int:
        return len(self._lessons)

    def __getitem__(self, i: int) -> Example:
        return self._lessons[i]


def example(m: int, number: int = 0, *, taught: bool = True, kept: bool = True) -> Example:
    """Make a document of tokens that occur nowhere else; each row names its token first."""
    ids = torch.arange(m) + 10 + 50 * number
    if not taught:
        return Example(ids)
    probs = torch.stack([0.5 + ids / 4000, torch.full((m,), 0.125)], 1)
    rows = SparseRows(torch.stack([ids, ids + 1], 1), probs, 1 - probs.sum(1), SIZE, 1.5)
    mass = (torch.arange(m) % 4) / 4
    return Example(ids, rows, mass if kept else None)


def blocks_of(lengths: Sequence[int], size: int, *, taught: bool = True, **options) -> Blocks:
    examples = Given([example(m, i, taught=taught) for i, m in enumerate(lengths)])
    return Blocks(examples, size, **({"start_id": START, "end_id": END} | options))


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


# Where documents come from --------------------------------------------------------------------


@pytest.fixture(scope="module")
def caches(
    tiny_models: tuple[LoadedModel, LoadedModel], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Cache]:
    target, source = tiny_models
    other = tiny_model(source.tokenizer, seed=7)
    folder: Path = tmp_path_factory.mktemp("caches")
    config = FusionConfig(top_k=5)
    return {
        kind: building.build_cache(
            target,
            [source, replace(other, name="other")],
            TEXTS,
            config,
            folder / kind,
            kind=kind,
            shard_bytes=40,
        )
        for kind in building.KINDS
    }


def same(a: Example, b: Example) -> bool:
    return torch.equal(a.ids, b.ids) and all(
        torch.equal(getattr(a.rows, n), getattr(b.rows, n)) for n in ("ids", "probs", "tail")
    )


def test_text_lessons_are_the_text(tiny_models: tuple[LoadedModel, LoadedModel]) -> None:
    for model in tiny_models:
        told: list[float] = []
        examples = TextDataset(
            model.tokenizer, TEXTS, lambda _, share, told=told: told.append(share)
        )
        assert len(examples) == len(TEXTS) and told == [0]
        for i, text in enumerate(TEXTS):
            encoding = model.tokenizer.encode(text)
            one = examples[i]
            assert one.ids.tolist() == encoding.ids[encoding.text_tokens].tolist()
            assert one.ids.dtype == torch.int64 and one.rows is None and one.kept is None
            assert examples.lengths[i] == len(one.ids)
            assert model.tokenizer.start_id not in one.ids.tolist()


def test_cache_lessons_are_the_cache(
    caches: dict[str, Cache], tiny_models: tuple[LoadedModel, LoadedModel]
) -> None:
    cached = caches["fused"]
    examples, plain = CachedRowsDataset(cached), CachedRowsDataset(cached, plain=True)
    texts = TextDataset(tiny_models[0].tokenizer, TEXTS)
    assert len(examples) == len(texts) == len(TEXTS)
    assert examples.lengths.tolist() == texts.lengths.tolist()
    for i, document in enumerate(cached):
        one = examples[i]
        assert torch.equal(one.ids, texts[i].ids) and torch.equal(plain[i].ids, texts[i].ids)
        assert plain[i].rows is None and plain[i].kept is None
        assert same(one, Example(document.observed, document.rows["fused"]))
        assert len(one.rows) == len(one.ids) == len(one.kept)
        kept = document.extras["kept"]
        assert one.kept.dtype == torch.float32
        assert one.kept.tolist() == pytest.approx((kept / 255).tolist())
        assert ((one.kept > 0).numpy() == (kept > 0)).all()


def test_sources_are_fused_as_they_are_read(caches: dict[str, Cache]) -> None:
    cached = caches["sources"]
    for options in ({}, {"operator": "mean", "top_k": 3}, {"operator": "min_ce", "level": "token"}):
        fuse = partial(building.fuse_again, **options)
        examples = CachedRowsDataset(cached, fuse)
        for i, document in enumerate(cached):
            expected, one = fuse(document), examples[i]
            assert same(one, Example(document.observed, expected.rows["fused"]))
            kept = torch.from_numpy(expected.extras["kept"].astype(np.float32)) / 255
            assert torch.equal(one.kept, kept)
            assert one.rows.ids.shape[1] <= options.get("top_k", 10)
    assert CachedRowsDataset(cached, plain=True)[0].rows is None


def test_cache_lessons_go_to_other_processes(caches: dict[str, Cache]) -> None:
    fuse = partial(building.fuse_again, operator="mean", top_k=3)
    for examples in (
        CachedRowsDataset(caches["fused"]),
        CachedRowsDataset(caches["sources"], fuse),
    ):
        again = pickle.loads(pickle.dumps(examples))
        assert again.lengths.tolist() == examples.lengths.tolist()
        blocks = Blocks(examples, 16, start_id=START, end_id=END)
        sent = pickle.loads(pickle.dumps(blocks))
        assert sent.blocks == blocks.blocks
        for i in range(len(examples)):
            assert same(again[i], examples[i]) and torch.equal(again[i].kept, examples[i].kept)


def test_rows_of_a_cache_stand_beside_their_tokens(caches: dict[str, Cache]) -> None:
    cached = caches["fused"]
    blocks = Blocks(CachedRowsDataset(cached), 16, start_id=START, end_id=END)
    seen = 0
    for number, block in enumerate(blocks.blocks):
        for (document, first, _), piece in zip(block, blocks[number], strict=True):
            stored = cached[document]
            for i, label in enumerate(piece.labels.tolist()):
                if first + i < len(stored):
                    assert label == stored.observed[first + i]
                    row = stored.rows["fused"]
                    assert torch.equal(piece.rows.ids[i], row.ids[first + i])
                    assert torch.equal(piece.rows.probs[i], row.probs[first + i])
                    assert piece.weight[i] == float(stored.extras["kept"][first + i] > 0)
                else:
                    assert label == END and piece.weight[i] == 0
                seen += 1
    assert seen == blocks.positions == cached.tokens + len(TEXTS)


# Models that read them ------------------------------------------------------------------------


@cache
def loaded(name: str) -> LoadedModel:
    return models.load(zoo.PREFIX + name)


@pytest.fixture(params=zoo.NAMES)
def model(request: pytest.FixtureRequest) -> LoadedModel:
    return loaded(request.param)


@cache
def texts() -> list[str]:
    """Draw a short and a longer document of every domain."""
    found = [corpus.text(domain, "test", 1200)[0] for domain in (*corpus.DOMAINS, "mixed")]
    return [text[:n] for text in found for n in (90, 400)]


def blocks_for(model: LoadedModel, size: int = 128) -> Blocks:
    tokenizer = model.tokenizer
    return Blocks(
        TextDataset(tokenizer, texts()),
        size,
        start_id=tokenizer.start_id,
        end_id=tokenizer.eos_id,
    )


@torch.no_grad()
def clm_of(
    model: LoadedModel, blocks: Sequence[list[Positions]], size: int, packed: bool
) -> Tensor:
    """Read a batch as the trainer does: labels apart, all else to the model."""
    batch = Collator(size, model.tokenizer.eos_id, packed)(blocks)
    labels = batch.pop("labels").flatten()
    del batch["shift_labels"]
    logits = model.network(**batch, use_cache=False).logits
    return token_losses(logits.flatten(0, -2), labels).clm.double().sum()


@torch.no_grad()
def mixes(model: LoadedModel) -> float:
    """Read blocks packed, several in a batch, and return the largest change of a logit."""
    blocks = blocks_for(model)
    some = [blocks[i] for i in range(len(blocks))]
    assert max(len(block) for block in some) > 1 and len(some) > 2
    batch = Collator(128, 0)(some)
    given = {name: batch[name] for name in ("input_ids", "position_ids")}
    together = model.network(**given, use_cache=False).logits
    largest, spread = 0.0, 0.0
    for line, block in enumerate(some):
        at = 0
        for piece in block:
            n = len(piece.inputs)
            alone = model.network(input_ids=piece.inputs[None], use_cache=False).logits[0]
            largest = max(largest, float((alone - together[line, at : at + n]).abs().max()))
            spread = max(spread, float(alone.std()))
            at += n
    return largest / spread


def test_what_is_said_of_a_model_is_so(model: LoadedModel) -> None:
    change = mixes(model)
    assert change < 1e-3 or change > 0.1  # no doubt about it
    assert supports_packing(model) == (change < 1e-3)


def test_llama_reads_packed_and_alibi_does_not() -> None:
    assert supports_packing(loaded("llama"))
    assert mixes(loaded("llama")) < 1e-4
    assert not supports_packing(loaded("mpt-code"))


def test_narrow_weights_are_no_reason_to_read_apart() -> None:
    # rounding differs with the shape of a batch; documents are still told apart
    assert supports_packing(models.load("zoo:llama", dtype="bfloat16"))


def test_the_layout_does_not_change_the_loss(model: LoadedModel) -> None:
    blocks = blocks_for(model)
    some = [blocks[i] for i in range(len(blocks))]
    apart = clm_of(model, some, 128, packed=False)
    chosen = clm_of(model, some, 128, packed=supports_packing(model))
    assert float(chosen) == pytest.approx(float(apart), rel=1e-4)
    if not supports_packing(model):
        assert float(clm_of(model, some, 128, packed=True)) != pytest.approx(float(apart), rel=1e-4)


@torch.no_grad()
def test_packed_blocks_lose_what_documents_lose_one_by_one() -> None:
    model = loaded("llama")
    blocks = blocks_for(model, 512)
    assert all(first == 0 for block in blocks.blocks for _, first, _ in block)
    some = [blocks[i] for i in range(len(blocks))]
    assert len(some) < len(texts())
    together = sum(clm_of(model, [block], 512, packed=True) for block in some)
    one_by_one = 0.0
    for text in texts():
        encoding = model.tokenizer.encode(text)
        middle = encoding.ids[encoding.text_tokens].tolist()
        ids = torch.tensor([[model.tokenizer.start_id, *middle, model.tokenizer.eos_id]])
        loss = model.network(input_ids=ids, labels=ids).loss  # shifted, and a mean
        one_by_one += float(loss) * (ids.shape[1] - 1)
    assert float(together) == pytest.approx(one_by_one, rel=1e-5)
    assert float(clm_of(model, some, 512, packed=True)) == pytest.approx(one_by_one, rel=1e-5)


def test_models_that_cannot_be_asked(model: LoadedModel) -> None:
    assert not supports_packing(replace(model, context=8))

    def refuses(**inputs: Tensor) -> SimpleNamespace:
        if "position_ids" in inputs:
            raise TypeError("got an unexpected keyword argument 'position_ids'")
        return model.network(**inputs)

    network = SimpleNamespace(parameters=model.network.parameters)
    assert not supports_packing(replace(model, network=_Called(refuses, network)))


class _Called:
    """A network with another forward pass."""

    def __init__(self, forward, network) -> None:
        self._forward, self.parameters = forward, network.parameters

    def __call__(self, **inputs: Tensor) -> SimpleNamespace:
        return self._forward(**inputs)


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
