"""The command line's exit codes and its errors of one sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import bad_calls
import pytest

from fusion_core import cli, zoo

ROOT = Path(__file__).parent.parent
LLAMA, SPECIALIST, *_ = (f"zoo:{name}" for name in zoo.NAMES)
PAIR = ("--target", LLAMA, "--source", SPECIALIST)
TEXT = "Ünïcödé — 東京 2026年, Привет! مرحبا 👩🏽‍🚀"


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must be refused, and return its sentence."""

    def call(*arguments: str) -> str:
        assert cli.main(list(arguments)) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.count("\n") == 1 and printed.err.endswith("\n")
        return printed.err

    return call


BAD = {
    "unknown zoo model": (("fuse", "--target", "zoo:bert", *PAIR[2:], "--text", "x"), "zoo:llama"),
    "path behind zoo": (("align", "--target", "zoo:../../etc", *PAIR[2:], "--text", "x"), "zoo:"),
    "missing folder": (("fuse", "--target", "./missing", *PAIR[2:], "--text", "x"), "./missing"),
    "empty text": (("fuse", *PAIR, "--text", ""), "empty"),
    "empty text to align": (("align", *PAIR, "--text", ""), "empty"),
    "k = 0": (("fuse", *PAIR, "--text", "x", "--top-k", "0"), "top_k"),
    "source k = 0": (("fuse", *PAIR, "--text", "x", "--source-top-k", "0"), "source_top_k"),
    "k is no number": (("fuse", *PAIR, "--text", "x", "--top-k", "many"), "--top-k"),
    "the same model twice": (("fuse", *PAIR, "--source", LLAMA, "--text", "x"), "named twice"),
    "twice in align": (("align", *PAIR, "--source", LLAMA, "--text", "x"), "named twice"),
    "unknown strategy": (("fuse", *PAIR, "--text", "x", "--strategy", "magic"), "prefix"),
    "unknown operator": (("fuse", *PAIR, "--text", "x", "--operator", "vote"), "min_ce"),
    "unknown level": (("fuse", *PAIR, "--text", "x", "--level", "word"), "sequence"),
    "unknown method": (("align", *PAIR, "--text", "x", "--method", "magic"), "bytes"),
    "no corpus": (("map-vocab", *PAIR, "--strategy", "statistical", "--out", "x"), "corpus"),
    "no matrix": (("map-vocab", *PAIR, "--strategy", "ot", "--out", "x"), "position"),
    "missing corpus": (("fuse", *PAIR, "--text", "x", "--corpus", "none.txt"), "none.txt"),
    "messages warped": (
        ("align", *PAIR, "--messages-file", "x.json", "--method", "dtw"),
        "by bytes",
    ),
    "missing messages": (("align", *PAIR, "--messages-file", "none.json"), "none.json"),
    "lone surrogate": (("align", *PAIR, "--text", "a\ud800"), "surrogate"),
    "unknown suite": (("evaluate", "--model", LLAMA, "--suite", "big"), "toy"),
    "unknown device": (("fuse", *PAIR, "--text", "x", "--device", "abacus"), "cpu"),
    "missing file": (("align", *PAIR, "--text-file", "none.txt"), "none.txt"),
    "no text": (("fuse", *PAIR), "--text"),
    "no command": ((), "command"),
    "unknown command": (("melt",), "melt"),
    "temperature 0": (("fuse", *PAIR, "--text", "x", "--temperature", "0"), "temperature"),
    "two cuts": (
        ("fuse", *PAIR, "--text", "x", "--source-top-k", "3", "--source-top-p", "0.5"),
        "not allowed with",
    ),
    "top p of 2": (("fuse", *PAIR, "--text", "x", "--source-top-p", "2"), "source_top_p"),
    "chain rule, warm": (
        ("fuse", *PAIR, "--text", "x", "--chain-rule", "--temperature", "2"),
        "chain",
    ),
    "label to generate": (("generate", *PAIR, "--prompt", "x", "--operator", "min_ce"), "mean"),
    "empty prompt": (("generate", *PAIR, "--prompt", ""), "empty"),
    "cold text": (("generate", *PAIR, "--prompt", "x", "--temperature", "-1"), "temperature"),
    "no new token": (("generate", *PAIR, "--prompt", "x", "--max-new-tokens", "0"), "max_new"),
    "cache into the repository": (
        ("cache", *PAIR, "--data", "README.md", "--out", "fusion_core"),
        "no part of a cache",
    ),
    "kind of cache": (
        ("cache", *PAIR, "--data", "README.md", "--out", "no/where", "--keep", "all"),
        "fused, sources",
    ),
    "no shard": (
        ("cache", *PAIR, "--data", "README.md", "--out", "no/where", "--shard-bytes", "0"),
        "--shard-bytes",
    ),
    "no such user": (("align", "--target", "~nosuch/x", *PAIR[2:], "--text", "x"), "~nosuch"),
    "no file to write": (("map-vocab", *PAIR, "--strategy", "exact", "--out", "."), "folder"),
    "empty file name": (("evaluate", "--model", LLAMA, "--text-file", ""), "read"),
    "too large": (("fuse", *PAIR, "--text", "x", "--max-gb", "0.001"), "limit"),
    "overlap": (("evaluate", "--model", LLAMA, "--suite", "toy", "--overlap", "2"), "overlap"),
    "map to itself": (
        ("map-vocab", "--target", LLAMA, "--source", LLAMA, "--strategy", "exact", "--out", "x"),
        "twice",
    ),
    "nowhere to write": (
        ("map-vocab", *PAIR, "--strategy", "exact", "--out", "no/such/map.npz"),
        "no/such",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence(refused, case: str) -> None:
    arguments, named = BAD[case]
    assert named in refused(*arguments)


def test_bad_files_are_one_sentence(refused, tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1"))
    (tmp_path / "big.txt").write_bytes(b"x" * 2_000_000)
    (tmp_path / "empty.txt").write_bytes(b"")
    for command in ("align", "fuse"):
        assert "not UTF-8" in refused(command, *PAIR, "--text-file", str(tmp_path / "latin.txt"))
        assert "1,000,000" in refused(command, *PAIR, "--text-file", str(tmp_path / "big.txt"))
        assert "empty" in refused(command, *PAIR, "--text-file", str(tmp_path / "empty.txt"))
    assert "not UTF-8" in refused("transfer", *PAIR, "--text-file", str(tmp_path / "latin.txt"))
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (bare / file).write_bytes((zoo.path("llama") / file).read_bytes())
    assert "no weights" in refused("fuse", *PAIR, "--source", str(bare), "--text", "x")
    assert cli.main(["align", *PAIR, "--source", str(bare), "--text", "x"]) == 0


def process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fusion_core", *arguments],
        capture_output=True,
        timeout=120,
        check=False,
        cwd=ROOT,
        encoding="utf-8",
        env=os.environ | environment,
    )


def test_a_text_of_ten_megabytes_is_one_sentence(refused, tmp_path: Path) -> None:
    file = tmp_path / "long.txt"
    file.write_text("word " * 2_000_000, encoding="utf-8")
    assert "limit" in refused("align", *PAIR, "--text-file", str(file))


def test_a_broken_tokenizer_file_is_one_sentence(refused, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "tokenizer.json").write_text('{"version": "1.0", "model":', encoding="utf-8")
    (folder / "tokenizer_config.json").write_text("{}", encoding="utf-8")
    assert "broken" in refused("align", "--target", str(folder), *PAIR[2:], "--text", "x")


def test_as_a_process() -> None:
    done = process("fuse", *PAIR, "--text", TEXT, "--json", PYTHONIOENCODING="cp1252")
    assert done.returncode == 0 and done.stderr == ""
    assert json.loads(done.stdout)["target"]["model"] == LLAMA
    refused = process("fuse", *PAIR, "--text", "x", "--source", "./missing")
    assert refused.returncode == 2 and refused.stdout == ""
    assert refused.stderr.count("\n") == 1


def test_an_internal_fault_exits_with_1() -> None:
    code = "import sys; from fusion_core import cli, pipeline; pipeline.align = None; "
    code += f"sys.exit(cli.main(['align', *{PAIR!r}, '--text', 'x']))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 1 and "'NoneType' object is not callable" in done.stderr


def test_bad_calls_are_one_line_or_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 98 bad calls 15 ended in a traceback and 3 in results that were no numbers, said of none.

    A temperature of 1e-320 makes every probability NaN; a count of 10^30 fits no integer; a path of
    5,000 characters or with a NUL is none; aliases of YAML unfold to a billion values.
    """
    answered = 0
    for call in bad_calls.calls(tmp_path):
        began = time.monotonic()
        status = cli.main([*call, "--json"])
        said = capsys.readouterr()
        assert time.monotonic() - began < 10, call
        if status == 0:
            answered += 1
            assert said.out.count("\n") == 1 and "null" not in said.out, call
        else:
            assert status == 2 and said.out == "" and said.err.count("\n") == 1, call
    assert answered < 70
