"""Tables of strangers: a file of kilobytes must not become gigabytes.

An upload of 40 KB took 4.3 GB: its dictionary had one entry of 67 MB, which 64 rows named.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hostile import grown_by
from pyarrow import parquet

from app.limits import Limits
from app.training import data
from app.training.form import Form
from fusion_core import isolated
from fusion_core.errors import InputError, TooLargeError
from fusion_core.io import documents

WAYS: dict[str, dict[str, Any]] = {
    "dictionary": {},
    "dictionary of another reader": {"store_schema": False},
    "plain": {"use_dictionary": False},
    "repeated beginnings": {"column_encoding": {"text": "DELTA_BYTE_ARRAY"}},
    "lengths apart": {"column_encoding": {"text": "DELTA_LENGTH_BYTE_ARRAY"}},
}


def write(file: Path, way: str, texts: list[str | None], **more: Any) -> Path:
    """Write a table in a way of packing."""
    options = WAYS[way]
    if "column_encoding" in options:
        options = options | {"use_dictionary": False}
    table = pa.table({"n": list(range(len(texts))), "text": pa.array(texts, pa.string())})
    parquet.write_table(table, file, compression="zstd", **(options | more))
    return file


@pytest.mark.parametrize("way", WAYS)
def test_a_bomb_is_refused_in_little_memory(way: str, tmp_path: Path) -> None:
    size = 1_000_000 if way == "plain" else 20_000_000 // 4
    file = write(tmp_path / "x.parquet", way, ["a" * size] * 64)
    assert file.stat().st_size < 60_000
    setup = "from fusion_core.io import documents; import pyarrow.parquet, pyarrow.compute"
    for limit, most in ((1_000_000, 40), (30_000_000, 250)):
        grown, said = grown_by(setup, f"documents.read_documents({str(file)!r}, limit={limit})")
        assert "more than the limit" in said and grown < most


@pytest.mark.parametrize("kind", ["string", "large_string", "binary", "string_view", "null"])
@pytest.mark.parametrize("way", WAYS)
def test_texts_are_what_pandas_reads(way: str, kind: str, tmp_path: Path) -> None:
    """Several groups and pages, nulls, repeated and empty texts, held against another reader."""
    texts: list[str | None] = [
        None if i % 7 == 3 else f"text {i % 50} é" * (i % 5) for i in range(500)
    ]
    file = tmp_path / "x.parquet"
    options = WAYS[way] | ({"use_dictionary": False} if "column_encoding" in WAYS[way] else {})
    if kind in ("null", "string_view"):
        options = {}
    array = pa.nulls(9) if kind == "null" else pa.array(texts, pa.string()).cast(kind)
    parquet.write_table(pa.table({"text": array}), file, row_group_size=130, **options)
    found = pd.read_parquet(file)["text"].tolist()
    expected = [
        t.decode() if isinstance(t, bytes) else t for t in found if isinstance(t, bytes | str)
    ]
    if kind == "null":
        with pytest.raises(InputError, match="no document"):
            documents.read_documents(file)
        return
    assert documents.read_documents(file) == [t for t in expected if t.strip()]


def test_the_limit_is_of_the_text_alone(tmp_path: Path) -> None:
    texts: list[str | None] = [f"{i:05d}" for i in range(1000)]
    file = write(tmp_path / "x.parquet", "plain", texts)
    room = 100_000
    assert len(documents.read_documents(file, limit=room)) == 1000
    with pytest.raises(TooLargeError):
        documents.read_documents(write(file, "dictionary", ["x" * 1000] * 101), limit=room)


def test_a_public_page_reads_it_in_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metadata may lie; what its pages hold is found out where the memory has a limit."""
    file = write(
        tmp_path / "x.parquet", "plain", ["some text to learn from " * 9, "more of it " * 9]
    )
    form = Form("zoo:llama", ("zoo:mpt-code",), domains=(), file=str(file))
    called: list[str] = []
    plain = isolated.call

    def call(function: str, *args: Any, **options: Any) -> Any:
        called.append(function)
        return plain(function, *args, **options)

    monkeypatch.setattr(isolated, "call", call)
    here = data.read(form, Limits())
    assert not called
    assert data.read(form, Limits(local_folders=False)) == here and len(called) == 1
    write(file, "dictionary", ["x" * 10_000_000] * 64)
    with pytest.raises(TooLargeError, match="Your file has more than the limit of 1,000,000"):
        data.read(form, Limits(local_folders=False, data_bytes=1_000_000))
