"""Short continual training: documents and their rows -> a target that has learnt from them.

dataset    documents with fused rows -> blocks -> batches
data       a run's settings -> the documents that it trains on
texts      the data's documents, and what sources write before the training
stream     documents that are written while the training goes on, with their rows
trainer    `FusionTrainer`, a `transformers.Trainer` with the fusion loss
checkpoints  folders of a run that it goes on from, each with a digest of its files
callbacks  metrics, checkpoints and the best weights, between two steps
arguments  a run's settings -> the trainer and its arguments
adapters   low-rank adapters, put on and merged
checks     what a training would be refused for, before anything is read
estimate   time, memory and disk that it will take
loop       all of it in order
export     the model's folder and its card, checked against the model that was trained
pairwise   a training with each source by itself, and their results merged
"""

from .checkpoints import CHECKPOINTS
from .checks import supports_packing
from .data import TRAINING_TEXT, prompt_tokens
from .dataset import (
    Blocks,
    CachedRowsDataset,
    Collator,
    Example,
    ExampleDataset,
    Positions,
    TextDataset,
    pack,
)
from .estimate import Estimate, estimate
from .loop import MODEL, Callbacks, StoppedError, check_checkpoints, steps_done, train, versions
from .pairwise import train_pairwise
from .trainer import FusionTrainer

__all__ = [
    "CHECKPOINTS",
    "MODEL",
    "TRAINING_TEXT",
    "Blocks",
    "CachedRowsDataset",
    "Callbacks",
    "Collator",
    "Estimate",
    "Example",
    "ExampleDataset",
    "FusionTrainer",
    "Positions",
    "StoppedError",
    "TextDataset",
    "check_checkpoints",
    "estimate",
    "pack",
    "prompt_tokens",
    "steps_done",
    "supports_packing",
    "train",
    "train_pairwise",
    "versions",
]
