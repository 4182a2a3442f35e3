"""Figures draw the records, and never read a token as markup."""

from __future__ import annotations

import pytest

from fusion_core import pipeline, plots
from fusion_core.config import FusionConfig
from fusion_core.errors import InputError


@pytest.fixture(scope="module")
def analysis(tiny_models):
    """An analysis whose text holds what Plotly would draw as markup."""
    target, source = tiny_models
    return pipeline.analyze(target, [source], "the <b>cat & sat", FusionConfig())


@pytest.mark.parametrize("index", [0, 3])
def test_distribution_bars_are_the_rows(analysis, index: int) -> None:
    figure = plots.distribution_figure(analysis, index)
    assert figure.data[-1].name == "fused"
    assert sum(figure.data[-1].x) == pytest.approx(100, abs=0.1)
    best = 100 * float(analysis.fused.rows.probs[index, 0])
    assert max(figure.data[-1].x[:-1]) == pytest.approx(best, abs=0.01)
    assert figure.data[-1].x[-1] <= 100
    figure.to_json()


def test_tokens_are_text_in_figures(analysis) -> None:
    names = plots.known_pieces(analysis)
    assert set(names) == {"tiny-llama", "tiny-gpt"}
    for index in range(len(analysis.target.text_tokens)):
        figure = plots.distribution_figure(analysis, index)
        shown = [t for axis in figure.select_yaxes() for t in axis.ticktext]
        assert not any("<" in t for t in [*shown, figure.layout.title.text])
    with pytest.raises(InputError):
        plots.distribution_figure(analysis, 10_000)


def test_bits_per_byte_bars(analysis) -> None:
    bar = plots.bits_per_byte_figure(analysis).data[0]
    expected = [
        analysis.sources[0].bits_per_byte,
        analysis.target_bits_per_byte,
        analysis.fused_bits_per_byte,
    ]
    assert list(bar.x) == pytest.approx(expected, abs=1e-4)
    assert list(bar.customdata) == ["tiny-gpt", "tiny-llama (target)", "fused"]


def test_winner_marks(analysis) -> None:
    line = plots.winner_figure(analysis).data[0]
    assert len(line.x) == len(analysis.target.text_tokens)
    large = [size > 5 for size in line.marker.size]
    assert large == [w == 0 for w in analysis.fused.winner.tolist()]
