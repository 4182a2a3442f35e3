"""Short continual training: documents and their rows -> a target that has learnt from them.

    lessons   a document's tokens and rows, from a cache or from text alone
    blocks    documents -> blocks -> batches
    packing   whether a model reads several documents in one line apart
    trainer   `FusionTrainer`, a `transformers.Trainer`
    watch     metrics, checkpoints and the best weights
    prepare   a run's settings -> lessons
    export    the model's folder and its card
    course    all of it in order
"""

from .blocks import Blocks, Collator, Positions, pack
from .course import CHECKPOINTS, MODEL, TRAINING_TEXT, Observer, StoppedError, teach, versions
from .lessons import CacheLessons, Lesson, Lessons, TextLessons
from .packing import reads_packed
from .trainer import FusionTrainer, last_checkpoint, step_of

__all__ = [
    "CHECKPOINTS",
    "MODEL",
    "TRAINING_TEXT",
    "Blocks",
    "CacheLessons",
    "Collator",
    "FusionTrainer",
    "Lesson",
    "Lessons",
    "Observer",
    "Positions",
    "StoppedError",
    "TextLessons",
    "last_checkpoint",
    "pack",
    "reads_packed",
    "step_of",
    "teach",
    "versions",
]
