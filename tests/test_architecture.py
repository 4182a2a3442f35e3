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
    "cache",
    "characters",
    "project",
    "fuse",
    "evaluate",
    "losses",
    "baselines",
}
LEVEL = dict.fromkeys(STAGES, 3) | {
    "__init__": -1,
    "errors": 0,
    "numerics": 0.5,
    "records": 1,
    "records.reading": 1,
    "config": 2,
    "reading": 4,
    "pipeline": 6,
    "cache.building": 7,
    "generate": 7,
    "benchmark": 7,
    "compare": 6.5,
    "reports": 7,
    "train": 8,
    "runs": 9,
    "commands": 10,
    "cli": 11,
    "__main__": 12,
}
BETWEEN_STAGES = {
    *((room, "io") for room in ("mapping", "models", "cache", "baselines")),
    ("mapping", "tokens"),
    ("mapping", "align"),
    ("models", "tokens"),
    ("models", "zoo"),
    ("characters", "tokens"),
    ("project", "align"),
    ("project", "mapping"),
    ("project", "tokens"),
    *(("records.reading", room) for room in ("align", "mapping", "project", "fuse", "tokens")),
}
FACES = {"gradio", "plotly", "app"}


def imported(path: Path) -> set[str]:
    """Name the modules that a file imports, from wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                package = ["fusion_core", *path.relative_to(ROOT / "fusion_core").parts[:-1]]
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
    assert not {n.split(".")[0] for n in names} & FACES
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
