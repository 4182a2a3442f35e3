"""Text from one model, or from several at once: the ensemble writes in the target's tokens.

Four rooms:

    ensemble   what several models expect next, fused
    text       tokens drawn, shown and scored
    documents  a corpus that models write
"""

from fusion_core.models.incremental import BACK, Reader

from .documents import write_documents
from .ensemble import Ensemble, check
from .text import Sampling, Step, generate, score, stream

__all__ = [
    "BACK",
    "Ensemble",
    "Reader",
    "Sampling",
    "Step",
    "check",
    "generate",
    "score",
    "stream",
    "write_documents",
]
