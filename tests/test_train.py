"""Short trainings: the trainer, what is trained on, what comes out."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tiny_model
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    TrainingArguments,
)

from fusion_core import corpus, losses, models, pipeline, zoo
from fusion_core.cache import Cache, building
from fusion_core.config import FusionConfig, Objective, RunConfig
from fusion_core.errors import FusionError, InputError
from fusion_core.records import SparseRows
from fusion_core.tokens import TextTokenizer
from fusion_core.train import (
    Blocks,
    CachedRowsDataset,
    Collator,
    Example,
    FusionTrainer,
    Observer,
    StoppedError,
    teach,
    train_pairwise,
)

SOURCES = ["zoo:mpt-code", "zoo:gpt2-story"]
Run = Callable[..., tuple[dict[str, Any], Path, list[dict[str, Any]]]]


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    """Write some text to train on and to measure on."""
    folder = tmp_path_factory.mktemp("texts")
    train = [t for d in ("code", "commonsense") for t in corpus.text(d, "train", 3000, seed=3)]
    corpus.write(folder / "data.txt", train)
    corpus.write(folder / "held-out.txt", corpus.text("code", "validation", 1500, seed=3))
    return folder


@pytest.fixture
def run(texts, tmp_path) -> Run:
    """Return what trains with some settings: the result, the folder, what was reported."""
    number = 0

    def train(**settings: Any) -> tuple[dict[str, Any], Path, list[dict[str, Any]]]:
        nonlocal number
        number += 1
        folder = tmp_path / f"run-{number}"
        folder.mkdir()
        reported: list[dict[str, Any]] = []
        values = {
            "target": "zoo:llama",
            "sources": SOURCES,
            "data": str(texts / "data.txt"),
            "max_steps": 3,
            "batch_size": 2,
            "block_size": 128,
            "learning_rate": 1e-3,
        } | settings
        config = RunConfig.of({k: v for k, v in values.items() if v is not None})
        course = train_pairwise if config.pairwise else teach
        return course(config, folder, Observer(metrics=reported.append)), folder, reported

    return train


@pytest.fixture(scope="module")
def fused_cache(texts, tmp_path_factory) -> Path:
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


def test_lambda_1_is_the_plain_run_bit_for_bit(run) -> None:
    plain, folder, told = run(mode="clm")
    fused, other, also_told = run(lm_weight=1.0)
    assert same(weights(folder), weights(other))
    keys = ("step", "clm", "grad_norm", "learning_rate", "tokens")
    assert [[x[k] for k in keys] for x in told] == [[x[k] for k in keys] for x in also_told]
    assert told[0]["fusion"] == 0 < also_told[0]["fusion"]
    assert plain["sources"] == [] and fused["sources"] == SOURCES
    _, third, _ = run(lm_weight=0.5)
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

    from fusion_core.train import trainer as room

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


def test_lambda_follows_its_schedule(run) -> None:
    _, _, told = run(lm_weight=0.2, lm_weight_end=0.8, max_steps=4)
    steps = [x for x in told if "loss" in x]
    for n, x in enumerate(steps):
        used = 0.2 + 0.6 * n / 4  # what the step was taken with
        assert x["loss"] == pytest.approx(used * x["clm"] + (1 - used) * x["fusion"], rel=1e-4)
    _, _, told = run(balance="ratio")
    assert told[0]["loss"] == pytest.approx(2 * told[0]["clm"], rel=1e-4)


def test_checkpointing_and_schedules_of_the_library_are_at_hand(run) -> None:
    _, plain, _ = run()
    arguments = {"activation_checkpointing": True, "adam_beta1": 0.9}
    _, checkpointed, _ = run(arguments=arguments)
    a, b = weights(plain), weights(checkpointed)
    assert all(torch.allclose(a[k], b[k], atol=1e-5) for k in a)
    for arguments, said in (
        ({"learning_rate": 1.0}, "must not hold learning_rate"),
        ({"no_such": 1}, "no_such"),
        ({"optim": "no_such"}, "no_such"),
    ):
        with pytest.raises(InputError, match=said):
            run(arguments=arguments)


# What is trained on ----------------------------------------------------------------------------


def test_a_cache_gives_what_the_run_would_have_made(run, texts, tmp_path) -> None:
    _, folder, _ = run(max_steps=None, epochs=1)
    _, other, _ = run(max_steps=None, epochs=1, cache=str(folder / "cache"), data=None)
    assert same(weights(folder), weights(other))
    result, plain, _ = run(mode="clm", cache=str(folder / "cache"), data=None, max_steps=2)
    assert result["sources"] == [] and (plain / "model").is_dir()


def test_a_cache_must_be_of_this_target(run, fused_cache, texts, tmp_path) -> None:
    with pytest.raises(InputError, match=r"settings\.target"):
        run(cache=str(fused_cache), data=None, target="zoo:mpt-code", sources=None)
    with pytest.raises(InputError, match=r"config\.operator: min_ce, not mean"):
        run(cache=str(fused_cache), data=None, operator="mean")
    with pytest.raises(InputError, match="of the sources"):
        run(cache=str(fused_cache), data=None, sources=["zoo:neox-reason"])
    with pytest.raises(InputError, match="leave out generate_bytes"):
        run(cache=str(fused_cache), data=None, generate_bytes=100)
    with pytest.raises(InputError, match="no cache at"):
        run(cache=str(tmp_path / "none"), data=None)


def test_sources_of_a_cache_are_fused_anew(run, sources_cache, fused_cache) -> None:
    given = {"data": None, "sources": None, "cache": str(sources_cache)}
    result, folder, _ = run(**given)
    assert result["sources"] == SOURCES
    _, other, _ = run(**given, operator="mean")
    assert not same(weights(folder), weights(other))
    result, _, _ = run(**given, mode="kd")
    assert result["sources"] == ["zoo:mpt-code"]  # the text is code
    with pytest.raises(InputError, match="--keep sources"):
        run(mode="kd", data=None, cache=str(fused_cache))


def test_kd_takes_the_source_that_reads_the_data_best(run, texts) -> None:
    result, folder, _ = run(mode="kd", data=str(texts / "held-out.txt"), max_steps=1)
    assert result["sources"] == ["zoo:mpt-code"]
    sources = Cache.open(folder / "cache").manifest.settings["sources"]
    assert [s["name"] for s in sources] == ["zoo:mpt-code"]


def test_no_more_is_read_than_will_be_taught(run, texts, tmp_path) -> None:
    corpus.write(tmp_path / "much.txt", corpus.text("code", "train", 60_000))
    data = str(tmp_path / "much.txt")
    _, folder, _ = run(data=data, max_steps=2, batch_size=1)
    tokens = Cache.open(folder / "cache").tokens
    assert 256 <= tokens < 256 + 300
    _, again, _ = run(data=data, max_steps=2, batch_size=1)
    assert same(weights(folder), weights(again))
    _, other, _ = run(data=data, max_steps=2, batch_size=1, seed=1)
    assert not same(weights(folder), weights(other))


def test_sources_write_the_text(run) -> None:
    result, folder, _ = run(data=None, generate_bytes=1500, max_steps=2)
    lines = (folder / "written.jsonl").read_text(encoding="utf-8").splitlines()
    written = [json.loads(x)["text"] for x in lines]
    assert 1500 <= sum(len(t.encode()) for t in written) < 4000
    assert "1,500 bytes written by the sources" in result["data"]
    scores = pipeline.bits_per_byte(
        [models.load("zoo:mpt-code")], [t for t in written if "def " in t]
    )
    assert scores["zoo:mpt-code"]["bits_per_byte"] < 0.8  # it is what the model expects
    _, again, _ = run(data=None, generate_bytes=1500, max_steps=2)
    assert (again / "written.jsonl").read_bytes() == (folder / "written.jsonl").read_bytes()
    assert same(weights(folder), weights(again))


def test_a_model_that_cannot_read_packed_is_trained_all_the_same(run) -> None:
    result, folder, _ = run(target="zoo:mpt-code", sources=["zoo:llama"], eval_data=None)
    assert result["bits_per_byte"]["after"] < result["bits_per_byte"]["before"]
    assert AutoModelForCausalLM.from_pretrained(folder / "model").config.model_type == "mpt"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no document"),
        (b"\n\n  \n", "holds no document"),
        (b"caf\xe9", "is not UTF-8"),
        (None, "cannot be read"),
    ],
)
def test_data_of_no_use_is_refused(run, tmp_path, content: bytes | None, said: str) -> None:
    file = tmp_path / "bad.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=said):
        run(data=str(file))


def test_a_wrong_column_is_named(run, tmp_path) -> None:
    import pandas as pd

    pd.DataFrame({"content": ["x"]}).to_parquet(tmp_path / "bad.parquet")
    with pytest.raises(InputError, match="text column"):
        run(data=str(tmp_path / "bad.parquet"))
    (tmp_path / "bad.jsonl").write_text('{"content": "x"}\n')
    with pytest.raises(InputError, match='no "text"'):
        run(data=str(tmp_path / "bad.jsonl"))


def test_a_line_of_5_megabytes_is_cut_and_read(run, tmp_path) -> None:
    line = " ".join(corpus.text("code", "train", 20_000, seed=3)).replace("\n", " ")
    file = tmp_path / "line.txt"
    file.write_text((line * (5_000_000 // len(line) + 1))[:5_000_000])
    result, folder, _ = run(data=str(file), max_steps=1, batch_size=1)
    assert result["steps"] == 1
    assert Cache.open(folder / "cache").lengths.max() < 32_768


# What comes out --------------------------------------------------------------------------------


def test_the_folder_loads_and_generates(run, texts) -> None:
    held_out = {"held out": str(texts / "held-out.txt")}
    result, folder, told = run(eval_data=held_out, eval_every=2, max_steps=4)
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
    assert str(texts) not in card  # a card is published
    measured = pipeline.bits_per_byte(
        [models.load(str(folder / "model"))], corpus.text("code", "validation", 1500, seed=3)
    )
    after = next(iter(measured.values()))["bits_per_byte"]
    assert result["texts"]["held out"]["after"] == pytest.approx(after, rel=1e-5)
    evaluated = [x for x in told if "mean_bits_per_byte" in x]
    assert [x["step"] for x in evaluated] == [2, 4]
    assert evaluated[-1]["bits_per_byte"]["held out"] == pytest.approx(after, rel=1e-5)


def test_the_best_weights_are_kept(run, texts) -> None:
    held_out = {"held out": str(texts / "held-out.txt")}
    settings = {"eval_data": held_out, "eval_every": 2, "max_steps": 12, "learning_rate": 2e-2}
    result, folder, told = run(**settings, keep="best", scheduler="constant")
    scores = {x["step"]: x["mean_bits_per_byte"] for x in told if "mean_bits_per_byte" in x}
    best = min(scores, key=lambda s: scores[s])
    assert result["best_step"] == best < 12
    assert result["bits_per_byte"]["after"] == pytest.approx(scores[best], rel=1e-5)
    assert f"the weights of step {best}" in (folder / "model" / "README.md").read_text()


def test_merged_adapters_are_the_adapted_model(run, texts, monkeypatch) -> None:
    from fusion_core.train import course

    kept = {}
    finish = course._finish

    def spied(config, folder, target, trainer, *rest, **more):
        network = trainer.model.eval()
        kept["trained"] = sum(p.numel() for p in network.parameters() if p.requires_grad)
        kept["all"] = sum(p.numel() for p in network.parameters())
        with torch.no_grad():
            kept["logits"] = network(input_ids=torch.arange(40)[None]).logits
        return finish(config, folder, target, trainer, *rest, **more)

    monkeypatch.setattr(course, "_finish", spied)
    _, folder, _ = run(lora={"r": 4, "alpha": 64}, learning_rate=1e-2)
    assert kept["trained"] < 0.2 * kept["all"]
    merged = AutoModelForCausalLM.from_pretrained(folder / "model")
    before = models.load("zoo:llama").network
    with torch.no_grad():
        logits = merged(input_ids=torch.arange(40)[None]).logits
        assert torch.allclose(logits, kept["logits"], atol=1e-4)
        assert (before(input_ids=torch.arange(40)[None]).logits - logits).abs().max() > 0.1
    with pytest.raises(InputError, match="adapters"):
        run(lora={"r": 4, "target_modules": ["no_such"]})


def test_best_adapters_are_kept(run, texts) -> None:
    held_out = {"held out": str(texts / "held-out.txt")}
    settings = {"eval_data": held_out, "eval_every": 1, "max_steps": 5, "learning_rate": 0.1}
    result, _, told = run(**settings, keep="best", lora=4, scheduler="constant")
    scores = [x["mean_bits_per_byte"] for x in told if "mean_bits_per_byte" in x]
    assert result["bits_per_byte"]["after"] == pytest.approx(min(scores), rel=1e-4)


def test_pairs_are_merged(run) -> None:
    result, folder, told = run(pairwise="linear", max_steps=2)
    assert result["steps"] == 4 and result["sources"] == SOURCES
    assert [x["step"] for x in told] == [1, 2, 3, 4]
    assert {x["max_steps"] for x in told} == {4}
    one, two = (weights(folder / "pairs" / str(n)) for n in range(2))
    merged = weights(folder)
    for name in merged:
        assert torch.allclose(merged[name], (one[name] + two[name]) / 2, atol=1e-6)
    assert not same(one, two)
    _, single, _ = run(sources=SOURCES[:1], max_steps=2)
    assert same(weights(single), one)


def test_a_loss_that_is_no_number_ends_the_run(run, monkeypatch) -> None:
    with pytest.raises(
        InputError, match=r"no number at step \d+.*lower learning_rate.*no checkpoint"
    ):
        run(learning_rate=1e30, max_steps=6, max_grad_norm=1e30, scheduler="constant")


def test_a_run_can_be_stopped_before_its_first_step(texts, tmp_path) -> None:
    config = RunConfig.of(
        {"target": "zoo:llama", "sources": SOURCES, "data": str(texts / "data.txt")}
    )
    with pytest.raises(StoppedError):
        teach(config, tmp_path, Observer(stop=lambda: True))
    assert not (tmp_path / "model").exists()


def test_what_cannot_fit_is_refused(run, monkeypatch) -> None:
    room = import_module("fusion_core.train.memory")
    monkeypatch.setattr(room, "free", lambda _: 10_000_000)
    with pytest.raises(InputError, match=r"needs about .*B of memory, but 10\.0 MB are free"):
        run()


def test_blocks_beyond_the_context_are_refused(run) -> None:
    with pytest.raises(InputError, match="at most 512"):
        run(block_size=1024)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"device": "cuda:3"}, "CUDA_VISIBLE_DEVICES"),
        ({"device": "spread"}, "not on 'spread'"),
        ({"dtype": "float16"}, "overflows"),
    ],
)
def test_devices_that_do_not_serve(run, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        run(**settings)


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
    result = teach(config, out)
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
def test_a_wrong_name_is_said_before_anything_is_done(run, name: str, said: str) -> None:
    for settings in ({"target": name}, {"sources": [name]}):
        with pytest.raises(FusionError, match=said):
            run(**settings)
    run(mode="clm", sources=[name], max_steps=1)  # which nobody asks


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
