"""What visitors upload and make: limited in size, and gone when they say so or have left.

400 MB were accepted on a Space and never deleted; after "Delete for good?" the text and the model
still came from their addresses.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio.processing_utils import save_file_to_cache
from gradio.utils import get_upload_folder
from hostile import served
from trainings import FORM, planned

from app.limits import Limits
from app.tabs.train.page import SURE, Board, Page
from app.training import queue, store
from app.training.store import JobStore
from fusion_core import runs
from fusion_core.config import RunConfig
from fusion_core.runs import RunStatus

SPACE = Limits(local_folders=False, data_bytes=100_000, kept_seconds=3000)


@pytest.fixture(autouse=True)
def spawns_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(config: RunConfig, folder: Path) -> RunStatus:
        return RunStatus()

    monkeypatch.setattr(runs, "start", start)
    monkeypatch.setattr(queue.JobQueue, "wake", lambda self: None)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Any]]:
    """A Space of its own, with folders of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSELAB_RUNS", str(tmp_path_factory.mktemp("runs")))
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        with served(SPACE) as found:
            yield found


def upload(address: str, name: str, content: bytes) -> httpx.Response:
    files = {"files": (name, content)}
    return httpx.post(f"{address}/gradio_api/upload", files=files, timeout=30)


def fetched(address: str, path: str | Path) -> int:
    return httpx.get(f"{address}/gradio_api/file={path}", timeout=30).status_code


@pytest.mark.parametrize("name", ["text.txt", "text.jsonl", "text.parquet"])
def test_uploads_have_a_limit(space: tuple[str, Any], name: str) -> None:
    address, _ = space
    assert upload(address, name, b"x" * 100_000).status_code == 200
    assert upload(address, name, b"x" * 100_001).status_code == 413
    assert upload(address, name, b"x" * 5_000_000).status_code == 413


def finished(jobs: JobStore, key: str, **form: Any) -> Any:
    """Make a training that is finished."""
    job = jobs.create(key, planned(replace(FORM, **form)), "cpu")
    for part in job.parts:
        job.wait(part).unlink()
        model = job.run(part) / "model"
        model.mkdir(parents=True)
        (model / "model.safetensors").write_bytes(os.urandom(1000))
        runs.folder.write_status(job.run(part), RunStatus(state="finished", result={}))
        (job.run(part) / "metrics.jsonl").write_bytes(b"")
        (job.run(part) / "config.yaml").write_bytes(job.settings(part).read_bytes())
    return job


def test_deleted_means_gone_from_every_address(
    space: tuple[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, state = space
    page = Page(state, JobStore(SPACE, tmp_path / "runs"), Board(*[None] * 14))  # type: ignore[list-item]
    key = store.new_key()
    sent = upload(address, "mine.txt", b"a text of mine, and no other. " * 20).json()[0]
    job = finished(page.jobs, key, file=sent)
    made = page.jobs.downloads.prepare(job)
    copies = [save_file_to_cache(file, get_upload_folder()) for file in made]
    assert {Path(c).name for c in copies} >= {"run.zip", "fused-model.zip", "metrics.csv"}
    assert [fetched(address, path) for path in (sent, *copies)] == [200] * (1 + len(copies))
    other = upload(address, "other.txt", b"another text").json()[0]
    page.delete(key, job.id, {}, SURE)
    assert [fetched(address, path) for path in (sent, *copies)] == [403] * (1 + len(copies))
    assert not job.folder.exists() and not any(Path(file).exists() for file in made)
    assert fetched(address, other) == 200
    assert not [f for f in (tmp_path / "runs").rglob("*") if f.is_file()]


def test_runs_are_deleted_an_hour_after_their_end(tmp_path: Path) -> None:
    jobs, key = JobStore(SPACE, tmp_path), store.new_key()
    old, young, live = (finished(jobs, key) for _ in range(3))
    jobs.downloads.prepare(old)
    live.wait("fused").touch()
    then = time.time() - 3001
    for job in (old, live):
        for file in job.folder.rglob("status.json"):
            os.utime(file, (then, then))
        values = (job.folder / "job.json").read_text().replace(f"{job.created}", f"{then}")
        (job.folder / "job.json").write_text(values)
    os.utime(jobs.downloads.files(old.id)[0].parent, (then, then))
    jobs.sweep()
    assert {j.id for j in jobs.list(key)} == {young.id, live.id}
    assert not old.folder.exists() and not jobs.downloads.files(old.id)


def test_nothing_is_swept_where_nobody_else_comes(tmp_path: Path) -> None:
    jobs, key = JobStore(Limits(), tmp_path), store.new_key()
    job = finished(jobs, key)
    os.utime(job.folder / "job.json", (0, 0))
    jobs.sweep()
    assert jobs.list(key)


def test_uploads_are_deleted_an_hour_after_they_came(space: tuple[str, Any]) -> None:
    """Looked for by gradio, in the page that is served."""
    from gradio.route_utils import delete_files_created_by_app

    from app import ui

    address, state = space
    demo = ui.build(state)
    frequency, age = demo.delete_cache
    assert frequency + age <= 3600
    sent = Path(upload(address, "old.txt", b"old").json()[0])
    demo.upload_file_set.add(str(sent))
    delete_files_created_by_app(demo, age)
    assert sent.exists()
    delete_files_created_by_app(demo, -1)
    assert not sent.exists()
    assert fetched(address, sent) == 403


def test_an_upload_that_has_gone_is_one_sentence(tmp_path: Path) -> None:
    from app.training import data
    from fusion_core.errors import FusionError

    for name in ("gone.txt", "gone.jsonl", "gone.parquet"):
        form = replace(FORM, file=str(tmp_path / name), domains=())
        with pytest.raises(FusionError, match="Your file") as caught:
            data.read(form, SPACE)
        assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("path", ["", "/summary", "/similar"])
def test_nobody_sees_how_many_come(space: tuple[str, Any], path: str) -> None:
    """The summary of all visitors' calls was there for everybody."""
    found = httpx.get(f"{space[0]}/monitoring{path}", timeout=30, follow_redirects=True)
    assert found.status_code == 403
