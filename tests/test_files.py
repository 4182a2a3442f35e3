"""Files are there whole or not at all."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fusion_core import cli
from fusion_core.errors import InputError
from fusion_core.io.documents import write_arrays
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


# What is no file of somebody's is not replaced: `--out /dev/full` became a regular file.


def _made(kind: str, tmp_path: Path) -> tuple[Path, Callable[[], object]]:
    """Make something at a path, and what tells whether it is as it was."""
    path, kept = tmp_path / "out.npz", tmp_path / "kept"
    kept.write_bytes(b"kept")
    if kind == "link":
        path.symlink_to(kept)
    elif kind == "dangling":
        path.symlink_to(tmp_path / "nothing")
    elif kind == "link to a device":
        path.symlink_to("/dev/full")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(str(path))
    elif kind == "folder":
        path.mkdir()
    else:
        try:
            os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 7))
        except PermissionError:
            pytest.skip("devices are made by the administrator alone")
    return path, lambda: (path.lstat().st_mode, path.lstat().st_ino, kept.read_bytes())


KINDS = ("link", "dangling", "link to a device", "pipe", "socket", "folder", "device")


@pytest.mark.parametrize("kind", KINDS)
def test_only_regular_files_are_replaced(kind: str, tmp_path: Path) -> None:
    path, state = _made(kind, tmp_path)
    before = state()
    with pytest.raises(OSError, match="is there, which is not replaced"):
        write_whole(path, b"new")
    assert state() == before
    with pytest.raises(InputError):
        write_arrays(path, {"a": np.zeros(3)})
    assert state() == before
    if kind != "folder":
        with pytest.raises(OSError, match="not replaced"), folder_whole(path):
            pass
        assert state() == before


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe"])
def test_the_command_line_replaces_no_link(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, state = _made(kind, tmp_path)
    before = state()
    models = ["--target", "zoo:llama", "--source", "zoo:mpt-code", "--strategy", "exact"]
    assert cli.main(["map-vocab", *models, "--out", str(path)]) == 2
    assert "is there, which is not replaced" in capsys.readouterr().err
    assert state() == before
