"""Comparisons: what is split, trained, kept and concluded; killed and gone on with.

Users of merging and distillation recipes ask before all else whether it beats plain fine-tuning on
the same text; the answer must not hang on a lucky seed, nor be lost with a process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tiny

from fusion_core import cli, comparison, corpus
from fusion_core.comparison import ComparisonConfig, plan, run, summary, texts, work
from fusion_core.errors import InputError
from fusion_core.io import documents

SMALL = {"seeds": 1, "rates": 1, "workers": 1, "budget": 0.2, "test_bytes": 900}


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("data") / "code.txt"
    corpus.write(path, corpus.text("code", "train", 5000, seed=2))
    return str(path)


@pytest.fixture(scope="module")
def tiny_pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Save a target and a source that have learnt nothing."""
    folder = tmp_path_factory.mktemp("models")
    target, source = (tiny.saved(folder / k, k) for k in ("llama", "gpt2"))
    return {"target": target, "sources": (source,)}


# What is planned --------------------------------------------------------------------------------


def test_documents_are_in_one_part_of_the_data_alone(code: str, tmp_path: Path) -> None:
    config = ComparisonConfig(target="a", sources=("b",), data=(code,), test_bytes=1000)
    texts.write_texts(config, tmp_path)
    assert plan.text_names(tmp_path) == ["code"]
    parts = {
        name: set(documents.read_documents(tmp_path / f"{name}-code.jsonl"))
        for name in ("train", "validation", "test")
    }
    assert not parts["train"] & (parts["test"] | parts["validation"])
    assert not parts["test"] & parts["validation"] and len(parts["test"]) >= 2
    assert set.union(*parts.values()) == set(documents.read_documents(code))
    assert documents.read_documents(tmp_path / plan.DATA) == documents.read_documents(
        tmp_path / "train-code.jsonl"
    )


def test_the_toy_domains_are_the_text_where_none_is_given(tmp_path: Path) -> None:
    config = ComparisonConfig(target="a", sources=("b",)).quick()
    texts.write_texts(config, tmp_path)
    assert plan.text_names(tmp_path) == sorted(corpus.DOMAINS)
    for name in corpus.DOMAINS:
        assert len(documents.read_documents(tmp_path / f"test-{name}.jsonl")) >= 15


def test_too_few_documents_are_refused(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("One document.\n\nOne document.")
    (tmp_path / "b").mkdir()
    config = ComparisonConfig(target="a", sources=("b",), data=(str(tmp_path / "one.txt"),))
    with pytest.raises(InputError, match="too few"):
        texts.write_texts(config, tmp_path / "b")


def test_every_baseline_is_planned() -> None:
    assert set(plan.methods(True, 3, False)) == set(plan.TRAINED)
    assert "merging" not in plan.methods(True, 1, False)
    assert "merging" not in plan.methods(True, 3, True)
    without = plan.methods(False, 3, False)
    assert "fused" not in without and "text alone, written" not in without
    tuning = plan.tuning_jobs(without, (1e-3, 1e-4))
    assert len(tuning) == 4 and {j.method for j in tuning} == {"text alone", plan.FUSED_DATA}
    rates = {"text alone": 1e-3, plan.FUSED_DATA: 1e-4}
    final = plan.final_jobs(without, rates, 3)
    assert len(final) == 3 * len(without) and len({j.folder for j in final}) == len(final)
    assert {j.rate for j in final if j.method in ("kd", "published")} == {1e-4}
    assert {j.rate for j in final if j.method == "merging"} == {1e-3}


@pytest.mark.parametrize(("parameters", "wanted"), [(1e6, 5e-4), (1e8, 1e-4), (7e9, 2e-5)])
def test_larger_targets_are_trained_with_smaller_rates(parameters: float, wanted: float) -> None:
    rates = plan.rates_for(int(parameters), 3)
    assert rates[0] == wanted and len(set(rates)) == 3 and len(plan.rates_for(1, 1)) == 1


def test_all_trainings_have_the_same_steps_and_text(code: str, tmp_path: Path) -> None:
    config = ComparisonConfig(target="zoo:llama", sources=("zoo:mpt-code",), data=(code,))
    texts.write_texts(config, tmp_path)
    found = {
        n: plan.run_config(config, plan.Job(n, 1, 1e-4), tmp_path, 16, 128) for n in plan.TRAINED
    }
    assert {c.max_steps for c in found.values()} == {16}
    assert found["published"].fusion.strategy == "mined"
    assert found["published"].objective.lm_weight == 0.9
    assert found["fused"].cache == str(tmp_path / "written-rows")
    assert found["kd"].cache == found[plan.FUSED_DATA].cache == str(tmp_path / "rows")
    assert found["text alone"].data == str(tmp_path / plan.DATA)
    assert found["text alone, written"].data == str(tmp_path / plan.WRITTEN)


# What is concluded ------------------------------------------------------------------------------


def bits(value: float, wobble: float = 0.0) -> dict[str, list[float]]:
    return {"a": [value * 100 + wobble * n for n in range(10)], "b": [value * 200] * 10}


def test_figures_and_verdicts_are_those_of_the_bits(tmp_path: Path) -> None:
    for name, size in (("a", 100), ("b", 200)):
        texts.write_jsonl(
            tmp_path / f"test-{name}.jsonl", ["x" * (size - 2) + f"{n:02}" for n in range(10)]
        )
    config = ComparisonConfig(target="t", sources=("s", "useless"), seeds=2)
    untrained = {"t": bits(1.0), "s": bits(0.9), "useless": bits(3.0), "ensemble": bits(0.3)}
    scores = {"text alone": (0.8, 0.82), "kd": (0.79, 0.81), "fused": (0.5, 0.51)}
    trained = {
        name: [{"bits": bits(v, 0.5), "seconds": 2.0, "tokens": 10, "rate": 1e-3} for v in values]
        for name, values in (scores | {plan.FUSED_DATA: (0.8, 0.82)}).items()
    }
    told = {"sources": [], "sentence": "Nothing."}
    given = {"steps": 8, "written_bytes": 5, "block_size": 64, "rates": [1e-3]}
    result = summary.summarise(
        config, tmp_path, told, given, {"untrained": {"bits": untrained}}, trained
    )
    methods = result["methods"]
    assert methods["target"]["mean"] == pytest.approx(1.0)
    assert methods["text alone"]["bits_per_byte"]["b"]["mean"] == pytest.approx(0.81)
    assert methods["text alone"]["bits_per_byte"]["b"]["spread"] == pytest.approx(0.02)
    assert methods["ensemble"]["models_at_inference"] == 3
    assert methods["fused"]["models_at_inference"] == 1 and methods["fused"]["seconds"] == 4.0
    assert result["verdicts"]["fused against text alone"] == "better"
    assert result["verdicts"]["fused against ensemble"] == "no gain"
    assert result["verdicts"]["fused against target"] == "better"
    assert result["verdicts"][f"{plan.FUSED_DATA} against text alone"] == "no gain"
    summary.write_summary(tmp_path, result)
    page = (tmp_path / "compare.md").read_text()
    assert "| fused against text alone | **better** |" in page and "| **fused** |" in page
    assert "plotly" in (tmp_path / "compare.html").read_text(encoding="utf-8").lower()


# What is run ------------------------------------------------------------------------------------


def test_a_comparison_goes_on_where_it_was_interrupted(
    code: str, tiny_pair: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ComparisonConfig(**tiny_pair, data=(code,), written_bytes=0, **SMALL)
    folder, real, trained = tmp_path / "c", work.train, list[str]()

    def interrupted(config: ComparisonConfig, job: plan.Job, *rest: Any) -> dict[str, Any]:
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(job.folder)
        return real(config, job, *rest)

    monkeypatch.setattr(work, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        comparison.compare(config, folder)
    with pytest.raises(InputError, match="--resume"):
        comparison.compare(config, folder)
    with pytest.raises(InputError, match="another seeds"):
        comparison.compare(config.replace(seeds=2), folder, resume=True)
    before = list(trained)
    monkeypatch.setattr(
        work, "train", lambda c, j, *r: (trained.append(j.folder), real(c, j, *r))[1]
    )
    told: list[str] = []
    result = comparison.compare(config, folder, resume=True, progress=lambda s, _: told.append(s))
    assert len(trained) == len(set(trained)) == 4 and trained[:2] == before
    assert any("trainings are left" in s for s in told)
    source = tiny_pair["sources"][0]
    wanted = {"target", source, "ensemble", "text alone", "kd", "published", plan.FUSED_DATA}
    assert set(result["methods"]) == wanted
    claims = {f"{plan.FUSED_DATA} against {name}" for name in wanted - {plan.FUSED_DATA}}
    assert set(result["verdicts"]) == claims
    assert result["verdicts"][f"{plan.FUSED_DATA} against text alone"] == "undecided"  # one seed
    kept = json.loads((folder / run.RESULT).read_bytes())
    assert kept == json.loads(json.dumps(result))
    assert comparison.compare(config, folder, resume=True) == kept and len(trained) == 4


def test_bad_comparisons_are_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = ["compare", "--target", "zoo:llama", "--out", str(tmp_path / "c")]
    for more, said in (
        (["--source", "zoo:llama"], "named twice"),
        (["--source", "zoo:nothing"], "zoo:nothing"),
        (["--source", "zoo:mpt-code", "--data", str(tmp_path / "none.txt")], "none.txt"),
        (["--source", "zoo:mpt-code", "--seeds", "0"], "seeds"),
        (["--source", "zoo:mpt-code", "--budget", "-1"], "budget"),
    ):
        assert cli.main([*command, *more]) == 2
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "wanted"), [("nothing", "no gain"), ("equal", "no gain"), ("good", "better")]
)
def test_the_verdict_is_right_where_the_answer_is_known(
    kind: str, wanted: str, tmp_path: Path
) -> None:
    """Two sources that know nothing, a copy of the target, and the specialist of the text."""
    from fusion_core import zoo

    if kind == "nothing":
        sources = tuple(tiny.saved(tmp_path / k, k) for k in ("gpt2", "gpt_neox"))
    elif kind == "equal":
        (tmp_path / "again").mkdir()
        for file in zoo.path("llama").iterdir():
            (tmp_path / "again" / file.name).write_bytes(file.read_bytes())
        sources = (str(tmp_path / "again"),)
    else:
        sources = ("zoo:mpt-code",)
    corpus.write(tmp_path / "code.txt", corpus.text("code", "train", 16_000, seed=2))
    config = ComparisonConfig(
        target="zoo:llama", sources=sources, data=(str(tmp_path / "code.txt"),), seeds=3, rates=2,
        budget=4.0, written_bytes=0 if kind == "nothing" else 30_000,
    )  # fmt: skip
    result = comparison.compare(config, tmp_path / "c")
    best = "fused" if "fused" in result["methods"] else plan.FUSED_DATA
    assert result["verdicts"][f"{best} against text alone"] == wanted
    assert bool([s for s in result["forecast"] if s["teaches"]]) == (kind == "good")


@pytest.mark.slow
def test_a_comparison_that_is_killed_again_and_again_ends(
    code: str, tiny_pair: dict[str, Any], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "fusion_core", "compare", "--json", "--resume"]
    command += ["--target", tiny_pair["target"], "--source", tiny_pair["sources"][0]]
    command += ["--data", code, "--out", str(tmp_path / "c"), "--seeds", "2", "--rates", "1"]
    command += ["--budget", "0.2", "--written-bytes", "0", "--test-bytes", "900"]
    killed = 0
    for seconds in (8, 12, 16, 20, 24, 30, 40, 600):
        began = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            out, _ = began.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            began.kill()
            began.communicate()
            killed += 1
            time.sleep(1)
            continue
        assert began.returncode == 0 and killed
        result = json.loads(out)
        assert len(result["methods"]) == 7 and len(result["verdicts"]) == 6
        return
    raise AssertionError("it did not end")
