"""The form of a training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import gradio as gr

from fusion_core.config import Objective, RunConfig, Setting
from fusion_core.errors import size_of

from ...fields import fields_of, shown, whole_number
from ...limits import Limits
from ...requests import model_names
from ...training.form import DOMAINS, PRESETS, Form, ShortRun
from ...training.plan import MOST
from ..sidebar import Settings

FULL, LORA = "all weights", "LoRA adapters"
FIRST = next(iter(PRESETS))


@dataclass(frozen=True)
class Fields:
    """What a visitor fills in, beside the sidebar; the names are those of a `Form`."""

    preset: gr.Radio
    domains: gr.CheckboxGroup
    kilobytes: gr.Number
    text: gr.Textbox
    file: gr.File
    steps: gr.Number
    lm_weight: gr.Number
    learning_rate: gr.Number
    baseline: gr.Checkbox
    lora: gr.Radio
    batch_size: gr.Number
    seed: gr.Number

    @property
    def all(self) -> list[Any]:
        """Return the components in their order."""
        return [getattr(self, f.name) for f in fields(self)]

    @property
    def linked(self) -> dict[str, Any]:
        """Return the components by the keys of a link; a visitor's text stays at home."""
        names = [f.name for f in fields(self) if f.name not in ("text", "file")]
        return {f"train_{name}": getattr(self, name) for name in names}


def build(limits: Limits) -> Fields:
    """Lay out the form; numbers are checked where they are read, in one sentence."""
    preset = gr.Radio(
        list(PRESETS), value=FIRST, label="Preset", elem_id="train-preset",
        info="a time for everything together, or a number of steps",
    )  # fmt: skip
    short = fields_of(ShortRun, steps=limits.steps, kilobytes=limits.data_bytes // 1000)
    steps = gr.Number(**shown(short["steps"]), visible=False, elem_id="train-steps")
    found = {"preset": preset, "steps": steps} | _texts(limits, short) | _objective() | _more()
    quiet: dict[str, Any] = {
        "queue": False, "show_progress": "hidden", "api_visibility": "private"
    }  # fmt: skip
    preset.change(
        # A link sets the preset without an `input`, and the text beside it stays as it says.
        lambda name: gr.Number(visible=name in PRESETS and PRESETS[name].seconds is None),
        preset, steps, **quiet,
    )  # fmt: skip
    preset.input(lambda name: PRESETS[name or FIRST].kilobytes, preset, found["kilobytes"], **quiet)
    return Fields(**found)


def _texts(limits: Limits, short: dict[str, Setting]) -> dict[str, Any]:
    """Lay out what is read."""
    domains = gr.CheckboxGroup(
        list(DOMAINS), value=list(DOMAINS), label="Toy text", elem_id="train-domains",
    )  # fmt: skip
    kilobytes = gr.Number(**shown(short["kilobytes"], PRESETS[FIRST].kilobytes), elem_id="train-kb")
    with gr.Accordion("Your own text", open=False, elem_id="train-own"):
        text = gr.Textbox(
            "", label="Text", lines=4, max_lines=8, elem_id="train-text",
            info="documents apart by blank lines; a tenth is held out",
        )  # fmt: skip
        file = gr.File(
            label=f"or a .txt, .jsonl or .parquet file, up to {size_of(limits.data_bytes)}",
            type="filepath", height=110, elem_id="train-file",
        )  # fmt: skip
    return {"domains": domains, "kilobytes": kilobytes, "text": text, "file": file}


def _objective() -> dict[str, Any]:
    """Lay out what is learnt; λ and rate begin with what suits the zoo."""
    weight = shown(fields_of(Objective)["lm_weight"], Form.lm_weight)
    speed = shown(fields_of(RunConfig, **MOST)["learning_rate"], Form.learning_rate)
    with gr.Row():
        lm_weight = gr.Number(**weight, step=0.1, elem_id="train-lambda", min_width=120)
        rate = gr.Number(**speed, step=1e-4, elem_id="train-rate", min_width=120)
    baseline = gr.Checkbox(
        Form.baseline, label="Train the baseline, too", elem_id="train-baseline",
        info="the same run on the text alone, to compare with",
    )  # fmt: skip
    return {"lm_weight": lm_weight, "learning_rate": rate, "baseline": baseline}


def _more() -> dict[str, Any]:
    """Lay out what is seldom changed."""
    run = fields_of(RunConfig, **MOST)
    with gr.Accordion("More settings", open=False, elem_id="train-more"):
        lora = gr.Radio(
            [FULL, LORA], value=FULL, label="What is trained", elem_id="train-lora",
        )  # fmt: skip
        with gr.Row():
            batch = gr.Number(**shown(run["batch_size"]), elem_id="train-batch", min_width=120)
            seed = gr.Number(**shown(run["seed"]), elem_id="train-seed", min_width=120)
    return {"lora": lora, "batch_size": batch, "seed": seed}


def form(limits: Limits, values: Sequence[Any]) -> Form:
    """Make a form of the values of `Fields.all` and, behind them, those of the sidebar.

    Raises:
        FusionError: the models cannot be used.
    """
    names = [f.name for f in fields(Fields)]
    given = dict(zip(names, values, strict=False))
    target, sources, *fusion = values[len(names) :]
    first, *others = model_names(limits, target, sources)
    given |= {
        "domains": tuple(given["domains"] or ()),
        "lora": given["lora"] == LORA,
        "target": first,
        "sources": tuple(others),
        "fusion": {k: whole_number(v) for k, v in Settings.options(fusion).items()},
    }
    for name in ("kilobytes", "steps", "batch_size", "seed"):
        given[name] = whole_number(given[name])
    return Form(**given)
