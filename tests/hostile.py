"""Hostile files: models, tokenizers and tables that are larger than they look, or that lie."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tiny
import torch
from safetensors.torch import save_file

ROOT = Path(__file__).parent.parent

PEAK = """
import resource, sys
sys.path.insert(0, {root!r})
from fusion_core.errors import FusionError
{setup}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    {call}
    said = ""
except FusionError as error:
    said = str(error)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print("\\n" + str(grown) + " " + said)
"""


def grown_by(setup: str, call: str, *, timeout: float = 120) -> tuple[float, str]:
    """Run a call in a process of its own.

    Args:
        setup: imports, and whatever takes memory that is not the call's.
        call: one statement.
        timeout: seconds.

    Returns:
        MB by which its peak grew, and the sentence that it was refused with.
    """
    script = PEAK.format(root=str(ROOT), setup=setup, call=call)
    ran = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    grown, _, said = ran.stdout.strip().rpartition("\n")[2].partition(" ")
    return int(grown) / 1000, said


def empty_model(folder: Path, kind: str, **sizes: Any) -> str:
    """Write a model whose weights hold next to nothing, whatever its configuration says."""
    folder.mkdir(parents=True, exist_ok=True)
    tiny.byte_bpe().save_pretrained(folder)
    tiny.config(kind, **sizes).save_pretrained(folder)
    save_file({"w": torch.ones(8)}, folder / "model.safetensors", {"format": "pt"})
    return str(folder)


def with_config(folder: str, **values: Any) -> str:
    """Change config.json by hand."""
    file = Path(folder, "config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    return folder


@contextmanager
def served(limits: Any) -> Iterator[tuple[str, Any]]:
    """Serve the app with some limits in this process: its address, and the page's state."""
    from app import ui
    from app.state import AppState

    state = AppState(limits)
    demo = ui.build(state)
    options = ui.launch_options(limits)
    _, address, _ = demo.launch(
        prevent_thread_lock=True, server_name="127.0.0.1", quiet=True, **options
    )
    yield address.rstrip("/"), state
    demo.close()
