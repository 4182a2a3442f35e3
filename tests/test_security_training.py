"""Trainings of strangers: what they take is worked out before a step, and timed elsewhere."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import tiny
from hostile import grown_by

from app.compute import train
from fusion_core import isolated, memory, training
from fusion_core.config import RunConfig

MB = 1_000_000
room = sys.modules["fusion_core.training.estimate"]  # its function has its name


def settings(folder: Path, kind: str = "llama", **more: Any) -> RunConfig:
    """Write a target of some million parameters and a text, and return a training of them."""
    sizes = {"hidden_size": 256, "n_embd": 256, "intermediate_size": 1024, "num_hidden_layers": 4}
    sizes |= {"n_layer": 4, "max_position_embeddings": 256, "n_positions": 256}
    known = {k: v for k, v in sizes.items() if hasattr(tiny.config(kind), k)}
    target = tiny.saved(folder / "m", kind, **known)
    data = folder / "text.txt"
    data.write_text("\n\n".join(tiny.CORPUS * 20))
    values = {"target": target, "sources": [], "mode": "clm", "data": str(data), "max_steps": 10}
    return RunConfig.of(values | {"device": "cpu"} | more)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
def test_a_large_batch_is_timed_in_little_memory(kind: str, tmp_path: Path) -> None:
    """Timing a batch of 256 took 5.4 GB in the page's process, and was refused after that."""
    file = tmp_path / "run.yaml"
    file.write_text(settings(tmp_path, kind, batch_size=256).to_yaml())
    grown, said = grown_by(
        "import torch\nfrom fusion_core import training, models; models.load('zoo:llama')\n"
        "from fusion_core.config import RunConfig\nfrom fusion_core.training import checks",
        f"e = training.estimate(RunConfig.read({str(file)!r})); assert e.how == 'measured'",
    )
    assert not said and grown < 1000


def test_what_does_not_fit_is_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings(tmp_path, batch_size=256)
    monkeypatch.setattr(room, "memory_free", lambda _: 500 * MB)
    monkeypatch.setattr(room, "_tried", lambda *_: pytest.fail("a step was taken"))
    found = training.estimate(config)
    assert found.how == "table"
    with pytest.raises(Exception, match="smaller batch_size"):
        found.check()


def test_the_page_times_it_in_another_process(tmp_path: Path) -> None:
    config = settings(tmp_path)
    before = psutil.Process(os.getpid()).memory_info().rss
    assert isinstance(train.measure(config.to_yaml(), str(tmp_path)), training.Estimate)
    assert psutil.Process(os.getpid()).memory_info().rss - before < 100 * MB


def test_the_page_passes_on_what_is_wrong(tmp_path: Path) -> None:
    config = settings(tmp_path)
    Path(config.target, "model.safetensors").unlink()
    with pytest.raises(Exception, match="no weights"):
        train.measure(config.to_yaml(), str(tmp_path))


def test_a_fault_of_ours_is_no_sentence() -> None:
    with pytest.raises(RuntimeError, match="Traceback"):
        isolated.call("errors:size_of", "text", memory=MB, what="it")


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a Space the machine has far more memory than the Space may take."""
    most, used = tmp_path / "memory.max", tmp_path / "memory.current"
    most.write_text("3000000\n")
    used.write_text("2500000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 1000000\n")
    monkeypatch.setattr(memory, "_GROUPS", ((str(most), str(used)),))
    assert memory.total() == 3_000_000 and memory.available() == 1_500_000
    most.write_text("max\n")
    assert memory.total() == psutil.virtual_memory().total
