"""Trainings for tests: a short form, its plan without timing, and what may be waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from app.limits import Limits
from app.training import plan
from app.training.form import Form
from app.training.store import JobStore
from fusion_core.training import Estimate

WAIT = 90
ONCE = Estimate(1000, 1000, 10, 40_960, 20, 4.0, 2.0, 1, 10, 1, 10, "measured")
FORM = Form(
    target="zoo:llama", sources=("zoo:mpt-code",), domains=("Code",), kilobytes=4, steps=4,
    batch_size=1,
)  # fmt: skip


def planned(form: Form = FORM, limits: Limits | None = None) -> plan.Plan:
    return plan.make_plan(form, limits or Limits(), "cpu", Path(), lambda *_: ONCE)


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def states(found: JobStore, key: str, id_: str) -> list[str]:
    return [s.state for s in found.get(key, id_).statuses().values()]
