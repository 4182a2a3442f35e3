"""What passes between the stages: frozen data with its shapes checked.

Units: positions are indices of tokens; offsets are bytes of the text in UTF-8, half-open;
log-probabilities and cross-entropies are nats. Arrays are numpy for positions and torch for
probabilities.

    text      where tokens stand, how they share bytes, how vocabularies map
    rows      next-token distributions: of a model, projected
    covers    a model's tokenisations of the beginnings of a text, and their rows
    analysis  fused rows, where they came from, and all of a text that a view shows
    reading   TextReading -> Projection -> FusedText
"""

from .analysis import Analysis, Attribution, FusedRows, SourceAnalysis, leaks
from .covers import LIGHT, Covers
from .reading import (
    FusedText,
    Progress,
    ProjectedWindow,
    Projection,
    TextReading,
    WindowReading,
)
from .rows import DenseRows, NextTokenRows, ProjectedRows, SparseRows, scattered
from .text import Alignment, Encoding, MapReason, Record, RowKind, VocabMap, Window
from .windows import Windows

__all__ = [
    "LIGHT",
    "Alignment",
    "Analysis",
    "Attribution",
    "Covers",
    "DenseRows",
    "Encoding",
    "FusedRows",
    "FusedText",
    "MapReason",
    "NextTokenRows",
    "Progress",
    "ProjectedRows",
    "ProjectedWindow",
    "Projection",
    "Record",
    "RowKind",
    "SourceAnalysis",
    "SparseRows",
    "TextReading",
    "VocabMap",
    "Window",
    "WindowReading",
    "Windows",
    "leaks",
    "scattered",
]
