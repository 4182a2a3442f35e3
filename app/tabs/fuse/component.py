"""How a text was fused: the winner of every token, and ways of fusing held against each other."""

from __future__ import annotations

from ...components.panel import Panel


class FuseView(Panel):
    """Shows `fusing.fuse_view`.

    Its value is the way of fusing that the visitor chose in the table, ``{"operator", "level"}`` or
    ``{"strategy"}``; the event `choose` tells of it.
    """

    script = "tabs/fuse/view.js"
    styles = ("tabs/fuse/view.css",)
    triggers = ("choose",)
    name = "fl-fusing"
