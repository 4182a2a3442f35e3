"""The walk through the method, as text: what each step says, and what it shows; the notebooks."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from ... import example_texts

NOTEBOOKS = Path(__file__).resolve().parents[3] / "notebooks"


@dataclass(frozen=True)
class WalkStep:
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


STEPS = (
    WalkStep(
        "Tokens",
        """#### Every model cuts a text in its own way
Four models read the same line. Each was trained with a vocabulary of its own, so where one sees
` apples` as one token, another sees ` app` and `les`. Their predictions are lists over *different
tokens at different places*: they cannot simply be averaged.

**Guess first:** in `17 apples`, which of the models cut between the digits? Then look: every lane is
a model, the characters run along the top, and thin lines mark where all of them have a boundary.""",
        "align",
        example_texts.PRICES,
    ),
    WalkStep(
        "Positions",
        """#### Bytes are the one thing they share
Two readings of one text are aligned by the bytes at which tokens end. Where both end at the same
byte, the source's next-token distribution can speak for the target. Walk with `N` from mismatch to
mismatch, or choose one kind in the legend to see it alone.

FuseLLM pairs tokens by edit distance and dynamic programming instead; that takes thousands of times
longer and can pair the wrong ones.""",
        "align",
        example_texts.PRICES,
    ),
    WalkStep(
        "Inside a token",
        """#### And where the source is in the middle of a word?
A target token that ends *inside* a source token (a dashed outline where that is so for every source)
still has something to learn. The source is asked what follows *what has been read*: the sum over all
its ways to cut these bytes, of which the last may end in the middle of a token that goes on. The
ring shows its last boundary before.

Such a row knows nothing of the rest of the text. One that is taken where the source cuts the *whole*
text (`boundary` in the sidebar) does: that a token ends there says how the text does not go on. It
**knows the source's boundaries**, and looks better than it is.""",
        "align",
        example_texts.CODE,
        6,
    ),
    WalkStep(
        "Vocabularies",
        """#### Carrying probability from one vocabulary to another
A source's probability for ` apples` has to become probabilities of the target's tokens. With exact
matches only, what no token matches is **lost**; it is shown as a bar of its own, and *kept mass*
says how much arrived. By byte prefixes (`prefix`, the default) almost all arrives. Here the mapping
is set to `exact`: look for *lost*, then set it back in the sidebar.""",
        "align",
        example_texts.PRICES,
        None,
        {"strategy": "exact"},
    ),
    WalkStep(
        "Fusing",
        """#### Whom to believe
Now every source speaks in the target's tokens, so they can be fused. `min_ce` takes the source that
found the text least surprising, of the whole text or token by token; `confidence` trusts whoever is
sure. The tab shows who teaches each token, and all operators side by side. A figure of fused rows can
flatter in two ways, and is marked where it does: the source was **chosen knowing each token**, or a
row **knows the source's boundaries**.

**Guess first:** three specialists read a sum, a tale and a function. Who wins where?""",
        "fuse",
        example_texts.OPENING,
        None,
        {"strategy": "prefix", "operator": "min_ce", "level": "token"},
    ),
    WalkStep(
        "Writing",
        """#### All together, token by token
What is fused need not be trained on: it can be written from. Give every model the same beginning
and see them continue it; the fused column asks all of them at every step, and hovering over a token
says whom it followed.""",
        "generate",
    ),
    WalkStep(
        "Teaching",
        """#### Teach it to one model
Keeping four models is expensive. FuseLLM trains the *target* on the fused distributions beside the
text itself: λ of the one, 1 − λ of the other. Start a short training and compare it with its
baseline, which reads the same text for the same number of steps without any source. What remains
of the difference is what fusion taught.""",
        "train",
    ),
)


def notebooks() -> str:
    """List the notebooks by the first line of each."""
    lines = ["#### Notebooks", "The same in code, to be run and changed:", ""]
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        title = "".join(cells[0]["source"]).splitlines()[0].lstrip("# ") if cells else path.stem
        lines.append(f"- **{title}**: `notebooks/{path.name}`")
    return "\n".join(lines)
