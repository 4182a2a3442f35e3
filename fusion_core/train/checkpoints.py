"""Checkpoints: which are whole, and their weights read back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers.integrations import deepspeed
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from fusion_core.errors import InputError, is_out_of_memory
from fusion_core.io.files import write_whole

WHOLE = "complete.json"
ADAPTERS = "adapter_model.safetensors"


def mark_complete(folder: Path, tokens: int, seconds: float) -> None:
    """Say that all of a checkpoint has been written.

    Args:
        folder: of the checkpoint.
        tokens: that had been taught by then.
        seconds: that the run had taken by then.
    """
    values = {"tokens": tokens, "seconds": seconds}
    write_whole(folder / WHOLE, json.dumps(values).encode())


def whole(checkpoint: Path) -> tuple[int, float]:
    """Return the tokens and seconds that `mark_complete` was told."""
    values = json.loads((checkpoint / WHOLE).read_bytes())
    return values["tokens"], values["seconds"]


def step_of(checkpoint: Path) -> int:
    """Return the step of a checkpoint."""
    return int(checkpoint.name.rpartition("-")[2])


def last_checkpoint(folder: Path) -> Path | None:
    """Find the newest checkpoint that is whole."""
    found = [
        path
        for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*")
        if path.name.rpartition("-")[2].isdecimal() and (path / WHOLE).is_file()
    ]
    return max(found, key=step_of, default=None)


def read_weights(network: Any, folder: Path) -> None:
    """Put the weights of a checkpoint, or those that were kept, into a network.

    Models are read the library's way, which undoes what it does in writing: the experts of a
    mixture, say, are one tensor in memory and one each on disk.

    Args:
        network: whose weights are replaced, all of them, or those of its adapters.
        folder: that `transformers` or `peft` has written for such a network.

    Raises:
        InputError: they are gone, broken, incomplete or of another model.
    """
    if not any(folder.glob("*.safetensors")):
        raise InputError(
            f"The weights in {folder} are gone: start the run again in another folder."
        )
    try:
        odd = (_read_adapters if (folder / ADAPTERS).is_file() else _read_model)(network, folder)
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        raise InputError(
            f"The weights in {folder} cannot be read ({str(error)[:300]}): start the run again in "
            "another folder."
        ) from error
    if odd:
        raise InputError(
            f"{folder} is of another model, or not all of it is there (see {sorted(odd)[0]}): "
            "start the run again in another folder."
        )


def _read_adapters(network: Any, folder: Path) -> set[str]:
    """Read adapters, and name what is missing or too much."""
    from peft import load_peft_weights, set_peft_model_state_dict

    read: Any = set_peft_model_state_dict(network, load_peft_weights(str(folder), device="cpu"))
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    return trained & set(read.missing_keys) | set(read.unexpected_keys)


def _read_model(network: Any, folder: Path) -> set[str]:
    """Read a whole model, and name what is missing or too much."""
    with unsharded():
        found, info = type(network).from_pretrained(
            folder, dtype=network.dtype, use_safetensors=True, output_loading_info=True
        )
    odd = {str(key) for kind in info.values() for key in kind}
    if not odd:
        network.load_state_dict(found.state_dict())
    return odd


@contextmanager
def unsharded() -> Iterator[None]:
    """Read a model whole, where DeepSpeed would have the library share it out among devices."""
    shares = deepspeed._hf_deepspeed_config_weak_ref
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = shares
