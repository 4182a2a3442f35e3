"""Visitors who read texts of their own at the same time, and what they wait for."""

from __future__ import annotations

import os
import random
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

import psutil

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("zoo:llama", ["zoo:neox-reason", "zoo:gpt2-story", "zoo:mpt-code"])
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


def visit(address: str, number: int, seconds: float, pause: float, waits: Waits) -> None:
    """Read text after text, look at some tokens of each, and pause as a reader does."""
    from gradio_client import Client

    from fusion_core import corpus

    rng = random.Random(number)
    client = Client(address, verbose=False)
    domains = tuple(corpus.DOMAINS)
    stream = corpus.documents(domains[number % len(domains)], "test", seed=number)
    until = time.monotonic() + seconds
    time.sleep(rng.uniform(0, pause))
    while time.monotonic() < until:
        text = next(stream)[:600]
        try:
            began = time.perf_counter()
            client.predict(*MODELS, text, api_name="/fuse")
            waits.analyses.append(time.perf_counter() - began)
            for _ in range(CLICKS):
                time.sleep(rng.uniform(0, pause))
                began = time.perf_counter()
                client.predict(*MODELS, text, rng.randrange(5), api_name="/distributions")
                waits.clicks.append(time.perf_counter() - began)
        except Exception as error:
            waits.errors.append(f"{type(error).__name__}: {error}")
    client.close()


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
