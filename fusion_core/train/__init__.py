"""Short continual training: documents and their rows -> a target that has learnt from them.

examples      a document's tokens and rows, from a cache or from text alone
blocks       documents -> blocks -> batches
packing      whether a model reads several documents in one line apart
trainer      `FusionTrainer`, a `transformers.Trainer`
watch        metrics, checkpoints and the best weights
checkpoints  which are whole, and their weights read back
prepare      a run's settings -> examples
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

from .arguments import CHECKPOINTS
from .blocks import Blocks, Collator, Positions, pack
from .dataset import CachedRowsDataset, Example, ExampleDataset, TextDataset, prompt_tokens
from .estimate import Estimate, estimate
from .loop import MODEL, TRAINING_TEXT, Observer, StoppedError, teach, versions
from .packing import supports_packing
from .pairwise import steps_done, train_pairwise
from .trainer import FusionTrainer

__all__ = [
    "CHECKPOINTS",
    "MODEL",
    "TRAINING_TEXT",
    "Blocks",
    "CachedRowsDataset",
    "Collator",
    "Estimate",
    "Example",
    "ExampleDataset",
    "FusionTrainer",
    "Observer",
    "Positions",
    "StoppedError",
    "TextDataset",
    "estimate",
    "pack",
    "prompt_tokens",
    "steps_done",
    "supports_packing",
    "teach",
    "train_pairwise",
    "versions",
]
