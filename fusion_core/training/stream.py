"""Text that is written while a training goes on: rounds of documents, each with its rows.

A round is some documents of the data, some that sources continue, and some that the target
continues as it is by then. It is made when its first block is asked for, and kept in the run's
folder batch by batch, so that a run that goes on reads what was written before.
"""

from __future__ import annotations

import copy
import json
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from fusion_core import compare, generation
from fusion_core.cache import building
from fusion_core.config import RunConfig
from fusion_core.errors import ModelFormatError
from fusion_core.generation import Written
from fusion_core.io.files import write_whole
from fusion_core.models import LoadedModel
from fusion_core.reading import read_documents
from fusion_core.records import Progress

from .dataset import Blocks, CachedRowsDataset, Example, ExampleDataset, Positions, TextDataset

ROUNDS, TEXT, ROWS = "rounds", "text", "rows"
TOKENS = 100
"""Tokens of a document, before any is known."""

FEWEST, MOST_TRIES = 4, 6
"""Documents that are written together at the least, and how often for a round."""

SHARD_BYTES = 64_000
"""Text of one shard of rows that a run makes: short runs are killed more often than clusters."""


class KeptBatches:
    """Batches of written documents in a folder, each a file that is there whole or not at all."""

    def __init__(self, folder: Path) -> None:
        """Name the folder."""
        self.folder = folder

    def __call__(self, name: str, write: Callable[[], list[Written]]) -> list[Written]:
        """Read a batch, or write it first."""
        file = self.folder / f"{name}.jsonl"
        if not file.is_file():
            lines = [
                json.dumps({"text": w.text, "whole": w.whole}, ensure_ascii=False) + "\n"
                for w in write()
            ]
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(file, "".join(lines).encode())
        return [Written(**json.loads(x)) for x in file.read_text("utf-8").split("\n") if x]


@dataclass(frozen=True, eq=False)
class Part:
    """Documents of a round that are of one kind.

    Attributes:
        examples: all of them, or those of the data.
        chosen: numbers of those that are read.
        whole: of each of these, whether it has an end.
        by_target: whether the target wrote them.
    """

    examples: ExampleDataset
    chosen: Sequence[int]
    whole: Sequence[bool]
    by_target: bool = False


class JoinedDataset:
    """Dataset of the documents of several parts."""

    def __init__(self, parts: Sequence[Part]) -> None:
        """Join them in their order."""
        self._all = [(p, i, w) for p in parts for i, w in zip(p.chosen, p.whole, strict=True)]
        self.lengths = np.array([p.examples.lengths[i] for p, i, _ in self._all], np.int64)

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self._all)

    def __getitem__(self, i: int) -> Example:
        """Read a document."""
        part, number, whole = self._all[i]
        return replace(part.examples[number], whole=whole, by_target=part.by_target)


class TextStream:
    """Rounds of text and rows of a run."""

    def __init__(
        self,
        config: RunConfig,
        target: LoadedModel,
        sources: Sequence[LoadedModel],
        texts: Sequence[str],
        examples: ExampleDataset | None,
        folder: Path,
        progress: Progress,
    ) -> None:
        """Keep a copy of the target as it is now, whose rows are fused with.

        Args:
            config: the run's.
            target: the model that is trained, and that writes.
            sources: those that write and whose rows are fused.
            texts: the data's documents; none for prompts of nothing.
            examples: the same with their rows, or None where they are not read.
            folder: of the run.
            progress: told what is being made.
        """
        self._config, self._target, self._sources = config, target, sources
        self._texts, self._examples, self._folder = texts, examples, folder
        self._progress = progress
        with_rows = config.mode != "clm"
        self._before = replace(target, network=copy.deepcopy(target.network)) if with_rows else None
        self._best: dict[int, int] = {}
        text = config.text
        shares = (text.data_share if texts else 0.0, text.continuation_share, text.target_share)
        self._shares = [share / sum(shares) for share in shares]

    @property
    def round_tokens(self) -> int:
        """Tokens of a round."""
        return self._config.text.round_tokens

    def examples(self, number: int) -> JoinedDataset:
        """Make a round, or read what there is of it; then the training goes on."""
        data, continued, by_target = (round(s * self.round_tokens) for s in self._shares)
        folder = self._folder / ROUNDS / f"{number:05}"
        parts = [self._of_data(number, data)] if data and self._examples is not None else []
        if continued:
            parts += self._written(folder, "continued", number, continued, self._continue)
        if by_target:
            parts += self._written(folder, "target", number, by_target, self._continue_by_target)
        self._progress("training", 0)
        return JoinedDataset(parts)

    def _of_data(self, number: int, tokens: int) -> Part:
        """Take the data's documents in turn, shuffled anew each time all have been read."""
        assert self._examples is not None
        lengths, seed = self._examples.lengths + 1, self._config.seed
        passes, first = divmod(number * tokens, int(lengths.sum()))
        chosen: list[int] = []
        while tokens > 0:
            order = np.random.default_rng([seed, passes]).permutation(len(lengths))
            ends = lengths[order].cumsum()
            starts = ends - lengths[order]
            some = order[(starts >= first) & (starts < first + tokens)]
            chosen += some.tolist()
            tokens -= int(ends[-1]) - first
            passes, first = passes + 1, 0
        return Part(self._examples, chosen, [True] * len(chosen))

    def _written(
        self,
        folder: Path,
        kind: str,
        number: int,
        tokens: int,
        write: Callable[[list[int], np.random.Generator], list[Written]],
    ) -> list[Part]:
        """Have documents written until they have so many tokens, and their rows made."""
        keep, written, have = KeptBatches(folder / f"{kind}-{TEXT}"), list[Written](), 0
        encode = self._target.tokenizer.encode_batch
        by_target = kind == "target"
        for batch in range(MOST_TRIES):
            mean = have / len(written) if written else self._mean_tokens()
            documents = max(FEWEST, math.ceil((tokens - have) / max(1.0, mean)))
            rng = np.random.default_rng([self._config.seed, number, batch, by_target])
            chosen = rng.integers(max(1, len(self._texts)), size=documents).tolist()
            self._progress(f"writing text, round {number + 1}", have / tokens)
            some = keep(f"{batch}", partial(write, chosen, rng))
            written += some
            have += sum(len(e.text_tokens) + 1 for e in encode([w.text for w in some]))
            if have >= tokens:
                break
        if not written:
            return []
        texts, whole = [w.text for w in written], [w.whole for w in written]
        examples = self._with_rows(texts, folder / f"{kind}-{ROWS}", by_target)
        return [Part(examples, range(len(texts)), whole, by_target)]

    def _mean_tokens(self) -> float:
        if self._examples is None or not len(self._examples):
            return TOKENS
        return float(self._examples.lengths.mean()) + 1

    def _with_rows(self, texts: list[str], folder: Path, by_target: bool) -> ExampleDataset:
        """Make the documents' rows, as far as the run learns from any."""
        config = self._config
        if self._before is None:
            return TextDataset(self._target.tokenizer, texts)
        fusion = config.fusion
        if by_target:
            fusion = fusion.replace(operator=config.text.target_operator)
        cache = building.build_cache(
            self._before,
            self._sources,
            texts,
            fusion,
            folder,
            shard_bytes=SHARD_BYTES,
            corpus=self._texts,
            progress=self._progress,
        )
        return CachedRowsDataset(cache)

    # Writers ----------------------------------------------------------------------------------

    def _continue(self, chosen: list[int], rng: np.random.Generator) -> list[Written]:
        """Let each of some documents be continued by the source that reads it best."""
        by_source: dict[int, list[int]] = defaultdict(list)
        for turn, i in enumerate(chosen):
            source = self._best_source(chosen)[i] if self._texts else turn % len(self._sources)
            by_source[source].append(i)
        return [
            written
            for source in sorted(by_source)
            for written in self._from(self._sources[source], by_source[source], rng)
        ]

    def _continue_by_target(self, chosen: list[int], rng: np.random.Generator) -> list[Written]:
        """Let the target, as it is now, continue documents."""
        network = self._target.network
        trains = network.training
        network.eval()
        try:
            return self._from(self._target, chosen, rng)
        finally:
            network.train(trains)

    def _from(
        self, model: LoadedModel, chosen: list[int], rng: np.random.Generator
    ) -> list[Written]:
        """Let a model continue documents, each cut at one of its tokens."""
        least = int(model.tokenizer.start_id is None)
        at_most = generation.longest_of(model) // 2
        prompts = [np.zeros(0, np.int64)] * len(chosen)
        if self._texts:
            encodings = model.tokenizer.encode_batch([self._texts[i] for i in chosen])
            for n, encoding in enumerate(encodings):
                ids = encoding.ids[encoding.text_tokens]
                cut = int(rng.integers(least, max(least + 1, len(ids))))
                prompts[n] = ids[max(0, cut - at_most) : cut]
        return generation.continue_documents(
            model,
            prompts,
            seed=int(rng.integers(2**62)),
            temperature=self._config.generate_temperature,
        )

    def _best_source(self, chosen: Sequence[int]) -> dict[int, int]:
        """Find for documents the source that reads each best: with the fewest bits per byte."""
        new = sorted(set(chosen) - set(self._best))
        if new and len(self._sources) == 1:
            self._best |= dict.fromkeys(new, 0)
        elif new:
            texts = [self._texts[i] for i in new]
            for i, reading in zip(
                new, read_documents(self._sources, texts, compare.SCORED), strict=True
            ):
                self._best[i] = int(np.argmin(reading.nats))
        return self._best


class StreamedBlocks(torch.utils.data.Dataset):
    """Dataset of the blocks of all rounds, to be read in order."""

    def __init__(
        self,
        stream: TextStream,
        lay_out: Callable[[ExampleDataset], Blocks],
        size: int,
        blocks: int,
    ) -> None:
        """Say how many there will be.

        Args:
            stream: of text.
            lay_out: packs a round's documents.
            size: positions of a block.
            blocks: of the whole training.
        """
        self._stream, self._lay_out, self.block_size = stream, lay_out, size
        self._blocks, self._round = blocks, -1
        self._each = max(1, round(stream.round_tokens / size))
        self._now: Blocks | None = None

    def __len__(self) -> int:
        """Return the number of blocks that will be read."""
        return self._blocks

    def __getitem__(self, i: int) -> list[Positions]:
        """Read a block; the first of a round has it made.

        A round whose documents fill more blocks leaves some out; one of fewer begins again.
        """
        number, place = divmod(i, self._each)
        if number != self._round:
            self._now, self._round = self._lay_out(self._stream.examples(number)), number
        assert self._now is not None
        if not len(self._now):
            raise ModelFormatError(
                f"Nothing that was written in round {number + 1} is text: let other models write, "
                "or give data."
            )
        order = np.random.default_rng(number).permutation(len(self._now))
        return self._now[int(order[place % len(order)])]
