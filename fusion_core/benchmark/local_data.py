"""Data of lm-eval's tasks from a folder, for machines that reach no hub.

The folder has the files of the published repositories, BBH as its authors publish it, GSM8K's
test.jsonl, HumanEval.jsonl, and the commonsense questions in the instruction form in which they are
published with LLM-Adapters (arXiv 2304.01933):

    bbh/bbh/NAME.json                             bbh_zeroshot_NAME, bbh_cot_fewshot_NAME, …
    commonsense/ARC-Easy.test.json                arc_easy
    commonsense/ARC-Challenge.test.json           arc_challenge
    commonsense/boolq.test.json                   boolq, whose passages that form leaves out
    commonsense/openbookqa.test.json              openbookqa
    commonsense/hellaswag.test.json               hellaswag
    gsm8k/test.jsonl                              gsm8k, five of whose questions are examples
    humaneval/HumanEval.jsonl                     humaneval
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fusion_core.errors import InputError

Record = dict[str, Any]
EXAMPLES = 5
"""Questions of GSM8K that are shown before others, and not asked."""


def dataset(task: str, folder: str) -> Any:
    """Return the data of a task in the form in which lm-eval expects those of the hub.

    Args:
        task: its name.
        folder: see this module.

    Returns:
        A `datasets.DatasetDict`.

    Raises:
        InputError: the folder has no data of this task, or they cannot be read.
    """
    import datasets

    name, read = _reader(task)
    path = Path(folder) / name
    if not name or not path.is_file():
        raise InputError(
            f"There are no data of {task} in {folder}"
            + (f": put {name} there." if name else ": leave --task-data out for this task.")
        )
    try:
        records = _records(path)
        splits = read(records)
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({error}): copy it again.") from error
    return datasets.DatasetDict({k: datasets.Dataset.from_list(v) for k, v in splits.items()})


def _records(path: Path) -> list[Record]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    content = json.loads(text)
    return content["examples"] if isinstance(content, dict) else content


Read = Callable[[list[Record]], dict[str, list[Record]]]


def _reader(task: str) -> tuple[str, Read]:
    """Return a task's file, and what makes its splits of the file's records."""
    if match := re.fullmatch(r"bbh_(?:cot_)?(?:zero|few)shot_(\w+)", task):
        return f"bbh/bbh/{match[1]}.json", lambda records: {"test": records}
    return _FILES.get(task, ("", lambda records: {}))


def _arc(records: list[Record]) -> dict[str, list[Record]]:
    return {"test": [{"question": r["question"]} | r for r in map(_choices, records)]}


def _openbookqa(records: list[Record]) -> dict[str, list[Record]]:
    return {"test": [{"question_stem": r["question"]} | r for r in map(_choices, records)]}


def _choices(record: Record) -> Record:
    """Take a question in instruction form apart."""
    stem, _, rest = record["instruction"].partition("\n\nAnswer1: ")
    texts = re.split(r"\s*Answer\d+: ", rest.partition("\n\nAnswer format")[0])
    labels = [chr(ord("A") + n) for n in range(len(texts))]
    question = stem.partition(": ")[2]
    answer = labels[int(record["answer"].removeprefix("answer")) - 1]
    choices = {"text": [t.strip() for t in texts], "label": labels}
    return {"question": question, "choices": choices, "answerKey": answer}


def _boolq(records: list[Record]) -> dict[str, list[Record]]:
    found = []
    for record in records:
        question = record["instruction"].partition("question: ")[2].partition("\n\n")[0]
        label = int(record["answer"] == "true")
        found.append({"passage": "", "question": question.rstrip("?"), "label": label})
    return {"validation": found}


def _hellaswag(records: list[Record]) -> dict[str, list[Record]]:
    found = []
    for record in records:
        stem, _, rest = record["instruction"].partition("\n\nEnding1: ")
        ends = re.split(r"\s*Ending\d+: ", rest.partition("\n\nAnswer format")[0])
        activity, _, context = stem.partition(": ")[2].partition(": ")
        label = str(int(record["answer"].removeprefix("ending")) - 1)
        found.append(
            {"activity_label": activity, "ctx_a": context, "ctx_b": "", "endings": ends}
            | {"label": label}
        )
    return {"validation": found}


def _gsm8k(records: list[Record]) -> dict[str, list[Record]]:
    return {"train": records[:EXAMPLES], "test": records[EXAMPLES:]}


_FILES: dict[str, tuple[str, Read]] = {
    "arc_easy": ("commonsense/ARC-Easy.test.json", _arc),
    "arc_challenge": ("commonsense/ARC-Challenge.test.json", _arc),
    "openbookqa": ("commonsense/openbookqa.test.json", _openbookqa),
    "boolq": ("commonsense/boolq.test.json", _boolq),
    "hellaswag": ("commonsense/hellaswag.test.json", _hellaswag),
    "gsm8k": ("gsm8k/test.jsonl", _gsm8k),
    "humaneval": ("humaneval/HumanEval.jsonl", lambda records: {"test": records}),
}
