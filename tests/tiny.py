"""Tiny tokenizers and random models of any architecture, made in the process."""

from __future__ import annotations

import inspect
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast

from fusion_core.tokens import TextTokenizer

CORPUS = (
    "the cat sat on the mat and the dog ran to the park",
    "a small boat sailed over the blue sea",
    "def add(a, b):\n    return a + b\n",
    "one two three four five six seven eight nine ten",
    'She said: "hello there", and then went home.',
    "naïve café résumé",
)
TEXT = "the cat ran over the mat, and then: def add(a, b) — café"

SMALL: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embed_dim"), 32),
    **dict.fromkeys(("word_embed_proj_dim", "moe_intermediate_size"), 32),
    **dict.fromkeys(("shared_expert_intermediate_size", "shared_intermediate_size"), 32),
    **dict.fromkeys(("intermediate_size", "n_inner", "dff", "ffn_dim", "d_ff"), 64),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "ffn_hidden_size"), 64),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 2),
    **dict.fromkeys(("decoder_layers", "num_key_value_heads", "encoder_attention_heads"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "num_experts", "num_local_experts"), 4),
    **dict.fromkeys(("n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk"), 2),
    **dict.fromkeys(("head_dim", "kv_channels", "sliding_window"), 8),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"), 64),
    **dict.fromkeys(("initializer_range", "init_std"), 0.2),
    "encoder_layers": 1,
}
"""Sizes under the names that configurations have for them."""

DECODERS = {"is_decoder": True, "pad_token_id": 1}
LATENT = {
    **dict.fromkeys(("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "head_dim"), 8),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    "num_key_value_heads": 4,
}
GROUPED = LATENT | {"n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
STATES = {
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_expand": 2,
    "mamba_d_state": 16,
    "mamba_n_groups": 1,
}
HYBRID = {"layer_types": ["linear_attention", "full_attention"]}
SPECIAL: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("bert", "bert-generation", "electra", "megatron-bert", "ernie"), DECODERS),
    **dict.fromkeys(("roberta", "camembert", "data2vec-text", "xlm-roberta"), DECODERS),
    **dict.fromkeys(("roberta-prelayernorm", "xlm-roberta-xl", "rembert", "roformer"), DECODERS),
    **dict.fromkeys(("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text", "qwen4_exp_text"), HYBRID),
    **dict.fromkeys(("minicpm3", "youtu"), LATENT),
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "glm4_moe_lite", "axk1"), GROUPED),
    "dots1": {"n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "n_shared_experts": 1},
    "mamba2": {"num_heads": 8, "state_size": 16, "n_groups": 1, "chunk_size": 16},
    "bamba": STATES | {"attn_layer_indices": [1]},
    "granitemoehybrid": STATES | {"layer_types": ["mamba", "attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
    "gptj": {"rotary_dim": 8},
    "codegen": {"rotary_dim": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "modernbert-decoder": {"pad_token_id": 0},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
}
"""What some architectures need besides."""


@cache
def _byte_bpe(size: int) -> str:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|endoftext|>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    backend.train_from_iterator(CORPUS * 4, trainer)
    return backend.to_str()


def byte_bpe(size: int = 300, **options: Any) -> PreTrainedTokenizerFast:
    """Train a small byte-level BPE; token 0 begins and ends documents, token 1 pads."""
    given = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<pad>"}
    backend = Tokenizer.from_str(_byte_bpe(size))
    return PreTrainedTokenizerFast(tokenizer_object=backend, **given | options)


@cache
def large_vocabulary(letters: str, longest: int, size: int = 262_144) -> TextTokenizer:
    """Make a tokenizer of all strings of some letters, up to a length and a size."""
    strings = ("".join(s) for n in range(1, longest + 1) for s in product(letters, repeat=n))
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((s, -(len(s) ** 0.5)) for s in strings)][:size]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0))
    backend.add_special_tokens(["</s>"])
    return TextTokenizer(backend, f"large-{len(letters)}", start_id=1, eos_id=1)


def config(kind: str, vocab_size: int = 300, **more: Any) -> Any:
    """Make a tiny configuration of an architecture, named by its model type."""
    made = CONFIG_MAPPING[kind]
    known = set(vars(made())) | set(inspect.signature(made.__init__).parameters)
    known |= set(getattr(made, "attribute_map", {}))
    given = {k: v for k, v in SMALL.items() if k in known}
    given |= {"vocab_size": vocab_size, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
    return made(**given | SPECIAL.get(kind, {}) | more)


def network(kind: str, vocab_size: int = 300, seed: int = 0, **more: Any) -> Any:
    """Make a random causal language model of an architecture."""
    torch.manual_seed(seed)
    transformers.logging.set_verbosity_error()
    return AutoModelForCausalLM.from_config(config(kind, vocab_size, **more)).eval()


def saved(
    folder: Path, model: Any = "llama", tokenizer: Any = None, seed: int = 0, **more: Any
) -> str:
    """Save a model, or one of an architecture, with a tokenizer, and name the folder."""
    tokenizer = byte_bpe() if tokenizer is None else tokenizer
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model, str):
        model = network(model, more.pop("vocab_size", len(tokenizer)), seed, **more)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return str(folder)
