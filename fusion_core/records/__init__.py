"""What passes between the stages: frozen data with its shapes checked.

Units: positions are indices of tokens; offsets are bytes of the text in UTF-8, half-open;
log-probabilities and cross-entropies are nats. Arrays are numpy for positions and torch for
probabilities.

    text   where tokens stand, how they share bytes, how vocabularies map
    rows   next-token distributions
"""

from .rows import (
    Analysis,
    DenseRows,
    FusedRows,
    NextTokenRows,
    Origins,
    ProjectedRows,
    SourceReading,
    SparseRows,
)
from .text import Alignment, Encoding, MapReason, RowKind, VocabMap

__all__ = [
    "Alignment",
    "Analysis",
    "DenseRows",
    "Encoding",
    "FusedRows",
    "MapReason",
    "NextTokenRows",
    "Origins",
    "ProjectedRows",
    "RowKind",
    "SourceReading",
    "SparseRows",
    "VocabMap",
]
