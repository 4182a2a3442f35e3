"""Tasks of lm-eval, from files of test data, against transformers and known answers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from fusion_core import cli, models, reports
from fusion_core.benchmark import execution, harness, local_data
from fusion_core.errors import InputError

BBH = "bbh_zeroshot_boolean_expressions"


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neox"])
def test_continuations_cost_what_transformers_says(kind: str, tmp_path: Path) -> None:
    model = models.load(tiny.saved(tmp_path / "m", kind))
    pairs = [("the cat sat on the", " mat"), ("a small boat", " sailed over"), ("", "the dog ran")]
    start = [] if model.tokenizer.start_id is None else [model.tokenizer.start_id]
    for (prompt, end), (found, greedy) in zip(pairs, harness.continued(model, pairs), strict=True):
        if not (prompt or start):
            continue  # nothing predicts the first token
        whole = model.tokenizer.encode(prompt + end)
        before = len(model.tokenizer.encode(prompt).text_tokens) if prompt else 0
        ids = start + whole.ids[whole.text_tokens].tolist()
        first = len(start) + before
        with torch.no_grad():
            logits = model.network(torch.tensor([ids])).logits[0].log_softmax(-1)
        wanted = sum(float(logits[i - 1, ids[i]]) for i in range(first, len(ids)))
        assert found == pytest.approx(wanted, abs=1e-3)
        best = logits[first - 1 : -1, : model.tokenizer.size].argmax(-1).tolist()
        assert greedy == (best == ids[first:])


def test_a_continuation_that_is_most_probable_is_known_as_such() -> None:
    model = models.load("zoo:mpt-code")
    prompt = "def scale_sat(values):\n"
    told = harness.written(model, prompt, ["\n"])
    (_, greedy), (_, other) = harness.continued(model, [(prompt, told), (prompt, "zzz")])
    assert greedy and not other


def test_prompts_beyond_the_context_lose_their_beginning() -> None:
    model = models.load("zoo:llama")
    prompt = "".join(f"Mia has {n} apples. " for n in range(2000)) + "The end is"
    cut = harness._cut(model, prompt, " here.")
    assert prompt.endswith(cut) and 0 < len(cut) < len(prompt)
    assert len(model.tokenizer.encode(cut + " here.").text_tokens) < model.window
    ((nats, _),) = harness.continued(model, [(prompt, " here.")])
    assert nats < 0
    assert harness._cut(model, "short", " end") == "short"


# Data --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["arc_easy", "arc_challenge", "openbookqa"])
def test_questions_in_instruction_form_are_taken_apart(task: str, testdata: Path) -> None:
    folder = testdata / "data"
    found = list(local_data.dataset(task, str(folder))["test"])
    records = json.loads((folder / local_data._FILES[task][0]).read_text())
    assert len(found) == len(records) > 400
    for item, record in zip(found[:200], records, strict=False):
        asked, choices = item.get("question") or item["question_stem"], item["choices"]
        right = choices["text"][choices["label"].index(item["answerKey"])]
        assert f": {asked}\n\nAnswer1: {choices['text'][0]}" in record["instruction"]
        number = record["answer"].removeprefix("answer")
        assert f"Answer{number}: {right}" in record["instruction"]


def test_other_tasks_have_their_questions(testdata: Path) -> None:
    folder = str(testdata / "data")
    assert len(local_data.dataset(BBH, folder)["test"]) == 250
    assert len(local_data.dataset("humaneval", folder)["test"]) == 164
    gsm8k = local_data.dataset("gsm8k", folder)
    assert len(gsm8k["train"]) == 5 and len(gsm8k["test"]) == 1314
    boolq = local_data.dataset("boolq", folder)["validation"]
    assert set(boolq["label"]) == {0, 1} and not boolq["question"][0].endswith("?")


def test_data_that_are_missing_or_broken_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ARC-Easy"):
        local_data.dataset("arc_easy", str(tmp_path))
    with pytest.raises(InputError, match="leave --task-data out"):
        local_data.dataset("mmlu", str(tmp_path))
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k" / "test.jsonl").write_text("{")
    with pytest.raises(InputError, match="copy it again"):
        local_data.dataset("gsm8k", str(tmp_path))


@pytest.mark.parametrize("number", [20, pytest.param(164, marks=pytest.mark.slow)])
def test_the_published_solutions_of_humaneval_pass(number: int, testdata: Path) -> None:
    for doc in list(local_data.dataset("humaneval", str(testdata / "data"))["test"])[:number]:
        check = f"{doc['test']}\ncheck({doc['entry_point']})\n"
        assert execution.run(f"{doc['prompt']}{doc['canonical_solution']}\n{check}") == "passed"


# End to end --------------------------------------------------------------------------------------


def test_without_the_package_it_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    assert cli.main(["evaluate", "--model", "zoo:llama", "--tasks", "arc_easy"]) == 2
    assert "pip install lm-eval" in capsys.readouterr().err


@pytest.fixture(scope="module")
def lm_eval() -> Any:
    return pytest.importorskip("lm_eval")


@pytest.mark.parametrize("name", ["zoo:mpt-code", "models/stories260K"])
def test_tasks_end_to_end(lm_eval: Any, name: str, testdata: Path, run: Any) -> None:
    model = name if name.startswith("zoo:") else str(testdata / name)
    report = run(
        *("evaluate", "--model", model, "--tasks", f"{BBH},arc_easy", "--questions", "4"),
        *("--task-data", str(testdata / "data")),
    )
    tasks = report["models"][model]["tasks"]
    assert tasks["arc_easy"]["how"] == "acc_norm" and tasks[BBH]["how"] == "exact_match"
    assert tasks["arc_easy"]["chance"] == pytest.approx(0.25, abs=0.01)
    assert 0.5 <= tasks[BBH]["chance"] <= 0.6  # always False, or always True
    for task in tasks.values():
        assert task["questions"] == 4 and task["stderr"] > 0 and not task["above_chance"]
    assert "no better than chance" in reports.evaluate_table(report)


def test_right_answers_are_counted_as_such(
    lm_eval: Any, testdata: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The models' place is taken by the published answers, so that prompts and metrics are seen."""
    folder, model = str(testdata / "data"), models.load("zoo:llama")
    humaneval = {
        d["prompt"]: d["canonical_solution"]
        for d in local_data.dataset("humaneval", folder)["test"]
    }
    boolean = {
        f"Q: {d['input']}\nA:": f" {d['target']}" for d in local_data.dataset(BBH, folder)["test"]
    }
    answers = humaneval | boolean
    monkeypatch.setattr(
        harness,
        "written",
        lambda _, prompt, stop: answers[
            prompt[prompt.find("Q: ") :] if "Q: " in prompt else prompt
        ],
    )
    right = {
        (
            f"Question: {d['question']}\nAnswer:",
            f" {d['choices']['text'][d['choices']['label'].index(d['answerKey'])]}",
        )
        for d in local_data.dataset("arc_easy", folder)["test"]
    }
    monkeypatch.setattr(
        harness,
        "continued",
        lambda _, pairs: ((0.0 if p in right else -99.0, False) for p in pairs),
    )
    names = ["humaneval", BBH, "arc_easy"]
    found = harness.run_tasks([model], names, data=folder, questions=20, run_code=True)
    for name in names:
        task = found[model.name][name]
        assert task["accuracy"] == 1.0 and task["above_chance"] and task["questions"] == 20, name


def test_what_cannot_be_asked_is_said(lm_eval: Any, testdata: Path) -> None:
    model = models.load("zoo:llama")
    with pytest.raises(InputError, match="--run-code"):
        harness.run_tasks([model], ["humaneval"], data=str(testdata / "data"))
    with pytest.raises(InputError, match="no task called 'nothing'"):
        harness.run_tasks([model], ["nothing"])
    with pytest.raises(InputError, match="--task-data"):
        harness.run_tasks([model], ["arc_easy"])  # no hub is reached in tests


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zoo:mpt-code", "models/stories260K"])
def test_humaneval_end_to_end(lm_eval: Any, name: str, testdata: Path, run: Any) -> None:
    model = name if name.startswith("zoo:") else str(testdata / name)
    report = run(
        *("evaluate", "--model", model, "--tasks", "humaneval", "--questions", "20"),
        *("--run-code", "--task-data", str(testdata / "data")),
    )
    task = report["models"][model]["tasks"]["humaneval"]
    assert task["questions"] == 20 and task["accuracy"] <= 0.1 and task["chance"] == 0.0
