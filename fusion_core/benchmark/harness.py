"""Tasks of the lm-evaluation-harness (`lm-eval`, an optional dependency), by its standard names.

Prompts, answers and metrics are those of its task files; models are read and written with by this
library, so that whatever it can load can be measured. Data come from the hub, or from a folder:
see `local_data`. Programs are run by `execution`, and only where that is asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from fusion_core import compare
from fusion_core.errors import InputError, sentence
from fusion_core.models import LoadedModel
from fusion_core.reading import read_documents
from fusion_core.records import Progress, TextReading

from . import execution, local_data
from .accuracy import Accuracy, constant
from .toy_suite import LINE_OUTSIDE, written

if TYPE_CHECKING:
    from lm_eval.api.model import LM

MAIN = ("acc_norm", "acc", "exact_match,flexible", "exact_match", "pass_at_1")
"""Metrics that are an accuracy, the one that is shown first: `acc_norm` is by log-likelihood a
byte, and what is called flexible finds an answer in what was written around it."""

HUMANEVAL = "humaneval"


def run_tasks(
    readers: Sequence[LoadedModel],
    names: Sequence[str],
    *,
    data: str | None = None,
    questions: int | None = None,
    run_code: bool = False,
    progress: Progress | None = None,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Measure models on tasks.

    Args:
        readers: models.
        names: tasks or groups as lm-eval calls them, such as arc_easy or
            bbh_zeroshot_boolean_expressions.
        data: a folder with the tasks' data; those of the hub by default.
        questions: how many of each task, its first ones; all by default.
        run_code: run what models write for humaneval.
        progress: told of every model.

    Returns:
        For each model's name and task the figures of `Accuracy.to_report`, ``how`` and all
        ``metrics``.

    Raises:
        InputError: lm-eval is not installed, there is no such task or no data, or programs would
            have to be run.
    """
    try:
        import lm_eval  # noqa: F401
    except ImportError:
        raise InputError(
            "Tasks need the package lm-eval, which is not installed: pip install lm-eval."
        ) from None
    if HUMANEVAL in names:
        if not run_code:
            raise InputError("humaneval runs programs that models write: allow it by --run-code.")
        execution.check()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    tasks = _tasks(names, data)
    for n, model in enumerate(readers):
        if progress:
            progress(f"{model.name} answers {', '.join(names)}", n / len(readers))
        found[model.name] = _measured(model, tasks, questions)
    return found


def _tasks(names: Sequence[str], data: str | None) -> dict[str, Any]:
    """Return the tasks by name."""
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    manager, found = _manager(), dict[str, Any]()
    for name in names:
        local = None if data is None else local_data.dataset(name, data)
        if name == HUMANEVAL:
            found[name] = ConfigurableTask(config=_humaneval(local))
            continue
        if name not in manager.all_tasks:
            raise InputError(
                f"lm-eval has no task called {name!r}: `lm-eval ls tasks` lists them all."
            )
        if local is not None:
            config = load_yaml(manager.task_index[name].yaml_path, resolve_func=True)
            found[name] = ConfigurableTask(config=_with_data(config, local))
            continue
        try:
            found |= manager.load([name])["tasks"]
        except Exception as error:
            said = sentence(error) or f"{type(error).__name__}: {error}"
            raise InputError(
                f"The data of {name} cannot be had ({said}): go online, or name a folder that has "
                "them by --task-data."
            ) from error
    return found


@cache
def _manager() -> Any:
    """Return lm-eval's index of tasks, which takes seconds to make."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _with_data(config: Mapping[str, Any], data: Any) -> dict[str, Any]:
    """Return a task's configuration with other data, which may lack splits."""
    known = {k: v for k, v in config.items() if k not in ("tag", "group")}
    for split in ("training_split", "validation_split", "test_split", "fewshot_split"):
        if known.get(split) not in data:
            known[split] = None
    return known | {"custom_dataset": lambda **_: data}


def _humaneval(data: Any) -> dict[str, Any]:
    """Return the configuration of HumanEval (arXiv 2107.03374), whose programs are run here.

    That of lm-eval fetches a metric that runs them in this process.
    """

    def process(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
        check = f"{doc['test']}\ncheck({doc['entry_point']})\n"
        return {
            "pass_at_1": float(execution.run(f"{doc['prompt']}{results[0]}\n{check}") == "passed")
        }

    return {
        "task": HUMANEVAL,
        "dataset_path": "openai/openai_humaneval",
        "custom_dataset": None if data is None else lambda **_: data,
        "output_type": "generate_until",
        "test_split": "test",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{canonical_solution}}",
        "process_results": process,
        "metric_list": [{"metric": "pass_at_1", "aggregation": "mean", "higher_is_better": True}],
        "generation_kwargs": {"until": list(LINE_OUTSIDE), "do_sample": False},
        "num_fewshot": 0,
        "metadata": {"version": 1.0},
    }


def _measured(
    model: LoadedModel, tasks: Mapping[str, Any], questions: int | None
) -> dict[str, dict[str, Any]]:
    """Measure one model."""
    from lm_eval import simple_evaluate

    results = simple_evaluate(
        model=_language_model(model),
        tasks=list(tasks.values()),
        limit=questions,
        bootstrap_iters=0,
        log_samples=False,
        confirm_run_unsafe_code=True,  # what is unsafe is run in a sandbox
    )
    assert results is not None
    found = {}
    for name, task in tasks.items():
        figures = results["results"][name].items()
        metrics = {k: float(v) for k, v in figures if isinstance(v, float) and "stderr" not in k}
        main = next((k for m in MAIN for k in sorted(metrics) if k.startswith(m)), None)
        found[name] = {"metrics": metrics}
        if main is not None:
            number = results["n-samples"][name]["effective"]
            accuracy = Accuracy(round(metrics[main] * number), number, chance(task))
            found[name] |= {"how": main.partition(",")[0]} | accuracy.to_report()
    return found


def chance(task: Any) -> float:
    """Return the accuracy that chance has on a task: of choices, or of the most frequent answer."""
    docs = list(task.eval_docs)
    if task.OUTPUT_TYPE == "multiple_choice":
        return sum(1 / len(task.doc_to_choice(d)) for d in docs) / len(docs)
    if task.config.task == HUMANEVAL:
        return 0.0
    return constant([str(task.doc_to_target(d)) for d in docs])


# The model, as lm-eval asks it ------------------------------------------------------------------


def _language_model(model: LoadedModel) -> LM:
    """Return what answers lm-eval's requests by this library."""
    from lm_eval.api.model import LM

    class Reader(LM):
        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            return list(continued(model, [r.args for r in requests]))

        def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
            texts = [r.args[0] for r in requests]
            return [-r.nats[0] for r in read_documents([model], texts, compare.SCORED)]

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            return [_generated(model, *r.args) for r in requests]

    return Reader()


def _generated(model: LoadedModel, prompt: str, options: Mapping[str, Any]) -> str:
    until = options.get("until") or []
    return written(model, prompt, [until] if isinstance(until, str) else until)


def continued(model: LoadedModel, pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[float, bool]]:
    """Return the log-likelihood of continuations, and whether each is what is most probable.

    What a continuation costs is the difference between the texts with it and without it. Prompts
    that are too long for the model's context lose their beginning.

    Args:
        model: the model.
        pairs: prompts with their continuations.
    """
    cut = [(_cut(model, prompt, end), end) for prompt, end in pairs]
    known = dict.fromkeys(p for p, _ in cut if p)
    texts = [*known, *(p + e for p, e in cut)]
    readings = read_documents([model], texts, compare.SCORED)
    for prompt in known:
        known[prompt] = next(readings).nats[0]
    for prompt, _ in cut:
        reading = next(readings)
        greedy = _greedy(reading, len(prompt.encode()))
        yield (known[prompt] or 0.0 if prompt else 0.0) - reading.nats[0], greedy


def _cut(model: LoadedModel, prompt: str, end: str) -> str:
    """Take off as much of a prompt's beginning as does not fit the context."""
    while prompt:
        encoding = model.tokenizer.encode(prompt + end)
        tokens = encoding.text_tokens
        over = len(tokens) - (model.window - 1)
        if over <= 0:
            break
        begin = max(1, int(encoding.end[tokens[over - 1]]))
        kept = encoding.data[begin:].decode("utf-8", "ignore")
        prompt = kept.removesuffix(end)  # whose first token may now be two
    return prompt


def _greedy(reading: TextReading, start: int) -> bool:
    """Tell whether every token after some bytes of a text is the most probable one."""
    for window in reading.windows:
        rows = window.rows[0]
        here = window.row_bytes(0)[:-1] >= start
        best = rows.dense.logprobs.argmax(-1)[:-1].cpu().numpy()
        if (best[here] != rows.observed[:-1].cpu().numpy()[here]).any():
            return False
    return True
