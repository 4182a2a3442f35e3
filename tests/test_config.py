"""Settings and texts are checked where they enter."""

from __future__ import annotations

import argparse
import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest

from fusion_core.config import (
    FusionConfig,
    Lora,
    Objective,
    RunConfig,
    Sampling,
    Settings,
    Truncation,
    add_flags,
    describe,
    read_flags,
    utf8,
)
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
    plain = run.baseline()
    assert plain.mode == "clm" and plain.replace(mode="fusion") == run


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
        ({"lm_weight": 1.5}, "lm_weight must be a number between 0 and 1, not 1.5: choose λ"),
        ({"lm_weight": -0.1}, "lm_weight must be a number between 0 and 1, not -0.1"),
        ({"lm_weight": "much"}, "lm_weight must be a number between 0 and 1, not 'much'"),
        ({"lm_weight": math.nan}, "lm_weight must be a number between 0 and 1, not nan"),
        ({"lm_weight_end": 2}, "lm_weight_end must be a number between 0 and 1, not 2"),
        ({"mode": "dpo"}, "no mode 'dpo': choose one of fusion, clm, kd"),
        ({"learning_rate": 0}, "learning_rate must be a number above 0"),
        ({"learning_rate": "fast"}, "learning_rate must be a number above 0, not 'fast'"),
        ({"max_steps": 0}, "max_steps must be a whole number of at least 1"),
        ({"max_steps": 2.5}, "max_steps must be a whole number"),
        ({"batch_size": True}, "batch_size must be a whole number"),
        ({"epochs": math.inf}, "epochs must be a number above 0"),
        ({"warmup": 3}, "warmup must be a number between 0 and 1, not 3: choose the share"),
        ({"chain_rule": "yes"}, "chain_rule must be true or false"),
        ({"top_k": 0}, "top_k must be a whole number"),
        ({"learning_rat": 1}, "no setting called 'learning_rat': choose from"),
        ({"lora": {"rank": 3}}, r"no setting called 'lora\.rank': choose from alpha"),
        ({"lora": {"r": 0}}, r"lora\.r must be a whole number of at least 1, not 0"),
        ({"lora": [1]}, "lora must be a rank"),
        ({"sources": []}, "needs sources"),
        (
            {"sources": [3]},
            "sources must be a list of texts, not 3: choose the names of the models",
        ),
        (
            {"target": ""},
            "target must be text, not '': choose the model that is trained, as zoo:NAME",
        ),
        ({"target": 3}, "target must be text, not 3"),
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
        ({"seed": 2**32}, "seed must be a whole number between 0 and 4,294,967,295"),
        ({"arguments": {1: 2}}, "arguments must be a mapping"),
        ({"eval_data": {"a": 1}}, "eval_data must be the name of a file"),
        ({"lora": {"alpha": "wide"}}, r"lora\.alpha must be a number above 0, not 'wide'"),
        ({"lora": {"target_modules": 5}}, r"lora\.target_modules must be text or a list of texts"),
        ({1: 2}, "no setting called '1'"),
        ({"fusion": {"top_k": 3}}, "no setting called 'fusion'"),
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


# Settings models ---------------------------------------------------------------------------------

MODELS = [FusionConfig, Truncation, Objective, Lora, Sampling, RunConfig]
NEEDED = {RunConfig: {"target": "zoo:llama", "mode": "clm", "data": "docs.txt"}}


@pytest.mark.parametrize("model", MODELS)
def test_descriptions_are_what_constructors_enforce(model: type[Settings]) -> None:
    """Defaults and bounds that a form shows are those of the settings, not a second truth."""
    needed = NEEDED.get(model, {})
    made = model(**needed)
    assert [s.name for s in describe(model)] == list(made.model_dump())
    for setting in describe(model):
        assert setting.description and not setting.description.endswith(".")
        if setting.name not in needed and setting.type not in ("object", "array"):
            assert getattr(made, setting.name) == setting.default
        for limit, outside, excluded in (
            (setting.minimum, -1, "above"),
            (setting.maximum, 1, "below"),
        ):
            if limit is None:
                continue
            step = 1 if setting.type == "integer" else 1e-9
            with pytest.raises(InputError, match=f"{setting.name} must be {setting.expected}"):
                model(**needed | {setting.name: limit + outside * step})
            inside = limit - outside * step
            assert getattr(model(**needed | {setting.name: inside}), setting.name) == inside
            if excluded in setting.expected:
                with pytest.raises(InputError):
                    model(**needed | {setting.name: limit})
            else:
                assert model(**needed | {setting.name: limit})
        for choice in setting.choices:
            more = {"eval_data": {"a": "b"}, "eval_every": 1} if choice == "best" else {}
            if setting.name not in ("mode", "pairwise"):  # which need more than a name
                assert model(**needed | more | {setting.name: choice})


@pytest.mark.parametrize("model", MODELS)
def test_schemas_are_json_with_the_same_names(model: type[Settings]) -> None:
    schema = json.loads(json.dumps(model.model_json_schema(), allow_nan=False))
    assert list(schema["properties"]) == [s.name for s in describe(model)]
    assert schema["additionalProperties"] is False
    assert schema.get("required", []) == (["target"] if model is RunConfig else [])


@pytest.mark.parametrize("model", [FusionConfig, Truncation, Objective, Sampling])
def test_flags_left_out_give_the_defaults(model: type[Settings]) -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser, model, *model.model_fields)
    assert read_flags(parser.parse_args([]), model) == model()
    flags = {f for action in parser._actions for f in action.option_strings}
    assert {f"--{name.replace('_', '-')}" for name in model.model_fields} <= flags
    assert all("%" not in (s.description) for s in describe(model)) and parser.format_help()


def test_flags_are_read_by_their_types() -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser, FusionConfig, "operator", "top_k", "overlap", "with_target", operator=["a"])
    given = ["--operator", "mean", "--top-k", "3", "--overlap", "0", "--with-target"]
    expected = FusionConfig(operator="mean", top_k=3, overlap=0, with_target=True)
    assert read_flags(parser.parse_args(given), FusionConfig) == expected
    assert "the fusion operator: a (default: min_ce)" in " ".join(parser.format_help().split())
    parser = argparse.ArgumentParser()
    add_flags(parser, Sampling, "stop", "temperature", "seed")
    assert "the seed of draws (default: 0)" in " ".join(parser.format_help().split())
    for _ in range(2):  # a default that is changed would be seen in the second reading
        options = parser.parse_args(["--stop", "a", "--stop", "b", "--temperature", "1"])
        assert read_flags(options, Sampling) == Sampling(stop=("a", "b"), temperature=1.0)
    with pytest.raises(InputError, match="temperature must be a number of at least 0"):
        read_flags(parser.parse_args(["--temperature", "-1"]), Sampling)


@pytest.mark.parametrize(
    ("config", "change"),
    [
        (FusionConfig(top_k=3), {"top_k": 0}),
        (Objective(), {"divergence": "js"}),
        (Lora(r=2), {"dropout": 1}),
        (Sampling(seed=1), {"stop": ("",)}),
        (Truncation(top_p=0.5), {"top_p": 2}),
        (FusionConfig(temperature=2), {"chain_rule": True}),
    ],
)
def test_a_copy_is_checked_like_the_first(config: Settings, change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        config.replace(**change)
    same = pickle.loads(pickle.dumps(config.replace()))
    assert same == config and hash(same) == hash(config) and {config: 1}[same] == 1
    other = config.replace(seed=9) if "seed" in type(config).model_fields else type(config)()
    assert other == config.replace(**dict(other)) and config == same
    with pytest.raises(Exception, match="frozen"):
        setattr(config, next(iter(change)), None)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"topk": 3}, "no setting called 'topk': choose from chain_rule, level"),
        ({"topk": 3, "top_k": 0}, "no setting called 'topk'"),
        ({"temperature": "1"}, "temperature must be a number of at least 0.0001, not '1'"),
        ({"temperature": 1e-320}, "temperature must be a number of at least 0.0001"),
        ({"with_target": 1}, "with_target must be true or false, not 1"),
        ({"source_top_p": 0}, "source_top_p must be a number above 0 and at most 1, not 0"),
        ({"level": None}, "level must be text, not nothing"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(values: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        FusionConfig(**values)
    assert str(caught.value).count(". ") == 0 and "\n" not in str(caught.value)


def test_settings_in_settings_are_named_by_their_place() -> None:
    """A client's JSON is checked as deep as it goes."""
    with pytest.raises(InputError, match=r"lora\.r must be a whole number of at least 1, not 0"):
        RunConfig.model_validate(NEEDED[RunConfig] | {"lora": {"r": 0}})
    with pytest.raises(InputError, match=r"Objective must be a mapping of balance, .*, not 5"):
        RunConfig.model_validate(NEEDED[RunConfig] | {"objective": 5})
    with pytest.raises(InputError, match="no setting called '1'"):
        FusionConfig.model_validate({1: 2})
    with pytest.raises(InputError, match="The setting target is missing: choose the model"):
        RunConfig.model_validate({"data": "docs.txt"})


def test_words_of_yaml_that_are_numbers() -> None:
    lora = {"alpha": "1e1", "dropout": "5e-2", "target_modules": [1, "q"]}
    run = RunConfig.of(LEAST | {"max_steps": "1e3", "lora": lora, "lm_weight": "1e-1"})
    assert run.max_steps == 1000 and run.objective.lm_weight == 0.1
    assert run.lora == Lora(alpha=10.0, dropout=0.05, target_modules=("1", "q"))
    assert RunConfig.of(run.to_mapping()) == run
    for value in ("2.5", "nan", "1e400"):
        with pytest.raises(InputError, match="max_steps must be a whole number"):
            RunConfig.of(LEAST | {"max_steps": value})


def test_keys_without_a_value_have_their_defaults() -> None:
    bare = RunConfig.of({"target": "a", "sources": "b", "data": "c.txt"})
    empty = {"eval_data": None, "arguments": None, "lora": None, "cache": None}
    assert RunConfig.of({"target": "a", "sources": ["b"], "data": "c.txt"} | empty) == bare
    assert bare.sources == ("b",) and RunConfig.of(LEAST | {"lora": True}).lora == Lora()
    assert RunConfig.of(LEAST | {"lora": 8}).lora == Lora(r=8)
