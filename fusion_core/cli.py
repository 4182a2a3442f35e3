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
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from . import commands, fuse, mapping, models, reports
from .align import METHODS
from .cache import building
from .comparison import ComparisonConfig
from .config import FusionConfig, RunConfig, Sampling, add_flags
from .errors import InputError, sentence


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: arguments without the program's name; those of the process by default.

    Returns:
        The exit status.
    """
    _quiet()
    try:
        given = list(sys.argv[1:] if argv is None else argv)
        if any("\0" in word for word in given):
            raise InputError("An argument holds a NUL character, which no text or file name has.")
        options = _parser().parse_args(given)
        with _native_errors(options.command):
            report, table = options.run(options)
        if os.environ.get("RANK", "0") != "0":  # of several processes the first one speaks
            return 0
        if options.json:
            print(json.dumps(reports.finite(report), ensure_ascii=False, allow_nan=False))
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


@contextmanager
def _native_errors(command: str) -> Iterator[None]:
    """Keep what libraries write past Python to the error stream away from a refusal's one line.

    A panic of the Rust side, which becomes such a line, is written there first. A training writes
    into its log, where whatever ended it should stand.
    """
    if command == "train" or os.name != "posix":
        yield
        return
    kept, before, python = os.dup(2), sys.stderr, None
    with tempfile.TemporaryFile() as written:
        try:
            if before is sys.__stderr__:
                python = sys.stderr = os.fdopen(os.dup(2), "w", 1, "utf-8", "backslashreplace")
            os.dup2(written.fileno(), 2)
            refused = False
            try:
                yield
            except Exception as error:
                refused = sentence(error) is not None
                raise
            finally:
                os.dup2(kept, 2)
                if not refused:
                    written.seek(0)
                    os.write(2, written.read())
        finally:
            os.close(kept)
            sys.stderr = before
            if python:
                python.close()


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
    group = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    for name, (run, flags) in COMMANDS.items():
        words = run.__doc__
        command = group.add_parser(name, help=words, description=words, allow_abbrev=False)
        command.set_defaults(run=run)
        command.add_argument("--json", action="store_true", help="one JSON object on stdout")
        flags(command)
    return parser


# Flags that several commands have ---------------------------------------------------------------


def _target_flags(command: argparse.ArgumentParser, *, many: bool = True) -> None:
    command.add_argument("--target", required=True)
    command.add_argument("--source", action="append" if many else "store", required=True)
    command.add_argument(
        "--tokenizer",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="the tokenizer of a server's model, http://HOST/v1#MODEL: a folder or hub id",
    )


def _text_flags(command: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    one = command.add_mutually_exclusive_group(required=True)
    one.add_argument("--text", help="the text, as typed")
    one.add_argument("--text-file", help="a UTF-8 file, read exactly as it is")
    return one


def _fusion_flags(command: argparse.ArgumentParser) -> None:
    names = ("operator", "level", "operator_temperature", "with_target", "top_k")
    add_flags(command, FusionConfig, *names, operator=fuse.OPERATORS, level=fuse.LEVELS)


def _projection_flags(command: argparse.ArgumentParser, *more: str) -> None:
    names = ("strategy", "rows", "prune")
    add_flags(command, FusionConfig, *names, strategy=[*mapping.STRATEGIES, *more])
    command.add_argument(
        "--corpus", help="documents in which `statistical` counts; by default those it reads"
    )
    cut = command.add_mutually_exclusive_group()
    add_flags(cut, FusionConfig, "source_top_k", "source_top_p", "source_samples")
    add_flags(command, FusionConfig, "chain_rule", "temperature", "seed", "overlap")


def _model_flags(command: argparse.ArgumentParser) -> None:
    add_flags(command, RunConfig, "device", "dtype", "start", "end", dtype=models.DTYPES)
    command.add_argument(
        "--max-gb", type=float, default=models.MAX_BYTES / 1e9, help="refuse larger weights"
    )


# The flags of each command ---------------------------------------------------------------------


def _align_flags(command: argparse.ArgumentParser) -> None:
    _target_flags(command)
    command.add_argument("--method", default="bytes", help=", ".join(METHODS))
    _text_flags(command).add_argument(
        "--messages-file",
        help="a JSON list of messages, each with role and content, read in chat templates",
    )


def _map_vocab_flags(command: argparse.ArgumentParser) -> None:
    _target_flags(command, many=False)
    command.add_argument("--strategy", required=True, help=", ".join(mapping.MATRICES))
    command.add_argument("--out", required=True, help="an .npz file")
    command.add_argument("--text-file", help="documents in which `statistical` counts")


def _transfer_flags(command: argparse.ArgumentParser) -> None:
    _target_flags(command, many=False)
    command.add_argument("--text-file", required=True, help="documents: .txt, .jsonl or .parquet")
    _projection_flags(command, f"or {commands.EVERY} for a table of all")
    _model_flags(command)


def _fuse_flags(command: argparse.ArgumentParser) -> None:
    _target_flags(command)
    _text_flags(command)
    _fusion_flags(command)
    command.add_argument(
        "--attribution",
        "--origins",
        action="store_true",
        help="with --json: which source tokens the mass of each fused token came from",
    )
    _projection_flags(command)
    _model_flags(command)


def _generate_flags(command: argparse.ArgumentParser) -> None:
    _target_flags(command)
    command.add_argument("--prompt", required=True)
    add_flags(command, FusionConfig, "operator", "with_target", operator=fuse.label_free())
    add_flags(command, FusionConfig, "strategy", strategy=mapping.STRATEGIES)
    command.set_defaults(operator="confidence")
    add_flags(command, Sampling, *Sampling.model_fields)
    _model_flags(command)


def _cache_flags(command: argparse.ArgumentParser) -> None:
    _target_flags(command)
    _fusion_flags(command)
    command.add_argument("--data", required=True, help="documents: a file, or a hub dataset's id")
    command.add_argument(
        "--out", required=True, help="a folder; a half-built cache is gone on with"
    )
    kinds = "; ".join(f"{k}: {v}" for k, v in building.KINDS.items())
    command.add_argument("--keep", default="fused", help=kinds)
    command.add_argument(
        "--shard-bytes",
        type=int,
        default=building.SHARD_BYTES,
        help="text of one file of the cache",
    )
    _projection_flags(command)
    _model_flags(command)


def _train_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", required=True, help="a YAML file")
    command.add_argument("--out", help="the run's folder; by default runs/ and the file's name")
    command.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    command.add_argument("--device", help="in place of the file's")
    command.add_argument("--dtype", help="in place of the file's")
    command.add_argument("--estimate", action="store_true", help="say what it will take, and end")


def _evaluate_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", action="append", required=True)
    data = command.add_mutually_exclusive_group(required=True)
    data.add_argument("--text-file", help="documents: .txt, .jsonl or .parquet")
    data.add_argument("--suite", help="toy: the test split of the embedded domains")
    data.add_argument(
        "--tasks", help="tasks of lm-eval, by name, with commas between; needs the package lm-eval"
    )
    command.add_argument("--task-data", help="a folder with the tasks' data, in place of the hub")
    command.add_argument("--questions", type=int, help="of each task, its first ones; else all")
    command.add_argument(
        "--run-code",
        action="store_true",
        help="run the programs that models write, each in a sandboxed process",
    )
    add_flags(command, FusionConfig, "overlap")
    _model_flags(command)


def _compare_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--target", required=True)
    command.add_argument("--source", action="append", required=True)
    names = ("data", "seeds", "budget", "written_bytes", "test_bytes", "train_bytes")
    add_flags(command, ComparisonConfig, *names, "rates", "workers", "device")
    command.add_argument(
        "--quick", action="store_true", help="a budget of five minutes, two seeds, less text"
    )
    command.add_argument("--out", required=True, help="a folder for all of it")
    command.add_argument("--resume", action="store_true", help="go on where it was interrupted")


COMMANDS: dict[str, tuple[Callable, Callable]] = {
    "align": (commands.run_align, _align_flags),
    "map-vocab": (commands.run_map_vocab, _map_vocab_flags),
    "transfer": (commands.run_transfer, _transfer_flags),
    "fuse": (commands.run_fuse, _fuse_flags),
    "generate": (commands.run_generate, _generate_flags),
    "cache": (commands.run_cache, _cache_flags),
    "train": (commands.run_train, _train_flags),
    "evaluate": (commands.run_evaluate, _evaluate_flags),
    "compare": (commands.run_compare, _compare_flags),
}
"""What each command does, and its flags."""
