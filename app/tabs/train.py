"""The Train tab: a short training, its curves and its twin, and the runs of this visitor."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ..session import Session
from .sidebar import Settings


def build(session: Session, settings: Settings, demo: gr.Blocks) -> dict[str, Any]:
    """Lay out the tab and connect it; returns the components that a link sets, by their names."""
    return {}
