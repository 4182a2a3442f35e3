"""Settings and texts are checked where they enter."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fusion_core.config import FusionConfig, RunConfig, utf8
from fusion_core.errors import FusionError, InputError, TooLargeError


@pytest.mark.parametrize(
    "settings",
    [
        {"top_k": 0},
        {"top_k": -3},
        {"top_k": 2.5},
        {"top_k": None},
        {"top_k": True},
        {"source_top_k": 0},
        {"overlap": -0.1},
        {"overlap": 0.9},
        {"overlap": float("nan")},
    ],
)
def test_numbers_outside_their_range_are_refused(settings: dict) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        FusionConfig(**settings)


def test_source_top_k_may_be_left_open() -> None:
    assert FusionConfig(source_top_k=None).source_top_k is None


def test_texts() -> None:
    assert utf8("é") == b"\xc3\xa9"
    with pytest.raises(InputError, match="empty"):
        utf8("")
    with pytest.raises(InputError, match="surrogate at character 1"):
        utf8("a\udc80")
    with pytest.raises(TooLargeError, match="1,000"):
        utf8("x" * 1001, limit=1000)


def test_messages_stay_on_one_line() -> None:
    assert str(FusionError("no file a\nb.txt:\r\n  give\tone")) == "no file a b.txt: give one"


# Runs ------------------------------------------------------------------------------------------

LEAST = {"target": "zoo:llama", "sources": ["zoo:mpt-code"], "data": "docs.txt"}


def test_a_run_survives_yaml(tmp_path) -> None:
    rich = LEAST | {
        "eval_data": ["a.txt", "b.txt"],
        "lm_weight": 0.2,
        "learning_rate": "1e-4",
        "lora": {"r": 4, "target_modules": ["q_proj"]},
        "chain_rule": True,
        "arguments": {"report_to": "none"},
        "temperature": 1,
    }
    run = RunConfig.of(rich, tmp_path)
    assert run.data == str(tmp_path / "docs.txt")
    assert run.eval_data == {"a": str(tmp_path / "a.txt"), "b": str(tmp_path / "b.txt")}
    assert run.learning_rate == 1e-4 and run.fusion.chain_rule and run.objective.lm_weight == 0.2
    (tmp_path / "run.yaml").write_text(run.to_yaml({"torch": "9"}), encoding="utf-8")
    assert RunConfig.read(tmp_path / "run.yaml") == run
    twin = run.twin()
    assert twin.mode == "clm" and replace(twin, mode="fusion") == run


def test_relative_names_are_relative_to_the_file(tmp_path) -> None:
    (tmp_path / "mine").mkdir()
    values = LEAST | {"target": "mine", "cache": "rows", "data": "~/x.txt", "eval_data": "e.txt"}
    run = RunConfig.of(values, tmp_path)
    assert run.target == str(tmp_path / "mine") and run.sources == ("zoo:mpt-code",)
    assert run.cache == str(tmp_path / "rows") and run.eval_data == {"e": str(tmp_path / "e.txt")}
    assert run.data == str(Path.home() / "x.txt")
    assert RunConfig.of(LEAST | {"data": "someone/corpus"}, tmp_path).data == "someone/corpus"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lm_weight": 1.5}, "lm_weight must lie between 0"),
        ({"lm_weight": -0.1}, "lm_weight must lie between 0"),
        ({"lm_weight": "much"}, "lm_weight must be a number"),
        ({"lm_weight": math.nan}, "lm_weight must lie between 0"),
        ({"lm_weight_end": 2}, "lm_weight_end must lie"),
        ({"mode": "dpo"}, "no mode 'dpo': choose one of fusion, clm, kd"),
        ({"learning_rate": 0}, "learning_rate must be a number above 0"),
        ({"learning_rate": "fast"}, "learning_rate must be a number, not 'fast'"),
        ({"max_steps": 0}, "max_steps must be a whole number of at least 1"),
        ({"max_steps": 2.5}, "max_steps must be a whole number"),
        ({"batch_size": True}, "batch_size must be a whole number"),
        ({"epochs": math.inf}, "epochs must be a number above 0"),
        ({"warmup": 3}, "warmup must be a share"),
        ({"chain_rule": "yes"}, "chain_rule must be true or false"),
        ({"top_k": 0}, "top_k must be a whole number"),
        ({"learning_rat": 1}, "no setting called 'learning_rat': choose from"),
        ({"lora": {"rank": 3}}, r"no setting called lora\.rank"),
        ({"lora": {"r": 0}}, r"lora\.r must be"),
        ({"lora": [1]}, "lora must be a rank"),
        ({"sources": []}, "needs sources"),
        ({"sources": [3]}, "sources must be a list of model names"),
        ({"target": ""}, "target must name a model"),
        ({"target": 3}, "name must be text"),
        ({"data": None}, "nothing to read"),
        ({"data": 5}, "data must be the name"),
        ({"data": "a\0b"}, "data must be the name"),
        ({"eval_data": 5}, "eval_data must be"),
        ({"keep": "best"}, "needs eval_data"),
        ({"keep": "all"}, "no keep 'all'"),
        ({"pairwise": "average"}, "no pairwise 'average'"),
        ({"pairwise": "sce", "mode": "clm"}, "pairwise trains on rows of its own"),
        ({"arguments": [1]}, "arguments must be a mapping"),
        ({"divergence": "js"}, "no divergence 'js'"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_a_wrong_setting_of_a_run_is_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        RunConfig.of(LEAST | change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no mapping"),
        (b"- a\n", "no mapping"),
        (b"a: [", "cannot be read as YAML"),
        (b"\xff\xfe", "is UTF-16, not UTF-8"),
        (b"data: x\n", "target is missing"),
        (b"!!python/object/apply:os.system ['true']", "cannot be read as YAML"),
        (b"target: " + b"[" * 100_000, "cannot be read as YAML"),
        (b"#" * 1_000_001, "more than"),
    ],
)
def test_a_file_of_no_use_is_refused(tmp_path, content: bytes, said: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_bytes(content)
    with pytest.raises(InputError, match=said):
        RunConfig.read(file)
    with pytest.raises(InputError, match="No such file"):
        RunConfig.read(tmp_path / "none.yaml")
