"""The command line: from `align` and `map-vocab` to `cache`, `train` and `evaluate`.

Every command prints a readable table, or with ``--json`` one JSON object and nothing else, on
stdout; progress goes to stderr. Exit status 0; 2 for bad input, with one line on stderr; 1 for an
internal fault.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NoReturn

import numpy as np

from . import benchmark, compare, fuse, generate, mapping, models, pipeline, runs, train
from .align import METHODS
from .cache import building
from .config import MAX_TEXT_BYTES, FusionConfig, RunConfig, utf8
from .errors import InputError, sentence
from .io import documents
from .project import Progress
from .reports import (
    Report,
    align_report,
    align_table,
    evaluate_table,
    finite,
    fuse_table,
    fused_report,
    pairs_table,
    study_table,
    texts_table,
)
from .tokens import TextTokenizer

EVERY = "all"
"""What `transfer --strategy` takes for a table of every strategy."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: arguments without the program's name; those of the process by default.

    Returns:
        The exit status.
    """
    _quiet()
    try:
        options = _parser().parse_args(argv)
        report, table = options.run(options)
        if os.environ.get("RANK", "0") != "0":  # of several processes the first one speaks
            return 0
        if options.json:
            print(json.dumps(finite(report), ensure_ascii=False, allow_nan=False))
        else:
            print(table(report))
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:
        print("fusion_core: interrupted.", file=sys.stderr)
        return 130
    except Exception as error:
        said = sentence(error)
        if said is None:
            raise
        print(f"fusion_core: {said}", file=sys.stderr)
        return 2
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see `{self.prog} --help`.")


def _quiet() -> None:
    """Print UTF-8 everywhere, and keep library warnings and progress bars off stderr."""
    import transformers

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m fusion_core", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)

    def command(name: str, run: Callable, what: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=what, description=what, allow_abbrev=False)
        sub.set_defaults(run=run)
        sub.add_argument("--json", action="store_true", help="one JSON object on stdout")
        return sub

    def add_text(sub: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
        one = sub.add_mutually_exclusive_group(required=True)
        one.add_argument("--text", help="the text, as typed")
        one.add_argument("--text-file", help="a UTF-8 file, read exactly as it is")
        return one

    def add_device(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N, mps, auto or spread")
        sub.add_argument("--dtype", help=", ".join(models.DTYPES))
        whose = "each model" if sub.prog.endswith("evaluate") else "the target"
        for what, when in (("start", "before"), ("end", "after")):
            sub.add_argument(
                f"--{what}",
                help=f"token that {whose} reads {when} documents, or none; of any other model by "
                f"its name: NAME?{what}=TOKEN",
            )
        sub.add_argument(
            "--max-gb", type=float, default=models.MAX_BYTES / 1e9, help="refuse larger weights"
        )

    def add_carrying(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--corpus", help="documents in which `statistical` counts; by default those it reads"
        )
        cut = sub.add_mutually_exclusive_group()
        cut.add_argument("--source-top-k", type=int, help="cut the sources' rows first")
        cut.add_argument("--source-top-p", type=float, help="cut them to this share of the mass")
        cut.add_argument("--source-samples", type=int, help="draw so many tokens of each instead")
        sub.add_argument(
            "--chain-rule",
            action="store_true",
            help="where it is known, take the source's own probability of the token that followed",
        )
        sub.add_argument("--temperature", type=float, default=FusionConfig.temperature)
        sub.add_argument("--seed", type=int, default=FusionConfig.seed, help="of draws")
        add_windows(sub)

    def add_fusing(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--target", required=True)
        sub.add_argument("--source", action="append", required=True)
        sub.add_argument("--operator", default="min_ce", help=", ".join(fuse.OPERATORS))
        sub.add_argument("--level", default="sequence", help=" or ".join(fuse.LEVELS))
        sub.add_argument(
            "--operator-temperature",
            type=float,
            default=FusionConfig.operator_temperature,
            help="what the operator's scores are divided by before a softmax",
        )
        sub.add_argument(
            "--with-target", action="store_true", help="fuse the target's own rows, too"
        )
        sub.add_argument("--top-k", type=int, default=10, help="tokens kept of a fused row")

    def add_strategy(sub: argparse.ArgumentParser, *more: str) -> None:
        names = ", ".join([*mapping.STRATEGIES, *more])
        sub.add_argument("--strategy", default=FusionConfig.strategy, help=names)

    def add_windows(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--overlap",
            type=float,
            default=FusionConfig.overlap,
            help="share of a window that the next one reads again, for texts beyond a context or "
            "the memory for their rows",
        )

    sub = command("align", _align, "align the tokens of models on one text")
    sub.add_argument("--target", required=True)
    sub.add_argument("--source", action="append", required=True)
    sub.add_argument("--method", default="bytes", help=", ".join(METHODS))
    add_text(sub).add_argument(
        "--messages-file",
        help="a JSON list of messages, each with role and content, read in chat templates",
    )

    sub = command("map-vocab", _map_vocab, "map a source's vocabulary to a target's")
    sub.add_argument("--target", required=True)
    sub.add_argument("--source", required=True)
    sub.add_argument("--strategy", required=True, help=", ".join(mapping.MATRICES))
    sub.add_argument("--out", required=True, help="an .npz file")
    sub.add_argument("--text-file", help="documents in which `statistical` counts")

    sub = command("transfer", _transfer, "score what is left of a source's rows at the target")
    sub.add_argument("--target", required=True)
    sub.add_argument("--source", required=True)
    sub.add_argument("--text-file", required=True, help="documents: .txt, .jsonl or .parquet")
    add_strategy(sub, f"or {EVERY} for a table of all")
    add_carrying(sub)
    add_device(sub)

    sub = command("fuse", _fuse, "fuse the distributions of several sources on one text")
    add_fusing(sub)
    sub.add_argument(
        "--origins",
        action="store_true",
        help="with --json: which source tokens the mass of each fused token came from",
    )
    add_text(sub)
    add_strategy(sub)
    add_carrying(sub)
    add_device(sub)

    sub = command("generate", _generate, "continue a prompt, alone and together")
    sub.add_argument("--target", required=True)
    sub.add_argument("--source", action="append", required=True)
    sub.add_argument("--prompt", required=True)
    sub.add_argument("--operator", default="confidence", help=", ".join(fuse.label_free()))
    sub.add_argument("--with-target", action="store_true", help="the target takes part, too")
    for name, kind in (
        ("max_new_tokens", int),
        ("temperature", float),
        ("top_p", float),
        ("seed", int),
    ):
        default = getattr(generate.Sampling, name)
        flag = f"--{name.replace('_', '-')}"
        sub.add_argument(flag, type=kind, default=default, help=f"{default} by default")
    sub.add_argument("--stop", action="append", default=[], help="a string to stop at")
    add_device(sub)

    sub = command("cache", _cache, "write the fused rows of documents, for training")
    add_fusing(sub)
    sub.add_argument("--data", required=True, help="documents: a file, or a hub dataset's id")
    sub.add_argument("--out", required=True, help="a folder; a half-built cache is gone on with")
    sub.add_argument(
        "--keep", default="fused", help="; ".join(f"{k}: {v}" for k, v in building.KINDS.items())
    )
    sub.add_argument(
        "--shard-bytes",
        type=int,
        default=building.SHARD_BYTES,
        help="text of one file of the cache",
    )
    add_strategy(sub)
    add_carrying(sub)
    add_device(sub)

    sub = command("train", _train, "teach a target the fused rows of documents")
    sub.add_argument("--config", required=True, help="a YAML file")
    sub.add_argument("--out", help="the run's folder; by default runs/ and the file's name")
    sub.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    sub.add_argument("--device", help="in place of the file's")
    sub.add_argument("--dtype", help="in place of the file's")
    sub.add_argument("--estimate", action="store_true", help="say what it will take, and end")

    sub = command("evaluate", _evaluate, "bits per byte of models on documents")
    sub.add_argument("--model", action="append", required=True)
    data = sub.add_mutually_exclusive_group(required=True)
    data.add_argument("--text-file", help="documents: .txt, .jsonl or .parquet")
    data.add_argument("--suite", help="toy: the test split of the embedded domains")
    add_windows(sub)
    add_device(sub)
    return parser


def _progress() -> Progress:
    """Return a printer that is silent for the first two seconds, and then speaks once a second."""
    due = time.monotonic() + 2

    def tell(stage: str, share: float) -> None:
        nonlocal due
        if time.monotonic() > due:
            due = time.monotonic() + 1
            print(f"{share:4.0%} {stage}", file=sys.stderr)

    return tell


def _text(options: argparse.Namespace) -> str:
    if options.text is not None:
        utf8(options.text, limit=MAX_TEXT_BYTES)
        return options.text
    text = documents.read_text(options.text_file)
    utf8(text)
    return text


def _look_up(names: Sequence[str]) -> None:
    """Refuse names that stand twice or lead nowhere, before anything is loaded."""
    pipeline.check_names(*names)
    for name in names:
        models.find(name)


def _load(options: argparse.Namespace, names: Sequence[str]) -> list[models.LoadedModel]:
    """Load models after all their names have been looked up."""
    _look_up(names)
    if not 0 < options.max_gb < 1e9:
        raise InputError(f"--max-gb must be more than 0, not {options.max_gb}: 32 is usual.")
    limit = int(options.max_gb * 1e9)
    loaded: list[models.LoadedModel] = []
    for name in names:
        named = {}
        if options.command == "evaluate" or not loaded:  # the target comes first
            named = {"start": options.start, "end": options.end}
        loaded.append(
            models.load(name, device=options.device, dtype=options.dtype, max_bytes=limit, **named)
        )
    return loaded


def _tokenizers(names: Sequence[str]) -> list[TextTokenizer]:
    """Load tokenizers after all names have been looked up."""
    _look_up(names)
    return [models.load_tokenizer(n) for n in names]


def _config(options: argparse.Namespace) -> FusionConfig:
    given = {
        name: getattr(options, name)
        for name in FusionConfig.__dataclass_fields__
        if hasattr(options, name)
    }
    config = FusionConfig(**given)
    mapping.strategy(config.strategy)
    fuse.operator_of(config.operator, config.level)
    return config


def _align(options: argparse.Namespace) -> tuple[Report, Callable[[Report], str]]:
    names = [options.target, *options.source]
    if options.messages_file is not None:
        if options.method != "bytes":
            raise InputError("Messages are aligned by bytes alone: leave --method out.")
        messages = documents.read_messages(options.messages_file)
        target, *sources = _tokenizers(names)
        reading, aligned = pipeline.align_chat(target, sources, messages)
    else:
        text = _text(options)
        target, *sources = _tokenizers(names)
        reading, aligned = pipeline.align(target, sources, text, options.method)
    return align_report(reading, aligned), align_table


def _map_vocab(options: argparse.Namespace) -> tuple[Report, Callable[[Report], str]]:
    mapping.strategy(options.strategy)
    texts = documents.read_documents(options.text_file) if options.text_file else []
    target, source = _tokenizers([options.target, options.source])
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
    return report, pairs_table


def _corpus(options: argparse.Namespace) -> list[str]:
    return documents.read_documents(options.corpus) if options.corpus else []


def _transfer(options: argparse.Namespace) -> tuple[Report, Callable[[Report], str]]:
    every = options.strategy == EVERY
    if every:
        options.strategy = FusionConfig.strategy
    config = _config(options)
    texts, corpus = documents.read_documents(options.text_file), _corpus(options)
    target, source = _load(options, [options.target, options.source])
    names = list(mapping.STRATEGIES) if every else [config.strategy]
    study = compare.transfer(
        target, source, texts, config, names, corpus=corpus, progress=_progress()
    )
    return ({"strategies": study}, study_table) if every else (study[names[0]], pairs_table)


def _fuse(options: argparse.Namespace) -> tuple[Report, Callable[[Report], str]]:
    config = _config(options)
    text, corpus = _text(options), _corpus(options)
    target, *sources = _load(options, [options.target, *options.source])
    analysis = pipeline.analyze(target, sources, text, config, corpus=corpus, progress=_progress())
    pieces = [m.tokenizer.piece for m in sources] if options.origins else None
    return fused_report(analysis, target.tokenizer.piece, pieces), fuse_table


def _generate(options: argparse.Namespace) -> tuple[Report, Callable[[Report], str]]:
    sampling = generate.Sampling(
        options.max_new_tokens,
        options.temperature,
        options.top_p,
        options.seed,
        tuple(options.stop),
    )
    generate.check(options.operator)
    utf8(options.prompt, limit=MAX_TEXT_BYTES)
    target, *sources = _load(options, [options.target, *options.source])
    texts = generate.generate(
        target,
        sources,
        options.prompt,
        operator=options.operator,
        with_target=options.with_target,
        sampling=sampling,
        progress=_progress(),
    )
    return texts, texts_table


def _cache(options: argparse.Namespace) -> tuple[Report, Callable[[Report], str]]:
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
        "bytes_per_token": cache.bytes / cache.tokens,
        "seconds": time.perf_counter() - began,
        "documents": len(cache),
        "shards": len(cache.manifest.shards),
        "out": str(options.out),
    }
    return report, pairs_table


def _train(options: argparse.Namespace) -> tuple[Report, Callable[[Report], str]]:
    config = RunConfig.read(options.config)
    given = {k: getattr(options, k) for k in ("device", "dtype") if getattr(options, k)}
    config = replace(config, **given)
    folder = options.out or os.path.join("runs", Path(options.config).stem)
    if options.estimate:
        return asdict(train.estimate(config, Path(folder).parent)), pairs_table
    result = runs.run(config, folder, resume=options.resume, progress=_progress())
    return result | {"out": str(folder)}, pairs_table


def _evaluate(options: argparse.Namespace) -> tuple[Report, Callable[[Report], str]]:
    config = _config(options)
    if options.suite is not None and options.suite != "toy":
        raise InputError(f"There is no suite called {options.suite!r}: choose toy.")
    texts = None
    if options.text_file is not None:
        texts = documents.read_documents(options.text_file)
    readers = _load(options, options.model)
    scores = (
        benchmark.toy(readers, progress=_progress())
        if texts is None
        else pipeline.bits_per_byte(readers, texts, overlap=config.overlap, progress=_progress())
    )
    return {"models": {m: {"tasks": {}} | s for m, s in scores.items()}}, evaluate_table
