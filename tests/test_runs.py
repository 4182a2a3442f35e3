"""Runs: a folder, a worker, and what anybody sees of them, also when it is killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import launched
from run_workers import checkpoint_model, timeless, until, watched, weights, worker_of
from short_runs import write_texts

from fusion_core import cli, models, runs
from fusion_core.config import RunConfig
from fusion_core.errors import InputError
from fusion_core.runs import folder as folders


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> RunConfig:
    """A run of two sources that takes some seconds, with many checkpoints."""
    folder = write_texts(tmp_path_factory.mktemp("texts"), 4000, 1000)
    return RunConfig.of(
        {
            "target": "zoo:llama",
            "sources": ["zoo:mpt-code", "zoo:gpt2-story"],
            "data": str(folder / "data.txt"),
            "eval_data": {"held out": str(folder / "held-out.txt")},
            "eval_every": 10,
            "keep": "best",
            "max_steps": 40,
            "batch_size": 2,
            "block_size": 128,
            "learning_rate": 1e-3,
            "checkpoint_steps": 5,
            "checkpoint_seconds": 0,
        }
    )


@pytest.fixture(scope="module")
def undisturbed(config, tmp_path_factory) -> tuple[Path, list[tuple[str, str]], float]:
    """Run once in a worker: the folder, all that its status said, the seconds it took."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    began = time.monotonic()
    said = [(s.state, s.stage) for s in watched(runs.start(config, folder), folder)]
    return folder, said, time.monotonic() - began


def test_a_worker_goes_through_its_stages(undisturbed, config) -> None:
    folder, said, _ = undisturbed
    states = list(dict.fromkeys(state for state, _ in said))
    assert states == ["starting", "preparing", "training", "finished"]
    now = runs.status(folder)
    assert now.step == now.max_steps == 40 and now.seconds_left == 0 and now.result
    assert now.result["bits_per_byte"]["after"] < now.result["bits_per_byte"]["before"]
    lines = runs.metrics(folder)
    assert [x["step"] for x in lines if "loss" in x] == list(range(1, 41))
    assert list(runs.follow(folder)) == lines
    assert RunConfig.read(folder / "config.yaml") == config
    made_with = (folder / "config.yaml").read_text().partition("made_with")[2]
    assert torch.__version__ in made_with
    assert {f.name for f in (folder / "checkpoints").iterdir()} == {
        "checkpoint-35",
        "checkpoint-40",
    }


def test_shell_and_library_see_the_same(undisturbed, tmp_path, capsys) -> None:
    folder, _, _ = undisturbed
    again = ["train", "--config", str(folder / "config.yaml"), "--out", str(folder)]
    assert cli.main([*again, "--resume", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    result = runs.status(folder).result
    assert result and {k: printed[k] for k in result} == json.loads(json.dumps(result))
    assert printed["step"] == 40 and printed["loss"] == runs.metrics(folder)[-2]["loss"]
    assert cli.main(again) == 2
    assert "resume the run in it" in capsys.readouterr().err
    with pytest.raises(InputError, match="nothing to resume"):
        runs.resume(folder)
    with pytest.raises(InputError, match="nothing to stop"):
        runs.stop(folder)


@pytest.mark.parametrize(
    "kills", [20, pytest.param(50, marks=pytest.mark.slow)], ids=["20 kills", "50 kills"]
)
def test_a_killed_run_ends_as_an_undisturbed_one(undisturbed, config, tmp_path, kills) -> None:
    expected, _, seconds = undisturbed
    folder = tmp_path / "run"
    moments = random.Random(7 + kills)
    runs.start(config, folder)
    killed = 0
    for n in range(kills):
        if n % 3 == 0:  # at any time since the start
            time.sleep(moments.random() * seconds / 2)
        else:  # some steps from where it goes on
            step = runs.status(folder).step
            goal = step + moments.randint(1, max(1, (40 - step) // (kills - n)))
            until(lambda goal=goal: not (s := runs.status(folder)).live or s.step >= goal)
            time.sleep(moments.random() * 0.1)
        now = runs.status(folder)
        if not now.live:
            break
        os.kill(worker_of(folder), signal.SIGKILL)
        killed += 1
        until(lambda: not runs.status(folder).live)
        seen = runs.status(folder)
        if seen.state == "finished":
            break
        assert seen.state == "interrupted" and seen.step >= now.step
        assert runs.list_runs(tmp_path)[folder].state == "interrupted"
        assert runs.resume(folder).live
    assert killed
    assert watched(runs.status(folder), folder)[-1].state == "finished"
    assert weights(folder) == weights(expected)
    assert timeless(folder) == timeless(expected)


def test_what_is_half_written_is_not_taken_for_whole(undisturbed, config, tmp_path) -> None:
    """As if it had been killed after the last step, in the midst of all its writing."""
    expected, _, _ = undisturbed
    folder = tmp_path / "run"
    subprocess.run(["cp", "-r", str(expected), str(folder)], check=True)
    for gone in ("model/README.md", "checkpoints/checkpoint-40/complete.json"):
        (folder / gone).unlink()
    (folder / "model").rename(folder / ".model.part")
    torn = folder / "checkpoints" / "checkpoint-40" / "optimizer.pt"
    torn.write_bytes(torn.read_bytes()[:100])
    with (folder / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 41, "lo')
    folders.write_status(folder, replace(runs.status(folder), state="training", result=None))
    assert runs.status(folder).state == "interrupted"
    result = runs.run(config, folder, resume=True)
    assert result["steps"] == 40
    assert weights(folder) == weights(expected)
    assert timeless(folder) == timeless(expected)
    assert (folder / "model" / "README.md").is_file()


@pytest.mark.parametrize("keep", ["last", "best"])
def test_a_run_killed_after_its_last_step(config, tmp_path, keep: str) -> None:
    folder = tmp_path / "run"
    one = config.replace(keep=keep, max_steps=7, eval_every=2)  # ends within an epoch
    runs.run(one, folder)
    expected = weights(folder)
    subprocess.run(["rm", "-r", str(folder / "model")], check=True)
    folders.write_status(folder, replace(runs.status(folder), state="training", result=None))
    result = runs.run(one, folder, resume=True)
    assert result["steps"] == 7 and weights(folder) == expected


def test_stop_and_resume(undisturbed, config, tmp_path) -> None:
    expected, _, _ = undisturbed
    folder = tmp_path / "run"
    runs.start(config, folder)
    until(lambda: runs.status(folder).step >= 3)
    runs.stop(folder)
    began = time.monotonic()
    until(lambda: not runs.status(folder).live)
    assert time.monotonic() - began < 3
    now = runs.status(folder)
    assert now.state == "stopped" and 3 <= now.step < 40 and not (folder / "model").exists()
    runs.resume(folder)
    assert watched(runs.status(folder), folder)[-1].state == "finished"
    assert weights(folder) == weights(expected)


def test_a_stop_asked_at_once_is_heard(config, tmp_path) -> None:
    folder = tmp_path / "run"
    runs.start(config, folder)
    runs.stop(folder)
    assert watched(runs.status(folder), folder)[-1].state == "stopped"


def test_sigterm_writes_a_checkpoint(config, tmp_path) -> None:
    folder = tmp_path / "run"
    runs.start(config.replace(checkpoint_seconds=3600), folder)
    until(lambda: runs.status(folder).step >= 2)
    os.kill(worker_of(folder), signal.SIGTERM)
    now = watched(runs.status(folder), folder)[-1]
    assert now.state == "stopped"
    assert [f.name for f in (folder / "checkpoints").iterdir()] == [f"checkpoint-{now.step}"]


def test_a_live_run_is_left_alone(config, tmp_path, capsys) -> None:
    folder, config = tmp_path / "run", config.replace(max_steps=2000, eval_every=500)
    runs.start(config, folder)
    until(lambda: runs.status(folder).state == "training")
    arguments = ["--config", str(folder / "config.yaml"), "--out", str(folder), "--resume"]
    assert cli.main(["train", *arguments]) == 2
    error = capsys.readouterr().err
    assert "is live" in error and error.count("\n") == 1
    with pytest.raises(InputError, match="nothing to resume"):
        runs.resume(folder)
    with pytest.raises(InputError, match="is live"):
        runs.start(config, folder)
    # many who look do not hide the worker from one another
    states: list[str] = []
    looks = [
        threading.Thread(target=lambda: states.extend(runs.status(folder).state for _ in range(5)))
        for _ in range(8)
    ]
    for look in looks:
        look.start()
    for look in looks:
        look.join()
    assert set(states) == {"training"}
    runs.stop(folder)
    watched(runs.status(folder), folder)


def test_a_finished_or_failed_folder_shows_why(config, tmp_path, capsys) -> None:
    bad = config.replace(data=str(tmp_path / "none.txt"))
    runs.start(bad, tmp_path / "a")
    now = watched(runs.status(tmp_path / "a"), tmp_path / "a")[-1]
    assert now.state == "failed" and "none.txt" in now.message
    # nothing was made, so that the folder can be used with better settings
    (tmp_path / "none.txt").write_text("def add(a, b):\n    return a + b\n")
    assert runs.run(bad.replace(max_steps=1), tmp_path / "a")["steps"] == 1
    with pytest.raises(InputError, match=r"other settings \(max_steps: 1, not 2\)"):
        runs.run(bad.replace(max_steps=2), tmp_path / "a", resume=True)
    with pytest.raises(InputError, match="no run at"):
        runs.status(tmp_path / "b")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "status.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        runs.status(tmp_path / "c")
    assert list(runs.list_runs(tmp_path)) == [tmp_path / "a"]
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "letter.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds letter\.txt"):
        runs.start(config, tmp_path / "d")
    assert [f.name for f in (tmp_path / "d").iterdir()] == ["letter.txt"]


FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)
from fusion_core.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("limit", "said"), [(30_000, "cannot"), (1_500_000, "The checkpoint of step")]
)
def test_a_full_disk_ends_in_one_sentence(config, tmp_path, limit: int, said: str) -> None:
    folder = tmp_path / "run"
    (tmp_path / "run.yaml").write_text(config.to_yaml())
    command = ["train", "--config", str(tmp_path / "run.yaml"), "--out", str(folder)]
    ran = subprocess.run(
        [sys.executable, "-c", FULL, str(limit), *command],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2, ran.stderr
    errors = [x for x in ran.stderr.splitlines() if x.startswith("fusion_core: ")]
    assert len(errors) == 1 and said in errors[0] and "room" in errors[0]
    assert "Traceback" not in ran.stderr
    assert runs.status(folder).state == "failed"
    assert not list((folder / "checkpoints").glob("*")) and not (folder / "model").exists()
    # with room again it goes on
    assert cli.main([*command, "--resume"]) == 0


def test_a_loss_that_is_no_number_keeps_the_last_good_checkpoint(config, tmp_path) -> None:
    folder = tmp_path / "run"
    bad = config.replace(
        learning_rate=3e18,
        warmup=1.0,
        max_grad_norm=1e30,
        checkpoint_steps=1,
        eval_every=None,
        keep="last",
    )
    with pytest.raises(InputError, match="lower learning_rate"):
        runs.run(bad, folder)
    now = runs.status(folder)
    assert now.state == "failed" and "is no number" in now.message
    kept = [f for f in (folder / "checkpoints").iterdir() if (f / "complete.json").is_file()]
    for checkpoint in kept:
        network = models.load(str(checkpoint_model(checkpoint, tmp_path))).network
        assert all(torch.isfinite(p).all() for p in network.parameters())


def test_two_processes_are_one_run(config, tmp_path) -> None:
    """Half the batch in each of two: the same curve, and the same rows."""
    config = config.replace(eval_every=None, keep="last", max_steps=8)
    alone, together = tmp_path / "alone", tmp_path / "together"
    runs.run(config, alone)
    half = config.replace(batch_size=1)
    (tmp_path / "run.yaml").write_text(half.to_yaml())
    command = ["-m", "fusion_core", "train", "--json", "--config"]
    ran = launched(*command, str(tmp_path / "run.yaml"), "--out", str(together))
    assert json.loads(ran.stdout)["steps"] == 8
    one, two = runs.metrics(alone), runs.metrics(together)
    assert len(one) == len(two) == 8
    for name in ("loss", "clm", "fusion", "grad_norm"):
        assert [x[name] for x in two] == pytest.approx([x[name] for x in one], rel=1e-4)
    assert [x["tokens"] for x in two] == [x["tokens"] for x in one]
    # the same cache, read by both
    (tmp_path / "cached.yaml").write_text(
        half.replace(cache=str(alone / "cache"), data=None).to_yaml()
    )
    launched(*command, str(tmp_path / "cached.yaml"), "--out", str(tmp_path / "cached"))
    three = runs.metrics(tmp_path / "cached")
    assert [x["loss"] for x in three] == pytest.approx([x["loss"] for x in one], rel=1e-4)


def test_the_estimate_is_near_what_it_takes(config, undisturbed, capsys, tmp_path) -> None:
    _, _, seconds = undisturbed
    (tmp_path / "run.yaml").write_text(config.to_yaml())
    command = ["train", "--config", str(tmp_path / "run.yaml"), "--estimate", "--json"]
    assert cli.main(command) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["how"] == "measured" and said["steps"] == 40
    assert said["parameters"] == said["trained"] == 983_168
    total = said["preparing_seconds"] + said["training_seconds"]
    assert total < 10 * seconds and seconds < 10 * total + 20
    assert not (tmp_path / "runs").exists()
