"""Text that is written while a training goes on: continuations, and what the target writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from short_runs import same, weights
from tiny import saved

from fusion_core import compare, corpus, fuse, models
from fusion_core.cache import Cache
from fusion_core.config import RunConfig
from fusion_core.errors import InputError, ModelFormatError
from fusion_core.generation import Written
from fusion_core.io import documents
from fusion_core.losses import IGNORED
from fusion_core.training import Blocks, Callbacks, Example, stream, train
from fusion_core.training.stream import KeptBatches

MIX = {"data_share": 1, "continuation_share": 2, "target_share": 1, "round_tokens": 600}
QUICK = {"rows": "boundary", "round_tokens": 300, "sources": ["zoo:mpt-code"]}
"""What is quick to make; rows of any kind are stored alike."""


@pytest.fixture(autouse=True)
def short_documents(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Let most documents break off early, which is quick, and a case to be read right."""
    if "best" not in request.node.name:
        monkeypatch.setattr("fusion_core.generation.documents.LONGEST", 64)


def texts_of(folder: Path, kind: str) -> list[list[Written]]:
    """Read the written documents of each round."""
    return [
        [
            Written(**json.loads(line))
            for file in sorted((number / f"{kind}-text").glob("*.jsonl"))
            for line in file.read_text("utf-8").splitlines()
        ]
        for number in sorted((folder / "rounds").iterdir())
    ]


def test_each_document_is_continued_by_the_source_that_reads_it_best(train_zoo) -> None:
    result, folder, _ = train_zoo(**MIX, max_steps=4)
    data = documents.read_documents(_data_of(folder))
    rounds = texts_of(folder, "continued")
    assert len(rounds) == 2 and all(rounds)
    begun = [t for t in data if any(w.text[:40] == t[:40] for r in rounds for w in r)]
    assert begun, "what is continued begins as documents do"
    new = [w.text for r in rounds for w in r if w.text not in data]
    assert len(new) > len(set(data) & {w.text for r in rounds for w in r})
    assert not {w.text for w in rounds[0]} & {w.text for w in rounds[1]} - set(data)
    code = [t for t in new if t.startswith("def ")]
    scores = compare.bits_per_byte([models.load("zoo:mpt-code")], code)
    assert scores["zoo:mpt-code"]["bits_per_byte"] < 0.9, "code is continued by what knows code"
    assert "50% continued by the sources" in result["data"]
    assert result["steps"] == 4 and result["tokens"] > 0
    assert_rows_of_the_target_see_no_label(folder)


def _data_of(folder: Path) -> str:
    return str(next(folder.parent.parent.glob("texts*/data.txt"), "")) or str(
        next(folder.parents[1].rglob("data.txt"))
    )


def assert_rows_of_the_target_see_no_label(folder: Path) -> None:
    rows = sorted((folder / "rounds").glob("*/target-rows"))[0]
    settings = Cache.open(rows).manifest.settings["config"]
    assert fuse.operator_of(settings["operator"]).label_free and settings["rows"] == "exact"
    others = sorted((folder / "rounds").glob("*/continued-rows"))[0]
    assert Cache.open(others).manifest.settings["config"]["operator"] == "min_ce"


def test_an_operator_that_sees_labels_is_not_for_the_targets_text(train_zoo) -> None:
    with pytest.raises(InputError, match="target_operator"):
        train_zoo(**MIX, target_operator="min_ce")


def test_the_target_writes_as_it_is_by_then(train_zoo) -> None:
    """What it writes in the second round is that of the weights after the first."""
    only = QUICK | {"data_share": 0, "target_share": 1, "round_tokens": 256}
    only |= {"max_steps": 3, "warmup": 0, "block_size": 64}
    _, slow, _ = train_zoo(**only, learning_rate=1e-9)
    _, quick, _ = train_zoo(**only, learning_rate=1e-2)
    first, then = texts_of(slow, "target"), texts_of(quick, "target")
    assert first[0] == then[0] and first[1] != then[1]
    assert not same(weights(slow), weights(quick))


@pytest.mark.parametrize("stop_at", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3))])
def test_a_run_that_was_killed_goes_on_bit_for_bit(training_texts, tmp_path, stop_at: int) -> None:
    values = (
        MIX
        | QUICK
        | {
            "target": "zoo:llama",
            "data": str(training_texts / "data.txt"),
            "max_steps": 4,
            "batch_size": 2,
            "block_size": 128,
            "learning_rate": 1e-3,
            "round_tokens": 384,
            "checkpoint_steps": 1,
            "checkpoint_seconds": 0,
        }
    )
    config, steps = RunConfig.of(values), []
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    for folder in (whole, parted):
        folder.mkdir()
    train(config, whole)
    stopping = Callbacks(metrics=steps.append, stop=lambda: len(steps) >= stop_at)
    stopped = train(config, parted, stopping)
    assert stopped["stopped"]
    last = sorted((parted / "rounds").iterdir())[-1]
    for file in last.rglob("*.safetensors"):  # as a kill leaves it: rows are made again
        file.unlink()
    train(config, parted)
    assert same(weights(whole), weights(parted))
    assert [p.read_bytes() for p in sorted(whole.rglob("rounds/*/*-text/*.jsonl"))] == [
        p.read_bytes() for p in sorted(parted.rglob("rounds/*/*-text/*.jsonl"))
    ]


@pytest.mark.parametrize("mode", ["clm", "kd"])
def test_other_modes_read_the_same_text(train_zoo, mode: str) -> None:
    settings = {"rows": "boundary"} | {k: v for k, v in MIX.items() if k != "target_share"}
    _, fused, _ = train_zoo(**settings, max_steps=2)
    result, folder, _ = train_zoo(**settings, max_steps=2, mode=mode)
    assert (len(result["sources"]) == 1) == (mode == "kd")
    if mode == "clm":
        assert texts_of(folder, "continued") == texts_of(fused, "continued")
        assert not list(folder.rglob("*.safetensors")) or not (folder / "cache").exists()


def test_without_data_documents_begin_with_nothing(train_zoo) -> None:
    settings = QUICK | {"continuation_share": 1, "target_share": 1}
    result, folder, _ = train_zoo(**settings, data=None, eval_data=None, max_steps=2)
    assert result["steps"] == 2 and all(texts_of(folder, "continued"))
    with pytest.raises(InputError, match="give max_steps"):
        train_zoo(**settings, data=None, max_steps=None)


def test_shares_make_no_more_steps(train_zoo) -> None:
    plain, _, _ = train_zoo(max_steps=None, epochs=1, mode="clm")
    mixed, folder, _ = train_zoo(max_steps=None, epochs=1, mode="clm", **MIX | {"target_share": 0})
    assert mixed["steps"] == plain["steps"]
    assert len(list((folder / "rounds").iterdir())) > 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"cache": "somewhere", "data": None}, "leave out the cache"),
        ({"generate_bytes": 100}, "leave out the cache, generate_bytes"),
        ({"pairwise": "sce"}, "and pairwise"),
        ({"mode": "clm"}, "teaches by rows alone"),
        ({"arguments": {"dataloader_num_workers": 2}}, "dataloader_num_workers"),
        ({"data_share": 0, "continuation_share": 0, "target_share": 0}, "All shares"),
        ({"target_share": -1}, "target_share must be"),
    ],
)
def test_what_does_not_go_together_is_refused(train_zoo, given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        train_zoo(**MIX | given)


def test_the_baseline_learns_from_no_text_of_the_target() -> None:
    values = {"target": "zoo:llama", "sources": ["zoo:mpt-code"], "data": "d.txt"}
    text = RunConfig.of(values | MIX).baseline().text
    assert (text.data_share, text.continuation_share, text.target_share) == (1, 2, 0)
    alone = RunConfig.of(values | {"data_share": 0, "target_share": 1}).baseline().text
    assert (alone.data_share, alone.streams) == (1, False)


# Pieces -----------------------------------------------------------------------------------------


def test_what_breaks_off_has_no_end_to_predict() -> None:
    class Two:
        lengths = np.array([3, 3])

        def __len__(self) -> int:
            return 2

        def __getitem__(self, i: int) -> Example:
            return Example(torch.tensor([5, 6, 7]), whole=bool(i), by_target=not i)

    blocks = Blocks(Two(), 8, start_id=0, end_id=1)
    pieces = {p.by_target: p.labels.tolist() for i in range(len(blocks)) for p in blocks[i]}
    assert pieces == {True: [5, 6, 7, IGNORED], False: [5, 6, 7, 1]}


def test_batches_are_written_once(tmp_path: Path) -> None:
    keep, calls = KeptBatches(tmp_path / "text"), []

    def write() -> list[Written]:
        calls.append(1)
        return [Written("a\u2028b\n\nc", False), Written("é")]

    assert keep("0", write) == keep("0", write) == [Written("a\u2028b\n\nc", False), Written("é")]
    assert len(calls) == 1


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mamba"])
def test_a_target_that_writes_no_text_says_so(tmp_path, kind: str, monkeypatch) -> None:
    """Random weights write bytes that are seldom text; a run ends with a sentence, or goes on."""
    corpus.write(tmp_path / "data.txt", corpus.text("code", "train", 600, seed=1))
    monkeypatch.setattr(stream.generation, "continue_documents", lambda *_, **__: [])
    values = {
        "target": saved(tmp_path / kind, kind),
        "sources": ["zoo:mpt-code"],
        "data": str(tmp_path / "data.txt"),
        "data_share": 0,
        "target_share": 1,
        "max_steps": 1,
        "block_size": 32,
    }
    (tmp_path / "run").mkdir()
    with pytest.raises(ModelFormatError, match="is text"):
        train(RunConfig.of(values), tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
