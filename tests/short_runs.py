"""Fixtures of short trainings on the zoo."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fusion_core import corpus, models
from fusion_core.cache import building
from fusion_core.config import FusionConfig, RunConfig
from fusion_core.training import (
    Callbacks,
    train,
    train_pairwise,
)

SOURCES = ["zoo:mpt-code", "zoo:gpt2-story"]
Run = Callable[..., tuple[dict[str, Any], Path, list[dict[str, Any]]]]


@pytest.fixture(scope="module")
def training_texts(tmp_path_factory) -> Path:
    """Write some text to train on and to measure on."""
    return write_texts(tmp_path_factory.mktemp("texts"), 3000, 1500)


def write_texts(folder: Path, train: int, held_out: int) -> Path:
    """Write so many bytes a domain to train on, and to measure on."""
    learnt = [t for d in ("code", "commonsense") for t in corpus.text(d, "train", train, seed=3)]
    corpus.write(folder / "data.txt", learnt)
    corpus.write(folder / "held-out.txt", corpus.text("code", "validation", held_out, seed=3))
    return folder


@pytest.fixture
def train_zoo(training_texts, tmp_path) -> Run:
    """Return what trains with some settings: the result, the folder, what was reported."""
    number = 0

    def short(**settings: Any) -> tuple[dict[str, Any], Path, list[dict[str, Any]]]:
        nonlocal number
        number += 1
        folder = tmp_path / f"run-{number}"
        folder.mkdir()
        reported: list[dict[str, Any]] = []
        values = {
            "target": "zoo:llama",
            "sources": SOURCES,
            "data": str(training_texts / "data.txt"),
            "max_steps": 3,
            "batch_size": 2,
            "block_size": 128,
            "learning_rate": 1e-3,
        } | settings
        config = RunConfig.of({k: v for k, v in values.items() if v is not None})
        run = train_pairwise if config.pairwise else train
        return run(config, folder, Callbacks(metrics=reported.append)), folder, reported

    return short


@pytest.fixture(scope="module")
def fused_cache(training_texts, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cached") / "cache"
    target, *sources = [models.load(n) for n in ("zoo:llama", *SOURCES)]
    documents = corpus.text("code", "train", 2500, seed=3)
    building.build_cache(target, sources, documents, FusionConfig(), folder)
    return folder


@pytest.fixture(scope="module")
def sources_cache(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cached") / "cache"
    target, *sources = [models.load(n) for n in ("zoo:llama", *SOURCES)]
    documents = corpus.text("code", "train", 2500, seed=3)
    building.build_cache(target, sources, documents, FusionConfig(), folder, kind="sources")
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
