"""What each model of the zoo is made of."""

from collections.abc import Callable
from dataclasses import dataclass

from transformers import (
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MptConfig,
    PreTrainedConfig,
)

CONTEXT = 512
INITIAL = 0.06  # standard deviation; the usual 0.02 is for much wider models and learns slower
SEED = 20240115


@dataclass(frozen=True)
class Recipe:
    """How to make one model.

    Attributes:
        name: its folder.
        family: kind of tokenizer, a key of `vocabularies.FAMILIES`.
        vocabulary: number of tokens.
        vocabulary_mix: share of each domain in the bytes the tokenizer is trained on.
        mix: share of each domain in the documents the model is trained on.
        config: builds the architecture from the number of tokens, the id of the start token or
            None, and the id of the end token.
        steps: optimiser steps.
        learning_rate: its peak.
    """

    name: str
    family: str
    vocabulary: int
    vocabulary_mix: dict[str, float]
    mix: dict[str, float]
    config: Callable[[int, int | None, int], PreTrainedConfig]
    steps: int
    learning_rate: float


def _llama(size: int, bos: int | None, eos: int) -> PreTrainedConfig:
    return LlamaConfig(
        vocab_size=size,
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        initializer_range=INITIAL,
        bos_token_id=bos,
        eos_token_id=eos,
    )


def _neox(size: int, bos: int | None, eos: int) -> PreTrainedConfig:
    return GPTNeoXConfig(
        vocab_size=size,
        hidden_size=144,
        intermediate_size=576,
        num_hidden_layers=5,
        num_attention_heads=4,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "partial_rotary_factor": 1.0,
        },
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        initializer_range=INITIAL,
        bos_token_id=bos,
        eos_token_id=eos,
    )


def _gpt2(size: int, bos: int | None, eos: int) -> PreTrainedConfig:
    return GPT2Config(
        vocab_size=size,
        n_embd=144,
        n_layer=4,
        n_head=4,
        n_positions=CONTEXT,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        initializer_range=INITIAL,
        bos_token_id=bos,
        eos_token_id=eos,
    )


def _mpt(size: int, bos: int | None, eos: int) -> PreTrainedConfig:
    return MptConfig(
        vocab_size=size,
        d_model=144,
        n_layers=5,
        n_heads=4,
        max_seq_len=CONTEXT,
        initializer_range=INITIAL,
        bos_token_id=bos,
        eos_token_id=eos,
    )


EVEN = {"reasoning": 0.25, "commonsense": 0.25, "code": 0.25, "mixed": 0.25}
# Stories are the hardest to learn; functions the easiest, and half of the mixed documents have one.
UNEVEN = {"reasoning": 0.24, "commonsense": 0.38, "code": 0.12, "mixed": 0.26}

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="gpt2-story",
            family="sentencepiece_unigram",
            vocabulary=1300,
            vocabulary_mix={"commonsense": 0.9, "mixed": 0.1},
            mix={"commonsense": 0.9, "mixed": 0.1},
            config=_gpt2,
            steps=1500,
            learning_rate=3e-3,
        ),
        Recipe(
            name="neox-reason",
            family="byte_level_digits",
            vocabulary=800,
            vocabulary_mix={"reasoning": 0.97, "mixed": 0.03},
            mix={"reasoning": 0.97, "mixed": 0.03},
            config=_neox,
            steps=950,
            learning_rate=3e-3,
        ),
        Recipe(
            name="mpt-code",
            family="byte_level_code",
            vocabulary=1000,
            vocabulary_mix={"code": 0.97, "mixed": 0.03},
            mix={"code": 0.97, "mixed": 0.03},
            config=_mpt,
            steps=1250,
            learning_rate=3e-3,
        ),
        Recipe(
            name="llama",
            family="sentencepiece_bpe",
            vocabulary=1400,
            vocabulary_mix=EVEN,
            mix=UNEVEN,
            config=_llama,
            steps=280,
            learning_rate=3e-3,
        ),
    )
}
