"""The app as a public Space: limits of visitors, and what passes to a lent device."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import load
import pytest

from app.compute import analyze
from app.compute.model_cache import ModelCache
from app.requests import AnalysisRequest as Request
from fusion_core.config import FusionConfig
from fusion_core.records import Analysis

ROOT = Path(__file__).parent.parent
ZERO = {
    "SPACE_ID": "owner/space",
    "SPACES_ZERO_GPU": "true",
    "SPACES_ZERO_DEVICE_API_URL": "http://127.0.0.1:9",
}


def test_a_space_starts_with_the_limits_of_visitors(tmp_path: Path) -> None:
    from gradio_client import Client
    from gradio_client.exceptions import AppError

    with load.app(**ZERO, FUSELAB_RUNS=str(tmp_path)) as (address, _, _):
        client = Client(address, verbose=False)
        shown = str(client.config)
        assert "2 GB a model" in shown and "a folder" not in shown
        asked: dict[str, Any] = {"target": "zoo:llama", "text": "def f():"}
        answer = client.predict(**asked, sources=["zoo:mpt-code"], api_name="/fuse")
        assert answer["fused_bits_per_byte"] > 0
        # The device is lent to one call: the training is over when it answers.
        example = {"target": "zoo:llama", "sources": ["zoo:mpt-code"], "domains": ["Code"]}
        run = client.predict(**example, kilobytes=4, steps=2, baseline=False, api_name="/train")
        now = client.predict(run["key"], run["run"], api_name="/run_status")
        assert now["parts"]["fused"]["state"] == "finished"
        with pytest.raises(AppError, match="between 1 and 400"):
            client.predict(**example, steps=401, api_name="/train")
        with pytest.raises(AppError, match="between 1 and 128"):
            client.predict(
                "zoo:llama", ["zoo:mpt-code"], "a", max_new_tokens=129, api_name="/generate"
            )
        for folder in (str(ROOT / "fusion_core" / "zoo" / "mpt-code"), "./app", "/etc"):
            with pytest.raises(AppError, match="public page"):
                client.predict(**asked, sources=[folder], api_name="/align")


def test_what_is_given_to_a_device_and_taken_back_pickles(tiny_models) -> None:
    by_name = {m.name: m for m in tiny_models}
    cache = ModelCache(1 << 30, lambda name: by_name[name])
    first, second = by_name
    request = Request(first, (second,), "The cat sat.", FusionConfig())
    again = passed((cache.key, request))
    assert again == (cache.key, request)
    *_, found = analyze.analyze(*again)
    analysis = passed(found).analysis
    assert isinstance(analysis, Analysis) and "".join(analysis.target.pieces).strip()
    *_, study = analyze.compare(*again)
    assert passed(study) == study
    arguments = passed((*again, analysis, [0, 3]))
    readers = passed(analyze.characters(*arguments))
    assert [r.model for r in readers] == [first, second, "fused"]


def test_seconds_asked_for_are_a_short_whole_number() -> None:
    request = Request("a", ("b", "c"), "x" * 20_000, FusionConfig())
    assert 20 <= analyze._seconds("cache", request) <= 120
    assert isinstance(analyze._seconds("cache", request), int)


def test_the_decorator_of_spaces_leaves_functions_alone_here() -> None:
    """Off ZeroGPU it is a no-op, so that one code serves both; asked in a process of its own."""
    script = (
        "from spaces import GPU\n"
        "def f(x): return x\n"
        "def g(x):\n    yield x\n"
        "assert GPU(duration=lambda x: 60)(f) is f and GPU(duration=lambda x: 60)(g) is g\n"
        "from app.compute import analyze, device\n"
        "assert device.on_device(lambda x: 60)(f) is f and not device.LENT\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=120)


def passed(value: Any) -> Any:
    """Send a value to another process and back."""
    return pickle.loads(pickle.dumps(value))
