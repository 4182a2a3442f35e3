"""The sidebar: the models, the way of fusing, and what is allowed here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from fusion_core import fuse, mapping, zoo
from fusion_core.config import FusionConfig

from ..components import scripts
from ..fields import fields_of, shown
from ..limits import GIB, Limits
from ..requests import AnalysisRequest, analysis_request
from ..state import AppState

FUSION = ("strategy", "operator", "level", "top_k", "rows")
"""Settings of a fusion that the sidebar has, in their order behind target and sources."""


@dataclass(frozen=True)
class Settings:
    """The components in the sidebar that an analysis depends on."""

    target: gr.Dropdown
    sources: gr.Dropdown
    strategy: gr.Dropdown
    operator: gr.Dropdown
    level: gr.Radio
    top_k: gr.Number
    rows: gr.Radio

    @property
    def all(self) -> list[Any]:
        """Return the components in the order in which events take them."""
        return list(vars(self).values())

    @property
    def links(self) -> dict[str, Any]:
        """Return the components by the keys of a link."""
        return dict(zip(("target", "source", *FUSION), self.all, strict=True))

    @staticmethod
    def options(fusion: Sequence[Any]) -> dict[str, Any]:
        """Return the values of `all` behind target and sources as settings of a fusion."""
        return dict(zip(FUSION, fusion, strict=True))

    @classmethod
    def request(cls, limits: Limits, text: str, values: Sequence[Any]) -> AnalysisRequest:
        """Check what is asked for a text with the values of `all`.

        Raises:
            FusionError: one sentence that says what to change.
        """
        target, sources, *fusion = values
        return analysis_request(limits, target, sources, text, **cls.options(fusion))


def zoo_names() -> list[str]:
    """Return the embedded models as a user names them."""
    return [f"zoo:{name}" for name in zoo.NAMES]


def build(state: AppState) -> Settings:
    """Lay out the models, the way of fusing, and what is allowed here."""
    names, fusion = zoo_names(), fields_of(FusionConfig)
    target = "zoo:llama" if "zoo:llama" in names else (names or [""])[0]
    gr.Markdown("### Models", elem_classes="fl-side")
    where = (
        "a zoo model, a folder or a hub id"
        if state.limits.local_folders
        else ("a zoo model or a hub id")
    )
    settings = Settings(
        target=gr.Dropdown(
            names, value=target, label="Target", info=f"who learns: {where}",
            allow_custom_value=True, elem_id="target",
        ),
        sources=gr.Dropdown(
            names, value=[n for n in names if n != target], label="Sources",
            info="who teaches: any number of models", multiselect=True,
            allow_custom_value=True, elem_id="sources",
        ),
        strategy=gr.Dropdown(
            list(mapping.STRATEGIES), **shown(fusion["strategy"]), elem_id="strategy"
        ),
        operator=gr.Dropdown(
            list(fuse.OPERATORS), **shown(fusion["operator"]), elem_id="operator"
        ),
        level=gr.Radio(list(fuse.LEVELS), **shown(fusion["level"]), elem_id="level"),
        top_k=gr.Number(**shown(fusion["top_k"]), precision=0, elem_id="top-k"),
        rows=gr.Radio(list(fusion["rows"].choices), **shown(fusion["rows"]), elem_id="rows"),
    )  # fmt: skip
    limits = state.limits
    download = f", {limits.model_bytes // GIB} GB a model" if limits.model_bytes else ""
    gr.Markdown(
        f"Texts up to {limits.text_bytes:,} bytes, {limits.sources} sources, "
        f"{limits.memory_bytes // GIB} GB of models in memory{download}. Runs on {state.device}. "
        "What a model reads before and after documents is measured; `NAME?start=TOKEN&end=TOKEN` "
        "names others.",
        elem_classes="fl-limits",
    )
    copy = gr.Button("Copy link to this view", size="sm", elem_id="copy-link")
    copy.click(None, None, copy, js=scripts.call("links.js", "copy"))
    return settings
