"""The paper's story in miniature: the right specialist wins, and fusing beats every model."""

from __future__ import annotations

import pytest

from benchmarks import zoo as benchmark
from fusion_core import corpus, models, pipeline, zoo
from fusion_core.config import FusionConfig


@pytest.fixture(scope="module")
def measured() -> tuple[dict[str, dict[str, float]], dict[str, int]]:
    return benchmark.measure()


def test_min_ce_picks_the_right_specialist(measured) -> None:
    right = measured[1]
    assert sum(right.values()) >= 0.9 * benchmark.DOCUMENTS * len(corpus.DOMAINS)


def test_fused_rows_beat_every_single_model(measured) -> None:
    means = {name: sum(row.values()) / len(row) for name, row in measured[0].items()}
    assert means.pop("fused") < min(means.values())


def test_the_page_shows_what_was_measured(measured) -> None:
    page = (benchmark.ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    shown = page.partition(benchmark.BEGIN)[2].partition(benchmark.END)[0].strip().splitlines()
    expected = benchmark.render(*measured).splitlines()
    assert len(shown) == len(expected)
    for line, other in zip(shown, expected, strict=True):
        for cell, value in zip(line.split("|")[2:-1], other.split("|")[2:-1], strict=True):
            try:
                assert float(cell) == pytest.approx(float(value), abs=0.005)
            except ValueError:  # a word: a heading, or how many documents
                assert cell == value


def test_winners_are_named_at_each_position() -> None:
    target, *sources = (models.load(zoo.PREFIX + name) for name in zoo.NAMES)
    for domain in corpus.DOMAINS:
        text = next(corpus.documents(domain, "test", seed=benchmark.SEED))
        analysis = pipeline.analyze(target, sources, text, FusionConfig())
        winners = {analysis.fused.sources[w] for w in analysis.fused.winner.tolist() if w >= 0}
        assert len(winners) == 1
        assert zoo.DOMAIN_OF[winners.pop().removeprefix(zoo.PREFIX)] == domain
