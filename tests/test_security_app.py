"""The app before strangers: endpoints and pages that a hostile visitor calls."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import tiny

from app.limits import Limits
from app.requests import analysis_request
from app.state import AppState
from fusion_core.errors import FusionError

TEXT = "a" * 60 + "!"


@pytest.fixture(scope="module")
def client(address: str) -> Any:
    """A program that calls the app."""
    from gradio_client import Client

    return Client(address, verbose=False)


def panicking(folder: Path, expression: str) -> str:
    """Save a model whose tokenizer gives up on texts of one letter."""
    name = tiny.saved(folder, "llama")
    file = folder / "tokenizer.json"
    split = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated"}
    content = json.loads(file.read_text())
    content["pre_tokenizer"] = split | {"invert": False}
    file.write_text(json.dumps(content))
    return name


@pytest.mark.parametrize("expression", ["(a+)+$", "(?:a|aa)+$", "(?:(a|a)(a|aa))+$"])
def test_a_panic_of_a_tokenizer_is_answered(client: Any, expression: str, tmp_path: Path) -> None:
    """Analyse and /align had no answer for ever: a panic is no Exception."""
    name = panicking(tmp_path / "m", expression)
    began = time.monotonic()
    for endpoint in ("/align", "/fuse"):
        with pytest.raises(Exception, match="gave up on a text"):
            client.predict("zoo:llama", [name], TEXT, api_name=endpoint)
    state = AppState(Limits())
    with pytest.raises(FusionError, match="gave up on a text"):
        list(state.analyze(analysis_request(state.limits, "zoo:llama", [name], TEXT)))
    assert time.monotonic() - began < 60
