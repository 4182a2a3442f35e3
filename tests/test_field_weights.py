"""Models as people have them: files that are not whole, encoders, other formats beside.

Each test names the public report of somebody who was led astray by the like.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TEXT, byte_bpe, config, network, saved
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
)

from fusion_core import models
from fusion_core.cli import main
from fusion_core.errors import FusionError, ModelFormatError


def edited(folder: str, **changes: Any) -> str:
    """Change a model's configuration on disk."""
    file = Path(folder, "config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder


def refused(folder: str, match: str, kind: type[FusionError] = ModelFormatError) -> None:
    with pytest.raises(kind, match=match) as caught:
        models.load(folder)
    assert "\n" not in str(caught.value)


# All weights are there ------------------------------------------------------------------------
# allenai/OLMo-Eval-Legacy issue 31 (a perplexity of newly initialised weights),
# huggingface/transformers issue 30381


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt_neox", "olmo2"])
def test_a_model_without_its_head_is_refused(tmp_path: Path, kind: str) -> None:
    base = AutoModel.from_config(config(kind, tie_word_embeddings=False))
    refused(saved(tmp_path / "base", base), r"lacks (lm_head|embed_out)\.weight")


@pytest.mark.parametrize("kind", ["gpt2", "gemma2", "opt"])
def test_a_base_model_whose_head_is_its_embedding_is_whole(tmp_path: Path, kind: str) -> None:
    base = AutoModel.from_config(config(kind, tie_word_embeddings=True)).eval()
    model = models.load(saved(tmp_path / "base", base))
    again = models.load(str(tmp_path / "base"))
    ids = torch.arange(2, 12)[None]
    assert torch.equal(model.network(ids).logits, again.network(ids).logits)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2", "mixtral"])
def test_a_classifier_is_no_language_model(tmp_path: Path, kind: str) -> None:
    classifier = AutoModelForSequenceClassification.from_config(config(kind, num_labels=3))
    refused(saved(tmp_path / "c", classifier), "lacks lm_head|ForSequenceClassification")


@pytest.mark.parametrize("kind", ["llama", "mistral", "mixtral", "phi3"])
def test_a_configuration_of_another_depth_or_width_is_refused(tmp_path: Path, kind: str) -> None:
    folder = saved(tmp_path / kind, kind)
    refused(edited(folder, num_hidden_layers=3), r"lacks model\.layers\.2\.")
    refused(edited(folder, num_hidden_layers=1), r"model\.layers\.1\..* leaves out")
    refused(edited(folder, num_hidden_layers=2, intermediate_size=128), "another shape")


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("qwen2", {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}),
        ("qwen3", {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}),
        ("llama", {"attention_bias": False}),
        ("gemma2", {"model_type": "gemma", "architectures": ["GemmaForCausalLM"]}),
    ],
)
def test_weights_that_a_configuration_has_no_place_for_are_refused(
    tmp_path: Path, kind: str, changes: dict[str, Any]
) -> None:
    more = {"attention_bias": True} if kind == "llama" else {}
    refused(edited(saved(tmp_path / kind, kind, **more), **changes), "leaves out")


def test_tables_that_old_checkpoints_hold_are_no_weights(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = saved(tmp_path / "m", "llama")
    file = tmp_path / "m" / "model.safetensors"
    tensors = load_file(file) | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    save_file(tensors, file, metadata={"format": "pt"})
    assert models.load(folder).context == 64


@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe", "gpt_oss", "olmoe", "gemma3_text"])
def test_experts_and_tied_heads_are_all_there(tmp_path: Path, kind: str) -> None:
    made = network(kind)
    model = models.load(saved(tmp_path / kind, made))
    ids = torch.arange(2, 20)[None]
    with torch.no_grad():
        assert torch.allclose(model.network(ids).logits, made(ids).logits, atol=1e-5)


def test_the_command_line_refuses_weights_that_would_be_drawn(tmp_path: Path, capsys) -> None:
    base = AutoModel.from_config(config("llama", tie_word_embeddings=False))
    folder = saved(tmp_path / "base", base)
    (tmp_path / "t.txt").write_text(TEXT)
    capsys.readouterr()  # saving had told its progress
    assert main(["evaluate", "--model", folder, "--text-file", str(tmp_path / "t.txt")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# Causal ---------------------------------------------------------------------------------------
# huggingface/transformers issues 12704 (BERT as it is, as a language model) and 48745 (decoders
# that see what follows although is_decoder is set)


@pytest.mark.parametrize(
    "kind", ["bert", "roberta", "electra", "ernie", "camembert", "xlm-roberta", "xlnet", "rembert"]
)
def test_models_that_see_what_follows_are_refused(tmp_path: Path, kind: str) -> None:
    more = {} if kind == "xlnet" else {"is_decoder": False}
    refused(saved(tmp_path / kind, kind, **more), "sees the words that it is to predict")


@pytest.mark.parametrize("mask", [-torch.inf, torch.finfo(torch.float32).min])
def test_masked_logits_hide_nothing(tmp_path: Path, mask: float) -> None:
    made = network("bert", is_decoder=False)
    with torch.no_grad():
        made.cls.predictions.bias[9] = mask
    refused(saved(tmp_path / "m", made), "sees the words that it is to predict")


def test_weights_that_are_no_numbers(tmp_path: Path) -> None:
    made = network("llama")
    with torch.no_grad():
        made.model.norm.weight[3] = torch.nan
    refused(saved(tmp_path / "m", made), "logits that are no numbers")


def test_a_window_of_attention_to_both_sides_is_refused(tmp_path: Path) -> None:
    # Gemma 3 has a switch for it; embedding models are made so
    folder = saved(tmp_path / "g", "gemma3_text", use_bidirectional_attention=True)
    refused(folder, "sees the words that it is to predict")


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra", "xglm", "mamba", "gpt_oss", "mpt"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_causal_models_pass(tmp_path: Path, kind: str, dtype: str) -> None:
    assert models.load(saved(tmp_path / kind, kind), dtype=dtype).name


# Files ----------------------------------------------------------------------------------------
# vllm-project/vllm issue 7523 (consolidated.safetensors beside the shards),
# unslothai/unsloth pull request 10558 (a folder sized by two copies of its weights)


@pytest.mark.parametrize("kind", ["mistral", "llama", "gpt2"])
@pytest.mark.parametrize(
    "beside", ["consolidated.safetensors", "original/consolidated.safetensors"]
)
@pytest.mark.parametrize("sharded", [False, True])
def test_weights_of_other_formats_beside_do_not_count(
    tmp_path: Path, kind: str, beside: str, sharded: bool
) -> None:
    made = network(kind)
    saved(tmp_path / "m", made)
    if sharded:
        (tmp_path / "m" / "model.safetensors").unlink()
        made.save_pretrained(tmp_path / "m", max_shard_size="40KB")
    folder = str(tmp_path / "m")
    size, who = models.weights_bytes(folder), models.identity(models.load(folder))
    (tmp_path / "m" / beside).parent.mkdir(exist_ok=True)
    (tmp_path / "m" / beside).write_bytes(b"0" * 999_999)
    assert models.weights_bytes(folder) == size
    assert models.identity(models.load(folder, max_bytes=size)) == who


def test_a_missing_part_of_the_weights_is_named(tmp_path: Path) -> None:
    network("llama").save_pretrained(tmp_path, max_shard_size="40KB")
    byte_bpe().save_pretrained(tmp_path)
    part = sorted(tmp_path.glob("model-*.safetensors"))[1]
    part.unlink()
    refused(str(tmp_path), f"{part.name}, which is not there")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../../etc/passwd"}}))
    refused(str(tmp_path), "no safetensors file beside it")
    index.write_text("[]")
    refused(str(tmp_path), "not a readable JSON object")


def test_of_a_hub_repository_counts_what_would_be_loaded() -> None:
    from fusion_core.models.files import loaded_of

    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    more = ["consolidated.safetensors", "original/model-1.safetensors", "adapter_model.safetensors"]
    assert loaded_of([*more, *shards, "model.safetensors.index.json"]) == shards
    assert loaded_of([*more, *shards, "model.safetensors"]) == ["model.safetensors"]
    others = ["big-00001-of-00002.safetensors", "big-00002-of-00002.safetensors"]
    assert loaded_of([*others, "model.safetensors.index.json"]) == others


# Sentences ------------------------------------------------------------------------------------


def test_architectures_that_cannot_be_had_are_named(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", "llama")
    refused(edited(folder, model_type="llama9"), "architecture 'llama9'.* install a newer")
    refused(edited(folder, model_type="t5", architectures=["T5ForConditionalGeneration"]), "t5 mod")
    refused(edited(folder, model_type="own", auto_map={"AutoConfig": "x.Y"}), "code of its own")


def test_a_missing_library_is_named(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", "llama")
    quantised = {"quant_method": "gptq", "bits": 4, "group_size": 32}
    refused(edited(folder, quantization_config=quantised), "(?i)library|gptq")


def test_a_folder_moved_elsewhere_is_the_same_model(tmp_path: Path) -> None:
    one = saved(tmp_path / "one", "llama")
    shutil.copytree(one, tmp_path / "two")
    first, second = (models.identity(models.load(str(tmp_path / n))) for n in ("one", "two"))
    assert first == second
