"""Short trainings: what comes out, and what is refused."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch
from conftest import tiny_model
from short_runs import SOURCES, same, weights
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from fusion_core import compare, corpus, models
from fusion_core.config import RunConfig
from fusion_core.errors import FusionError, InputError
from fusion_core.tokens import TextTokenizer
from fusion_core.training import (
    Callbacks,
    StoppedError,
    train,
)

# What comes out --------------------------------------------------------------------------------


def test_the_folder_loads_and_generates(train_zoo, training_texts) -> None:
    held_out = {"held out": str(training_texts / "held-out.txt")}
    result, folder, told = train_zoo(eval_data=held_out, eval_every=2, max_steps=4)
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    ids = tokenizer("def add(", return_tensors="pt", add_special_tokens=True)
    out = model.generate(**ids, max_new_tokens=8, do_sample=False)
    assert tokenizer.decode(out[0]).count("def add(") == 1
    names = {f.name for f in (folder / "model").iterdir()}
    assert names == {
        "README.md",
        "config.json",
        "fuselab.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    card = (folder / "model" / "README.md").read_text(encoding="utf-8")
    for part in (*SOURCES, "data.txt", "learning_rate: 0.001", "held out", "transformers:"):
        assert part in card
    assert f"{result['bits_per_byte']['after']:.4f}" in card
    assert str(training_texts) not in card  # a card is published
    measured = compare.bits_per_byte(
        [models.load(str(folder / "model"))], corpus.text("code", "validation", 1500, seed=3)
    )
    after = next(iter(measured.values()))["bits_per_byte"]
    assert result["texts"]["held out"]["after"] == pytest.approx(after, rel=1e-5)
    evaluated = [x for x in told if "mean_bits_per_byte" in x]
    assert [x["step"] for x in evaluated] == [2, 4]
    assert evaluated[-1]["bits_per_byte"]["held out"] == pytest.approx(after, rel=1e-5)


def test_the_best_weights_are_kept(train_zoo, training_texts) -> None:
    held_out = {"held out": str(training_texts / "held-out.txt")}
    settings = {"eval_data": held_out, "eval_every": 2, "max_steps": 12, "learning_rate": 2e-2}
    result, folder, told = train_zoo(**settings, keep="best", scheduler="constant")
    scores = {x["step"]: x["mean_bits_per_byte"] for x in told if "mean_bits_per_byte" in x}
    best = min(scores, key=lambda s: scores[s])
    assert result["best_step"] == best < 12
    assert result["bits_per_byte"]["after"] == pytest.approx(scores[best], rel=1e-5)
    assert f"the weights of step {best}" in (folder / "model" / "README.md").read_text()


def test_merged_adapters_are_the_adapted_model(train_zoo, training_texts, monkeypatch) -> None:
    from fusion_core.training import loop

    kept = {}
    finish = loop._finish

    def spied(config, folder, target, trainer, *rest, **more):
        network = trainer.model.eval()
        kept["trained"] = sum(p.numel() for p in network.parameters() if p.requires_grad)
        kept["all"] = sum(p.numel() for p in network.parameters())
        with torch.no_grad():
            kept["logits"] = network(input_ids=torch.arange(40)[None]).logits
        return finish(config, folder, target, trainer, *rest, **more)

    monkeypatch.setattr(loop, "_finish", spied)
    _, folder, _ = train_zoo(lora={"r": 4, "alpha": 64}, learning_rate=1e-2)
    assert kept["trained"] < 0.2 * kept["all"]
    merged = AutoModelForCausalLM.from_pretrained(folder / "model")
    before = models.load("zoo:llama").network
    with torch.no_grad():
        logits = merged(input_ids=torch.arange(40)[None]).logits
        assert torch.allclose(logits, kept["logits"], atol=1e-4)
        assert (before(input_ids=torch.arange(40)[None]).logits - logits).abs().max() > 0.1
    with pytest.raises(InputError, match="adapters"):
        train_zoo(lora={"r": 4, "target_modules": ["no_such"]})


def test_best_adapters_are_kept(train_zoo, training_texts) -> None:
    held_out = {"held out": str(training_texts / "held-out.txt")}
    settings = {"eval_data": held_out, "eval_every": 1, "max_steps": 5, "learning_rate": 0.1}
    result, _, told = train_zoo(**settings, keep="best", lora=4, scheduler="constant")
    scores = [x["mean_bits_per_byte"] for x in told if "mean_bits_per_byte" in x]
    assert result["bits_per_byte"]["after"] == pytest.approx(min(scores), rel=1e-4)


def test_pairs_are_merged(train_zoo) -> None:
    result, folder, told = train_zoo(pairwise="linear", max_steps=2)
    assert result["steps"] == 4 and result["sources"] == SOURCES
    assert [x["step"] for x in told] == [1, 2, 3, 4]
    assert {x["max_steps"] for x in told} == {4}
    one, two = (weights(folder / "pairs" / str(n)) for n in range(2))
    merged = weights(folder)
    for name in merged:
        assert torch.allclose(merged[name], (one[name] + two[name]) / 2, atol=1e-6)
    assert not same(one, two)
    _, single, _ = train_zoo(sources=SOURCES[:1], max_steps=2)
    assert same(weights(single), one)


def test_a_loss_that_is_no_number_ends_the_run(train_zoo, monkeypatch) -> None:
    with pytest.raises(
        InputError, match=r"no number at step \d+.*lower learning_rate.*no checkpoint"
    ):
        train_zoo(learning_rate=1e30, max_steps=6, max_grad_norm=1e30, scheduler="constant")


def test_a_run_can_be_stopped_before_its_first_step(training_texts, tmp_path) -> None:
    config = RunConfig.of(
        {"target": "zoo:llama", "sources": SOURCES, "data": str(training_texts / "data.txt")}
    )
    with pytest.raises(StoppedError):
        train(config, tmp_path, Callbacks(stop=lambda: True))
    assert not (tmp_path / "model").exists()


def test_what_cannot_fit_is_refused(train_zoo, monkeypatch) -> None:
    room = import_module("fusion_core.training.checks")
    monkeypatch.setattr(room, "memory_free", lambda _: 10_000_000)
    with pytest.raises(InputError, match=r"needs about .*B of memory, but 10\.0 MB are free"):
        train_zoo()


def test_blocks_beyond_the_context_are_refused(train_zoo) -> None:
    with pytest.raises(InputError, match="at most 512"):
        train_zoo(block_size=1024)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"device": "cuda:3"}, "CUDA_VISIBLE_DEVICES"),
        ({"device": "spread"}, "not on 'spread'"),
        ({"dtype": "float16"}, "overflows"),
    ],
)
def test_devices_that_do_not_serve(train_zoo, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        train_zoo(**settings)


def test_a_target_made_of_other_tokens_is_trained(tmp_path, tiny_llama_tokenizer) -> None:
    """A head wider than the vocabulary, no hub, no zoo."""
    folder = tmp_path / "tiny"
    model = tiny_model(tiny_llama_tokenizer)
    model.network.save_pretrained(folder)
    backend = tiny_llama_tokenizer._backend
    PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    (tmp_path / "data.txt").write_text("the cat sat\n\na cat\n\nthe sat cat the\n")
    out = tmp_path / "run"
    out.mkdir()
    config = RunConfig.of(
        {
            "target": str(folder),
            "sources": ["zoo:gpt2-story"],
            "data": str(tmp_path / "data.txt"),
            "epochs": 3,
            "batch_size": 1,
            "learning_rate": 1e-2,
            "block_size": 32,
        }
    )
    result = train(config, out)
    assert result["bits_per_byte"]["after"] < result["bits_per_byte"]["before"]
    assert isinstance(models.load(str(out / "model")).tokenizer, TextTokenizer)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("zoo:none", "zoo:llama"),
        ("no-one/no-such", "hub cannot be reached"),
        ("/no/such/folder", "There is no folder"),
    ],
)
def test_a_wrong_name_is_said_before_anything_is_done(train_zoo, name: str, said: str) -> None:
    for settings in ({"target": name}, {"sources": [name]}):
        with pytest.raises(FusionError, match=said):
            train_zoo(**settings)
    train_zoo(mode="clm", sources=[name], max_steps=1)  # which nobody asks


def test_only_sources_that_are_needed_are_loaded() -> None:
    values = {"target": "zoo:llama", "sources": SOURCES, "data": "x.txt"}
    for more, needed in (
        ({}, True),
        ({"mode": "kd"}, True),
        ({"mode": "clm"}, False),
        ({"mode": "clm", "generate_bytes": 10}, True),
        ({"cache": "rows"}, False),
    ):
        assert RunConfig.of(values | more).readers == (tuple(SOURCES) if needed else ())
