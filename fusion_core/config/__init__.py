"""The settings of a fusion and of a training run, checked once where they enter."""

from .fusion import FusionConfig, Truncation, check_temperature
from .parts import Lora, Objective
from .run import RunConfig, may_be_dataset
from .text import BYTE_ORDER_MARK, MAX_TEXT_BYTES, decoded, utf8

__all__ = [
    "BYTE_ORDER_MARK",
    "MAX_TEXT_BYTES",
    "FusionConfig",
    "Lora",
    "Objective",
    "RunConfig",
    "Truncation",
    "check_temperature",
    "decoded",
    "may_be_dataset",
    "utf8",
]
