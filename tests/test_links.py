"""What a link sets, and what it must not set."""

from __future__ import annotations

import gradio as gr
import pytest

from app import links

NUMBER = gr.Number(10, minimum=1, maximum=50, render=False)
FREE = gr.Number(10, render=False)
CHOICE = gr.Dropdown(["a", "b"], value="a", render=False)
OWN = gr.Dropdown(["a", "b"], value="a", allow_custom_value=True, render=False)
MANY = gr.Dropdown(["a", "b"], value=["a"], multiselect=True, allow_custom_value=True, render=False)
GROUP = gr.CheckboxGroup(["a", "b"], render=False)
RADIO = gr.Radio(["a", "b"], render=False)
BOX = gr.Checkbox(render=False)
TEXT = gr.Textbox("x", render=False)


@pytest.mark.parametrize(
    ("component", "given", "value"),
    [
        (NUMBER, ["12"], 12),
        (FREE, ["0.5"], 0.5),
        (CHOICE, ["b"], "b"),
        (OWN, ["/a/folder"], "/a/folder"),
        (MANY, ["b", "b", "owner/model", ""], ["b", "owner/model"]),
        (MANY, [""], []),
        (GROUP, ["b", "c"], ["b"]),
        (RADIO, ["a"], "a"),
        (BOX, ["true"], True),
        (BOX, ["maybe"], False),
        (TEXT, ["<img onerror=1>"], "<img onerror=1>"),
    ],
)
def test_a_link_sets_what_fits(component, given, value) -> None:
    assert links._update(component, given) == value


@pytest.mark.parametrize(
    ("component", "given"),
    [
        (NUMBER, ["0"]),
        (NUMBER, ["51"]),
        (NUMBER, ["nan"]),
        (NUMBER, ["ten"]),
        (FREE, ["inf"]),
        (FREE, ["-1e300"]),
        (CHOICE, ["c"]),
        (RADIO, ["<script>"]),
        (TEXT, None),
        (TEXT, []),
    ],
)
def test_what_does_not_fit_changes_nothing(component, given) -> None:
    assert links._update(component, given) == gr.skip()


def test_a_query_is_read_as_the_page_writes_it() -> None:
    found = links.read("?text=a%20b%0Ac&source=x&source=y&empty=&__theme=dark")
    assert found["text"] == ["a b\nc"] and found["source"] == ["x", "y"] and found["empty"] == [""]
    former = links.read("?train_twin=false&train_seed=3")  # links that people still have
    assert former == {"train_baseline": ["false"], "train_seed": ["3"]}
    assert links.read(None) == {} and links.read("?") == {}
    assert len(links.read("?text=" + "x" * 10**6)["text"][0]) < links.LONGEST
