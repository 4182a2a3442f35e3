"""What lets models write; on ZeroGPU each call gets a device and a forked worker, as in `work`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fusion_core.generate import Ensemble, Step, generate, stream

from . import writing
from .gpu import on_device
from .shelf import Shelf
from .writing import Batch, WriteRequest


def _seconds(shelf: str, asked: WriteRequest) -> int:
    """Ask for a device as long as a writing may take."""
    return min(120, 20 + asked.sampling.max_new_tokens * (2 * len(asked.names)) // 20)


@on_device(_seconds)
def write(shelf: str, asked: WriteRequest) -> Iterator[Batch]:
    """Continue a prompt with all models at once; where it is closed, the work ends.

    Args:
        shelf: key of the shelf that holds the models.
        asked: the prompt and the models.

    Yields:
        What was written since the batch before.
    """
    here = Shelf.at(shelf)
    models = [here.get(name) for name in asked.names]
    target, sources = models[0], models[1 : 1 + len(asked.sources)]

    def fused() -> Iterator[Step]:
        # Built by its first step: vocabularies that cannot be matched end this column alone.
        together = Ensemble(target, sources, operator=asked.operator, with_target=asked.with_target)
        yield from stream(together, asked.prompt, asked.sampling)

    alone = (stream(Ensemble(model), asked.prompt, asked.sampling) for model in models)
    labels = [target.tokenizer.piece, *(model.tokenizer.piece for model in models)]
    yield from writing.in_turn([fused(), *alone], labels)


@on_device(_seconds)
def texts(shelf: str, asked: WriteRequest) -> dict[str, Any]:
    """Continue a prompt with all models, one after another; see `fusion_core.generate.generate`."""
    here = Shelf.at(shelf)
    target, *sources = (here.get(name) for name in asked.names)
    return generate(
        target,
        sources,
        asked.prompt,
        operator=asked.operator,
        with_target=asked.with_target,
        sampling=asked.sampling,
    )
