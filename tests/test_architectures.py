"""Architectures of `transformers`: rows, training, resumption, export, all against the library."""

from __future__ import annotations

from pathlib import Path

import pytest
from architecture_checks import EVERY, SAMPLE, check


@pytest.mark.parametrize("kind", SAMPLE)
def test_an_architecture_from_rows_to_the_trained_model(tmp_path: Path, kind: str) -> None:
    checked = check(kind, tmp_path)
    assert not checked.refused and not checked.unmade
    assert len(checked.trained) == 3


@pytest.mark.parametrize("kind", ["xlnet", "big_bird"])
def test_an_architecture_that_sees_what_follows_is_refused(tmp_path: Path, kind: str) -> None:
    assert "sees the words" in check(kind, tmp_path).refused


SEE = {"big_bird", "cpmant", "xlnet"}


@pytest.mark.slow
def test_every_architecture(tmp_path: Path) -> None:
    checked = {kind: check(kind, tmp_path / kind) for kind in EVERY}
    assert {kind for kind, c in checked.items() if c.refused} == SEE
    assert sum(bool(c.trained) for c in checked.values()) >= 140
