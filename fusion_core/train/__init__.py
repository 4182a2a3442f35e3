"""Short continual training: documents and their rows -> a target that has learnt from them.

lessons      a document's tokens and rows, from a cache or from text alone
blocks       documents -> blocks -> batches
packing      whether a model reads several documents in one line apart
trainer      `FusionTrainer`, a `transformers.Trainer`
watch        metrics, checkpoints and the best weights
checkpoints  which are whole, and their weights read back
prepare      a run's settings -> lessons
setup        a run's settings -> the trainer and its arguments
adapters     low-rank adapters, put on and merged
memory       how large models are, by their configurations alone
checks       whatever a training would be refused for, before anything is read
probe        whether a model that was written is the one that was trained
export       the model's folder and its card
course       all of it in order
pairs        a course with each source by itself, and their results merged
estimate     what it will take
"""

from .blocks import Blocks, Collator, Positions, pack
from .course import MODEL, TRAINING_TEXT, Observer, StoppedError, teach, versions
from .estimate import Estimate, estimate
from .lessons import CacheLessons, Lesson, Lessons, TextLessons, prompt_tokens
from .packing import reads_packed
from .pairs import steps_done, teach_pairs
from .setup import CHECKPOINTS
from .trainer import FusionTrainer

__all__ = [
    "CHECKPOINTS",
    "MODEL",
    "TRAINING_TEXT",
    "Blocks",
    "CacheLessons",
    "Collator",
    "Estimate",
    "FusionTrainer",
    "Lesson",
    "Lessons",
    "Observer",
    "Positions",
    "StoppedError",
    "TextLessons",
    "estimate",
    "pack",
    "prompt_tokens",
    "reads_packed",
    "steps_done",
    "teach",
    "teach_pairs",
    "versions",
]
