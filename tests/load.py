"""Visitors who read texts of their own at the same time, and what they wait for."""

from __future__ import annotations

import os
import random
import re
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import httpx
import psutil

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("zoo:llama", ["zoo:neox-reason", "zoo:gpt2-story", "zoo:mpt-code"])
_NAME = re.compile(r'\{\\"id\\": \\"([\w-]{20,})\\"')
CLICKS = 3
"""Tokens that a visitor looks at in each text."""


@dataclass
class Waits:
    """What visitors waited for, in seconds, and what went wrong."""

    analyses: list[float] = field(default_factory=list)
    clicks: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @staticmethod
    def share(times: list[float], share: float) -> float:
        """The time that a share of the waits does not exceed."""
        return sorted(times)[min(len(times) - 1, int(share * len(times)))]


@contextmanager
def app(**environment: str) -> Iterator[tuple[str, psutil.Process, float]]:
    """Run the app in a process of its own: address, process, seconds to the first answer."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"GRADIO_SERVER_PORT": str(port), "GRADIO_SERVER_NAME": "127.0.0.1"}
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "app.py"],
        cwd=ROOT,
        env=os.environ | settings | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    drain = threading.Thread(target=lambda: process.stdout and process.stdout.read(), daemon=True)
    drain.start()
    address = f"http://127.0.0.1:{port}"
    try:
        while True:
            assert process.poll() is None and time.perf_counter() - began < 120, "the app has ended"
            try:
                with urlopen(address, timeout=5):
                    break
            except (URLError, ConnectionError, TimeoutError):
                time.sleep(0.05)
        yield address, psutil.Process(process.pid), time.perf_counter() - began
    finally:
        process.terminate()
        process.wait(20)


class Page:
    """What the page sends when Analyse is pressed and when a token is clicked."""

    def __init__(self, address: str) -> None:
        self._hash = secrets.token_hex(6)
        self._http = httpx.Client(base_url=f"{address}/gradio_api/", timeout=90)
        config = self._http.get(f"{address}/config").json()
        ids = {c["props"].get("elem_id"): c["id"] for c in config["components"]}
        self._view = ids["align-view"]
        self._event = next(
            d["id"]
            for d in config["dependencies"]
            if [ids["analyze"], "click"] in [list(t) for t in d["targets"]]
        )

    def analyse(self, text: str) -> str:
        """Let all models read a text; give the name of the analysis whose score has come."""
        settings = ("prefix", "min_ce", "token", 10, "exact")
        asked = {"data": ["", text, *MODELS, *settings], "fn_index": self._event}
        self._http.post("queue/join", json=asked | {"session_hash": self._hash}).raise_for_status()
        name = ""
        with self._http.stream("GET", "queue/data", params={"session_hash": self._hash}) as told:
            for line in told.iter_lines():
                if found := _NAME.search(line):
                    name = found[1]
                if '"process_completed"' in line:
                    assert name and '"success":true' in line.replace(" ", ""), line[:300]
                    return name
        raise AssertionError("the answer broke off")

    def click(self, name: str, index: int) -> dict:
        """Ask for the distributions at a token of an analysis."""
        question = {
            "data": {"id": name, "index": index},
            "component_id": self._view,
            "fn_name": "read_cards",
            "session_hash": self._hash,
        }
        answer = self._http.post("component_server", json=question)
        answer.raise_for_status()
        found = answer.json()
        assert found and found["index"] == index, found
        return found

    def close(self) -> None:
        """Leave."""
        self._http.close()


def visit(address: str, number: int, seconds: float, pause: float, waits: Waits) -> None:
    """Read text after text, look at some tokens of each, and pause as a reader does."""
    from fusion_core import corpus

    rng = random.Random(number)
    page = Page(address)
    domains = tuple(corpus.DOMAINS)
    stream = corpus.documents(domains[number % len(domains)], "test", seed=number)
    until = time.monotonic() + seconds
    time.sleep(rng.uniform(0, pause))
    while time.monotonic() < until:
        try:
            began = time.perf_counter()
            name = page.analyse(next(stream)[:600])
            waits.analyses.append(time.perf_counter() - began)
            for _ in range(CLICKS):
                time.sleep(rng.uniform(0, pause))
                began = time.perf_counter()
                page.click(name, rng.randrange(5))
                waits.clicks.append(time.perf_counter() - began)
        except Exception as error:
            waits.errors.append(f"{type(error).__name__}: {error}")
    page.close()


def crowd(address: str, visitors: int, seconds: float, pause: float = 2.0) -> Waits:
    """Let visitors come at the same time and stay for some seconds."""
    waits = Waits()
    threads = [
        threading.Thread(target=visit, args=(address, n, seconds, pause, waits))
        for n in range(visitors)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 120)
    return waits


def settled(process: psutil.Process) -> int:
    """Bytes of a process's memory, once it no longer shrinks."""
    least = process.memory_info().rss
    for _ in range(10):
        time.sleep(0.5)
        least = min(least, process.memory_info().rss)
    return least


def _program(address: str, number: int, until: float, waits: Waits) -> None:
    """Align text after text as a program does, and pause as a reader does."""
    rng = random.Random(number)
    with httpx.Client(base_url=f"{address}/gradio_api/", timeout=120) as client:
        while time.monotonic() < until:
            text = f"text {rng.random()} of visitor {number}, to be aligned"
            body = {"data": [*MODELS, text, "bytes"]}
            try:
                began = time.perf_counter()
                event = client.post("call/align", json=body).json()["event_id"]
                answer = client.get(f"call/align/{event}").text
                assert "event: complete" in answer, answer[-200:]
                waits.analyses.append(time.perf_counter() - began)
            except Exception as error:
                waits.errors.append(f"{type(error).__name__}: {error}")
            time.sleep(rng.uniform(0, 2.0))


def crowd_of_programs(address: str, visitors: int, seconds: float, *, trainings: int) -> Waits:
    """Let programs align texts while trainings begin, wait and run."""
    waits = Waits()
    for _ in range(trainings):
        body = {"data": [*MODELS, "", ["Code"], 8, 300]}
        with httpx.Client(base_url=f"{address}/gradio_api/", timeout=120) as client:
            event = client.post("call/train", json=body).json()["event_id"]
            answer = client.get(f"call/train/{event}").text
            if "event: complete" not in answer:
                waits.errors.append(answer[-200:])
    until = time.monotonic() + seconds
    threads = [
        threading.Thread(target=_program, args=(address, n, until, waits)) for n in range(visitors)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 120)
    return waits
