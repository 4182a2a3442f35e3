"""Trainings of visitors: keys, limits, the queue, and everything that a page may send."""

from __future__ import annotations

import json
import pickle
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from trainings import FORM, ONCE, planned, states, until

from app.compute import train as computing
from app.limits import Limits
from app.tabs.train import layout, view
from app.training import data, downloads, job, queue, store
from app.training.store import JobStore
from fusion_core import runs
from fusion_core.config import RunConfig
from fusion_core.errors import InputError
from fusion_core.runs import RunStatus

HOSTILE = [
    None, "", 3, {"a": 1}, ["x"], "../../etc/passwd", "..", "/etc", "a" * 10_000, "0" * 16 + "/..",
    "<img src=x>", "\0", "0123456789abcde\n", "٠" * 16, "f" * 32,
]  # fmt: skip


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Let nothing be spawned; what would have been started is listed."""
    started: list[Path] = []

    def start(config: RunConfig, folder: Path) -> RunStatus:
        started.append(folder)
        return RunStatus()

    monkeypatch.setattr(runs, "start", start)
    monkeypatch.setattr(queue.JobQueue, "wake", lambda self: None)
    return started


# Visitors ---------------------------------------------------------------------------------------


def test_two_visitors(begun: list[Path], tmp_path: Path) -> None:
    found, one, two = JobStore(root=tmp_path), store.new_key(), store.new_key()
    first = found.create(one, planned(), "cpu")
    second = found.create(one, planned(replace(FORM, baseline=False)), "cpu")
    assert [j.id for j in found.list(one)] == [second.id, first.id] and found.list(two) == []
    for action in (found.get, found.stop, found.resume, found.delete):
        with pytest.raises(InputError, match="no such run"):
            action(two, first.id)
    assert first.parts == ("fused", "baseline") and second.parts == ("fused",)
    assert states(found, one, first.id) == ["waiting", "waiting"]
    assert second.name.startswith("#2 · llama · code · 4 steps")
    listing = "".join(str(p) for p in tmp_path.rglob("*"))
    assert one not in listing and one not in (first.folder / "job.json").read_text()


def test_hostile_keys_and_ids(begun: list[Path], tmp_path: Path) -> None:
    root = tmp_path / "runs"
    found, key = JobStore(root=root), store.new_key()
    job_ = found.create(key, planned(), "cpu")
    (tmp_path / "job.json").write_bytes((job_.folder / "job.json").read_bytes())
    for bad in HOSTILE:
        assert not store.is_key(bad) or bad == "f" * 32
        assert found.list(bad) == [] and found.trained(bad) == []
        with pytest.raises(InputError):
            found.resolve(bad)
        for action in (found.get, found.stop, found.resume, found.delete):
            with pytest.raises(InputError):
                action(key, bad)
            with pytest.raises(InputError):
                action(bad, job_.id)
    for name in (f"run:{key}/{job_.id}/../..", f"run:{key}/{job_.id}/fused", f"run:{key}/../fused"):
        with pytest.raises(InputError):
            found.resolve(name)
    assert job_.folder.is_dir() and sorted(p.name for p in tmp_path.iterdir()) == [
        "job.json", "runs"
    ]  # fmt: skip


def test_limits_and_deletion(begun: list[Path], tmp_path: Path) -> None:
    found, key = JobStore(Limits(trainings=2), tmp_path), store.new_key()
    first, second = (found.create(key, planned(), "cpu") for _ in range(2))
    with pytest.raises(InputError, match="limit"):
        found.create(key, planned(), "cpu")
    found.create(store.new_key(), planned(), "cpu")
    with pytest.raises(InputError, match="stop it first"):
        found.delete(key, first.id)
    found.stop(key, first.id)
    assert states(found, key, first.id) == ["stopped", "stopped"]
    with pytest.raises(InputError, match="nothing to stop"):
        found.stop(key, first.id)
    found.delete(key, first.id)
    assert found.list(key) == [found.get(key, second.id)] and not first.folder.exists()
    assert [p.name for p in second.folder.parent.iterdir()] == [second.id]
    assert found.create(key, planned(), "cpu").name.startswith("#3 ")


def test_a_full_disk_is_one_sentence(
    begun: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    found, key, made = JobStore(root=tmp_path), store.new_key(), planned()
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match="No space left"):
        found.create(key, made, "cpu")
    assert found.list(key) == [] and not list(tmp_path.rglob("*.part"))


def test_settings_go_through_yaml(begun: list[Path], tmp_path: Path) -> None:
    found, key = JobStore(root=tmp_path), store.new_key()
    form = replace(FORM, lora=True, seed=7, lm_weight=0.25, fusion={"level": "token", "top_k": 3})
    made = found.create(key, planned(form), "cpu")
    fused, baseline = made.config("fused"), made.config("baseline")
    assert fused.lora and fused.seed == 7 and fused.objective.lm_weight == 0.25
    assert fused.fusion.top_k == 3 and fused.max_steps == 4 and fused.eval_every == 1
    assert baseline == fused.baseline() and RunConfig.of(fused.to_mapping()) == fused
    assert Path(fused.data or "").read_text("utf-8") and list(fused.eval_data) == ["code"]
    kept = downloads.Downloads()
    files = kept.prepare(made)
    assert [Path(f).name for f in files] == ["run.zip", "metrics.csv"]
    with zipfile.ZipFile(files[0]) as packed:
        packed.extractall(tmp_path / "home")
        assert set(packed.namelist()) == {
            "run.yaml", "baseline.yaml", data.DATA, "held-out-0.jsonl"
        }  # fmt: skip
        assert str(tmp_path) not in packed.read("run.yaml").decode()
    at_home = RunConfig.read(tmp_path / "home" / "run.yaml")
    assert at_home.data == str(tmp_path / "home" / data.DATA)
    assert at_home.replace(data=fused.data, eval_data=fused.eval_data) == fused
    compile(downloads.snippet(made, {"fused": 1}, local=False), "snippet", "exec")


def test_the_secret_survives_a_restart(tmp_path: Path) -> None:
    first = layout.secret(tmp_path / "runs")
    assert layout.secret(tmp_path / "runs") == first and len(first) == 32
    assert (tmp_path / "runs" / ".secret").stat().st_mode & 0o777 == 0o600


# Trainings whose baseline was called "twin" -----------------------------------------------------


def former(made: job.Job) -> None:
    """Name a training's files as they were named when the baseline was the twin."""
    for path in made.folder.glob("baseline*"):
        path.rename(made.folder / path.name.replace("baseline", "twin"))
    words = json.loads((made.folder / "job.json").read_bytes())
    words["parts"] = ["fused", "twin"]
    words["about"]["twin"] = words["about"].pop("baseline")
    (made.folder / "job.json").write_text(json.dumps(words))


def test_former_trainings_are_listed_started_and_deleted(begun: list[Path], tmp_path: Path) -> None:
    found, key = JobStore(root=tmp_path), store.new_key()
    made = found.create(key, planned(), "cpu")
    assert {p.name for p in made.folder.iterdir()} >= {"baseline.yaml", "baseline.wait"}
    former(made)
    old = JobStore(root=tmp_path).get(key, made.id)
    assert found.list(key) == [old] and old.parts == ("fused", "baseline")
    assert states(found, key, made.id) == ["waiting", "waiting"]
    assert old.config("baseline") == old.config("fused").baseline()
    for _ in range(3):
        found._queue.tick()
    assert begun == [made.folder / "fused", made.folder / "twin"]
    kept = downloads.Downloads()
    with zipfile.ZipFile(kept.prepare(old)[0]) as packed:
        assert {"run.yaml", "baseline.yaml"} <= set(packed.namelist())
    view.keep_samples(old, ["a"], [["b", "c"]], ["before", "baseline"])
    samples = made.folder / view.SAMPLES
    samples.write_text(samples.read_text().replace('"baseline"', '"twin"'))
    assert [part for part, *_ in view.samples(old)[0]["texts"]] == ["before", "baseline"]
    found.delete(key, made.id)
    assert found.list(key) == [] and not made.folder.exists()


def test_former_trainings_stop_go_on_and_can_be_used(tmp_path: Path) -> None:
    found, key = JobStore(Limits(in_event=True, train_seconds=60), tmp_path), store.new_key()
    made = found.create(key, planned(replace(FORM, steps=3)), "cpu")
    former(made)
    found.stop(key, made.id)
    assert states(found, key, made.id) == ["stopped", "stopped"]
    found.resume(key, made.id)
    assert {p.name for p in made.folder.glob("*.wait")} == {"fused.wait", "twin.wait"}
    for _ in found.work(key, made.id):
        pass
    assert states(found, key, made.id) == ["finished", "finished"]
    assert (made.folder / "twin" / "model").is_dir() and not (made.folder / "baseline").exists()
    names = dict(found.trained(key))
    name = next(n for label, n in names.items() if label.endswith("text alone"))
    assert found.resolve(name) == made.folder / "twin" / "model"
    assert found.resolve(name.replace("baseline", "twin")) == found.resolve(name)
    assert found.label(name) == "#1 text alone"
    old = found.get(key, made.id)
    shown = json.loads(view.show(old, view.MetricsReader()).view)
    assert [p["part"] for p in shown["parts"]] == ["fused", "baseline"]
    assert None not in shown["table"][0]
    assert view.writers(old)["baseline"] == str(made.folder / "twin" / "model")
    files = [Path(f).name for f in downloads.Downloads().prepare(old)]
    assert files == ["run.zip", "metrics.csv", "fused-model.zip", "baseline-model.zip"]
    found.delete(key, made.id)
    assert found.list(key) == []


# The queue --------------------------------------------------------------------------------------


def test_turns_are_taken_one_at_a_time(begun: list[Path], tmp_path: Path) -> None:
    found, key = JobStore(root=tmp_path), store.new_key()
    first = found.create(key, planned(), "cpu")
    second = found.create(store.new_key(), planned(), "cpu")
    again = queue.JobQueue(tmp_path, Limits())  # as after a restart
    assert again.tick()
    assert begun == [first.folder / "fused"]
    again.tick()  # the run is no more, as far as its folder says
    again.tick()
    assert begun == [first.folder / "fused", first.folder / "baseline", second.folder / "fused"]
    again.tick()
    assert not again.tick() and len(begun) == 4


def test_a_broken_run_does_not_block_the_queue(begun: list[Path], tmp_path: Path) -> None:
    found = JobStore(root=tmp_path)
    first = found.create(store.new_key(), planned(), "cpu")
    second = found.create(store.new_key(), planned(), "cpu")
    (first.folder / "fused.yaml").write_text("target: [")
    for _ in range(3):
        found._queue.tick()
    assert begun == [first.folder / "baseline", second.folder / "fused"]
    (second.folder.parent / "ffffffffffffffff").mkdir()
    (second.folder / "job.json").write_text("no JSON")
    assert JobStore(root=tmp_path).list(store.new_key()) == []


def test_real_runs_stop_go_on_and_can_be_used(tmp_path: Path) -> None:
    """Also after a restart of the app, which the run outlives."""
    found, key = JobStore(root=tmp_path), store.new_key()
    form = replace(FORM, steps=60, baseline=True)
    made = found.create(key, planned(form), "cpu")
    until(lambda: states(found, key, made.id)[0] == "training")
    again = JobStore(root=tmp_path)
    until(lambda: again.get(key, made.id).status("fused").step >= 3)
    assert states(again, key, made.id) == ["training", "waiting"]
    with pytest.raises(InputError, match="stop it first"):
        again.delete(key, made.id)
    asked = time.monotonic()
    again.stop(key, made.id)
    until(lambda: states(again, key, made.id) == ["stopped", "stopped"])
    assert time.monotonic() - asked < 3
    with pytest.raises(InputError, match="wait until"):
        again.model_folder(key, made.id, "fused")
    for part in made.parts:  # let it be short
        file = made.folder / f"{part}.yaml"
        file.write_text(file.read_text().replace("max_steps: 60", "max_steps: 6"))
    (made.folder / "fused" / "config.yaml").write_text((made.folder / "fused.yaml").read_text())
    again.resume(key, made.id)
    until(lambda: states(again, key, made.id) == ["finished", "finished"])
    label, name = again.trained(key)[0]
    assert label.endswith("fused") and (again.resolve(name) / "model.safetensors").is_file()
    shown = view.show(again.get(key, made.id), view.MetricsReader())
    assert json.loads(shown.view)["table"][0][0] == "code"
    names = [Path(f).name for f in downloads.Downloads().prepare(made)]
    assert names == ["run.zip", "metrics.csv", "fused-model.zip", "baseline-model.zip"]
    again.delete(key, made.id)
    with pytest.raises(InputError):
        again.resolve(name)


def test_a_process_that_starts_is_stopped_at_once(tmp_path: Path) -> None:
    found, key = JobStore(root=tmp_path), store.new_key()
    made = found.create(key, planned(replace(FORM, baseline=False)), "cpu")
    until((made.folder / "fused" / ".pid").exists)
    until(lambda: (made.folder / "fused" / ".pid").read_text() not in ("", "0"))
    asked = time.monotonic()
    found.stop(key, made.id)
    until(lambda: states(found, key, made.id) == ["stopped"])
    assert time.monotonic() - asked < 3


# Inside an event, as on ZeroGPU -------------------------------------------------------------------


def test_in_event_training(tmp_path: Path) -> None:
    found, key = JobStore(Limits(in_event=True, train_seconds=60), tmp_path), store.new_key()
    made = found.create(key, planned(replace(FORM, steps=3)), "cpu")
    assert found._queue._scheduler is None
    seen = [states(found, key, made.id) for _ in found.work(key, made.id)]
    assert states(found, key, made.id) == ["finished", "finished"]
    assert ["finished", "waiting"] in seen or any(s[0] == "finished" for s in seen)
    arguments = (str(made.folder / "fused"), made.config("fused").to_yaml(), 60.0)
    status = made.status("fused")
    assert pickle.loads(pickle.dumps(arguments)) == arguments
    assert pickle.loads(pickle.dumps(status)) == status
    assert pickle.loads(pickle.dumps(ONCE)) == ONCE


def test_closing_the_page_ends_an_event(tmp_path: Path) -> None:
    found, key = JobStore(Limits(in_event=True), tmp_path), store.new_key()
    made = found.create(key, planned(replace(FORM, steps=500)), "cpu")
    work: Iterator[None] = found.work(key, made.id)
    for _ in work:
        if made.status("fused").step:
            break
    asked = time.monotonic()
    work.close()  # type: ignore[attr-defined]
    assert time.monotonic() - asked < 3
    assert made.status("fused").state == "stopped" and made.status("baseline").state == "waiting"
    assert (
        JobStore(Limits(in_event=True), tmp_path).get(key, made.id).status("baseline").state
        == "stopped"
    )


def test_an_event_has_its_time(tmp_path: Path) -> None:
    made = JobStore(Limits(in_event=True), tmp_path).create(store.new_key(), planned(FORM), "cpu")
    config = made.config("fused").replace(max_steps=5000).to_yaml()
    last = list(computing.train(str(made.folder / "fused"), config, 0.4))[-1]
    assert last.state == "stopped" and job.active({"fused": last}) is False
