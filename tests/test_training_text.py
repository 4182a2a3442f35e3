"""The text on which a training without eval_data is measured: the documents, not their tokens.

A tokenizer that folds case, composes characters or knows no word for one spells another text than
was read; its bits per byte are of that other text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers import models as backends
from training_checks import run, settings
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from fusion_core import models
from fusion_core.cache import Cache, building, first_texts
from fusion_core.config import FusionConfig
from fusion_core.training import Callbacks, train_pairwise
from fusion_core.training.data import REBUILT_TEXT, TRAINING_TEXT

TEXTS = [
    "The CAT sat on the ﬁrst mat, № 5",
    "A Dog RAN to ｔｈｅ café, 300 K in İzmir",
    "one TWO three zebra",
]


def normalized(normalizer: Any) -> PreTrainedTokenizerFast:
    made = tiny.byte_bpe()
    made.backend_tokenizer.normalizer = normalizer
    return made


def words() -> PreTrainedTokenizerFast:
    """Make a tokenizer of whole words, most of which it does not know."""
    known = ["<s>", "[UNK]", *sorted({w for text in tiny.CORPUS for w in text.split()})]
    backend = Tokenizer(backends.WordPiece({w: i for i, w in enumerate(known)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece()
    special = {"bos_token": "<s>", "eos_token": "<s>", "unk_token": "[UNK]"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


LOSSY: dict[str, tuple[str, Callable[[], PreTrainedTokenizerFast]]] = {
    "lower case": ("llama", lambda: normalized(normalizers.Lowercase())),
    "composed": ("gpt2", lambda: normalized(normalizers.NFKC())),
    "no accents": (
        "gpt_neox",
        lambda: normalized(normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])),
    ),
    "unknown words": ("mistral", words),
}
FUSED = [name for name in LOSSY if name != "unknown words"]  # which spell no spaces


def plain_bits(folder: str, texts: list[str]) -> float:
    """Return bits per byte by nothing but the library: a start token and a text's tokens."""
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer, nats = AutoTokenizer.from_pretrained(folder), 0.0
    for text in texts:
        found = tokenizer(text, add_special_tokens=False).input_ids
        ids = torch.tensor([[tokenizer.bos_token_id, *found]])
        with torch.no_grad():
            nats += float(network(input_ids=ids, labels=ids).loss) * len(found)
    return nats / math.log(2) / sum(len(t.encode()) for t in texts)


@pytest.fixture
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    kind, tokenizer = LOSSY[request.param]
    return tiny.saved(tmp_path / "model", kind, tokenizer())


def measured(target: str, tmp_path: Path, name: str, **more: Any) -> dict[str, Any]:
    given = {"max_steps": 1, "batch_size": 1} | more
    (tmp_path / "data.txt").write_text("\n\n".join(TEXTS), encoding="utf-8")
    result, _ = run(settings(target, tmp_path, **given), tmp_path / name)
    return result["texts"]


@pytest.mark.parametrize("target", LOSSY, indirect=True)
def test_the_documents_themselves_are_measured(target: str, tmp_path: Path) -> None:
    found = measured(target, tmp_path, "run", max_steps=20)
    assert list(found) == [TRAINING_TEXT]
    assert found[TRAINING_TEXT]["before"] == pytest.approx(plain_bits(target, TEXTS), rel=1e-5)


@pytest.mark.parametrize("target", FUSED, indirect=True)
def test_a_cache_keeps_the_first_documents(target: str, tmp_path: Path) -> None:
    """An older cache has none: it is read all the same, and what is measured has another name."""
    expected = plain_bits(target, TEXTS)
    readers = [models.load(name) for name in (target, "zoo:gpt2-story")]
    folder = tmp_path / "cache"
    building.build_cache(readers[0], readers[1:], TEXTS, FusionConfig(), folder)
    lines = (folder / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["text"] for line in lines] == TEXTS == Cache.open(folder).texts()
    more = {"cache": str(folder), "data": None, "mode": "fusion"}
    found = measured(target, tmp_path, "run", **more)
    assert found[TRAINING_TEXT]["before"] == pytest.approx(expected, rel=1e-5)
    (folder / "texts.jsonl").unlink()
    assert Cache.open(folder).texts() is None
    found = measured(target, tmp_path, "older", **more)
    assert list(found) == [REBUILT_TEXT]
    assert found[REBUILT_TEXT]["before"] != pytest.approx(expected, rel=1e-3)
    # a build that goes on puts them back
    building.build_cache(readers[0], readers[1:], TEXTS, FusionConfig(), folder)
    assert Cache.open(folder).texts() == TEXTS


@pytest.mark.parametrize("target", FUSED, indirect=True)
def test_pairs_are_measured_on_the_documents(target: str, tmp_path: Path) -> None:
    sources = ["zoo:gpt2-story", "zoo:mpt-code"]
    more = {"mode": "fusion", "sources": sources, "pairwise": "linear"}
    (tmp_path / "data.txt").write_text("\n\n".join(TEXTS), encoding="utf-8")
    config = settings(target, tmp_path, max_steps=None, epochs=1, batch_size=1, **more)
    (tmp_path / "run").mkdir()
    found = train_pairwise(config, tmp_path / "run", Callbacks())["texts"]
    assert found[TRAINING_TEXT]["before"] == pytest.approx(plain_bits(target, TEXTS), rel=1e-5)


def test_the_first_texts_are_those_that_fit() -> None:
    assert first_texts(["é" * 29_000, "b" * 2_000, "c", "d"]) == ["é" * 29_000, "b" * 2_000]
    assert first_texts(["a" * 60_001, "b"]) == ["a" * 60_001]
    assert first_texts(["a" * 60_000, "b"]) == ["a" * 60_000]
    assert first_texts([]) == []
