"""What is worked out on the way from a text to the page, counted; and what a new entry needs."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from app.compute import device
from app.limits import Limits
from app.requests import AnalysisRequest
from app.state import AppState
from fusion_core import fuse, mapping, models, pipeline
from fusion_core.config import FusionConfig
from fusion_core.errors import FusionError
from fusion_core.fuse import Operator
from fusion_core.fuse.operators import soft
from fusion_core.mapping import FixedMapping, Strategy, VocabMapping
from fusion_core.project import text as projecting
from fusion_core.reading import read

NAMES = ("zoo:llama", "zoo:mpt-code", "zoo:gpt2-story", "zoo:neox-reason")
PASSES = {"boundary": {4}, "exact": range(5, 14)}
"""Forward passes for one text: one a model, and up to three more for a source's side paths."""

TEXT = "def add(a, b):\n    return a + b  # Tom has 3 apples.\n"


@pytest.fixture(scope="module")
def zoo() -> dict[str, Any]:
    """The embedded models, loaded once: loading, and the first side paths, read a few tokens."""
    loaded = {name: models.load(name) for name in NAMES}
    for _ in range(2):
        read(TEXT, loaded[NAMES[0]], [loaded[name] for name in NAMES[1:]])
    return loaded


@pytest.fixture
def state(zoo: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> AppState:
    """The app's state, with nothing read yet."""
    monkeypatch.setattr(models, "load", lambda name, **_: zoo[name])
    made = AppState(Limits())
    for name in NAMES:
        made.models.get(name)
    return made


@pytest.fixture
def count(zoo: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts forward passes of the networks, and projections of a source's rows."""
    counted: Counter[str] = Counter()
    for model in zoo.values():
        forward = model.network.forward

        def passes(*args: Any, forward: Any = forward, **options: Any) -> Any:
            counted["forward"] += 1
            return forward(*args, **options)

        monkeypatch.setattr(model.network, "forward", passes)
    project = projecting.project_rows

    def projections(*args: Any) -> Any:
        counted["project"] += 1
        return project(*args)

    monkeypatch.setattr(projecting, "project_rows", projections)
    return counted


def request(text: str = TEXT, **options: Any) -> AnalysisRequest:
    return AnalysisRequest(NAMES[0], NAMES[1:], text, FusionConfig(**options))


def last(steps: Iterator[Any]) -> Any:
    *_, found = steps
    return found


def read_once(count: Counter[str], rows: str) -> int:
    """Return the projections, after it was checked that every model has read the text once."""
    forward, projections = taken(count)
    assert forward in PASSES[rows]
    return projections


def taken(count: Counter[str]) -> tuple[int, int]:
    found = count["forward"], count["project"]
    count.clear()
    return found


@pytest.mark.parametrize("rows", PASSES)
def test_forward_passes_and_projections_of_the_page(
    state: AppState, count: Counter[str], rows: str
) -> None:
    kept = last(state.analyze(request(rows=rows)))
    assert read_once(count, rows) == 3
    last(state.compare(request(rows=rows)))
    assert taken(count) == (0, 15)  # five other mappings of three sources
    last(state.compare(request(rows=rows)))
    last(state.analyze(request(operator="mean", rows=rows)))
    last(state.compare(request(operator="avg_ce", level="token", rows=rows)))
    assert taken(count) == (0, 0)
    for _ in state.ask_characters(kept, [0, 3, 9]):
        pass
    assert len(kept.characters[0, 3, 9]) == 5 and taken(count) == (0, 0)
    last(state.analyze(request(strategy="exact", rows=rows)))
    assert taken(count) == (0, 3)
    last(state.analyze(request(temperature=2.0, rows=rows)))
    assert read_once(count, rows) == 3


@pytest.mark.parametrize("rows", PASSES)
def test_visitors_with_one_text_share_all_of_it(
    state: AppState, count: Counter[str], rows: str
) -> None:
    asked = [request(operator=name, rows=rows) for name in ("min_ce", "mean", "product", "min_ce")]
    threads = [threading.Thread(target=lambda r=r: last(state.compare(r))) for r in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert read_once(count, rows) in {3 + 15 * n for n in (1, 2, 3, 4)}  # comparisons may cross


@pytest.mark.parametrize("rows", PASSES)
def test_rows_beyond_the_limit_are_read_again(
    zoo: Any, count: Counter[str], monkeypatch, rows: str
) -> None:
    monkeypatch.setattr(models, "load", lambda name, **_: zoo[name])
    small = AppState(Limits(rows_bytes=1000))
    first = last(small.analyze(request(rows=rows)))
    assert read_once(count, rows) == 3
    last(small.analyze(request(operator="product", rows=rows)))
    assert taken(count) == (0, 0)  # the last text is kept, whatever it takes
    last(small.analyze(request("Another text.", rows=rows)))
    assert read_once(count, rows) == 3
    second = last(small.analyze(request(operator="mean", rows=rows)))
    assert read_once(count, rows) == 3
    assert torch.equal(first.analysis.target_ce, second.analysis.target_ce)


def test_a_text_of_many_windows_keeps_the_first_and_reads_the_others_again(
    tiny_models, monkeypatch
) -> None:
    text = " ".join(["the cat sat, 東京 the cats"] * 12)
    whole = pipeline.analyze(tiny_models[0], [tiny_models[1]], text, FusionConfig())
    monkeypatch.setattr("fusion_core.records.windows.KEPT_BYTES", 60_000)
    monkeypatch.setattr("fusion_core.models.rows.BATCH_TOKENS", 1)
    again = pipeline.analyze(tiny_models[0], [tiny_models[1]], text, FusionConfig())
    assert torch.allclose(again.fused.rows.probs, whole.fused.rows.probs, atol=1e-6)
    assert again.fused_bits_per_byte == pytest.approx(whole.fused_bits_per_byte, rel=1e-6)


@pytest.mark.parametrize("rows", PASSES)
def test_a_lent_device_is_asked_once_for_everything(
    state: AppState, count: Counter[str], monkeypatch, rows: str
) -> None:
    monkeypatch.setattr(device, "LENT", True)
    kept = last(state.analyze(request(rows=rows)))
    assert read_once(count, rows) == 18
    found, comparison = last(state.compare(request(operator="mean", rows=rows)))
    assert comparison.operators and comparison.mappings and kept.id != found.id
    assert taken(count) == (0, 0)


# New entries --------------------------------------------------------------------------------------


def by_top(inputs: fuse.ScoreInputs) -> torch.Tensor:
    """Score by the largest probability."""
    return -inputs.top_probability


def test_a_new_operator_with_another_score_is_one_entry(state: AppState, monkeypatch) -> None:
    import gradio as gr

    from app.tabs import sidebar
    from app.tabs.fuse.view import fuse_view

    entry = Operator("a test", by_top, soft, label_free=True, has_level=False)
    monkeypatch.setitem(fuse.OPERATORS, "sharpest", entry)
    kept, comparison = last(state.compare(request(operator="sharpest")))
    view = fuse_view(kept.analysis, comparison)
    row = next(o for o in view["operators"] if o["operator"] == "sharpest")
    assert row["level"] == "" and row["sees"] is False
    assert row["bits"] == pytest.approx(kept.analysis.fused_bits_per_byte, abs=1e-4)
    assert kept.analysis.details["level"] == ""
    weights = kept.analysis.fused.weights
    assert float((weights.max(1).values - weights.min(1).values).max()) > 0.05
    assert "sharpest" in fuse.label_free()
    with gr.Blocks():
        choices = sidebar.build(state).operator.choices
    assert ("sharpest", "sharpest") in choices


@pytest.mark.parametrize(("label_free", "has_level"), [(True, False), (True, True), (False, False)])
def test_an_operator_that_sees_more_than_it_says_is_refused(
    tiny_models, monkeypatch, label_free: bool, has_level: bool
) -> None:
    """One with an unknown score once ran as `avg_ce` on the observed token, as label-free."""
    entry = Operator(
        "a test", lambda i: i.cross_entropy, soft, label_free=label_free, has_level=has_level
    )
    monkeypatch.setitem(fuse.OPERATORS, "peeping", entry)
    config = FusionConfig(operator="peeping")
    with pytest.raises(FusionError, match="label_free=False"):
        pipeline.analyze(tiny_models[0], [tiny_models[1]], "the cat", config)


def test_a_score_that_does_not_exist_is_an_error(tiny_models, monkeypatch) -> None:
    entry = Operator(
        "a test",
        lambda i: i.surprise,  # type: ignore[attr-defined]
        soft,
        label_free=True,
        has_level=False,
    )
    monkeypatch.setitem(fuse.OPERATORS, "unknown", entry)
    with pytest.raises(AttributeError, match="surprise"):
        pipeline.analyze(
            tiny_models[0], [tiny_models[1]], "the cat", FusionConfig(operator="unknown")
        )


class FirstByte(VocabMapping):
    """Sends the most probable token to the first of the target's that begins alike."""

    transported = 1

    def __init__(self, source: Any, target: Any) -> None:
        self._heads = [(b or b" ")[:1] for b in source.bytes_of]
        begins = {(b or b" ")[:1]: i for i, b in reversed(list(enumerate(target.bytes_of)))}
        self._goes = torch.tensor([begins.get(h, 0) for h in self._heads])

    def destinations(
        self, source_ids: torch.Tensor, mass: torch.Tensor, native: torch.Tensor
    ) -> torch.Tensor:
        return self._goes[source_ids.clamp(min=0)]


def test_a_new_strategy_asked_at_each_position_is_one_class_and_one_entry(
    state: AppState, monkeypatch
) -> None:
    entry = Strategy("a test", lambda source, target, *_: FirstByte(source, target))
    monkeypatch.setitem(mapping.STRATEGIES, "first_byte", entry)
    kept, comparison = last(state.compare(request(strategy="first_byte")))
    assert "first_byte" in comparison.mappings[NAMES[1]]
    assert 0 < float(kept.analysis.sources[0].kept.mean()) < 1
    rows = kept.analysis.fused.rows
    assert torch.allclose(rows.probs.sum(1) + rows.tail, torch.ones(len(rows)), atol=1e-5)


@pytest.mark.parametrize("strategy", ["exact", "mined", "statistical", "retokenise", "ot"])
def test_generation_uses_the_configured_strategy(zoo: dict[str, Any], strategy: str) -> None:
    """It once went by `prefix`, whatever was asked for."""
    from fusion_core.generation import Ensemble

    target, source = zoo[NAMES[0]], zoo[NAMES[1]]
    prompt = "def add(a, b):\n"
    encoding = target.tokenizer.encode(prompt)
    ids = encoding.ids[encoding.text_tokens].tolist()
    rows = []
    for name in ("prefix", strategy):
        together = Ensemble(target, [source], operator="mean", strategy=name, corpus=[prompt])
        row = together.next(ids, prompt.encode())
        rows.append(
            torch.zeros(target.tokenizer.size).scatter(0, row.rows.ids[0], row.rows.probs[0])
        )
        assert float(row.rows.probs.sum()) == pytest.approx(1, abs=1e-5)
    assert float((rows[0] - rows[1]).abs().max()) > 1e-3
    if strategy in (
        "exact",
        "mined",
        "retokenise",
    ):  # the text ends where the source has a boundary
        made = mapping.mapping_between(source.tokenizer, target.tokenizer, strategy)
        assert isinstance(made, FixedMapping)
        last_row = models.read_rows(source, source.tokenizer.encode(prompt)).dense.probs[-1]
        native = models.read_rows(target, encoding).dense.probs[-1]
        shares = made.vocab_map
        expected = torch.zeros(target.tokenizer.size)
        mass = last_row[torch.as_tensor(shares.source_ids)] * torch.as_tensor(shares.weights)
        expected.index_add_(0, torch.as_tensor(shares.indices), mass)
        expected += (1 - mass.sum()) * native
        assert torch.allclose(rows[1], expected, atol=1e-5)
