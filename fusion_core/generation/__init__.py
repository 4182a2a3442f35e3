"""Text from one model, or from several at once: the ensemble writes in the target's tokens.

ensemble   what several models expect next, fused
text       tokens drawn, shown and scored
batched    many prompts that one model continues at once
documents  a corpus that models write, or continue
"""

from fusion_core.models.incremental import BACK, Reader

from .batched import continue_batch
from .documents import Written, continue_documents, longest_of, write_documents
from .ensemble import Ensemble, check
from .text import Sampling, Step, generate, score, stream

__all__ = [
    "BACK",
    "Ensemble",
    "Reader",
    "Sampling",
    "Step",
    "Written",
    "check",
    "continue_batch",
    "continue_documents",
    "generate",
    "longest_of",
    "score",
    "stream",
    "write_documents",
]
