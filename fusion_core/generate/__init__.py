"""Text from one model, or from several at once: the ensemble writes in the target's tokens.

Four rooms:

    reader     a model's cache, kept where the tokens stay the same
    ensemble   what several models expect next, fused
    text       tokens drawn, shown and scored
    documents  a corpus that models write
"""

from .documents import write_documents
from .ensemble import Ensemble, check
from .reader import BACK, Reader
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
