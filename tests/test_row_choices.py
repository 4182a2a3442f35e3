"""Exact rows and rows at the sources' boundaries, as they are asked for and named everywhere.

That a token ends where it does says how a text does not go on: a score of such rows flatters.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import byte_bpe, saved
from tokenizers import Regex, pre_tokenizers

from fusion_core import cli, compare, corpus, models, pipeline, plots, reports, runs
from fusion_core.benchmark.toy_suite import choices
from fusion_core.cache import Cache, building
from fusion_core.config import FusionConfig, RunConfig
from fusion_core.errors import InputError
from fusion_core.reading import read, read_documents
from fusion_core.records import leaks
from fusion_core.training import checks, data

SOURCES = ["zoo:mpt-code", "zoo:gpt2-story", "zoo:neox-reason"]
TEXT = "def add(a, b):\n    return a + b  # Tom has 3 apples."
CHOSEN, KNOWN = "chosen knowing each token", "knows the source's boundaries"
NO_ROWS = "choose one of exact, boundary"


@pytest.fixture(scope="module")
def zoo() -> dict[str, models.LoadedModel]:
    """The embedded models."""
    return {name: models.load(name) for name in ("zoo:llama", *SOURCES)}


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a model whose words are counted from the text's begin: not to be spelled in part."""
    tokenizer = byte_bpe()
    cut = pre_tokenizers.Split(Regex(r"[\s\S]{7}"), "isolated")
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cut, words])
    return saved(tmp_path_factory.mktemp("counted"), "gpt2", tokenizer)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the one line that a command says on stderr before it exits with 2."""
    assert cli.main(list(arguments)) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    return printed.err


def test_a_score_names_what_its_rows_know() -> None:
    assert leaks(False, "exact") == ()
    assert leaks(True, "boundary") == (CHOSEN, KNOWN)


# The command line --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOURCES)
def test_transfer_counts_all_positions_and_side_paths(run, zoo, tmp_path, name: str) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    pair = ("transfer", "--target", "zoo:llama", "--source", name)
    call = (*pair, "--text-file", str(tmp_path / "a.txt"))
    found = run(*call, "--prune", "0.001")
    inside, every = found["inside"], found["all"]
    assert every["positions"] == found["covered"] + inside["positions"]
    for key in ("kept_mass", "transfer_ce", "target_ce"):
        both = found["covered"] * found[key] + inside["positions"] * (inside[key] or 0)
        assert every[key] * every["positions"] == pytest.approx(both)
    reading = read(TEXT, zoo["zoo:llama"], zoo[name], FusionConfig(prune=0.001))
    (window,) = reading.windows
    covers, own = window.covers[1], window.rows[1]
    assert covers is not None
    n_tokens = len(window.encodings[1].text_tokens)
    extra = len(covers.rows) - len(own.rows)
    assert extra > 0 and found["extra_positions"] == pytest.approx(extra / n_tokens)
    at = dict(zip(covers.positions.tolist(), covers.noncanonical, strict=True))
    places = np.maximum(window.encodings[0].row_bytes[:-1], window.encodings[1].row_bytes[0])
    assert len(places) == found["positions"]
    assert found["noncanonical"] == pytest.approx(np.mean([at[b] for b in places.tolist()]))
    boundary = run(*call, "--rows", "boundary")
    assert boundary["extra_positions"] == 0 and boundary["noncanonical"] is None
    assert boundary["transfer_ce"] != found["transfer_ce"]
    alike = run("transfer", "--target", name, "--source", "zoo:llama", *call[5:], "--prune", "0")
    assert alike["all"]["kept_mass"] >= 0.99


@pytest.mark.parametrize("rows", ["exact", "boundary"])
@pytest.mark.parametrize("level", ["sequence", "token"])
def test_fuse_says_which_rows_and_what_they_know(run, capsys, rows: str, level: str) -> None:
    sources = [x for name in SOURCES for x in ("--source", name)]
    call = ("fuse", "--target", "zoo:llama", *sources, "--text", TEXT, "--level", level)
    report = run(*call, "--rows", rows)
    assert report["rows"] == rows and report["knows_token"] is (level == "token")
    assert cli.main([*call, "--rows", rows]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert (CHOSEN in last) == (level == "token") and (KNOWN in last) == (rows == "boundary")


def test_the_flags_come_from_the_settings(capsys) -> None:
    for command in ("transfer", "fuse", "cache"):
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        printed = " ".join(capsys.readouterr().out.split())
        assert "exact, boundary (default: exact)" in printed and "--prune PRUNE" in printed


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--rows", "boundry"), NO_ROWS),
        (("--prune", "1"), "prune must be a number"),
        (("--prune", "-0.1"), "prune must be a number"),
        (("--prune", "nan"), "prune must be a number"),
    ],
)
def test_a_wrong_choice_is_one_line(capsys, tmp_path, flags, said: str) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    pair = ("--target", "zoo:llama", "--source", SOURCES[0])
    file = str(tmp_path / "a.txt")
    for command in (
        ("transfer", *pair, "--text-file", file),
        ("fuse", *pair, "--text-file", file),
        ("cache", *pair, "--data", file, "--out", str(tmp_path / "c")),
    ):
        assert said in refused(capsys, *command, *flags)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("given", [{"rows": "exakt"}, {"rows": 1}, {"prune": 1.0}, {"prune": "x"}])
def test_a_wrong_choice_in_a_file_is_one_line(capsys, tmp_path, given) -> None:
    file = tmp_path / "run.yaml"
    values = {"target": "zoo:llama", "sources": SOURCES[:1], "data": "a.txt"}
    file.write_text(json.dumps(values | given))
    (key,) = given
    assert key in refused(capsys, "train", "--config", str(file), "--out", str(tmp_path / "r"))
    assert RunConfig.of(values | {"rows": "boundary", "prune": 0}).fusion.rows == "boundary"


def test_a_tokenizer_without_exact_rows_is_named_before_anything_is_written(
    capsys, run, tmp_path, counted: str
) -> None:
    file, out = tmp_path / "a.txt", tmp_path / "c"
    file.write_text(TEXT)
    pair = ("--target", "zoo:llama", "--source", counted)
    values = {"target": "zoo:llama", "sources": [counted], "data": str(file)}
    (tmp_path / "run.yaml").write_text(json.dumps(values))
    train = ("train", "--config", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "r"))
    for command in (
        ("transfer", *pair, "--text-file", str(file)),
        ("fuse", *pair, "--text-file", str(file)),
        ("cache", *pair, "--data", str(file), "--out", str(out)),
        (*train, "--estimate"),
    ):
        said = refused(capsys, *command)
        assert counted in said and "choose rows boundary" in said
    assert not out.exists()
    run("cache", *pair, "--data", str(file), "--out", str(out), "--rows", "boundary")
    with pytest.raises(InputError, match="choose rows boundary"):
        checks.check(RunConfig.of(values))
    checks.check(RunConfig.of(values | {"rows": "boundary"}))
    checks.check(RunConfig.of(values | {"mode": "clm"}))
    alone = models.load(counted)
    assert compare.bits_per_byte([alone, models.load("zoo:llama")], [TEXT])[counted]["bytes"] > 0
    assert choices(alone, [("a", (" cat", " dog"))]) in ([0], [1])


# What asks for scores alone ----------------------------------------------------------------------


def test_scores_of_models_do_not_pay_for_covers(zoo, monkeypatch) -> None:
    def never(*args: Any, **options: Any) -> None:
        raise AssertionError("covers were looked for")

    monkeypatch.setattr("fusion_core.reading.read_with_covers", never)
    readers = list(zoo.values())
    assert set(compare.bits_per_byte(readers, [TEXT])) == set(zoo)
    assert [choices(m, [("a", (" cat", "#"))]) for m in readers] == [[0]] * len(zoo)
    with pytest.raises(AssertionError, match="covers"):
        list(read_documents(readers, [TEXT]))


def test_an_estimate_counts_side_paths(zoo, tmp_path, monkeypatch) -> None:
    estimate, asked = import_module("fusion_core.training.estimate"), list[FusionConfig]()
    monkeypatch.setattr(
        estimate, "read_documents", lambda readers, some, config: asked.append(config) or []
    )
    values = {"target": "zoo:llama", "sources": SOURCES, "data": str(tmp_path / "a.txt")}
    (tmp_path / "a.txt").write_text(TEXT * 40)
    found = {rows: RunConfig.of(values | {"rows": rows}) for rows in ("exact", "boundary")}
    estimate.estimate(found["exact"], tmp_path)
    assert {c.rows for c in asked} == {"exact"}  # what will be done is timed
    monkeypatch.setattr(estimate, "TRIED_BYTES", 0)
    monkeypatch.setattr(estimate, "_flops", lambda device: 1e9)
    seconds = {r: estimate.estimate(c, tmp_path).preparing_seconds for r, c in found.items()}
    assert seconds["exact"] == pytest.approx(estimate.SIDE_PATHS * seconds["boundary"])
    memory = {r: checks.check(c).memory_bytes(c) for r, c in found.items()}
    assert memory["exact"] >= memory["boundary"]


# Caches and runs of an earlier version -----------------------------------------------------------


@contextmanager
def earlier_version(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Write manifests as they were before rows could be chosen."""
    settings = building.settings

    def without(*args: Any) -> dict[str, Any]:
        found = settings(*args)
        return found | {"config": {k: v for k, v in found["config"].items() if k not in NEW}}

    with monkeypatch.context() as patch:
        patch.setattr(building, "settings", without)
        yield


NEW = ("rows", "prune")
BOUNDARY = FusionConfig(rows="boundary")


def build(zoo, folder: Path, config: FusionConfig, kind: str = "fused") -> Cache:
    target, *sources = zoo.values()
    texts = corpus.text("code", "train", 800, seed=3)
    return building.build_cache(target, sources, texts, config, folder, kind=kind, shard_bytes=300)


def test_a_manifest_says_which_rows_it_is_of(zoo, tmp_path) -> None:
    config = build(zoo, tmp_path / "c", FusionConfig(prune=0.02)).manifest.settings["config"]
    assert (config["rows"], config["prune"]) == ("exact", 0.02)
    with pytest.raises(InputError, match=r"config\.prune: 0\.02, not 0\.01"):
        build(zoo, tmp_path / "c", FusionConfig())
    with pytest.raises(InputError, match=r"config\.rows: exact, not boundary"):
        build(zoo, tmp_path / "c", BOUNDARY)


@pytest.mark.parametrize("kind", building.KINDS)
def test_an_earlier_cache_goes_on_as_boundary_or_not_at_all(
    zoo, tmp_path, monkeypatch, kind: str
) -> None:
    folder = tmp_path / "c"
    with earlier_version(monkeypatch):
        whole = build(zoo, folder, BOUNDARY, kind)
    assert not set(NEW) & set(
        json.loads((folder / "manifest.json").read_text())["settings"]["config"]
    )
    before = {f.name: f.read_bytes() for f in folder.iterdir()}
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 1
    shards[1].unlink()
    with pytest.raises(InputError, match=r"rows: boundary, not exact.*choose an empty folder or"):
        build(zoo, folder, FusionConfig(), kind)
    assert not shards[1].exists()
    again = build(zoo, folder, BOUNDARY.replace(prune=0.3), kind)  # which decides nothing there
    assert {f.name: f.read_bytes() for f in folder.iterdir()} == before
    assert len(again) == len(whole)


def test_a_run_takes_an_earlier_cache_as_boundary(zoo, tmp_path, monkeypatch) -> None:
    with earlier_version(monkeypatch):
        build(zoo, tmp_path / "old", BOUNDARY)
    build(zoo, tmp_path / "new", FusionConfig())
    target = zoo["zoo:llama"]

    def taken(name: str, **settings: Any) -> str:
        values = {"target": "zoo:llama", "cache": str(tmp_path / name)} | settings
        return data.from_cache(RunConfig.of(values), target).about

    for settings in ({}, {"rows": "boundary"}, {"rows": "boundary", "prune": 0.2}):
        assert "whose rows are boundary." in taken("old", **settings)
    assert "whose rows are exact." in taken("new")
    assert taken("old", mode="clm").endswith("`old`.")
    with pytest.raises(InputError, match=r"config\.rows: exact, not boundary"):
        taken("new", rows="boundary")
    with pytest.raises(InputError, match=r"config\.prune: 0\.01, not 0"):
        taken("new", prune=0.0)


def test_an_earlier_run_goes_on_as_boundary(zoo, tmp_path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    values = {"target": "zoo:llama", "sources": SOURCES, "data": str(tmp_path / "a.txt")}
    now = RunConfig.of(values)
    kept = {k: v for k, v in now.to_mapping().items() if k not in NEW}
    (tmp_path / "config.yaml").write_text(json.dumps(kept | {"made_with": {"torch": "2"}}))
    before = RunConfig.read(tmp_path / "config.yaml")
    assert before.fusion.rows == "boundary"
    with pytest.raises(InputError, match=r"rows: 'boundary', not 'exact'.*its config\.yaml"):
        runs.folder.compare(tmp_path, now)
    runs.folder.compare(tmp_path, before)
    (tmp_path / "config.yaml").write_text(now.to_yaml({"torch": "2"}))
    assert RunConfig.read(tmp_path / "config.yaml").fusion.rows == "exact"


# Views -------------------------------------------------------------------------------------------


def test_records_and_figures_name_the_leaks(zoo) -> None:
    target, *sources = zoo.values()
    config = FusionConfig(rows="boundary", level="token")
    analysis = pipeline.analyze(target, sources, TEXT, config)
    text = read(TEXT, target, sources, config).project().fuse("min_ce", level="token")
    exact = read(TEXT, target, sources).project().fuse("confidence")
    for leak in (CHOSEN, KNOWN):
        assert leak in analysis.summary() and leak in text.summary()
        assert leak not in exact.summary()
        assert leak in plots.bits_per_byte_figure(analysis).layout.yaxis.ticktext[-1]
    assert reports.bits_report(analysis)[-1]["leaks"] == [CHOSEN, KNOWN]
    assert torch.isfinite(exact.fused.observed_logprob).all()
