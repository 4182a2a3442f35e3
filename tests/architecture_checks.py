"""One architecture of `transformers`, from its rows to the model that it becomes.

A tiny random model is saved and loaded as any other. Its rows are held against the library's own
logits: of a text alone, of texts in a padded batch, and token by token from the cache. Then it is
trained, stopped, resumed, exported and loaded again (`training_checks`).
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny import CORPUS, network, saved
from training_checks import check_training
from transformers import AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from fusion_core import generation, models
from fusion_core.errors import ModelFormatError
from fusion_core.models import LoadedModel

EVERY = tuple(sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
"""Model types that the library loads as causal language models."""

SAMPLE = ("llama", "gpt2", "mixtral", "gemma3_text", "mamba", "bert")
"""What is checked on every change; the rest by `python benchmarks/architectures.py`."""

LARGEST = 5_000_000
"""Parameters above which a model is not tiny: its configuration has sizes of other names."""

TEXTS = (CORPUS[0], CORPUS[3][:19], CORPUS[5])
TOLERANCE = 1e-4
"""By which probabilities may differ: kernels add up other shapes in another order."""


@dataclass(frozen=True)
class Checked:
    """What came of one architecture.

    Attributes:
        parameters: of the tiny model.
        alone: largest difference of a probability between our rows and the library's.
        batch: the same where texts are padded to one batch.
        cache: the same where tokens are read one after another.
        trained: losses of three steps; straight, resumed, exported and loaded again equal.
        refused: what the model is refused with, where it cannot be read.
        unmade: why there is no tiny model, where there is none.
    """

    parameters: int = 0
    alone: float = 0.0
    batch: float = 0.0
    cache: float = 0.0
    trained: tuple[float, ...] = ()
    refused: str = ""
    unmade: str = ""


def check(kind: str, folder: Path) -> Checked:
    """Check an architecture in an empty folder.

    Raises:
        AssertionError: something is not equal that should be.
    """
    with contextlib.redirect_stderr(io.StringIO()):  # the library's bars
        try:
            with torch.device("meta"):
                size = sum(p.numel() for p in network(kind).parameters())
            if size > LARGEST:
                return Checked(unmade=f"{size / 1e6:,.0f} million parameters at the least")
            made = network(kind)
            for length in (2, 3, 10, 30):
                probs(made, list(range(5, 5 + length)))
        except Exception as error:  # sizes that do not fit together, libraries that are missing
            return Checked(unmade=f"{type(error).__name__}: {str(error).splitlines()[0][:90]}")
        name = saved(folder / "model", made)
        try:
            model = models.load(name)
        except ModelFormatError as error:
            return Checked(size, refused=str(error).replace(f"{name} ", "").partition(":")[0])
        plain = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32).eval()
        found = [f(model, plain) for f in (rows_alone, rows_in_a_batch, rows_from_the_cache)]
        assert max(found) < TOLERANCE, f"{kind}: {found}"
        (folder / "trained").mkdir()
        trained = check_training(name, folder / "trained")
        return Checked(size, *found, tuple(trained["losses"]))


def probs(plain: Any, tokens: list[int]) -> torch.Tensor:
    """Return the library's own next-token probabilities in double precision."""
    with torch.no_grad():
        logits = plain(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]
    return torch.softmax(logits.double(), dim=1)


def read(model: LoadedModel, text: str) -> list[int]:
    """Return the tokens that a model reads of a text, its start token included."""
    start = model.tokenizer.start_id
    own = model.tokenizer.encode(text)
    return [*([] if start is None else [start]), *own.ids[own.text_tokens].tolist()]


def rows_alone(model: LoadedModel, plain: Any) -> float:
    """Compare the rows of each text with the library's."""
    return max(
        _off(
            model,
            plain,
            text,
            models.read_rows(model, model.tokenizer.encode(text)).dense.probs,
        )
        for text in TEXTS
    )


def rows_in_a_batch(model: LoadedModel, plain: Any) -> float:
    """Compare the rows of all texts, read at once, with the library's of each."""
    rows = models.read_rows_batch(model, model.tokenizer.encode_batch(list(TEXTS)))
    return max(_off(model, plain, t, r.dense.probs) for t, r in zip(TEXTS, rows, strict=True))


def rows_from_the_cache(model: LoadedModel, plain: Any) -> float:
    """Compare rows that are read token by token, some of them twice, with the library's."""
    reader = generation.Reader(model)
    own = model.tokenizer.encode(TEXTS[0]).ids.tolist()
    order = [3, 4, 5, 6, 4, 8, len(own), len(own) - 2]
    rows = torch.stack([reader.row(own[:n]) for n in order])
    expected = probs(plain, read(model, TEXTS[0]))
    at = np.asarray(order) - (model.tokenizer.start_id is None)
    return float((rows - expected[at, : rows.shape[1]]).abs().max())


def _off(model: LoadedModel, plain: Any, text: str, ours: torch.Tensor) -> float:
    expected = probs(plain, read(model, text))
    ours = ours[len(ours) - len(expected) :]
    return float((ours - expected[:, : ours.shape[1]]).abs().max())
