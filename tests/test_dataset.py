"""Datasets of texts and of caches."""

from __future__ import annotations

import pickle
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from block_examples import END, START, TEXTS
from conftest import tiny_model

from fusion_core.cache import Cache, building
from fusion_core.config import FusionConfig
from fusion_core.models import LoadedModel
from fusion_core.training import (
    Blocks,
    CachedRowsDataset,
    Example,
    TextDataset,
)


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
