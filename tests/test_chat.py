"""Messages in chat templates: what is aligned are the bytes of their contents."""

from __future__ import annotations

import json

import pytest
from conftest import byte_level, sentencepiece
from tokenizers import Tokenizer

from fusion_core import pipeline, tokens
from fusion_core.cli import main
from fusion_core.errors import InputError
from fusion_core.tokens import TextTokenizer, encode_chat

MARKED = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}"
NAMED = "{% for m in messages %}{{ m.role | upper }}: {{ m.content | trim }}\n\n{% endfor %}"
TALK = [
    {"role": "user", "content": "a user "},
    {"role": "assistant", "content": "\nthe cats, 東京"},
    {"role": "user", "content": "a"},
]


def chat(backend: Tokenizer, template: str, name: str = "chat") -> TextTokenizer:
    from transformers import PreTrainedTokenizerFast

    backend.add_special_tokens(["<|user|>", "<|assistant|>", "</s>"])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    wrapped.chat_template = template
    return tokens.from_transformers(wrapped, name)


def contents(encoding) -> bytes:
    own = encoding.text_tokens
    return b"".join(encoding.data[encoding.start[i] : encoding.end[i]] for i in own)


@pytest.mark.parametrize("family", ["bytes", "pieces"])
def test_contents_are_read_whole(family: str) -> None:
    letters = list("▁aestuhc,\n東京r")
    backend = byte_level() if family == "bytes" else sentencepiece(letters)
    encoding = encode_chat(chat(backend, MARKED), TALK)
    assert encoding.data == "".join(m["content"] for m in TALK).encode()
    assert encoding.lossless and contents(encoding) == encoding.data
    special = [p for p, s in zip(encoding.pieces, encoding.special, strict=True) if s]
    for part in ("<|user|>", "<|assistant|>", "</s>"):
        assert part in special
    assert (encoding.start[encoding.special] == encoding.end[encoding.special]).all()


def test_the_ids_are_those_of_the_models_own_template(testdata) -> None:
    from transformers import AutoTokenizer

    folder = testdata / "tokenizers" / "qwen1.5"
    reference = AutoTokenizer.from_pretrained(folder)
    encoding = encode_chat(tokens.load(folder, "qwen"), TALK)
    ids = reference.apply_chat_template(TALK, tokenize=True)["input_ids"]
    assert encoding.ids.tolist() == ids
    assert encoding.lossless and contents(encoding) == encoding.data


def test_what_a_template_trims_is_lost() -> None:
    encoding = encode_chat(chat(byte_level(), NAMED), TALK)
    assert encoding.lost == ((6, 8),), (
        "the space after the first content, the newline before the next"
    )
    assert not encoding.lossless
    assert contents(encoding) == encoding.data[:6] + encoding.data[8:]


def test_templates_of_all_kinds_align(testdata) -> None:
    models = [
        chat(byte_level([("t", "h"), ("th", "e")]), MARKED, "marked"),
        chat(byte_level(), NAMED, "named"),
        tokens.load(testdata / "tokenizers" / "qwen1.5", "qwen"),
    ]
    target, aligned = pipeline.align_chat(models[0], models[1:], TALK)
    for encoding, alignment in aligned:
        assert encoding.data == target.data
        for side, (first, stop) in ((target, (0, 1)), (encoding, (2, 3))):
            members = {i for g in alignment.groups for i in range(g[first], g[stop])}
            assert members >= set(side.text_tokens.tolist())
        for t0, t1, s0, s1 in alignment.groups:
            assert encoding.end[s1 - 1] == target.end[t1 - 1] or (t0 == t1 or s0 == s1)
        border = len(TALK[0]["content"].encode())
        assert border - 1 in target.end[target.text_tokens]


def test_messages_that_cannot_be_followed() -> None:
    plain = chat(byte_level(), MARKED)
    with pytest.raises(InputError, match="control token"):
        encode_chat(plain, [{"role": "user", "content": "a</s>b"}])
    with pytest.raises(InputError, match="rewrites"):
        encode_chat(chat(byte_level(), "{{ messages[0].content | upper }}"), TALK[:1])
    with pytest.raises(InputError, match="refuses"):
        encode_chat(chat(byte_level(), "{{ raise_exception('no') }}"), TALK)
    with pytest.raises(InputError, match="no chat template"):
        encode_chat(TextTokenizer(byte_level(), "x", start_id=None, eos_id=None), TALK)
    for malformed in ([{"role": "user"}], ["text"], [{"role": "user", "content": 3}]):
        with pytest.raises(InputError, match="malformed"):
            encode_chat(plain, malformed)
    with pytest.raises(InputError, match="empty"):
        encode_chat(plain, [{"role": "user", "content": ""}])


def test_the_command_line_aligns_messages(testdata, tmp_path, capsys) -> None:
    file = tmp_path / "talk.json"
    file.write_text(json.dumps(TALK), encoding="utf-8")
    qwen = str(testdata / "tokenizers" / "qwen1.5")
    arguments = ["align", "--target", qwen, "--messages-file", str(file), "--json"]
    assert main([*arguments, "--source", "zoo:llama"]) == 2
    assert "no chat template" in capsys.readouterr().err
    copy = tmp_path / "copy"
    copy.symlink_to(qwen)
    assert main([*arguments, "--source", str(copy)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["bytes"] == len("".join(m["content"] for m in TALK).encode())
    assert report["sources"][0]["coverage"] == 1.0
    file.write_text("{}", encoding="utf-8")
    assert main([*arguments, "--source", str(copy)]) == 2
