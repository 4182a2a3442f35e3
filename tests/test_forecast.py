"""Forecasts of what sources could teach, against the rooms that measure the same in other ways.

The question comes from people who distil from a larger model and end below plain training: whether
this teacher has anything to say about this text can be told before the training.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import tiny

from fusion_core import compare, comparison, corpus, models, reading
from fusion_core.config import FusionConfig
from fusion_core.errors import InputError

TARGET = "zoo:llama"
CODE = corpus.text("code", "test", 1800, seed=4)
MIXED = [t for d in corpus.DOMAINS for t in corpus.text(d, "test", 800, seed=4)[:1]]


@pytest.fixture(scope="module")
def target() -> models.LoadedModel:
    return models.load(TARGET)


@pytest.fixture(scope="module")
def specialist() -> models.LoadedModel:
    return models.load("zoo:mpt-code")


def copied(name: str, folder: Path) -> models.LoadedModel:
    """Load a copy of an embedded model under another name."""
    from fusion_core import zoo

    folder.mkdir()
    for file in zoo.path(name).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return models.load(str(folder))


@pytest.mark.parametrize("rows", ["exact", "boundary"])
def test_figures_are_those_of_transfer_and_bits_per_byte(target, specialist, rows: str) -> None:
    config = FusionConfig(rows=rows)
    (found,) = comparison.forecast(target, [specialist], MIXED, config).sources
    scores = compare.bits_per_byte([target, specialist], MIXED)
    assert math.isclose(found.target_bits_per_byte, scores[TARGET]["bits_per_byte"], rel_tol=1e-6)
    other = scores["zoo:mpt-code"]["bits_per_byte"]
    assert math.isclose(found.bits_per_byte, other, rel_tol=1e-6)
    moved = compare.transfer(target, specialist, MIXED, config)["prefix"]["all"]
    for name in ("positions", "transfer_ce", "target_ce", "kept_mass"):
        assert math.isclose(getattr(found, name), moved[name], rel_tol=1e-5), name
    better, saved, n_bytes = [], 0.0, 0
    for text in MIXED:
        fused = reading.read(text, target, specialist, config).project().fuse("mean")
        own, ce = fused.projection.reading.target_ce().numpy(), -fused.fused.observed_logprob
        better.append(ce.numpy() < own - 1e-6)
        bits = fused.projection.reading.bits_per_byte
        if bits["zoo:mpt-code"] < bits[TARGET]:
            saved += float(own.sum() - ce.numpy().sum()) / math.log(2)
        n_bytes += len(text.encode())
    assert math.isclose(found.better_positions, np.concatenate(better).mean(), abs_tol=2e-3)
    assert math.isclose(found.saving, saved / n_bytes, abs_tol=2e-3)


def test_a_source_that_knows_the_text_is_named_first(target, specialist) -> None:
    others = [models.load("zoo:gpt2-story"), specialist]
    told: list[str] = []
    found = comparison.forecast(target, others, CODE, progress=lambda s, _: told.append(s))
    assert [s.source for s in found.teachers][:1] == ["zoo:mpt-code"]
    assert found.sentence.startswith("Train zoo:llama on zoo:mpt-code, which reads 100%")
    assert repr(found) == f"Forecast({found.sentence})"
    frame = found.to_frame()
    assert list(frame.index) == ["zoo:gpt2-story", "zoo:mpt-code"]
    assert frame["teaches"].tolist() == [False, True] and frame["seconds"].min() > 0
    assert any(s.startswith("zoo:mpt-code: ") for s in told)
    assert [s["source"] for s in found.to_report()] == list(frame.index)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neox"])
def test_a_source_that_knows_nothing_teaches_nothing(target, kind: str, tmp_path: Path) -> None:
    random = models.load(tiny.saved(tmp_path / kind, kind))
    found = comparison.forecast(target, [random], CODE)
    assert not found.teachers and found.sources[0].saving <= 0
    assert found.sentence.startswith("There is nothing to teach here")


@pytest.mark.parametrize("strategy", ["prefix", "exact", "mined"])
def test_the_target_itself_teaches_nothing(target, strategy: str, tmp_path: Path) -> None:
    again = copied("llama", tmp_path / "again")
    found = comparison.forecast(target, [again], CODE, FusionConfig(strategy=strategy))
    (source,) = found.sources
    assert source.saving == source.better_documents == source.better_positions == 0
    assert math.isclose(source.transfer_ce, source.target_ce, rel_tol=1e-6)
    assert found.sentence.startswith("There is nothing to teach here")


def test_one_document_tells_nothing(target, specialist) -> None:
    found = comparison.forecast(target, [specialist], CODE[:1])
    assert not found.teachers and "several documents" in found.sentence


def test_sources_are_forecast_one_after_another(target, specialist) -> None:
    loaded: list[str] = []

    def sources():
        for model in (specialist, models.load("zoo:gpt2-story")):
            loaded.append(model.name)
            yield model

    stream = comparison.stream_forecast(target, sources(), CODE[:3])
    assert next(stream).source == "zoo:mpt-code" and loaded == ["zoo:mpt-code"]
    with pytest.raises(InputError, match="named twice"):
        list(comparison.stream_forecast(target, [specialist, specialist], CODE[:2]))
    with pytest.raises(InputError, match="no document"):
        comparison.forecast(target, [specialist], [])
    with pytest.raises(InputError, match="no source"):
        comparison.forecast(target, [], CODE)
