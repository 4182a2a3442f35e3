"""Several models write side by side: what may be asked, and that the turns change no text."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from conftest import tiny_model

from app import session as sessions
from app import work_writing, writing
from app.limits import Limits
from app.session import Session
from app.tabs.generate import layout as generate_tab
from app.writing import Batch, WriteRequest
from fusion_core.errors import FusionError, InputError
from fusion_core.generate import Ensemble, Step, generate, stream
from fusion_core.models import LoadedModel

PROMPT = "the cat sat, a 東"


@pytest.fixture
def session(tiny_models, tiny_gpt_tokenizer, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A session whose models are the tiny ones, and one that was trained here."""
    by_name = {m.name: m for m in tiny_models}
    by_name["/runs/7/model"] = tiny_model(tiny_gpt_tokenizer, seed=5)
    monkeypatch.setattr(sessions.models, "load", lambda name, **_: by_name[name])
    return Session(Limits(new_tokens=128))


def ask(session: Session, **change: Any) -> WriteRequest:
    """Ask for something that is allowed, but for some changes."""
    given = {"target": "tiny-llama", "sources": ["tiny-gpt"], "prompt": PROMPT, "new_tokens": 12}
    given |= {"seed": 3} | change
    return writing.request(
        session, given.pop("target"), given.pop("sources"), given.pop("prompt"), **given
    )


def texts(batches: Iterator[Batch], columns: int) -> list[str]:
    """Join what each column wrote."""
    written = [""] * columns
    for batch in batches:
        for column, step in batch.steps:
            written[column] += step[0]
    return written


@pytest.mark.parametrize("with_target", [False, True])
def test_columns_write_what_each_would_write_by_itself(
    session: Session, tiny_models: tuple[LoadedModel, LoadedModel], with_target: bool
) -> None:
    asked = ask(session, with_target=with_target, operator="mean")
    target, source = tiny_models
    alone = generate(
        target, [source], PROMPT, operator="mean", with_target=with_target, sampling=asked.sampling
    )
    written = texts(work_writing.write(session.shelf.key, asked), 3)
    wanted = [alone["ensemble"], alone["target"], alone["sources"]["tiny-gpt"]]
    assert written == [writing.plain(text) for text in wanted]
    assert all(written)


def test_a_trained_model_has_a_column_of_its_own(session: Session) -> None:
    asked = ask(session, trained=[("my run", "/runs/7/model")])
    roles = [(c.title, c.role, c.source) for c in writing.columns(asked)]
    assert roles == [
        ("Fused", "fused", -1),
        ("tiny-llama", "target", -1),
        ("tiny-gpt", "source", 0),
        ("my run", "trained", -1),
    ]
    alone = stream(Ensemble(session.shelf.get("/runs/7/model")), PROMPT, asked.sampling)
    written = texts(work_writing.write(session.shelf.key, asked), 4)
    assert written[3] == writing.plain("".join(step.text for step in alone))


def counted(length: int, taken: list[str], name: str) -> Iterator[Step]:
    """Steps of a writer that notes when it is asked."""
    for n in range(length):
        taken.append(name)
        yield Step(n, f"{name}{n}", 0.5, 1.0, (), -1, "length" if n == length - 1 else "")


def test_writers_take_turns() -> None:
    taken: list[str] = []
    writers = [counted(n, taken, name) for name, n in (("a", 3), ("b", 1), ("c", 2))]
    batches = list(writing.in_turn(writers, [str] * 3, pause=0))
    assert "".join(taken) == "abcaca"
    assert [column for batch in batches for column, _ in batch.steps] == [0, 1, 2, 0, 2, 0]
    assert [end for batch in batches for end in batch.ends] == [
        (1, "length", ""), (2, "length", ""), (0, "length", ""),
    ]  # fmt: skip


def test_batches_gather_what_is_written_meanwhile() -> None:
    taken: list[str] = []
    writers = [counted(50, taken, "a"), counted(50, taken, "b")]
    batches = list(writing.in_turn(writers, [str] * 2, pause=60))
    assert [len(batch.steps) for batch in batches] == [1, 99]


def test_closing_ends_the_work_at_once() -> None:
    taken: list[str] = []
    batches = writing.in_turn(
        [counted(500, taken, "a"), counted(500, taken, "b")], [str] * 2, pause=0
    )
    for _ in range(5):
        next(batches)
    batches.close()
    assert len(taken) == 5 and list(batches) == []


def test_closing_the_work_asks_no_model_again(
    session: Session, tiny_models: tuple[LoadedModel, LoadedModel]
) -> None:
    calls: list[int] = []
    hooks = [m.network.register_forward_pre_hook(lambda *_: calls.append(1)) for m in tiny_models]
    batches = work_writing.write(session.shelf.key, ask(session, new_tokens=128))
    next(batches)
    before = len(calls)
    batches.close()
    assert before and len(calls) == before
    for hook in hooks:
        hook.remove()


def test_a_writer_that_fails_ends_alone() -> None:
    def failing() -> Iterator[Step]:
        raise InputError("The tokenizer of x makes no token of this prompt.")
        yield

    taken: list[str] = []
    batches = list(writing.in_turn([failing(), counted(4, taken, "a")], [str] * 2, pause=0))
    assert batches[0].ends == ((0, "failed", "The tokenizer of x makes no token of this prompt."),)
    assert len(taken) == 4 and batches[-1].ends == ((1, "length", ""),)


def test_steps_tell_the_winner_and_the_weights(session: Session) -> None:
    asked = ask(session, with_target=True)
    assert asked.voices == ("tiny-gpt", "tiny-llama")
    for batch in work_writing.write(session.shelf.key, asked):
        for column, (_, probability, entropy, winner, weights, token, label) in batch.steps:
            assert 0 < probability <= 1 and entropy >= 0 and label and token >= 0
            assert len(weights) == (2 if column == 0 else 0)
            if column == 0:
                assert sum(weights) == pytest.approx(1, abs=1e-3)
                assert weights[winner] == max(weights)
            else:
                assert winner == -1


def test_the_page_reads_lines_that_only_grow(session: Session) -> None:
    asked = ask(session, prompt="the \u202ecat")
    head = json.loads(writing.heading(asked))
    assert head["prompt"] == "the ▯cat" and head["voices"] == [["tiny-gpt", 0]]
    assert head["id"] != json.loads(writing.heading(asked))["id"]
    for batch in work_writing.write(session.shelf.key, asked):
        told = writing.line(batch)
        assert told.count("\n") == 1 and told.endswith("\n")
        assert set(json.loads(told)) == {"steps", "ends", "rates"}


def test_requests_and_batches_can_be_handed_to_a_worker(session: Session) -> None:
    asked = ask(session, trained=[("mine", "/runs/7/model")])
    assert pickle.loads(pickle.dumps(asked)) == asked
    batch = next(work_writing.write(session.shelf.key, asked))
    assert pickle.loads(pickle.dumps(batch)) == batch


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": None}, "prompt is empty"),
        ({"prompt": "x" * 20_001}, "20,001 bytes"),
        ({"prompt": "\ud800"}, "surrogate"),
        ({"target": ""}, "no target"),
        ({"sources": []}, "no source"),
        ({"sources": ["tiny-llama"]}, "named twice"),
        ({"trained": [("x", "tiny-gpt")]}, "named twice"),
        ({"operator": "min_ce"}, "token that follows"),
        ({"operator": None}, "operator"),
        ({"new_tokens": None}, "from 1 to 128, and is missing"),
        ({"new_tokens": 0}, "from 1 to 128, and is 0"),
        ({"new_tokens": 129}, "from 1 to 128, and is 129"),
        ({"new_tokens": 2.5}, "is 2.5"),
        ({"new_tokens": float("nan")}, "is nan"),
        ({"new_tokens": float("inf")}, "is inf"),
        ({"temperature": None}, "temperature must be a number"),
        ({"temperature": -0.1}, "temperature must be 0 or more"),
        ({"temperature": float("inf")}, "temperature must be a number"),
        ({"top_p": 0}, "top_p must lie above 0"),
        ({"top_p": 1.01}, "top_p must lie above 0"),
        ({"top_p": "x"}, "Top-p must be a number"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"seed": None}, "seed must be a whole number"),
        ({"seed": 2.0**40}, "seed must be a whole number"),
    ],
)
def test_bad_requests_are_one_sentence(session: Session, change: dict, words: str) -> None:
    with pytest.raises(FusionError, match=words) as caught:
        ask(session, **change)
    assert "\n" not in str(caught.value)


def test_whole_numbers_may_come_as_decimals(session: Session) -> None:
    asked = ask(session, new_tokens=5.0, seed=7.0, temperature=0, top_p=1)
    assert (asked.sampling.max_new_tokens, asked.sampling.seed) == (5, 7)
    assert isinstance(asked.sampling.max_new_tokens, int)


def test_example_prompts_end_where_something_must_follow() -> None:
    prompts = writing.prompts()
    assert len(prompts) == 3
    assert all(20 < len(text) < 300 and text == text.lstrip() for text in prompts.values())
    assert prompts["A problem"].endswith("Step 1:")
    assert prompts["A function"].startswith("def ")


def test_the_tab_asks_for_trained_models_and_its_content_only_grows(session: Session) -> None:
    given = {"prompt": PROMPT, "new_tokens": 5.0, "trained": ["run-7"]}
    folders = {"run-7": "/runs/7/model"}
    views = list(
        generate_tab._write(
            session, "tiny-llama", ["tiny-gpt"], given, folders.__getitem__, str.upper
        )
    )
    assert "Loading tiny-llama" in views[0].props["notice"]["text"]
    contents = [v.props["content"] for v in views if v.props["content"]]
    assert all(b.startswith(a) for a, b in pairwise(contents))
    head = json.loads(contents[0])
    assert [title for title, *_ in head["columns"]] == ["Fused", "tiny-llama", "tiny-gpt", "RUN-7"]
    assert views[-1].props["notice"]["kind"] == "done"
    assert "4 columns" in views[-1].props["notice"]["text"]
