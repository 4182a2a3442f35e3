"""The Learn tab: a walk through the method, shown step by step in other tabs; the notebooks."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from .. import texts
from . import align
from .sidebar import Settings

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


@dataclass(frozen=True)
class Lesson:
    """One step of the walk.

    Attributes:
        title: at most three words.
        says: Markdown.
        tab: where it is shown.
        text: what is read there; None leaves the visitor's own.
        token: which token is chosen, from 1.
        fusion: settings of the sidebar by their names.
    """

    title: str
    says: str
    tab: str
    text: str | None = None
    token: int | None = None
    fusion: dict[str, str] = field(default_factory=dict)


LESSONS = (
    Lesson(
        "Tokens",
        """#### Every model cuts a text in its own way
Four models read the same line. Each was taught with a vocabulary of its own, so where one sees
` apples` as one token, another sees ` app` and `les`. Their predictions are lists over *different
tokens at different places*: they cannot simply be averaged.

**Guess first:** in `17 apples`, which of the models cut between the digits? Then look: every lane is
a model, the characters run along the top, and thin lines mark where all of them have a boundary.""",
        "align",
        texts.PRICES,
    ),
    Lesson(
        "Positions",
        """#### Bytes are the one thing they share
Two readings of one text are aligned by the bytes at which tokens end. Where both end at the same
byte, the source's next-token distribution can speak for the target. Walk with `N` from mismatch to
mismatch, or choose one kind in the legend to see it alone.

FuseLLM pairs tokens by edit distance and dynamic programming instead; that takes thousands of times
longer and can pair the wrong ones.""",
        "align",
        texts.PRICES,
    ),
    Lesson(
        "Inside a token",
        """#### And where the source is in the middle of a word?
A target token that ends *inside* a source token (a dashed outline where that is so for every source)
still has something to learn: the source's distribution at its last boundary, kept to those tokens
that begin with the bytes that are already known. The ring shows which row of the source is used.""",
        "align",
        texts.CODE,
        6,
    ),
    Lesson(
        "Vocabularies",
        """#### Carrying probability from one vocabulary to another
A source's probability for ` apples` has to become probabilities of the target's tokens. With exact
matches only, everything without a twin is **lost**; it is shown as a bar of its own, and *kept mass*
says how much arrived. By byte prefixes (`prefix`, the default) almost all arrives. Here the mapping
is set to `exact`: look for *lost*, then set it back in the sidebar.""",
        "align",
        texts.PRICES,
        None,
        {"strategy": "exact"},
    ),
    Lesson(
        "Fusing",
        """#### Whom to believe
Now every source speaks in the target's tokens, so they can be fused. `min_ce` takes the source that
found the text least surprising, of the whole text or token by token; `confidence` trusts whoever is
sure. The tab shows who teaches each token, and all operators side by side.

**Guess first:** three specialists read a sum, a tale and a function. Who wins where?""",
        "fuse",
        texts.OPENING,
        None,
        {"strategy": "prefix", "operator": "min_ce", "level": "token"},
    ),
    Lesson(
        "Writing",
        """#### All together, token by token
What is fused need not be a lesson: it can be written from. Give every model the same beginning and
watch them continue it; the fused column asks all of them at every step, and hovering over a token
says whom it followed.""",
        "generate",
    ),
    Lesson(
        "Teaching",
        """#### Teach it to one model
Keeping four models is expensive. FuseLLM trains the *target* on the fused distributions beside the
text itself: λ of the one, 1 − λ of the other. Start a short training and watch it against its twin,
which reads the same text for the same number of steps without any source. What remains of the
difference is what fusion taught.""",
        "train",
    ),
)


def build(settings: Settings, reading: align.Tab, tabs: gr.Tabs) -> None:
    """Lay out the walk.

    Args:
        settings: models and ways of fusing, which a step may set.
        reading: the Align tab.
        tabs: of the page; a step shows itself in one of them.
    """
    gr.Markdown(
        "Seven steps from a text to a fused model. Each has a button that shows it on real models.",
        elem_classes="fl-intro",
    )
    with gr.Walkthrough(selected=0, elem_id="walk") as walk:
        for number, lesson in enumerate(LESSONS):
            with gr.Step(lesson.title, id=number):
                gr.Markdown(lesson.says, elem_classes="fl-lesson")
                with gr.Row():
                    show = gr.Button("Show me", variant="primary", scale=0, min_width=160)
                    if number + 1 < len(LESSONS):
                        following = gr.Button("Next step", scale=0, min_width=160)
                        _turn(following, walk, number + 1)
                _connect(show, lesson, settings, reading, tabs)
    gr.Markdown(_notebooks(), elem_classes="fl-lesson")


def _turn(button: gr.Button, walk: gr.Walkthrough, number: int) -> None:
    button.click(
        lambda: gr.Walkthrough(selected=number),
        None,
        walk,
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )


def _connect(
    show: gr.Button, lesson: Lesson, settings: Settings, reading: align.Tab, tabs: gr.Tabs
) -> None:
    chosen = [settings.strategy, settings.operator, settings.level]

    def values() -> list[Any]:
        fusion = [lesson.fusion.get(n, gr.skip()) for n in ("strategy", "operator", "level")]
        text = gr.skip() if lesson.text is None else lesson.text
        return [gr.Tabs(selected=lesson.tab), text, str(lesson.token or ""), *fusion]

    event = show.click(
        values,
        None,
        [tabs, reading.text, reading.token, *chosen],
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )
    if lesson.text is not None:
        event.success(**reading.run)


def _notebooks() -> str:
    """List the notebooks by the first line of each."""
    lines = ["#### Notebooks", "The same in code, to be run and changed:", ""]
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        title = "".join(cells[0]["source"]).splitlines()[0].lstrip("# ") if cells else path.stem
        lines.append(f"- **{title}**: `notebooks/{path.name}`")
    return "\n".join(lines)
