"""A dropdown of examples that fill a text box."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr


def offer(examples: Mapping[str, str], box: gr.Textbox, elem_id: str) -> Any:
    """Lay out a dropdown whose choice replaces a text.

    Args:
        examples: texts by their names; the first one is shown as chosen.
        box: what is filled.
        elem_id: of the dropdown.

    Returns:
        The event that fills the box, for what comes after it.
    """
    example = gr.Dropdown(
        list(examples),
        value=next(iter(examples)),
        label="Example",
        elem_id=elem_id,
        interactive=True,  # no function reads it
    )

    def chosen(event: gr.EventData) -> Any:
        # The event's own value: the dropdown's may still be the one before.
        name = event._data.get("value") if isinstance(event._data, dict) else None
        return examples[name] if isinstance(name, str) and name in examples else gr.skip()

    # Not `input`: a dropdown fires that when it is merely left, and would replace a text.
    return example.select(chosen, None, box, api_visibility="private", show_progress="hidden")
