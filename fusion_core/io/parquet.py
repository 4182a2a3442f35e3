"""Column of texts of a Parquet file, read a little at a time and within a limit.

A file of some kilobytes may unfold to gigabytes: by compression, by a dictionary whose one entry
every row names, by values that repeat the beginning of the one before. What it unfolds to is asked
of its metadata first.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fusion_core.errors import FusionError, InputError, TooLargeError, is_out_of_memory, shown

ROWS = 64
"""Rows that are read at a time."""

HELD_BYTES = 64_000_000
"""Of values that repeat one another, decoded at a time."""

TEXT = {
    "string", "large_string", "string_view", "binary", "large_binary", "binary_view", "null",
}  # fmt: skip
"""What a column of texts may hold, as itself or in a dictionary; bytes are read as UTF-8."""

_OVERHEAD = 8
"""Bytes that a value takes beside its text, at the most: its length, and whether it is there."""

_REPEATING = "DELTA_BYTE_ARRAY"


def read_texts(path: str | Path, limit: int) -> Iterator[str | bytes | None]:
    """Read the column ``text`` of a Parquet file, or of all files in a folder of them.

    Args:
        path: the file or folder.
        limit: most bytes of text.

    Raises:
        InputError: it cannot be read, or has no such column.
        TooLargeError: there is more text, also where nearly all of it is the same.
    """
    place = Path(path)
    try:
        files = sorted(place.rglob("*.parquet")) if place.is_dir() else [place]
        if sum(file.stat().st_size for file in files) > limit:
            raise _too_large(path, limit)
        room = limit
        for file in files:
            for text, size in _file(file, limit):
                room -= size
                if room < 0:
                    raise _too_large(path, limit)
                yield text.as_py()
    except FusionError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path}: give an existing one.") from error
    except Exception as error:  # pyarrow has exceptions of many types for broken files
        if is_out_of_memory(error):
            raise
        raise InputError(
            f"{path} cannot be read as a Parquet file with a text column ({type(error).__name__}): "
            "check the file."
        ) from error


def _file(file: Path, limit: int) -> Iterator[tuple[Any, int]]:
    """Yield the values of a file as pyarrow has them, and their bytes; none is copied before."""
    import pyarrow as pa
    from pyarrow import compute
    from pyarrow.parquet import ParquetFile

    with ParquetFile(file) as plain_table:
        _check_column(plain_table.schema_arrow, file)
        about = plain_table.metadata
        columns = [_text_column(about.row_group(i)) for i in range(about.num_row_groups)]
    # A dictionary stays one: its entries are not written out for every row that names them.
    repeats = any("DELTA" in kind for column in columns for kind in column.encodings)
    table = ParquetFile(file, read_dictionary=None if repeats else ["text"])
    for group, column in enumerate(columns):
        rows = _rows_at_once(column, file, limit)
        for batch in table.iter_batches(rows, row_groups=[group], columns=["text"]):
            texts = batch.column(0)
            values, at = texts, range(len(texts))
            if isinstance(texts, pa.DictionaryArray):
                values, at = texts.dictionary, texts.indices.to_pylist()
            if pa.types.is_null(values.type):
                sizes = [0] * len(values)
            else:
                kind = pa.large_binary() if pa.types.is_large_string(values.type) else pa.binary()
                plain = values if "binary" in str(values.type) else values.cast(kind)
                sizes = compute.fill_null(compute.binary_length(plain), 0).to_pylist()
            for row, i in enumerate(at):
                yield texts[row], 0 if i is None else sizes[i]


def _text_column(group: Any) -> Any:
    """Return what a row group's metadata say of the column of texts."""
    columns = (group.column(i) for i in range(group.num_columns))
    return next(c for c in columns if c.path_in_schema.split(".")[0] == "text")


def _rows_at_once(column: Any, file: Path, limit: int) -> int:
    """Say how many rows of a group may be decoded at once.

    Raises:
        TooLargeError: its text has more than the limit by its metadata.
    """
    size = column.total_uncompressed_size
    if size - _OVERHEAD * min(column.num_values, limit) > limit:
        raise _too_large(file, limit)
    if _REPEATING not in column.encodings:
        return ROWS
    return max(1, min(ROWS, HELD_BYTES // max(1, size)))


def _too_large(path: str | Path, limit: int) -> TooLargeError:
    return TooLargeError(f"{path} has more than the limit of {limit:,} bytes: split it.")


def _check_column(schema: Any, file: Path) -> None:
    """Refuse a table that has no column ``text``, or one that holds something else."""
    if "text" not in schema.names:
        raise InputError(
            f"{file} has no text column, but {shown(schema.names)}: rename the one that holds the "
            "documents."
        )
    kind = schema.field("text").type
    if str(kind).startswith("dictionary"):
        kind = kind.value_type
    if str(kind) not in TEXT:
        raise InputError(
            f"The column text of {file} holds {str(kind)[:60]}, not text: write the documents "
            "into it as strings."
        )
