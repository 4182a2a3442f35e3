"""Documents that are written many at once, against the plain forward pass of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import byte_bpe, network
from tokenizers import Tokenizer

from fusion_core.generation import batched, documents
from fusion_core.generation.batched import continue_batch
from fusion_core.models import LoadedModel
from fusion_core.tokens import TextTokenizer
from fusion_core.training.stream import KeptBatches

LONGEST = 40
MIXED = {"layer_types": ["sliding_attention", "full_attention"]}


def loaded(kind: str, start: int | None = 0, ends: tuple[int, ...] = (1, 5, 9), **more: Any) -> Any:
    """Make a random model that ends a document about every thirty tokens."""
    made = network(kind, 300, **more)
    head = made.get_output_embeddings()
    bias = torch.nn.Linear(head.in_features, head.out_features)
    with torch.no_grad():
        bias.weight.copy_(head.weight)
        bias.bias.zero_()[list(ends)] = 1.5
    made.set_output_embeddings(bias)
    backend = Tokenizer.from_str(byte_bpe().backend_tokenizer.to_str())
    tokenizer = TextTokenizer(backend, kind, start_id=start, eos_id=ends[0])
    tokenizer = tokenizer.with_document_tokens(start, ends)
    return LoadedModel(kind, tokenizer, made, 64, 1)


@torch.inference_mode()
def plainly(
    model: LoadedModel, prompts: list[np.ndarray], seed: int, temperature: float = 1.0
) -> list[tuple[list[int], bool]]:
    """Write each document by itself, by whole forward passes and draws as the definition has it."""
    start = model.tokenizer.start_id
    rows = [([] if start is None else [start]) + p.tolist() for p in prompts]
    draws = torch.Generator().manual_seed(seed)
    ended = [False] * len(rows)
    lengths = [len(r) for r in rows]
    for place in range(min(lengths), LONGEST):
        uniform = torch.rand(len(rows), generator=draws, dtype=torch.float64).tolist()
        for n, row in enumerate(rows):
            if ended[n] or place < lengths[n]:
                continue
            logits = model.network(input_ids=torch.tensor([row]), use_cache=False).logits[0, -1]
            probs = torch.softmax(logits.double() / temperature, 0).tolist()
            total, token = 0.0, -1
            while total <= uniform[n]:
                token += 1
                total += probs[token]
            ended[n] = token in model.tokenizer.end_ids
            if not ended[n]:
                row.append(token)
    return [(r[start is not None :], e) for r, e in zip(rows, ended, strict=True)]


def some_prompts(least: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.integers(10, 300, n) for n in (4, least, 11, 6, 38, least, 2, 5, 9)]


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("llama", {}),
        ("gpt2", {}),
        ("mpt", {}),
        ("gemma3_text", MIXED),
        ("bloom", {}),
        ("mamba", {}),
        ("jamba", {}),
        ("rwkv", {}),
    ],
)
def test_a_batch_is_written_as_each_document_by_itself(kind: str, more: dict[str, Any]) -> None:
    """Padded rows of a batch went on otherwise than alone in huggingface/transformers#18104."""
    model = loaded(kind, **more)
    prompts = some_prompts()
    written = continue_batch(model, prompts, LONGEST, seed=2)
    expected = plainly(model, prompts, 2)
    assert [(w.ids.tolist(), w.ended) for w in written] == expected
    assert sum(w.ended for w in written) > 1


@pytest.mark.parametrize("kind", ["llama", "mpt", "mamba"])
def test_without_a_start_token_and_warmer(kind: str) -> None:
    model = loaded(kind, start=None)
    prompts = some_prompts(least=1)
    written = continue_batch(model, prompts, LONGEST, seed=4, temperature=0.7)
    assert [(w.ids.tolist(), w.ended) for w in written] == plainly(model, prompts, 4, 0.7)


def test_a_row_depends_on_nothing_but_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("llama")
    prompts = some_prompts()
    all_of_them = continue_batch(model, prompts, LONGEST, seed=5)
    monkeypatch.setattr(batched, "DROPPED_SHARE", 10**9)  # whenever one has ended
    again = continue_batch(model, prompts, LONGEST, seed=5)
    few = continue_batch(model, prompts[:3], LONGEST, seed=5)
    texts = [w.ids.tolist() for w in all_of_them]
    assert texts == [w.ids.tolist() for w in again]
    assert [w.ids.tolist() for w in few][:1] != [] and len(few) == 3
    assert texts != [w.ids.tolist() for w in continue_batch(model, prompts, LONGEST, seed=6)]


def test_draws_have_the_probabilities_of_the_row() -> None:
    model = loaded("llama")
    logits = torch.full((1, 300), -torch.inf)
    logits[0, [3, 50, 299]] = torch.tensor([0.5, 0.2, 0.3]).log()
    uniform = torch.tensor([0.0, 0.499, 0.501, 0.699, 0.701, 1.0], dtype=torch.float64)
    drawn = batched.draw(model, logits.expand(6, -1), uniform, 1.0)
    assert drawn.tolist() == [3, 3, 50, 50, 299, 299]
    many = torch.rand(20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    counts = np.bincount(batched.draw(model, logits.expand(20_000, -1), many, 1.0), minlength=300)
    assert np.allclose(counts[[3, 50, 299]] / 20_000, [0.5, 0.2, 0.3], atol=0.015)
    assert counts.sum() == counts[[3, 50, 299]].sum(), "no token without probability is drawn"


def test_documents_break_off_at_a_whole_character(monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("llama", ends=(1,))
    monkeypatch.setattr(documents, "LONGEST", 12)
    prompt = model.tokenizer.encode("café " * 9).ids[:11]
    assert model.tokenizer.text_of(prompt.tolist())
    (written,) = documents.continue_documents(model, [prompt], seed=1) or [None]
    if written is not None:
        assert written.text.startswith("café") and not written.whole


def test_many_rows_take_as_much_memory_as_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("llama")
    assert documents.rows_at_once(model) == documents.AT_ONCE
    monkeypatch.setattr(documents, "KEYS_BYTES", 1 << 17)
    few = documents.rows_at_once(model)
    assert 1 <= few < 10
    prompts = [np.zeros(0, np.int64)] * 25
    written = documents.continue_documents(model, prompts, seed=3)
    assert written == documents.continue_documents(model, prompts, seed=3)


def test_a_kill_costs_a_batch_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written before is read; what follows is as it would have been."""

    def numbers(_: Any, prompts: Any, seed: int, **__: Any) -> list[documents.Written]:
        return [documents.Written(f"{seed} {n}" * 3, n % 4 > 0) for n in range(len(prompts))]

    monkeypatch.setattr(documents, "continue_documents", numbers)
    model = loaded("llama")
    whole = documents.write_documents([model], 4000, seed=3)
    calls, batches = [], KeptBatches(tmp_path)

    def killed(name: str, write: Any) -> list[documents.Written]:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(name)
        return batches(name, write)

    with pytest.raises(KeyboardInterrupt):
        documents.write_documents([model], 4000, seed=3, keep=killed)
    before = {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    assert len(before) == 2
    assert documents.write_documents([model], 4000, seed=3, keep=batches) == whole
    after = {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    assert before.items() <= after.items() and len(after) > 2
