"""Links: settings and text live in the query string, and a link sets them again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

import gradio as gr

from .components import scripts

LONGEST = 100_000
"""Characters of a query that are read; a server takes fewer."""

FORMER_KEYS = {"train_twin": "train_baseline"}
"""Keys of links that people still have, by what they were called."""


def connect(
    demo: gr.Blocks, linked: Mapping[str, Any], read_only: Mapping[str, Any]
) -> gr.events.Dependency:
    """Write components into the address when they change, and set them from it when a page opens.

    Args:
        demo: the page.
        linked: components by their keys in the query.
        read_only: such components that are set, but that something else writes into the address.

    Returns:
        The event that has set them, for what comes after it.
    """
    keys, components = list(linked), list(linked.values())
    defaults = [c.value for c in components]
    gr.on(
        [c.change for c in components],
        None,
        components,
        None,
        js=scripts.call("links.js", "link", keys, defaults),
    )
    query = gr.Textbox(visible=False, elem_id="query")

    def restore(query: str) -> list[Any]:
        given = read(query)
        return [_update(c, given.get(key)) for key, c in {**linked, **read_only}.items()]

    return demo.load(
        restore,
        query,
        [*components, *read_only.values()],
        js="() => location.search",
        api_visibility="private",
        show_progress="hidden",
        queue=False,
    )


def read(query: str | None) -> dict[str, list[str]]:
    """Return what a query sets, by key."""
    query = (query or "")[:LONGEST].removeprefix("?")
    found = parse_qs(query, keep_blank_values=True)
    return {FORMER_KEYS.get(key, key): values for key, values in found.items()}


def _update(component: Any, given: list[str] | None) -> Any:
    """Return the value that a link gives a component; no change where none fits."""
    value = _value(component, given) if given else None
    return gr.skip() if value is None else value


def _value(component: Any, given: list[str]) -> Any:
    last = given[-1]
    if isinstance(component, gr.Number | gr.Slider):
        return _number(component, last)
    if isinstance(component, gr.Checkbox):
        return last == "true"
    choices = [str(v) for _, v in getattr(component, "choices", None) or []]
    anything = not choices or getattr(component, "allow_custom_value", False)
    known = [v for v in dict.fromkeys(given) if v and (anything or v in choices)]
    if isinstance(component, gr.CheckboxGroup) or getattr(component, "multiselect", False):
        return known[:64]
    return last if anything or last in choices else None


def _number(component: Any, written: str) -> int | float | None:
    try:
        number = float(written)
    except ValueError:
        return None
    low = -1e15 if component.minimum is None else component.minimum
    high = 1e15 if component.maximum is None else component.maximum
    if not low <= number <= high:
        return None
    return int(number) if number.is_integer() else number
