"""The stages in their order: what the command line, the app and the notebooks call."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np

from . import characters, fuse
from . import evaluate as scoring
from . import mapping as vocab_mapping
from .align import METHODS, by_bytes
from .config import MAX_TEXT_BYTES, FusionConfig, utf8
from .errors import InputError, ModelFormatError
from .gather import Gathering, carried_rows, carry
from .models import LoadedModel
from .reading import JointText, Progress, joint_texts
from .records import Alignment, Analysis, Encoding
from .tokens import TextTokenizer, encode_chat

KEPT_MAPPINGS = 24
_mappings: OrderedDict[tuple[Any, ...], vocab_mapping.Mapping] = OrderedDict()
_mappings_lock = Lock()


def mapping(
    source: TextTokenizer, target: TextTokenizer, strategy: str, corpus: Sequence[str] = ()
) -> vocab_mapping.Mapping | None:
    """Return the vocab mapping of a pair, kept in memory; None where ids mean the same.

    Tokenizers with one vocabulary that cut texts differently still need the `prefix` relation, for
    positions inside a source token.

    Args:
        source: the source's vocabulary.
        target: the target's vocabulary.
        strategy: name in `vocab_mapping.STRATEGIES`.
        corpus: texts for strategies that count.

    Raises:
        ModelFormatError: the vocabularies differ, and one spells no spaces.
    """
    counts = vocab_mapping.strategy(strategy).counts
    by_bytes = strategy == "prefix" and source.spells_spaces
    if source.vocabulary_key == target.vocabulary_key:
        if not by_bytes or source.key == target.key:
            ends = set(source.end_ids) <= set(target.end_ids)
            return None if ends else vocab_mapping.by_ids(source, target)
    else:
        check_spaces(source, target)
    pair = (source.key, source.end_ids, target.key, target.end_ids)
    key = (*pair, strategy, hash(tuple(corpus)) if counts else 0)
    with _mappings_lock:
        found = _mappings.get(key)
    if found is None:
        found = vocab_mapping.relate(
            strategy, source, target, corpus
        )  # outside the lock: it may take long
    with _mappings_lock:
        found = _mappings.setdefault(key, found)
        _mappings.move_to_end(key)
        while len(_mappings) > KEPT_MAPPINGS:
            _mappings.popitem(last=False)
    return found


def mappings(
    target: LoadedModel,
    sources: Sequence[LoadedModel],
    config: FusionConfig,
    corpus: Sequence[str],
    progress: Progress | None = None,
) -> list[vocab_mapping.Mapping | None]:
    """Check that models can be fused as configured, and return the sources' vocab mappings.

    Args:
        target: the model that would be taught.
        sources: the models that would teach.
        config: strategy, operator and level.
        corpus: texts for strategies that count.
        progress: told of every vocabulary.

    Raises:
        InputError: no source, a model named twice, an unknown strategy, operator or level.
        ModelFormatError: vocabularies differ, and one spells no spaces.
    """
    if not sources:
        raise InputError("There is no source: name at least one.")
    check_names(target.name, *(s.name for s in sources))
    fuse.check(config.operator, config.level)
    maps = []
    for j, source in enumerate(sources):
        if progress:
            progress(f"mapping the vocabulary of {source.name}", j / len(sources))
        maps.append(mapping(source.tokenizer, target.tokenizer, config.strategy, corpus))
    return maps


def align(
    target: TextTokenizer, sources: Sequence[TextTokenizer], text: str, method: str = "bytes"
) -> tuple[Encoding, list[tuple[Encoding, Alignment]]]:
    """Encode a text with every tokenizer and align each source with the target.

    Raises:
        InputError: the text is empty, a model is named twice, or there is no such method.
        TooLargeError: the text has more than a million bytes.
    """
    check_names(target.name, *(s.name for s in sources))
    if method not in METHODS:
        raise InputError(
            f"There is no alignment method called {method!r}: choose one of {', '.join(METHODS)}."
        )
    utf8(text, limit=MAX_TEXT_BYTES)
    reading = target.encode(text)
    encodings = [s.encode(text) for s in sources]
    return reading, [(e, METHODS[method](reading, e)) for e in encodings]


def align_chat(
    target: TextTokenizer, sources: Sequence[TextTokenizer], messages: Sequence[dict[str, str]]
) -> tuple[Encoding, list[tuple[Encoding, Alignment]]]:
    """Align the contents of messages that every model reads in its own chat template.

    Raises:
        InputError: a model is named twice, or has no template that can be followed.
        TooLargeError: the contents have more than a million bytes.
    """
    check_names(target.name, *(s.name for s in sources))
    reading = encode_chat(target, messages)
    encodings = [encode_chat(s, messages) for s in sources]
    return reading, [(e, by_bytes(reading, e)) for e in encodings]


def check_names(*names: str) -> None:
    """Refuse a model that is named twice.

    Raises:
        InputError: results are kept by name, so that a name can stand once only.
    """
    for i, name in enumerate(names):
        if name in names[:i]:
            raise InputError(f"{name} is named twice: name every model once.")


def check_spaces(*tokenizers: TextTokenizer) -> None:
    """Refuse vocabularies that say by other means than bytes where words begin or end.

    Raises:
        ModelFormatError: a vocabulary's tokens spell no space between words, so that by their bytes
            "the cat" and "thecat" are the same.
    """
    for tokenizer in tokenizers:
        if not tokenizer.spells_spaces:
            raise ModelFormatError(
                f"The tokens of {tokenizer.name} do not spell the spaces between words, so that "
                "its rows cannot be compared with or carried to another vocabulary: align it, fuse "
                "it with models of the same vocabulary, train it with mode clm, or name another."
            )


def bits_per_byte(
    readers: Sequence[LoadedModel],
    documents: Sequence[str],
    *,
    overlap: float = FusionConfig.model_fields["overlap"].default,
    progress: Progress | None = None,
) -> dict[str, dict]:
    """Score models on documents; all are scored on the same bytes.

    Returns:
        For each model's name: ``bits_per_byte`` and ``bytes``; ``lossless``, whether its tokens
        reproduce the documents, and ``lost_share``, the share of the documents' bytes that they do
        not: these cost the model less than they should, or nothing; and what it read before and
        after documents, see `LoadedModel.around_documents`.
    """
    totals, lost = np.zeros(len(readers)), np.zeros(len(readers), np.int64)
    exact = np.ones(len(readers), bool)
    n_bytes = n_read = 0
    for text in joint_texts(readers, documents, FusionConfig(overlap=overlap), progress):
        totals += text.nats()
        lost += [e.lost_bytes for e in text.encodings]
        exact &= [e.lossless for e in text.encodings]
        n_bytes += text.scored_bytes
        n_read += len(text.data)
    return {
        m.name: {
            "bits_per_byte": scoring.bits(float(totals[j]), n_bytes),
            "bytes": n_bytes,
            "lossless": bool(exact[j]),
            "lost_share": int(lost[j]) / n_read if n_read else 0.0,
        }
        | m.around_documents
        for j, m in enumerate(readers)
    }


def most_probable(readers: Sequence[LoadedModel], texts: Sequence[str]) -> dict[str, int]:
    """Return for each model's name the index of the text that it finds most probable."""
    read = [t.nats() for t in joint_texts(readers, texts, FusionConfig())]
    best = np.argmin(np.asarray(read), axis=0)
    return {m.name: int(i) for m, i in zip(readers, best, strict=True)}


def next_characters(
    readers: Sequence[LoadedModel],
    text: str,
    positions: Sequence[int],
    config: FusionConfig | None = None,
    *,
    progress: Progress | None = None,
) -> list[characters.NextCharacters]:
    """Compare what models with different vocabularies expect next, character by character.

    Args:
        readers: the models.
        text: at most a million bytes.
        positions: bytes of the text, in any order; its end is one, too.
        config: overlap of windows and temperature; what is kept of a source's rows does not count.
        progress: told of every window that is read.

    Returns:
        One record a model, its positions ascending and each once.

    Raises:
        InputError: a model is named twice, the text is empty, or a position lies outside it.
        ModelFormatError: a model's vocabulary spells no spaces.
    """
    check_names(*(m.name for m in readers))
    check_spaces(*(m.tokenizer for m in readers))
    size = len(utf8(text, limit=MAX_TEXT_BYTES))
    wanted = np.unique(np.asarray(positions, np.int64))
    if not len(wanted) or wanted[0] < 0 or wanted[-1] > size:
        raise InputError(f"Positions must lie from 0 to {size}, the text's bytes: choose some.")
    everything = {"source_top_k": None, "source_top_p": None, "source_samples": None}
    read = JointText.of(readers, text, (config or FusionConfig()).replace(**everything))
    parts: list[list[characters.NextCharacters]] = [[] for _ in readers]
    shifts = []
    for reading in read.readings(progress):
        window = reading.window
        mine = wanted[(wanted >= window.own) & (wanted < window.own_end)]
        if len(mine):
            shifts.append(window.start)
            for j, model in enumerate(readers):
                parts[j].append(
                    characters.next_characters(
                        reading.rows[j],
                        reading.encodings[j],
                        model.tokenizer,
                        (mine - window.start).tolist(),
                    )
                )
    return [characters.joined(p, shifts) for p in parts]


def transfer(
    target: LoadedModel,
    source: LoadedModel,
    documents: Sequence[str],
    config: FusionConfig,
    *,
    corpus: Sequence[str] = (),
    progress: Progress | None = None,
) -> dict[str, object]:
    """Measure what a source's rows say after the configured strategy has carried them over.

    Args and the returned figures are those of `transfer_study`.
    """
    names = [config.strategy]
    return transfer_study(
        target, source, documents, config, names, corpus=corpus, progress=progress
    )[config.strategy]


def transfer_study(
    target: LoadedModel,
    source: LoadedModel,
    documents: Sequence[str],
    config: FusionConfig,
    strategies: Sequence[str],
    *,
    corpus: Sequence[str] = (),
    progress: Progress | None = None,
) -> dict[str, dict[str, object]]:
    """Measure what a source's rows say after they have been carried to the target.

    Args:
        target: the model that would be taught.
        source: the model that would teach.
        documents: texts.
        config: source top-k and overlap.
        strategies: names; the models read the documents once for all of them.
        corpus: texts for strategies that count; the documents themselves by default.
        progress: told of every document.

    Returns:
        For each strategy the figures of `evaluate.TransferScore.summary`, nats per target token.
    """
    check_names(target.name, source.name)
    maps = {
        name: mapping(source.tokenizer, target.tokenizer, name, corpus or documents)
        for name in strategies
    }
    scores = {name: scoring.TransferScore() for name in strategies}
    for text in joint_texts([target, source], documents, config, progress):
        for reading, (low, high) in zip(text.readings(), text.scored, strict=True):
            rows = reading.rows[0]
            row_bytes = reading.row_bytes(0)[:-1]
            scored = (row_bytes >= low) & (row_bytes < high)
            native = scoring.native_ce(reading.encodings[0], reading.encodings[1], reading.rows[1])
            for name, score in scores.items():
                carrier = carry(reading, 1, maps[name])
                projected = carried_rows(reading, 1, carrier, text, config)
                ce, floored = fuse.carried_ce(projected, rows)
                score.floored += floored
                score.add(projected, ce, rows, native, scored)
    return {name: score.summary() for name, score in scores.items()}


def analyse(
    target: LoadedModel,
    sources: Sequence[LoadedModel],
    text: str,
    config: FusionConfig,
    *,
    view_top_k: int = 12,
    corpus: Sequence[str] = (),
    progress: Progress | None = None,
) -> Analysis:
    """Read a text with a target and its sources, align, carry over and fuse.

    Args:
        target: the model that would be taught.
        sources: the models that would teach, at least one.
        text: at most a million bytes.
        config: strategy, operator, level and top-k.
        view_top_k: tokens kept of the rows that are only looked at.
        corpus: texts for strategies that count; the text itself by default.
        progress: told of every vocabulary that is mapped, and of every window read and fused.

    Raises:
        InputError: an empty text, a model named twice, an unknown strategy, operator or level.
        TooLargeError: the text is too long.
    """
    utf8(text, limit=MAX_TEXT_BYTES)
    clock = [time.perf_counter()]
    maps = mappings(target, sources, config, corpus or [text], progress)
    clock.append(time.perf_counter())
    read = JointText.of([target, *sources], text, config)
    gathered = Gathering(read, maps, config, carried_top_k=view_top_k, view=True, progress=progress)
    clock.append(time.perf_counter())
    gathered.gather()
    clock.append(time.perf_counter())
    steps = zip(("mapping", "reading", "fusing"), clock[:-1], clock[1:], strict=True)
    return gathered.analysis({name: b - a for name, a, b in steps})
