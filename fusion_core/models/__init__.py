"""Named models, and what they expect at each position of a text.

load   name -> `LoadedModel`, safely
read   texts -> `NextTokenRows`
"""

from .load import (
    DTYPES,
    MAX_BYTES,
    LoadedModel,
    ModelSource,
    context,
    find,
    find_device,
    identity,
    load,
    load_tokenizer,
    weights_bytes,
)
from .read import BATCH_TOKENS, cut_rows, forward, log_softmax, rows, rows_batch

__all__ = [
    "BATCH_TOKENS",
    "DTYPES",
    "MAX_BYTES",
    "LoadedModel",
    "ModelSource",
    "context",
    "cut_rows",
    "find",
    "find_device",
    "forward",
    "identity",
    "load",
    "load_tokenizer",
    "log_softmax",
    "rows",
    "rows_batch",
    "weights_bytes",
]
