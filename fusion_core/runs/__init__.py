"""Training runs: a folder each, a worker process of its own, one view of it for everybody.

    config.yaml     everything that is needed to repeat the run
    metrics.jsonl   one line a step and evaluation
    status.json     what is being done, renamed into its place
    worker.log      what the worker printed
    cache/          rows that the run made, where it was not given any
    checkpoints/    each whole only with its `complete.json`
    model/          the result, with its card; there whole or not at all

A worker holds a lock on its folder for as long as it lives, however it ends. What is written as
running without that lock was killed, and can be resumed.
"""

from .control import resume, start, stop
from .folder import STATES, RunStatus, Tail, follow, list_runs, metrics, status
from .worker import run, train

__all__ = [
    "STATES",
    "RunStatus",
    "Tail",
    "follow",
    "list_runs",
    "metrics",
    "resume",
    "run",
    "start",
    "status",
    "stop",
    "train",
]
