"""Benchmarks: the toy suite, programs that models write, tasks of lm-eval."""

from .accuracy import Accuracy
from .toy_suite import toy

__all__ = ["Accuracy", "toy"]
