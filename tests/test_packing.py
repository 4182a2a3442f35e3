"""Models that read several documents in one line, or cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from fusion_core import corpus, models, zoo
from fusion_core.losses import token_losses
from fusion_core.models import LoadedModel
from fusion_core.training import (
    Blocks,
    Collator,
    Positions,
    TextDataset,
    supports_packing,
)

# Models that read them ------------------------------------------------------------------------


@cache
def loaded(name: str) -> LoadedModel:
    return models.load(zoo.PREFIX + name)


@pytest.fixture(params=zoo.NAMES)
def model(request: pytest.FixtureRequest) -> LoadedModel:
    return loaded(request.param)


@cache
def texts() -> list[str]:
    """Draw a short and a longer document of every domain."""
    found = [corpus.text(domain, "test", 1200)[0] for domain in (*corpus.DOMAINS, "mixed")]
    return [text[:n] for text in found for n in (90, 400)]


def blocks_for(model: LoadedModel, size: int = 128) -> Blocks:
    tokenizer = model.tokenizer
    return Blocks(
        TextDataset(tokenizer, texts()),
        size,
        start_id=tokenizer.start_id,
        end_id=tokenizer.eos_id,
    )


@torch.no_grad()
def clm_of(
    model: LoadedModel, blocks: Sequence[list[Positions]], size: int, packed: bool
) -> Tensor:
    """Read a batch as the trainer does: labels apart, all else to the model."""
    batch = Collator(size, model.tokenizer.eos_id, packed)(blocks)
    labels = batch.pop("labels").flatten()
    del batch["shift_labels"]
    logits = model.network(**batch, use_cache=False).logits
    return token_losses(logits.flatten(0, -2), labels).clm.double().sum()


@torch.no_grad()
def mixes(model: LoadedModel) -> float:
    """Read blocks packed, several in a batch, and return the largest change of a logit."""
    blocks = blocks_for(model)
    some = [blocks[i] for i in range(len(blocks))]
    assert max(len(block) for block in some) > 1 and len(some) > 2
    batch = Collator(128, 0)(some)
    given = {name: batch[name] for name in ("input_ids", "position_ids")}
    together = model.network(**given, use_cache=False).logits
    largest, spread = 0.0, 0.0
    for line, block in enumerate(some):
        at = 0
        for piece in block:
            n = len(piece.inputs)
            alone = model.network(input_ids=piece.inputs[None], use_cache=False).logits[0]
            largest = max(largest, float((alone - together[line, at : at + n]).abs().max()))
            spread = max(spread, float(alone.std()))
            at += n
    return largest / spread


def test_what_is_said_of_a_model_is_so(model: LoadedModel) -> None:
    change = mixes(model)
    assert change < 1e-3 or change > 0.1  # no doubt about it
    assert supports_packing(model) == (change < 1e-3)


def test_llama_reads_packed_and_alibi_does_not() -> None:
    assert supports_packing(loaded("llama"))
    assert mixes(loaded("llama")) < 1e-4
    assert not supports_packing(loaded("mpt-code"))


def test_narrow_weights_are_no_reason_to_read_apart() -> None:
    # rounding differs with the shape of a batch; documents are still told apart
    assert supports_packing(models.load("zoo:llama", dtype="bfloat16"))


def test_the_layout_does_not_change_the_loss(model: LoadedModel) -> None:
    blocks = blocks_for(model)
    some = [blocks[i] for i in range(len(blocks))]
    apart = clm_of(model, some, 128, packed=False)
    chosen = clm_of(model, some, 128, packed=supports_packing(model))
    assert float(chosen) == pytest.approx(float(apart), rel=1e-4)
    if not supports_packing(model):
        assert float(clm_of(model, some, 128, packed=True)) != pytest.approx(float(apart), rel=1e-4)


@torch.no_grad()
def test_packed_blocks_lose_what_documents_lose_one_by_one() -> None:
    model = loaded("llama")
    blocks = blocks_for(model, 512)
    assert all(first == 0 for block in blocks.blocks for _, first, _ in block)
    some = [blocks[i] for i in range(len(blocks))]
    assert len(some) < len(texts())
    together = sum(clm_of(model, [block], 512, packed=True) for block in some)
    one_by_one = 0.0
    for text in texts():
        encoding = model.tokenizer.encode(text)
        middle = encoding.ids[encoding.text_tokens].tolist()
        ids = torch.tensor([[model.tokenizer.start_id, *middle, model.tokenizer.eos_id]])
        loss = model.network(input_ids=ids, labels=ids).loss  # shifted, and a mean
        one_by_one += float(loss) * (ids.shape[1] - 1)
    assert float(together) == pytest.approx(one_by_one, rel=1e-5)
    assert float(clm_of(model, some, 512, packed=True)) == pytest.approx(one_by_one, rel=1e-5)


def test_models_that_cannot_be_asked(model: LoadedModel) -> None:
    assert not supports_packing(replace(model, context=8))

    def refuses(**inputs: Tensor) -> SimpleNamespace:
        if "position_ids" in inputs:
            raise TypeError("got an unexpected keyword argument 'position_ids'")
        return model.network(**inputs)

    network = SimpleNamespace(parameters=model.network.parameters)
    assert not supports_packing(replace(model, network=_Called(refuses, network)))


class _Called:
    """A network with another forward pass."""

    def __init__(self, forward, network) -> None:
        self._forward, self.parameters = forward, network.parameters

    def __call__(self, **inputs: Tensor) -> SimpleNamespace:
        return self._forward(**inputs)
