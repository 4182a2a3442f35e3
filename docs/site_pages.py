"""Gather the pages of the site: `python docs/site_pages.py && zensical build --strict`.

The README is the front page; notebooks, results of benchmarks, the zoo's page and the changelog
are pages, too, and the command line's is made of its parser. Links are written for the repository;
here they are turned to the page that shows the file. One that no page shows is an error.
"""

from __future__ import annotations

import argparse
import json
import posixpath
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.S)
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]+)")


def _shown() -> dict[str, str]:
    """Map paths in the repository to pages of the site."""
    found = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}
    found |= {
        f"docs/{p.name}": p.name for p in (ROOT / "docs").glob("*") if p.suffix in (".md", ".png")
    }
    found["fusion_core/zoo/README.md"] = "zoo.md"
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.md")):
        found[f"benchmarks/results/{path.name}"] = f"results/{path.name}"
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        found[f"notebooks/{path.name}"] = f"notebooks/{path.stem}.md"
    for path in sorted((ROOT / "notebooks" / "figures").glob("*.png")):
        found[f"notebooks/figures/{path.name}"] = f"notebooks/figures/{path.name}"
    for path in sorted((ROOT / "docs" / "accelerate").glob("*.yaml")):
        found[f"docs/accelerate/{path.name}"] = f"accelerate/{path.name}"
    return found


SHOWN = _shown()
GATHERED = ROOT / "build" / "docs"
"""Where `mkdocs.yml` looks for them."""


def write(folder: Path) -> None:
    """Write all pages into a new folder, with links between them.

    Raises:
        SystemExit: a page links a file of the repository that no page shows.
    """
    shutil.rmtree(folder, ignore_errors=True)
    lost = []
    for path, page in SHOWN.items():
        out = folder / page
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix != ".md":
            shutil.copy(ROOT / path, out)
            continue
        text = (
            notebook(ROOT / path) if path.endswith(".ipynb") else (ROOT / path).read_text("utf-8")
        )
        text, missing = linked(FRONT_MATTER.sub("", text), path)
        out.write_text(text, encoding="utf-8")
        lost += [f"{path} links {name}, which no page shows." for name in missing]
    (folder / "commands.md").write_text(commands(), encoding="utf-8")
    if lost:
        raise SystemExit("\n".join(lost))


def linked(markdown: str, path: str) -> tuple[str, list[str]]:
    """Turn links of a file of the repository to pages; name those that lead to none."""
    missing = []

    def turned(match: re.Match[str]) -> str:
        named = posixpath.normpath(posixpath.join(posixpath.dirname(path), match[1]))
        if named not in SHOWN:
            missing.append(match[1])
            return match[0]
        here = posixpath.dirname(SHOWN[path]) or "."
        return f"]({posixpath.relpath(SHOWN[named], here)}"

    return LINK.sub(turned, markdown), missing


def notebook(path: Path) -> str:
    """Write a notebook as a page: its prose, and its code; solutions folded."""
    badge = re.compile(r"\[!\[(.+?)\]\(.+?\)\]")  # a picture that would come from elsewhere
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(badge.sub(r"[\1]", source))
            continue
        code = f"```python\n{source}\n```"
        if "solution" in cell["metadata"].get("tags", ()):
            code = f"<details markdown><summary>A solution</summary>\n\n{code}\n\n</details>"
        parts.append(code)
    return "\n\n".join(parts)


def commands() -> str:
    """Write the help of every command as a page."""
    sys.path.insert(0, str(ROOT))
    from fusion_core import cli

    text = [
        "# Command line",
        "Every command takes `--json`, and ends with status 2 and one sentence ",
    ]
    text[-1] += (
        "on stderr where something that was given cannot be used. Examples: [the README](index.md)."
    )
    for name, (_, add_flags) in cli.COMMANDS.items():
        parser = argparse.ArgumentParser(f"python -m fusion_core {name}", add_help=False)
        add_flags(parser)
        text += [f"## {name}", f"```text\n{parser.format_help().strip()}\n```"]
    return "\n\n".join(text)


if __name__ == "__main__":
    write(GATHERED)
