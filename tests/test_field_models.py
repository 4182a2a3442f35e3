"""Models as people have them: files that are not whole, encoders, several ends of text.

Each test names the public report of somebody who was led astray by the like.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import TEXT, byte_bpe, config, large_vocabulary, network, saved
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    GenerationConfig,
)

from fusion_core import compare, fuse, generate, mapping, models, numerics, pipeline
from fusion_core.align import by_bytes
from fusion_core.cli import main
from fusion_core.config import FusionConfig, Truncation
from fusion_core.errors import FusionError, InputError, ModelFormatError
from fusion_core.generate import Ensemble, Sampling
from fusion_core.models import LoadedModel, document_tokens
from fusion_core.project import project_rows
from fusion_core.reading import read
from fusion_core.records import DenseRows, NextTokenRows, RowKind


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


# Contexts -------------------------------------------------------------------------------------
# huggingface/transformers issue 14243 (RoBERTa's table of positions is two longer than its context)


@pytest.mark.parametrize(
    ("kind", "more", "context"),
    [
        ("roberta", {}, 62),
        ("xlm-roberta", {}, 62),
        ("camembert", {"pad_token_id": 5}, 58),
        ("data2vec-text", {}, 62),
        ("bert", {}, 64),
        ("gpt2", {}, 64),
        ("opt", {}, 64),
        ("bart", {}, 64),
        ("xglm", {}, 64),
        ("ctrl", {}, 64),
        ("llama", {}, 64),
        ("whisper", {"max_target_positions": 40}, 40),
        ("mamba", {}, None),
    ],
)
def test_a_context_is_what_the_network_can_read(
    tmp_path: Path, kind: str, more: dict[str, Any], context: int | None
) -> None:
    model = models.load(saved(tmp_path / kind, kind, **more))
    assert model.context == context
    ids = torch.full((1, context or 200), 7)
    with torch.no_grad():
        model.network(input_ids=ids)  # the oracle: it can be read …
    if kind in ("roberta", "xlm-roberta", "camembert", "data2vec-text", "gpt2", "whisper"):
        with pytest.raises((IndexError, RuntimeError, ValueError)), torch.no_grad():
            model.network(input_ids=torch.full((1, (context or 0) + 1), 7))  # … and no more
    score = pipeline.bits_per_byte([model], [TEXT * 9])[model.name]
    assert np.isfinite(score["bits_per_byte"])


@pytest.mark.parametrize("kind", ["mistral", "gemma3_text", "gpt_oss", "phi3"])
def test_a_sliding_window_that_has_moved_on_is_read_anew(tmp_path: Path, kind: str) -> None:
    model = models.load(saved(tmp_path / kind, kind, sliding_window=32))
    reader = generate.Reader(model)
    own = model.tokenizer.encode(TEXT * 3).ids.tolist()[:50]
    reader.row(own)
    changed = [*own[:-1], 7]
    ids = torch.tensor([[model.tokenizer.start_id, *changed]])
    with torch.no_grad():
        expected = torch.softmax(model.network(input_ids=ids, use_cache=False).logits[0, -1], 0)
    assert torch.allclose(reader.row(changed), expected[: model.tokenizer.size], atol=1e-5)


@pytest.mark.parametrize("kind", ["jamba", "bamba", "qwen3_next", "recurrent_gemma", "moshi"])
def test_states_that_cannot_be_cut_back_are_not(tmp_path: Path, kind: str) -> None:
    model = models.load(saved(tmp_path / kind, kind))
    support = models.cache_support(model.network, model.tokenizer)
    assert not support.crops and support.step in (0, 1, 1 << 30)
    reader = generate.Reader(model)
    for own in ([5, 6, 7, 8, 9, 10], [5, 6, 7, 8, 9, 11], [5, 6, 7], [5, 6, 7, 12]):
        ids = torch.tensor([[model.tokenizer.start_id, *own]])
        with torch.no_grad():
            expected = torch.softmax(model.network(input_ids=ids, use_cache=False).logits[0, -1], 0)
        assert torch.allclose(reader.row(own), expected[: model.tokenizer.size], atol=1e-5)


def test_what_really_happened_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.load(saved(tmp_path / "m", "llama"))

    def fails(**_: Any) -> None:
        raise IndexError("index out of range in self")

    monkeypatch.setattr(model.network, "forward", fails)
    with pytest.raises(ModelFormatError, match=r"failed to read \d+ tokens \(IndexError: index"):
        models.read_rows(model, model.tokenizer.encode("the cat"))
    with pytest.raises(ModelFormatError, match="IndexError"):
        next(generate.stream(Ensemble(model), "the cat"))


# Memory ---------------------------------------------------------------------------------------
# NVIDIA-NeMo/RL issue 2882 and EvolvingLMMs-Lab/LongVA pull request 19: logits of large
# vocabularies


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mamba"])
def test_windows_and_batches_are_bounded_by_memory(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models.load(saved(tmp_path / kind, kind))
    assert model.window == (model.context or models.load.__globals__["WINDOW_CELLS"] // 300)
    monkeypatch.setitem(models.load.__globals__, "WINDOW_CELLS", 20 * model.tokenizer.size)
    monkeypatch.setattr("fusion_core.models.rows.BATCH_CELLS", 50 * model.tokenizer.size)
    shapes: list[tuple[int, ...]] = []
    forward = model.network.forward

    def counted(*args: Any, **options: Any) -> Any:
        shapes.append(tuple(options["input_ids"].shape))
        return forward(*args, **options)

    monkeypatch.setattr(model.network, "forward", counted)
    for window in read(TEXT * 4, model).windows:
        assert len(window.rows[0].rows) <= 20
    assert max(b * n for b, n in shapes) <= 50 and max(b for b, _ in shapes) > 1


def test_a_long_prompt_makes_no_logits_but_the_last(tmp_path: Path) -> None:
    model = models.load(saved(tmp_path / "m", "llama", max_position_embeddings=512))
    models.cache_support(model.network, model.tokenizer)  # reads some tokens of its own
    shapes: list[int] = []
    model.network.lm_head.register_forward_hook(lambda m, i, out: shapes.append(out.shape[1]))
    next(generate.stream(Ensemble(model), "the cat sat " * 30))
    assert max(shapes) <= 2 * generate.BACK


SHORT = """
import resource, sys
sys.path.insert(0, {root!r})
from fusion_core import models
from fusion_core.errors import TooLargeError
model = models.load({folder!r})
encoding = model.tokenizer.encode("the cat sat on the mat " * 40)
used = int(open("/proc/self/statm").read().split()[0]) * 4096
whole = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (used + 30_000_000, whole[1]))
try:
    models.read_rows(model, encoding)
except TooLargeError as error:
    resource.setrlimit(resource.RLIMIT_AS, whole)
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are Linux's")
@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neox"])
def test_memory_that_runs_out_is_told_from_a_fault(tmp_path: Path, kind: str) -> None:
    size = {"max_position_embeddings": 512, "n_positions": 512}
    folder = saved(tmp_path / kind, kind, vocab_size=200_000, **size)
    code = SHORT.format(root=str(Path(__file__).parent.parent), folder=folder)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ran out of memory on" in ran.stdout, ran.stderr[-2000:]


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
    refused(str(tmp_path), "which is not there")
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


# Document tokens ------------------------------------------------------------------------------
# huggingface/evaluate pull request 682 (no BOS), EleutherAI/lm-evaluation-harness pull request 1465
# (perplexity with and without it)

CHAT = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}


def chat_tokenizer() -> Any:
    """A tokenizer whose BOS opens a turn of a chat, beside a separator of documents."""
    tokenizer = byte_bpe(**CHAT)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|endoftext|>"]})
    return tokenizer


def taught(folder: Path, kind: str, begin: str, *, tokenizer: Any = None) -> str:
    """Save a model that has read the probe's documents after one token, and turns after BOS."""
    tokenizer = tokenizer or chat_tokenizer()
    made = network(kind, len(tokenizer), hidden_dropout_prob=0.0)
    start, turn = (tokenizer.convert_tokens_to_ids(t) for t in (begin, "<|im_start|>"))
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    lines = [[start, *tokenizer(text)["input_ids"], end][:60] for text in document_tokens.PROBE]
    lines += [[turn, *tokenizer("user\nhello there, one two three four")["input_ids"]]]
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-2)
    made.train()
    for _ in range(40):
        loss = sum(made(input_ids=i, labels=i).loss for i in (torch.tensor([x]) for x in lines))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return saved(folder, made.eval(), tokenizer)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
def test_the_start_of_a_chat_model_is_measured(tmp_path: Path, kind: str, capsys) -> None:
    folder = taught(tmp_path / "chat", kind, "<|endoftext|>")
    model = models.load(folder)
    around = model.around_documents
    assert around["start"] == "<|endoftext|>" and around["how"] == "measured"
    assert around["end"] == ["<|endoftext|>", "<|im_end|>"]
    named = models.load(folder, start="<|im_start|>", end="<|im_end|>")
    assert named.around_documents == {
        "start": "<|im_start|>", "end": ["<|im_end|>", "<|endoftext|>"], "how": "named",
    }  # fmt: skip
    document = document_tokens.PROBE[0]
    ours, theirs = (pipeline.bits_per_byte([m], [document])[folder] for m in (model, named))
    assert ours["bits_per_byte"] < theirs["bits_per_byte"]
    (tmp_path / "t.txt").write_text(document)
    asked = ["evaluate", "--json", "--text-file", str(tmp_path / "t.txt"), "--model", folder]
    assert main([*asked, "--model", f"{folder}?start=<|im_start|>"]) == 0
    told = json.loads(capsys.readouterr().out)["models"]
    assert [m["start"] for m in told.values()] == ["<|endoftext|>", "<|im_start|>"]
    assert main([*asked, "--start", "none", "--end", "<|im_end|>"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["models"].values()
    assert (told["start"], told["end"][0], told["how"]) == (None, "<|im_end|>", "named")
    assert np.isfinite(told["bits_per_byte"])


def test_a_start_that_serves_stays(tmp_path: Path) -> None:
    for kind in ("llama", "gpt2", "qwen2"):
        model = models.load(taught(tmp_path / kind, kind, "<|im_start|>"))
        assert model.around_documents["start"] == "<|im_start|>"


def test_toys_and_random_models_keep_what_is_stated(testdata: Path) -> None:
    names = [f"zoo:{n}" for n in ("llama", "neox-reason", "gpt2-story", "mpt-code")]
    names += [str(testdata / "models" / n) for n in ("stories260K", "babyllama-tok105")]
    for name in names:
        model = models.load(name)
        assert model.tokenizer.start_id == models.load_tokenizer(name).start_id


@pytest.mark.parametrize("name", ["zoo:llama?start=nix", "zoo:llama?end=nix", "zoo:llama?start=a"])
def test_a_token_that_is_not_there_or_that_is_text(name: str) -> None:
    for load in (models.load, models.load_tokenizer):
        with pytest.raises(InputError, match="has no control token"):
            load(name)


@pytest.mark.parametrize("name", ["gpt2", "llama-2-7b-fast", "mistral-7b-v0.1", "qwen1.5"])
def test_none_is_no_word(real_tokenizer, tmp_path: Path, name: str) -> None:
    tokenizer = real_tokenizer(name)  # each has a token "none"
    assert any(own in (b"none", b" none") for own in tokenizer.bytes_of)
    assert document_tokens.token_of(tokenizer, "none") is None
    silent = tokenizer.with_document_tokens(None, tokenizer.end_ids)
    models.record(tmp_path, silent)
    again = document_tokens.recorded(tmp_path, tokenizer)
    assert again is not None and (again.start, again.ends) == (None, tokenizer.end_ids)


@pytest.mark.parametrize("name", ["m?", "m?x=1", "m?start=", "m?start=a&start=b", "m?a"])
def test_names_with_something_else_behind(name: str) -> None:
    with pytest.raises(FusionError, match="is no model name"):
        models.split_name(name)


def test_names_part_before_what_they_ask_for(tmp_path: Path) -> None:
    asked = {"start": "<|a|>", "end": "b&c=d"}
    assert models.split_name("o/m?start=<|a|>&end=b&c=d") == ("o/m", asked)
    odd = saved(tmp_path / "what?start=this", "llama")  # a folder goes before
    assert models.find(odd).path == Path(odd) and models.load(odd).name == odd


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
@pytest.mark.parametrize("strategy", ["prefix", "exact", "ot"])
def test_models_of_one_tokenizer_that_end_texts_differently(
    tmp_path: Path, kind: str, strategy: str
) -> None:
    # a base model and its chat model: ids mean the same, only what ends a text is moved
    source = with_ends(tmp_path / "chat", kind, [300])
    target = models.load(source.name, end="<end_of_turn>")
    target = replace(target, name="base", tokenizer=source.tokenizer.with_document_tokens(0, [301]))
    chat = replace(source, tokenizer=source.tokenizer.with_document_tokens(0, [300]))
    assert chat.tokenizer.vocabulary_key == target.tokenizer.vocabulary_key
    score = compare.transfer(target, chat, [TEXT], FusionConfig(strategy=strategy))[strategy]
    assert score["transfer_ce"] == pytest.approx(score["native_ce"], abs=1e-4)
    assert score["kept_mass"] == pytest.approx(1, abs=1e-5)
    (window,) = read(TEXT, target, chat).project(strategy).windows
    native = [rows.dense.probs[:-1] for rows in window.reading.rows]
    projected = window.rows[0].probs(native[0])
    assert torch.allclose(projected[:, 301], native[1][:, 300] + native[1][:, 301], atol=1e-6)
    assert float(projected[:, 300].max()) < 1e-6


def test_two_names_of_one_model_in_one_process(tmp_path: Path) -> None:
    model = with_ends(tmp_path / "m", "llama", [0, 300])
    target = models.load("zoo:llama")
    other = models.load(model.name, end="<end_of_turn>")
    first, second = (
        mapping.mapping_between(m.tokenizer, target.tokenizer, "prefix") for m in (model, other)
    )
    assert first is not second
    assert mapping.mapping_between(model.tokenizer, target.tokenizer, "prefix") is first


def test_a_cache_of_rows_with_stated_tokens_is_known_by_the_same_identity(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", "llama")
    model = models.load(folder)
    assert models.identity(model)["tokenizer"] == model.tokenizer.key
    other = models.load(folder, end="<pad>")
    assert models.identity(other)["tokenizer"] != model.tokenizer.key


def test_without_a_start_every_model_is_scored_on_the_same_bytes() -> None:
    # a first piece without width had made the sum no number
    names = ["zoo:llama?start=none", "zoo:gpt2-story?start=none", "zoo:neox-reason?start=none"]
    scores = pipeline.bits_per_byte([models.load(n) for n in names], ["Tom took a ball. He ran."])
    assert all(np.isfinite(s["bits_per_byte"]) for s in scores.values())
    assert len({s["bytes"] for s in scores.values()}) == 1


def test_what_a_model_was_trained_with_is_kept_beside_it(tmp_path: Path) -> None:
    folder = taught(tmp_path / "chat", "llama", "<|endoftext|>")
    named = models.load(folder, start="<|im_start|>", end="<|im_end|>")
    models.record(Path(folder), named.tokenizer)
    again = models.load(folder).around_documents
    assert (again["start"], again["how"]) == ("<|im_start|>", "recorded")
    for broken in ("", "[]", '{"start": 3}', '{"start": "<gone>", "end": []}'):
        Path(folder, "fuselab.json").write_text(broken)
        assert models.load(folder).around_documents["how"] == "measured"


# Several ends of text -------------------------------------------------------------------------
# vllm-project/vllm issue 4180 (Llama 3 writes on after <|eot_id|>), oobabooga/textgen issue 5885


def with_ends(folder: Path, kind: str, ends: list[int]) -> LoadedModel:
    """Load a random model whose generation ends with any of several tokens."""
    tokenizer = byte_bpe()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|eot|>", "<end_of_turn>"]})
    made = network(kind, len(tokenizer))
    made.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=1)
    return models.load(saved(folder, made, tokenizer))


@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "gpt2", "mistral"])
def test_text_ends_where_the_library_ends_it(tmp_path: Path, kind: str) -> None:
    model = with_ends(tmp_path / kind, kind, [0, 300, 301])
    assert model.tokenizer.end_ids == (0, 300, 301)
    ended = 0
    for token in (0, 300, 301):
        likely(model, token)
        for prompt in ("the cat", "a small boat", "one two"):
            ids = torch.tensor([[0, *model.tokenizer.encode(prompt).ids.tolist()]])
            theirs = model.network.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24
            )[0, ids.shape[1] :].tolist()
            sampling = Sampling(max_new_tokens=24, temperature=0)
            steps = list(generate.stream(Ensemble(model), prompt, sampling))
            silent = {i for i in theirs if not model.tokenizer.bytes_of[i]} - {0, 300, 301}
            if not silent:  # control tokens that end nothing are written by the library alone
                assert [s.token for s in steps] == theirs
                ended += steps[-1].end == "end of text"
    assert ended


def likely(model: LoadedModel, *tokens: int) -> None:
    """Make a random model give some tokens more probability everywhere."""
    old = model.network.get_output_embeddings()
    head = torch.nn.Linear(old.in_features, old.out_features)
    with torch.no_grad():
        head.weight.copy_(old.weight)
        head.bias.zero_()[list(tokens)] = 4.0
    model.network.set_output_embeddings(head)


def test_documents_that_sources_write_end_there_too(tmp_path: Path) -> None:
    model = with_ends(tmp_path / "m", "llama", [0, 300])
    likely(model, 300)
    texts = generate.write_documents([model], 300, seed=1)
    assert texts and not any("<|eot|>" in t for t in texts)
    assert max(len(t) for t in texts) < 300, "none runs on behind its end"


@pytest.mark.parametrize("penalty", [{"repetition_penalty": 9.0}, {"min_p": 0.5}, {"top_k": 1}])
def test_documents_are_drawn_from_the_rows_alone(
    tmp_path: Path, penalty: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # published generation_config.json files ask for such, which would bias what is drawn
    model = with_ends(tmp_path / "m", "llama", [0, 300])
    likely(model, 300)
    monkeypatch.setattr("fusion_core.generate.documents.AT_ONCE", 8)
    plain = generate.write_documents([model], 300, seed=1)
    model.network.generation_config.update(do_sample=True, **penalty)
    assert generate.write_documents([model], 300, seed=1) == plain
    assert all(getattr(model.network.generation_config, k) == v for k, v in penalty.items())


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma3_text"])
def test_the_mass_of_every_end_reaches_the_targets_ends(tmp_path: Path, kind: str) -> None:
    source = with_ends(tmp_path / "s", kind, [0, 300])
    target = models.load("zoo:llama")
    relation = mapping.PrefixRelation(source.tokenizer, target.tokenizer)
    pairs = relation.conditioned_on()
    goes = {
        (int(pairs.candidates[s]), int(t))
        for s, t in zip(pairs.edge_source, pairs.edge_target, strict=True)
    }
    end = target.tokenizer.eos_id
    assert {(0, end), (300, end)} <= goes and (301, end) not in goes
    back = mapping.PrefixRelation(target.tokenizer, source.tokenizer).conditioned_on()
    to = {int(t) for s, t in zip(back.edge_source, back.edge_target, strict=True) if s == end}
    assert to == {0, 300}
    found = pipeline.next_characters(read("the cat", source), [7])[0]
    encoding = source.tokenizer.encode("the cat")
    row = models.read_rows(source, encoding).dense.probs[-1]
    assert float(found.end[0]) == pytest.approx(float(row[0] + row[300]), abs=1e-6)


def test_ends_that_are_letters_here_do_not_count(tmp_path: Path) -> None:
    # LlamaConfig's own default, 2, is a letter in most vocabularies of one's own
    made = network("llama", eos_token_id=2)
    model = models.load(saved(tmp_path / "m", made))
    assert model.tokenizer.end_ids == (0,) and model.tokenizer.bytes_of[2]


# Large vocabularies ---------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [0.3, 3.0, 9.0])
def test_rows_of_262144_tokens_sum_to_one(spread: float) -> None:
    logits = spread * torch.randn(6, 262_144, generator=torch.manual_seed(0)) + 5
    logprobs = numerics.log_softmax(logits)
    exact = torch.log_softmax(logits.double(), dim=1)
    assert float((logprobs.double().exp().sum(1) - 1).abs().max()) < 1e-6
    assert torch.allclose(logprobs.double(), exact, atol=1e-5)
    index = torch.arange(6).repeat_interleave(262_144)
    total = numerics.index_sum(6, index, logprobs.exp().reshape(-1))
    assert float((total - 1).abs().max()) < 1e-6


LETTERS = "".join(map(chr, range(0x20, 0x61)))


@pytest.mark.parametrize(
    ("strategy", "cut"),
    [
        ("prefix", None),
        ("prefix", Truncation(top_k=50)),
        ("exact", None),
        ("retokenise", Truncation(top_p=0.999)),
        ("ot", None),
    ],
)
def test_carried_over_and_fused_rows_sum_to_one_in_large_vocabularies(
    strategy: str, cut: Truncation | None
) -> None:
    source, target = large_vocabulary("abcdefghijklmnopqrstu ", 4), large_vocabulary(LETTERS, 3)
    text = "abba cab aab dad bee fab"
    encodings = [t.encode(text) for t in (target, source)]
    rows = []
    for n, (tokenizer, encoding) in enumerate(zip((target, source), encodings, strict=True)):
        size = len(encoding.text_tokens) + 1
        drawn = torch.randn(size, tokenizer.size, generator=torch.manual_seed(n))
        logprobs = numerics.log_softmax(3 * drawn)
        kept: Any = DenseRows(logprobs)
        if n and cut is not None:
            kept = models.truncate_rows(logprobs, cut)
        observed = torch.as_tensor(np.append(encoding.ids[encoding.text_tokens], 0))
        nats = logprobs.gather(1, observed[:, None])[:, 0]
        rows.append(NextTokenRows(str(n), kept, observed, nats, encoding.row_bytes))
    pairs = mapping.mapping_between(source, target, strategy)
    projected = project_rows(rows[1], rows[0], by_bytes(*encodings), pairs)
    whole = projected.probs(rows[0].dense.probs[:-1])
    assert set(projected.kind.tolist()) & {int(RowKind.SHARED)}
    assert float((whole.double().sum(1) - 1).abs().max()) < 1e-5
    assert float(projected.kept.max()) <= 1
    for operator in fuse.OPERATORS:
        fused = fuse.fuse_rows(
            [projected, projected], rows[0], [1.0, 2.0], operator=operator, level="token",
            top_k=target.size,
        )  # fmt: skip
        total = fused.rows.probs.double().sum(1) + fused.rows.tail.double()
        assert float((total - 1).abs().max()) < 1e-5, operator


# Real models ----------------------------------------------------------------------------------


@pytest.mark.real
def test_real_models_start_with_what_serves_them(real_models: Path) -> None:
    smollm = models.load(str(real_models / "smollm2-135m")).around_documents
    assert (smollm["start"], smollm["how"]) == ("<|endoftext|>", "measured")
    assert set(smollm["end"]) == {"<|endoftext|>", "<|im_end|>"}
    gemma = models.load(str(real_models / "gemma3-270m")).around_documents
    assert gemma["start"] == "<bos>" and "<eos>" in gemma["end"]


@pytest.mark.real
@pytest.mark.parametrize("name", ["smollm2-135m", "gemma3-270m"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_caches_of_real_models_are_used(real_models: Path, name: str, dtype: str) -> None:
    model = models.load(str(real_models / name), dtype=dtype)
    support = models.cache_support(model.network, model.tokenizer)
    assert support.step > 1 and support.crops


def test_a_folder_moved_elsewhere_is_the_same_model(tmp_path: Path) -> None:
    one = saved(tmp_path / "one", "llama")
    shutil.copytree(one, tmp_path / "two")
    first, second = (models.identity(models.load(str(tmp_path / n))) for n in ("one", "two"))
    assert first == second
