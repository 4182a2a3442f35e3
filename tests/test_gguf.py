"""GGUF files: read as what they hold, trained and saved as plain models, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from fusion_core import cli
from fusion_core import models as rooms
from fusion_core.errors import ModelFormatError, ModelNotFoundError

TEXT = "the hills and the houses; the hen sat there, then sang to the sun.\n" * 20
HEADS, WIDTH, LAYERS, WIDE, LONGEST = 4, 32, 2, 64, 64


def write_gguf(path: Path, network: LlamaForCausalLM, tokenizer: Tokenizer) -> None:
    """Write a Llama as llama.cpp's converter does: rotary halves interleaved, names of its own."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(LAYERS)
    writer.add_context_length(LONGEST)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(WIDE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(tokenizer.get_vocab_size())
    content = json.loads(tokenizer.to_str())["model"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(sorted(content["vocab"], key=content["vocab"].get))
    writer.add_token_merges([" ".join(pair) for pair in content["merges"]])
    writer.add_token_types([3, *[1] * (tokenizer.get_vocab_size() - 1)])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    names = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    weights = {k: v.numpy() for k, v in network.state_dict().items()}
    writer.add_tensor("token_embd.weight", weights["model.embed_tokens.weight"])
    writer.add_tensor("output_norm.weight", weights["model.norm.weight"])
    writer.add_tensor("output.weight", weights["lm_head.weight"])
    for layer in range(LAYERS):
        for ours, theirs in names.items():
            value = weights[f"model.layers.{layer}.{ours}.weight"]
            if theirs in ("attn_q", "attn_k"):
                halves = value.reshape(HEADS, 2, WIDTH // HEADS // 2, WIDTH)
                value = np.ascontiguousarray(halves.swapaxes(1, 2).reshape(value.shape))
            writer.add_tensor(f"blk.{layer}.{theirs}.weight", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def network() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=WIDTH,
        intermediate_size=WIDE,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=LONGEST,
        tie_word_embeddings=False,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def file(network: LlamaForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    path = tmp_path_factory.mktemp("gguf") / "tiny model.gguf"
    size = tokenizer.get_vocab_size()
    network.resize_token_embeddings(size)
    write_gguf(path, network, tokenizer)
    return path


def test_it_reads_as_the_weights_that_it_holds(file: Path, network: LlamaForCausalLM) -> None:
    loaded = rooms.load(str(file))
    assert loaded.context == LONGEST and loaded.tokenizer.start_id == 0
    encoding = loaded.tokenizer.encode("the hen sat there")
    assert encoding.lossless
    rows = rooms.read_rows(loaded, encoding).rows.logprobs
    ids = torch.tensor([[0, *encoding.ids[encoding.text_tokens].tolist()]])
    with torch.no_grad():
        expected = network(input_ids=ids).logits[0].log_softmax(-1)
    assert torch.allclose(rows, expected, atol=1e-5)
    other = rooms.load_tokenizer(str(file))
    assert other.key == loaded.tokenizer.key
    assert rooms.identity(loaded)["weights"] != rooms.identity(rooms.load("zoo:llama"))["weights"]


def test_every_command_takes_it(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = ["--target", "zoo:llama", "--source", str(file)]
    assert cli.main(["align", *both, "--text", "the hen", "--json"]) == 0
    assert cli.main(["fuse", *both, "--text", "the hen sat", "--json"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert str(file) in report["bits_per_byte"]


def test_a_trained_one_loads_plainly(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is saved as safetensors, with its own tokenizer, and the card says what it came from."""
    (tmp_path / "data.txt").write_text(TEXT)
    run = {
        "target": str(file),
        "sources": ["zoo:llama"],
        "data": "data.txt",
        "max_steps": 2,
        "block_size": 32,
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    out = tmp_path / "run"
    options = ["train", "--config", str(tmp_path / "run.yaml"), "--out", str(out), "--json"]
    assert cli.main(options) == 0, capsys.readouterr().err
    network = AutoModelForCausalLM.from_pretrained(out / "model")
    tokenizer = AutoTokenizer.from_pretrained(out / "model")
    before = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name)
    moved = [
        not torch.equal(a, b)
        for a, b in zip(network.parameters(), before.parameters(), strict=True)
    ]
    assert any(moved) and getattr(network.config, "quantization_config", None) is None
    expected = rooms.load_tokenizer(str(file)).encode("the hen").ids.tolist()
    assert tokenizer("the hen").input_ids == expected
    assert "dequantised from a GGUF file" in (out / "model" / "README.md").read_text()


@pytest.mark.parametrize("kept", [0, 3, 100, 0.5, -8])
def test_a_broken_one_is_refused(file: Path, tmp_path: Path, kept: float) -> None:
    whole = file.read_bytes()
    part = whole[: int(kept * len(whole)) if isinstance(kept, float) else kept]
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(part)
    with pytest.raises(ModelFormatError, match=r"broken\.gguf"):
        rooms.load(str(broken))


def test_missing_weights_are_named(file: Path, tmp_path: Path) -> None:
    """A tensor under another name is no weight of the network, which is not made up."""
    renamed = tmp_path / "renamed.gguf"
    renamed.write_bytes(file.read_bytes().replace(b"blk.1.ffn_up.weight", b"blk.7.ffn_up.weight"))
    with pytest.raises(ModelFormatError, match=r"renamed\.gguf"):
        rooms.load(str(renamed))


def test_other_names_lead_nowhere(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelNotFoundError):
        rooms.find(str(file.with_name("other.gguf")))
    monkeypatch.setattr("fusion_core.models.names.find_spec", lambda _: None)
    with pytest.raises(ModelFormatError, match="pip install gguf"):
        rooms.find(str(file))
