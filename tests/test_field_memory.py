"""Faults and too little memory: what the page, programs and the command line say of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_field_app import GOOD, asked

from app import api, requests
from app.compute.generate import in_turn
from app.limits import Limits
from app.state import AppState
from app.tabs.events import sentence
from fusion_core import cli, pipeline
from fusion_core.errors import SHORT_OF_MEMORY
from fusion_core.io import documents


def short_of_memory(*_: Any, **__: Any) -> None:
    torch.empty(1 << 46)  # more than any machine can address: torch raises its own


def test_a_fault_is_said_and_in_the_log(
    address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pipeline, "align", lambda *_: {}["ours"])
    said = asked(address, "align", list(GOOD["align"].values()))
    assert said == "FuseLab failed at this (KeyError): try other settings or text."
    assert "KeyError: 'ours'" in caplog.text


def test_an_endpoint_that_runs_out_of_memory_says_so_and_lives_on(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a CPU torch raises a bare RuntimeError (pytorch/pytorch#20618)."""
    good = list(GOOD["align"].values())
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "align", short_of_memory)
        assert asked(address, "align", good) == SHORT_OF_MEMORY
    assert asked(address, "align", good)[0]["bytes"] == 5
    assert "Traceback" not in capsys.readouterr().err


def test_the_page_and_the_command_line_say_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeError) as caught:
        short_of_memory()
    assert sentence(caught.value) == SHORT_OF_MEMORY
    monkeypatch.setattr(documents, "read_documents", short_of_memory)
    assert cli.main(["evaluate", "--model", "zoo:llama", "--text-file", "a.txt"]) == 2
    assert capsys.readouterr().err == f"fusion_core: {SHORT_OF_MEMORY}\n"
    monkeypatch.setattr(documents, "read_documents", lambda _: {}["ours"])
    with pytest.raises(KeyError):
        cli.main(["evaluate", "--model", "zoo:llama", "--text-file", "a.txt"])


def test_a_writer_that_runs_out_of_memory_ends_alone() -> None:
    from fusion_core.generation import Step

    def short() -> Any:
        yield short_of_memory()

    def other() -> Any:
        yield Step(1, "a", 0.5, 0.1, (), -1)
        yield Step(2, "b", 0.5, 0.1, (), -1, "length")

    batches = list(in_turn([short(), other()], [str, str], pause=0))
    assert [end for batch in batches for end in batch.ends] == [
        (0, "failed", SHORT_OF_MEMORY),
        (1, "length", ""),
    ]
    assert sum(len(batch.steps) for batch in batches) == 2


def test_a_text_that_ran_out_of_memory_can_be_read_later(monkeypatch: pytest.MonkeyPatch) -> None:
    state = AppState(Limits())
    request = requests.analysis_request(state.limits, "zoo:llama", ["zoo:mpt-code"], "def a")
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "view", short_of_memory)
        with pytest.raises(RuntimeError):
            api.last(state.analyze(request))
    assert api.last(state.analyze(request)).analysis.target.data == b"def a"
