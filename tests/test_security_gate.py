"""One client must not take everything: calls, uploads, trainings have limits by address and in all.

64 calls that nobody read answered everybody else by 503 for 75 seconds, 25 trainings began with 25
keys, a list of one domain a thousand times held a place for 110 seconds; any Host was answered.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio.state_holder import StateHolder
from hostile import served
from trainings import FORM, planned

from app import gate
from app.limits import Limits, client_address
from app.training import queue, store
from app.training.form import check
from app.training.store import JobStore
from app.ui import launch_options
from fusion_core import pipeline
from fusion_core.errors import InputError

SPACE = Limits(
    local_folders=False, data_bytes=10_000, calls_by_address=4, kept_seconds=3000,
    uploads_by_address=25_000, uploads_in_all=45_000,
)  # fmt: skip
ALIGN = {"data": ["zoo:llama", ["zoo:mpt-code"], "some text", "bytes"]}


@pytest.fixture(scope="module")
def served_space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app with the limits of a Space."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSELAB_RUNS", str(tmp_path_factory.mktemp("runs")))
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        with served(SPACE) as (address, _):
            yield f"{address}/gradio_api"


@pytest.fixture
def space(served_space: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A Space behind a proxy that names the addresses of its clients."""
    monkeypatch.setenv("SPACE_ID", "owner/space")
    return served_space


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = pipeline.align

    def align(*args: Any, **kwargs: Any) -> Any:
        time.sleep(1.5)
        return plain(*args, **kwargs)

    monkeypatch.setattr(pipeline, "align", align)
    monkeypatch.setattr(gate, "UNREAD_SECONDS", 2.0)
    monkeypatch.setattr(gate, "LOOK_SECONDS", 0.2)


def by(client: str) -> dict[str, str]:
    """Name the client as the proxy does; what it wrote there by itself stands before."""
    return {"X-Forwarded-For": f"9.9.9.9, {client}"}


def call(space: str, client: str, *, read: bool) -> tuple[int, str, float]:
    """Call /align: the status, what was answered, and how long it took."""
    began = time.monotonic()
    sent = httpx.post(f"{space}/call/align", json=ALIGN, headers=by(client), timeout=60)
    if sent.status_code != 200 or not read:
        return sent.status_code, sent.text, time.monotonic() - began
    got = httpx.get(f"{space}/call/align/{sent.json()['event_id']}", timeout=60)
    return got.status_code, got.text, time.monotonic() - began


def test_calls_that_nobody_reads_end(space: str, slow: None) -> None:
    statuses = [call(space, f"1.1.1.{n}", read=False)[0] for n in range(20)]
    assert statuses == [200] * 20
    status, text, seconds = call(space, "2.2.2.2", read=True)
    assert status == 200 and "event: complete" in text
    assert seconds < 8  # twenty of them would have taken fifteen seconds


def test_one_address_has_a_limit_and_the_others_go_on(space: str, slow: None) -> None:
    answers = [call(space, "3.3.3.3", read=False) for _ in range(6)]
    assert [a[0] for a in answers] == [200] * 4 + [429] * 2
    assert "wait for an answer first" in answers[-1][1]
    assert call(space, "4.4.4.4", read=False)[0] == 200
    time.sleep(4)
    assert call(space, "3.3.3.3", read=True)[0] == 200


def upload(space: str, client: str, size: int) -> int:
    files = {"files": ("x.txt", b"x" * size)}
    return httpx.post(f"{space}/upload", files=files, headers=by(client), timeout=30).status_code


def test_uploads_are_limited_by_address_and_in_all(space: str) -> None:
    assert [upload(space, "5.5.5.5", 9000) for _ in range(4)] == [200, 200, 429, 429]
    assert [upload(space, "6.6.6.6", 9000) for _ in range(3)] == [200, 200, 429]
    assert upload(space, "7.7.7.7", 9000) == 429

    def stream() -> Iterator[bytes]:
        yield b"x"

    assert httpx.post(f"{space}/upload", content=stream(), headers=by("8.8.8.8")).status_code == 411


@pytest.mark.parametrize("way", ["call/align", "call/v2/align", "queue/join"])
def test_calls_have_a_limit_of_size(space: str, way: str) -> None:
    body = b'{"data": ["' + b"x" * 2_000_000 + b'"]}'
    headers = {"Content-Type": "application/json", **by("1.2.3.4")}
    found = httpx.post(f"{space}/{way}", content=body, headers=headers, timeout=30)
    assert found.status_code == 413 and "shorter text" in found.text

    def stream() -> Iterator[bytes]:
        for at in range(0, len(body), 100_000):
            yield body[at : at + 100_000]

    try:
        found = httpx.post(f"{space}/{way}", content=stream(), headers=headers, timeout=30)
        assert found.status_code >= 400
    except httpx.HTTPError:
        pass  # the connection was closed


def test_nothing_is_kept_of_a_call_that_was_answered(space: str) -> None:
    """Gradio keeps the state of 10,000 pages, half a megabyte each, and of every call."""

    def kept() -> int:
        holders = (o for o in gc.get_objects() if isinstance(o, StateHolder))
        return sum(len(h.session_data) for h in holders)

    before = kept()
    for _ in range(12):
        assert "event: complete" in call(space, "5.6.7.8", read=True)[1]
    time.sleep(0.3)
    assert kept() <= before + 1
    assert launch_options(SPACE)["state_session_capacity"] <= 300


def test_the_last_part_of_the_header_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPACE_ID", raising=False)
    assert client_address("10.0.0.1", "1.1.1.1") == "10.0.0.1"
    monkeypatch.setenv("SPACE_ID", "x")
    assert client_address("10.0.0.1", "1.1.1.1, 2.2.2.2") == "2.2.2.2"
    assert client_address("10.0.0.1", None) == "10.0.0.1"


# Trainings ----------------------------------------------------------------------------------------


def test_trainings_are_limited_whatever_their_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue.JobQueue, "wake", lambda self: None)
    limits = Limits(trainings=4, trainings_by_address=3, trainings_in_all=5)
    jobs = JobStore(limits, tmp_path)
    for _ in range(3):
        jobs.create(store.new_key(), planned(), "cpu", "1.1.1.1")
    with pytest.raises(InputError, match="3 trainings from your address wait or run"):
        jobs.create(store.new_key(), planned(), "cpu", "1.1.1.1")
    key = store.new_key()
    for _ in range(2):
        job = jobs.create(key, planned(), "cpu", "2.2.2.2")
    with pytest.raises(InputError, match="5 trainings of all visitors wait or run"):
        jobs.check_room(store.new_key(), "3.3.3.3")
    jobs.stop(key, job.id)
    jobs.check_room(store.new_key(), "3.3.3.3")


@pytest.mark.parametrize("domains", [("Code",) * 1000, ("Code", "Code"), ("Code", "code")])
def test_lists_are_checked(domains: tuple[str, ...]) -> None:
    began = time.monotonic()
    with pytest.raises(InputError):
        check(replace(FORM, domains=domains), Limits())
    assert time.monotonic() - began < 1


# Hosts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/config", "/gradio_api/info"])
def test_only_this_machines_names_are_answered(address: str, path: str) -> None:
    """A page elsewhere may let its own name lead to 127.0.0.1, and read what is answered."""
    port = address.rpartition(":")[2]
    statuses = {}
    own = {f"127.0.0.1:{port}", f"localhost:{port}", "LOCALHOST"}
    for host in (*own, "evil.example", "127.0.0.1.x", f"evil.example:{port}", "localhost.x.y", ""):
        found = httpx.get(f"{address}{path}", headers={"Host": host}, timeout=30)
        statuses[host] = found.status_code
    assert {h for h, s in statuses.items() if s == 200} == own
    assert set(statuses.values()) <= {200, 403, 400}


def test_other_hosts_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    scope = {"server": ("127.0.0.1", 80)}
    monkeypatch.setenv("FUSELAB_HOSTS", "my.example, other")
    door = gate.Gate(None, Limits())
    assert door._is_ours(scope, "my.example:80") and door._is_ours(scope, "[::1]:80")
    assert not door._is_ours(scope, "evil.example")
    assert door._is_ours({"server": ("192.168.1.7", 80)}, "evil.example")  # not this machine alone
    monkeypatch.setenv("FUSELAB_HOSTS", "*")
    assert gate.Gate(None, Limits())._is_ours(scope, "evil.example")
    assert gate.Gate(None, SPACE)._is_ours(scope, "owner-space.hf.space")
