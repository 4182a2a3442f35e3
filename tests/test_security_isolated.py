"""Calls in processes of their own: what a stranger's file does there ends in one sentence."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import tiny
from hostile import with_config

from app.limits import Limits
from app.state import AppState
from fusion_core import isolated
from fusion_core.errors import FusionError, ModelFormatError, TooLargeError

PUBLIC = Limits(local_folders=False, model_bytes=1 << 30)
MB = 1_000_000


def test_it_returns_what_the_function_returns() -> None:
    assert isolated.call("errors:size_of", 12_345, memory=MB * 100, what="it") == "12.3 kB"


def test_it_raises_what_the_function_raises(tmp_path: Path) -> None:
    name = str(tmp_path / "nothing")
    with pytest.raises(FusionError, match="no folder") as caught:
        isolated.call("models.trial:try_tokenizer", name, memory=MB * 500, what="it")
    assert type(caught.value).__name__ == "ModelNotFoundError"


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mamba"])
def test_memory_ends_it_with_one_sentence(kind: str, tmp_path: Path) -> None:
    sizes = {"hidden_size": 1024, "n_embd": 1024, "num_hidden_layers": 8, "n_layer": 8}
    known = {k: v for k, v in sizes.items() if hasattr(tiny.config(kind), k)}
    name = tiny.saved(tmp_path / "m", kind, **known)
    for memory in (2 * MB, 20 * MB):
        began = time.monotonic()
        with pytest.raises(TooLargeError):
            isolated.call("models.trial:try_model", name, None, memory=memory, what="The model m")
        assert time.monotonic() - began < isolated.SECONDS / 4, "an import ran out of memory"
    if kind == "llama":
        isolated.call("models.trial:try_model", name, None, memory=2000 * MB, what="The model m")


def test_time_ends_it_with_one_sentence() -> None:
    began = time.monotonic()
    with pytest.raises(TooLargeError, match=r"The model m took more than 1 seconds .* choose"):
        isolated.call(
            "models.trial:try_model", "zoo:llama", None, memory=MB, seconds=1, what="The model m"
        )
    assert time.monotonic() - began < 10


def test_a_strangers_tokenizer_is_tried_elsewhere_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The JSON of 48 MB takes a gigabyte where it is read; the page's process reads none of it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "owner" / "name"
    tiny.byte_bpe().save_pretrained(folder)
    (folder / "tokenizer.json").write_text("[" + "[]," * 16_000_000 + "[]]")
    state = AppState(PUBLIC)
    monkeypatch.setattr("fusion_core.models.load_tokenizer", _unreached)
    with pytest.raises(TooLargeError):
        state.tokenizers.get("owner/name")


def test_a_strangers_model_is_tried_elsewhere_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.saved(tmp_path / "owner" / "name", "llama")
    state = AppState(PUBLIC)
    assert state.models.get("owner/name").tokenizer.size == 300
    assert state.tokenizers.get("owner/name").size == 300
    with_config(str(tmp_path / "owner" / "name"), hidden_size=99)
    state = AppState(PUBLIC)
    monkeypatch.setattr("fusion_core.models.load", _unreached)
    with pytest.raises(ModelFormatError, match=r"config\.json"):
        state.models.get("owner/name")


def test_the_embedded_models_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated, "call", _unreached)
    state = AppState(PUBLIC)
    assert state.models.get("zoo:llama").size_bytes
    assert AppState(Limits()).tokenizers.get("zoo:gpt2-story").size


def test_tokenizers_are_kept_within_a_limit() -> None:
    """Thirty-two of them, however large, were kept beside the limit of the models."""
    state = AppState(Limits(tokenizer_bytes=1_500_000))
    first = state.tokenizers.get("zoo:llama")
    assert state.tokenizers.get("zoo:llama") is first
    for name in ("zoo:mpt-code", "zoo:gpt2-story", "zoo:neox-reason"):
        state.tokenizers.get(name)
    assert state.tokenizers.get("zoo:llama") is not first


def _unreached(*args: object, **_: object) -> None:
    raise AssertionError(f"not to be called here: {json.dumps(args, default=str)}")
