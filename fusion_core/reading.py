"""Texts -> the rows that models give for them; nothing else runs networks on whole texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from . import models
from .align import positions_of
from .align.windows import cut, windows
from .config import MAX_TEXT_BYTES, FusionConfig, utf8
from .covers import check_exact, read_with_covers
from .errors import InputError
from .models import LoadedModel
from .records import (
    Covers,
    Encoding,
    NextTokenRows,
    Progress,
    TextReading,
    Window,
    WindowReading,
    Windows,
)
from .records.windows import KEPT_BYTES
from .tokens import TextTokenizer

DOCUMENTS_AT_ONCE = 256
"""Documents that are encoded together."""


def read(
    text: str,
    target: LoadedModel,
    sources: Sequence[LoadedModel] | LoadedModel = (),
    config: FusionConfig | None = None,
    *,
    progress: Progress | None = None,
) -> TextReading:
    """Read a text with a target and its sources.

    Args:
        text: at most a million bytes.
        target: the model that would be taught.
        sources: the models that would teach.
        config: overlap of windows, temperature, and what is kept of the sources' rows.
        progress: told of every window that is read.

    Raises:
        InputError: an empty text, a model named twice, or no byte that all models predict.
        TooLargeError: the text or its windows are too long.
    """
    utf8(text, limit=MAX_TEXT_BYTES)
    more = [sources] if isinstance(sources, LoadedModel) else sources
    readers = [target, *more]
    check_names(*(m.name for m in readers))
    encodings = [m.tokenizer.encode(text) for m in readers]
    return _Text.of(readers, encodings, config or FusionConfig()).read(progress)


def read_documents(
    readers: Sequence[LoadedModel],
    documents: Sequence[str],
    config: FusionConfig | None = None,
    *,
    progress: Progress | None = None,
    before: int | None = None,
) -> Iterator[TextReading]:
    """Read documents, as many at once as memory is meant for, and give them one after another.

    Args:
        readers: the models, the target first.
        documents: texts that are not empty.
        config: as for `read`.
        progress: told how many documents have been read.
        before: number of documents that stand before these, where they are some of many.

    Raises:
        InputError: a document is of no use; the error says which. A model is named twice.
    """
    check_names(*(m.name for m in readers))
    config, waiting, nbytes = config or FusionConfig(), list[_Text](), 0

    def flush(done: int) -> Iterator[TextReading]:
        if progress:
            progress(f"reading document {done} of {len(documents)}", done / len(documents))
        if nbytes > KEPT_BYTES:  # one text that is too large to be read at once
            yield from (text.read() for text in waiting)
            return
        found = iter(read_windows([(t, w) for t in waiting for w in t.windows]))
        yield from (text.read(kept=[next(found) for _ in text.windows]) for text in waiting)

    for n, encodings in enumerate(_encoded(readers, documents)):
        try:
            text = _Text.of(readers, encodings, config)
        except InputError as error:
            if len(documents) == 1 and before is None:
                raise
            raise InputError(f"Document {(before or 0) + n + 1}: {error}") from error
        if waiting and nbytes + text.nbytes > KEPT_BYTES:
            yield from flush(n)
            waiting, nbytes = [], 0
        waiting.append(text)
        nbytes += text.nbytes
    if waiting:
        yield from flush(len(documents))


def check_names(*names: str) -> None:
    """Refuse a model that is named twice.

    Raises:
        InputError: results are kept by name, so that a name can stand once only.
    """
    for i, name in enumerate(names):
        if name in names[:i]:
            raise InputError(f"{name} is named twice: name every model once.")


def check_rows(
    target: TextTokenizer,
    sources: Sequence[TextTokenizer],
    config: FusionConfig,
    served: Sequence[str] = (),
) -> None:
    """Refuse a source that cannot give the rows that are asked for.

    Args:
        target: the target's tokenizer.
        sources: those of the sources.
        config: what is asked for.
        served: names of the sources that are models of servers.

    Raises:
        InputError: its tokenisations of a text's beginnings cannot be known, or a server gives no
            such rows.
    """
    for name in served:
        _check_served(name, config)
    for source in sources:
        if config.rows == "exact" and not _cuts_alike(target, source):
            check_exact(source)


def _check_served(name: str, config: FusionConfig) -> None:
    """Refuse rows that a server cannot give.

    Raises:
        InputError: they are whole, weighed at another temperature, or not at its own boundaries.
    """
    cut = config.source_truncation
    if config.rows == "exact" or cut is None or not cut.top_k or config.temperature != 1:
        raise InputError(
            f"{name} is a server's model, which gives its most probable tokens at its own "
            "boundaries alone: set rows to boundary, and source_top_k to what the server gives, 20 "
            "as a rule (--rows boundary --source-top-k 20), and leave the temperature at 1."
        )


def _encoded(
    readers: Sequence[LoadedModel], documents: Sequence[str]
) -> Iterator[tuple[Encoding, ...]]:
    for first in range(0, len(documents), DOCUMENTS_AT_ONCE):
        some = documents[first : first + DOCUMENTS_AT_ONCE]
        yield from zip(*(m.tokenizer.encode_batch(some) for m in readers), strict=True)


@dataclass(frozen=True, eq=False)
class _Text:
    """A text, encoded and cut into windows, but not read.

    Attributes:
        readers: the models, the target first.
        config: as for `read`.
        encodings: the whole text in each model's tokens.
        windows: stretches that every model can read at once.
        scored: see `TextReading`.
        scored_bytes: see `TextReading`.
        nbytes: memory that whole rows of all models would take, in bytes.
    """

    readers: Sequence[LoadedModel]
    config: FusionConfig
    encodings: tuple[Encoding, ...]
    windows: Sequence[Window]
    scored: tuple[tuple[int, int], ...]
    scored_bytes: int
    nbytes: int

    @staticmethod
    def of(
        readers: Sequence[LoadedModel], encodings: Sequence[Encoding], config: FusionConfig
    ) -> _Text:
        """Cut a text into windows.

        Raises:
            InputError: a tokenizer makes nothing of the text, or no byte of it is predicted by all
                models.
        """
        for model, encoding in zip(readers, encodings, strict=True):
            if not len(encoding.text_tokens):
                raise InputError(
                    f"The tokenizer of {model.name} makes no token of this text: give another text."
                )
        for model in readers[1:]:
            if model.server:
                _check_served(model.name, config)
        found = windows(encodings, [m.window for m in readers], config.overlap)
        scored = _scored(encodings, [m.tokenizer for m in readers], found)
        size = len(encodings[0].data)
        scored_bytes = sum(min(high, size) - low for low, high in scored)
        if scored_bytes <= 0:
            raise InputError(
                "There is no stretch of this text that every model predicts (one has no start "
                "token, or their tokens nowhere meet): give another or a longer text."
            )
        cells = (
            len(encoding.text_tokens) * model.tokenizer.size
            for model, encoding in zip(readers, encodings, strict=True)
        )
        return _Text(
            readers, config, tuple(encodings), found, tuple(scored), scored_bytes, 4 * sum(cells)
        )

    @property
    def at_once(self) -> int:
        """Number of windows that are read together: as many as make one batch."""
        return min(
            max(1, models.batch_tokens(model) * len(self.windows) // len(encoding.text_tokens))
            for model, encoding in zip(self.readers, self.encodings, strict=True)
        )

    def read(
        self, progress: Progress | None = None, kept: Sequence[WindowReading] = ()
    ) -> TextReading:
        """Read all windows that have not been read.

        Args:
            progress: told of every window that is read.
            kept: the first windows, read elsewhere.
        """

        def make(at: int) -> list[WindowReading]:
            if progress:
                progress(f"reading window {at + 1} of {len(self.windows)}", at / len(self.windows))
            return read_windows([(self, w) for w in self.windows[at : at + self.at_once]])

        read = Windows(len(self.windows), make, lambda w: w.nbytes, kept)
        nats = np.zeros(len(self.readers))
        for window, (low, high) in zip(read, self.scored, strict=True):
            for j in range(len(nats)):
                nats[j] += window.nats(j, low, high)
        return TextReading(
            models=tuple(m.name for m in self.readers),
            tokenizers=tuple(m.tokenizer for m in self.readers),
            encodings=self.encodings,
            windows=read.closed() if read.complete else read,
            scored=self.scored,
            scored_bytes=self.scored_bytes,
            nats=tuple(nats.tolist()),
            documents={m.name: m.around_documents for m in self.readers},
            rows=self.config.rows,
        )


def _scored(
    encodings: Sequence[Encoding], tokenizers: Sequence[TextTokenizer], found: Sequence[Window]
) -> list[tuple[int, int]]:
    """Find the bytes of each window on which all models are scored.

    They begin and end where all models have a boundary. A model without a start token says nothing
    about the first token that it reads; those bytes are left out for all.
    """
    size, ranges = len(encodings[0].data), []
    ends = [e.end[e.text_tokens] for e in encodings]
    common = np.union1d(reduce(np.intersect1d, ends), [0, size])
    for window in found:
        low = window.owned_from
        if low == window.start:
            for encoding, tokenizer in zip(encodings, tokenizers, strict=True):
                tokens = encoding.text_tokens
                after = tokens[encoding.end[tokens] > window.start]  # those without width apart
                if tokenizer.start_id is None and len(after):
                    low = max(low, int(encoding.end[after[0]]))
        low = int(common[np.searchsorted(common, low)])
        high = int(common[np.searchsorted(common, window.end, side="right") - 1])
        if high <= low:
            ranges.append((low, low))
        else:
            ranges.append((low, window.owned_to if high == size else high))
    return ranges


def read_windows(jobs: Sequence[tuple[_Text, Window]]) -> list[WindowReading]:
    """Read windows of texts that have the same readers and settings, many at once."""
    first = jobs[0][0]
    parts = [[cut(e, window) for e in text.encodings] for text, window in jobs]
    rows, covers = [], []
    targets = [p[0][0] for p in parts]
    for j, model in enumerate(first.readers):
        encodings = [p[j][0] for p in parts]
        of_model, of_bytes = _read(first, model, encodings, targets if j else None)
        rows.append(of_model)
        covers.append(of_bytes)
    return [
        WindowReading(
            window,
            tuple(e for e, _ in part),
            tuple(of_model[n] for of_model in rows),
            tuple(before for _, before in part),
            tuple(of_model[n] for of_model in covers),
        )
        for n, ((_, window), part) in enumerate(zip(jobs, parts, strict=True))
    ]


def _read(
    text: _Text,
    model: LoadedModel,
    encodings: Sequence[Encoding],
    targets: Sequence[Encoding] | None,
) -> tuple[Sequence[NextTokenRows], Sequence[Covers | None]]:
    """Read windows with one model, which is a source of the targets' bytes where there are any."""
    config = text.config
    cut = None if targets is None else config.source_truncation  # the target's rows stay whole
    alike = _cuts_alike(text.readers[0].tokenizer, model.tokenizer)
    if targets is None or config.rows == "boundary" or alike:
        rows = models.read_rows_batch(model, encodings, temperature=config.temperature, cut=cut)
        return rows, [None] * len(rows)
    asked = [np.unique(positions_of(t, e)) for t, e in zip(targets, encodings, strict=True)]
    found = read_with_covers(
        model, encodings, asked, prune=config.prune, temperature=config.temperature, cut=cut
    )
    return [rows for rows, _ in found], [covers for _, covers in found]


def _cuts_alike(one: TextTokenizer, other: TextTokenizer) -> bool:
    """Tell whether a target's boundaries, which it may know, are all that a source's rows know.

    So it is where one tokenizer serves both. Where one vocabulary does whose tokens spell no
    spaces, bytes do not tell its tokenisations apart.
    """
    if one.key == other.key:
        return True
    return one.vocabulary_key == other.vocabulary_key and not one.spells_spaces
