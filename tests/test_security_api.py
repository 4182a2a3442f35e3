"""Random calls: each is answered, and what is refused is refused by one sentence.

Of 700 random calls 164 were answered `{"error": null}`. A lone surrogate in one broke the stream of
answers, and an event that the page itself answers had no words.
"""

from __future__ import annotations

import json
import logging
import random
from typing import Any

import gradio as gr
import httpx
import pytest
from api_fuzz import ENDPOINTS, ODD, arguments, calls, events

from app.api import Endpoints
from app.arguments import check_text, checked
from app.limits import Limits
from app.requests import analysis_request, generation_request, model_names
from app.state import AppState
from fusion_core.errors import FusionError

PUBLIC = Limits(local_folders=False)


@pytest.mark.parametrize(
    "number", [150, pytest.param(5000, marks=pytest.mark.slow)], ids=["sample", "all"]
)
def test_calls_of_programs_are_answered(address: str, number: int) -> None:
    answered = list(calls(address, number, seed=number))
    assert [a for a in answered if a.silent] == []
    assert sum(a.failed for a in answered) > number // 2 < len(answered)


@pytest.mark.parametrize(
    "number", [150, pytest.param(5000, marks=pytest.mark.slow)], ids=["sample", "all"]
)
def test_events_of_the_page_are_answered(address: str, number: int) -> None:
    answered = list(events(address, number, seed=number))
    assert [a for a in answered if a.silent] == []
    assert sum(a.failed for a in answered) > number // 8


@pytest.mark.parametrize(
    "number", [5000, pytest.param(1_000_000, marks=pytest.mark.slow)], ids=["sample", "all"]
)
def test_random_arguments_are_requests_or_one_sentence(number: int) -> None:
    """Whatever is posted to an endpoint is checked without a model, and never ends in a fault."""
    some, here, refused = random.Random(number), Endpoints.__new__(Endpoints), 0
    for _ in range(number):
        name = some.choice(ENDPOINTS)
        values = arguments(some, name)
        try:
            check_text(values)
            given = checked(getattr(here, name), values)
            if name in ("align", "fuse", "distributions"):
                more = given[3:] if name == "fuse" else given[4:]
                keys = ("operator", "level", "strategy", "top_k", "rows")
                fusion = {} if name == "align" else dict(zip(keys, more, strict=True))
                analysis_request(PUBLIC, *given[:3], **fusion)
            elif name == "generate":
                keys = ("operator", "strategy", "max_new_tokens", "temperature", "top_p", "seed")
                generation_request(PUBLIC, *given[:3], **dict(zip(keys, given[3:], strict=True)))
            elif name == "train":
                model_names(PUBLIC, *given[:2])
        except FusionError as error:
            refused += 1 if 10 < len(str(error)) < 700 and "\n" not in str(error) else -number
    assert refused > number // 2


SURROGATES: tuple[Any, ...] = (
    ["\ud800"], [{"a": ["x", "\udfff"]}], [{"\ud800": 1}], [["\ud83d"]],
)  # fmt: skip


@pytest.mark.parametrize("where", SURROGATES)
def test_lone_surrogates_are_refused_wherever_they_are(where: Any) -> None:
    with pytest.raises(FusionError, match="lone surrogate"):
        check_text(where)
    check_text([None, 1, "", "🐈", {"a": [True, "é"]}])


def test_a_fault_of_ours_has_words(caplog: pytest.LogCaptureFixture) -> None:
    """It goes to the log with its traceback, and to the visitor as a sentence."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    from app.arguments import Page

    def broken(text: str) -> str:
        raise ZeroDivisionError("of ours")

    with Page() as page:
        box = gr.Textbox()
        box.change(broken, box, box)
    function = next(iter(page.fns.values()))
    # In a thread of its own: a browser's test may have left an event loop in this one.
    with (
        ThreadPoolExecutor(1) as thread,
        pytest.raises(gr.Error, match=r"FuseLab failed at this \(ZeroDivisionError\)"),
    ):
        thread.submit(asyncio.run, page.process_api(function, ["x"])).result()
    assert "of ours" in caplog.text


def test_no_key_goes_to_the_log(address: str, caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
    """A value that a list has not may be the name of a trained model, and have a run's key."""
    key = "k" * 16 + "SECRETSECRETSECR"
    with caplog.at_level(logging.DEBUG):
        found = httpx.get(f"{address}/config", timeout=30).json()["dependencies"]
        for event in [e for e in found if e["inputs"] and e["backend_fn"]]:
            for value in (f"run:{key}/{'0' * 16}/fused", {"key": key}):
                body = {
                    "data": [value] * len(event["inputs"]),
                    "fn_index": event["id"],
                    "session_hash": f"log{event['id']}",
                }
                httpx.post(f"{address}/gradio_api/queue/join", json=body, timeout=30)
            with httpx.stream(
                "GET",
                f"{address}/gradio_api/queue/data?session_hash=log{event['id']}",
                timeout=30,
            ) as stream:
                for line in stream.iter_lines():
                    if "close_stream" in line:
                        break
    said = capfd.readouterr()
    assert key not in caplog.text and key not in said.err and key not in said.out


def test_what_json_can_hold_is_among_the_odd() -> None:
    kinds = {type(v) for v in ODD}
    assert kinds == {type(None), bool, int, float, str, list, dict}
    assert json.dumps(list(ODD))


def test_a_refused_name_tells_nothing_of_the_servers_paths(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name of two parts was answered otherwise where there is such a folder."""
    from huggingface_hub.errors import RepositoryNotFoundError

    asked: list[str] = []

    def absent(_: Any, name: str, **__: Any) -> Any:
        asked.append(name)
        raise RepositoryNotFoundError("404", response=httpx.Response(404, request=REQUEST))

    REQUEST = httpx.Request("GET", "http://hub")  # noqa: N806
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", absent)
    monkeypatch.chdir(tmp_path)
    for kind in ("folder", "file", "link"):
        there = tmp_path / "some" / kind
        there.parent.mkdir(exist_ok=True)
        made = {
            "folder": there.mkdir,
            "file": there.touch,
            "link": lambda p=there: p.symlink_to("/"),
        }
        made[kind]()
    said = []
    for name in ("some/folder", "some/file", "some/link", "some/nothing"):
        state = AppState(PUBLIC)
        with pytest.raises(FusionError) as caught:
            list(state.analyze(analysis_request(PUBLIC, "zoo:llama", [name], "text")))
        said.append(str(caught.value).replace(name, "NAME"))
    assert len(set(said[:3])) == 1 and len(asked) >= 3


@pytest.mark.parametrize(
    "name",
    [
        "http://127.0.0.1:8000/v1#m?tokenizer=zoo:llama",
        "https://h/v1#m?tokenizer=a/b",
        "a/b?tokenizer=zoo:llama",
        "./teacher.gguf",
        "/tmp/teacher.gguf",
    ],
)
def test_no_server_and_no_file_is_read_for_a_visitor(name: str, monkeypatch) -> None:
    """A public page opens no connection to an address that a visitor names."""
    opened: list[object] = []
    monkeypatch.setattr(httpx.Client, "request", lambda *given, **_: opened.append(given))
    with pytest.raises(FusionError):
        model_names(PUBLIC, "zoo:neox-reason", [name])
    assert not opened
