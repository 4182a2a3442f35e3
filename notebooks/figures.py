"""Pictures of the notebooks' figures, for pages that run nothing: `python notebooks/figures.py`.

Runs the notebooks, draws each Plotly output in Chromium and writes it where the notebook shows it:
the nth picture that a notebook links is of its nth figure.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import nbformat
import plotly.io
from nbclient import NotebookClient
from playwright.sync_api import Browser, sync_playwright

FOLDER = Path(__file__).resolve().parent
PLOTLY = "application/vnd.plotly.v1+json"
WIDTH = 900


def draw(browser: Browser, path: Path) -> None:
    """Run one notebook and write the pictures that it links."""
    notebook = nbformat.read(path, as_version=4)
    names = re.findall(r"\]\((figures/[^)]+)\)", "\n".join(c.source for c in notebook.cells))
    if not names:
        return
    NotebookClient(notebook, timeout=1200).execute()
    outputs = [
        o for c in notebook.cells for o in c.get("outputs", ()) if PLOTLY in o.get("data", {})
    ]
    for name, output in zip(names, outputs, strict=True):
        figure = plotly.io.from_json(json.dumps(output["data"][PLOTLY]), skip_invalid=True)
        figure.update_layout(width=WIDTH, paper_bgcolor="white")
        page = browser.new_page(viewport={"width": WIDTH, "height": int(figure.layout.height)})
        page.set_content(figure.to_html(include_plotlyjs=True, config={"staticPlot": True}))
        page.wait_for_selector(".main-svg")
        page.locator(".plotly-graph-div").screenshot(path=FOLDER / name)
        page.close()


def main() -> None:
    """Draw the pictures of all notebooks, or of those that are named."""
    os.environ["PYTHONPATH"] = str(FOLDER.parent)  # the library beside them
    (FOLDER / "figures").mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        chromium = os.environ.get("CHROMIUM_PATH") or shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for path in map(Path, sys.argv[1:] or sorted(FOLDER.glob("*.ipynb"))):
            draw(browser, path)
        browser.close()


if __name__ == "__main__":
    main()
