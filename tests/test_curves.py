"""Metrics -> figures: plain data, what is drawn where, and long runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.tabs.train import curves
from app.training.downloads import metrics_table
from fusion_core.runs import Tail

BEFORE = {"code": 1.0, "<b>own</b>": 3.0}


def step(n: int, **more: Any) -> dict[str, Any]:
    return {"step": n, "loss": 2.0 / n, "clm": 3.0 / n, "fusion": 1.0 / n, "tokens": 100 * n} | more


def evaluation(n: int, code: float, own: float) -> dict[str, Any]:
    by_text = {"code": code, "<b>own</b>": own}
    return {"step": n, "bits_per_byte": by_text, "mean_bits_per_byte": (code + own) / 2}


METRICS = {
    "fused": [step(1), step(2), evaluation(2, 0.5, 2.5)],
    "baseline": [step(1, fusion=0.0), step(2, fusion=0.0), evaluation(2, 0.75, 2.75)],
}


def named(figure: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {trace["name"]: trace for trace in figure["traces"]}


def test_losses_have_names_and_dashes() -> None:
    traces = named(curves.loss_figure(METRICS))
    assert list(traces) == ["total", "CLM", "fusion", "baseline: CLM"]
    assert traces["total"]["x"] == [1, 2] and traces["total"]["y"] == [2.0, 1.0]
    assert traces["baseline: CLM"]["y"] == [3.0, 1.5] and traces["CLM"]["customdata"] == [100, 200]
    assert len({t["line"]["dash"] for t in traces.values()}) == 4


def test_bits_start_with_the_untrained_model() -> None:
    traces = named(curves.bits_figure(METRICS, BEFORE))
    assert list(traces) == [
        *("mean", "code", "<b>own</b>"), "baseline: mean", "baseline: code", "baseline: <b>own</b>"
    ]  # fmt: skip
    assert traces["mean"]["x"] == [0, 2] and traces["mean"]["y"] == [2.0, 1.5]
    assert traces["baseline: code"]["y"] == [1.0, 0.75]
    assert {t["line"]["dash"] for n, t in traces.items() if "baseline" in n} == {"dot"}
    assert len({t["marker"]["symbol"] for t in curves.bits_figure(METRICS, {})["traces"]}) == 3
    unknown = named(curves.bits_figure(METRICS, {}))
    assert unknown["mean"]["x"] == [2]


def test_nothing_is_measured_yet() -> None:
    for metrics in ({}, {"fused": []}, {"fused": [], "baseline": []}):
        figures = curves.figures(metrics)["figures"]
        assert [f["traces"] for f in figures] == [[], []]
        assert metrics_table(metrics)[0][0] == "part"
    assert curves.comparison({}) == [] and curves.comparison({"fused": None}) == []


def test_one_text_has_no_mean() -> None:
    lines = [{"step": 1, "bits_per_byte": {"code": 0.5}, "mean_bits_per_byte": 0.5}]
    assert list(named(curves.bits_figure({"fused": lines}, {"code": 1.0}))) == ["code"]


def test_long_runs_are_thinned_by_means() -> None:
    lines = [step(n, loss=float(n % 2)) for n in range(1, 100_001)]
    total = named(curves.loss_figure({"fused": lines}))["total"]
    assert len(total["x"]) <= curves.MOST_POINTS and total["x"][-1] == 100_000
    assert all(y == pytest.approx(0.5, abs=0.01) for y in total["y"])


def test_figures_are_json_and_keep_their_zoom() -> None:
    figures = curves.figures(METRICS, BEFORE, "job")["figures"]
    assert json.loads(json.dumps(figures)) == figures
    assert {f["layout"]["uirevision"] for f in figures} == {"job"}


def result(code: float, own: float) -> dict[str, Any]:
    texts = {
        "code": {"before": 1.0, "after": code},
        "<b>own</b>": {"before": 3.0, "after": own},
    }
    return {"texts": texts, "bits_per_byte": {"before": 2.0, "after": (code + own) / 2}}


def test_before_and_after() -> None:
    rows = curves.comparison({"fused": result(0.5, 2.5), "baseline": result(0.75, 2.75)})
    assert rows == [
        ["code", 1.0, 0.75, 0.5], ["<b>own</b>", 3.0, 2.75, 2.5], ["mean", 2.0, 1.75, 1.5]
    ]  # fmt: skip
    half = curves.comparison({"fused": result(0.5, 2.5), "baseline": None})
    assert half[0] == ["code", 1.0, None, 0.5] and half[2] == ["mean", 2.0, None, 1.5]
    assert curves.comparison({"baseline": result(0.5, 2.5)})[0] == ["code", 1.0, 0.5, None]


def test_table_has_every_line() -> None:
    heads, *rows = metrics_table(METRICS)
    assert len(rows) == 6 and all(len(row) == len(heads) for row in rows)
    assert heads[-2:] == ["bits per byte: code", "bits per byte: <b>own</b>"]
    assert rows[2][-2:] == [0.5, 2.5]


def test_a_growing_file_is_read_once(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    tail = Tail(file)
    assert tail.more() == []
    file.write_bytes(b'{"step": 1}\n{"step"')
    assert tail.more() == [{"step": 1}]
    with file.open("ab") as stream:
        stream.write(b': 2}\nno JSON\n{"step": 3}\n')
    assert tail.more() == [{"step": 1}, {"step": 2}, {"step": 3}]
    other = tmp_path / "other"
    other.write_bytes(b'{"step": 1}\n{"step": 2}\n{"step": 9}\n{"step": 10}\n{"step": 11}\n')
    other.replace(file)  # as a resumed run does
    assert [x["step"] for x in tail.more()] == [1, 2, 9, 10, 11]
