"""Named models, and what they expect at each position of a text.

files            name -> the files that would be loaded
checks           network -> is it whole, causal, of which context and cache
document_tokens  network -> what is read before a document, and what ends it
skeleton         configuration -> the network's shapes, and with them its size
load             name -> `LoadedModel`, safely
rows             texts -> `NextTokenRows`
branches         texts -> rows on side paths, asked for after the texts have been read; the ways
                 to them are in branch_ways, and copied_keys is for one of these
"""

from .branches import Branches
from .checks import CacheSupport, cache_support, context_of, read_on
from .document_tokens import DocumentTokens, record, token_of
from .files import ModelSource, find, hub_bytes, not_found, split_name, weights_bytes
from .load import (
    DTYPES,
    MAX_BYTES,
    WINDOW_CELLS,
    LoadedModel,
    find_device,
    identity,
    load,
    load_tokenizer,
    read_config,
)
from .rows import (
    BATCH_TOKENS,
    batch_tokens,
    batches,
    forward,
    log_softmax,
    read_rows,
    read_rows_batch,
    reading,
    rows_of,
    truncate_rows,
    truncated,
)
from .skeleton import skeleton

__all__ = [
    "BATCH_TOKENS",
    "DTYPES",
    "MAX_BYTES",
    "WINDOW_CELLS",
    "Branches",
    "CacheSupport",
    "DocumentTokens",
    "LoadedModel",
    "ModelSource",
    "batch_tokens",
    "batches",
    "cache_support",
    "context_of",
    "find",
    "find_device",
    "forward",
    "hub_bytes",
    "identity",
    "load",
    "load_tokenizer",
    "log_softmax",
    "not_found",
    "read_config",
    "read_on",
    "read_rows",
    "read_rows_batch",
    "reading",
    "record",
    "rows_of",
    "skeleton",
    "split_name",
    "token_of",
    "truncate_rows",
    "truncated",
    "weights_bytes",
]
