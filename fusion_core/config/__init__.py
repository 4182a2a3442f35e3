"""The settings of a fusion and of a training run, checked once where they enter."""

from .flags import add_flags, read_flags
from .parts import Lora, Objective, TextMix
from .paths import may_be_dataset
from .run import RunConfig
from .settings import (
    Count,
    FusionConfig,
    Sampling,
    Setting,
    Settings,
    Truncation,
    check_temperature,
    describe,
    is_number,
    is_whole,
    one_of,
)
from .text import BYTE_ORDER_MARK, MAX_TEXT_BYTES, decoded, utf8

__all__ = [
    "BYTE_ORDER_MARK",
    "MAX_TEXT_BYTES",
    "Count",
    "FusionConfig",
    "Lora",
    "Objective",
    "RunConfig",
    "Sampling",
    "Setting",
    "Settings",
    "TextMix",
    "Truncation",
    "add_flags",
    "check_temperature",
    "decoded",
    "describe",
    "is_number",
    "is_whole",
    "may_be_dataset",
    "one_of",
    "read_flags",
    "utf8",
]
