"""A Space with 6 GB, asked for every hostile model that its hub has, in a process of its own."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import fake_hub
import httpx
import load
import psutil
import pytest
import tiny
import torch
from hostile import empty_model
from safetensors.torch import load_file
from test_security_tokenizers import HOSTILE, PANICS, changed

SIX = 6_000_000_000
TEXT = "a" * 60 + "!"


def repositories(root: Path) -> dict[str, str]:
    """Write a hub's models: names, and words with which they are refused."""
    owner, found = root / "o", {}
    for n, (change, words) in enumerate(HOSTILE.values()):
        changed(owner / f"t{n}", "bytes", change)
        found[f"o/t{n}"] = words
    changed(owner / "panics", "bytes", PANICS["split"])
    found["o/panics"] = "gave up"
    (owner / "nested").mkdir()
    (owner / "nested" / "tokenizer.json").write_text("[" + "[]," * 15_000_000 + "[]]")
    found["o/nested"] = ""
    empty_model(owner / "wide", "llama", hidden_size=8192, intermediate_size=32768)
    found["o/wide"] = "in memory by its config.json"
    name = Path(tiny.saved(owner / "index", "llama"))
    weights = load_file(name / "model.safetensors")
    (name / "model.safetensors").unlink()
    torch.save(weights, name / "pytorch_model.bin")
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "pytorch_model.bin")}
    (name / "model.safetensors.index.json").write_text(json.dumps(index))
    found["o/index"] = "safetensors"
    return found


class Memory(threading.Thread):
    """Looks at what a process and its children take together."""

    def __init__(self, process: psutil.Process) -> None:
        super().__init__(daemon=True)
        self.process, self.peak = process, 0

    def run(self) -> None:
        while self.process.is_running():
            taken = 0
            for one in (self.process, *self.process.children(recursive=True)):
                try:
                    taken += one.memory_info().rss
                except psutil.Error:
                    continue
            self.peak = max(self.peak, taken)
            time.sleep(0.05)


def ask(address: str, endpoint: str, name: str) -> str:
    with httpx.Client(base_url=f"{address}/gradio_api", timeout=300) as client:
        data: list[Any] = ["zoo:llama", [name], TEXT]
        event = client.post(f"/call/{endpoint}", json={"data": data}).json()["event_id"]
        return client.get(f"/call/{endpoint}/{event}").text


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_space_survives_every_hostile_model(every: bool, tmp_path: Path) -> None:
    """Each is one sentence, and honest models are read before, between and after."""
    names = repositories(tmp_path / "hub")
    tiny.saved(tmp_path / "hub" / "o" / "good", "llama")
    if not every:
        names = {k: v for k, v in names.items() if k in ("o/panics", "o/wide")}
    with fake_hub.hub(tmp_path / "hub") as hub:
        more = {"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "home"), "SPACE_ID": "o/space"}
        more |= {"HF_HUB_OFFLINE": "0", "FUSELAB_RUNS": str(tmp_path / "runs")}
        with load.app(**more) as (address, process, _):
            watch = Memory(process)
            watch.start()
            assert "event: complete" in ask(address, "align", "o/good")
            for name, words in names.items():
                endpoint = "fuse" if name in ("o/wide", "o/index") else "align"
                answer = ask(address, endpoint, name)
                assert "event: error" in answer and words in answer, (name, answer[-400:])
            assert "event: complete" in ask(address, "fuse", "o/good")
            assert process.is_running()
    assert watch.peak < SIX
