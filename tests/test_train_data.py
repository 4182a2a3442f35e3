"""Training data: caches, texts, and what sources write."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from short_runs import SOURCES, same, weights
from transformers import (
    AutoModelForCausalLM,
)

from fusion_core import compare, corpus, models
from fusion_core.cache import Cache, building
from fusion_core.config import FusionConfig
from fusion_core.errors import InputError
from fusion_core.training import data

# What is trained on ----------------------------------------------------------------------------


def test_a_cache_gives_what_the_run_would_have_made(train_zoo, training_texts, tmp_path) -> None:
    _, folder, _ = train_zoo(max_steps=None, epochs=1)
    _, other, _ = train_zoo(max_steps=None, epochs=1, cache=str(folder / "cache"), data=None)
    assert same(weights(folder), weights(other))
    result, plain, _ = train_zoo(mode="clm", cache=str(folder / "cache"), data=None, max_steps=2)
    assert result["sources"] == [] and (plain / "model").is_dir()


def test_a_cache_must_be_of_this_target(train_zoo, fused_cache, training_texts, tmp_path) -> None:
    with pytest.raises(InputError, match=r"settings\.target"):
        train_zoo(cache=str(fused_cache), data=None, target="zoo:mpt-code", sources=None)
    with pytest.raises(InputError, match=r"config\.operator: min_ce, not mean"):
        train_zoo(cache=str(fused_cache), data=None, operator="mean")
    with pytest.raises(InputError, match="of the sources"):
        train_zoo(cache=str(fused_cache), data=None, sources=["zoo:neox-reason"])
    with pytest.raises(InputError, match="leave out generate_bytes"):
        train_zoo(cache=str(fused_cache), data=None, generate_bytes=100)
    with pytest.raises(InputError, match="no cache at"):
        train_zoo(cache=str(tmp_path / "none"), data=None)


def test_sources_of_a_cache_are_fused_anew(train_zoo, sources_cache, fused_cache) -> None:
    given = {"data": None, "sources": None, "cache": str(sources_cache)}
    result, folder, _ = train_zoo(**given)
    assert result["sources"] == SOURCES
    _, other, _ = train_zoo(**given, operator="mean")
    assert not same(weights(folder), weights(other))
    result, _, _ = train_zoo(**given, mode="kd")
    assert result["sources"] == ["zoo:mpt-code"]  # the text is code
    with pytest.raises(InputError, match="--keep sources"):
        train_zoo(mode="kd", data=None, cache=str(fused_cache))


def test_kd_of_a_cache_weighs_documents_by_their_bytes(tmp_path) -> None:
    """Long tokens and short ones count by what they spell; what no model scores counts nothing."""
    target, *sources = [models.load(n) for n in ("zoo:llama", *SOURCES)]
    documents = [corpus.text(d, "train", 600, seed=3)[0] for d in ("code", "commonsense")]
    folder = tmp_path / "cache"
    built = building.build_cache(target, sources, documents, FusionConfig(), folder, kind="sources")
    sizes = [len(d.encode()) for d in documents]
    by_bytes, by_tokens = sizes[0] / sizes[1], built.lengths[0] / built.lengths[1]
    assert abs(by_bytes / by_tokens - 1) > 0.05
    between = (by_bytes * by_tokens) ** 0.5  # the one is above, the other below
    none = [np.nan, np.nan]
    for bits in ([[1, 2], [1 + between, 1]], [none, [2, 1]], [[2, 1], none], [[1, 3], [2, 1]]):
        stored = [
            replace(x, extras=x.extras | {"bits_per_byte": np.array([0, *b], np.float32)})
            for x, b in zip(built, bits, strict=True)
        ]
        totals = np.nansum([np.multiply(b, n) for b, n in zip(bits, sizes, strict=True)], axis=0)
        assert data._best_of_cache(stored, 2, target.tokenizer) == totals.argmin()


def test_kd_takes_the_source_that_reads_the_data_best(train_zoo, training_texts) -> None:
    result, folder, _ = train_zoo(mode="kd", data=str(training_texts / "held-out.txt"), max_steps=1)
    assert result["sources"] == ["zoo:mpt-code"]
    sources = Cache.open(folder / "cache").manifest.settings["sources"]
    assert [s["name"] for s in sources] == ["zoo:mpt-code"]


def test_no_more_is_read_than_will_be_taught(train_zoo, training_texts, tmp_path) -> None:
    corpus.write(tmp_path / "much.txt", corpus.text("code", "train", 60_000))
    data = str(tmp_path / "much.txt")
    _, folder, _ = train_zoo(data=data, max_steps=2, batch_size=1)
    tokens = Cache.open(folder / "cache").tokens
    assert 256 <= tokens < 256 + 300
    _, again, _ = train_zoo(data=data, max_steps=2, batch_size=1)
    assert same(weights(folder), weights(again))
    _, other, _ = train_zoo(data=data, max_steps=2, batch_size=1, seed=1)
    assert not same(weights(folder), weights(other))


def test_sources_write_the_text(train_zoo) -> None:
    result, folder, _ = train_zoo(data=None, generate_bytes=1500, max_steps=2)
    lines = (folder / "written.jsonl").read_text(encoding="utf-8").splitlines()
    written = [json.loads(x)["text"] for x in lines]
    assert 1500 <= sum(len(t.encode()) for t in written) < 4000
    assert "1,500 bytes written by the sources" in result["data"]
    scores = compare.bits_per_byte(
        [models.load("zoo:mpt-code")], [t for t in written if "def " in t]
    )
    assert scores["zoo:mpt-code"]["bits_per_byte"] < 0.8  # it is what the model expects
    _, again, _ = train_zoo(data=None, generate_bytes=1500, max_steps=2)
    assert (again / "written.jsonl").read_bytes() == (folder / "written.jsonl").read_bytes()
    assert same(weights(folder), weights(again))


def test_a_model_that_cannot_read_packed_is_trained_all_the_same(train_zoo) -> None:
    result, folder, _ = train_zoo(target="zoo:mpt-code", sources=["zoo:llama"], eval_data=None)
    assert result["bits_per_byte"]["after"] < result["bits_per_byte"]["before"]
    assert AutoModelForCausalLM.from_pretrained(folder / "model").config.model_type == "mpt"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no document"),
        (b"\n\n  \n", "holds no document"),
        (b"caf\xe9", "is not UTF-8"),
        (None, "cannot be read"),
    ],
)
def test_data_of_no_use_is_refused(train_zoo, tmp_path, content: bytes | None, said: str) -> None:
    file = tmp_path / "bad.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=said):
        train_zoo(data=str(file))


def test_a_wrong_column_is_named(train_zoo, tmp_path) -> None:
    import pandas as pd

    pd.DataFrame({"content": ["x"]}).to_parquet(tmp_path / "bad.parquet")
    with pytest.raises(InputError, match="text column"):
        train_zoo(data=str(tmp_path / "bad.parquet"))
    (tmp_path / "bad.jsonl").write_text('{"content": "x"}\n')
    with pytest.raises(InputError, match='no "text"'):
        train_zoo(data=str(tmp_path / "bad.jsonl"))


def test_a_line_of_5_megabytes_is_cut_and_read(train_zoo, tmp_path) -> None:
    line = " ".join(corpus.text("code", "train", 20_000, seed=3)).replace("\n", " ")
    file = tmp_path / "line.txt"
    file.write_text((line * (5_000_000 // len(line) + 1))[:5_000_000])
    result, folder, _ = train_zoo(data=str(file), max_steps=1, batch_size=1)
    assert result["steps"] == 1
    assert Cache.open(folder / "cache").lengths.max() < 32_768
