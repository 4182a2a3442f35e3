"""The decorator of what needs a device, where devices are lent to single calls (ZeroGPU)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from ..limits import on_zero_gpu

F = TypeVar("F", bound=Callable[..., Any])

LENT = on_zero_gpu() and torch.version.cuda is not None
"""Whether a device is lent to each call. A torch without CUDA has no use for one."""


def on_device(duration: Callable[..., int]) -> Callable[[F], F]:
    """Let a function run on a lent device, in a forked worker; elsewhere it runs as it is.

    Args:
        duration: takes the function's arguments, returns for how many seconds a device is asked.
    """
    if not LENT:
        return lambda function: function
    from spaces import GPU

    return GPU(duration=duration)
