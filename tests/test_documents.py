"""Files of texts and documents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fusion_core.errors import InputError, TooLargeError
from fusion_core.io import documents


def test_a_text_is_read_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes("\ufeffa\r\nb\n\n".encode())
    assert documents.read_text(file) == "\ufeffa\r\nb\n\n"


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.txt", "one\ntwo\n\nthree\n \n\nfour\n", ["one\ntwo", "three", "four"]),
        ("a.txt", "one\n\nstill one\n<|endoftext|>\ntwo", ["one\n\nstill one", "two"]),
        ("a.txt", "a <|endoftext|> inside\n\nb", ["a <|endoftext|> inside", "b"]),
        ("a.jsonl", '{"text": "a\\n\\nb"}\n\n{"text": "c", "id": 1}\n', ["a\n\nb", "c"]),
        ("a.jsonl", '\ufeff{"text": "with a byte-order mark"}', ["with a byte-order mark"]),
    ],
)
def test_documents(tmp_path: Path, name: str, data: str, expected: list[str]) -> None:
    (tmp_path / name).write_text(data, encoding="utf-8")
    assert documents.read_documents(tmp_path / name) == expected


def test_parquet(tmp_path: Path) -> None:
    pd.DataFrame({"text": ["a", "", "b"], "n": [1, 2, 3]}).to_parquet(tmp_path / "a.parquet")
    assert documents.read_documents(tmp_path / "a.parquet") == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", b"\xff\xfe", "not UTF-8"),
        ("a.txt", b" \n\n", "no document"),
        ("a.jsonl", b"{oops", "line 1"),
        ("a.jsonl", b'{"text": 3}', "line 1"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\\ud800"}', "document 2"),
        ("a.parquet", b"PAR1 but not", "Parquet"),
        ("a.pdf", b"x", "no .txt"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message):
        documents.read_documents(tmp_path / name)


def test_missing_and_large_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="existing"):
        documents.read_text(tmp_path / "none.txt")
    (tmp_path / "big.txt").write_bytes(b"x" * 2_000_000)
    with pytest.raises(TooLargeError, match="limit of 1,000,000"):
        documents.read_text(tmp_path / "big.txt")
    with pytest.raises(TooLargeError, match="limit"):
        documents.read_text("/dev/zero")
    pd.DataFrame({"text": ["x" * 1000]}).to_parquet(tmp_path / "big.parquet")
    with pytest.raises(TooLargeError, match="limit"):
        documents.read_documents(tmp_path / "big.parquet", limit=100)


def test_arrays_are_written_whole(tmp_path: Path) -> None:
    documents.write_arrays(tmp_path / "a.npz", {"x": np.arange(3)})
    assert np.load(tmp_path / "a.npz")["x"].tolist() == [0, 1, 2]
    assert [f.name for f in tmp_path.iterdir()] == ["a.npz"]
    with pytest.raises(InputError, match="cannot be written"):
        documents.write_arrays(tmp_path / "no" / "a.npz", {"x": np.arange(3)})
    with pytest.raises(InputError, match="is a folder"):
        documents.write_arrays(".", {"x": np.arange(3)})


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_large_file_is_drawn_from(tmp_path: Path, kind: str) -> None:
    texts = [f"document number {i}" for i in range(300)]
    file = tmp_path / f"large.{kind}"
    frame = pd.DataFrame({"text": [*texts, "", "  "]})
    if kind == "parquet":
        frame.to_parquet(file)
    else:
        frame.to_json(file, orient="records", lines=True)
    assert documents.load_documents(str(file)) == texts
    some = documents.load_documents(str(file), at_most=1000, held=1000, seed=1)
    assert set(some) < set(texts) and len(set(some)) == len(some)
    assert 900 < sum(map(len, some)) <= 1000
    assert some == documents.load_documents(str(file), at_most=1000, held=1000, seed=1)
    assert some != documents.load_documents(str(file), at_most=1000, held=1000, seed=2)


def test_a_dataset_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    for name, said in (
        ("no-one/no-such-dataset", "no file no-one/no-such-dataset, and no hub dataset"),
        (str(tmp_path / "none.jsonl"), "cannot be read"),
        ("no file", "cannot be read"),
    ):
        with pytest.raises(InputError, match=said) as caught:
            documents.load_documents(name)
        assert "\n" not in str(caught.value)
    (tmp_path / "bad.jsonl").write_text('{"content": "' + "x" * 2000 + '"}\n')
    with pytest.raises(InputError, match="column text"):
        documents.load_documents(str(tmp_path / "bad.jsonl"), held=1000)


def test_long_documents_are_cut_where_it_reads_best() -> None:
    lines = "".join(f"line {i} of some\n" for i in range(100))
    words = "word " * 300
    characters = "東京" * 300
    for text in (lines, words, characters, "short"):
        pieces = documents.pieces([text], 200)
        assert "".join(pieces) == text
        assert all(len(p.encode()) <= 200 for p in pieces)
        assert len(pieces) <= 2 * len(text.encode()) // 200 + 1
    assert all(p.endswith("\n") for p in documents.pieces([lines], 200))
    assert all(p.endswith(" ") for p in documents.pieces([words], 200))
    (rest,) = documents.pieces([" " * 1000 + "end"], 200)  # white space alone is no document
    assert rest.strip() == "end"


def test_a_sample_reaches_through_all_documents() -> None:
    texts = [f"{i:04d}" for i in range(100)]
    assert documents.sample(texts, 40) == texts[::10]
    assert documents.sample(texts, 10**6) == texts
    assert documents.sample(["x" * 100], 1) == ["x" * 100]
