"""Files are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusion_core.io.files import folder_whole, write_whole


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    for content in (b"one", b"another"):
        write_whole(file, content)
        assert file.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_a_failed_attempt_leaves_what_was_there(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "a.bin"
    write_whole(file, b"before")

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(file, b"after")
    assert file.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_a_folder_is_whole_or_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with folder_whole(folder) as part:
        (part / "a").write_text("1")
        assert not folder.exists()
    with pytest.raises(FileNotFoundError), folder_whole(folder) as part:
        (part / "b" / "missing").write_text("2")
    assert [f.name for f in tmp_path.iterdir()] == ["model"]
    assert [f.name for f in folder.iterdir()] == ["a"]
    with folder_whole(folder) as part:
        (part / "c").write_text("3")
    assert [f.name for f in folder.iterdir()] == ["c"]
