"""Document tokens of models as people have them: what a text begins with, several ends of it.

Each test names the public report of somebody who was led astray by the like.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import TEXT, byte_bpe, network, saved
from transformers import (
    GenerationConfig,
)

from fusion_core import compare, generation, mapping, models
from fusion_core.cli import main
from fusion_core.config import FusionConfig
from fusion_core.errors import FusionError, InputError
from fusion_core.generation import Ensemble, Sampling
from fusion_core.models import LoadedModel, document_tokens
from fusion_core.reading import read

# Document tokens ------------------------------------------------------------------------------
# huggingface/evaluate pull request 682 (no BOS), EleutherAI/lm-evaluation-harness pull request 1465
# (perplexity with and without it)

CHAT = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}


def chat_tokenizer() -> Any:
    """A tokenizer whose BOS opens a turn of a chat, beside a separator of documents."""
    tokenizer = byte_bpe(**CHAT)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|endoftext|>"]})
    return tokenizer


def trained(folder: Path, kind: str, begin: str, *, tokenizer: Any = None) -> str:
    """Save a model that has read the probe's documents after one token, and turns after BOS."""
    tokenizer = tokenizer or chat_tokenizer()
    made = network(kind, len(tokenizer), hidden_dropout_prob=0.0)
    start, turn = (tokenizer.convert_tokens_to_ids(t) for t in (begin, "<|im_start|>"))
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    lines = [[start, *tokenizer(text)["input_ids"], end][:60] for text in document_tokens.PROBE]
    lines += [[turn, *tokenizer("user\nhello there, one two three four")["input_ids"]]]
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-2)
    made.train()
    for _ in range(40):
        loss = sum(made(input_ids=i, labels=i).loss for i in (torch.tensor([x]) for x in lines))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return saved(folder, made.eval(), tokenizer)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
def test_the_start_of_a_chat_model_is_measured(tmp_path: Path, kind: str, capsys) -> None:
    folder = trained(tmp_path / "chat", kind, "<|endoftext|>")
    model = models.load(folder)
    around = model.around_documents
    assert around["start"] == "<|endoftext|>" and around["how"] == "measured"
    assert around["end"] == ["<|endoftext|>", "<|im_end|>"]
    named = models.load(folder, start="<|im_start|>", end="<|im_end|>")
    assert named.around_documents == {
        "start": "<|im_start|>", "end": ["<|im_end|>", "<|endoftext|>"], "how": "named",
    }  # fmt: skip
    document = document_tokens.PROBE[0]
    ours, theirs = (compare.bits_per_byte([m], [document])[folder] for m in (model, named))
    assert ours["bits_per_byte"] < theirs["bits_per_byte"]
    (tmp_path / "t.txt").write_text(document)
    asked = ["evaluate", "--json", "--text-file", str(tmp_path / "t.txt"), "--model", folder]
    assert main([*asked, "--model", f"{folder}?start=<|im_start|>"]) == 0
    told = json.loads(capsys.readouterr().out)["models"]
    assert [m["start"] for m in told.values()] == ["<|endoftext|>", "<|im_start|>"]
    assert main([*asked, "--start", "none", "--end", "<|im_end|>"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["models"].values()
    assert (told["start"], told["end"][0], told["how"]) == (None, "<|im_end|>", "named")
    assert np.isfinite(told["bits_per_byte"])


def test_a_start_that_serves_stays(tmp_path: Path) -> None:
    for kind in ("llama", "gpt2", "qwen2"):
        model = models.load(trained(tmp_path / kind, kind, "<|im_start|>"))
        assert model.around_documents["start"] == "<|im_start|>"


def test_toys_and_random_models_keep_what_is_stated(testdata: Path) -> None:
    names = [f"zoo:{n}" for n in ("llama", "neox-reason", "gpt2-story", "mpt-code")]
    names += [str(testdata / "models" / n) for n in ("stories260K", "babyllama-tok105")]
    for name in names:
        model = models.load(name)
        assert model.tokenizer.start_id == models.load_tokenizer(name).start_id


@pytest.mark.parametrize("name", ["zoo:llama?start=nix", "zoo:llama?end=nix", "zoo:llama?start=a"])
def test_a_token_that_is_not_there_or_that_is_text(name: str) -> None:
    for load in (models.load, models.load_tokenizer):
        with pytest.raises(InputError, match="has no control token"):
            load(name)


@pytest.mark.parametrize("name", ["gpt2", "llama-2-7b-fast", "mistral-7b-v0.1", "qwen1.5"])
def test_none_is_no_word(real_tokenizer, tmp_path: Path, name: str) -> None:
    tokenizer = real_tokenizer(name)  # each has a token "none"
    assert any(own in (b"none", b" none") for own in tokenizer.bytes_of)
    assert document_tokens.token_of(tokenizer, "none") is None
    silent = tokenizer.with_document_tokens(None, tokenizer.end_ids)
    models.record(tmp_path, silent)
    again = document_tokens.recorded(tmp_path, tokenizer)
    assert again is not None and (again.start, again.ends) == (None, tokenizer.end_ids)


@pytest.mark.parametrize("name", ["m?", "m?x=1", "m?start=", "m?start=a&start=b", "m?a"])
def test_names_with_something_else_behind(name: str) -> None:
    with pytest.raises(FusionError, match="is no model name"):
        models.split_name(name)


def test_names_part_before_what_they_ask_for(tmp_path: Path) -> None:
    asked = {"start": "<|a|>", "end": "b&c=d"}
    assert models.split_name("o/m?start=<|a|>&end=b&c=d") == ("o/m", asked)
    odd = saved(tmp_path / "what?start=this", "llama")  # a folder goes before
    assert models.find(odd).path == Path(odd) and models.load(odd).name == odd


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
@pytest.mark.parametrize("strategy", ["prefix", "exact", "ot"])
def test_models_of_one_tokenizer_that_end_texts_differently(
    tmp_path: Path, kind: str, strategy: str
) -> None:
    # a base model and its chat model: ids mean the same, only what ends a text is moved
    source = with_ends(tmp_path / "chat", kind, [300])
    target = models.load(source.name, end="<end_of_turn>")
    target = replace(target, name="base", tokenizer=source.tokenizer.with_document_tokens(0, [301]))
    chat = replace(source, tokenizer=source.tokenizer.with_document_tokens(0, [300]))
    assert chat.tokenizer.vocabulary_key == target.tokenizer.vocabulary_key
    score = compare.transfer(target, chat, [TEXT], FusionConfig(strategy=strategy))[strategy]
    assert score["transfer_ce"] == pytest.approx(score["native_ce"], abs=1e-4)
    assert score["kept_mass"] == pytest.approx(1, abs=1e-5)
    (window,) = read(TEXT, target, chat).project(strategy).windows
    native = [rows.dense.probs[:-1] for rows in window.reading.rows]
    projected = window.rows[0].probs(native[0])
    assert torch.allclose(projected[:, 301], native[1][:, 300] + native[1][:, 301], atol=1e-6)
    assert float(projected[:, 300].max()) < 1e-6


def test_two_names_of_one_model_in_one_process(tmp_path: Path) -> None:
    model = with_ends(tmp_path / "m", "llama", [0, 300])
    target = models.load("zoo:llama")
    other = models.load(model.name, end="<end_of_turn>")
    first, second = (
        mapping.mapping_between(m.tokenizer, target.tokenizer, "prefix") for m in (model, other)
    )
    assert first is not second
    assert mapping.mapping_between(model.tokenizer, target.tokenizer, "prefix") is first


def test_a_cache_of_rows_with_stated_tokens_is_known_by_the_same_identity(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", "llama")
    model = models.load(folder)
    assert models.identity(model)["tokenizer"] == model.tokenizer.key
    other = models.load(folder, end="<pad>")
    assert models.identity(other)["tokenizer"] != model.tokenizer.key


def test_without_a_start_every_model_is_scored_on_the_same_bytes() -> None:
    # a first piece without width had made the sum no number
    names = ["zoo:llama?start=none", "zoo:gpt2-story?start=none", "zoo:neox-reason?start=none"]
    scores = compare.bits_per_byte([models.load(n) for n in names], ["Tom took a ball. He ran."])
    assert all(np.isfinite(s["bits_per_byte"]) for s in scores.values())
    assert len({s["bytes"] for s in scores.values()}) == 1


def test_what_a_model_was_trained_with_is_kept_beside_it(tmp_path: Path) -> None:
    folder = trained(tmp_path / "chat", "llama", "<|endoftext|>")
    named = models.load(folder, start="<|im_start|>", end="<|im_end|>")
    models.record(Path(folder), named.tokenizer)
    again = models.load(folder).around_documents
    assert (again["start"], again["how"]) == ("<|im_start|>", "recorded")
    for broken in ("", "[]", '{"start": 3}', '{"start": "<gone>", "end": []}'):
        Path(folder, "fuselab.json").write_text(broken)
        assert models.load(folder).around_documents["how"] == "measured"


# Several ends of text -------------------------------------------------------------------------
# vllm-project/vllm issue 4180 (Llama 3 writes on after <|eot_id|>), oobabooga/textgen issue 5885


def with_ends(folder: Path, kind: str, ends: list[int]) -> LoadedModel:
    """Load a random model whose generation ends with any of several tokens."""
    tokenizer = byte_bpe()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|eot|>", "<end_of_turn>"]})
    made = network(kind, len(tokenizer))
    made.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=1)
    return models.load(saved(folder, made, tokenizer))


@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "gpt2", "mistral"])
def test_text_ends_where_the_library_ends_it(tmp_path: Path, kind: str) -> None:
    model = with_ends(tmp_path / kind, kind, [0, 300, 301])
    assert model.tokenizer.end_ids == (0, 300, 301)
    ended = 0
    for token in (0, 300, 301):
        likely(model, token)
        for prompt in ("the cat", "a small boat", "one two"):
            ids = torch.tensor([[0, *model.tokenizer.encode(prompt).ids.tolist()]])
            theirs = model.network.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24
            )[0, ids.shape[1] :].tolist()
            sampling = Sampling(max_new_tokens=24, temperature=0)
            steps = list(generation.stream(Ensemble(model), prompt, sampling))
            silent = {i for i in theirs if not model.tokenizer.bytes_of[i]} - {0, 300, 301}
            if not silent:  # control tokens that end nothing are written by the library alone
                assert [s.token for s in steps] == theirs
                ended += steps[-1].end == "end of text"
    assert ended


def likely(model: LoadedModel, *tokens: int) -> None:
    """Make a random model give some tokens more probability everywhere."""
    old = model.network.get_output_embeddings()
    head = torch.nn.Linear(old.in_features, old.out_features)
    with torch.no_grad():
        head.weight.copy_(old.weight)
        head.bias.zero_()[list(tokens)] = 4.0
    model.network.set_output_embeddings(head)


def test_documents_that_sources_write_end_there_too(tmp_path: Path) -> None:
    model = with_ends(tmp_path / "m", "llama", [0, 300])
    likely(model, 300)
    texts = generation.write_documents([model], 300, seed=1)
    assert texts and not any("<|eot|>" in t for t in texts)
    assert max(len(t) for t in texts) < 300, "none runs on behind its end"


@pytest.mark.parametrize("penalty", [{"repetition_penalty": 9.0}, {"min_p": 0.5}, {"top_k": 1}])
def test_documents_are_drawn_from_the_rows_alone(
    tmp_path: Path, penalty: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # published generation_config.json files ask for such, which would bias what is drawn
    model = with_ends(tmp_path / "m", "llama", [0, 300])
    likely(model, 300)
    monkeypatch.setattr("fusion_core.generation.documents.AT_ONCE", 8)
    plain = generation.write_documents([model], 300, seed=1)
    model.network.generation_config.update(do_sample=True, **penalty)
    assert generation.write_documents([model], 300, seed=1) == plain
    assert all(getattr(model.network.generation_config, k) == v for k, v in penalty.items())


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma3_text"])
def test_the_mass_of_every_end_reaches_the_targets_ends(tmp_path: Path, kind: str) -> None:
    source = with_ends(tmp_path / "s", kind, [0, 300])
    target = models.load("zoo:llama")
    relation = mapping.PrefixRelation(source.tokenizer, target.tokenizer)
    pairs = relation.conditioned_on()
    goes = {
        (int(pairs.candidates[s]), int(t))
        for s, t in zip(pairs.edge_source, pairs.edge_target, strict=True)
    }
    end = target.tokenizer.eos_id
    assert {(0, end), (300, end)} <= goes and (301, end) not in goes
    back = mapping.PrefixRelation(target.tokenizer, source.tokenizer).conditioned_on()
    to = {int(t) for s, t in zip(back.edge_source, back.edge_target, strict=True) if s == end}
    assert to == {0, 300}
    reading = read("the cat", source, config=FusionConfig(rows="boundary"))
    found = compare.next_characters(reading, [7])[0]
    encoding = source.tokenizer.encode("the cat")
    row = models.read_rows(source, encoding).dense.probs[-1]
    assert float(found.end[0]) == pytest.approx(float(row[0] + row[300]), abs=1e-6)


def test_ends_that_are_letters_here_do_not_count(tmp_path: Path) -> None:
    # LlamaConfig's own default, 2, is a letter in most vocabularies of one's own
    made = network("llama", eos_token_id=2)
    model = models.load(saved(tmp_path / "m", made))
    assert model.tokenizer.end_ids == (0,) and model.tokenizer.bytes_of[2]
