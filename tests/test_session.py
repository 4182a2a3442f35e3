"""Limits, loaded models and kept analyses."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from app import limits
from app import session as sessions
from app import shelf as shelves
from app.limits import Limits
from app.session import Session
from app.shelf import Shelf
from fusion_core import errors
from fusion_core.errors import FusionError, InputError


def model(size: int) -> SimpleNamespace:
    """Stand in for a loaded model of a size."""
    return SimpleNamespace(size_bytes=size)


def test_shelf_loads_once_for_all_who_ask() -> None:
    calls, gate = [], threading.Event()

    def load(name: str) -> SimpleNamespace:
        calls.append(name)
        gate.wait(5)
        return model(1)

    shelf = Shelf(10, load)
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(shelf.get("a"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join(5)
    assert calls == ["a"] and len(found) == 4 and len({id(f) for f in found}) == 1


def test_shelf_forgets_the_least_recently_used() -> None:
    calls: list[str] = []
    shelf = Shelf(10, lambda name: calls.append(name) or model(4))
    for name in ("a", "b", "a", "c", "a"):
        shelf.get(name)
    assert calls == ["a", "b", "c"]
    assert shelf.has("a") and shelf.has("c") and not shelf.has("b")
    big = Shelf(1, lambda name: model(5))
    assert big.get("x") is big.get("x")


def test_shelf_tries_again_after_a_failure() -> None:
    answers = iter([FusionError("no"), model(1)])

    def load(name: str) -> SimpleNamespace:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    shelf = Shelf(10, load)
    with pytest.raises(FusionError):
        shelf.get("a")
    assert not shelf.has("a")
    assert shelf.get("a").size_bytes == 1


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
        ({"top_k": 0}, "top_k"),
        ({"top_k": None}, "top_k"),
        ({"top_k": 1.5}, "top_k"),
    ],
)
def test_bad_requests_are_one_sentence(change: dict, words: str) -> None:
    asked = {"target": "t", "sources": ["a"], "text": "x", "top_k": 10} | change
    with pytest.raises(FusionError, match=words) as caught:
        Session(Limits()).request(
            asked.pop("target"), asked.pop("sources"), asked.pop("text"), **asked
        )
    assert "\n" not in str(caught.value)


FOLDERS = ["/etc", "./app", "~/m", "app", "app/tabs", "..\\x", "a/b/c"]


@pytest.mark.parametrize("name", [*FOLDERS, "app/tabs?start=x", "?start=x", "/etc?end=a/b"])
def test_a_public_page_reads_no_folders(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_ID", "owner/space")
    public = Session()
    assert public.limits.model_bytes == 2 * limits.GIB
    with pytest.raises(FusionError, match="public page"):
        public.request("zoo:llama", [name], "x")
    assert public.request("zoo:llama", ["owner/model"], "x").sources == ("owner/model",)


@pytest.fixture
def tiny_session(tiny_models, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A session whose models are the tiny ones."""
    by_name = {m.name: m for m in tiny_models}
    monkeypatch.setattr(sessions.models, "load", lambda name, **_: by_name[name])
    return Session(Limits(kept_bytes=40))


def kept(session: Session, text: str):
    """Analyse a text in a session."""
    *steps, result = session.analyse(session.request("tiny-llama", ["tiny-gpt"], text))
    return steps, result


def test_the_same_request_is_answered_from_memory(tiny_session: Session) -> None:
    steps, first = kept(tiny_session, "the cat")
    assert "Loading tiny-llama" in steps[0]
    again, second = kept(tiny_session, "the cat")
    assert again == [] and second is first
    _, other = kept(tiny_session, "the cats")
    assert other.id != first.id and len(other.id) >= 20


def test_pages_ask_by_id_only(tiny_session: Session) -> None:
    _, result = kept(tiny_session, "the cat sat")
    question = {"id": result.id, "index": 2, "page": 0}
    assert tiny_session.cards(question)["index"] == 2
    assert tiny_session.page(question)["id"] == result.id
    for bad in ({}, None, [], {"id": "x", "index": 0}, question | {"index": -1},
                question | {"index": "2"}, question | {"index": 10**9}):  # fmt: skip
        assert tiny_session.cards(bad) is None
    assert tiny_session.page({"id": None, "page": 0}) is None


def test_old_analyses_make_room(tiny_session: Session) -> None:
    _, first = kept(tiny_session, "a" * 30)
    kept(tiny_session, "b" * 30)
    assert tiny_session.cards({"id": first.id, "index": 0}) is None


def test_progress_is_told_while_a_text_is_read(
    tiny_session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelves, "PROGRESS_SECONDS", 0.0)
    text = "the cat sat, the cats " * 12
    *steps, _ = tiny_session.analyse(tiny_session.request("tiny-llama", ["tiny-gpt"], text))
    assert any(s.startswith("Reading window") and s.endswith("%) …") for s in steps)


def test_a_refusal_while_reading_reaches_the_page(tiny_session: Session) -> None:
    request = tiny_session.request("tiny-llama", ["tiny-llama"], "the cat")
    with pytest.raises(InputError, match="named twice"):
        list(tiny_session.analyse(request))


def test_visitors_with_different_models_do_not_fight(tiny_models) -> None:
    by_name = {m.name: m for m in tiny_models}
    loads: list[str] = []

    def load(name: str) -> SimpleNamespace:
        loads.append(name)
        return SimpleNamespace(model=by_name[name], size_bytes=10)

    shelf = Shelf(10, load)  # room for one of the two
    failed: list[BaseException] = []

    def visit(name: str) -> None:
        try:
            for _ in range(50):
                assert shelf.get(name).model.name == name
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=visit, args=(name,)) for name in by_name]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert failed == [] and set(loads) == set(by_name)
    assert sum(shelf.has(name) for name in by_name) <= 1


def test_loading_tells_which_model_and_how_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelves, "PROGRESS_SECONDS", 0.01)
    monkeypatch.setattr(shelves.models, "weights_bytes", lambda name: 2_500_000_000)
    monkeypatch.setattr(shelves, "_fetched", lambda name: 1_000_000_000)
    gate = threading.Event()
    shelf = Shelf(10, lambda name: gate.wait(5) and model(1))
    steps = shelf.loading(["owner/model"])
    assert next(steps) == "Loading owner/model (2.5 GB; 1 of 1) …"
    assert next(steps) == "Loading owner/model (2.5 GB; 1 of 1): 1.0 GB have come …"
    gate.set()
    assert all("Loading" in step for step in steps)
    assert shelf.has("owner/model")


def test_what_has_come_of_a_download_is_counted(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    blobs = tmp_path / "models--owner--model" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "a.incomplete").write_bytes(b"x" * 700)
    assert shelves._fetched("owner/model") == 700
    assert shelves._fetched("owner/other") == 0 and shelves._fetched("zoo:llama") == 0


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
    tiny_session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    gate = threading.Event()
    real = sessions.work.analyse

    def slow(shelf: str, request: sessions.Request):
        calls.append(request.text)
        gate.wait(10)
        yield from real(shelf, request)

    monkeypatch.setattr(sessions.work, "analyse", slow)
    monkeypatch.setattr(sessions, "PROGRESS_SECONDS", 0.01)
    found: list[object] = []
    threads = [
        threading.Thread(target=lambda: found.append(kept(tiny_session, "the cat")[1]))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    threading.Timer(0.3, gate.set).start()
    for thread in threads:
        thread.join(20)
    assert calls == ["the cat"] and len(found) == 3 and len({id(f) for f in found}) == 1


def test_a_page_that_leaves_in_the_middle_keeps_nobody_waiting(tiny_session: Session) -> None:
    first = tiny_session.analyse(tiny_session.request("tiny-llama", ["tiny-gpt"], "the cat"))
    assert "Loading" in next(first)
    first.close()
    assert kept(tiny_session, "the cat")[1].id
    refused = tiny_session.request("tiny-llama", ["tiny-llama"], "the cat")
    for _ in range(2):  # a failure is over, too
        with pytest.raises(InputError, match="named twice"):
            list(tiny_session.analyse(refused))
