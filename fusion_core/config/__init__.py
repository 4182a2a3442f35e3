"""The settings of a fusion and of a training run, checked once where they enter."""

from .fusion import Cut, FusionConfig, check_temperature
from .parts import Lora, Objective
from .run import RunConfig
from .text import MAX_TEXT_BYTES, utf8

__all__ = [
    "MAX_TEXT_BYTES",
    "Cut",
    "FusionConfig",
    "Lora",
    "Objective",
    "RunConfig",
    "check_temperature",
    "utf8",
]
