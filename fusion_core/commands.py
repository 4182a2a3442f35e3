"""What each command does: its options -> a report, and what makes a table of it."""

from __future__ import annotations

import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from . import (
    benchmark,
    compare,
    fuse,
    generation,
    mapping,
    models,
    pipeline,
    reports,
    runs,
    training,
)
from .cache import building
from .config import MAX_TEXT_BYTES, FusionConfig, RunConfig, Sampling, read_flags, utf8
from .errors import InputError
from .io import documents
from .records import Progress
from .reports import Report
from .tokens import TextTokenizer

EVERY = "all"
"""What `transfer --strategy` takes for a table of every strategy."""

Output = tuple[Report, Callable[[Report], str]]
"""A report, and what makes a table of it."""


def run_align(options: Namespace) -> Output:
    """Align the tokens of models on one text, or on one conversation."""
    names = [options.target, *options.source]
    if options.messages_file is not None:
        if options.method != "bytes":
            raise InputError("Messages are aligned by bytes alone: leave --method out.")
        messages = documents.read_messages(options.messages_file)
        target, *sources = _tokenizers(options, names)
        reading, aligned = pipeline.align_chat(target, sources, messages)
    else:
        text = _text(options)
        target, *sources = _tokenizers(options, names)
        reading, aligned = pipeline.align(target, sources, text, options.method)
    return reports.align_report(reading, aligned), reports.align_table


def run_map_vocab(options: Namespace) -> Output:
    """Map a source's vocabulary to a target's, and write the map."""
    mapping.strategy(options.strategy)
    texts = documents.read_documents(options.text_file) if options.text_file else []
    target, source = _tokenizers(options, [options.target, options.source])
    began = time.perf_counter()
    pairs, from_cache = mapping.matrix(options.strategy, source, target, texts)
    seconds = time.perf_counter() - began
    documents.write_arrays(options.out, pairs.arrays() | {"shape": np.asarray(pairs.shape)})
    report = {
        "strategy": options.strategy,
        "shape": list(pairs.shape),
        "rows_mapped": pairs.rows_mapped,
        "exact_matches": pairs.exact,
        "seconds": seconds,
        "from_cache": from_cache,
        "out": str(options.out),
    }
    return report, reports.pairs_table


def run_transfer(options: Namespace) -> Output:
    """Score what is left of a source's rows at the target."""
    every = options.strategy == EVERY
    if every:
        del options.strategy
    config = _config(options)
    texts, corpus = documents.read_documents(options.text_file), _corpus(options)
    target, source = _load(options, [options.target, options.source])
    names = list(mapping.STRATEGIES) if every else [config.strategy]
    scores = compare.transfer(
        target, source, texts, config, names, corpus=corpus, progress=_progress()
    )
    if every:
        return {"strategies": scores}, reports.transfer_table
    return scores[names[0]], reports.pairs_table


def run_fuse(options: Namespace) -> Output:
    """Fuse the distributions of several sources on one text."""
    config = _config(options)
    text, corpus = _text(options), _corpus(options)
    target, *sources = _load(options, [options.target, *options.source])
    analysis = pipeline.analyze(target, sources, text, config, corpus=corpus, progress=_progress())
    pieces = [m.tokenizer.piece for m in sources] if options.attribution else None
    return reports.fused_report(analysis, target.tokenizer.piece, pieces), reports.fuse_table


def run_generate(options: Namespace) -> Output:
    """Continue a prompt, alone and together."""
    sampling = read_flags(options, Sampling)
    generation.check(options.operator)
    utf8(options.prompt, limit=MAX_TEXT_BYTES)
    target, *sources = _load(options, [options.target, *options.source])
    texts = generation.generate(
        target,
        sources,
        options.prompt,
        operator=options.operator,
        with_target=options.with_target,
        strategy=options.strategy,
        sampling=sampling,
        progress=_progress(),
    )
    return texts, reports.texts_table


def run_cache(options: Namespace) -> Output:
    """Write the fused rows of documents, for training."""
    config = _config(options)
    if options.shard_bytes < 1:
        raise InputError(f"--shard-bytes must be at least 1, not {options.shard_bytes}.")
    texts, corpus = documents.load_documents(options.data, seed=options.seed), _corpus(options)
    target, *sources = _load(options, [options.target, *options.source])
    began = time.perf_counter()
    cache = building.build_cache(
        target,
        sources,
        texts,
        config,
        options.out,
        kind=options.keep,
        shard_bytes=options.shard_bytes,
        corpus=corpus,
        progress=_progress(),
    )
    report = {
        "target_tokens": cache.tokens,
        "bytes": cache.bytes,
        "bytes_per_token": cache.rows_bytes / cache.tokens,
        "seconds": time.perf_counter() - began,
        "documents": len(cache),
        "shards": len(cache.manifest.shards),
        "out": str(options.out),
    }
    return report, reports.pairs_table


def run_train(options: Namespace) -> Output:
    """Train a target on the fused rows of documents."""
    given = {k: getattr(options, k) for k in ("device", "dtype") if getattr(options, k)}
    config = RunConfig.read(options.config).replace(**given)
    folder = options.out or os.path.join("runs", Path(options.config).stem)
    if options.estimate:
        return asdict(training.estimate(config, Path(folder).parent)), reports.pairs_table
    result = runs.run(config, folder, resume=options.resume, progress=_progress())
    return result | {"out": str(folder)}, reports.pairs_table


def run_evaluate(options: Namespace) -> Output:
    """Score models by bits per byte on documents."""
    config = _config(options)
    if options.suite is not None and options.suite != "toy":
        raise InputError(f"There is no suite called {options.suite!r}: choose toy.")
    texts = None
    if options.text_file is not None:
        texts = documents.read_documents(options.text_file)
    readers = _load(options, options.model)
    scores = (
        benchmark.toy(readers, run_code=options.run_code, progress=_progress())
        if texts is None
        else compare.bits_per_byte(readers, texts, overlap=config.overlap, progress=_progress())
    )
    return {"models": {m: {"tasks": {}} | s for m, s in scores.items()}}, reports.evaluate_table


def _progress() -> Progress:
    """Return a printer that is silent for the first two seconds, and then speaks once a second."""
    due = time.monotonic() + 2

    def tell(stage: str, share: float) -> None:
        nonlocal due
        if time.monotonic() > due:
            due = time.monotonic() + 1
            print(f"{share:4.0%} {stage}", file=sys.stderr)

    return tell


def _text(options: Namespace) -> str:
    if options.text is not None:
        utf8(options.text, limit=MAX_TEXT_BYTES)
        return options.text
    text = documents.read_text(options.text_file)
    utf8(text)
    return text


def _look_up(options: Namespace, names: Sequence[str]) -> dict[str, str]:
    """Refuse names that come twice or lead nowhere, before anything is loaded.

    Returns:
        The tokenizers that were named for servers' models.
    """
    pipeline.check_names(*names)
    tokenizers = {}
    for given in getattr(options, "tokenizer", ()):
        named = [n for n in names if given.startswith(f"{n}=") and len(given) > len(n) + 1]
        if not named:
            raise InputError(
                f"--tokenizer {given} names none of the models: give NAME=FOLDER, with NAME as "
                "written for the model."
            )
        tokenizers[named[0]] = given[len(named[0]) + 1 :]
    for name in names:
        models.find(name, tokenizers.get(name))
    return tokenizers


def _load(options: Namespace, names: Sequence[str]) -> list[models.LoadedModel]:
    """Load models after all their names have been looked up."""
    tokenizers = _look_up(options, names)
    if not 0 < options.max_gb < 1e9:
        raise InputError(f"--max-gb must be more than 0, not {options.max_gb}: 32 is usual.")
    limit = int(options.max_gb * 1e9)
    loaded: list[models.LoadedModel] = []
    for name in names:
        named = {"tokenizer": tokenizers.get(name)}
        if options.command == "evaluate" or not loaded:  # the target comes first
            named |= {"start": options.start, "end": options.end}
        loaded.append(
            models.load(name, device=options.device, dtype=options.dtype, max_bytes=limit, **named)
        )
    return loaded


def _tokenizers(options: Namespace, names: Sequence[str]) -> list[TextTokenizer]:
    """Load tokenizers after all names have been looked up."""
    tokenizers = _look_up(options, names)
    return [models.load_tokenizer(n, tokenizers.get(n)) for n in names]


def _config(options: Namespace) -> FusionConfig:
    config = read_flags(options, FusionConfig)
    mapping.strategy(config.strategy)
    fuse.operator_of(config.operator, config.level)
    return config


def _corpus(options: Namespace) -> list[str]:
    return documents.read_documents(options.corpus) if options.corpus else []
