"""Limits, loaded models and kept analyses."""

from __future__ import annotations

import inspect
import threading
from types import SimpleNamespace

import gradio as gr
import pytest

from app import api, limits
from app import state as states
from app.compute import analyze, model_cache, progress
from app.compute.model_cache import ModelCache
from app.limits import Limits
from app.requests import AnalysisRequest, analysis_request
from app.state import AppState, KeptAnalysis
from app.tabs import sidebar
from app.tabs.align.layout import _questions
from app.tabs.generate import layout as generate_layout
from fusion_core import errors, fuse
from fusion_core.config import FusionConfig
from fusion_core.errors import FusionError, InputError


def model(size: int) -> SimpleNamespace:
    """Stand in for a loaded model of a size."""
    return SimpleNamespace(size_bytes=size)


def test_the_model_cache_loads_once_for_all_who_ask() -> None:
    calls, gate = [], threading.Event()

    def load(name: str) -> SimpleNamespace:
        calls.append(name)
        gate.wait(5)
        return model(1)

    cache = ModelCache(10, load)
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(cache.get("a"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join(5)
    assert calls == ["a"] and len(found) == 4 and len({id(f) for f in found}) == 1


def test_the_model_cache_forgets_the_least_recently_used() -> None:
    calls: list[str] = []
    cache = ModelCache(10, lambda name: calls.append(name) or model(4))
    for name in ("a", "b", "a", "c", "a"):
        cache.get(name)
    assert calls == ["a", "b", "c"]
    assert cache.has("a") and cache.has("c") and not cache.has("b")
    big = ModelCache(1, lambda name: model(5))
    assert big.get("x") is big.get("x")


def test_the_model_cache_tries_again_after_a_failure() -> None:
    answers = iter([FusionError("no"), model(1)])

    def load(name: str) -> SimpleNamespace:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    cache = ModelCache(10, load)
    with pytest.raises(FusionError):
        cache.get("a")
    assert not cache.has("a")
    assert cache.get("a").size_bytes == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"text": ""}, "empty"),
        ({"text": None}, "empty"),
        ({"text": "x" * 20_001}, "20,001 bytes"),
        ({"text": "\ud800"}, "surrogate"),
        ({"target": " "}, "no target"),
        ({"sources": []}, "no source"),
        ({"sources": ["a", "a "]}, "named twice"),
        ({"sources": list("abcdefg")}, "limit of 6"),
        ({"top_k": 0}, "Top-k"),
        ({"top_k": None}, "Top-k"),
        ({"top_k": 1.5}, "Top-k"),
    ],
)
def test_bad_requests_are_one_sentence(change: dict, words: str) -> None:
    asked = {"target": "t", "sources": ["a"], "text": "x", "top_k": 10} | change
    with pytest.raises(FusionError, match=words) as caught:
        analysis_request(
            Limits(), asked.pop("target"), asked.pop("sources"), asked.pop("text"), **asked
        )
    assert "\n" not in str(caught.value)


FOLDERS = ["/etc", "./app", "~/m", "app", "app/tabs", "..\\x", "a/b/c"]


@pytest.mark.parametrize("name", [*FOLDERS, "app/tabs?start=x", "?start=x", "/etc?end=a/b"])
def test_a_public_page_reads_no_folders(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_ID", "owner/space")
    public = AppState().limits
    assert public.model_bytes == 2 * limits.GIB
    # A path of two parts is refused as a hub id that is none, so that nobody learns of it.
    words = "public page" if not name.startswith("app/") else "There is no local folder"
    with pytest.raises(FusionError, match=words):
        analysis_request(public, "zoo:llama", [name], "x")
    found = analysis_request(public, "zoo:llama", ["owner/model"], "x")
    assert found.sources == ("owner/model",)


@pytest.fixture
def tiny_state(tiny_models, monkeypatch: pytest.MonkeyPatch) -> AppState:
    """A state whose models are the tiny ones."""
    by_name = {m.name: m for m in tiny_models}
    monkeypatch.setattr(states.models, "load", lambda name, **_: by_name[name])
    return AppState(Limits(kept_bytes=40))


def asked(text: str, source: str = "tiny-gpt") -> AnalysisRequest:
    """Ask for a text to be read by the tiny models."""
    return analysis_request(Limits(), "tiny-llama", [source], text)


def kept(state: AppState, text: str) -> tuple[list[str], KeptAnalysis]:
    """Analyze a text."""
    *steps, result = state.analyze(asked(text))
    return steps, result


def test_the_same_request_is_answered_from_memory(tiny_state: AppState) -> None:
    steps, first = kept(tiny_state, "the cat")
    assert "Loading tiny-llama" in steps[0]
    again, second = kept(tiny_state, "the cat")
    assert again == [] and second is first
    _, other = kept(tiny_state, "the cats")
    assert other.id != first.id and len(other.id) >= 20


def test_pages_ask_by_id_only(tiny_state: AppState) -> None:
    _, result = kept(tiny_state, "the cat sat")
    page, cards, characters = _questions(tiny_state)
    question = {"id": result.id, "index": 2, "page": 0}
    assert cards(question)["index"] == 2
    assert page(question)["id"] == result.id and characters(question) == {"wait": True}
    for bad in ({}, None, [], {"id": "x", "index": 0}, question | {"index": -1},
                question | {"index": "2"}, question | {"index": 10**9}):  # fmt: skip
        assert cards(bad) is None
    assert page({"id": None, "page": 0}) is None and page({"id": [], "page": 0}) is None


def test_old_analyses_make_room(tiny_state: AppState) -> None:
    _, first = kept(tiny_state, "a" * 30)
    kept(tiny_state, "b" * 30)
    assert tiny_state.find(first.id) is None


def test_progress_is_told_while_a_text_is_read(
    tiny_state: AppState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "INTERVAL_SECONDS", 0.0)
    text = "the cat sat, the cats " * 12
    *steps, _ = tiny_state.analyze(asked(text))
    assert any(s.startswith("Reading window") and s.endswith("%) …") for s in steps)


def test_a_refusal_while_reading_reaches_the_page(tiny_state: AppState) -> None:
    request = asked("the cat", source="tiny-llama")
    with pytest.raises(InputError, match="named twice"):
        list(tiny_state.analyze(request))


def test_visitors_with_different_models_do_not_fight(tiny_models) -> None:
    by_name = {m.name: m for m in tiny_models}
    loads: list[str] = []

    def load(name: str) -> SimpleNamespace:
        loads.append(name)
        return SimpleNamespace(model=by_name[name], size_bytes=10)

    cache = ModelCache(10, load)  # room for one of the two
    failed: list[BaseException] = []

    def visit(name: str) -> None:
        try:
            for _ in range(50):
                assert cache.get(name).model.name == name
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=visit, args=(name,)) for name in by_name]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert failed == [] and set(loads) == set(by_name)
    assert sum(cache.has(name) for name in by_name) <= 1


def test_loading_tells_which_model_and_how_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr(model_cache.models, "weights_bytes", lambda name: 2_500_000_000)
    monkeypatch.setattr(model_cache, "_fetched", lambda name: 1_000_000_000)
    gate = threading.Event()
    cache = ModelCache(10, lambda name: gate.wait(5) and model(1))
    steps = cache.loading(["owner/model"])
    assert next(steps) == "Loading owner/model (2.5 GB; 1 of 1) …"
    assert next(steps) == "Loading owner/model (2.5 GB; 1 of 1): 1.0 GB have come …"
    gate.set()
    assert all("Loading" in step for step in steps)
    assert cache.has("owner/model")


def test_what_has_come_of_a_download_is_counted(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    blobs = tmp_path / "models--owner--model" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "a.incomplete").write_bytes(b"x" * 700)
    assert model_cache._fetched("owner/model") == 700
    assert model_cache._fetched("owner/other") == 0 and model_cache._fetched("zoo:llama") == 0


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1500, "1.5 kB"),
        (2.8e6, "2.8 MB"),
        (812_345, "812 kB"),
        (1.44e9, "1.44 GB"),
        (1.41e9, "1.41 GB"),
        (12e9, "12.0 GB"),
        (7e12, "7,000 GB"),
    ],
)
def test_sizes_are_written_for_readers(size: float, words: str) -> None:
    assert errors.size_of(size) == words


def test_what_is_asked_twice_at_a_time_is_worked_out_once(
    tiny_state: AppState, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    gate = threading.Event()
    real = analyze.analyze

    def slow(cache: str, request: AnalysisRequest, *more: bool):
        calls.append(request.text)
        gate.wait(10)
        yield from real(cache, request, *more)

    monkeypatch.setattr(analyze, "analyze", slow)
    monkeypatch.setattr(progress, "INTERVAL_SECONDS", 0.01)
    found: list[object] = []
    threads = [
        threading.Thread(target=lambda: found.append(kept(tiny_state, "the cat")[1]))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    threading.Timer(0.3, gate.set).start()
    for thread in threads:
        thread.join(20)
    assert calls == ["the cat"] and len(found) == 3 and len({id(f) for f in found}) == 1


def test_a_page_that_leaves_in_the_middle_keeps_nobody_waiting(tiny_state: AppState) -> None:
    first = tiny_state.analyze(asked("the cat"))
    assert "Loading" in next(first)
    first.close()
    assert kept(tiny_state, "the cat")[1].id
    refused = asked("the cat", source="tiny-llama")
    for _ in range(2):  # a failure is over, too
        with pytest.raises(InputError, match="named twice"):
            list(tiny_state.analyze(refused))


# Defaults -----------------------------------------------------------------------------------------


def test_page_and_endpoints_begin_with_the_fusion_of_the_command_line() -> None:
    """Which is that of the settings. The page began with another level, and figures differed."""
    usual = vars(FusionConfig())
    keys = ("strategy", "operator", "level", "top_k")
    state = AppState(Limits())
    with gr.Blocks():
        settings = sidebar.build(state)
    assert {key: getattr(settings, key).value for key in keys} == {key: usual[key] for key in keys}
    here = api.Endpoints(state, None)  # type: ignore[arg-type]
    for function in (here.fuse, here.distributions):
        given = {n: p.default for n, p in inspect.signature(function).parameters.items()}
        assert {key: given[key] for key in keys} == {key: usual[key] for key in keys}


def test_a_new_operator_is_offered_and_described(monkeypatch: pytest.MonkeyPatch) -> None:
    state = AppState(Limits())
    monkeypatch.setitem(fuse.OPERATORS, "median", fuse.OPERATORS["mean"])
    with gr.Blocks():
        settings = sidebar.build(state)
        writers = generate_layout.build(state, settings)
    offered = [value for _, value in settings.operator.choices]
    assert offered == list(fuse.OPERATORS) and "median" in offered
    assert ("median", "median") in writers.linked["writer"].choices
    here = api.Endpoints(state, None)  # type: ignore[arg-type]
    for function in (here.fuse, here.generate):
        assert "mean or product" not in (api._answered(function).__doc__ or "")
        assert "product or median." in (api._answered(function).__doc__ or "")
