"""Fixtures: the folder of test data, small tokenizers and models that are made in the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator
from functools import cache
from pathlib import Path

import pytest
import torch
from short_runs import (  # noqa: F401 (fixtures)
    fused_cache,
    sources_cache,
    train_zoo,
    training_texts,
)
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers import models as backends
from visitors import address, chromium, visit  # noqa: F401 (fixtures)

from fusion_core import cli, tokens
from fusion_core.models import LoadedModel
from fusion_core.tokens import TextTokenizer

# Notebooks import the library as if it were installed; here it is the one beside them.
os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)
os.environ.setdefault("FUSELAB_NB_STEPS", "8")  # steps of what trains and writes there

TOKENIZERS = (
    "albert-spiece",
    "bert-base-uncased",
    "falcon",
    "gpt-neox-20b_mpt",
    "gpt2",
    "llama-2-7b",
    "llama-2-7b-fast",
    "llama-3",
    "mistral-7b-v0.1",
    "open_llama_3b-fast",
    "phi-3",
    "qwen1.5",
    "whisper-multilingual",
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Count a skipped test as failed where FUSELAB_NO_SKIPS is set."""
    report = yield
    if report.skipped and os.environ.get("FUSELAB_NO_SKIPS"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and FUSELAB_NO_SKIPS is set: {call.excinfo}"
    return report


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keep what is cached out of the user's folder."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["FUSELAB_CACHE"] = str(folder)
    return folder


def named_folder(variable: str, content: str) -> Path:
    """Return the folder that a variable of the environment names, or skip."""
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"{variable} is not set: it names the folder of {content}")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def testdata() -> Path:
    """Folder of real tokenizers, models and texts."""
    return named_folder("FUSELAB_TESTDATA", "real test data")


@pytest.fixture(scope="session")
def real_models() -> Path:
    """Folder of real pretrained models: smollm2-135m and gemma3-270m."""
    return named_folder("FUSELAB_REAL", "real pretrained models")


@pytest.fixture(scope="session")
def real_tokenizer(testdata: Path) -> Callable[[str], TextTokenizer]:
    """Load a tokenizer of the test data, once a run."""
    return cache(lambda name: tokens.load(testdata / "tokenizers" / name, name))


def launched(*command: str) -> subprocess.CompletedProcess[str]:
    """Run Python in two processes that accelerate starts, as many threads in each as here."""
    config = Path(__file__).parent.parent / "docs" / "accelerate" / "cpu.yaml"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    threads = str(torch.get_num_threads())  # fewer would add up in another order
    ran = subprocess.run(
        [*launch, "--main_process_port", "0", "--no_python", sys.executable, *command],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "passive"},
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran


def sentencepiece(pieces: list[str], merges: list[tuple[str, str]] = ()) -> Tokenizer:
    """Build a Llama-2-like BPE: marker, dummy prefix, byte pieces."""
    vocab = {p: i for i, p in enumerate(["<unk>", "<s>", "</s>"])}
    for piece in [f"<0x{b:02X}>" for b in range(256)] + pieces:
        vocab.setdefault(piece, len(vocab))
    backend = Tokenizer(
        backends.BPE(vocab, list(merges), unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return backend


def byte_level(merges: list[tuple[str, str]] = ()) -> Tokenizer:
    """Build a GPT-2-like BPE with the 256 bytes and the given merges."""
    vocab = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    for left, right in merges:
        vocab.setdefault(left + right, len(vocab))
    backend = Tokenizer(backends.BPE(vocab, list(merges)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|endoftext|>"])
    return backend


def chain(*words: str) -> list[tuple[str, str]]:
    """List merges that build each word from left to right."""
    return list(dict.fromkeys((w[:i], w[i]) for w in words for i in range(1, len(w))))


@pytest.fixture(scope="session")
def tiny_llama_tokenizer() -> TextTokenizer:
    """SentencePiece-like vocabulary of some words."""
    words = ["▁the", "▁cat", "▁sat", "he", "ca", "東", "京", "é", "▁a"]
    letters = list("▁abcdefghijklmnopqrstuvwxyzTH.,\n0123456789東京é")
    merges = chain(*(w for w in words if len(w) > 1))
    pieces = letters + [a + b for a, b in merges]
    return TextTokenizer(sentencepiece(pieces, merges), "tiny-llama", start_id=1, eos_id=2)


@pytest.fixture(scope="session")
def tiny_gpt_tokenizer() -> TextTokenizer:
    """Byte-level vocabulary of some words, cut differently."""
    merges = chain("Ġthe", "the", "Ġca", "ts", "æĿ±", "sat", "Ġs")
    backend = byte_level(merges)
    eos = backend.token_to_id("<|endoftext|>")
    return TextTokenizer(backend, "tiny-gpt", start_id=eos, eos_id=eos)


def tiny_model(tokenizer: TextTokenizer, *, seed: int = 0, extra: int = 3) -> LoadedModel:
    """Build a random Llama for a tokenizer, its head ``extra`` ids wider than the vocabulary."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=tokenizer.size + extra,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.6,
    )
    network = LlamaForCausalLM(config).eval().requires_grad_(False)
    return LoadedModel(tokenizer.name, tokenizer, network, 64, 0)


@pytest.fixture(scope="session")
def tiny_models(
    tiny_llama_tokenizer: TextTokenizer, tiny_gpt_tokenizer: TextTokenizer
) -> tuple[LoadedModel, LoadedModel]:
    """Random models for both small vocabularies."""
    return tiny_model(tiny_llama_tokenizer, seed=1), tiny_model(tiny_gpt_tokenizer, seed=2)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict]:
    """Run a command with --json in this process, and parse what it printed."""

    def call(*arguments: str) -> dict:
        assert cli.main([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return call
