"""Text from one model and from several: caches, paths through words, sampling, stopping."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import byte_level, chain, tiny_model
from plain_covers import PlainModel

from fusion_core import compare, corpus, fuse, generation, models
from fusion_core.errors import InputError
from fusion_core.generation import BACK, Ensemble, Reader, Sampling, stream
from fusion_core.generation import ensemble as together
from fusion_core.generation.ensemble import alone as alone_row
from fusion_core.records import Encoding
from fusion_core.tokens import TextTokenizer

GREEDY = Sampling(temperature=0, max_new_tokens=24)


@pytest.fixture(scope="module")
def zoo() -> dict[str, models.LoadedModel]:
    return {n: models.load(f"zoo:{n}") for n in ("llama", "neox-reason", "gpt2-story", "mpt-code")}


def rows_of(model: models.LoadedModel, ids: list[int]) -> torch.Tensor:
    """Read tokens afresh, without any cache."""
    n = len(ids)
    at = np.arange(n)
    encoding = Encoding(
        model.name, b"x" * n, np.asarray(ids, np.int64), at, at + 1, np.zeros(n, bool), ["x"] * n
    )
    return models.read_rows(model, encoding).dense.probs


def test_a_cache_changes_no_row(zoo, tiny_models) -> None:
    generator = np.random.default_rng(0)
    for model in (*zoo.values(), *tiny_models):
        reader = Reader(model)
        ids = generator.integers(5, model.tokenizer.size - 20, 6).tolist()
        for step in range(14):
            change = step % 4
            if change == 0:
                ids = [*ids, 7 + step]
            elif change == 1:
                ids = [*ids[:-2], 11 + step, 12, 13]
            elif change == 2:
                ids = ids[:-1]
            else:
                ids = [9 + step, *ids[1:]]
            fresh = rows_of(model, ids)
            for back in generator.permutation(BACK + 1).tolist():
                if back <= len(ids):
                    got = reader.row(ids[: len(ids) - back])
                    assert torch.allclose(got, fresh[len(ids) - back], atol=2e-5)
            assert reader.has_read(ids) and not reader.has_read([*ids, 3])


def test_paths_that_leave_a_text_are_read_in_one_step(zoo, tiny_models) -> None:
    for model in (*zoo.values(), *tiny_models):
        reader, ids = Reader(model), [9, 20, 30, 40, 50, 60]
        reader.row(ids)
        paths = [[*ids, 7], [*ids[:4], 8, 11], [*ids[:5], 12], ids[:3], [*ids, 7, 13, 14]]
        calls = []
        hook = model.network.register_forward_pre_hook(lambda *_, seen=calls: seen.append(1))
        rows = reader.rows(paths)
        hook.remove()
        assert len(calls) == 1 and len(rows) == len(paths)
        again = reader.row([*ids, 7, 13, 14, 15])
        assert torch.allclose(again, rows_of(model, [*ids, 7, 13, 14, 15])[-1], atol=2e-5)
        for path, row in zip(paths, rows, strict=True):
            assert torch.allclose(row, rows_of(model, path)[-1], atol=2e-5)


def test_states_that_cannot_be_cut_are_read_again(tiny_models, monkeypatch) -> None:
    from transformers import DynamicCache

    def no(self, length: int) -> None:
        raise NotImplementedError

    monkeypatch.setattr(DynamicCache, "crop", no)
    reader = Reader(tiny_models[0])
    for ids in ([5, 6, 7], [5, 6], [5, 9, 10]):
        assert torch.allclose(reader.row(ids), rows_of(tiny_models[0], ids)[-1], atol=2e-5)


@pytest.mark.parametrize(
    "text", ["the ca", "the cat", "the cats sat, th", "a", "東".encode()[:2], "é the s", "sat 東"]
)
def test_sources_are_asked_on_every_path_through_a_word(
    tiny_models, monkeypatch, text: str | bytes
) -> None:
    """The paths are those of a sum over every token sequence, in plain Python."""
    monkeypatch.setattr(together, "PRUNE", 0.0)
    data = text if isinstance(text, bytes) else text.encode()
    data = b"the " + data
    letters = TextTokenizer(byte_level(), "bytes", start_id=256, eos_id=None)
    target = tiny_model(letters, seed=4)
    ids = [letters.id_of(bytes([b])) for b in data]
    for source, style in zip(tiny_models, ("unsplit", "bytes"), strict=True):
        start, ends = source.tokenizer.start_id, source.tokenizer.end_ids
        plain = PlainModel(source.tokenizer._backend, source.network, start, ends, style)
        expected = plain.expects(data)[-1].next_byte
        row = Ensemble(target, [source]).next(ids, data)
        got = dict(zip(row.rows.ids[0].tolist(), row.rows.probs[0].tolist(), strict=True))
        kept = float(row.kept[0, 0])
        own = Reader(target).row(ids)
        assert kept == pytest.approx(sum(expected), abs=1e-5)
        for b in range(256):
            v = letters.id_of(bytes([b]))
            assert got[v] == pytest.approx(expected[b] + (1 - kept) * float(own[v]), abs=1e-5)


def test_bytes_that_are_no_text_are_left_out_for_sources(tiny_models) -> None:
    letters = TextTokenizer(byte_level(), "bytes", start_id=256, eos_id=None)
    target = tiny_model(letters, seed=4)
    ensemble = Ensemble(target, [tiny_models[0]])
    ids = [letters.id_of(bytes([b])) for b in b"the cat"]
    rows = [ensemble.next(ids, data).rows for data in (b"the cat", b"the\xff c\x80at")]
    assert torch.equal(rows[0].ids, rows[1].ids)


def test_a_path_of_next_to_no_weight_is_left_out(tiny_models) -> None:
    """A source that writes "cats" in one token is not asked what follows "cat" by itself."""
    words = TextTokenizer(byte_level(chain("cats")), "words", start_id=256, eos_id=None)
    source, target = (
        tiny_model(words, seed=2),
        tiny_model(TextTokenizer(byte_level(), "bytes", start_id=256, eos_id=None)),
    )
    head = source.network.lm_head.weight.data
    head[words.id_of(b"cats")] = 0
    source.network.lm_head = torch.nn.Linear(16, len(head), bias=True)
    with torch.no_grad():
        source.network.lm_head.weight.zero_()
        source.network.lm_head.bias.zero_()
        source.network.lm_head.bias[words.id_of(b"cats")] = 12.0
    ensemble = Ensemble(target, [source])
    read = []
    forward = Reader._forward

    def counted(self, paths, support):
        read.extend((self.model.name, list(path)) for path in paths)
        return forward(self, paths, support)

    Reader._forward = counted
    try:
        ids = [words.id_of(bytes([b])) for b in b"cat"]
        row = ensemble.next(ids[:1], b"c")
        row = ensemble.next(ids, b"cat")
    finally:
        Reader._forward = forward
    assert words.piece(int(row.rows.ids[0, 0])) == "s" and float(row.rows.probs[0, 0]) > 0.99
    assert any(name == "words" for name, _ in read)
    assert ("words", [256, words.id_of(b"cat")]) not in read


def test_greedy_text_is_that_of_transformers(zoo) -> None:
    for model in zoo.values():
        prompt = corpus.text("reasoning", "test", 900)[0][:60]
        ids = model.tokenizer.encode(prompt).ids.tolist()
        start = model.tokenizer.start_id
        read = torch.tensor([[*([] if start is None else [start]), *ids]])
        out = model.network.generate(
            read,
            attention_mask=torch.ones_like(read),
            max_new_tokens=24,
            do_sample=False,
            pad_token_id=0,
        )
        steps = list(stream(Ensemble(model), prompt, GREEDY))
        assert [s.token for s in steps] == out[0, read.shape[1] :].tolist()
        assert steps[-1].end in ("length", "end of text")
        assert all(s.weights == () and s.winner == -1 for s in steps)


def test_one_source_with_the_targets_vocabulary_writes_as_by_itself(tiny_models) -> None:
    target = tiny_models[0]
    source = replace(tiny_model(target.tokenizer, seed=8), name="other")
    alone = list(stream(Ensemble(source), "the cat", GREEDY))
    led = list(stream(Ensemble(target, [source]), "the cat", GREEDY))
    assert [s.token for s in led] == [s.token for s in alone]
    assert [s.probability for s in led] == pytest.approx([s.probability for s in alone], abs=1e-6)


@pytest.mark.parametrize("operator", fuse.label_free())
def test_seeds_repeat_and_texts_join(zoo, operator: str) -> None:
    target, *sources = zoo.values()
    ensemble = Ensemble(target, sources, operator=operator)
    sampling = Sampling(max_new_tokens=20, seed=3)
    steps = list(stream(ensemble, "Anna went to the", sampling))
    again = list(stream(ensemble, "Anna went to the", sampling))
    assert steps == again
    others = [list(stream(ensemble, "Anna went to the", sampling.replace(seed=s))) for s in (4, 5)]
    assert any([s.token for s in o] != [s.token for s in steps] for o in others)
    text = "".join(s.text for s in steps)
    own = b"".join(target.tokenizer.bytes_of[s.token] or b"" for s in steps)
    assert text == own.decode("utf-8", "ignore")
    for step in steps:
        assert sum(step.weights) == pytest.approx(1, abs=1e-5) and 0 < step.probability <= 1
        assert -1 <= step.winner < len(sources)


def test_characters_are_shown_whole(tiny_llama_tokenizer) -> None:
    model = tiny_model(tiny_llama_tokenizer, seed=1)
    ids = [tiny_llama_tokenizer.id_of(bytes([b])) for b in "é東👩".encode()]
    with torch.no_grad():  # the position decides the token
        model.network.lm_head = torch.nn.Linear(16, tiny_llama_tokenizer.size + 3, bias=True)
        model.network.lm_head.weight.zero_()
    chosen = iter(ids)

    def follow(self, ids, data):
        row = torch.full((tiny_llama_tokenizer.size,), 1e-9)
        row[next(chosen)] = 1
        return alone_row("x", row)

    ensemble = Ensemble(model)
    ensemble.next = follow.__get__(ensemble)
    steps = list(stream(ensemble, "a", Sampling(temperature=0, max_new_tokens=len(ids))))
    assert [s.text for s in steps] == ["", "é", "", "", "東", "", "", "", "👩"]


def test_stop_strings_end_the_text_and_are_not_shown(zoo) -> None:
    ensemble = Ensemble(zoo["mpt-code"])
    sampling = Sampling(max_new_tokens=60, temperature=0)
    prompt = corpus.text("code", "test", 900)[0][:80]
    whole = "".join(s.text for s in stream(ensemble, prompt, sampling))
    cut = len(whole) // 2
    stop = whole[cut : cut + 5]
    steps = list(stream(ensemble, prompt, sampling.replace(stop=("never there", stop))))
    shown = "".join(s.text for s in steps)
    assert shown == whole[: whole.find(stop)] and steps[-1].end == "stop"
    # what might have been the beginning of a stop string is shown in the end
    late = whole[-3:] + "§"
    steps = list(stream(ensemble, prompt, sampling.replace(stop=(late,))))
    assert "".join(s.text for s in steps) == whole


def test_texts_longer_than_every_context(tiny_models) -> None:
    target, source = tiny_models
    steps = list(stream(Ensemble(target, [source]), "the cat sat, " * 40, GREEDY))
    assert len(steps) == GREEDY.max_new_tokens or steps[-1].end == "end of text"


def test_sources_of_other_lengths(tiny_models) -> None:
    target, source = tiny_models
    short = replace(tiny_model(target.tokenizer, seed=8), name="short", context=16)
    ensemble = Ensemble(target, [replace(source, name="shorter", context=12), short])
    steps = list(stream(ensemble, "the cats sat, " * 3, GREEDY))
    assert len(steps) == GREEDY.max_new_tokens or steps[-1].end == "end of text"


def test_top_p_leaves_the_improbable_out(tiny_models) -> None:
    ensemble = Ensemble(tiny_models[0])
    narrow = Sampling(max_new_tokens=12, top_p=1e-6, temperature=1.0, seed=1)
    expected = list(stream(ensemble, "the", GREEDY.replace(max_new_tokens=12)))
    assert [s.token for s in stream(ensemble, "the", narrow)] == [s.token for s in expected]


def test_the_ensemble_reads_all_domains_better_than_any_source(zoo) -> None:
    target, *sources = zoo.values()
    ensemble = Ensemble(target, sources, operator="confidence")
    together, alone = 0.0, dict.fromkeys((m.name for m in zoo.values()), 0.0)
    for domain in ("reasoning", "commonsense", "code"):
        text = corpus.text(domain, "test", 900)[0][:500]
        nats, n = generation.score(ensemble, text)
        together += nats / n / math.log(2) / 3
        for name, s in compare.bits_per_byte(list(zoo.values()), [text]).items():
            alone[name] += s["bits_per_byte"] / 3
    assert together < min(alone.values())


def test_score_of_one_model_is_its_own_cross_entropy(zoo) -> None:
    model = zoo["llama"]
    text = corpus.text("code", "test", 900)[0][:200]
    nats, n = generation.score(Ensemble(model), text)
    expected = compare.bits_per_byte([model], [text])[model.name]["bits_per_byte"]
    assert nats / n / math.log(2) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"stop": ("",)}, "stop string is empty"),
    ],
)
def test_settings_that_make_no_text(options: dict, named: str) -> None:
    with pytest.raises(InputError, match=named):
        Sampling(**options)


def test_what_cannot_be_generated(tiny_models) -> None:
    target, source = tiny_models
    for operator in ("min_ce", "avg_ce"):
        with pytest.raises(InputError, match="choose one of confidence, mean, product"):
            Ensemble(target, [source], operator=operator)
    with pytest.raises(InputError, match="named twice"):
        Ensemble(target, [target])
    with pytest.raises(InputError, match="empty"):
        next(stream(Ensemble(target), ""))
