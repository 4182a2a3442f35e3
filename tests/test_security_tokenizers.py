"""Tokenizers of strangers: ids, sizes, normalisers and expressions that a process would die of.

An 80 KB tokenizer.json with one id of 2^31 ended the process, a normaliser took 5.4 GB for 37
bytes, and an expression that the Rust side gives up on left a visitor without an answer.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import tiny_tokenizers
from hostile import ROOT, grown_by
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from fusion_core import models, pipeline, tokens
from fusion_core.errors import FusionError, ModelFormatError, TooLargeError
from fusion_core.tokens import checks

KINDS = {
    "bytes": tiny.byte_bpe,
    "unigram": lambda: _fast(tiny_tokenizers.metaspace("unigram", "▁", "always")),
    "wordpiece": lambda: _fast(tiny_tokenizers.wordpiece()),
    "characters": lambda: _fast(tiny_tokenizers.characters()),
}


def _fast(backend: Any) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def changed(folder: Path, kind: str, change: Callable[[dict[str, Any]], Any]) -> str:
    """Save a tokenizer of a kind, changed by hand."""
    KINDS[kind]().save_pretrained(folder)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    return str(folder)


def _large_id(t: dict[str, Any]) -> None:
    vocabulary = t["model"]["vocab"]
    if isinstance(vocabulary, list):  # of a Unigram the place is the id
        _large_added_id(t)
    else:
        vocabulary[max(vocabulary, key=vocabulary.get)] = 2**31


def _large_added_id(t: dict[str, Any]) -> None:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    t["added_tokens"].append({"id": 2**31, "content": "<x>", **flags})


def _large_template_id(t: dict[str, Any]) -> None:
    token = {"id": "<x>", "ids": [2**31], "tokens": ["<x>"]}
    special, text = (
        {"SpecialToken": {"id": "<x>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    )
    pair = [text, {"Sequence": {"id": "B", "type_id": 0}}]
    t["post_processor"] = {
        "type": "TemplateProcessing", "single": [special, text], "pair": pair,
        "special_tokens": {"<x>": token},
    }  # fmt: skip


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _normalizers(*parts: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    def change(t: dict[str, Any]) -> None:
        t["normalizer"] = {"type": "Sequence", "normalizers": list(parts)}

    return change


def _charsmap() -> str:
    """A table of SentencePiece that writes a million letters for one."""
    return base64.b64encode((4).to_bytes(4, "little") + bytes(4) + b"a" * 1_000_000).decode()


GROWS = "characters for"
HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "an id": (_large_id, "the id 2147483648"),
    "an added id": (_large_added_id, "the id 2147483648"),
    "an id of the template": (_large_template_id, "the id 2147483648"),
    "six times thirty": (_normalizers(*[_replace({"String": "a"}, "a" * 30)] * 6), GROWS),
    "by an expression": (_normalizers(*[_replace({"Regex": "[a-z]"}, "aa")] * 30), GROWS),
    "between characters": (_normalizers(_replace({"Regex": "x*"}, "y" * 10**6)), GROWS),
    "an unknown expression": (_normalizers(_replace({"Regex": r"\h*+"}, "y" * 999)), GROWS),
    "byte levels": (_normalizers(*[{"type": "ByteLevel"}] * 30), GROWS),
    "beginnings": (_normalizers(*[{"type": "Prepend", "prepend": "ab"}] * 30), GROWS),
    "a table": (
        _normalizers({"type": "Precompiled", "precompiled_charsmap": _charsmap()}), GROWS,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", HOSTILE)
def test_a_tokenizer_that_memory_would_run_out_of_is_refused(
    case: str, kind: str, tmp_path: Path
) -> None:
    """Read as JSON before the library sees it, by whatever way it is named."""
    change, words = HOSTILE[case]
    name = changed(tmp_path / "t", kind, change)
    with pytest.raises(ModelFormatError, match=words):
        models.load_tokenizer(name)


@pytest.mark.parametrize("case", ["an id", "six times thirty", "an id of the template"])
def test_refusing_it_takes_no_memory(case: str, tmp_path: Path) -> None:
    name = changed(tmp_path / "t", "bytes", HOSTILE[case][0])
    grown, said = grown_by(
        "from fusion_core import models; models.load_tokenizer('zoo:llama')",
        f"models.load_tokenizer({name!r}).encode('a b a')",
    )
    assert HOSTILE[case][1] in said and grown < 20


def test_what_reaches_the_vocabulary_by_another_way_is_refused_there() -> None:
    """A tokenizer.model is converted by the library, and is no JSON."""
    backend = KINDS["bytes"]().backend_tokenizer
    from tokenizers.normalizers import Replace, Sequence

    backend.normalizer = Sequence([Replace("a", "a" * 30)] * 6)
    with pytest.raises(ModelFormatError, match=GROWS):
        tiny_tokenizers.named(backend, "x")


@pytest.mark.parametrize("file", ["tokenizer.json", "vocab.txt", "tokenizer.model"])
def test_files_have_a_size_limit(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.byte_bpe().save_pretrained(tmp_path)
    with (tmp_path / file).open("ab") as stream:
        stream.truncate(checks.MOST_BYTES + 1)  # takes no room on the disk
    with pytest.raises(TooLargeError, match=file):
        models.load_tokenizer(str(tmp_path))
    with pytest.raises(TooLargeError, match=file):
        checks.check_sizes("owner/name", {file: checks.MOST_BYTES + 1})


def test_known_tokenizers_make_texts_little_longer(testdata: Path) -> None:
    """Of 13 kinds in the field, one makes 36 characters of one at the most, none more."""
    found = list((testdata / "tokenizers").glob("*/tokenizer.json"))
    assert len(found) > 8
    for file in found:
        checks.check_files(file.parent.name, file.parent)


def test_a_hub_tokenizer_is_checked_at_the_revision_that_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / ("a" * 40)
    changed(snapshot, "bytes", _large_id)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: str(snapshot))
    with pytest.raises(ModelFormatError, match="the id"):
        tokens.load("owner/name")
    tiny.byte_bpe().save_pretrained(snapshot)
    given: dict[str, Any] = {}

    def asked(*_: Any, **options: Any) -> Any:
        given.update(options)
        return tiny.byte_bpe()

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", asked)
    assert tokens.load("owner/name").size == 300
    assert given["revision"] == "a" * 40


# Expressions that the Rust side gives up on -------------------------------------------------------


def _split(expression: str) -> Callable[[dict[str, Any]], None]:
    def change(t: dict[str, Any]) -> None:
        pattern = {"Regex": expression}
        split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
        t["pre_tokenizer"] = split

    return change


PANICS: dict[str, Callable[[dict[str, Any]], None]] = {
    "split": _split("(a+)+$"),
    "normaliser": _normalizers(_replace({"Regex": "(?:a|aa)+$"}, "b")),
    "nested": _split("(?:(a|a)(a|aa))+$"),
}
TEXT = "a" * 60 + "!"


@pytest.mark.parametrize("kind", ["bytes", "unigram", "characters"])
@pytest.mark.parametrize("case", PANICS)
def test_a_panic_is_one_sentence(case: str, kind: str, tmp_path: Path) -> None:
    """Such an error is no Exception, and whoever waits for one waits for ever."""
    name = changed(tmp_path / "t", kind, PANICS[case])
    tokenizer = models.load_tokenizer(name)
    target = models.load_tokenizer("zoo:llama")
    calls: list[Callable[[], Any]] = [
        lambda: tokenizer.encode(TEXT),
        lambda: tokenizer.spellings([TEXT.encode()]),
        lambda: pipeline.align(target, [tokenizer], TEXT),
    ]
    for call in calls:
        with pytest.raises(FusionError, match="gave up on a text"):
            call()


def test_the_command_line_says_one_line_of_it(tmp_path: Path) -> None:
    name = changed(tmp_path / "t", "bytes", PANICS["split"])
    command = [sys.executable, "-m", "fusion_core", "align", "--target", "zoo:llama"]
    ran = subprocess.run(
        [*command, "--source", name, "--text", TEXT],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert ran.returncode == 2 and ran.stdout == ""
    assert len(ran.stderr.strip().splitlines()) == 1 and "gave up on a text" in ran.stderr


# Chance -------------------------------------------------------------------------------------------


def _dropped(t: dict[str, Any]) -> None:
    t["model"]["dropout"] = 0.5


@pytest.mark.parametrize("kind", ["bytes", "characters"])
def test_tokens_are_not_drawn_by_chance(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """BPE dropout stayed on, so that no result repeated; it is switched off, and that is said."""
    plain = models.load_tokenizer(changed(tmp_path / "plain", kind, lambda t: None))
    assert not caplog.records
    text = "the cat sat on the mat and the dog ran to the park"
    drawn = Tokenizer.from_file(
        str(Path(changed(tmp_path / "t", kind, _dropped), "tokenizer.json"))
    )
    tokenizer = models.load_tokenizer(str(tmp_path / "t"))
    assert "switched off here" in caplog.text
    found = {tuple(tokenizer.encode(text).ids.tolist()) for _ in range(20)}
    assert found == {tuple(plain.encode(text).ids.tolist())}
    assert tokenizer.spellings([text.encode()] * 9) == plain.spellings([text.encode()] * 9)
    assert tokenizer.key == plain.key
    if kind == "bytes":
        assert len({tuple(drawn.encode(text).ids) for _ in range(20)}) > 1


def test_a_unigram_does_not_sample(caplog: pytest.LogCaptureFixture) -> None:
    backend = KINDS["unigram"]().backend_tokenizer
    text = "the cat sat on the mat"
    usual = backend.encode(text).ids
    backend.model.alpha, backend.model.nbest_size = 0.1, 64
    assert len({tuple(backend.encode(text).ids) for _ in range(30)}) > 1
    tokenizer = tiny_tokenizers.named(backend, "x")
    assert {tuple(tokenizer.encode(text).ids.tolist()) for _ in range(20)} == {tuple(usual)}
    assert "sampling, which is switched off" in caplog.text


def test_a_slow_tokenizer_does_not_sample(testdata: Path) -> None:
    from sentencepiece import SentencePieceProcessor

    [file, *_] = sorted((testdata / "tokenizers").glob("*/*.model"))
    native = SentencePieceProcessor(
        model_file=str(file), enable_sampling=True, nbest_size=-1, alpha=0.1
    )
    backend = SimpleNamespace(sentencepiece=native)
    text = "the cat sat on the mat"
    assert len({tuple(native.encode(text)) for _ in range(20)}) > 1
    checks.without_chance(backend, "x")
    assert len({tuple(native.encode(text)) for _ in range(20)}) == 1
