"""What a visitor fills in for a training: values, texts, and steps that fit a budget."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from trainings import FORM, ONCE, planned

from app.limits import Limits
from app.training import data, plan
from app.training import form as forms
from fusion_core.errors import FusionError, InputError, TooLargeError


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("steps", None, "Steps must"),
        ("steps", 0, "Steps must"),
        ("steps", 2.5, "2.5"),
        ("steps", 10**9, "100,000"),
        ("steps", True, "Steps must"),
        ("kilobytes", -1, "KB of toy text"),
        ("kilobytes", "<b>", "<b>"),
        ("batch_size", 0, "Batch must"),
        ("batch_size", 10**6, "Batch must"),
        ("seed", -1, "Seed must"),
        ("seed", 2**40, "Seed must"),
        ("lm_weight", 1.5, "λ must"),
        ("lm_weight", None, "nothing"),
        ("lm_weight", float("nan"), "λ must"),
        ("learning_rate", 0, "Learning rate"),
        ("learning_rate", float("inf"), "Learning rate"),
        ("preset", "for ever", "for ever"),
        ("domains", ("Cooking",), "Cooking"),
        ("domains", (), "nothing to read"),
        ("text", "too short", "one document of 9 bytes"),
        ("text", "a\ud800b " * 50, "surrogate"),
        ("file", "/no/such/file.txt", "Your file cannot be read"),
        ("fusion", {"top_k": 0}, "Top-k"),
        ("fusion", {"top_k": None}, "Top-k"),
        ("fusion", {"rows": "exakt"}, "There is no Source rows 'exakt'"),
    ],
)
def test_a_wrong_value_is_one_sentence(field: str, value: Any, words: str) -> None:
    with pytest.raises(FusionError) as caught:
        planned(replace(FORM, **{field: value}))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_texts_over_the_limit(tmp_path: Path) -> None:
    limits = Limits(data_bytes=2_000)
    with pytest.raises(TooLargeError):
        data.read(replace(FORM, kilobytes=2, text="word " * 300), limits)
    with pytest.raises(InputError, match="KB"):
        planned(replace(FORM, kilobytes=3), limits)
    import pandas as pd

    bomb = tmp_path / "bomb.parquet"
    pd.DataFrame({"text": ["x" * 1000] * 5000}).to_parquet(bomb)
    assert bomb.stat().st_size < 100_000
    with pytest.raises(TooLargeError, match=r"Your file has more than"):
        data.read(replace(FORM, domains=(), file=str(bomb)), Limits(data_bytes=100_000))


@pytest.mark.parametrize("name", ["x.txt", "x.jsonl", "x.parquet", "<img onerror=1>.pdf"])
def test_files_that_are_none_are_refused_without_their_path(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FusionError) as caught:
        data.read(replace(FORM, file=str(file)), Limits())
    assert str(tmp_path) not in str(caught.value) and "Your file" in str(caught.value)


def test_own_text_is_held_out_in_part() -> None:
    own = [f"document number {i}" for i in range(30)]
    texts = data.read(replace(FORM, domains=(), text="\n\n".join(own)), Limits())
    held = texts.held[data.USER_TEXT]
    assert len(held) == 3 and sorted(texts.train + held) == sorted(own)
    one = "word and word again. " * 40
    learnt, rest = data.hold_out([one], 0)
    assert "".join(learnt + rest) == one and len(rest[0]) < len(one) / 5


def test_texts_are_written_whole(tmp_path: Path) -> None:
    hostile = ["<|endoftext|>\n\n a\r\n東京\u2028x", "${alert(1)}"]
    data.write(data.Texts(hostile, {"../x": ["y"]}), tmp_path)
    lines = (tmp_path / data.DATA).read_bytes().decode().split("\n")[:-1]
    assert [json.loads(x)["text"] for x in lines] == hostile
    assert sorted(f.name for f in tmp_path.iterdir()) == [data.DATA, "held-out-0.jsonl"]


def test_steps_fit_the_budget() -> None:
    for budget, parts in ((60, 2), (60, 1), (300, 2)):
        steps = plan.fitting_steps(ONCE, budget, parts)
        each = plan.PART_SECONDS + steps * 0.1 * plan.STEP_FACTOR
        assert budget - 1 < parts * each + 4.0 <= budget
    with pytest.raises(InputError, match="Fewer than"):
        plan.fitting_steps(replace(ONCE, training_seconds=200), 60, 2)
    made = planned(replace(FORM, preset="60 seconds on a CPU"))
    assert made.estimate.steps == made.steps and made.seconds == pytest.approx(60, abs=1)
    assert planned(replace(FORM, preset="5 minutes on a GPU"), Limits(steps=30)).steps == 30
    assert planned(replace(FORM, baseline=False)).parts == ("fused",)
    assert forms.PRESETS["Custom"].seconds is None
