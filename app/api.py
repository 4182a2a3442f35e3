"""What programs may ask: typed endpoints for `gradio_client`, and as MCP tools.

The same limits hold as on the page. A wrong argument is answered with one sentence.
"""

from __future__ import annotations

import inspect
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import wraps
from typing import Any

import gradio as gr

from fusion_core import fuse as fusing
from fusion_core import pipeline, reports, runs
from fusion_core.config import FusionConfig, Objective, RunConfig, Sampling, describe
from fusion_core.errors import sentence
from fusion_core.mapping import STRATEGIES

from .arguments import refused
from .compute import generate as writing
from .compute import train as training
from .requests import ENSEMBLE_OPERATOR, analysis_request, generation_request, model_names
from .state import AppState, KeptAnalysis
from .tabs.align.cards import cards
from .tabs.events import visitor_address
from .training import form as forms
from .training.form import Form, ShortRun
from .training.plan import make_plan
from .training.store import JobStore, new_key

Report = dict[str, Any]
DOMAINS = list(forms.DOMAINS)
USUAL, WRITING = FusionConfig(), Sampling()


def _listed(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}"


def _described() -> dict[str, str]:
    """Return what the description of an endpoint names between braces: settings and choices."""
    models = (RunConfig, Objective, ShortRun, FusionConfig, Sampling)
    return {s.name: s.description for model in models for s in describe(model)} | {
        "operators": _listed(fusing.OPERATORS),
        "label_free": _listed(fusing.label_free()),
        "strategies": _listed(STRATEGIES),
        "domains": ", ".join(DOMAINS),
    }


def connect(state: AppState, jobs: JobStore) -> None:
    """Add the endpoints to the `arguments.Page` that is being built."""
    here = Endpoints(state, jobs)
    groups: dict[str, list[Callable[..., Report]]] = {
        "align": [here.align],  # which waits for no network
        "analyze": [here.distributions, here.fuse],
        "generate": [here.generate],
        "train-plan": [here.train, here.run_status],
    }
    for group, functions in groups.items():
        for function in functions:
            gr.api(
                _answered(function),
                api_name=function.__name__,
                concurrency_id=group,
                concurrency_limit=2,
            )


def _answered(function: Callable[..., Report]) -> Callable[..., Report]:
    """Turn what a caller did wrong into an answer; a fault of ours stays one.

    Arguments have been checked by the `arguments.Page` on which the endpoint is.
    """

    @wraps(function)
    def answer(*args: Any, **kwargs: Any) -> Report:
        try:
            return reports.finite(function(*args, **kwargs))
        except Exception as error:
            said = sentence(error)
            if said is None:
                raise
            raise refused(said) from error

    # Of an argument's description gradio reads one line.
    words = re.sub(r"\n {8}", " ", inspect.getdoc(function) or "")
    answer.__doc__ = words.format(**_described())
    return answer


class Endpoints:
    """What programs may call; descriptions name choices between braces."""

    def __init__(self, state: AppState, jobs: JobStore) -> None:
        """Take what the page works on, too."""
        self._state, self._jobs = state, jobs

    def align(self, target: str, sources: list[str], text: str, method: str = "bytes") -> Report:
        """Align the tokens of several models on one text, byte for byte.

        Args:
            target: name of the target model: zoo:NAME, or a hub id; ?start=TOKEN and ?end=TOKEN
                behind it name its tokens around documents.
            sources: names of the source models.
            text: what they read.
            method: "bytes", or "dtw" for the published dynamic time warping.

        Returns:
            bytes, target (its tokens with byte offsets), and for each source its tokens, groups of
            tokens that close at the same byte, and coverage.
        """
        request = analysis_request(self._state.limits, target, sources, text)
        first, *others = [self._state.tokenizers.get(name) for name in request.names]
        return reports.align_report(*pipeline.align(first, others, text, method))

    def fuse(
        self,
        target: str,
        sources: list[str],
        text: str,
        operator: str = USUAL.operator,
        level: str = USUAL.level,
        strategy: str = USUAL.strategy,
        top_k: int = USUAL.top_k,
        rows: str = USUAL.rows,
    ) -> Report:
        """Fuse what several models expect at every token of a text.

        Args:
            target: name of the model in whose tokens is fused.
            sources: names of the models that are fused.
            text: what they read.
            operator: {operator}: {operators}.
            level: {level}
            strategy: {strategy}: {strategies}.
            top_k: {top_k}
            rows: {rows}

        Returns:
            For each target token the fused row, its winner, weights, kept mass and where each fused
            token's probability came from; bits per byte of every model and of the fused rows, and
            what these know that could not be known before: knows_token, where the operator looked
            at each token, and rows, where they know the sources' boundaries.
        """
        kept = self._kept(target, sources, text, operator, level, strategy, top_k, rows)
        pieces = [kept.pieces[name] for name in kept.request.sources]
        return reports.fused_report(kept.analysis, kept.pieces[kept.request.target], pieces)

    def distributions(
        self,
        target: str,
        sources: list[str],
        text: str,
        index: int,
        operator: str = USUAL.operator,
        level: str = USUAL.level,
        strategy: str = USUAL.strategy,
        top_k: int = USUAL.top_k,
        rows: str = USUAL.rows,
    ) -> Report:
        """Show what every model expected at one token of a text, and what was fused there.

        Args:
            target: name of the model in whose tokens is fused.
            sources: names of the models that are fused.
            text: what they read.
            index: which of the target's tokens, from 0, its start token not counted.
            operator: {operator}: {operators}.
            level: {level}
            strategy: {strategy}: {strategies}.
            top_k: {top_k}
            rows: {rows}

        Returns:
            The token; for each source its own row, what was carried over, kept mass and
            cross-entropy in nats; the target's own row; the fused row and its winner.
        """
        kept = self._kept(target, sources, text, operator, level, strategy, top_k, rows)
        return cards(kept.analysis, index, kept.pieces)

    def generate(
        self,
        target: str,
        sources: list[str],
        prompt: str,
        operator: str = ENSEMBLE_OPERATOR,
        strategy: str = USUAL.strategy,
        max_new_tokens: int = WRITING.max_new_tokens,
        temperature: float = WRITING.temperature,
        top_p: float = WRITING.top_p,
        seed: int = WRITING.seed,
    ) -> Report:
        """Continue a prompt with the target, with each source, and with all sources fused.

        Args:
            target: name of the model in whose tokens the fused text is written.
            sources: names of the models that are fused.
            prompt: what is continued.
            operator: {operator}: {label_free}.
            strategy: {strategy}: {strategies}.
            max_new_tokens: {max_new_tokens}
            temperature: {temperature}
            top_p: {top_p}
            seed: {seed}

        Returns:
            The continuations: target, sources by name, and ensemble.
        """
        asked = generation_request(
            self._state.limits,
            target,
            sources,
            prompt,
            operator=operator,
            strategy=strategy,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
        )
        last(self._state.models.loading(asked.names))
        return writing.texts(self._state.models.key, asked)

    def train(
        self,
        target: str,
        sources: list[str],
        text: str = "",
        domains: list[str] = DOMAINS,
        kilobytes: int = Form.kilobytes,
        steps: int = Form.steps,
        lm_weight: float = Form.lm_weight,
        learning_rate: float = Form.learning_rate,
        batch_size: int = Form.batch_size,
        lora: bool = Form.lora,
        baseline: bool = Form.baseline,
        operator: str = USUAL.operator,
        level: str = USUAL.level,
        strategy: str = USUAL.strategy,
        rows: str = USUAL.rows,
        seed: int = Form.seed,
        key: str = "",
    ) -> Report:
        """Start a short training on the fused rows of several sources; it goes on by itself.

        Args:
            target: name of the model that learns.
            sources: names of the models that are fused.
            text: what is learnt, documents apart by blank lines; a tenth is held out.
            domains: toy domains that are learnt besides: {domains}.
            kilobytes: {kilobytes}
            steps: {steps}
            lm_weight: {lm_weight}
            learning_rate: {learning_rate}
            batch_size: {batch_size}
            lora: {lora}
            baseline: train the same on the text alone, too, to compare.
            operator: {operator}: {operators}.
            level: {level}
            strategy: {strategy}: {strategies}.
            rows: {rows}
            seed: {seed}
            key: from an earlier answer, to keep runs together; empty makes a new one.

        Returns:
            key and run, for run_status; parts, steps, and about how many seconds it takes.
        """
        first, *others = model_names(self._state.limits, target, sources)
        fusion = {"operator": operator, "level": level, "strategy": strategy, "rows": rows}
        form = Form(
            first, tuple(others), fusion, domains=tuple(domains), kilobytes=kilobytes, text=text,
            steps=steps, lm_weight=lm_weight, lora=lora, learning_rate=learning_rate,
            batch_size=batch_size, baseline=baseline, seed=seed,
        )  # fmt: skip
        return self._start(form, key or new_key())

    def _start(self, form: Form, key: str) -> Report:
        state, jobs = self._state, self._jobs
        address = visitor_address()
        jobs.check_room(key, address)
        plan = make_plan(form, state.limits, state.device, jobs.root, training.measure)
        plan.estimate.check()
        job = jobs.create(key, plan, state.device, address)
        if state.limits.in_event:
            last(jobs.work(key, job.id))
        about = {"parts": list(job.parts), "steps": plan.steps, "seconds": plan.seconds}
        return {"key": key, "run": job.id} | about

    def run_status(self, key: str, run: str) -> Report:
        """Say how far a training is.

        Args:
            key: from train.
            run: from train.

        Returns:
            For each part ("fused", "baseline") its state, stage, step, seconds that are left, why
            it failed, the last metrics, and once it is finished bits per byte before and after.
        """
        job = self._jobs.get(key, run)
        parts = {}
        for part, now in job.statuses().items():
            lines = [x for x in runs.metrics(job.run(part)) if "loss" in x]
            parts[part] = asdict(now) | {"metrics": lines[-1] if lines else None}
        return {"run": job.id, "name": job.name, "parts": parts}

    def _kept(self, target: str, sources: list[str], text: str, *fusion: Any) -> KeptAnalysis:
        options = dict(zip(("operator", "level", "strategy", "top_k", "rows"), fusion, strict=True))
        limits = self._state.limits
        request = analysis_request(limits, target, sources, text, **options)
        return last(self._state.analyze(request))


def last(steps: Iterator[Any]) -> Any:
    """Return what an iterator gives last, behind sentences of progress; None of nothing."""
    kept = deque(steps, maxlen=1)
    return kept[0] if kept else None
