"""Puts the tabs together: the page, its sidebar, its theme."""

from __future__ import annotations

from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from . import api
from . import links as links_
from .arguments import Page, refuse
from .components import scripts
from .gate import Gate
from .limits import Limits
from .state import AppState
from .tabs import sidebar
from .tabs.align import layout as align
from .tabs.fuse import layout as fuse
from .tabs.generate import layout as generate
from .tabs.learn import layout as learn
from .tabs.train import layout as train
from .training.store import JobStore

_FONT = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")

_CSS = """
.gradio-container { max-width: 1560px !important; }
.fl-title > * { display: flex; flex-wrap: wrap; align-items: baseline; gap: 2px 14px; }
.fl-title h1 { margin: 0; font-size: 21px; letter-spacing: -0.01em; }
.fl-title p, .fl-intro p { margin: 0; color: var(--body-text-color-subdued); }
.fl-limits p { font-size: 12px; color: var(--body-text-color-subdued); }
.fl-side h3 { margin: 0; font-size: 15px; }
@media (max-width: 700px) { .fl-intro { display: none; } }
.fl-walk { max-width: 820px; }
#align-view .html-container { padding: 4px 0 0; }
.dark button[role="tab"].selected { color: #a5b4fc; border-color: #a5b4fc; }
#text textarea { font-family: var(--font-mono); font-size: 13.5px; }
"""


SESSIONS = 300
"""Pages whose state is kept, each of which takes about half a megabyte."""

KEPT_SECONDS, SWEEP_SECONDS = 86_400, 300
"""How long uploads and copies to download are kept where no limit is stated; how often they are
looked for."""

TABS = ("align", "fuse", "generate", "train", "learn")

# An open sidebar covers a narrow page.
_CLOSE_SIDEBAR = """() => {
  if (innerWidth < 800) document.querySelector(".sidebar.open .toggle-button")?.click();
}"""


def theme() -> gr.themes.Base:
    """Return the theme: quiet paper, one blue, and only fonts that the machine has."""
    fonts = [gr.themes.Font(name) for name in _FONT]
    mono = [gr.themes.Font(name) for name in _MONO]
    return gr.themes.Soft(
        primary_hue="indigo", neutral_hue="slate", radius_size="md", font=fonts, font_mono=mono
    ).set(
        body_background_fill="#fbfbfd",
        body_background_fill_dark="#14151a",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#1b1d25",
        background_fill_secondary="#f5f6fa",
        background_fill_secondary_dark="#191b22",
        block_background_fill="#ffffff",
        block_background_fill_dark="#1b1d25",
        block_border_color="#d9dbe4",
        block_border_color_dark="#2f323e",
        block_border_width="1px",
        block_shadow="none",
        block_shadow_dark="none",
        input_background_fill="#ffffff",
        input_background_fill_dark="#14151a",
        block_title_background_fill="transparent",
        block_title_background_fill_dark="transparent",
        block_title_text_color="#1c1e26",
        block_title_text_color_dark="#eceef5",
        block_title_text_weight="600",
        block_title_padding="0",
        block_info_text_size="12px",
        layout_gap="12px",
        body_text_color="#1c1e26",
        body_text_color_dark="#eceef5",
        body_text_color_subdued="#5f6370",
        body_text_color_subdued_dark="#a2a6b4",
    )


def _tab(name: str, shown: gr.Textbox) -> gr.Tab:
    """Make a tab that notes when it is shown."""
    tab = gr.Tab(name.capitalize(), id=name)
    tab.select(None, None, shown, js=f"() => '{name}'")
    return tab


def _trained(jobs: JobStore, key: str) -> gr.Dropdown:
    """Offer a visitor the models that they have trained."""
    found = jobs.trained(key)
    return gr.Dropdown(choices=found, visible=bool(found))


def build(state: AppState | None = None) -> gr.Blocks:
    """Build the page.

    Args:
        state: the state to use; a new one by default.
    """
    state = state or AppState()
    kept = state.limits.kept_seconds or KEPT_SECONDS
    with Page(
        title="FuseLab", analytics_enabled=False, fill_width=True,
        delete_cache=(min(kept, SWEEP_SECONDS), kept),
    ) as demo:  # fmt: skip
        with gr.Sidebar(width=300):
            settings = sidebar.build(state)
        gr.Markdown("# FuseLab\nSee how language models read one text, and fuse what they know.",
                    elem_classes="fl-title")  # fmt: skip
        visitor, jobs = train.visitors(state)
        shown = gr.Textbox("align", visible=False, elem_id="shown")
        links = {"tab": shown} | settings.links
        with gr.Tabs(elem_id="tabs") as tabs:
            with _tab("align", shown):
                reading = align.build(state, settings)
            with _tab("fuse", shown):
                fuse.build(state, settings, shown, reading)
            with _tab("generate", shown):
                writers = generate.build(
                    state,
                    settings,
                    resolve=lambda name: str(jobs.resolve(name)),
                    label=jobs.label,
                )
            with _tab("train", shown):
                trainings = train.build(state, settings, demo, (visitor, jobs))
            with _tab("learn", shown):
                learn.build(settings, reading, tabs)
        shown.change(
            lambda shown, key: _trained(jobs, key) if shown == "generate" else gr.skip(),
            [shown, visitor], writers.trained,
            queue=False, show_progress="hidden", api_visibility="private",
        )  # fmt: skip
        links |= writers.linked | trainings.linked | {"text": reading.text}
        api.connect(state, jobs)
        linked = links_.connect(demo, links, {"token": reading.token})
        linked.then(**reading.run)
        linked.then(
            lambda shown: gr.Tabs(selected=shown if shown in TABS else "align"), shown, tabs,
            queue=False, show_progress="hidden", api_visibility="private",
        )  # fmt: skip
    demo.queue(default_concurrency_limit=2, max_size=64)
    return demo


def launch_options(limits: Limits | None = None) -> dict[str, Any]:
    """Return how the page is served: its looks, and nothing that calls outside.

    Args:
        limits: those of this place by default.
    """
    limits = limits or Limits.here()
    return {
        "theme": theme(),
        "css": _CSS,
        "footer_links": ["settings"],
        "js": _CLOSE_SIDEBAR,
        "run_history": False,
        "max_file_size": limits.data_bytes,
        "enable_monitoring": False,
        "state_session_capacity": SESSIONS,
        "ssr_mode": False,
        "mcp_server": True,
        "app_kwargs": {
            "exception_handlers": {TypeError: refuse},
            "routes": scripts.routes(),
            "middleware": [Middleware(Gate, limits=limits)],
        },
    }
