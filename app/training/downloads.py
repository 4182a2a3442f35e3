"""What a visitor takes home of a training: models, settings with their text, metrics; and how."""

from __future__ import annotations

import csv
import shutil
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fusion_core import runs
from fusion_core.config import RunConfig
from fusion_core.errors import InputError
from fusion_core.training import versions

from .job import Job

NAMES = {"fused": "run.yaml", "baseline": "baseline.yaml"}


class Downloads:
    """Files of trainings that are to be fetched, in a temporary folder of this process."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._folder = tempfile.TemporaryDirectory(prefix="fuselab-")

    def files(self, id_: str) -> list[Path]:
        """Return what has been prepared of a training."""
        return sorted((Path(self._folder.name) / id_).glob("*"))

    def forget(self, id_: str) -> None:
        """Remove what has been prepared of a training."""
        shutil.rmtree(Path(self._folder.name) / id_, ignore_errors=True)

    def forget_older(self, seconds: float) -> None:
        """Remove what was prepared so long ago."""
        for folder in Path(self._folder.name).iterdir():
            with suppress(OSError):
                if time.time() - folder.stat().st_mtime > seconds:
                    self.forget(folder.name)

    def prepare(self, job: Job) -> list[str]:
        """Write a training's files.

        Returns:
            Paths: a zip with settings and text, metrics as CSV, a zip of each trained model.

        Raises:
            InputError: the disk is full.
        """
        folder = Path(self._folder.name) / job.id
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            files = [_settings(job, folder), _metrics(job, folder)]
            for part, now in job.statuses().items():
                if now.state == "finished":
                    files.append(_model(job.run(part) / "model", folder, part))
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise InputError(
                f"The files cannot be written ({error.strerror or error}): make room on the "
                "server's disk."
            ) from error
        return [str(file) for file in files]


def portable(config: RunConfig) -> str:
    """Write settings as YAML that finds its text beside itself."""
    names = {name: Path(path).name for name, path in config.eval_data.items()}
    beside = config.replace(data=Path(config.data or "").name, eval_data=names)
    return beside.to_yaml(versions())


def _settings(job: Job, folder: Path) -> Path:
    file = folder / "run.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for part in job.parts:
            packed.writestr(NAMES[part], portable(job.config(part)))
        for text in sorted(job.folder.glob("*.jsonl")):
            packed.write(text, text.name)
    return file


def _metrics(job: Job, folder: Path) -> Path:
    file = folder / "metrics.csv"
    rows = metrics_table({part: runs.metrics(job.run(part)) for part in job.parts})
    with file.open("w", encoding="utf-8-sig", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return file


def metrics_table(metrics: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[list[Any]]:
    """List the metrics of a training's parts for a spreadsheet, heads first."""
    lines = [(part, x) for part, some in metrics.items() for x in some]
    texts = list(dict.fromkeys(t for _, x in lines for t in x.get("bits_per_byte", ())))
    plain = ["step", "tokens", "loss", "clm", "fusion", "learning_rate", "seconds"]
    heads = ["part", *plain, "mean bits per byte", *(f"bits per byte: {t}" for t in texts)]
    return [heads] + [
        [part, *(x.get(k, "") for k in plain), x.get("mean_bits_per_byte", "")]
        + [x.get("bits_per_byte", {}).get(t, "") for t in texts]
        for part, x in lines
    ]


def _model(model: Path, folder: Path, part: str) -> Path:
    file = folder / f"{part}-model.zip"
    # Weights do not get smaller by packing.
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as packed:
        for path in sorted(model.iterdir()):
            packed.write(path, f"{part}-model/{path.name}")
    return file


def snippet(job: Job, finished: Mapping[str, Any], local: bool) -> str:
    """Write Python that loads the model and repeats the run.

    Args:
        job: the training.
        finished: keys are its parts that are finished.
        local: whether the page and its reader share a disk.
    """
    part = "fused" if "fused" in finished or "baseline" not in finished else "baseline"
    model = str(job.run(part) / "model") if local else f"{part}-model"
    config = str(job.settings(part)) if local else NAMES[part]
    where = "" if local else "# unpack run.zip and the model's zip beside this notebook first\n"
    return f"""{where}from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({model!r})
model = AutoModelForCausalLM.from_pretrained({model!r})
prompt = tokenizer("It was summer when", return_tensors="pt")
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=40)[0]))

# the same run once more
from fusion_core import runs
from fusion_core.config import RunConfig

runs.run(RunConfig.read({config!r}), "again")
print(runs.status("again").result["bits_per_byte"])
"""
