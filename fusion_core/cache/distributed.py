"""The processes of a distributed run, which share out work and agree."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch

WAIT_HOURS = 12
"""How long a process waits for another one that reads, writes or fuses."""


class Processes:
    """The processes that `accelerate launch` started, or this one alone."""

    def __init__(self) -> None:
        self._state: Any = None
        self.index, self.number = 0, 1
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from accelerate import PartialState

            on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
            self._state = PartialState(
                cpu=on_cpu or not torch.cuda.is_available(), timeout=timedelta(hours=WAIT_HOURS)
            )
            self.index, self.number = self._state.process_index, self._state.num_processes

    @property
    def first(self) -> bool:
        """Whether this is the process that speaks for all."""
        return self.index == 0

    def broadcast(self, value: Any = None) -> Any:
        """Return the value of the first process, once every process asks."""
        if self._state is None:
            return value
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value])[0]

    def wait(self) -> None:
        """Wait until every process is here."""
        if self._state is not None:
            self._state.wait_for_everyone()
