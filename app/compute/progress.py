"""Work that reports how far it is, for a visitor who waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

from fusion_core.records import Progress

INTERVAL_SECONDS = 0.5
"""How often a visitor hears what is being done."""


def run_with_progress(
    work: Callable[[Progress], Any],
) -> Generator[str, None, Any]:
    """Work in a thread, so that progress can be reported meanwhile.

    Args:
        work: is given what it reports its progress to: a sentence and the share that is behind.

    Yields:
        Sentences, at most one every `INTERVAL_SECONDS`.

    Returns:
        What the work returns; its errors are raised.
    """
    steps: SimpleQueue[str | None] = SimpleQueue()

    def progress(stage: str, share: float) -> None:
        steps.put(f"{stage.capitalize()} ({share:.0%}) …")

    with ThreadPoolExecutor(max_workers=1) as pool:
        job = pool.submit(work, progress)
        job.add_done_callback(lambda _: steps.put(None))
        last = time.monotonic()
        while (step := steps.get()) is not None:
            if time.monotonic() - last > INTERVAL_SECONDS:
                last = time.monotonic()
                yield step
        return job.result()
