"""How a text was fused: the winner of every token, and ways of fusing held against each other."""

from __future__ import annotations

from .panel import Panel


class FuseView(Panel):
    """Shows `fusing.fuse_view`.

    Its value is the way of fusing that the visitor chose in the table, ``{"operator", "level"}`` or
    ``{"strategy"}``; the event `choose` tells of it.
    """

    scripts = ("fuse_view.js",)
    styles = ("cards.css", "fuse_view.css")
    name = "fl-fusing"
