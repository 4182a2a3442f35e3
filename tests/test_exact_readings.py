"""Texts read exactly: what is kept, cut, left out and read in windows; and the ensemble's rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from conftest import tiny_model
from exact_readings import KINDS, LETTERS, model, projected
from test_canonical import Letters
from tiny_tokenizers import ctrl, without_spaces

import fusion_core as fl
from fusion_core import corpus, models, tokens
from fusion_core.compare import transfer
from fusion_core.config import FusionConfig
from fusion_core.errors import InputError
from fusion_core.generation import Ensemble
from fusion_core.generation import ensemble as together
from fusion_core.records import RowKind

TEXTS = {"words": "Tom has 3 cats.\n    return name", "letters": "the cat and ten  cats ran"}
SOURCES = tuple(KINDS)


def text_for(name: str) -> str:
    return TEXTS["letters" if KINDS[name] is LETTERS else "words"]


# What is kept -----------------------------------------------------------------------------------


@pytest.mark.parametrize("prune", [0.0, 0.01])
@pytest.mark.parametrize("source", SOURCES)
def test_nothing_is_missing_inside_tokens(source: str, prune: float) -> None:
    """A byte can follow whatever a source expects: only its special tokens are not carried over."""
    reader = model(source, 1)
    probs, window = projected(text_for(source), model("letters", 2), reader, prune=prune)
    rows = window.rows[0]
    silent = [i for i, b in enumerate(reader.tokenizer.bytes_of) if not b]
    covers = window.reading.covers[1]
    assert covers is not None and covers.prune == prune
    given, size = covers.dense.probs.numpy(), len(covers.positions)
    shown = b" " + window.reading.encodings[1].data
    lost, read_ = np.zeros(size), np.zeros(size)
    for e in np.flatnonzero(covers.row >= 0):
        place, known = covers.place[e], covers.known[e]
        row = covers.weight[e] * given[covers.row[e]]
        row[covers.excluded_of(e)] = 0
        head = shown[covers.positions[place] + 1 - known : covers.positions[place] + 1]
        longer = [
            i for i, b in enumerate(reader.tokenizer.bytes_of) if b and b[:known] == head != b
        ]
        read_[place] += row[longer].sum() if known else row.sum()
        if not known:
            lost[place] += row[[i for i in silent if i not in reader.tokenizer.end_ids]].sum()
    inside = rows.kind == RowKind.INSIDE
    assert inside.any()
    at = np.searchsorted(covers.positions, window.reading.encodings[0].row_bytes[:-1])
    assert (rows.kept.numpy() + lost[at] >= read_[at] - 1e-3)[inside].all()
    assert (1 - read_[at][inside]).mean() <= 2 * prune + 1e-4  # what was dropped is the target's
    assert torch.allclose(probs.sum(1), torch.ones(len(probs)), atol=1e-4)


def test_rows_of_the_same_tokenizer_are_the_sources_own() -> None:
    for name in ("byte_level_code", "sentencepiece_bpe", "sentencepiece_unigram"):
        source = replace(model(name, 1), name="other")
        text = text_for(name)
        probs, window = projected(text, model(name, 2), source)
        assert window.reading.covers == (None, None)
        own = models.read_rows(source, source.tokenizer.encode(text)).dense.probs[:-1]
        assert torch.equal(probs, own) and window.reading.encodings[0].lossless


@pytest.mark.parametrize(
    "cut", [{"source_top_k": 5}, {"source_samples": 20}, {"source_top_p": 0.8}]
)
@pytest.mark.parametrize("source", SOURCES)
def test_cut_rows_sum_to_one(source: str, cut: dict) -> None:
    for target in ("letters", "byte_level_code" if source != "byte_level_code" else "metaspace"):
        text = text_for("metaspace")
        for chain_rule in (False, True):
            given = model(target, 2), model(source, 1)
            probs, _ = projected(text, *given, prune=0.01, chain_rule=chain_rule, **cut)
            assert torch.allclose(probs.sum(1), torch.ones(len(probs)), atol=1e-3)
            assert bool((probs >= 0).all())


@pytest.mark.parametrize("source", ["sentencepiece_bpe", "byte_level_code", "metaspace"])
def test_fixed_mappings_speak_at_shared_boundaries_alone(source: str) -> None:
    target = model("byte_level_digits", 2)
    text = text_for("metaspace")
    for strategy in ("exact", "mined", "ot"):
        probs, window = projected(text, target, model(source, 1), strategy)
        shared = set(window.reading.encodings[1].row_bytes.tolist())
        at = window.reading.encodings[0].row_bytes[:-1].tolist()
        spoken = window.rows[0].kind != RowKind.NONE
        assert not (window.rows[0].kind == RowKind.INSIDE).any()
        assert all(b in shared or b == 0 for b, said in zip(at, spoken, strict=True) if said)
        assert spoken.any() and torch.allclose(probs.sum(1), torch.ones(len(probs)), atol=1e-4)


def test_the_targets_boundaries_exclude_what_it_would_have_merged() -> None:
    """Each row is the one without the filter, less what the raw tokenizer merges; renormalised."""
    from fusion_core.project import text as projecting

    target, source = model("byte_level_code", 2), model("letters", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(projecting, "at_boundaries", lambda rows, *_: rows)
        plain, window = projected("the cat has", target, source)
    filtered, _ = projected("the cat has", target, source)
    backend = target.tokenizer._backend
    encoding = window.reading.encodings[0]
    ids = encoding.ids[encoding.text_tokens].tolist()
    for n in range(1, len(ids)):
        expected = plain[n].double().clone()
        last = target.tokenizer.bytes_of[ids[n - 1]]
        for token, spelled in enumerate(target.tokenizer.bytes_of):
            if not spelled or not (last + spelled).isascii():
                continue
            both = (last + spelled).decode()
            follows = ("", "a", "1", "\U0010fffd") if both[-1].isspace() else ("",)
            read = [backend.encode(both + f, add_special_tokens=False).ids[:2] for f in follows]
            if [ids[n - 1], token] not in read:
                expected[token] = 0
        ascii_only = [i for i, b in enumerate(target.tokenizer.bytes_of) if not b or b.isascii()]
        one, two = filtered[n].double()[ascii_only], expected[ascii_only]
        assert torch.allclose(one / one.sum(), two / two.sum(), atol=1e-5)
    assert float((plain - filtered).abs().max()) > 1e-3


# Windows, and texts of all kinds ----------------------------------------------------------------


@pytest.mark.parametrize("source", ["sentencepiece_bpe", "byte_level_code", "metaspace"])
def test_the_first_window_says_what_one_window_says(source: str) -> None:
    target, text = model("letters", 2), text_for("metaspace") * 4
    whole = projected(text, *(replace(m, context=None) for m in (target, model(source, 1))))[0]
    reading = fl.read(text, target, [model(source, 1)], FusionConfig(prune=0.0))
    assert len(reading.windows) > 1
    window = next(iter(reading.project("prefix").windows))
    native = window.reading.rows[0].logprobs[:-1].exp()
    _, here = window.reading.owned(0)
    assert torch.allclose(window.rows[0].probs(native)[here], whole[here], atol=1e-5)


def test_a_source_without_a_start_token_speaks_after_its_first() -> None:
    source, target = model("unsplit", 1), model("letters", 2)
    probs, window = projected("the cat.the  cats", target, source)
    first = int(window.reading.encodings[1].end[0])
    at = window.reading.encodings[0].row_bytes[:-1]
    assert np.array_equal(window.rows[0].kind != RowKind.NONE, at >= first)
    assert torch.allclose(probs.sum(1), torch.ones(len(probs)), atol=1e-4)
    alone, _ = projected("the cat.the ", target, source)
    assert torch.allclose(probs[:12], alone, atol=1e-5)


@pytest.mark.parametrize("text", ["a", "é", "東", "\n", " a", "a "])
@pytest.mark.parametrize("source", ["sentencepiece_bpe", "byte_level_code", "byte_level_digits"])
def test_short_texts(source: str, text: str) -> None:
    for chain_rule in (False, True):
        given = model("letters", 2), model(source, 1)
        probs, _ = projected(text, *given, chain_rule=chain_rule)
        assert torch.allclose(probs.sum(1), torch.ones(len(probs)), atol=1e-4)


def pruned_differences(
    documents: int, names: Sequence[str], domains: Sequence[str]
) -> Iterator[tuple[str, str, float]]:
    """Yield how much 1 % less mass changes the cross-entropy of the zoo's pairs, as a share."""
    target = models.load("zoo:llama")
    for name in names:
        source = models.load(f"zoo:{name}")
        for domain in domains:
            some = list(islice(corpus.documents(domain, "test", seed=7), documents))
            ce = []
            for prune in (0.0, 0.01):
                config = FusionConfig(prune=prune)
                score = transfer(target, source, some, config)["prefix"]
                inside = score["inside"]
                ce.append(
                    score["transfer_ce"] * score["covered"]
                    + (inside["transfer_ce"] or 0) * inside["positions"]
                )
            yield name, domain, ce[1] / ce[0] - 1


def test_leaving_light_covers_out_changes_little() -> None:
    for name, domain in (("gpt2-story", "commonsense"), ("neox-reason", "code")):
        ((*_, share),) = pruned_differences(1, [name], [domain])
        assert abs(share) <= 0.005, (name, domain, share)


@pytest.mark.slow
def test_leaving_light_covers_out_changes_at_most_half_a_percent() -> None:
    names = ("gpt2-story", "mpt-code", "neox-reason")
    found = list(pruned_differences(24, names, corpus.DOMAINS))
    assert all(abs(share) <= 0.005 for *_, share in found), found


# The ensemble -----------------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES)
def test_an_ensembles_rows_are_those_of_the_text(source: str, monkeypatch) -> None:
    monkeypatch.setattr(together, "PRUNE", 0.0)
    monkeypatch.setattr(together, "BACK", 8)
    monkeypatch.setattr("fusion_core.models.incremental.KEPT_ROWS", 16)
    for target in (model("letters", 2), model("byte_level_code", 2)):
        if target.name == source:
            continue
        text = text_for(source)[:16]
        whole, window = projected(text, target, model(source, 1))
        encoding = window.reading.encodings[0]
        ids, ends = encoding.ids[encoding.text_tokens].tolist(), encoding.row_bytes
        ensemble = Ensemble(target, [model(source, 1)])
        for n in range(1, len(ids)):
            row = ensemble.next(ids[:n], text.encode()[: ends[n]]).rows
            got = torch.zeros(len(whole[n])).scatter(0, row.ids[0], row.probs[0])
            assert float((got - whole[n]).abs().max()) < 1e-4


# Who cannot have them ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["python", "openai-gpt", "wordlevel", "ctrl"])
def test_a_tokenizer_that_cannot_be_asked_is_named(kind: str, tmp_path) -> None:
    if kind == "python":
        made = tokens.from_transformers(Letters(), kind)
    else:
        made = ctrl(tmp_path / "ctrl") if kind == "ctrl" else without_spaces(kind)
    source = tiny_model(made, seed=1)
    target = model("letters", 2)
    with pytest.raises(InputError) as caught:
        fl.read("the cat", target, [source], FusionConfig())
    message = str(caught.value)
    assert source.name in message and "choose rows boundary" in message and "\n" not in message
    assert fl.read("the cat", target, [source], FusionConfig(rows="boundary")).models
