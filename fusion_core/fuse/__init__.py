"""Rows of several sources -> one fused row a position.

The fused row is the weighted sum of the projected rows, or another weighted mean of them.

    operators  how much each source counts, and how rows are combined
    rows       a text's rows, fused
    dense      rows side by side over the whole vocabulary
    sparse     rows side by side on the tokens that count
    truncated  rows of which only the top is known
"""

from .operators import (
    LEVELS,
    OPERATORS,
    Combination,
    Measures,
    Operator,
    ScoreInputs,
    label_free,
    operator_of,
)
from .rows import FLOOR, entropies, fuse, fuse_rows, projected_ce, target_rows, top_rows
from .truncated import fuse_truncated

__all__ = [
    "FLOOR",
    "LEVELS",
    "OPERATORS",
    "Combination",
    "Measures",
    "Operator",
    "ScoreInputs",
    "entropies",
    "fuse",
    "fuse_rows",
    "fuse_truncated",
    "label_free",
    "operator_of",
    "projected_ce",
    "target_rows",
    "top_rows",
]
