"""Models as people have them: contexts, caches, memory, vocabularies of 262,144 tokens.

Each test names the public report of somebody who was led astray by the like.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import TEXT, large_vocabulary, saved

from fusion_core import compare, fuse, generation, mapping, models, numerics
from fusion_core.align import by_bytes
from fusion_core.config import Truncation
from fusion_core.errors import ModelFormatError
from fusion_core.generation import Ensemble
from fusion_core.project import project_rows
from fusion_core.reading import read
from fusion_core.records import DenseRows, NextTokenRows, RowKind

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
    score = compare.bits_per_byte([model], [TEXT * 9])[model.name]
    assert np.isfinite(score["bits_per_byte"])


@pytest.mark.parametrize("kind", ["mistral", "gemma3_text", "gpt_oss", "phi3"])
def test_a_sliding_window_that_has_moved_on_is_read_anew(tmp_path: Path, kind: str) -> None:
    model = models.load(saved(tmp_path / kind, kind, sliding_window=32))
    reader = generation.Reader(model)
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
    reader = generation.Reader(model)
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
        next(generation.stream(Ensemble(model), "the cat"))


# Memory ---------------------------------------------------------------------------------------
# NVIDIA-NeMo/RL issue 2882 and EvolvingLMMs-Lab/LongVA pull request 19: logits of large
# vocabularies


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mamba"])
def test_windows_and_batches_are_bounded_by_memory(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models.load(saved(tmp_path / kind, kind))
    assert model.window == (model.context or models.WINDOW_CELLS // 300)
    monkeypatch.setattr("fusion_core.models.loaded.WINDOW_CELLS", 20 * model.tokenizer.size)
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
    next(generation.stream(Ensemble(model), "the cat sat " * 30))
    assert max(shapes) <= 2 * generation.BACK


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
