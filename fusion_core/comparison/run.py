"""Run of a comparison: forecast, baselines, fusion, verdicts; killed anywhere, it goes on.

comparison.json   the settings, and what was made of the budget
*.jsonl           documents to train on, to choose by and to measure on
forecast, …       a folder for each piece of work, with `scores.json` once it is finished
compare.json      the result; compare.md and compare.html show it
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, ProcessPoolExecutor, wait
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from fusion_core import models, training
from fusion_core.config import RunConfig
from fusion_core.errors import InputError
from fusion_core.io import documents
from fusion_core.io.files import write_whole
from fusion_core.reading import check_names
from fusion_core.records import Progress

from . import work
from .forecasting import forecast
from .plan import (
    DATA,
    MERGED,
    WRITTEN,
    ComparisonConfig,
    Job,
    final_jobs,
    methods,
    rates_for,
    text_names,
    tuning_jobs,
)
from .summary import summarise, write_summary
from .texts import write_texts

SETTINGS, RESULT = "comparison.json", "compare.json"
EPOCHS = 20
"""How often the data is read at most."""

LONGEST_BLOCK = 512
TRAINING_SHARE, ROWS_SHARE = 0.4, 0.25
"""Shares of the budget that trainings and rows may take; the rest is for loading and measuring."""

WRITTEN_TIMES = 6
"""Text that the sources write, over the data, where the budget allows as much."""

FEWEST_STEPS = 8
READY = 0.3
"""Share of a comparison that is behind when trainings begin, about."""

Calls = dict[str, Callable[[], dict[str, Any]]]
"""Pieces of work, by the name of the folder in which each is kept."""


def compare(
    config: ComparisonConfig,
    folder: str | Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Hold fusion against everything else that could be done with the same models and text.

    Args:
        config: the models, the text and how long it may take.
        folder: new or empty, or with ``resume`` that of a comparison with these settings.
        resume: go on where it was interrupted.
        progress: told of every piece of work, and how much time is left.

    Returns:
        ``forecast``, ``methods``, ``verdicts``, ``tests`` and how it was made.

    Raises:
        FusionError: something that was given cannot be used.
    """
    check_names(config.target, *config.sources)
    for name in (config.target, *config.sources):
        models.find(name)
    folder = Path(folder)
    _claim(config, folder, resume)
    try:
        with FileLock(folder / ".lock", timeout=1):
            if (folder / RESULT).is_file():
                return json.loads((folder / RESULT).read_bytes())
            return _Comparison(config, folder, progress or (lambda *_: None)).run()
    except training.StoppedError:
        raise InputError("The comparison was stopped: go on with it by --resume.") from None
    except BrokenExecutor as error:
        raise InputError(
            "A process of the comparison was ended, as a system does that is short of memory: go "
            "on with it by --resume, on one worker if it happens again."
        ) from error
    except Timeout:
        raise InputError(f"The comparison at {folder} is live: wait for it.") from None


def _claim(config: ComparisonConfig, folder: Path, resume: bool) -> None:
    """Make a folder a comparison's, or see that it is that of this one."""
    now = {"settings": json.loads(config.model_dump_json())}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = [f.name for f in folder.iterdir() if f.name != ".lock"]
        if (folder / SETTINGS).is_file() and resume:
            before = json.loads((folder / SETTINGS).read_bytes())
            changed = [k for k, v in now["settings"].items() if before["settings"].get(k) != v]
            if changed:
                raise InputError(
                    f"The comparison at {folder} has another {changed[0]}: choose another folder, "
                    "or give what was given."
                )
            return
        if there:
            raise InputError(
                f"{folder} holds {sorted(there)[-1]}: choose an empty folder, or go on with a "
                "comparison by --resume."
            )
        write_whole(folder / SETTINGS, json.dumps(now).encode())
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} cannot be used ({error}): choose another folder.") from error


class _Comparison:
    """What is done, in order; each piece is kept by `work.once`."""

    def __init__(self, config: ComparisonConfig, folder: Path, progress: Progress) -> None:
        self._config, self._folder, self._progress = config, folder, progress
        self._began, self._trainings, self._trained = time.monotonic(), 0, list[float]()
        self._threads = max(1, (os.cpu_count() or 1) // config.workers)

    def run(self) -> dict[str, Any]:
        config, folder = self._config, self._folder
        if not (folder / DATA).is_file():
            write_texts(config, folder)
        self._progress("reading the text with every model", 0)
        told = work.once(folder / "forecast", self._forecast)
        plan = work.once(folder / "plan", partial(self._plan, told))
        ready: Calls = {
            "untrained": partial(work.score_untrained, config, folder),
            "rows": partial(work.make_rows, config, folder, DATA, "rows"),
        }
        if plan["alike"]:
            ready[MERGED] = partial(work.merge_sources, config, folder)
        if plan["written_bytes"]:
            ready["writing"] = partial(work.write_text, config, folder, plan["written_bytes"])
        pieces = self._pieces(ready)
        written = bool(plan["written_bytes"]) and pieces["writing"]["written"]
        if written:
            rows = partial(work.make_rows, config, folder, WRITTEN, "written-rows")
            pieces |= self._pieces({"written rows": rows})
        kinds = len(text_names(folder))
        trained = self._train_all(plan, methods(written, kinds, plan["alike"]))
        result = summarise(config, folder, told, plan, pieces, trained)
        write_summary(folder, result)
        write_whole(folder / RESULT, json.dumps(result).encode())
        return result

    def _forecast(self) -> dict[str, Any]:
        config = self._config
        target = models.load(config.target, device=config.device)
        sources = [models.load(n, device=config.device) for n in config.sources]
        texts = documents.read_documents(self._folder / DATA)
        began = time.process_time()
        found = forecast(
            target, sources, texts, sample_bytes=config.test_bytes, progress=self._progress
        )
        return {
            "sources": found.to_report(),
            "sentence": found.sentence,
            "bytes": found.text_bytes,
            "core_seconds": time.process_time() - began,
        }

    def _plan(self, told: dict[str, Any]) -> dict[str, Any]:
        """Say what the budget allows: steps of each training, and text that is written."""
        config, folder = self._config, self._folder
        self._progress("timing a few steps", 0.02)
        target = models.load(config.target, device=config.device)
        block = min(LONGEST_BLOCK, target.context or LONGEST_BLOCK)
        parameters = sum(p.numel() for p in target.network.parameters())
        threads = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        values = {
            "target": config.target,
            "mode": "clm",
            "data": str(folder / DATA),
            "batch_size": 4,
            "block_size": block,
            "device": config.device,
        }
        needs = training.estimate(RunConfig.of(values), folder)
        torch.set_num_threads(threads)
        size = sum(len(t.encode()) for t in documents.read_documents(folder / DATA))
        core_seconds = 60 * config.budget * config.workers
        per_byte = told["core_seconds"] / told["bytes"]
        room = (ROWS_SHARE * core_seconds / per_byte - 2 * size) / 2  # written, then read
        written = config.written_bytes
        if written is None:
            written = int(max(0, min(WRITTEN_TIMES * size, room)))
        rates = rates_for(parameters, config.rates)
        names = methods(True, 2, False)
        number = len(tuning_jobs(names, rates)) + len(names) * config.seeds
        a_step = needs.training_seconds / needs.steps
        steps = int(TRAINING_SHARE * core_seconds / number / a_step)
        return {
            "steps": max(FEWEST_STEPS, min(steps, EPOCHS * needs.steps)),
            "written_bytes": written,
            "block_size": block,
            "rates": rates,
            "alike": work.can_merge(config),
        }

    def _train_all(self, plan: dict[str, Any], found: list[str]) -> dict[str, list[dict[str, Any]]]:
        """Choose learning rates with the first seed, then train the rest; results by method."""
        given = self._folder, plan["steps"], plan["block_size"]

        def calls(jobs: Sequence[Job]) -> Calls:
            return {j.folder: partial(work.train, self._config, j, *given) for j in jobs}

        tuning = tuning_jobs(found, plan["rates"])
        seeds = self._config.seeds
        self._trainings = len(tuning) + len(found) * seeds - len(tuning) // len(plan["rates"])
        done = self._pieces(calls(tuning))
        rates = {}
        for name in {j.method for j in tuning}:
            tried = [done[j.folder] for j in tuning if j.method == name]
            rates[name] = min(tried, key=lambda r: r["validation"])["rate"]
        final = final_jobs(found, rates, seeds)
        done |= self._pieces(calls([j for j in final if j not in tuning]))
        return {n: [done[j.folder] for j in final if j.method == n] for n in found}

    # Pieces of work ---------------------------------------------------------------------------

    def _pieces(self, calls: Calls) -> dict[str, dict[str, Any]]:
        """Do pieces of work that do not wait for one another, several at once.

        Args:
            calls: by the name of the folder in which each is kept.
        """
        folders = {name: self._folder / name.replace(" ", "-") for name in calls}
        done, todo = {}, []
        for name, place in folders.items():
            if (place / work.SCORES).is_file():
                done[name] = json.loads((place / work.SCORES).read_bytes())
            else:
                todo.append(name)
        self._count(done.values())
        for name, result in self._results(calls, folders, todo):
            done[name] = result
            self._count([result])
            self._say(f"{name} is done")
        return done

    def _count(self, results: Iterable[dict[str, Any]]) -> None:
        """Count trainings, where these are."""
        if self._trainings:
            self._trained += [r["wall_seconds"] for r in results]

    def _say(self, stage: str) -> None:
        """Tell what is done, and how much is left: of the budget, or by the trainings so far."""
        spent, budget = (time.monotonic() - self._began) / 60, self._config.budget
        left, share = max(0.0, budget - spent), min(READY, spent / budget)
        if self._trainings:
            more = self._trainings - len(self._trained)
            stage += f", {more} trainings are left"
            share = READY + (1 - READY) * len(self._trained) / self._trainings
            if self._trained:
                left = statistics.mean(self._trained) * more / self._config.workers / 60
        self._progress(f"{stage}, about {left:.0f} minutes", min(0.99, share))

    def _results(
        self, calls: Calls, folders: dict[str, Path], todo: Sequence[str]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Give the results as they come: of worker processes, where there are several."""
        if self._config.workers == 1:
            yield from ((name, work.once(folders[name], calls[name])) for name in todo)
            return
        pool = ProcessPoolExecutor(
            self._config.workers,
            mp_context=get_context("spawn"),
            initializer=work.begin_worker,
            initargs=(self._threads,),
        )
        try:
            futures = {pool.submit(work.once, folders[n], calls[n]): n for n in todo}
            while futures:
                ended, _ = wait(futures, timeout=2, return_when=FIRST_COMPLETED)
                for future in ended:
                    yield futures.pop(future), future.result()
                if futures and not ended:
                    self._say(", ".join(n for f, n in futures.items() if f.running()))
        finally:
            pool.shutdown(cancel_futures=True)
