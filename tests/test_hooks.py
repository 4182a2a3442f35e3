"""Hooks: all that is used of the libraries beyond what they document, and the versions it is of.

`requirements.txt` names the tested versions. An upgrade comes here first: whatever is gone, or
takes other arguments, is named with the place that uses it.
"""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import re
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

import accelerate
import peft
import pytest
import tiny
import transformers
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from transformers import Trainer, TrainingArguments
from transformers.integrations import deepspeed

from fusion_core.training import FusionTrainer

ROOT = Path(__file__).parent.parent
LIBRARIES = {"transformers": transformers, "accelerate": accelerate, "peft": peft}
OVERRIDDEN: dict[str, tuple[str, ...]] = {
    "compute_loss": ("model", "inputs", "return_outputs", "num_items_in_batch"),
    "log": ("logs", "start_time"),
    "get_batch_samples": ("epoch_iterator", "num_batches", "device"),
    "evaluate": ("eval_dataset", "ignore_keys", "metric_key_prefix"),
    "_load_from_checkpoint": ("resume_from_checkpoint", "model"),
}
"""Methods of `transformers.Trainer` that `FusionTrainer` overrides, with their arguments."""

SWITCHES = ("loss_is_scaled_for_ga", "model_accepts_loss_kwargs", "can_return_loss")
"""Attributes of `transformers.Trainer` that `FusionTrainer` sets."""

PRIVATE: dict[str, str] = {
    "_n_gpu": "training/arguments.py: one device a process, no DataParallel",
    "_original_forward": "training/trainer.py: a model without autocast around its forward pass",
    "_hf_deepspeed_config_weak_ref": "training/callbacks.py: a model that is read whole",
    "_commit_hash": "models/load.py: the revision of a model of the hub",
    "_indices": "torch: indices of a sparse tensor before it is coalesced",
    "_values": "torch: the values beside them",
    "_exit": "benchmark/sandbox.py: os, the end of a process in which nothing else may run",
    "_ActionsContainer": "argparse: a type in config/flags.py, of parsers and their groups",
    "_MutuallyExclusiveGroup": "argparse: a type in cli.py",
}
"""Private names of other libraries, and what each is for."""


@pytest.mark.parametrize("name", LIBRARIES)
def test_the_version_is_the_tested_one(name: str) -> None:
    asked = re.search(rf"(?m)^{name}==(\S+)$", (ROOT / "requirements.txt").read_text())
    assert asked, f"requirements.txt must name the version of {name} that was tested"
    installed = importlib.metadata.version(name)
    assert installed == asked[1], (
        f"{name} {installed} is installed, but its hooks were checked with {asked[1]}: see that "
        "the tests of this file pass, then name the new version in requirements.txt"
    )


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_an_overridden_method_takes_the_same(name: str) -> None:
    version = transformers.__version__
    base = getattr(Trainer, name, None)
    assert base is not None, f"transformers {version} has no Trainer.{name}: FusionTrainer needs it"
    found = tuple(inspect.signature(base).parameters)[1:]
    assert found == OVERRIDDEN[name], f"Trainer.{name} of transformers {version} takes {found}"
    ours = inspect.signature(getattr(FusionTrainer, name)).parameters
    assert tuple(ours)[1:] in (found, ("args", "kwargs"))


def test_the_table_is_complete() -> None:
    """Nothing else is overridden, and no other private name is used anywhere in the library."""
    shared = {n for n in vars(FusionTrainer) if hasattr(Trainer, n) and not n.startswith("__")}
    assert shared == set(OVERRIDDEN)
    assert foreign() <= set(PRIVATE) | set(OVERRIDDEN), "name it in PRIVATE, with what it is for"


def foreign() -> set[str]:
    """Name the private attributes in `fusion_core` that nothing in it defines."""
    defined: set[str] = set()
    used: set[str] = set()
    for path in (ROOT / "fusion_core").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                defined.add(node.name)
            elif isinstance(node, ast.Attribute):
                ours = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
                (defined if ours and isinstance(node.ctx, ast.Store) else used).add(node.attr)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                defined.add(node.id)
    return {n for n in used - defined if n.startswith("_") and not n.startswith("__")}


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch_is_read(switch: str) -> None:
    assert f"self.{switch}" in inspect.getsource(Trainer), f"Trainer no longer reads {switch}"


@pytest.fixture
def own_accelerator() -> Iterator[None]:
    """A process knows one precision: this one begins and ends without."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("own_accelerator")
@pytest.mark.parametrize("kind", ["llama", "gpt2", "mamba"])
def test_mixed_precision_keeps_the_plain_forward(kind: str) -> None:
    network: Any = tiny.network(kind)
    before = network.forward
    prepared = Accelerator(cpu=True, mixed_precision="bf16").prepare_model(network)
    assert "_original_forward" in vars(prepared), "accelerate keeps the forward elsewhere"
    assert prepared.forward != before == vars(prepared)["_original_forward"]


def test_private_state_is_where_it_is_looked_for(tmp_path: Path) -> None:
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    args._n_gpu = 7
    assert args.n_gpu == 7, "TrainingArguments.n_gpu no longer reads _n_gpu"
    asked = type("Config", (), {"is_zero3": lambda self: True})()
    deepspeed.set_hf_deepspeed_config(asked)
    try:
        assert attrgetter("_hf_deepspeed_config_weak_ref")(deepspeed)() is asked
    finally:
        deepspeed.unset_hf_deepspeed_config()
    assert deepspeed._hf_deepspeed_config_weak_ref is None


def test_a_step_is_logged_before_it_is_evaluated_and_saved() -> None:
    """The loss is checked where it is logged; what follows must not come first."""
    source = inspect.getsource(Trainer._maybe_log_save_evaluate)
    order = [source.index(f"self.{name}(") for name in ("log", "_evaluate", "_save_checkpoint")]
    assert order == sorted(order)
    assert source.index("self._save_checkpoint(") < source.index("on_save(")
