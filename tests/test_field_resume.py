"""Trainings that go on where they were stopped, and seeds: equal to the bit, whatever the model."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from training_checks import check_training, loaded, run, same, settings, weights

from fusion_core.errors import InputError
from fusion_core.training.callbacks import read_weights

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"attention_dropout": 0.1},
    "gpt2": {},  # dropout 0.1, tied, Conv1D
    "mixtral": {},
    "qwen3_moe": {"decoder_sparse_step": 1},
    "gpt_oss": {},
    "mamba": {},
    "lfm2_moe": {},  # convolutions, attention and experts
}


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_resumed_training_is_the_straight_one(kind: str, tmp_path) -> None:
    """Experts that are written one by one were left out on reading.

    huggingface/transformers#48805: checkpoints of mixtures are resumed with fresh experts.
    """
    folder = tiny.saved(tmp_path / "model", kind, **FAMILIES[kind])
    check_training(folder, tmp_path)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mixtral", "mamba"])
def test_a_run_folder_of_an_older_version_goes_on(kind: str, tmp_path) -> None:
    """Its checkpoints are marked by `whole.json`; `complete.json` is the later name."""
    folder = tiny.saved(tmp_path / "model", kind)
    config = settings(folder, tmp_path)
    _, straight = run(config, tmp_path / "straight")
    _, first = run(config, tmp_path / "run", stop_after=2)
    marks = list((tmp_path / "run" / "checkpoints").glob("*/complete.json"))
    assert marks
    for mark in marks:
        mark.rename(mark.with_name("whole.json"))
    result, second = run(config, tmp_path / "run")
    assert result["steps"] == 3 and first.losses + second.losses == straight.losses
    assert same(weights(loaded(tmp_path / "run")), weights(loaded(tmp_path / "straight")))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mixtral", "qwen2_moe"])
def test_resumed_adapters_are_the_straight_ones(kind: str, tmp_path) -> None:
    dropout = 0.0 if "m" in kind[:2] or "moe" in kind else 0.2  # peft has none on experts
    folder = tiny.saved(tmp_path / "model", kind)
    check_training(folder, tmp_path, lora={"r": 4, "dropout": dropout})


@pytest.mark.parametrize("kind", ["mixtral", "olmoe", "llama", "granitemoe"])
@pytest.mark.parametrize("lora", [None, {"r": 4, "alpha": 64}])
def test_the_best_weights_are_read_back_whole(kind: str, lora: Any, tmp_path) -> None:
    """Measured on what it unlearns, the first steps are the best, and are what is exported."""
    folder = tiny.saved(tmp_path / "model", kind)
    (tmp_path / "held-out.txt").write_text("ZQX#@!~^|{}[]<>%$&*+=;?/ JKVWYZ 0987654321 " * 4)
    more = {
        "eval_data": {"text": str(tmp_path / "held-out.txt")},
        "eval_every": 1,
        "keep": "best",
        "learning_rate": 2e-2 if lora is None else 1.0,
        "scheduler": "constant",
        "max_steps": 6,
        "lora": lora,
    }
    result, seen = run(settings(folder, tmp_path, **more), tmp_path / "run")
    assert result["best_step"] == 1 + seen.scores.index(min(seen.scores)) < 6
    assert result["bits_per_byte"]["after"] == pytest.approx(min(seen.scores), rel=1e-5)
    loaded(tmp_path / "run")


def test_a_run_killed_after_its_last_step_exports_the_same_mixture(tmp_path) -> None:
    folder = tiny.saved(tmp_path / "model", "mixtral")
    config = settings(folder, tmp_path)
    run(config, tmp_path / "run")
    before = weights(loaded(tmp_path / "run"))
    subprocess.run(["rm", "-r", str(tmp_path / "run" / "model")], check=True)
    run(config, tmp_path / "run")
    assert same(before, weights(loaded(tmp_path / "run")))


@pytest.mark.parametrize("kind", ["mixtral", "llama", "gpt2"])
@pytest.mark.parametrize("harm", ["lacks", "other", "broken", "gone"])
def test_weights_that_are_not_all_there_are_refused(kind: str, harm: str, tmp_path) -> None:
    folder = tmp_path / "model"
    network = tiny.network(kind)
    network.save_pretrained(folder)
    file = folder / "model.safetensors"
    kept = load_file(file)
    some = next(name for name in sorted(kept) if "norm" in name or "ln" in name)
    if harm == "lacks":
        save_file({k: v for k, v in kept.items() if k != some}, file, {"format": "pt"})
    elif harm == "other":
        save_file(kept | {"odd": kept[some].clone()}, file, {"format": "pt"})
    elif harm == "broken":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        file.unlink()
    before = weights(network)
    with pytest.raises(InputError, match="start the run again in another folder"):
        read_weights(network, folder)
    assert same(before, weights(network))


def test_adapters_that_are_not_all_there_are_refused(tmp_path) -> None:
    from peft import LoraConfig, get_peft_model

    network = get_peft_model(tiny.network("llama"), LoraConfig(task_type="CAUSAL_LM"))
    network.save_pretrained(tmp_path)
    read_weights(network, tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    kept = load_file(file)
    save_file(dict(list(kept.items())[1:]), file, {"format": "pt"})
    with pytest.raises(InputError, match="not all of it is there"):
        read_weights(network, tmp_path)


def test_weights_are_read_whole_where_deepspeed_would_share_them_out(tmp_path) -> None:
    """Its configuration is the library's to see all the while, but for the reading."""
    from transformers.integrations import deepspeed

    class Stage3:
        def is_zero3(self) -> bool:
            return True

    network, other = tiny.network("mixtral"), tiny.network("mixtral", seed=1)
    network.save_pretrained(tmp_path)
    asked = Stage3()
    deepspeed.set_hf_deepspeed_config(asked)
    try:
        read_weights(other, tmp_path)
        assert deepspeed.is_deepspeed_zero3_enabled()
    finally:
        deepspeed.unset_hf_deepspeed_config()
    assert same(weights(network), weights(other))


# Seeds -----------------------------------------------------------------------------------------


def disturb(seed: int) -> None:
    """Draw from everything that is drawn from."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


DRAWN: dict[str, tuple[str, dict[str, Any]]] = {
    "adapters": ("llama", {"lora": {"r": 4, "dropout": 0.2}}),
    "dropout": ("gpt2", {}),
    "both": ("gpt2", {"lora": {"r": 4, "dropout": 0.2}}),
    "experts": ("mixtral", {"lora": {"r": 4}}),
    "noise": ("llama", {"arguments": {"neftune_noise_alpha": 5.0}}),
    "epochs": ("openai-gpt", {"max_steps": None, "epochs": 3.0, "batch_size": 4}),
}


@pytest.mark.parametrize("what", DRAWN)
def test_equal_seeds_are_equal_runs(what: str, tmp_path) -> None:
    """Adapters were drawn before the seed was set.

    MakazhanAlpamys/Soup#354 and huggingface/trl#6688: the matrices exist by the time that the
    trainer sets its seed.
    """
    kind, more = DRAWN[what]
    folder = tiny.saved(tmp_path / "model", kind)
    runs = []
    for number, seed in enumerate((7, 7, 8)):
        disturb(number)
        config = settings(folder, tmp_path, seed=seed, **more)
        _, seen = run(config, tmp_path / str(number))
        runs.append((seen.losses, weights(loaded(tmp_path / str(number)))))
    assert runs[0][0] == runs[1][0] and same(runs[0][1], runs[1][1])
    assert runs[0][0] != runs[2][0] and not same(runs[0][1], runs[2][1])


def test_equal_seeds_are_equal_runs_in_processes_of_their_own(tmp_path) -> None:
    folder = tiny.saved(tmp_path / "model", "gpt2")
    config = settings(folder, tmp_path, seed=7, lora={"r": 4, "dropout": 0.2})
    disturb(1)
    run(config, tmp_path / "here")
    (tmp_path / "run.yaml").write_text(config.to_yaml())
    command = [sys.executable, "-c", THREADS, str(torch.get_num_threads()), "train"]
    files = ["--config", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "there")]
    subprocess.run([*command, *files], check=True, capture_output=True)
    assert same(weights(loaded(tmp_path / "here")), weights(loaded(tmp_path / "there")))


THREADS = """
import sys, torch
torch.set_num_threads(int(sys.argv.pop(1)))
from fusion_core.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize("kind", ["gpt2", "openai-gpt", "xglm"])
def test_dropout_goes_on_over_epochs(kind: str, tmp_path) -> None:
    """The order of a later epoch and its dropout are those of the run that was not stopped."""
    folder = tiny.saved(tmp_path / "model", kind)
    more = {"max_steps": None, "epochs": 3.0, "batch_size": 4, "gradient_accumulation": 2}
    config = settings(folder, tmp_path, **more)
    result, straight = run(config, tmp_path / "straight")
    assert result["steps"] > 4
    for stop in (2, result["steps"] - 1):
        place = tmp_path / f"stopped-{stop}"
        _, first = run(config, place, stop_after=stop)
        _, second = run(config, place)
        assert first.losses + second.losses == straight.losses
        assert same(weights(loaded(place)), weights(loaded(tmp_path / "straight")))
