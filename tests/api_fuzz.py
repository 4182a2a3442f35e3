"""Random calls of the endpoints, as REST and as MCP tools, and what they are answered."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

ENDPOINTS = ("align", "distributions", "fuse", "generate", "train", "run_status")
RIGHT: dict[str, list[Any]] = {
    "align": ["zoo:llama", ["zoo:mpt-code"], "some text", "bytes"],
    "distributions": ["zoo:llama", ["zoo:mpt-code"], "text", 1, "min_ce", "token", "prefix", 3],
    "fuse": ["zoo:llama", ["zoo:mpt-code"], "text", "min_ce", "token", "prefix", 3, "exact"],
    "generate": ["zoo:llama", ["zoo:mpt-code"], "text", "mean", "prefix", 2, 1.0, 1.0, 1],
    # No number of steps is right, so that nothing begins that would have to be ended.
    "train": ["zoo:llama", ["zoo:mpt-code"], "", ["Code"], 3, -2, 0.1, 5e-4, 1, False, False],
    "run_status": ["k" * 32, "0" * 16],
}
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**70), 1.5, 1e308, -0.0, "", "x", "zoo:llama",
    "zoo:nothing", "../../etc/passwd", "\0", "a/b?start=", "\ud800", "é" * 300, [], [None], [[]],
    ["zoo:mpt-code", 3], ["zoo:llama"] * 9, {}, {"path": "/etc/passwd"}, {"a": [1]},
    {"__type__": "update"}, {"meta": {"_type": "gradio.FileData"}, "path": "/etc/passwd"},
    {"__type__": "update", "value": 3}, "[" * 99, "NaN", 10**400, "1e999",
    float("nan"), float("inf"),
)  # fmt: skip


@dataclass(frozen=True)
class Answered:
    """What a call was answered: the status, and the error's words or None where there is none."""

    call: str
    status: int
    words: Any
    failed: bool

    @property
    def silent(self) -> bool:
        """Whether it failed without a word, or with more than a sentence."""
        if not self.failed:
            return self.status >= 500
        said = self.words
        return not isinstance(said, str) or len(said.strip()) < 10 or "Traceback" in said


def arguments(some: random.Random, name: str) -> list[Any]:
    """Draw arguments: right ones of which some are odd, are left out, or are too many."""
    values = list(RIGHT[name])
    for _ in range(some.choice((1, 1, 2, 3))):
        values[some.randrange(len(values))] = some.choice(ODD)
    kind = some.randrange(8)
    if kind == 0:
        values = values[: some.randrange(len(values))]
    elif kind == 1:
        values += some.choices(ODD, k=some.choice((1, 9)))
    return values


def calls(address: str, number: int, seed: int = 0) -> Iterator[Answered]:
    """Make random calls, of each way in turn."""
    some = random.Random(seed)
    with httpx.Client(timeout=60) as client:
        for n in range(number):
            name = some.choice(ENDPOINTS)
            values = arguments(some, name)
            way = (_rest, _named, _tool)[n % 3]
            yield way(client, address, name, values, some)


def events(address: str, number: int, seed: int = 0) -> Iterator[Answered]:
    """Post random values to the page's own events, those without a function among them."""
    some = random.Random(seed)
    with httpx.Client(timeout=60) as client:
        found = client.get(f"{address}/config").json()["dependencies"]
        for n in range(number):
            event = some.choice(found)
            values = [some.choice(ODD) for _ in event["inputs"]][: None if n % 5 else -1]
            body = {"data": values, "fn_index": event["id"], "session_hash": f"fuzz{seed}-{n}"}
            call = f"{event['api_name']} {json.dumps(values)}"
            sent = client.post(
                f"{address}/gradio_api/queue/join",
                content=json.dumps(body),
                headers={"Content-Type": "application/json"},
            )
            if sent.status_code != 200:
                yield Answered(call, sent.status_code, sent.text, True)
                continue
            url = f"{address}/gradio_api/queue/data?session_hash={body['session_hash']}"
            yield _followed(client, url, call)


def _followed(client: httpx.Client, url: str, call: str) -> Answered:
    """Read an event's stream until it is answered."""
    with client.stream("GET", url) as stream:
        for line in stream.iter_lines():
            if '"process_completed"' in line:
                found = json.loads(line.removeprefix("data:"))
                said = (found.get("output") or {}).get("error")
                return Answered(call, 200, said, not found["success"])
    return Answered(call, 200, None, True)


def _words(text: str) -> Any:
    """Read the error of an event stream, or of a JSON answer."""
    for line in reversed(text.splitlines()):
        if line.startswith("data:"):
            found = json.loads(line.removeprefix("data:"))
            return found.get("error", found) if isinstance(found, dict) else found
    return text


def _rest(
    client: httpx.Client, address: str, name: str, values: list[Any], some: random.Random
) -> Answered:
    body = {"data": values}
    if some.random() < 0.1:
        body = some.choice([{}, {"data": None}, {"data": {}}, {"data": "x"}, {"data": 3}])
    return _posted(client, f"{address}/gradio_api/call/{name}", body)


def _named(
    client: httpx.Client, address: str, name: str, values: list[Any], some: random.Random
) -> Answered:
    from app.api import Endpoints

    names = list(getattr(Endpoints, name).__annotations__)
    body = dict(zip(names, values, strict=False))
    if some.random() < 0.1:
        body["odd"] = some.choice(ODD)
    return _posted(client, f"{address}/gradio_api/call/v2/{name}", body)


def _posted(client: httpx.Client, url: str, body: Any) -> Answered:
    content = json.dumps(body)
    call = f"{url} {content}"
    sent = client.post(url, content=content, headers={"Content-Type": "application/json"})
    if sent.status_code != 200:
        try:
            found = sent.json()
        except ValueError:
            found = sent.text
        words = found.get("error", found.get("detail")) if isinstance(found, dict) else found
        return Answered(
            call, sent.status_code, words if isinstance(words, str) else str(words), True
        )
    got = client.get(f"{url}/{sent.json()['event_id']}")
    return Answered(call, got.status_code, _words(got.text), "event: error" in got.text)


def _tool(
    client: httpx.Client, address: str, name: str, values: list[Any], some: random.Random
) -> Answered:
    from app.api import Endpoints

    names = list(getattr(Endpoints, name).__annotations__)
    given: Any = dict(zip(names, values, strict=False))
    if some.random() < 0.1:
        given = some.choice([None, [], "x", {"odd": 3}])
    params = {"name": name, "arguments": given}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
    }
    got = client.post(f"{address}/gradio_api/mcp/", content=body, headers=headers)
    call = f"mcp {name} {json.dumps(given)}"
    found = _words(got.text)
    if isinstance(found, str):
        return Answered(call, got.status_code, found, got.status_code != 200)
    result = found.get("result", found) if isinstance(found, dict) else {}
    failed = bool(result.get("isError")) or "message" in result
    said = " ".join(c.get("text", "") for c in result.get("content", ()))
    return Answered(call, got.status_code, said or result.get("message"), failed)
