"""Tokenizers as people have them: spaces that no token spells, marks of their own, large files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from conftest import TOKENIZERS, byte_level, sentencepiece, tiny_model
from test_families import spelled
from test_tokens import lost_bytes, spans_in_order
from tiny_tokenizers import (
    SPECIAL,
    WITH_SPACES,
    WITHOUT_SPACES,
    bpe,
    ctrl,
    metaspace,
    named,
    openai_gpt,
    replace_start,
    without_spaces,
)
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from fusion_core import compare, mapping, pipeline, reports, tokens, zoo
from fusion_core.align import by_bytes
from fusion_core.cache.building import build_cache
from fusion_core.config import FusionConfig
from fusion_core.errors import ModelFormatError
from fusion_core.generation import Ensemble
from fusion_core.generation import text as writing
from fusion_core.models.incremental import Reader
from fusion_core.reading import read
from fusion_core.tokens import TextTokenizer
from fusion_core.tokens.spelling import copy_of, without_prefix

TEXT = "the cat sat on the mat, and then: a small boat"


@pytest.mark.parametrize("name", WITHOUT_SPACES)
def test_words_with_and_without_a_space_have_the_same_bytes(name: str) -> None:
    tokenizer = without_spaces(name)
    assert not tokenizer.spells_spaces
    encoding = tokenizer.encode("the cat sat on the mat")
    own = [tokenizer.bytes_of[i] or b"" for i in encoding.ids[encoding.text_tokens]]
    if name != "a mark in parts":
        assert b"".join(own) == b"thecatsatonthemat", "no mark of a word is text"
        assert [encoding.data[s:e] for s, e in encoding.lost] == [b" "] * 5
    spans_in_order(encoding)
    assert not encoding.lossless


def test_ctrl_marks_words_that_go_on(tmp_path) -> None:
    tokenizer = ctrl(tmp_path)
    encoding = tokenizer.encode("the cat sat")
    assert list(encoding.pieces) == ["the", "cat", "sa", "t"]
    assert encoding.start.tolist() == [0, 4, 8, 10] and encoding.end.tolist() == [3, 7, 10, 11]
    assert encoding.lost == ((3, 4), (7, 8)) and not tokenizer.spells_spaces


@pytest.mark.parametrize("name", WITH_SPACES)
def test_spaces_that_some_token_shows(name: str) -> None:
    assert named(WITH_SPACES[name](), name).spells_spaces


@pytest.mark.parametrize("name", TOKENIZERS)
def test_real_tokenizers_spell_spaces_unless_they_cut_words_there(real_tokenizer, name) -> None:
    tokenizer = real_tokenizer(name)
    assert tokenizer.spells_spaces == (name != "bert-base-uncased")
    # By what the tokens of many pairs of words are, brute force.
    words = [w for t in tiny.CORPUS[:2] for w in t.split()]
    pairs = [f"{a} {b}" for a in words for b in words]
    read = tokenizer.encode_batch(pairs)
    shown = [
        b"".join(tokenizer.bytes_of[i] or b"" for i in e.ids[e.text_tokens]).strip() for e in read
    ]
    same = [s == p.encode() for s, p in zip(shown, pairs, strict=True)]
    assert all(same) if tokenizer.spells_spaces else not any(same)


@pytest.mark.parametrize("name", zoo.NAMES)
def test_the_zoo_spells_spaces(name: str) -> None:
    assert tokens.load(zoo.path(name), name).spells_spaces


@pytest.mark.parametrize("name", ["openai-gpt", "wordpiece", "wordlevel", "ctrl"])
def test_rows_are_not_carried_where_bytes_say_too_little(name: str, tmp_path) -> None:
    odd = ctrl(tmp_path / "ctrl") if name == "ctrl" else without_spaces(name)
    one = tiny_model(odd, seed=1, extra=0)
    other = tiny_model(named(bpe(pre_tokenizers.ByteLevel()), "bytes"), seed=2, extra=0)
    config = FusionConfig()
    tries: list[Callable[[], Any]] = [
        lambda: pipeline.analyze(other, [one], TEXT, config),
        lambda: pipeline.analyze(one, [other], TEXT, config),
        lambda: compare.transfer(one, other, [TEXT], config),
        lambda: compare.transfer(other, one, [TEXT], config),
        lambda: build_cache(other, [one], [TEXT], config, tmp_path / "cache"),
        lambda: Ensemble(other, [one]),
        lambda: Ensemble(one, [other]),
        lambda: compare.next_characters(read(TEXT, one), [3]),
    ]
    tries += [
        lambda s=s: mapping.mapping_between(one.tokenizer, other.tokenizer, s, [TEXT])
        for s in mapping.STRATEGIES
    ]
    for attempt in tries:
        with pytest.raises(ModelFormatError, match=f"{name} do not spell the spaces") as caught:
            attempt()
        assert "\n" not in str(caught.value)
    by_bytes(other.tokenizer.encode(TEXT), odd.encode(TEXT))  # spans are as good as any


@pytest.mark.parametrize("name", ["openai-gpt", "wordpiece", "wordlevel"])
def test_one_vocabulary_on_both_sides_is_fused_all_the_same(name: str) -> None:
    tokenizer = without_spaces(name)
    twin = named(Tokenizer.from_str(tokenizer._backend.to_str()), "twin")
    target, source = tiny_model(tokenizer, seed=1, extra=0), tiny_model(twin, seed=2, extra=0)
    read = pipeline.analyze(target, [source], TEXT, FusionConfig(operator="mean"))
    kept = read.sources[0].kept
    assert np.allclose(kept, 1.0), "equal ids mean the same, whatever their bytes"
    ids = target.tokenizer.encode(TEXT).ids.tolist()
    row = Ensemble(target, [source], operator="mean").next(ids, TEXT.encode()).rows
    probs = torch.zeros(source.tokenizer.size).index_put_((row.ids[0],), row.probs[0])
    assert np.allclose(probs, Reader(source).row(ids), atol=1e-6), "and in generation"


def test_equal_bytes_at_a_word_s_begin_and_within_it_are_not_the_same_token() -> None:
    entries = [*SPECIAL, "a", "##a", "b"]
    swapped = [*SPECIAL, "##a", "a", "b"]
    keys = set()
    for some in (entries, swapped):
        backend = Tokenizer(models.WordPiece({e: i for i, e in enumerate(some)}, unk_token="<unk>"))
        backend.pre_tokenizer = pre_tokenizers.Whitespace()
        keys.add(named(backend, "w").vocabulary_key)
    assert len(keys) == 2


@pytest.mark.parametrize("name", ["openai-gpt", "wordpiece", "wordlevel", "ctrl", "bytes"])
def test_what_a_model_writes_has_its_spaces(name: str, tmp_path, monkeypatch) -> None:
    if name == "bytes":
        tokenizer = named(bpe(pre_tokenizers.ByteLevel(add_prefix_space=False)), "bytes")
    else:
        tokenizer = ctrl(tmp_path) if name == "ctrl" else without_spaces(name)
    encoding = tokenizer.encode("the cat sat the cat sat")
    ids = encoding.ids[encoding.text_tokens].tolist()
    assert tokenizer.text_of(ids) == "the cat sat the cat sat"
    half = ids.index(ids[0], 1) if name != "bytes" else 1
    left = iter(ids[half:])
    monkeypatch.setattr(writing, "_choose", lambda *_: (next(left), 1.0))
    prompt = tokenizer.text_of(ids[:half])
    ensemble = Ensemble(tiny_model(tokenizer, extra=0))
    steps = writing.stream(ensemble, prompt, writing.Sampling(max_new_tokens=len(ids) - half))
    assert prompt + "".join(s.text for s in steps) == "the cat sat the cat sat"


@pytest.mark.parametrize("name", ["openai-gpt", "wordpiece", "wordlevel"])
def test_bits_per_byte_say_what_the_tokens_leave_out(name: str) -> None:
    odd = tiny_model(without_spaces(name), seed=1, extra=0)
    sound = tiny_model(named(bpe(pre_tokenizers.ByteLevel(), size=400), "bytes"), seed=2, extra=0)
    texts = ["the cat sat", "the dog ran to the park"]
    scores = compare.bits_per_byte([odd, sound], texts)
    spaces, size = sum(t.count(" ") for t in texts), sum(map(len, texts))
    assert scores[name]["lossless"] is False
    assert scores[name]["lost_share"] == pytest.approx(spaces / size)
    assert scores["bytes"]["lossless"] is True and scores["bytes"]["lost_share"] == 0
    table = reports.evaluate_table({"models": {m: s | {"tasks": {}} for m, s in scores.items()}})
    assert table.count("flatters") == 1
    assert f"leave out {spaces / size:.1%}" in table


MARKS = ("_", "Ġ", "·", "▁")  # "_": ankane/tokenizers-ruby#18 had it by default


@pytest.mark.parametrize("scheme", ["always", "first", "never"])
@pytest.mark.parametrize("style", ["bpe", "unigram"])
@pytest.mark.parametrize("mark", MARKS)
def test_any_mark_of_a_word_s_start_is_a_space(mark: str, style: str, scheme: str) -> None:
    backend = metaspace(style, mark, scheme)
    tokenizer = named(backend, "m")
    for text in (TEXT, "a small boat", "the cat  sat "):
        encoding = tokenizer.encode(text)
        own = encoding.ids[encoding.text_tokens].tolist()
        whole = "".join(backend.id_to_token(i) for i in own).replace(mark, " ")
        assert encoding.lossless and not encoding.lost
        assert whole == " " * encoding.dummy_prefix + text
        assert encoding.dummy_prefix == (scheme != "never")
        spans_in_order(encoding)
        spelled(tokenizer, encoding)
    assert tokenizer.spells_spaces
    assert tokenizer.published_strings()[1] == mark
    for string in (b"cat", b" cat"):  # within a text
        ids = tokenizer.spellings([string])[0]
        assert b"".join(tokenizer.bytes_of[i] for i in ids) == string


@pytest.mark.parametrize("scheme", ["always", "first", "never"])
@pytest.mark.parametrize("style", ["bpe", "unigram"])
@pytest.mark.parametrize("mark", MARKS)
def test_a_mark_that_the_text_has_itself_shifts_nothing(mark: str, style: str, scheme: str) -> None:
    tokenizer = named(metaspace(style, mark, scheme), "m")
    for text in (f"the{mark}cat sat", f"{mark}the cat", f"the {mark} cat", f"the cat{mark}"):
        encoding = tokenizer.encode(text)
        assert not encoding.lossless
        spans_in_order(encoding)
        spelled(tokenizer, encoding)
        written = encoding.data.index(mark.encode())
        assert encoding.lost == ((written, written + len(mark.encode())),)


def replaced(mark: str, prepend: bool, decoder: bool) -> Tokenizer:
    """Train a Unigram whose normaliser writes a mark for a space."""
    steps = [normalizers.Prepend(mark)] * prepend + [normalizers.Replace(" ", mark)]
    backend = Tokenizer(models.Unigram())
    words = {mark + w for t in tiny.CORPUS for w in t.split()} | {mark, *"".join(tiny.CORPUS)}
    entries = [(s, 0.0) for s in SPECIAL] + [(w, -1.0 - len(w) % 3) for w in sorted(words)]
    backend.model = models.Unigram(entries, unk_id=2)
    backend.normalizer = normalizers.Sequence(steps)
    if decoder:
        backend.decoder = decoders.Sequence([decoders.Replace(mark, " "), decoders.Fuse()])
    return backend


@pytest.mark.parametrize("mark", ["_", "<sp>", "\u2423", "▁▁"])
@pytest.mark.parametrize("decoder", [True, False])
@pytest.mark.parametrize("prepend", [True, False])
def test_marks_that_a_normaliser_writes(mark: str, prepend: bool, decoder: bool) -> None:
    tokenizer = named(replaced(mark, prepend, decoder), "r")
    encoding = tokenizer.encode("the cat sat on the mat")
    assert encoding.lossless and encoding.dummy_prefix == prepend
    assert tokenizer.spells_spaces and tokenizer.published_strings()[1] == mark
    spelled(tokenizer, encoding)


def test_a_vocabulary_without_marks_has_its_own_low_line() -> None:
    backend = byte_level()
    backend.add_tokens([AddedToken("▁x", normalized=False)])
    for tokenizer, text in (
        (TextTokenizer(backend, "b", start_id=None, eos_id=None), "a ▁ b▁x"),
        (named(Tokenizer(models.BPE({"a": 0, "▁": 1, " ": 2}, [])), "c"), "a ▁ a"),
    ):
        encoding = tokenizer.encode(text)
        assert encoding.lossless
        spelled(tokenizer, encoding)


def test_reading_a_tokenizer_does_not_parse_its_vocabulary(monkeypatch) -> None:
    parsed: list[int] = []

    def loads(text: Any, loads: Callable[[Any], Any] = json.loads) -> Any:
        parsed.append(len(text))
        return loads(text)

    monkeypatch.setattr(json, "loads", loads)
    entries = {e: i for i, e in enumerate(["<s>", "▁", "a", "▁a", *map(str, range(20_000))])}
    for model in (
        models.BPE(entries, [("▁", "a")]),
        models.Unigram([(e, -1.0) for e in entries], unk_id=0),
        models.WordPiece(entries, unk_token="<s>"),
    ):
        backend = Tokenizer(model)
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
        backend.add_tokens([AddedToken("<x>"), AddedToken("zz", normalized=True)])
        parsed.clear()
        tokenizer = TextTokenizer(backend, "w", start_id=0, eos_id=None)
        tokenizer.spellings([b"a"])
        assert 0 < sum(parsed) < 1000 and not {"key", "vocabulary_key"} & set(vars(tokenizer))
        again = Tokenizer.from_str(backend.to_str())
        assert tokenizer.key == TextTokenizer(again, "v", start_id=0, eos_id=None).key
        again.normalizer = normalizers.Lowercase()
        assert tokenizer.key != TextTokenizer(again, "v", start_id=0, eos_id=None).key


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_entry_of_a_real_tokenizer_is_read(real_tokenizer, name: str) -> None:
    tokenizer = real_tokenizer(name)
    backend = tokenizer._backend
    whole = json.loads(backend.to_str())
    added = {a["id"]: a for a in whole["added_tokens"]}
    entries = {i: s for s, i in backend.get_vocab(with_added_tokens=True).items()}
    assert tokenizer.size == max(entries) + 1
    assert set(tokenizer.unused_ids.tolist()) == set(range(tokenizer.size)) - set(entries)
    for i, string in entries.items():
        own = tokenizer.bytes_of[i]
        if i in tokenizer.special_ids:
            assert own is None
        elif i in added:
            assert own == added[i]["content"].encode()
        else:
            assert own is not None and (own or string == "")
    assert {i for i, a in added.items() if a["special"]} <= tokenizer.special_ids


@pytest.mark.parametrize("name", ["llama-2-7b-fast", "albert-spiece", "gpt-neox-20b_mpt", "phi-3"])
def test_a_copy_is_what_its_file_would_be(real_tokenizer, name: str) -> None:
    backend = real_tokenizer(name)._backend
    whole = json.loads(backend.to_str())
    changed = {p: without_prefix(whole[p]) for p in ("normalizer", "pre_tokenizer")}
    ours, theirs = copy_of(backend, **changed), Tokenizer.from_str(json.dumps(whole | changed))
    theirs.encode_special_tokens = True
    assert ours.get_vocab() == theirs.get_vocab()
    assert json.loads(ours.to_str()) == json.loads(theirs.to_str())
    for text in (TEXT, "  two", "a</s>b        c", "東京 é\n<|user|> x"):
        for special in (True, False):
            ours.encode_special_tokens = theirs.encode_special_tokens = special
            assert ours.encode(text).ids == theirs.encode(text).ids


def test_align_says_what_is_lost(real_tokenizer) -> None:
    target = real_tokenizer("gpt2")
    sources = [real_tokenizer("bert-base-uncased"), named(openai_gpt(), "gpt")]
    sources += [without_spaces("wordlevel")]
    text = "The cat, the mat"
    report = reports.align_report(*pipeline.align(target, sources, text))
    lines = reports.align_table(report).splitlines()
    for source in sources:
        encoding = source.encode(text)
        said = [x for x in lines if x.startswith(f"{source.name}: bytes")]
        assert len(said) == 1 and f"lost: {len(lost_bytes(encoding))} (" in said[0]
        for start, end in encoding.lost[:5]:
            assert f"{encoding.data[start:end].decode()!r} at {start}" in said[0]
    assert not [x for x in lines if x.startswith("gpt2: ")]
    for text, end in (("Éa " * 40, ", ...)"), ("É " * 40, f"120 ({'É ' * 10!r}... at 0)")):
        many = reports.align_report(*pipeline.align(target, sources[:1], text))
        assert reports.align_table(many).splitlines()[0].endswith(end)


@pytest.mark.parametrize("first", ["a", "Ω", "the"])
def test_align_says_that_tokens_have_more_than_the_text(first: str) -> None:
    backend = sentencepiece(list("▁athe"))
    backend.normalizer = normalizers.Sequence(
        [backend.normalizer, normalizers.Replace(Regex("$"), "a")]
    )
    source = named(backend, "more")
    target = replace_start(named(byte_level(), "bytes"))
    encoding = source.encode(first)
    assert not encoding.lossless and not encoding.lost
    report = reports.align_report(*pipeline.align(target, [source], first))
    assert "more: no byte of the text is lost, but" in reports.align_table(report)
    assert replace(encoding, lossless=True).lost_bytes == 0
