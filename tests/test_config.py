"""Settings and texts are checked where they enter."""

from __future__ import annotations

import pytest

from fusion_core.config import FusionConfig, utf8
from fusion_core.errors import FusionError, InputError, TooLargeError


@pytest.mark.parametrize(
    "settings",
    [
        {"top_k": 0},
        {"top_k": -3},
        {"top_k": 2.5},
        {"top_k": None},
        {"top_k": True},
        {"source_top_k": 0},
        {"overlap": -0.1},
        {"overlap": 0.9},
        {"overlap": float("nan")},
    ],
)
def test_numbers_outside_their_range_are_refused(settings: dict) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        FusionConfig(**settings)


def test_source_top_k_may_be_left_open() -> None:
    assert FusionConfig(source_top_k=None).source_top_k is None


def test_texts() -> None:
    assert utf8("é") == b"\xc3\xa9"
    with pytest.raises(InputError, match="empty"):
        utf8("")
    with pytest.raises(InputError, match="surrogate at character 1"):
        utf8("a\udc80")
    with pytest.raises(TooLargeError, match="1,000"):
        utf8("x" * 1001, limit=1000)


def test_messages_stay_on_one_line() -> None:
    assert str(FusionError("no file a\nb.txt:\r\n  give\tone")) == "no file a b.txt: give one"
