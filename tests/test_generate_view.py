"""Several models write side by side: what may be asked, and that turns change no text."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from conftest import tiny_model

from app import example_texts
from app import state as states
from app.compute.generate import Batch, in_turn, write
from app.limits import Limits
from app.requests import GenerationRequest, generation_request
from app.state import AppState
from app.tabs.generate import layout, view
from fusion_core.errors import FusionError, InputError
from fusion_core.generation import Ensemble, Step, generate, stream
from fusion_core.models import LoadedModel

PROMPT = "the cat sat, a 東"


@pytest.fixture
def state(tiny_models, tiny_gpt_tokenizer, monkeypatch: pytest.MonkeyPatch) -> AppState:
    """A state whose models are the tiny ones, and one that was trained here."""
    by_name = {m.name: m for m in tiny_models}
    by_name["/runs/7/model"] = tiny_model(tiny_gpt_tokenizer, seed=5)
    monkeypatch.setattr(states.models, "load", lambda name, **_: by_name[name])
    return AppState(Limits(new_tokens=128))


def ask(state: AppState, **change: Any) -> GenerationRequest:
    """Ask for something that is allowed, but for some changes."""
    given = {
        "target": "tiny-llama",
        "sources": ["tiny-gpt"],
        "prompt": PROMPT,
        "max_new_tokens": 12,
    }
    given |= {"seed": 3} | change
    return generation_request(
        state.limits, given.pop("target"), given.pop("sources"), given.pop("prompt"), **given
    )


def texts(batches: Iterator[Batch], columns: int) -> list[str]:
    """Join what each column wrote."""
    written = [""] * columns
    for batch in batches:
        for column, step, _ in batch.steps:
            written[column] += step.text
    return written


@pytest.mark.parametrize("with_target", [False, True])
def test_columns_write_what_each_would_write_by_itself(
    state: AppState, tiny_models: tuple[LoadedModel, LoadedModel], with_target: bool
) -> None:
    asked = ask(state, with_target=with_target, operator="mean")
    target, source = tiny_models
    alone = generate(
        target, [source], PROMPT, operator="mean", with_target=with_target, sampling=asked.sampling
    )
    written = texts(write(state.models.key, asked), 3)
    wanted = [alone["ensemble"], alone["target"], alone["sources"]["tiny-gpt"]]
    assert written == wanted
    assert all(written)


def test_a_trained_model_has_a_column_of_its_own(state: AppState) -> None:
    asked = ask(state, trained=[("my run", "/runs/7/model")])
    roles = [(c.title, c.role, c.source) for c in view.columns(asked)]
    assert roles == [
        ("Fused", "fused", -1),
        ("tiny-llama", "target", -1),
        ("tiny-gpt", "source", 0),
        ("my run", "trained", -1),
    ]
    alone = stream(Ensemble(state.models.get("/runs/7/model")), PROMPT, asked.sampling)
    written = texts(write(state.models.key, asked), 4)
    assert written[3] == "".join(step.text for step in alone)


def counted(length: int, taken: list[str], name: str) -> Iterator[Step]:
    """Steps of a writer that notes when it is asked."""
    for n in range(length):
        taken.append(name)
        yield Step(n, f"{name}{n}", 0.5, 1.0, (), -1, "length" if n == length - 1 else "")


def test_writers_take_turns() -> None:
    taken: list[str] = []
    writers = [counted(n, taken, name) for name, n in (("a", 3), ("b", 1), ("c", 2))]
    batches = list(in_turn(writers, [str] * 3, pause=0))
    assert "".join(taken) == "abcaca"
    assert [column for batch in batches for column, *_ in batch.steps] == [0, 1, 2, 0, 2, 0]
    assert [end for batch in batches for end in batch.ends] == [
        (1, "length", ""), (2, "length", ""), (0, "length", ""),
    ]  # fmt: skip


def test_batches_gather_what_is_written_meanwhile() -> None:
    taken: list[str] = []
    writers = [counted(50, taken, "a"), counted(50, taken, "b")]
    batches = list(in_turn(writers, [str] * 2, pause=60))
    assert [len(batch.steps) for batch in batches] == [1, 99]


def test_closing_ends_the_work_at_once() -> None:
    taken: list[str] = []
    batches = in_turn([counted(500, taken, "a"), counted(500, taken, "b")], [str] * 2, pause=0)
    for _ in range(5):
        next(batches)
    batches.close()
    assert len(taken) == 5 and list(batches) == []


def test_closing_the_work_asks_no_model_again(
    state: AppState, tiny_models: tuple[LoadedModel, LoadedModel]
) -> None:
    calls: list[int] = []
    hooks = [m.network.register_forward_pre_hook(lambda *_: calls.append(1)) for m in tiny_models]
    batches = write(state.models.key, ask(state, max_new_tokens=128))
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
    batches = list(in_turn([failing(), counted(4, taken, "a")], [str] * 2, pause=0))
    assert batches[0].ends == ((0, "failed", "The tokenizer of x makes no token of this prompt."),)
    assert len(taken) == 4 and batches[-1].ends == ((1, "length", ""),)


def test_steps_tell_the_winner_and_the_weights(state: AppState) -> None:
    asked = ask(state, with_target=True)
    assert asked.members == ("tiny-gpt", "tiny-llama")
    for batch in write(state.models.key, asked):
        for column, step in json.loads(view.line(batch))["steps"]:
            _, probability, entropy, winner, weights, token, label = step
            assert 0 < probability <= 1 and entropy >= 0 and label and token >= 0
            assert len(weights) == (2 if column == 0 else 0)
            if column == 0:
                assert sum(weights) == pytest.approx(1, abs=1e-3)
                assert weights[winner] == max(weights)
            else:
                assert winner == -1


def test_the_page_reads_lines_that_only_grow(state: AppState) -> None:
    asked = ask(state, prompt="the \u202ecat")
    head = json.loads(view.heading(asked))
    assert head["prompt"] == "the ▯cat" and head["voices"] == [["tiny-gpt", 0]]
    assert head["id"] != json.loads(view.heading(asked))["id"]
    for batch in write(state.models.key, asked):
        line = view.line(batch)
        assert line.count("\n") == 1 and line.endswith("\n")
        assert set(json.loads(line)) == {"steps", "ends", "rates"}
        shown = [step[0] for _, step in json.loads(line)["steps"]]
        assert shown == [view.plain(step.text) for _, step, _ in batch.steps]


def test_requests_and_batches_can_be_handed_to_a_worker(state: AppState) -> None:
    asked = ask(state, trained=[("mine", "/runs/7/model")])
    assert pickle.loads(pickle.dumps(asked)) == asked
    batch = next(write(state.models.key, asked))
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
        ({"max_new_tokens": None}, "between 1 and 128, not nothing"),
        ({"max_new_tokens": 0}, "between 1 and 128, not 0"),
        ({"max_new_tokens": 129}, "between 1 and 128, not 129"),
        ({"max_new_tokens": 2.5}, "not 2.5"),
        ({"max_new_tokens": float("nan")}, "not nan"),
        ({"max_new_tokens": float("inf")}, "not inf"),
        ({"temperature": None}, "Temperature must be a number"),
        ({"temperature": -0.1}, "Temperature must be a number of at least 0"),
        ({"temperature": float("inf")}, "Temperature must be a number"),
        ({"top_p": 0}, "Top-p must be a number above 0"),
        ({"top_p": 1.01}, "Top-p must be a number above 0"),
        ({"top_p": "x"}, "Top-p must be a number"),
        ({"seed": -1}, "Seed must be a whole number"),
        ({"seed": None}, "Seed must be a whole number"),
        ({"seed": 2.0**40}, "Seed must be a whole number"),
    ],
)
def test_bad_requests_are_one_sentence(state: AppState, change: dict, words: str) -> None:
    with pytest.raises(FusionError, match=words) as caught:
        ask(state, **change)
    assert "\n" not in str(caught.value)


def test_whole_numbers_may_come_as_decimals(state: AppState) -> None:
    asked = ask(state, max_new_tokens=5.0, seed=7.0, temperature=0, top_p=1)
    assert (asked.sampling.max_new_tokens, asked.sampling.seed) == (5, 7)
    assert isinstance(asked.sampling.max_new_tokens, int)


def test_example_prompts_end_where_something_must_follow() -> None:
    prompts = example_texts.prompts()
    assert len(prompts) == 3
    assert all(20 < len(text) < 300 and text == text.lstrip() for text in prompts.values())
    assert prompts["A problem"].endswith("Step 1:")
    assert prompts["A function"].startswith("def ")


def test_the_tab_asks_for_trained_models_and_its_content_only_grows(state: AppState) -> None:
    given = {"prompt": PROMPT, "max_new_tokens": 5.0, "trained": ["run-7"]}
    folders = {"run-7": "/runs/7/model"}
    views = list(
        layout._write(state, "tiny-llama", ["tiny-gpt"], given, folders.__getitem__, str.upper)
    )
    assert "Loading tiny-llama" in views[0].props["notice"]["text"]
    contents = [v.props["content"] for v in views if v.props["content"]]
    assert all(b.startswith(a) for a, b in pairwise(contents))
    head = json.loads(contents[0])
    assert [title for title, *_ in head["columns"]] == ["Fused", "tiny-llama", "tiny-gpt", "RUN-7"]
    assert views[-1].props["notice"]["kind"] == "done"
    assert "4 columns" in views[-1].props["notice"]["text"]
