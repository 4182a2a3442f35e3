"""Notebooks: what each of them must have; nbmake runs them, solutions included.

`pytest tests/test_notebooks.py notebooks` does both: the
conftest here shows the library to their kernels.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MAX_LINES = 25
MAX_MINUTES = 45
SAYS = ("**You will**", "**Time**", "**Hardware**", "**Predict", "## Recap", "**Sources**")


def cells(path: Path, kind: str, tag: str | None = None) -> list[str]:
    """Return the sources of a notebook's cells of one kind, or of those with a tag."""
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return [
        "".join(cell["source"])
        for cell in notebook["cells"]
        if cell["cell_type"] == kind and (tag is None or tag in cell["metadata"].get("tags", ()))
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_has_what_a_class_needs(path: Path) -> None:
    prose = "\n\n".join(cells(path, "markdown"))
    assert not [words for words in SAYS if words not in prose]
    assert int(re.search(r"\*\*Time\*\* (\d+) minutes", prose)[1]) <= MAX_MINUTES
    assert f"/notebooks/{path.name})" in prose.partition("\n## ")[0]  # the badge opens this one
    assert len(cells(path, "code", "install")) == 1
    assert "guess" in "".join(cells(path, "code"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_exercises_are_stubs_with_a_check_and_a_folded_solution(path: Path) -> None:
    code, solutions = cells(path, "code"), cells(path, "code", "solution")
    stubs = [c for c in code if "raise NotImplementedError" in c]
    assert len(stubs) == len(solutions) == 2
    for stub, solution in zip(stubs, solutions, strict=True):
        check = re.search(r"^(check_\w+)\((\w+)\)$", stub, re.M)
        assert check, stub
        assert re.search(rf"= {check[1]}\(|^assert {check[1]}\(", solution, re.M), solution
        assert re.search("^assert .*right", solution, re.M), solution


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_cells_are_short_and_without_outputs(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"], cell["id"]
            assert cell["execution_count"] is None
            assert len(cell["source"]) <= MAX_LINES, cell["source"][0]
    for name in re.findall(r"\]\((figures/[^)]+)\)", path.read_text(encoding="utf-8")):
        assert (FOLDER / name).is_file(), name


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_needs_no_file_of_the_repository(path: Path) -> None:
    code = "\n".join(cells(path, "code"))
    assert "sys.path" not in code
    assert not re.search(r"\.\./|parents\[|chdir", code)


def test_all_notebooks_are_installed_from_one_address() -> None:
    assert len({cells(path, "code", "install")[0] for path in NOTEBOOKS}) == 1
    badges = [cells(path, "markdown")[0] for path in NOTEBOOKS]
    assert len({re.search(r"research\.google\.com/github/(\S+)/blob", b)[1] for b in badges}) == 1


def test_the_learn_tab_and_the_documentation_name_all_notebooks() -> None:
    from app.tabs.learn.view import notebooks

    listed = (FOLDER.parent / "docs" / "notebooks.md").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        title = cells(path, "markdown")[0].splitlines()[0].removeprefix("# ")
        assert f"**{title}**: `notebooks/{path.name}`" in notebooks()
        minutes = re.search(r"\*\*Time\*\* (\d+) minutes", "\n".join(cells(path, "markdown")))[1]
        assert f"[{title}](../notebooks/{path.name}) | {minutes} |" in listed
