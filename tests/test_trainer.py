"""The trainer: its loss, its schedule, and batches that are cut in several ways."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from short_runs import SOURCES, same, weights
from transformers import (
    TrainingArguments,
)

from fusion_core import corpus, losses, models, pipeline, zoo
from fusion_core.cache import Cache, building
from fusion_core.config import FusionConfig, Objective
from fusion_core.errors import InputError
from fusion_core.records import SparseRows
from fusion_core.training import (
    Blocks,
    CachedRowsDataset,
    Collator,
    Example,
    FusionTrainer,
)

# The trainer -----------------------------------------------------------------------------------


def trainer_for(
    network: Any, folder: Path, blocks: Blocks, *, batch: int = 2, **more: Any
) -> FusionTrainer:
    arguments = {
        "output_dir": str(folder),
        "report_to": "none",
        "use_cpu": True,
        "per_device_train_batch_size": batch,
        "logging_steps": 1,
        "max_steps": 3,
        "disable_tqdm": True,
        "save_strategy": "no",
        "remove_unused_columns": False,
    } | more.pop("arguments", {})
    return FusionTrainer(
        model=network,
        args=TrainingArguments(**arguments),
        train_dataset=blocks,
        data_collator=Collator(blocks.block_size, 2),
        **more,
    )


def blocks_of(cache: Path, size: int = 128) -> Blocks:
    return Blocks(CachedRowsDataset(Cache.open(cache)), size, start_id=1, end_id=2)


def network() -> Any:
    return models.load("zoo:llama").network.requires_grad_(True)


def test_lambda_1_is_the_plain_run_bit_for_bit(train_zoo) -> None:
    plain, folder, told = train_zoo(mode="clm")
    fused, other, also_told = train_zoo(lm_weight=1.0)
    assert same(weights(folder), weights(other))
    keys = ("step", "clm", "grad_norm", "learning_rate", "tokens")
    assert [[x[k] for k in keys] for x in told] == [[x[k] for k in keys] for x in also_told]
    assert told[0]["fusion"] == 0 < also_told[0]["fusion"]
    assert plain["sources"] == [] and fused["sources"] == SOURCES
    _, third, _ = train_zoo(lm_weight=0.5)
    assert not same(weights(folder), weights(third))


def test_a_source_like_the_target_teaches_nothing_at_the_start(tmp_path) -> None:
    twin = tmp_path / "twin"
    shutil.copytree(zoo.path("llama"), twin)
    target, source = models.load("zoo:llama"), models.load(str(twin))
    text = corpus.text("code", "train", 900, seed=3)[0]
    analysis = pipeline.analyze(target, [source], text, FusionConfig())
    document = building.build_cache(target, [source], [text], FusionConfig(), tmp_path / "c")[0]
    model = target.network.requires_grad_(True)

    class ExampleDataset(list):
        @property
        def lengths(self) -> np.ndarray:
            return np.array([len(x.ids) for x in self])

    ids = document.observed
    exact, stored = (
        ExampleDataset([Example(ids, rows, torch.ones(len(ids)))])
        for rows in (analysis.fused.rows, document.rows["fused"])
    )
    norms = []
    for examples in (exact, stored):
        blocks = Blocks(examples, 512, start_id=1, end_id=2)
        batch = Collator(512, 2)([blocks[0]])
        for part in ("clm", "fusion"):
            model.zero_grad()
            logits = model(input_ids=batch["input_ids"], use_cache=False).logits[0]
            parts = (batch[f"fused_{x}"][0] for x in ("ids", "probs", "tail"))
            lost = losses.token_losses(logits, batch["labels"][0], SparseRows(*parts, 1400))
            (getattr(lost, part) * batch["fused_weight"][0]).mean().backward()
            squares = (float(p.grad.square().sum()) for p in model.parameters())
            norms.append(math.sqrt(sum(squares)))
    assert norms[1] < 1e-5 * norms[0]
    assert norms[3] < 0.01 * norms[2]  # what one byte a probability leaves of it


def test_how_a_batch_is_cut_changes_nothing(fused_cache, tmp_path) -> None:
    blocks = blocks_of(fused_cache)
    curves = []
    for batch, steps in ((4, 1), (2, 2), (1, 4)):
        seen: list[dict[str, float]] = []
        trainer = trainer_for(
            network(),
            tmp_path / str(batch),
            blocks,
            batch=batch,
            arguments={"gradient_accumulation_steps": steps, "seed": 1},
            objective=Objective(lm_weight=0.3),
        )
        trainer.train()
        seen = [x for x in trainer.state.log_history if "clm" in x]
        assert len(seen) == 3
        curves.append([[x[k] for k in ("loss", "clm", "fusion", "grad_norm")] for x in seen])
        for x in seen:
            assert x["loss"] == pytest.approx(0.3 * x["clm"] + 0.7 * x["fusion"], rel=1e-5)
    for other in curves[1:]:
        assert torch.tensor(other) == pytest.approx(torch.tensor(curves[0]), rel=1e-4)


@pytest.mark.parametrize("divergence", ["ce", "kl"])
def test_a_head_in_chunks_is_the_same_training(fused_cache, tmp_path, divergence: str) -> None:
    blocks, grads, lost = blocks_of(fused_cache), [], []
    for chunked in (False, True):
        model = network()
        trainer = trainer_for(
            model,
            tmp_path / str(chunked),
            blocks,
            chunked_head=chunked,
            objective=Objective(lm_weight=0.3, divergence=divergence),
        )
        loss = trainer.compute_loss(model, Collator(128, 2)([blocks[0], blocks[1]]))
        loss.backward()
        lost.append(float(loss.detach()))
        grads.append({n: p.grad for n, p in model.named_parameters()})
    assert lost[0] == pytest.approx(lost[1], rel=1e-5)
    for name, grad in grads[0].items():
        assert torch.allclose(grad, grads[1][name], atol=1e-5), name


def test_a_head_with_a_cap_after_it_is_not_cut_short(tmp_path, fused_cache, monkeypatch) -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    from fusion_core.training import trainer as room

    config = Gemma2Config(
        vocab_size=1400,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        final_logit_softcapping=2.0,
        initializer_range=1.0,
    )
    monkeypatch.setattr(room, "WHOLE_CELLS", 1)
    blocks = blocks_of(fused_cache)
    batch = Collator(128, 2)([blocks[0]])
    for model, expected in ((Gemma2ForCausalLM(config), False), (network(), True)):
        trainer = trainer_for(model, tmp_path / str(expected), blocks)
        trainer.compute_loss(model, dict(batch))
        assert trainer._chunked_head is expected
        assert isinstance(model.get_output_embeddings(), torch.nn.Linear)


def test_weights_and_temperatures_reach_the_loss(fused_cache, tmp_path) -> None:
    blocks, model = blocks_of(fused_cache), network()
    batch = Collator(128, 2)([blocks[0]])
    lost = {}
    for temperature in (1.0, 2.0):
        trainer = trainer_for(
            model,
            tmp_path / str(temperature),
            blocks,
            temperature=temperature,
            objective=Objective(lm_weight=0.0),
        )
        lost[temperature] = float(trainer.compute_loss(model, dict(batch)))
        off = dict(batch) | {"fused_weight": torch.zeros_like(batch["fused_weight"])}
        assert float(trainer.compute_loss(model, off)) == 0
    logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"]).logits[0]
    rows = SparseRows(
        batch["fused_ids"][0], batch["fused_probs"][0], batch["fused_tail"][0], 1400, 2.0
    )
    nats = losses.token_losses(logits, batch["labels"][0], rows).fusion
    taught = (nats * batch["fused_weight"][0]).sum() / (batch["labels"][0] != -100).sum()
    assert lost[2.0] == pytest.approx(float(taught), rel=1e-5) != pytest.approx(lost[1.0])


def test_the_loss_asks_its_registries_alone(fused_cache, tmp_path, monkeypatch) -> None:
    """An entry decides; the trainer knows no name. The settings offer exactly what there is."""
    blocks, model = blocks_of(fused_cache), network()
    batch = Collator(128, 2)([blocks[0]])

    def loss(**objective: Any) -> float:
        chosen = Objective(lm_weight=0.25, **objective)
        trainer = trainer_for(model, tmp_path / "run", blocks, objective=chosen)
        return float(trainer.compute_loss(model, dict(batch)).detach())

    plain = loss()
    parts = {weight: loss_of(weight, model, tmp_path, blocks, batch) for weight in (0.0, 1.0)}
    assert plain == pytest.approx(0.25 * parts[1.0] + 0.75 * parts[0.0], rel=1e-5)
    for name in losses.DIVERGENCES:
        other = losses.Divergence("nowhere", lambda ce, rows: 3 * ce)
        monkeypatch.setitem(losses.DIVERGENCES, name, other)
        expected = 0.25 * parts[1.0] + 2.25 * parts[0.0]
        assert loss(divergence=name) == pytest.approx(expected, rel=1e-5)
    monkeypatch.undo()
    for name in losses.BALANCES:
        other = losses.Balance("nowhere", lambda clm, fusion, weight: clm - weight * fusion)
        monkeypatch.setitem(losses.BALANCES, name, other)
        expected = parts[1.0] - 0.25 * parts[0.0]
        assert loss(balance=name) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("chosen", ["entropy", "disagreement", None])
def test_text_of_the_target_and_a_share_of_positions(fused_cache, tmp_path, chosen) -> None:
    """Labels of such text count nothing; its rows count in full, by the reverse divergence."""
    blocks, model = blocks_of(fused_cache), network()
    batch = Collator(128, 2)([blocks[0]])
    by_target = torch.arange(128)[None] % 3 == 0
    objective = Objective(lm_weight=0.25)
    if chosen:
        objective = objective.replace(taught_share=0.4, taught_by=chosen)
    trainer = trainer_for(model, tmp_path / "run", blocks, objective=objective)
    got = trainer.compute_loss(model, dict(batch) | {"by_target": by_target})
    logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"]).logits[0]
    rows = SparseRows(*(batch[f"fused_{x}"][0] for x in ("ids", "probs", "tail")), 1400, 1.0)
    labels, weight, first = batch["labels"][0], batch["fused_weight"][0], by_target[0]
    forward = losses.token_losses(logits, labels, rows)
    reverse = losses.token_losses(logits, labels, rows, pulls=losses.reverse_kl).fusion
    if chosen:
        logprobs = torch.log_softmax(logits, 1)
        score = -(logprobs.exp() * logprobs).sum(1)
        if chosen == "disagreement":
            score = torch.where(first, reverse, forward.fusion - losses.entropy(rows))
        taught = [i for i in score.argsort(descending=True).tolist() if weight[i] > 0]
        kept = torch.zeros_like(weight)
        kept[taught[: round(0.4 * len(taught))]] = 1
        weight = kept * weight.sum() / kept.sum()
    number = (labels != -100).sum()
    expected = 0.25 * forward.clm[~first].sum() + 0.75 * (forward.fusion * weight)[~first].sum()
    expected = (expected + (reverse * weight)[first].sum()) / number
    assert float(got.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)


def loss_of(weight: float, model: Any, folder: Path, blocks: Blocks, batch: Any) -> float:
    trainer = trainer_for(model, folder / "run", blocks, objective=Objective(lm_weight=weight))
    return float(trainer.compute_loss(model, dict(batch)).detach())


def test_settings_name_what_the_registries_have() -> None:
    registries = {
        "divergence": losses.DIVERGENCES,
        "target_divergence": losses.DIVERGENCES,
        "balance": losses.BALANCES,
        "taught_by": losses.CHOICES,
    }
    for key, registry in registries.items():
        assert all(entry.reference for entry in registry.values())
        for name in registry:
            assert getattr(Objective(**{key: name}), key) == name
        with pytest.raises(InputError) as refused:
            Objective(**{key: "no such"})
        assert all(name in str(refused.value) for name in registry)


def test_lambda_follows_its_schedule(train_zoo) -> None:
    _, _, told = train_zoo(lm_weight=0.2, lm_weight_end=0.8, max_steps=4)
    steps = [x for x in told if "loss" in x]
    for n, x in enumerate(steps):
        used = 0.2 + 0.6 * n / 4  # what the step was taken with
        assert x["loss"] == pytest.approx(used * x["clm"] + (1 - used) * x["fusion"], rel=1e-4)
    _, _, told = train_zoo(balance="ratio")
    assert told[0]["loss"] == pytest.approx(2 * told[0]["clm"], rel=1e-4)


def test_checkpointing_and_schedules_of_the_library_are_at_hand(train_zoo) -> None:
    _, plain, _ = train_zoo()
    arguments = {"activation_checkpointing": True, "adam_beta1": 0.9}
    _, checkpointed, _ = train_zoo(arguments=arguments)
    a, b = weights(plain), weights(checkpointed)
    assert all(torch.allclose(a[k], b[k], atol=1e-5) for k in a)
    for arguments, said in (
        ({"learning_rate": 1.0}, "must not hold learning_rate"),
        ({"no_such": 1}, "no_such"),
        ({"optim": "no_such"}, "no_such"),
    ):
        with pytest.raises(InputError, match=said):
            train_zoo(arguments=arguments)
