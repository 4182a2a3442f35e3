"""Many visitors at once: a sample, and with `slow` the whole load."""

from __future__ import annotations

import load
import pytest


def hold(visitors: int, seconds: float) -> None:
    """Let visitors come and go; none may have an error or wait long, nor memory stay taken."""
    with load.app() as (address, process, began):
        assert began < 60
        load.crowd(address, 2, 5, pause=0.1)  # what is loaded once
        before = load.settled(process)
        waits = load.crowd(address, visitors, seconds)
        after = load.settled(process)
    assert waits.errors == []
    assert len(waits.analyses) >= visitors
    assert load.Waits.share(waits.analyses + waits.clicks, 0.95) < 3
    assert after < 1.1 * before, f"{before / 1e6:.0f} MB before, {after / 1e6:.0f} MB after"


@pytest.mark.browser
def test_five_visitors() -> None:
    hold(5, 15)


@pytest.mark.slow
def test_twenty_visitors_for_two_minutes() -> None:
    hold(20, 120)
