"""Waits of many visitors: `align` waits for no network, and who waits is told their place."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import load
import pytest
from hostile import served

from app.limits import Limits
from app.state import AppState
from app.tabs.events import waiting

ALIGN = {"data": ["zoo:llama", ["zoo:mpt-code"], "some text", "bytes"]}
FUSE = {"data": ["zoo:llama", ["zoo:mpt-code"], "some text"]}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSELAB_RUNS", str(tmp_path_factory.mktemp("runs")))
        with served(Limits()) as found:
            yield found


def asked(address: str, name: str, body: dict[str, Any]) -> float:
    """Call an endpoint, and return the seconds to its answer."""
    began = time.monotonic()
    with httpx.Client(base_url=f"{address}/gradio_api", timeout=120) as client:
        event = client.post(f"call/{name}", json=body).json()["event_id"]
        assert "event: complete" in client.get(f"call/{name}/{event}").text
    return time.monotonic() - began


def test_align_does_not_wait_for_networks(
    page: tuple[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stood behind every text that networks read: 18.8 s at the 95th percentile."""
    address, _ = page
    plain = AppState.analyze

    def slow(self: AppState, request: Any) -> Iterator[Any]:
        time.sleep(2)
        yield from plain(self, request)

    monkeypatch.setattr(AppState, "analyze", slow)
    others = [threading.Thread(target=asked, args=(address, "fuse", FUSE)) for _ in range(6)]
    for thread in others:
        thread.start()
    time.sleep(0.3)
    assert max(asked(address, "align", ALIGN) for _ in range(5)) < 1.5
    for thread in others:
        thread.join()


def line(before: int, running: int, limit: int | None, seconds: float) -> Any:
    function = object()
    events = [SimpleNamespace(fn=function, session_hash=f"s{n}") for n in range(before)]
    queue = SimpleNamespace(
        queue=events, concurrency_limit=limit, current_concurrency=running,
        start_times_per_fn={function: {float(n) for n in range(running)}},
    )  # fmt: skip
    times = {function: SimpleNamespace(avg_time=seconds)} if seconds else {}
    found = SimpleNamespace(
        event_queue_per_concurrency_id={"analyze": queue}, process_time_per_fn=times
    )
    return SimpleNamespace(_queue=found)


@pytest.mark.parametrize(
    ("before", "running", "limit", "seconds", "said"),
    [
        (0, 0, 2, 3.0, None),
        (0, 1, 2, 3.0, None),
        (0, 2, 2, 3.0, "0 before you in the queue, about 2 s"),
        (4, 2, 2, 3.0, "4 before you in the queue, about 8 s"),
        (3, 1, 1, 0.0, "3 before you in the queue …"),
        (5, 9, None, 3.0, None),
    ],
)
def test_a_place_and_an_estimate(
    before: int, running: int, limit: int | None, seconds: float, said: str | None
) -> None:
    found = waiting(line(before, running, limit, seconds), "analyze")
    assert found is None if said is None else said in (found or "")
    assert waiting(line(1, 1, 1, 1.0), "another") is None


def test_the_page_says_it(page: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A visitor who presses Analyse behind others sees how many they are."""
    address, _ = page

    def slow(self: AppState, request: Any) -> Iterator[Any]:
        time.sleep(1.5)
        yield "Reading …"

    monkeypatch.setattr(AppState, "analyze", slow)
    with httpx.Client(base_url=f"{address}/gradio_api/", timeout=60) as client:
        config = httpx.get(f"{address}/config", timeout=30).json()
        ids = {c["props"].get("elem_id"): c["id"] for c in config["components"]}
        events = [
            d
            for d in config["dependencies"]
            if [ids["analyze"], "click"] in map(list, d["targets"])
        ]
        analyse, place = sorted(events, key=lambda d: not d["queue"])
        values = ["", "some text", *load.MODELS, "prefix", "min_ce", "token", 10, "exact"]
        for n in range(5):
            body = {"data": values, "fn_index": analyse["id"], "session_hash": f"w{n}"}
            client.post("queue/join", json=body).raise_for_status()
        time.sleep(0.2)
        body = {"data": [], "fn_index": place["id"], "session_hash": "mine"}
        said = client.post("run/predict", json=body).text
        assert "3 before you in the queue" in said


@pytest.mark.slow
def test_fifty_visitors_and_three_trainings_for_ten_minutes(tmp_path: Any) -> None:
    """`align` within 5 s at the 95th percentile, and memory back within a tenth."""
    seconds = 600
    with load.app(FUSELAB_RUNS=str(tmp_path)) as (address, process, _):
        waits = load.crowd_of_programs(address, 2, 10, trainings=0)
        before = load.settled(process)
        waits = load.crowd_of_programs(address, 50, seconds, trainings=3)
        after = load.settled(process)
    assert waits.errors == []
    assert load.Waits.share(waits.analyses, 0.95) < 5
    assert after < 1.1 * before, f"{before / 1e6:.0f} MB before, {after / 1e6:.0f} MB after"
