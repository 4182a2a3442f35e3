"""Accuracies and the tasks of the toy suite, against counts and choices made by hand."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
import tiny
import torch

from fusion_core import cli, corpus, models, reports
from fusion_core.benchmark import Accuracy, execution, toy_suite
from fusion_core.benchmark.accuracy import constant


@pytest.mark.parametrize(("right", "number", "chance"), [(9, 20, 0.25), (3, 8, 0.5), (1, 5, 0.1)])
def test_chance_is_judged_by_counting_all_outcomes(right: int, number: int, chance: float) -> None:
    tail = 0.0
    for outcome in range(2 ** min(number, 10) if number <= 8 else 0):
        hits = outcome.bit_count()
        if outcome < 2**number and hits >= right:
            tail += chance**hits * (1 - chance) ** (number - hits)
    if number <= 8:
        assert Accuracy(right, number, chance).above_chance == (tail < 0.05)
    else:
        draws = torch.rand((200_000, number), generator=torch.Generator().manual_seed(1)) < chance
        tail = float((draws.sum(1) >= right).float().mean())
        assert tail < 0.045 and Accuracy(right, number, chance).above_chance


def test_few_questions_are_not_taken_for_certain() -> None:
    assert Accuracy(0, 20, 0.25).stderr > 0.04 and Accuracy(20, 20, 0.25).stderr > 0.04
    many = Accuracy(3000, 10_000, 0.25)
    assert math.isclose(many.stderr, math.sqrt(0.3 * 0.7 / 10_000), rel_tol=0.01)
    assert not Accuracy(5, 20, 0.25).above_chance and Accuracy(1, 20, 0.0).above_chance
    assert not Accuracy(4, 4, 1.0).above_chance
    assert constant(["a", "b", "a", "c"]) == 0.5


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        ("Step 1: 2 * 3 = 6\nAnswer: 6 €", "6"),
        ("Step 1: Mara > Tilo\nAnswer: Mara", "Mara"),
        ("Answer:", ""),
        ("The Answer: 6", ""),
        ("", ""),
    ],
)
def test_the_answer_is_the_last_lines_first_word(solution: str, answer: str) -> None:
    assert toy_suite.answer_of(solution) == answer


def test_exercises_are_documents_cut_before_what_is_asked() -> None:
    for item in corpus.exercises("reasoning", "test", 30):
        assert item.prompt.startswith("Problem: ") and item.prompt.endswith("\n")
        assert "Answer" not in item.prompt and item.answer and not item.checks
    for item in corpus.exercises("code", "test", 30):
        assert item.prompt.rstrip().endswith('"""') and item.checks.count("assert") == 3
        assert item.answer not in item.prompt
    names = [corpus.exercises("code", s, 30) for s in corpus.SPLITS]
    assert not {i.prompt for i in names[0]} & {i.prompt for i in names[2]}
    with pytest.raises(ValueError, match="no domain"):
        corpus.exercises("commonsense", "test", 1)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neox"])
def test_choices_have_the_lowest_cost_a_byte(kind: str, tmp_path: Path) -> None:
    """The oracle: plain transformers, where the prompt's tokens begin those of both texts."""
    model = models.load(tiny.saved(tmp_path / "m", kind))
    prompt, ends = "the cat sat on the", (" mat", " blue boat", " park and then")
    read = model.tokenizer.encode(prompt)
    costs = []
    for end in ends:
        whole = model.tokenizer.encode(prompt + end)
        ids = whole.ids[whole.text_tokens].tolist()
        first = len(read.text_tokens)
        assert ids[:first] == read.ids[read.text_tokens].tolist()
        start = [] if model.tokenizer.start_id is None else [model.tokenizer.start_id]
        with torch.no_grad():
            logits = model.network(torch.tensor([start + ids])).logits[0].log_softmax(-1)
        rows = range(len(start) + first - 1, len(start) + len(ids) - 1)
        nats = -sum(float(logits[i, (start + ids)[i + 1]]) for i in rows)
        costs.append(nats / len(end.encode()))
    assert toy_suite.choices(model, [(prompt, ends)] * 2) == [costs.index(min(costs))] * 2
    for a, b in pairwise(range(3)):
        alone = toy_suite.choices(model, [(prompt, (ends[a], ends[b]))])
        assert alone == [int(costs[b] < costs[a])]


def test_specialists_answer_their_domain_and_programs_run_only_where_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(execution, "run", lambda program: ran.append(program) or "passed")
    readers = [models.load("zoo:gpt2-story"), models.load("zoo:mpt-code")]
    story, code = toy_suite.toy(readers, documents=2, questions=8).values()
    assert not ran and code["tasks"]["code"]["how"] == "choice"
    assert story["tasks"]["commonsense"]["accuracy"] > 0.8
    assert story["tasks"]["commonsense"]["above_chance"]
    assert not story["tasks"]["reasoning"]["above_chance"]
    for name, chance in (("reasoning", 0.05), ("commonsense", 0.25), ("code", 0.25)):
        assert story["tasks"][name]["chance"] <= chance and story["tasks"][name]["stderr"] > 0
    table = reports.evaluate_table({"models": {"m": story}})
    assert "no better than chance" in table and "chance 25%" in table
    asked = toy_suite.toy(readers[1:], documents=1, questions=2, run_code=True)
    assert len(ran) == 2 and asked["zoo:mpt-code"]["tasks"]["code"]["accuracy"] == 1.0


def test_the_code_specialist_writes_functions_that_run() -> None:
    model = models.load("zoo:mpt-code")
    accuracy = toy_suite.execution_match(model, "code", 6)
    assert accuracy.right >= 4 and accuracy.above_chance
    assert toy_suite.execution_match(models.load("zoo:gpt2-story"), "code", 2).right == 0


def test_the_flag_runs_programs(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setattr(execution.sandbox, "CALLS", {})
    assert cli.main(["evaluate", "--model", "zoo:llama", "--suite", "toy", "--run-code"]) == 2
    assert "leave --run-code out" in capsys.readouterr().err
