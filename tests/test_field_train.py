"""Trainings of people's own models: what they are refused for at once, and what comes out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import transformers
from training_checks import check_training, loaded, logits, run, settings, weights
from transformers import AutoTokenizer

from fusion_core import tokens
from fusion_core.errors import InputError, ModelFormatError
from fusion_core.io.files import TOKENIZER_FILES
from fusion_core.numerics import logits_off
from fusion_core.training import estimate, export, loop, train_pairwise
from fusion_core.training.adapters import merged, untie, with_adapters

# Adapters on tied weights ----------------------------------------------------------------------

TIED: list[tuple[str, list[str], dict[str, Any]]] = [
    ("llama", ["q_proj", "lm_head"], {"tie_word_embeddings": True}),
    ("qwen2", ["embed_tokens"], {"tie_word_embeddings": True}),
    ("gemma3_text", ["embed_tokens", "lm_head"], {"tie_word_embeddings": True}),
    ("gpt2", ["c_attn", "lm_head"], {}),
    ("mixtral", ["q_proj", "lm_head"], {"tie_word_embeddings": True}),
    ("bert", ["decoder"], {}),  # a tied bias besides
    ("bloom", ["word_embeddings"], {}),
]


@pytest.mark.parametrize(("kind", "modules", "more"), TIED, ids=[f"{k}-{m}" for k, m, _ in TIED])
def test_adapters_on_one_side_of_a_tied_matrix(
    kind: str, modules: list[str], more: dict[str, Any], tmp_path, monkeypatch
) -> None:
    """Merged into the matrix that both sides share, an adapter changed the other side, too.

    huggingface/peft#2018 and huggingface/transformers#45127.
    """
    folder = tiny.saved(tmp_path / "model", kind, **more)
    trained: list[torch.Tensor] = []

    def spied(network: Any) -> Any:
        trained.append(logits(network))
        return merged(network)

    monkeypatch.setattr(loop, "merged", spied)
    lora = {"r": 4, "alpha": 64, "target_modules": modules}
    found = check_training(folder, tmp_path, lora=lora)["network"]
    assert torch.allclose(logits(found), trained[0], atol=1e-4)
    ends = found.get_input_embeddings().weight, found.get_output_embeddings().weight
    assert not torch.equal(*ends)
    assert found.config.get_text_config().tie_word_embeddings is False


def test_other_adapters_leave_tied_weights_tied(tmp_path) -> None:
    for kind in ("gpt2", "bloom", "gemma3_text"):
        folder = tiny.saved(tmp_path / kind, kind)
        config = settings(folder, tmp_path, lora={"r": 4})
        run(config, tmp_path / f"run-{kind}")
        found = loaded(tmp_path / f"run-{kind}")
        assert found.config.tie_word_embeddings
        assert found.get_input_embeddings().weight is found.get_output_embeddings().weight


@pytest.mark.parametrize("kind", ["zamba2", "mixtral"])
def test_adapters_on_layers_that_share_weights_and_on_experts(kind: str, tmp_path) -> None:
    more = ZAMBA if kind == "zamba2" else {}
    folder = tiny.saved(tmp_path / "model", kind, **more)
    config = settings(folder, tmp_path, lora={"r": 4, "alpha": 64})
    result, _ = run(config, tmp_path / "run")  # held against what was trained
    assert result["bits_per_byte"]["after"] < result["bits_per_byte"]["before"]


ZAMBA: dict[str, Any] = {
    "num_hidden_layers": 4,
    "layer_types": ["mamba", "hybrid"] * 2,
    "hybrid_layer_ids": [1, 3],
    "num_mem_blocks": 1,
    "mamba_headdim": 8,
    "n_mamba_heads": 8,
    "mamba_ngroups": 1,
    "mamba_d_state": 8,
    "attention_hidden_size": 64,
    "attention_head_dim": 16,
}


def test_a_layer_in_several_places_takes_no_adapter_on_one_of_them(tmp_path) -> None:
    network = tiny.network("llama")
    network.model.layers[1].mlp = network.model.layers[0].mlp
    config = settings("any", tmp_path, lora={"r": 4})
    with pytest.raises(InputError, match=r"several places.*target_modules"):
        with_adapters(config, network)


def test_untying_changes_no_logits() -> None:
    for kind, more in (("gpt2", {}), ("bert", {}), ("zamba2", ZAMBA)):
        network = tiny.network(kind, **more)
        before, size = logits(network), sum(p.numel() for p in network.parameters())
        untie(network)
        assert torch.equal(logits(network), before)
        assert sum(p.numel() for p in network.parameters()) > size


def test_pairs_with_adapters_on_a_tied_matrix_are_merged(tmp_path) -> None:
    target = tiny.saved(tmp_path / "target", "llama", tie_word_embeddings=True)
    sources = [tiny.saved(tmp_path / f"s{n}", kind) for n, kind in enumerate(("gpt2", "mixtral"))]
    lora = {"r": 4, "alpha": 64, "target_modules": ["lm_head", "v_proj"]}
    more = {"mode": "fusion", "sources": sources, "pairwise": "linear", "lora": lora}
    config = settings(target, tmp_path, **more)
    out = tmp_path / "run"
    out.mkdir()
    train_pairwise(config, out, loop.Callbacks())
    one, two = (weights(loaded(out / "pairs" / str(n))) for n in range(2))
    found = weights(loaded(out))
    assert all(torch.allclose(found[n], (one[n] + two[n]) / 2, atol=1e-6) for n in found)


# What is exported is what was trained ----------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "mixtral", "gpt2"])
@pytest.mark.parametrize("harm", ["weights", "config", "rounded"])
def test_a_wrong_export_replaces_nothing(kind: str, harm: str, tmp_path, monkeypatch) -> None:
    """Whatever is lost on the way to the disk, the model that is there stays."""
    folder = tiny.saved(tmp_path / "model", kind)
    config = settings(folder, tmp_path)
    out = tmp_path / "run"
    run(config, out)
    before = {f.name: f.read_bytes() for f in (out / "model").iterdir()}
    saved = type(loaded(out)).save_pretrained

    def spoilt(network: Any, place: Any, **more: Any) -> None:
        if Path(place).name == ".model.part" and harm != "config":
            weight = network.get_input_embeddings().weight.data
            weight[-1] = weight[-1].bfloat16() if harm == "rounded" else 0
        saved(network, place, **more)
        if Path(place).name == ".model.part" and harm == "config":
            told = json.loads((Path(place) / "config.json").read_text())
            name = "layer_norm_epsilon" if kind == "gpt2" else "rms_norm_eps"
            (Path(place) / "config.json").write_text(json.dumps(told | {name: 1.0}))

    monkeypatch.setattr(transformers.PreTrainedModel, "save_pretrained", spoilt)
    with pytest.raises(ModelFormatError, match=r"does not survive.*checkpoints stay"):
        run(config, out)  # from the last checkpoint
    assert {f.name: f.read_bytes() for f in (out / "model").iterdir()} == before
    assert not list(out.glob(".model*")) and list((out / "checkpoints").glob("*/complete.json"))
    monkeypatch.undo()
    assert run(config, out)[0]["steps"] == 3


@pytest.mark.parametrize("kind", ["llama", "qwen2_moe", "gpt2"])
@pytest.mark.parametrize("lora", [None, {"r": 4, "alpha": 64}])
def test_bfloat16_and_a_head_wider_than_the_vocabulary(kind: str, lora: Any, tmp_path) -> None:
    folder = tiny.saved(tmp_path / "model", kind, vocab_size=317)
    config = settings(folder, tmp_path, dtype="bfloat16", lora=lora)
    run(config, tmp_path / "run")
    found = loaded(tmp_path / "run")
    assert found.dtype == torch.bfloat16
    assert found.get_input_embeddings().weight.shape[0] == 317


@pytest.mark.parametrize("kind", ["llama", "mixtral"])
def test_half_precision_around_the_forward_is_no_part_of_the_model(kind: str, tmp_path) -> None:
    """Mixed precision stays behind: what is measured is what is handed out."""
    folder = tiny.saved(tmp_path / "model", kind)
    config = settings(folder, tmp_path, arguments={"bf16": True})
    result, _ = run(config, tmp_path / "run")
    again, _ = run(settings(tmp_path / "run" / "model", tmp_path), tmp_path / "again")
    assert again["bits_per_byte"]["before"] == pytest.approx(result["bits_per_byte"]["after"])


def test_logits_that_are_masked_are_compared_all_the_same() -> None:
    rows = torch.randn(4, 9)
    rows[:, 3] = -torch.inf
    assert not logits_off(rows.clone(), rows).any()
    spread = float(rows[rows.isfinite()].std())
    off = logits_off(rows + 0.01, rows).tolist()
    assert off == pytest.approx([0.01 * (8 / 9) ** 0.5 / spread] * 4, rel=1e-4)
    assert not bool((logits_off(torch.full_like(rows, torch.nan), rows) <= 1e-4).any())
    assert logits_off(rows[:, :-1], rows).isinf().all()
    assert logits_off(torch.zeros_like(rows), rows).isinf().all()


# Tokenizers of local targets -------------------------------------------------------------------

REAL = ("gpt2", "mistral-7b-v0.1", "qwen1.5", "llama-2-7b", "phi-3", "falcon", "gpt-neox-20b_mpt")


@pytest.fixture
def with_tokenizer(testdata, tmp_path) -> Any:
    """Return what puts a real tokenizer beside a tiny model of some architecture."""

    def put(name: str, kind: str) -> str:
        folder, source = tmp_path / f"{name}-{kind}", testdata / "tokenizers" / name
        size = len(AutoTokenizer.from_pretrained(source))
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("config.json"))
        tiny.network(kind, size, num_hidden_layers=1).save_pretrained(folder)
        return str(folder)

    return put


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("kind", ["own", "llama", "qwen2"])
def test_a_local_tokenizer_survives(name: str, kind: str, with_tokenizer, tmp_path) -> None:
    """Beside another configuration, or none, `AutoTokenizer` may choose another class.

    huggingface/transformers#6368 tells of a tokenizer that is not found without config.json.
    """
    own = {"gpt2": "gpt2", "mistral-7b-v0.1": "mistral", "qwen1.5": "qwen2", "phi-3": "phi3"}
    own |= {"llama-2-7b": "llama", "falcon": "falcon", "gpt-neox-20b_mpt": "gpt_neox"}
    folder = with_tokenizer(name, own[name] if kind == "own" else kind)
    estimate(settings(folder, tmp_path), tmp_path)


@pytest.mark.parametrize(("name", "kind"), [("gpt2", "gpt2"), ("mistral-7b-v0.1", "mistral")])
def test_the_exported_tokenizer_is_the_targets(name, kind, with_tokenizer, tmp_path) -> None:
    folder = with_tokenizer(name, kind)
    run(settings(folder, tmp_path, max_steps=1), tmp_path / "run")
    before, after = (tokens.load(Path(f), "x") for f in (folder, tmp_path / "run" / "model"))
    assert before.key == after.key
    one, other = map(AutoTokenizer.from_pretrained, (folder, tmp_path / "run" / "model"))
    assert one(tiny.TEXT).input_ids == other(tiny.TEXT).input_ids


def test_a_tokenizer_of_ones_own_in_a_model_of_another_kind(tmp_path) -> None:
    for kind in ("qwen2", "gemma3_text", "mpt"):
        folder = tiny.saved(tmp_path / kind, kind)
        run(settings(folder, tmp_path, max_steps=1), tmp_path / f"run-{kind}")


def test_every_file_of_a_tokenizer_is_copied() -> None:
    """Of all classes that belong to a causal language model."""
    auto = transformers.models.auto
    names: dict[str, Any] = auto.tokenization_auto.TOKENIZER_MAPPING_NAMES
    for kind in auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        found = getattr(transformers, names.get(kind) or "", None)
        missing = set(getattr(found, "vocab_files_names", {}).values()) - set(TOKENIZER_FILES)
        assert not missing, f"{kind}: {missing}"


def test_a_tokenizer_that_is_lost_is_said_before_anything_is_read(tmp_path, monkeypatch) -> None:
    folder = tiny.saved(tmp_path / "model", "llama")
    monkeypatch.setattr(export, "TOKENIZER_FILES", ("tokenizer_config.json",))
    config = settings(folder, tmp_path, data=str(tmp_path / "there-is-none.txt"))
    for refused in (lambda: run(config, tmp_path / "run"), lambda: estimate(config, tmp_path)):
        with pytest.raises((InputError, ModelFormatError), match="okenizer"):
            refused()
