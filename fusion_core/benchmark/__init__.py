"""Benchmarks: the toy suite, programs that models write, tasks of lm-eval."""

from .accuracy import Accuracy
from .harness import run_tasks
from .toy_suite import toy

__all__ = ["Accuracy", "run_tasks", "toy"]
