"""The order of the rooms, read from the imports."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STAGES = {
    "io",
    "corpus",
    "zoo",
    "tokens",
    "align",
    "mapping",
    "models",
    "covers",
    "cache",
    "characters",
    "project",
    "fuse",
    "evaluate",
    "losses",
    "baselines",
}
LEVEL = dict.fromkeys(STAGES, 3) | {
    "__init__": 13,
    "errors": 0,
    "isolated": 0.5,
    "memory": 0,
    "numerics": 0.5,
    "text_display": 0,
    "records": 1,
    "records.reading": 1,
    "config": 2,
    "reading": 4,
    "pipeline": 6,
    "cache.building": 7,
    "generation": 7,
    "benchmark": 7.5,
    "compare": 6.5,
    "reports": 7,
    "plots": 8,
    "training": 8,
    "runs": 9,
    "commands": 10,
    "cli": 11,
    "__main__": 12,
}
BETWEEN_STAGES = {
    *((room, "io") for room in ("mapping", "models", "cache", "baselines")),
    ("tokens", "io"),
    ("mapping", "tokens"),
    ("mapping", "align"),
    ("models", "tokens"),
    ("models", "zoo"),
    ("covers", "models"),
    ("covers", "tokens"),
    ("characters", "tokens"),
    ("project", "align"),
    ("project", "mapping"),
    ("project", "tokens"),
    *(("records.reading", room) for room in ("align", "mapping", "project", "fuse", "tokens")),
}
FACES = {"gradio", "plotly", "app"}
MAY = {"plots": {"plotly"}}


def imported(path: Path) -> set[str]:
    """Name the modules that a file imports, from wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                package = path.relative_to(ROOT).parts[:-1]
                base = ".".join(package[: len(package) - node.level + 1])
                module = f"{base}.{node.module}" if node.module else base
            else:
                module = node.module or ""
            found.add(module)
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def room(path: Path) -> str:
    """Name the room that a file belongs to."""
    parts = path.relative_to(ROOT / "fusion_core").with_suffix("").parts
    inner = ".".join(parts[:2])
    return inner if inner in LEVEL else parts[0]


FILES = sorted((ROOT / "fusion_core").rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    own = room(path)
    assert own in LEVEL, f"name {own} in the package docstring and here"
    names = imported(path)
    assert not {n.split(".")[0] for n in names} & FACES - MAY.get(own, set())
    if path.parent.name == "zoo" and path.name in {"build.py", "__main__.py", "table.py"}:
        return  # how the models were made: a face of its own, which may use every room
    modules = [n.split(".")[1:3] for n in names if n.startswith("fusion_core.")]
    rooms = {".".join(m) if ".".join(m) in LEVEL else m[0] for m in modules} & set(LEVEL)
    for other in rooms - {own}:
        inside = own.partition(".")[0] == other.partition(".")[0] == "records"
        allowed = inside or LEVEL[other] < LEVEL[own] or (own, other) in BETWEEN_STAGES
        assert allowed, f"{own} must not import {other}"


def test_every_room_is_in_the_docstring() -> None:
    import fusion_core

    order = fusion_core.__doc__.partition("Stages take")[0]
    named = set(re.findall(r"(?m)(?<=[ <,])[\w.]+(?= *(?:<|,|$|  ))", order))
    assert set(LEVEL) - {"__init__"} <= named | {"records", "config"}


def test_the_order_test_can_fail() -> None:
    assert LEVEL["fuse"] < LEVEL["pipeline"] < LEVEL["cli"]
    assert "fusion_core.records" in imported(ROOT / "fusion_core" / "align" / "dtw.py")


# The app ------------------------------------------------------------------------------------------

APP = ROOT / "app"
PAGES = ("components", "tabs", "links", "arguments", "gate", "api", "ui", "__main__")
"""Rooms that may import gradio."""
COMPONENTS = {"layout", "component", "page", "fields", "events", "examples", "sidebar", "__init__"}
"""Files of tabs that hold components or answer their events; all others make plain data."""


def listed(package: Path) -> list[str]:
    """Name a package's rooms in the order of its docstring."""
    tree = ast.parse((package / "__init__.py").read_text("utf-8"))
    return re.findall(r"(?m)^    (\w+)  ", ast.get_docstring(tree, clean=False) or "")


def app_imports(path: Path, package: Path) -> set[str]:
    """Name the rooms of a package that a file of the app imports."""
    prefix = ".".join(package.relative_to(ROOT).parts) + "."
    names = {n.removeprefix(prefix) for n in imported(path) if n.startswith(prefix)}
    return {n.split(".")[0] for n in names}


PACKAGES = [
    p.parent for p in sorted(APP.rglob("__init__.py")) if p.parent != APP / "components"
]  # fmt: skip


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_rooms_of_the_app_import_those_above_them(package: Path) -> None:
    order = listed(package)
    found = {p.stem for p in package.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert set(order) == found - {"__init__", "__main__"}, "name every room in the docstring, once"
    assert len(order) == len(set(order))
    for path in package.rglob("*.py"):
        own = path.relative_to(package).parts[0].removesuffix(".py")
        above = set(order[: order.index(own)]) if own in order else set(order)
        below = app_imports(path, package) & set(order) - above - {own}
        assert not below, f"{path.relative_to(ROOT)} must not import {below}"


APP_FILES = sorted(APP.rglob("*.py"))


@pytest.mark.parametrize("path", APP_FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_computes_or_describes_knows_no_page(path: Path) -> None:
    parts = path.relative_to(APP).with_suffix("").parts
    names = imported(path)
    roots = {n.split(".")[0] for n in names}
    if parts[0] not in PAGES:
        assert "gradio" not in roots
    elif parts[0] == "tabs" and parts[-1] not in COMPONENTS:
        assert not roots & {"gradio", "torch", "transformers"}
        assert not {n for n in names if n.startswith("fusion_core.models")}


def test_the_order_of_the_app_is_what_was_agreed() -> None:
    order = listed(APP)
    wanted = ["limits", "requests", "compute", "training", "state", "tabs", "api", "ui"]
    assert [room for room in order if room in wanted] == wanted
    assert "compute" in app_imports(APP / "state.py", APP)
    assert app_imports(APP / "api.py", APP) >= {"tabs", "state"}


def test_no_room_of_the_app_asks_for_an_operator_by_name() -> None:
    """What depends on an operator reads its flags, so that a new one needs no page."""
    from fusion_core import fuse

    may = {APP / "requests.py", APP / "tabs" / "learn" / "view.py"}  # a default, and an example
    for path in set(APP_FILES) - may:
        tree = ast.parse(path.read_text("utf-8"))
        words = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)}
        # Texts have a mean as well.
        assert not words & set(fuse.OPERATORS) - {"mean"}, path
