"""What one visitor may ask for, here and on a public Space."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from fusion_core import memory

GIB = 1 << 30


@dataclass(frozen=True)
class Limits:
    """What one visitor may ask for.

    Attributes:
        text_bytes: longest text to be read or continued.
        sources: most sources at once.
        memory_bytes: loaded models kept for the next visitor, all together.
        tokenizer_bytes: tokenizers kept without their models, all together.
        model_bytes: largest model that is fetched, and its size in memory; None for no limit.
        kept_bytes: text bytes of the analyses that are kept, all together.
        rows_bytes: memory of the rows that are kept of texts for whatever is asked of them next;
            those of the last one are kept in any case, as far as its `records.Windows` keeps them.
        local_folders: whether models and data may be read from folders of this machine.
        new_tokens: most tokens that a model writes at once.
        data_bytes: largest text to train on.
        steps: most steps of a training.
        train_seconds: longest training; None for no limit.
        calls_by_address: most calls of one address that wait or run at a time; None for any number.
        uploads_by_address, uploads_in_all: most bytes that come within `kept_seconds`.
        trainings: most trainings of one visitor that are kept or wait.
        trainings_by_address, trainings_in_all: most of them that wait or run, whatever their keys.
        trainings_at_once: most trainings that run at a time, of all visitors.
        kept_seconds: after which what visitors gave and made is deleted, counted from the end of a
            training or from an upload; None for never.
        in_event: trainings run inside the visitor's event, because the device is lent to nothing
            else (ZeroGPU).
    """

    text_bytes: int = 20_000
    sources: int = 6
    memory_bytes: int = 8 * GIB
    tokenizer_bytes: int = GIB // 2
    model_bytes: int | None = None
    kept_bytes: int = 100_000
    rows_bytes: int = GIB // 16
    local_folders: bool = True
    new_tokens: int = 512
    data_bytes: int = 100_000_000
    steps: int = 100_000
    train_seconds: int | None = None
    calls_by_address: int | None = None
    uploads_by_address: int | None = None
    uploads_in_all: int | None = None
    trainings: int = 100
    trainings_by_address: int | None = None
    trainings_in_all: int | None = None
    trainings_at_once: int = 1
    kept_seconds: int | None = None
    in_event: bool = False

    @property
    def public(self) -> bool:
        """Whether strangers come here, whose models are tried in other processes first."""
        return not self.local_folders

    @classmethod
    def here(cls) -> Limits:
        """Return the limits of this place: on a public Space nothing is read from folders."""
        if not os.environ.get("SPACE_ID"):
            return cls()
        return cls(
            memory_bytes=min(cls.memory_bytes, memory.total() // 3),
            model_bytes=2 * GIB,
            local_folders=False,
            new_tokens=128,
            data_bytes=1_000_000,
            steps=400,
            train_seconds=300,
            calls_by_address=32,
            uploads_by_address=20_000_000,
            uploads_in_all=200_000_000,
            trainings=4,
            trainings_by_address=4,
            trainings_in_all=16,
            kept_seconds=3000,
            in_event=on_zero_gpu(),
        )


def client_address(peer: str | None, forwarded: str | None) -> str:
    """Return the address that a request comes from.

    Args:
        peer: of the connection.
        forwarded: the header X-Forwarded-For, which a Space's proxy adds to; elsewhere, and but for
            its last part, anybody may have written it.
    """
    if os.environ.get("SPACE_ID") and forwarded:
        return forwarded.rpartition(",")[2].strip()
    return peer or ""


def forget_tokens() -> None:
    """Ask the hub as nobody from now on, in this process and those that it starts.

    What a visitor names would be asked for in the owner's name else, private models among it.
    """
    for name in _TOKENS:
        os.environ.pop(name, None)
    os.environ["HF_HUB_DISABLE_IMPLICIT_TOKEN"] = "1"
    os.environ["HF_TOKEN_PATH"] = os.devnull
    if "huggingface_hub" in sys.modules:  # which has read them
        from huggingface_hub import constants

        constants.HF_HUB_DISABLE_IMPLICIT_TOKEN = True
        constants.HF_TOKEN_PATH = os.devnull


_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN")


def on_zero_gpu() -> bool:
    """Tell whether this is a Space whose device is lent to single calls."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def runs_root() -> Path:
    """Return the folder of all visitors' trainings: ``FUSELAB_RUNS``, or ``runs``."""
    return Path(os.environ.get("FUSELAB_RUNS") or "runs")
