"""The wheel, built and installed in an empty folder: what is in it, and that it works there."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_notebooks import FOLDER, cells

ROOT = Path(__file__).parent.parent
SOURCES = ("app", "fusion_core", "pyproject.toml", "setup.py", "README.md", "LICENSE")


def run(*command: str, cwd: Path, path: Path | None = None) -> str:
    """Run Python in a folder, with packages of another one first; its output."""
    ran = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(path or "")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which the wheel of this code is installed, and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "sources").mkdir()
    for name in SOURCES:
        place = folder / "sources" / name
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, place)
    (folder / "sources" / "app" / "components" / "panel.pyi").touch()  # as gradio does
    quietly = ("-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input")
    alone = ("--no-deps", "--no-index")
    run(*quietly, "wheel", *alone, "--no-build-isolation", "-w", "..", ".", cwd=folder / "sources")
    (wheel,) = folder.glob("*.whl")
    run(*quietly, "install", *alone, "--target", "installed", str(wheel), cwd=folder)
    shutil.rmtree(folder / "sources")
    return folder / "installed"


def files(folder: Path) -> set[str]:
    """Every file of a folder that is code or data."""
    found = (f.relative_to(folder) for f in folder.rglob("*") if f.is_file())
    return {f.as_posix() for f in found if f.suffix != ".pyc" and not f.name.startswith(".")}


def test_the_wheel_has_all_of_both_packages_and_no_other(installed: Path) -> None:
    packages = {f.name for f in installed.iterdir() if f.suffix != ".dist-info"}
    assert packages == {"bin", "fusion_core", "fuselab_app"}
    assert files(installed / "fusion_core") == files(ROOT / "fusion_core")
    needed = {f for f in files(ROOT / "app") if f.endswith((".py", ".js", ".css"))}
    assert files(installed / "fuselab_app") == needed
    assert "py.typed" in files(installed / "fusion_core")
    assert len(list(installed.glob("fusion_core/zoo/*/model.safetensors"))) == 4


def test_commands_run_where_nothing_else_is(installed: Path, tmp_path: Path) -> None:
    found = importlib.metadata.distributions(path=[str(installed)])
    scripts = {s.name: s.value for d in found for s in d.entry_points}
    assert scripts == {
        "fuselab": "fusion_core.cli:main",
        "fuselab-app": "fuselab_app.__main__:main",
    }
    shown = run(str(installed / "bin" / "fuselab"), "--help", cwd=tmp_path, path=installed)
    assert "map-vocab" in shown and not list(tmp_path.iterdir())
    code = (
        "from fusion_core import models; from fuselab_app import __main__, ui; ui.build();"
        "print(ui.__file__, models.load('zoo:llama').context)"
    )
    shown = run("-c", code, cwd=tmp_path, path=installed)
    assert shown.startswith(str(installed / "fuselab_app")) and shown.endswith(" 512\n")


NEWCOMER = """
import fusion_core as fl

text = "def add(a, b):"
target, *sources = fl.load("zoo:llama"), fl.load("zoo:gpt2-story"), fl.load("zoo:mpt-code")
reading = fl.read(text, target, sources)
groups = reading.alignment("zoo:mpt-code").to_frame()
fused = reading.project("prefix").fuse("min_ce", level="token", top_k=10)
table = fused.to_frame()
operators, mappings = fl.compare_operators(reading), fl.compare_mappings(reading)
written = fl.generate(target, sources, text, sampling=fl.Sampling(max_new_tokens=3))
result = fl.train("run.yaml", "runs/first")
figure = fl.plots.winner_figure(fl.analyze(target, sources, text, fl.FusionConfig()))

assert list(groups.columns) == ["kind", "start", "end", "target", "source"]
assert {"token", "start", "end", "winner", "top", "p", "nats"} < set(table.columns)
assert [c for c in table.columns if c.startswith("kept ")] == [f"kept {s.name}" for s in sources]
assert len(operators) == 7 and len(mappings["zoo:mpt-code"]) == 6 and written["ensemble"]
assert result["steps"] == 2 and figure.data
for record in (target, reading, reading.project("exact"), fused, fused.fused, groups is None):
    assert "\\n" not in repr(record) and len(repr(record)) < 200, record
print(fl.__file__)
"""


def test_a_newcomers_lines_run_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "docs.txt").write_text("def add(a, b):\n    return a + b\n" * 8, "utf-8")
    settings = "target: zoo:llama\nsources: [zoo:mpt-code]\ndata: docs.txt\nmax_steps: 2\n"
    (tmp_path / "run.yaml").write_text(settings + "block_size: 32\nbatch_size: 2\n", "utf-8")
    shown = run("-c", NEWCOMER, cwd=tmp_path, path=installed)
    assert shown.splitlines()[-1].startswith(str(installed / "fusion_core"))
    assert (tmp_path / "runs" / "first" / "model" / "config.json").is_file()


def test_a_notebook_needs_nothing_else(installed: Path, tmp_path: Path) -> None:
    """On Colab the first cell installs the wheel; there is no repository."""
    code = [c for c in cells(FOLDER / "01_first_look.ipynb", "code") if "%pip" not in c]
    shown = run("-c", "\n".join([*code, "print(fl.__file__)"]), cwd=tmp_path, path=installed)
    assert shown.splitlines()[-1].startswith(str(installed / "fusion_core"))
