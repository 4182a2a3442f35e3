"""The command line: `align`, `map-vocab`, `transfer`, `fuse`, `evaluate`.

Every command prints a readable table, or with ``--json`` one JSON object and nothing else, on
stdout; progress goes to stderr. Exit status 0; 2 for bad input, with one line on stderr; 1 for an
internal fault.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from . import documents, fuse, models, pipeline, suite, vocab
from .align import METHODS
from .config import MAX_TEXT_BYTES, FusionConfig, utf8
from .errors import FusionError, InputError
from .records import Alignment, Analysis, Encoding

Report = dict[str, Any]


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
        if options.json:
            print(json.dumps(_finite(report), ensure_ascii=False, allow_nan=False))
        else:
            print(table(report))
    except FusionError as error:
        print(f"fusion_core: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 0
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see `python -m fusion_core --help`.")


def _quiet() -> None:
    """Keep library warnings and their progress bars off stderr."""
    import transformers

    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m fusion_core", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)

    def command(name: str, run: Callable, what: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=what, description=what)
        sub.set_defaults(run=run)
        sub.add_argument("--json", action="store_true", help="one JSON object on stdout")
        return sub

    def add_text(sub: argparse.ArgumentParser) -> None:
        one = sub.add_mutually_exclusive_group(required=True)
        one.add_argument("--text", help="the text, as typed")
        one.add_argument("--text-file", help="a UTF-8 file, read exactly as it is")

    def add_device(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N, mps or auto")
        sub.add_argument("--dtype", help=", ".join(models.DTYPES))

    def add_carrying(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--strategy", default="prefix", help=", ".join(vocab.STRATEGIES))
        sub.add_argument("--source-top-k", type=int, help="cut the sources' rows first")
        sub.add_argument("--overlap", type=float, default=0.25, help="of windows, as a share")

    sub = command("align", _align, "align the tokens of models on one text")
    sub.add_argument("--target", required=True)
    sub.add_argument("--source", action="append", required=True)
    sub.add_argument("--method", default="bytes", help=", ".join(METHODS))
    add_text(sub)

    sub = command("map-vocab", _map_vocab, "map a source's vocabulary to a target's")
    sub.add_argument("--target", required=True)
    sub.add_argument("--source", required=True)
    sub.add_argument("--strategy", required=True, help=", ".join(vocab.STRATEGIES))
    sub.add_argument("--out", required=True, help="an .npz file")

    sub = command("transfer", _transfer, "score what is left of a source's rows at the target")
    sub.add_argument("--target", required=True)
    sub.add_argument("--source", required=True)
    sub.add_argument("--text-file", required=True, help="documents: .txt, .jsonl or .parquet")
    add_carrying(sub)
    add_device(sub)

    sub = command("fuse", _fuse, "fuse the distributions of several sources on one text")
    sub.add_argument("--target", required=True)
    sub.add_argument("--source", action="append", required=True)
    sub.add_argument("--operator", default="min_ce", help=", ".join(fuse.OPERATORS))
    sub.add_argument("--level", default="sequence", help=" or ".join(fuse.LEVELS))
    sub.add_argument("--top-k", type=int, default=10, help="tokens kept of a fused row")
    add_text(sub)
    add_carrying(sub)
    add_device(sub)

    sub = command("evaluate", _evaluate, "bits per byte of models on documents")
    sub.add_argument("--model", action="append", required=True)
    data = sub.add_mutually_exclusive_group(required=True)
    data.add_argument("--text-file", help="documents: .txt, .jsonl or .parquet")
    data.add_argument("--suite", help="toy: the test split of the embedded domains")
    add_device(sub)
    return parser


def _progress() -> pipeline.Progress:
    """Return a printer that stays silent for the first two seconds."""
    began = time.monotonic()

    def tell(stage: str, share: float) -> None:
        if time.monotonic() - began > 2:
            print(f"{share:4.0%} {stage}", file=sys.stderr)

    return tell


def _text(options: argparse.Namespace) -> str:
    if options.text is not None:
        utf8(options.text, limit=MAX_TEXT_BYTES)
        return options.text
    text = documents.read_text(options.text_file)
    utf8(text)
    return text


def _load(options: argparse.Namespace, names: Sequence[str]) -> list[models.LoadedModel]:
    """Load models after all their names have been looked up."""
    for name in names:
        models.find(name)
    return [models.load(n, device=options.device, dtype=options.dtype) for n in names]


def _config(options: argparse.Namespace) -> FusionConfig:
    given = {
        name: getattr(options, name)
        for name in ("strategy", "operator", "level", "top_k", "source_top_k", "overlap")
        if hasattr(options, name)
    }
    config = FusionConfig(**given)
    vocab.strategy(config.strategy)
    fuse.check(config.operator, config.level)
    return config


def _align(options: argparse.Namespace) -> tuple[Report, Callable[[Report], str]]:
    text = _text(options)
    names = [options.target, *options.source]
    pipeline.check_names(*names)
    for name in names:
        models.find(name)
    target, *sources = [models.load_tokenizer(n) for n in names]
    reading, aligned = pipeline.align(target, sources, text, options.method)
    report: Report = {
        "bytes": len(reading.data),
        "target": _encoding(reading),
        "sources": [_alignment(e, a) for e, a in aligned],
    }
    return report, _align_table


def _alignment(encoding: Encoding, alignment: Alignment) -> Report:
    return {
        "model": encoding.model,
        "encoding": _encoding(encoding),
        "groups": alignment.groups.tolist(),
        "boundary": alignment.boundary.tolist(),
        "coverage": alignment.coverage,
        "coverage_with_prefix": alignment.coverage_with_prefix,
    }


def _encoding(encoding: Encoding) -> Report:
    return {
        "model": encoding.model,
        "tokens": [
            {"id": int(i), "text": piece, "start": int(s), "end": int(e), "special": bool(x)}
            for i, piece, s, e, x in zip(
                encoding.ids,
                encoding.pieces,
                encoding.start,
                encoding.end,
                encoding.special,
                strict=True,
            )
        ],
        "lossless": encoding.lossless,
        "lost": [list(r) for r in encoding.lost],
    }


def _align_table(report: Report) -> str:
    lines = []
    target = report["target"]["tokens"]
    for source in report["sources"]:
        own = source["encoding"]["tokens"]
        lines.append(
            f"{report['target']['model']} <- {source['model']}: {source['coverage']:.1%} of rows "
            f"at shared boundaries, {source['coverage_with_prefix']:.1%} with rows inside tokens"
        )
        for t0, t1, s0, s1 in source["groups"]:
            left = " ".join(repr(t["text"]) for t in target[t0:t1])
            right = " ".join(repr(t["text"]) for t in own[s0:s1])
            lines.append(f"  {t1 - t0}:{s1 - s0}  {left}  <-  {right}")
    return "\n".join(lines)


def _map_vocab(options: argparse.Namespace) -> tuple[Report, Callable[[Report], str]]:
    strategy = vocab.strategy(options.strategy)
    for name in (options.target, options.source):
        models.find(name)
    target, source = models.load_tokenizer(options.target), models.load_tokenizer(options.source)
    began = time.perf_counter()
    pairs = strategy.matrix(source, target)
    seconds = time.perf_counter() - began
    arrays = {
        "indptr": pairs.indptr,
        "indices": pairs.indices,
        "weights": pairs.weights,
        "shape": np.asarray(pairs.shape),
    }
    if pairs.distance is not None:
        arrays["distance"] = pairs.distance
    documents.write_arrays(options.out, arrays)
    report = {
        "strategy": options.strategy,
        "shape": list(pairs.shape),
        "rows_mapped": pairs.rows_mapped,
        "exact_matches": pairs.exact,
        "seconds": seconds,
        "from_cache": False,
        "out": str(options.out),
    }
    return report, _pairs_table


def _transfer(options: argparse.Namespace) -> tuple[Report, Callable[[Report], str]]:
    config = _config(options)
    pipeline.check_names(options.target, options.source)
    texts = documents.read_documents(options.text_file)
    target, source = _load(options, [options.target, options.source])
    return pipeline.transfer(target, source, texts, config, progress=_progress()), _pairs_table


def _fuse(options: argparse.Namespace) -> tuple[Report, Callable[[Report], str]]:
    config = _config(options)
    text = _text(options)
    names = [options.target, *options.source]
    pipeline.check_names(*names)
    target, *sources = _load(options, names)
    analysis = pipeline.analyse(target, sources, text, config, progress=_progress())
    return fused_report(analysis, target.tokenizer.piece), _fuse_table


def fused_report(analysis: Analysis, piece: Callable[[int], str]) -> Report:
    """Turn an analysis into the object that `fuse --json` prints.

    Args:
        analysis: of a text.
        piece: readable text of a target token id.
    """
    fused, rows = analysis.fused, analysis.fused.rows
    positions = []
    for i, index in enumerate(analysis.target.text_tokens.tolist()):
        winner = int(fused.winner[i])
        positions.append(
            {
                "index": index,
                "start": int(analysis.target.start[index]),
                "fused": [
                    {"id": int(v), "text": piece(int(v)), "p": float(p)}
                    for v, p in zip(rows.ids[i], rows.probs[i], strict=True)
                ],
                "tail": float(rows.tail[i]),
                "winner": fused.sources[winner] if winner >= 0 else None,
                "weights": dict(zip(fused.sources, fused.weights[i].tolist(), strict=True)),
                "kept_mass": {s.encoding.model: float(s.kept[i]) for s in analysis.sources},
                "entropy": float(fused.entropy[i]),
            }
        )
    return {
        "target": _encoding(analysis.target),
        "positions": positions,
        "bits_per_byte": {
            analysis.target.model: analysis.target_bits_per_byte,
            **{s.encoding.model: s.bits_per_byte for s in analysis.sources},
        },
        "fused_bits_per_byte": analysis.fused_bits_per_byte,
    }


def _fuse_table(report: Report) -> str:
    tokens = report["target"]["tokens"]
    lines = ["token            fused row                                     winner"]
    for position in report["positions"]:
        top = "  ".join(f"{t['text']!r} {t['p']:.2f}" for t in position["fused"][:4])
        token = repr(tokens[position["index"]]["text"])
        lines.append(f"{token:<16} {top:<45} {position['winner'] or '-'}")
    lines.append("")
    lines += [f"{b:.3f} bits per byte  {m}" for m, b in report["bits_per_byte"].items()]
    lines.append(f"{report['fused_bits_per_byte']:.3f} bits per byte  fused")
    return "\n".join(lines)


def _evaluate(options: argparse.Namespace) -> tuple[Report, Callable[[Report], str]]:
    pipeline.check_names(*options.model)
    if options.suite is not None and options.suite != "toy":
        raise InputError(f"There is no suite called {options.suite!r}: choose toy.")
    texts = documents.read_documents(options.text_file) if options.text_file else None
    readers = _load(options, options.model)
    if texts is None:
        return {"models": suite.toy(readers, progress=_progress())}, _evaluate_table
    scores = pipeline.bits_per_byte(readers, texts, progress=_progress())
    return {"models": {m: s | {"tasks": {}} for m, s in scores.items()}}, _evaluate_table


def _evaluate_table(report: Report) -> str:
    lines = []
    for name, score in report["models"].items():
        lines.append(f"{score['bits_per_byte']:.4f} bits per byte over {score['bytes']:,}  {name}")
        lines += [
            f"  {task:<12} {s['bits_per_byte']:.4f} bits per byte, {s['accuracy']:.0%} of questions"
            for task, s in score["tasks"].items()
        ]
    return "\n".join(lines)


def _pairs_table(report: Report, indent: str = "") -> str:
    lines = []
    for name, value in report.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}", _pairs_table(value, indent + "  ")]
        else:
            shown = f"{value:.4f}" if isinstance(value, float) else value
            lines.append(f"{indent}{name:<18} {shown}")
    return "\n".join(lines)


def _finite(value: Any) -> Any:
    """Replace numbers that JSON has not (nan, infinity) by null."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
