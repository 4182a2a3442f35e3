"""The endpoints, as programs see them: gradio_client, and a client of MCP."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from typing import Any

import pytest

from fusion_core import generation, models, pipeline, reports
from fusion_core.config import FusionConfig, Objective, RunConfig, Sampling, Settings

TEXT = "def add(a, b):\n    return a"
SOURCES = ["zoo:mpt-code", "zoo:gpt2-story"]


@pytest.fixture(scope="module")
def client(address: str) -> Any:
    """A program that calls the app."""
    from gradio_client import Client

    return Client(address, verbose=False)


def test_only_typed_endpoints_are_public(client: Any) -> None:
    found = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    names = ("align", "distributions", "fuse", "generate", "train", "run_status")
    assert set(found) == {f"/{name}" for name in names}
    for name, endpoint in found.items():
        assert endpoint["parameters"], name
        assert endpoint["description"], name
        for parameter in endpoint["parameters"]:
            assert parameter["python_type"]["type"] != "Any", (name, parameter)


def test_align_is_what_the_library_says(client: Any) -> None:
    answer = client.predict("zoo:llama", SOURCES, TEXT, "bytes", api_name="/align")
    first, *others = [models.load_tokenizer(n) for n in ("zoo:llama", *SOURCES)]
    assert answer == json.loads(
        json.dumps(reports.align_report(*pipeline.align(first, others, TEXT)))
    )


def test_fuse_and_distributions_are_what_the_library_says(client: Any) -> None:
    asked = {"target": "zoo:llama", "sources": SOURCES, "text": TEXT, "operator": "confidence"}
    answer = client.predict(**asked, api_name="/fuse")
    target, *sources = [models.load(n) for n in ("zoo:llama", *SOURCES)]
    analysis = pipeline.analyze(target, sources, TEXT, FusionConfig(operator="confidence"))
    assert answer["fused_bits_per_byte"] == pytest.approx(analysis.fused_bits_per_byte, rel=1e-5)
    assert len(answer["positions"]) == len(analysis.target.text_tokens)
    assert set(answer["positions"][3]["fused"][0]["from"]) == set(SOURCES)
    card = client.predict(**asked, index=3, api_name="/distributions")
    assert card["fused"]["ce"] == pytest.approx(-float(analysis.fused.observed_logprob[3]), 1e-3)


@pytest.mark.parametrize("rows", ["exact", "boundary"])
def test_rows_are_chosen_and_said(client: Any, rows: str) -> None:
    asked = {"target": "zoo:llama", "sources": SOURCES, "text": TEXT, "level": "token"}
    answer = client.predict(**asked, rows=rows, api_name="/fuse")
    assert (answer["rows"], answer["knows_token"]) == (rows, True)
    target, *sources = [models.load(n) for n in ("zoo:llama", *SOURCES)]
    config = FusionConfig(rows=rows, level="token")
    analysis = pipeline.analyze(target, sources, TEXT, config)
    assert answer["fused_bits_per_byte"] == pytest.approx(analysis.fused_bits_per_byte, rel=1e-5)
    card = client.predict(**asked, index=3, rows=rows, api_name="/distributions")
    assert card["fused"]["details"]["rows"] == rows
    for endpoint in ("/fuse", "/train"):
        with pytest.raises(Exception, match=r"choose one of exact, boundary"):
            client.predict(**asked, rows="exakt", api_name=endpoint)


def test_generate_is_what_the_library_writes(client: Any) -> None:
    asked = {"target": "zoo:llama", "sources": SOURCES, "prompt": "def add(a, b):\n", "seed": 3}
    answer = client.predict(**asked, max_new_tokens=8, api_name="/generate")
    target, *sources = [models.load(n) for n in ("zoo:llama", *SOURCES)]
    sampling = generation.Sampling(max_new_tokens=8, seed=3)
    assert answer == generation.generate(target, sources, asked["prompt"], sampling=sampling)


def test_generate_has_the_limits_of_the_page(client: Any) -> None:
    from gradio_client.exceptions import AppError

    asked = {"target": "zoo:llama", "sources": SOURCES, "prompt": "a"}
    wrong = {
        "New tokens": {"max_new_tokens": 100_000},
        "Top-p": {"top_p": 2},
        "min_ce": {"operator": "min_ce"},
        "empty": {"prompt": ""},
    }
    for words, change in wrong.items():
        with pytest.raises(AppError, match=words):
            client.predict(**asked | change, api_name="/generate")


def test_a_training_is_started_and_followed(client: Any) -> None:
    asked = {"target": "zoo:llama", "sources": SOURCES[:1], "domains": ["Code"], "kilobytes": 4}
    started = client.predict(**asked, steps=3, baseline=False, api_name="/train")
    assert started["parts"] == ["fused"] and started["steps"] == 3
    until = time.monotonic() + 90
    while True:
        now = client.predict(started["key"], started["run"], api_name="/run_status")
        fused = now["parts"]["fused"]
        assert fused["state"] != "failed", fused
        if fused["state"] == "finished":
            break
        assert time.monotonic() < until, fused
        time.sleep(0.5)
    assert fused["metrics"]["step"] == 3 and fused["result"]["bits_per_byte"]["after"] > 0


def test_a_training_has_the_limits_of_the_page_and_its_owner(client: Any) -> None:
    from gradio_client.exceptions import AppError

    asked = {"target": "zoo:llama", "sources": SOURCES[:1], "domains": ["Code"]}
    wrong = {
        "Steps": {"steps": 10**9},
        "λ must": {"lm_weight": 3},
        "toy domain": {"domains": ["../.."]},
        "nothing to read": {"domains": []},
        "key": {"key": "../../etc"},
    }
    for words, change in wrong.items():
        with pytest.raises(AppError, match=words):
            client.predict(**asked | change, api_name="/train")
    for key, run in (("a" * 32, "0" * 16), ("../..", "x"), ("", "")):
        with pytest.raises(AppError):
            client.predict(key, run, api_name="/run_status")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"target": "zoo:nobody"}, "No embedded model"),
        ({"target": ""}, "no target"),
        ({"sources": []}, "no source"),
        ({"sources": ["zoo:mpt-code"] * 2}, "named twice"),
        ({"text": ""}, "empty"),
        ({"text": "x" * 20_001}, "20,000"),
        ({"operator": "magic"}, "magic"),
        ({"strategy": "magic"}, "magic"),
        ({"top_k": 0}, "Top-k"),
        ({"target": "../../etc"}, "../../etc"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(client: Any, change: dict, words: str) -> None:
    from gradio_client.exceptions import AppError

    asked = {"target": "zoo:llama", "sources": SOURCES, "text": TEXT} | change
    with pytest.raises(AppError, match=words) as caught:
        client.predict(**asked, api_name="/fuse")
    assert "Traceback" not in str(caught.value) and "\n" not in str(caught.value)


def test_the_endpoints_are_tools_of_mcp(address: str) -> None:
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    async def call() -> tuple[dict[str, Any], Any]:
        async with (
            streamablehttp_client(f"{address}/gradio_api/mcp/") as (receive, send, _),
            ClientSession(receive, send) as session,
        ):
            await session.initialize()
            tools = {t.name: t for t in (await session.list_tools()).tools}
            asked = {"target": "zoo:llama", "sources": SOURCES[:1], "text": TEXT, "method": "bytes"}
            return tools, await session.call_tool("align", asked)

    tools, answer = asyncio.run(call())
    assert {"align", "distributions", "fuse"} <= set(tools)
    assert all(t.description and t.inputSchema["properties"] for t in tools.values())
    assert not answer.isError and f"'bytes': {len(TEXT)}" in answer.content[0].text.replace(
        '"', "'"
    )


SETTINGS: list[tuple[str, type[Settings], tuple[str, ...]]] = [
    ("fuse", FusionConfig, ("operator", "level", "strategy", "top_k")),
    ("distributions", FusionConfig, ("operator", "level", "strategy", "top_k")),
    ("generate", FusionConfig, ("operator", "strategy")),
    ("generate", Sampling, ("max_new_tokens", "temperature", "top_p", "seed")),
    ("train", FusionConfig, ("operator", "level", "strategy")),
    ("train", RunConfig, ("learning_rate", "batch_size", "lora", "seed")),
    ("train", Objective, ("lm_weight",)),
]
FORM = {"lm_weight": 0.1, "learning_rate": 5e-4}
"""What a short training of tiny models begins with, in place of a long one's defaults."""


@pytest.mark.parametrize(("name", "model", "fields"), SETTINGS)
def test_an_endpoint_describes_a_setting_as_the_settings_do(
    client: Any, address: str, name: str, model: type[Settings], fields: tuple[str, ...]
) -> None:
    """A default of 0 is in MCP's schema too, which leaves out those that are false."""
    info = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    endpoint = {p["parameter_name"]: p for p in info[f"/{name}"]["parameters"]}
    with urllib.request.urlopen(f"{address}/gradio_api/mcp/schema", timeout=60) as answer:
        tools = {tool["name"]: tool["inputSchema"]["properties"] for tool in json.load(answer)}
    for field in fields:
        wanted = model.model_json_schema()["properties"][field]
        default = FORM.get(field, wanted["default"])
        if (name, field) == ("generate", "operator"):
            default = "confidence"  # nothing follows that min_ce could look at
        default = bool(default) if field == "lora" else default
        for found in (endpoint[field]["type"], tools[name][field]):
            assert found["default"] == default, field
            words = found["description"]
            assert words == wanted["description"] or words.startswith(f"{wanted['description']}: ")
            assert found["type"] == wanted.get("type", "boolean")
        assert endpoint[field]["parameter_default"] == default
        assert {"operator", "strategy"}.isdisjoint([field]) or ", " in words  # the choices


def test_every_argument_of_every_tool_is_described_whole(address: str) -> None:
    """Of a description that was wrapped, a client saw the first line."""
    with urllib.request.urlopen(f"{address}/gradio_api/mcp/schema", timeout=60) as answer:
        tools = json.load(answer)
    for tool in tools:
        for argument, schema in tool["inputSchema"]["properties"].items():
            words = schema["description"]
            assert words and "{" not in words, (tool["name"], argument)
    target = next(t for t in tools if t["name"] == "align")["inputSchema"]["properties"]["target"]
    assert target["description"].endswith("documents.")
