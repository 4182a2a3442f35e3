"""Knowledge fusion of large language models: read, project, fuse, train.

The rooms, in the order in which they may import one another (a test reads the imports):

    errors < numerics < records < config   data and checks only
    records.reading                        TextReading, Projection, FusedText, whose methods call
                                           the rooms that make the next of them
    text_display                           text -> grapheme clusters, cells, signs
    memory                                 what the machine, or a container, has left
    isolated                               a call in a process of its own, within limits

    the stages
      io          file                     -> texts; files written whole or not at all
      corpus      seed                     -> texts and questions of the toy domains
      zoo         name                     -> folder of an embedded model
      tokens      text                     -> Encoding
      align       Encoding x Encoding      -> Alignment; stretches that every model can read
      mapping     vocabulary x vocabulary  -> VocabMapping
      models      encodings                -> NextTokenRows; rows on side paths (models.branches)
      covers      rows x bytes of a text   -> Covers: what a model may have read there
      characters  NextTokenRows            -> NextCharacters
      project     TextReading x mapping    -> Projection
      fuse        Projection x operator    -> FusedText
      evaluate    rows                     -> cross-entropies, transfer cross-entropy
      cache       rows                     <-> shards on disk
      losses      logits x fused rows      -> nats of both parts
      baselines   weights                  -> merged weights

    reading                                text x models -> TextReading: runs the networks, through
                                           models and covers
    pipeline < compare                     read, project, fuse, in this order
    cache.building, generation             many texts; texts that are written
    benchmark                              tasks: the toy suite, programs that models write, lm-eval
    training < runs                        a run's settings -> a trained model, in its own process
    reports < plots                        records -> JSON objects and tables; Plotly figures
    commands < cli, __main__               the command line
    zoo.build, zoo.__main__                how the embedded models were made

`import fusion_core as fl` offers what `__all__` lists, flat: `fl.load`, `fl.read`, `fl.train` …

Stages take records and give records. They do not import one another, with these exceptions:
`mapping`, `models`, `covers`, `characters` and `project` hold a `tokens.TextTokenizer`; `mapping`
counts the pairs that `align` finds; `models` finds embedded models through `zoo`; `covers` has
`models` read side paths; `project` aligns windows and asks a `mapping.VocabMapping`; what they
write goes through `io`. Nothing here imports gradio or `app`; `plots` alone imports plotly, when it
draws.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from . import plots
    from .compare import bits_per_byte, compare_mappings, compare_operators, next_characters
    from .config import FusionConfig, RunConfig, Sampling
    from .generation import generate
    from .models.load import load
    from .pipeline import analyze
    from .reading import read, read_documents
    from .runs import train

__all__ = [
    "FusionConfig",
    "RunConfig",
    "Sampling",
    "analyze",
    "bits_per_byte",
    "compare_mappings",
    "compare_operators",
    "generate",
    "load",
    "next_characters",
    "plots",
    "read",
    "read_documents",
    "train",
]

_ROOMS = {
    "compare": ("bits_per_byte", "compare_mappings", "compare_operators", "next_characters"),
    "config": ("FusionConfig", "RunConfig", "Sampling"),
    "generation": ("generate",),
    "models": ("load",),
    "pipeline": ("analyze",),
    "reading": ("read", "read_documents"),
    "runs": ("train",),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for (PEP 562): torch alone takes a second."""
    if name == "plots":
        return import_module(".plots", __name__)
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_ROOM_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    """Name what the package offers, for completion."""
    return [*globals(), *__all__]
