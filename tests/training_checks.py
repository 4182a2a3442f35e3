"""One check of a whole training, for any model: straight, stopped and resumed, exported, loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny
import torch
from transformers import AutoModelForCausalLM

from fusion_core.config import RunConfig
from fusion_core.training import Callbacks, train

STEPS = 3
PROBE = 12
"""Tokens on which logits are compared."""


class Watcher(Callbacks):
    """Callbacks that note the losses, and ask to stop after a step."""

    def __init__(self, stop_after: int | None = None) -> None:
        """Note nothing yet; None never stops."""
        self.losses: list[float] = []
        self.scores: list[float] = []
        stop_at = float("inf") if stop_after is None else stop_after
        # A step is noted after it was asked about: the one before the last is the newest then.
        super().__init__(metrics=self._note, stop=lambda: len(self.losses) >= stop_at - 1)

    def _note(self, line: dict[str, Any]) -> None:
        if "loss" in line:
            self.losses.append(line["loss"])
        else:
            self.scores.append(line["mean_bits_per_byte"])


def settings(folder: str | Path, tmp: Path, **more: Any) -> RunConfig:
    """Return a short training on text of a model in a folder."""
    data = tmp / "data.txt"
    if not data.exists():
        data.write_text("\n\n".join(tiny.CORPUS * 3), encoding="utf-8")
    values = {
        "target": str(folder),
        "data": str(data),
        "mode": "clm",
        "max_steps": STEPS,
        "batch_size": 2,
        "block_size": 32,
        "learning_rate": 1e-2,
        "warmup": 0.0,
    }
    return RunConfig.of(values | more)


def run(config: RunConfig, folder: Path, stop_after: int | None = None) -> tuple[Any, Watcher]:
    """Train, or go on: the result and what was seen."""
    folder.mkdir(exist_ok=True)
    watcher = Watcher(stop_after)
    return train(config, folder, watcher), watcher


def loaded(folder: Path) -> Any:
    """Load a run's model with nothing but the library."""
    return AutoModelForCausalLM.from_pretrained(folder / "model").eval()


def weights(network: Any) -> dict[str, torch.Tensor]:
    """Return the weights by name, off the graph."""
    return {name: weight.detach().clone() for name, weight in network.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Tell whether weights are equal to the bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@torch.no_grad()
def logits(network: Any) -> torch.Tensor:
    """Return what a network says of a few tokens."""
    ids = torch.arange(PROBE)[None] + 5
    return network(input_ids=ids, use_cache=False).logits[0]


def check_training(folder: str | Path, tmp: Path, **more: Any) -> dict[str, Any]:
    """Train a model three steps, straight and with a stop after the second, and compare.

    Args:
        folder: of a model with its tokenizer.
        tmp: an empty folder of one's own.
        **more: settings of the run.

    Returns:
        ``losses`` of the three steps, ``network`` as it was exported and loaded again by
        `AutoModelForCausalLM.from_pretrained`, ``result`` of the straight run.

    Raises:
        AssertionError: losses or weights of both runs differ, nothing was learnt, or what was
            exported is not what was trained.
    """
    config = settings(folder, tmp, **more)
    before = AutoModelForCausalLM.from_pretrained(folder).eval()
    result, straight = run(config, tmp / "straight")
    assert result["steps"] == STEPS == len(straight.losses)
    stopped, first = run(config, tmp / "resumed", stop_after=2)
    assert stopped["stopped"] and stopped["steps"] == 2 == len(first.losses)
    assert not (tmp / "resumed" / "model").exists()
    resumed, second = run(config, tmp / "resumed")
    assert first.losses + second.losses == straight.losses
    assert straight.scores == first.scores + second.scores
    one, other = loaded(tmp / "straight"), loaded(tmp / "resumed")
    assert same(weights(one), weights(other))
    assert resumed["texts"] == result["texts"] and resumed["tokens"] == result["tokens"]
    assert torch.equal(logits(one), logits(other))
    assert not torch.equal(logits(one), logits(before))
    return {"losses": straight.losses, "network": one, "result": result}
