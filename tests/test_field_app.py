"""What is posted by hand: arguments of other types, too few and too many."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from app import arguments, requests
from app.arguments import checked
from app.limits import Limits
from fusion_core.errors import FusionError, InputError

GOOD: dict[str, dict[str, Any]] = {
    "align": {"target": "zoo:llama", "sources": ["zoo:mpt-code"], "text": "def a"},
    "fuse": {"target": "zoo:llama", "sources": ["zoo:mpt-code"], "text": "def a"},
    "distributions": {
        "target": "zoo:llama",
        "sources": ["zoo:mpt-code"],
        "text": "def a",
        "index": 0,
    },
    "generate": {"target": "zoo:llama", "sources": ["zoo:mpt-code"], "prompt": "def a"},
    "train": {"target": "zoo:llama", "sources": ["zoo:mpt-code"]},
    "run_status": {"key": "a" * 32, "run": "0" * 16},
}
UGLY = "a\nb\u202e<script>`${alert(1)}`" + "x" * 5000
HOSTILE = UGLY + "\ud800"
NAN = float("nan")


def post(url: str, body: Any) -> tuple[int, str]:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def asked(address: str, name: str, data: list[Any]) -> Any:
    """Call an endpoint as a program without a client does; an error is its whole answer."""
    code, text = post(f"{address}/gradio_api/call/{name}", {"data": data})
    assert code == 200, text
    with urllib.request.urlopen(
        f"{address}/gradio_api/call/{name}/{json.loads(text)['event_id']}", timeout=60
    ) as answer:
        lines = answer.read().decode().splitlines()
    found = json.loads(lines[-2 if not lines[-1] else -1].removeprefix("data: "))
    return found["error"] if "event: error" in lines else found


@pytest.fixture(scope="module")
def parameters(address: str) -> dict[str, list[dict[str, Any]]]:
    with urllib.request.urlopen(f"{address}/gradio_api/info", timeout=60) as answer:
        found = json.loads(answer.read())["named_endpoints"]
    return {name.removeprefix("/"): endpoint["parameters"] for name, endpoint in found.items()}


def filled(name: str, parameters: dict[str, list[dict[str, Any]]]) -> list[Any]:
    return [
        GOOD[name].get(p["parameter_name"], p.get("parameter_default")) for p in parameters[name]
    ]


WRONG: dict[str, list[Any]] = {
    "text": [123, ["a"], None, True, NAN, {"a": 1}],
    "a whole number": ["1", None, True, NAN, 1.5, [1], {}],
    "a number": ["1", None, True, NAN, float("inf"), 10**400, [1]],
    "true or false": ["true", 1, 0, None, []],
    "a list of texts": ["zoo:mpt-code", None, 1, [1], ["a", None], {"a": 1}, [["a"]]],
}
KINDS = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list of texts",
}


@pytest.mark.parametrize("name", GOOD)
def test_every_argument_of_another_type_is_one_sentence(
    name: str, address: str, parameters: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """A client was told no more than "error: null" (gradio-app/gradio#7889)."""
    good = filled(name, parameters)
    for i, parameter in enumerate(parameters[name]):
        kind = KINDS[parameter["type"]["type"]]
        for wrong in WRONG[kind]:
            said = asked(address, name, [*good[:i], wrong, *good[i + 1 :]])
            assert said.startswith(f"{parameter['parameter_name']} must be {kind}, not "), said
            assert len(said) < 140 and "\n" not in said
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("name", GOOD)
def test_too_few_and_too_many_are_one_sentence(
    name: str, address: str, parameters: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    good = filled(name, parameters)
    first = next(iter(GOOD[name]))
    assert asked(address, name, []) == f"{first} is missing: it must be text."
    for i, key in enumerate(GOOD[name]):
        assert asked(address, name, good[:i]).startswith(f"{key} is missing: it must be ")
    said = asked(address, name, [*good, 1])
    assert said.startswith(f"{name} takes {len(good)} arguments (") and "\n" not in said
    code, text = post(f"{address}/gradio_api/run/{name}", {"data": []})
    assert code == 500 and json.loads(text)["error"].startswith(f"{first} is missing")
    by_name = f"{address}/gradio_api/call/v2/{name}"
    assert post(by_name, {}) == (
        422,
        f'{{"error":"No value provided for required argument: {first}"}}',
    )
    code, text = post(by_name, GOOD[name] | {"nobody": 1})
    assert code == 422 and "`nobody` is not a valid" in text
    assert "Traceback" not in capsys.readouterr().err


def test_what_has_a_default_may_be_left_out(address: str, parameters: Any) -> None:
    for name in ("align", "fuse", "distributions"):
        whole, short = filled(name, parameters), list(GOOD[name].values())
        assert asked(address, name, short) == asked(address, name, whole)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("align", {"method": "magic"}, "magic"),
        ("align", {"text": ""}, "empty"),
        ("align", {"text": HOSTILE}, "lone surrogate"),
        ("align", {"target": HOSTILE}, "lone surrogate"),
        ("align", {"target": UGLY}, "at most 300 characters"),
        ("align", {"target": UGLY[:200]}, "no folder"),
        ("distributions", {"index": -1}, "no token -1"),
        ("distributions", {"index": 10**30}, "no token"),
        ("fuse", {"top_k": 0}, "Top-k"),
        ("fuse", {"operator": HOSTILE}, "lone surrogate"),
        ("fuse", {"operator": UGLY}, "operator"),
        ("fuse", {"level": "word"}, "level"),
        ("fuse", {"strategy": "magic"}, "strategy"),
        ("generate", {"max_new_tokens": 0}, "New tokens"),
        ("generate", {"temperature": -1.0}, "Temperature"),
        ("generate", {"top_p": 0}, "Top-p"),
        ("generate", {"seed": -1}, "Seed"),
        ("generate", {"operator": "magic"}, "magic"),
        ("train", {"steps": 0}, "Steps"),
        ("train", {"lm_weight": 2}, "λ"),
        ("train", {"learning_rate": 0}, "Learning rate"),
        ("train", {"learning_rate": NAN}, "learning_rate"),
        ("train", {"batch_size": 10**30}, "Batch"),
        ("train", {"kilobytes": -1}, "KB of toy text"),
        ("train", {"seed": -1}, "Seed"),
        ("train", {"domains": [HOSTILE]}, "lone surrogate"),
        ("train", {"domains": [UGLY]}, "toy domain"),
        ("train", {"operator": "magic"}, "magic"),
        ("train", {"key": HOSTILE}, "lone surrogate"),
        ("train", {"key": UGLY}, "key"),
        ("run_status", {"run": HOSTILE}, "lone surrogate"),
        ("run_status", {"run": UGLY}, "no such run"),
        ("run_status", {"key": ""}, "key"),
    ],
    ids=lambda v: str(v)[:24].encode("ascii", "replace").decode() if isinstance(v, dict) else None,
)
def test_values_out_of_range_are_one_sentence(
    name: str,
    change: dict,
    said: str,
    address: str,
    parameters: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    values = dict(
        zip((p["parameter_name"] for p in parameters[name]), filled(name, parameters), strict=True)
    )
    words = asked(address, name, list((values | change).values()))
    assert isinstance(words, str) and said in words and "\n" not in words, words
    assert "Traceback" not in capsys.readouterr().err


def test_the_client_of_gradio_is_told_the_same(address: str) -> None:
    from gradio_client import Client
    from gradio_client.exceptions import AppError

    client = Client(address, verbose=False)
    with pytest.raises(AppError, match="sources must be a list of texts, not 'zoo:mpt-code'"):
        client.predict(**GOOD["align"] | {"sources": "zoo:mpt-code"}, api_name="/align")
    with pytest.raises(AppError, match="index must be a whole number, not '1'"):
        client.predict(**GOOD["distributions"] | {"index": "1"}, api_name="/distributions")
    with pytest.raises(TypeError, match="text"):
        client.predict(target="zoo:llama", sources=["zoo:mpt-code"], api_name="/align")


def test_a_tool_is_told_in_one_sentence_too(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    wrong: list[tuple[dict[str, Any], str]] = [
        ({"text": 123}, "not of type 'string'"),
        ({"sources": "zoo:mpt-code"}, "not of type 'array'"),
        ({"nobody": 1}, "nobody"),
        ({"method": "magic"}, "magic"),
    ]

    async def call() -> list[Any]:
        async with (
            streamablehttp_client(f"{address}/gradio_api/mcp/") as (receive, send, _),
            ClientSession(receive, send) as session,
        ):
            await session.initialize()
            answers = [await session.call_tool("align", GOOD["align"] | w) for w, _ in wrong]
            return [*answers, await session.call_tool("align", {})]

    with ThreadPoolExecutor() as pool:  # a browser's loop may run in this thread
        answers = pool.submit(asyncio.run, call()).result()
    for answer, words in zip(answers, [*(w for _, w in wrong), "target"], strict=True):
        assert answer.isError and words in answer.content[0].text
        assert "Traceback" not in answer.content[0].text
    assert "Traceback" not in capsys.readouterr().err


# What the page sends --------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [1, True, NAN, [], ["a"], {"a": 1}, 10**400, [[]], [None]])
def test_requests_take_no_other_type(wrong: Any) -> None:
    limits = Limits()
    good = ("zoo:llama", ["zoo:mpt-code"])
    calls = [
        lambda: requests.model_names(limits, wrong, good[1]),
        lambda: requests.analysis_request(limits, *good, wrong),
        lambda: requests.analysis_request(limits, *good, "a", operator=wrong),
        lambda: requests.analysis_request(limits, *good, "a", level=wrong),
        lambda: requests.analysis_request(limits, *good, "a", strategy=wrong),
        lambda: requests.generation_request(limits, *good, wrong),
        lambda: requests.generation_request(limits, *good, "a", operator=wrong),
    ]
    if wrong not in (["a"], [], 1, True):
        calls += [lambda: requests.generation_request(limits, *good, "a", seed=wrong)]
    if wrong not in (["a"], [], [None]):
        calls += [lambda: requests.model_names(limits, good[0], wrong)]
    for call in calls:
        with pytest.raises(FusionError) as caught:
            call()
        assert len(str(caught.value)) < 200
    for source in ("zoo:mpt-code", ["zoo:mpt-code", 5]):
        with pytest.raises(InputError, match="sources must be"):
            requests.model_names(limits, "zoo:llama", source)  # type: ignore[arg-type]


def test_private_events_answer_any_payload(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever is posted to an event of the page, it ends, and with a sentence where it fails."""
    with urllib.request.urlopen(f"{address}/config", timeout=60) as answer:
        events = json.loads(answer.read())["dependencies"]
    file = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    for event in events:
        if not event["backend_fn"] or event["api_visibility"] == "public":
            continue
        for k, wrong in enumerate(([1], {"a": 1}, "x", None, file)):
            number, session = event["id"], f"s{event['id']}-{k}"
            body = {
                "data": [wrong] * len(event["inputs"]),
                "fn_index": number,
                "session_hash": session,
            }
            assert post(f"{address}/gradio_api/queue/join", body)[0] == 200
            url = f"{address}/gradio_api/queue/data?session_hash={session}"
            with urllib.request.urlopen(url, timeout=60) as stream:
                last = next(m for m in map(message, stream) if m.get("msg") == "process_completed")
            if not last["success"]:
                assert last["output"]["error"], (event["api_name"], wrong)
    assert "Traceback" not in capsys.readouterr().err


def message(line: bytes) -> dict[str, Any]:
    text = line.decode().removeprefix("data: ").strip()
    return json.loads(text) if text.startswith("{") else {}


# The check itself -----------------------------------------------------------------------------


def test_an_annotation_that_has_no_check_is_noticed(
    address: str, parameters: dict[str, Any]
) -> None:
    assert set(parameters) == set(GOOD)
    assert set(arguments.KINDS) >= {str, int, float, bool, list[str]}

    def strange(value: dict) -> None:
        """Take what nothing checks."""

    with pytest.raises(KeyError):
        checked(strange, [{}])
    assert checked(lambda: None, []) == []
