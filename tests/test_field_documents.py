"""Documents as people bring them: marks, other encodings, other columns, mistyped paths."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from app.limits import Limits
from app.training import data as training_data
from app.training.form import Form
from fusion_core import cli
from fusion_core.config import FusionConfig, RunConfig, may_be_dataset
from fusion_core.errors import InputError, TooLargeError
from fusion_core.io import documents

MARK = "\ufeff"
LONG = "A first document that is long enough to be cut in two parts.\n" * 4


@pytest.fixture(autouse=True)
def short_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library sleeps for seconds when a stream of Parquet ends."""
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0.1)


def one_sentence(caught: Any) -> str:
    said = str(caught.value)
    assert "\n" not in said and said.endswith(".") and "Traceback" not in said
    return said


# Byte-order marks -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.txt", "one\n\ntwo", ["one", "two"]),
        ("a.md", "# one\n\ntwo", ["# one", "two"]),
        ("plain", "one", ["one"]),
        ("a.txt", "<|endoftext|>\none", ["one"]),
        ("a.txt", f"one {MARK} more", [f"one {MARK} more"]),
        ("a.jsonl", '{"text": "one"}\n', ["one"]),
    ],
)
def test_a_byte_order_mark_is_no_text(tmp_path: Path, name: str, content: str, found: list) -> None:
    """Editors on Windows write one (NVDLI/LDL#3, langchain-ai/langchain-community#138)."""
    file = tmp_path / name
    file.write_bytes(codecs.BOM_UTF8 + content.encode())
    assert documents.read_documents(file) == found
    assert documents.load_documents(str(file)) == found
    if file.suffix == ".jsonl":
        assert documents.load_documents(str(file), held=1) == found
    assert documents.read_text(file) == MARK + content  # as `--text-file` promises


def test_it_is_none_where_a_page_messages_or_settings_bring_it(tmp_path: Path) -> None:
    form = Form("zoo:llama", ("zoo:mpt-code",), domains=(), text=MARK + LONG)
    file = tmp_path / "upload.txt"
    file.write_bytes(codecs.BOM_UTF8 + LONG.encode())
    pasted = training_data.read(form, Limits()).train
    uploaded = training_data.read(
        Form("zoo:llama", ("zoo:mpt-code",), domains=(), file=str(file)), Limits()
    ).train
    assert pasted == uploaded and pasted[0].startswith("A first")
    chat = [{"role": "user", "content": "hi"}]
    (tmp_path / "chat.json").write_bytes(codecs.BOM_UTF8 + json.dumps(chat).encode())
    assert documents.read_messages(tmp_path / "chat.json") == chat
    settings = "target: zoo:llama\nmode: clm\ndata: upload.txt\n"
    (tmp_path / "run.yaml").write_bytes(codecs.BOM_UTF8 + settings.encode())
    assert RunConfig.read(tmp_path / "run.yaml").data == str(file)


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("utf-16", "is UTF-16, not UTF-8: save it as UTF-8"),
        ("utf-16-le", "looks like UTF-16"),
        ("utf-16-be", "looks like UTF-16"),
        ("utf-32", "is UTF-32, not UTF-8"),
        ("latin-1", "not UTF-8 \\(byte"),
    ],
)
def test_another_encoding_is_named(tmp_path: Path, encoding: str, said: str) -> None:
    text = "target: café" if encoding == "latin-1" else "target: a plain text"
    for name, read in (
        ("a.txt", documents.read_documents),
        ("a.jsonl", documents.read_documents),
        ("a.json", documents.read_messages),
        ("a.yaml", RunConfig.read),
    ):
        file = tmp_path / name
        file.write_bytes(text.encode(encoding))
        if name == "a.yaml" and encoding.endswith("e"):
            said = "YAML"
        with pytest.raises(InputError, match=said) as caught:
            read(file)
        one_sentence(caught)


# Missing paths --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "hub"),
    [
        ("data/train.txt", False),
        ("data/train.JSONL", False),
        ("data/train.csv", False),
        ("here/corpus", False),
        ("./corpus", False),
        ("~someone/corpus", False),
        ("/no/corpus", False),
        ("a/b/c", False),
        ("corpus", False),
        ("owner/data-v1.1", True),
        ("texts/corpus", True),
    ],
)
def test_a_missing_file_is_no_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, hub: bool
) -> None:
    """A mistyped path must not be answered by the hub (hiyouga/LlamaFactory#8240)."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda name, **_: asked.append(name) or 1 / 0)
    assert may_be_dataset(name) == hub
    with pytest.raises(InputError) as caught:
        documents.load_documents(name)
    said = one_sentence(caught)
    assert ("no hub dataset" in said) == hub and name.removeprefix("./") in said
    config = RunConfig.of({"target": "zoo:llama", "mode": "clm", "data": name}, tmp_path)
    assert (config.data == name) == hub or name.startswith("/")
    assert asked == [name] * hub


# Columns --------------------------------------------------------------------------------------

TEXTS = ["one", None, "", "zwei é"]
BYTES = [t and t.encode() for t in TEXTS]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(TEXTS, pa.string()),
        pa.array(TEXTS, pa.large_string()),
        pa.array(BYTES, pa.binary()),
        pa.array(BYTES, pa.large_binary()),
        pa.array(TEXTS, pa.string()).dictionary_encode(),
        pa.array(BYTES, pa.binary()).dictionary_encode(),
    ],
    ids=lambda c: str(c.type)[:24],
)
def test_columns_of_text_are_read(tmp_path: Path, column: pa.Array) -> None:
    """Other writers store text as bytes (apache/spark#1855, apache/datafusion#12788)."""
    file = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"id": range(4), "text": column}), file)
    assert documents.read_documents(file) == ["one", "zwei é"]
    assert sorted(documents.load_documents(str(file), held=1)) == ["one", "zwei é"]


def test_a_folder_of_parquet_files_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").mkdir()
    for i in range(3):
        parquet.write_table(pa.table({"text": [f"{i}"]}), tmp_path / "a.parquet" / f"{i}.parquet")
    assert documents.read_documents(tmp_path / "a.parquet") == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.array([1, 2]), "int64"),
        (pa.array([1.5, None]), "double"),
        (pa.array([["a"], []]), "list"),
        (pa.array([{"a": "b"}]), "struct"),
        (pa.array([1, 1]).dictionary_encode(), "int64"),
        (pa.array(np.zeros(2, "datetime64[s]")), "timestamp"),
    ],
    ids=lambda c: str(getattr(c, "type", c))[:20],
)
def test_columns_of_something_else_are_named(tmp_path: Path, column: pa.Array, kind: str) -> None:
    file = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"text": column}), file)
    with pytest.raises(InputError, match=f"column text of .* holds {kind}.*not text") as caught:
        documents.read_documents(file)
    one_sentence(caught)
    with pytest.raises(InputError, match=r'"text" of .* must be text, not') as caught:
        documents.load_documents(str(file), held=1)
    one_sentence(caught)


def test_the_columns_that_are_there_are_named(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"content": ["a"], "id": [1]}), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text('{"content": "a", "id": 1}\n')
    for name, held in (
        ("a.parquet", 1 << 20),
        ("a.parquet", 1),
        ("a.jsonl", 1 << 20),
        ("a.jsonl", 1),
    ):
        with pytest.raises(InputError, match=r"'content', 'id'") as caught:
            documents.load_documents(str(tmp_path / name), held=held)
        one_sentence(caught)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"text": [b"caf\xe9"]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="not UTF-8") as caught:
        documents.read_documents(tmp_path / "a.parquet")
    one_sentence(caught)


@pytest.mark.parametrize("wrong", [5, True, ["a"], {"a": 1}, 1.5])
def test_lines_of_something_else_are_named(tmp_path: Path, wrong: Any) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "a"}\n{"text": null}\n' + json.dumps({"text": wrong}))
    with pytest.raises(InputError, match=r"line 3.* must be text, not") as caught:
        documents.read_documents(file)
    one_sentence(caught)
    file.write_text('{"text": "a"}\n{"text": null}\n')
    assert documents.read_documents(file) == ["a"]
    file.write_text("[" * 100_000)
    with pytest.raises(InputError, match="no JSON"):
        documents.read_documents(file)


def test_a_small_upload_that_unfolds_is_refused(tmp_path: Path) -> None:
    """Dictionaries, too: a batch of them is small, the texts that it stands for are not."""
    same = pa.array(["x" * 1000] * 5000)
    for column in (same, same.cast(pa.binary()), same.dictionary_encode()):
        file = tmp_path / "a.parquet"
        parquet.write_table(pa.table({"text": column}), file)
        assert file.stat().st_size < 100_000
        form = Form("zoo:llama", ("zoo:mpt-code",), domains=(), file=str(file))
        with pytest.raises(TooLargeError, match="Your file has more than the limit of 100,000"):
            training_data.read(form, Limits(data_bytes=100_000))


# Settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"operator": ["min_ce"]},
        {"strategy": {}},
        {"level": None},
        {"source_top_p": [1]},
        {"overlap": "much"},
        {"temperature": 10**400},
        {"top_k": True},
    ],
    ids=str,
)
def test_settings_of_another_type_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))) as caught:
        FusionConfig(**wrong)
    assert len(one_sentence(caught)) < 200


def test_the_command_line_says_it_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parquet.write_table(pa.table({"text": [1, 2]}), tmp_path / "a.parquet")
    arguments = ["--model", "zoo:llama", "--text-file", str(tmp_path / "a.parquet")]
    assert cli.main(["evaluate", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "int64" in err
