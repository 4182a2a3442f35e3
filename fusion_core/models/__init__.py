"""Named models, and what they expect at each position of a text.

names            name -> where it leads
files            where a name leads -> the files that would be loaded
checks           network -> is it whole, causal, of which context and cache
document_tokens  network -> what is read before a document, and what ends it
skeleton         configuration -> the network's shapes, and with them its size
loaded           `LoadedModel`, and which model it is
load             name -> `LoadedModel`, safely; served: those of a server
rows             texts -> `NextTokenRows`
server           lists of ids -> what an OpenAI-compatible server says of them
truncation       rows -> rows of some tokens and a tail
branches         texts -> rows on side paths, asked for after the texts have been read; the ways
                 to them are in branch_ways, and copied_keys is for one of these
"""

from .branches import Branches
from .checks import CacheSupport, cache_support, context_of, read_on
from .document_tokens import DocumentTokens, record, token_of
from .files import hub_bytes, not_found, weights_bytes
from .load import (
    DTYPES,
    MAX_BYTES,
    find_device,
    load,
    load_tokenizer,
    read_config,
)
from .loaded import WINDOW_CELLS, LoadedModel, identity
from .names import ModelSource, find, is_server, split_name
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
)
from .skeleton import skeleton
from .truncation import truncate_rows, truncated

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
    "is_server",
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
