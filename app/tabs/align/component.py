"""The score: every model's tokens of one text on one axis of bytes, and the cards of one token."""

from __future__ import annotations

from ...components.panel import Panel


class AlignmentView(Panel):
    """Shows `views.score` and, for the selected token, `cards.cards`.

    Its value is the selection, ``{"id": analysis, "index": target text token}``. The page asks for
    more by the server functions `read_page`, `read_cards` and `read_characters`; where the last one
    has nothing yet, the event `characters` asks for it.
    """

    script = "tabs/align/view.js"
    styles = ("tabs/align/view.css",)
    triggers = ("characters",)
    name = "fl-alignment"
