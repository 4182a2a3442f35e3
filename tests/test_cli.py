"""The command line: its flags, its JSON, its tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fusion_core import cli, fuse, mapping, zoo

TEXT = "Ünïcödé — 東京 2026年, Привет! مرحبا 👩🏽‍🚀"
LLAMA, *SPECIALISTS = (f"zoo:{name}" for name in zoo.NAMES)
PAIR = ("--target", LLAMA, "--source", SPECIALISTS[0])


def test_align(run, testdata: Path) -> None:
    names = [str(testdata / "tokenizers" / n) for n in ("llama-2-7b-fast", "gpt2", "qwen1.5")]
    report = run(
        "align", "--target", names[0], "--source", names[1], "--source", names[2], "--text", TEXT
    )
    assert set(report) == {"bytes", "target", "sources"}
    assert report["bytes"] == len(TEXT.encode())
    assert report["target"]["model"] == names[0]
    tokens = report["target"]["tokens"]
    assert set(tokens[0]) == {"id", "text", "start", "end", "special"}
    assert tokens[0]["special"] and tokens[0]["end"] == 0 and not tokens[1]["special"]
    assert report["target"]["lossless"] is True and report["target"]["lost"] == []
    for source, name in zip(report["sources"], names[1:], strict=True):
        assert source["model"] == source["encoding"]["model"] == name
        assert len(source["boundary"]) == len(tokens)
        own = source["encoding"]["tokens"]
        for t0, t1, s0, s1 in source["groups"]:
            assert tokens[t0]["start"] == own[s0]["start"]
            assert tokens[t1 - 1]["end"] == own[s1 - 1]["end"]
        ends = {0} | {t["end"] for t in own if not t["special"]}
        rows = [0, *(t["end"] for t in tokens if not t["special"])][:-1]
        assert source["coverage"] == pytest.approx(np.mean([b in ends for b in rows]))
        assert source["coverage"] <= source["coverage_with_prefix"] == 1.0


def test_align_reads_a_file_as_it_is(run, tmp_path: Path) -> None:
    file = tmp_path / "text.md"
    file.write_bytes(b"a\r\n\r\nb \n")
    report = run("align", "--target", LLAMA, "--source", SPECIALISTS[0], "--text-file", str(file))
    assert report["bytes"] == 8
    assert report["target"]["tokens"][-1]["end"] == 8


def test_align_as_published(run) -> None:
    pair = ("--target", LLAMA, "--source", SPECIALISTS[0], "--text", TEXT)
    report = run("align", *pair, "--method", "dtw")
    (source,) = report["sources"]
    tokens, own = report["target"]["tokens"], source["encoding"]["tokens"]
    assert len(source["target_to_source"]) == len(tokens)
    for token, paired in zip(tokens, source["target_to_source"], strict=True):
        assert bool(paired) != token["special"]
        assert not any(own[i]["special"] for i in paired)
    (by_bytes,) = run("align", *pair)["sources"]
    assert "target_to_source" not in by_bytes
    assert by_bytes["boundary"] == source["boundary"]


@pytest.mark.parametrize("strategy", mapping.MATRICES)
def test_map_vocab(run, tmp_path: Path, monkeypatch, strategy: str) -> None:
    monkeypatch.setenv("FUSELAB_CACHE", str(tmp_path))
    out, docs = tmp_path / "map.npz", tmp_path / "docs.txt"
    docs.write_text("Mia has 12 apples.\n\nShe gives 5 to Tom.\n", encoding="utf-8")
    call = (
        "map-vocab",
        *("--target", LLAMA, "--source", SPECIALISTS[0]),
        *("--strategy", strategy, "--out", str(out)),
        *(("--text-file", str(docs)) if strategy == "statistical" else ()),
    )
    report = run(*call)
    arrays = np.load(out)
    rows, columns = arrays["shape"]
    assert report["shape"] == [rows, columns]
    assert len(arrays["indptr"]) == rows + 1
    assert len(arrays["indices"]) == len(arrays["weights"]) == arrays["indptr"][-1]
    assert arrays["indices"].max() < columns
    assert report["rows_mapped"] == int((np.diff(arrays["indptr"]) > 0).sum())
    assert (report["exact_matches"] > 0) == (strategy != "statistical")
    assert report["exact_matches"] <= report["rows_mapped"]
    assert len(arrays["confidence"]) == len(arrays["reason"]) == rows
    assert report["from_cache"] is False and report["seconds"] >= 0
    again = run(*call)
    assert again["from_cache"] is True and again["rows_mapped"] == report["rows_mapped"]
    assert ("distance" in arrays) == (strategy == "mined")


def test_transfer(run, testdata: Path) -> None:
    models = testdata / "models"
    report = run(
        "transfer",
        *("--target", str(models / "babyllama-tok105"), "--source", str(models / "stories260K")),
        *("--text-file", str(testdata / "data" / "tinystories" / "windows.txt")),
        *("--strategy", "prefix", "--source-top-k", "10", "--rows", "boundary"),
    )
    assert report["transfer_ce"] == pytest.approx(0.506, abs=0.02)
    assert report["inside"]["transfer_ce"] == pytest.approx(0.768, abs=0.02)
    for key in ("positions", "covered", "kept_mass", "target_ce", "native_positions", "native_ce"):
        assert report[key] > 0
    assert set(report["inside"]) == {"positions", "kept_mass", "transfer_ce", "target_ce"}


def test_transfer_of_every_strategy(run, capsys, tmp_path: Path) -> None:
    docs = tmp_path / "docs.txt"
    docs.write_text("Mia has 12 apples.\n\nShe gives 5 to Tom.\n", encoding="utf-8")
    call = ("transfer", "--target", LLAMA, "--source", SPECIALISTS[0], "--text-file", str(docs))
    study = run(*call, "--strategy", "all", "--corpus", str(docs))["strategies"]
    assert list(study) == list(mapping.STRATEGIES)
    assert len({(s["positions"], s["covered"], s["target_ce"]) for s in study.values()}) == 1
    for name, score in study.items():
        alone = run(*call, "--strategy", name, "--corpus", str(docs))
        assert alone["transfer_ce"] == pytest.approx(score["transfer_ce"], rel=1e-6)
        assert (score["inside"]["positions"] > 0) == (name == "prefix")
    assert cli.main([*call, "--strategy", "all"]) == 0
    table = capsys.readouterr().out
    assert all(name in table for name in mapping.STRATEGIES)


@pytest.mark.parametrize("operator", fuse.OPERATORS)
@pytest.mark.parametrize("level", ["sequence", "token"])
def test_fuse(run, operator: str, level: str) -> None:
    text = "Mia has 12 apples and gives 5 to Tom."
    sources = [x for name in SPECIALISTS for x in ("--source", name)]
    report = run(
        "fuse",
        *("--target", LLAMA, *sources, "--text", text),
        *("--operator", operator, "--level", level, "--top-k", "4"),
    )
    tokens = report["target"]["tokens"]
    own = [i for i, t in enumerate(tokens) if not t["special"]]
    assert [p["index"] for p in report["positions"]] == own
    for position in report["positions"]:
        assert position["start"] == tokens[position["index"]]["start"]
        assert len(position["fused"]) == 4
        mass = sum(t["p"] for t in position["fused"]) + position["tail"]
        assert mass == pytest.approx(1, abs=1e-5)
        assert set(position["weights"]) == set(position["kept_mass"]) == set(SPECIALISTS)
        assert sum(position["weights"].values()) == pytest.approx(1, abs=1e-5)
        assert position["winner"] in {*SPECIALISTS, None}
        assert position["entropy"] >= 0
    assert set(report["bits_per_byte"]) == {LLAMA, *SPECIALISTS}
    assert report["fused_bits_per_byte"] > 0


@pytest.mark.parametrize("flag", ["--attribution", "--origins"])
def test_fuse_says_where_mass_is_from(run, flag: str) -> None:
    sources = [x for name in SPECIALISTS for x in ("--source", name)]
    report = run(
        "fuse",
        *("--target", LLAMA, *sources, "--text", "Mia has 12 apples.", "--operator", "confidence"),
        *("--with-target", "--chain-rule", "--source-top-p", "0.95", flag),
    )
    for position in report["positions"]:
        assert set(position["weights"]) == {LLAMA, *SPECIALISTS}
        for token in position["fused"]:
            assert set(token["from"]) == {LLAMA, *SPECIALISTS}
            parts = [
                sum(t["p"] for t in s["tokens"]) + s["other_tokens"] + s["target"]
                for s in token["from"].values()
            ]
            assert sum(parts) == pytest.approx(token["p"], abs=1e-5)


PROJECTION = {
    "strategy": "prefix", "corpus": None, "source_top_k": None, "source_top_p": None,
    "source_samples": None, "chain_rule": False, "temperature": 1.0, "seed": 0, "overlap": 0.25,
    "rows": "exact", "prune": 0.01,
}  # fmt: skip
FUSION = {
    "operator": "min_ce", "level": "sequence", "operator_temperature": 1.0, "with_target": False,
    "top_k": 10,
}  # fmt: skip
MODEL = {"device": "cpu", "dtype": None, "start": None, "end": None, "max_gb": 32.0}
FLAGS = {
    "align": {
        "tokenizer": [], "text": None, "text_file": None, "messages_file": None, "method": "bytes",
    },
    "map-vocab": {"tokenizer": [], "strategy": None, "out": None, "text_file": None},
    "transfer": PROJECTION | MODEL | {"tokenizer": [], "text_file": None},
    "fuse": FUSION | PROJECTION | MODEL | {
        "tokenizer": [], "text": None, "text_file": None, "attribution": False,
    },
    "generate": MODEL | {
        "tokenizer": [], "prompt": None, "operator": "confidence", "with_target": False,
        "strategy": "prefix",
        "max_new_tokens": 64, "temperature": 0.8, "top_p": 0.95, "seed": 0, "stop": [],
    },
    "cache": FUSION | PROJECTION | MODEL | {
        "tokenizer": [], "data": None, "out": None, "keep": "fused", "shard_bytes": 256_000,
    },
    "train": {
        "config": None, "out": None, "resume": False, "device": None, "dtype": None,
        "estimate": False,
    },
    "evaluate": MODEL | {
        "model": None, "text_file": None, "suite": None, "overlap": 0.25, "run_code": False,
    },
}  # fmt: skip


@pytest.mark.parametrize("command", FLAGS)
def test_every_flag_of_the_contract_has_its_default(command: str) -> None:
    (commands,) = (a for a in cli._parser()._actions if isinstance(a.choices, dict))
    parser = commands.choices[command]
    flags = {a.dest: a.default for a in parser._actions if a.dest not in ("help", "json")}
    pair = {} if command in ("train", "evaluate") else {"target": None, "source": None}
    assert flags == FLAGS[command] | pair
    named = {f for a in parser._actions for f in a.option_strings}
    assert {f"--{name.replace('_', '-')}" for name in FLAGS[command]} <= named
    assert parser.format_help()


def test_cache(run, tmp_path: Path) -> None:
    data = tmp_path / "docs.txt"
    data.write_text("Mia has 12 apples.\n\ndef add(a, b):\n    return a + b\n")
    sources = [x for name in SPECIALISTS for x in ("--source", name)]
    command = ("cache", "--target", LLAMA, *sources, "--data", str(data))
    for kind in ("fused", "sources"):
        folder = tmp_path / kind
        report = run(*command, "--out", str(folder), "--keep", kind)
        assert report["documents"] == 2 and report["shards"] == 1 and report["seconds"] > 0
        assert report["bytes"] == sum(f.stat().st_size for f in folder.iterdir())
        assert report["target_tokens"] > 10
    again = run(*command, "--out", str(tmp_path / "fused"))
    assert again["bytes"] == sum(f.stat().st_size for f in (tmp_path / "fused").iterdir())


def test_generate(run, capsys) -> None:
    command = ("generate", *PAIR, "--source", SPECIALISTS[1], "--prompt", "Mia has 12 apples")
    report = run(*command, "--max-new-tokens", "8", "--seed", "3")
    assert set(report) == {"target", "sources", "ensemble"}
    assert set(report["sources"]) == {SPECIALISTS[0], SPECIALISTS[1]}
    assert all(isinstance(t, str) for t in (report["target"], report["ensemble"]))
    assert run(*command, "--max-new-tokens", "8", "--seed", "3") == report
    others = [run(*command, "--max-new-tokens", "8", "--seed", str(s)) for s in (4, 5)]
    assert any(o != report for o in others)
    assert cli.main([*command, "--max-new-tokens", "4"]) == 0
    assert SPECIALISTS[1] in capsys.readouterr().out


def test_evaluate(run, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A cat.\n\nA dog.")
    report = run("evaluate", "--model", LLAMA, "--text-file", str(tmp_path / "a.txt"))
    score = report["models"][LLAMA]
    assert score["bytes"] == 12 and score["bits_per_byte"] > 0 and score["tasks"] == {}


def test_evaluate_the_toy_suite(run) -> None:
    report = run("evaluate", "--model", LLAMA, "--model", SPECIALISTS[0], "--suite", "toy")
    for score in report["models"].values():
        assert set(score["tasks"]) == {"reasoning", "commonsense", "code"}
        for task in score["tasks"].values():
            assert task["bits_per_byte"] > 0 and 0 <= task["accuracy"] <= 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("align", "--target", LLAMA, "--source", SPECIALISTS[0], "--text", "A cat."),
        ("fuse", "--target", LLAMA, "--source", SPECIALISTS[0], "--text", "A cat."),
        ("evaluate", "--model", LLAMA, "--text-file", "README.md"),
    ],
)
def test_without_json_a_table_is_printed(capsys, arguments: tuple[str, ...]) -> None:
    assert cli.main(list(arguments)) == 0
    printed = capsys.readouterr().out
    assert LLAMA in printed and not printed.startswith("{")


def test_a_text_of_one_byte(run) -> None:
    report = run("align", *PAIR, "--text", "x")
    assert report["bytes"] == 1 and report["sources"][0]["coverage_with_prefix"] == 1.0
