"""Take the pictures of the README: every tab in Chromium, in both themes, as small PNG files.

python docs/screenshots.py [TAB …]
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from browser import chromium, serve
from PIL import Image

THEMES = ("light", "dark")
WIDTH = 1280
COLORS = 192
WAIT = 240_000


def align(page: Any) -> None:
    """Wait for the opening text."""
    page.wait_for_selector(".fl-cards .fl-card")


def fuse(page: Any) -> None:
    """Wait for the study of the opening text."""
    page.wait_for_selector("#fuse-view .fl-tables article")


def generate(page: Any) -> None:
    """Let all models write, and point at a token."""
    page.locator("#write").click()
    page.locator("#generate-view .fl-status.fl-done").wait_for()
    page.locator("#generate-view .fl-word").nth(6).hover()


def train(page: Any) -> None:
    """Train for a little while, once; the second theme finds the training again."""
    page.wait_for_timeout(2000)
    if not page.locator("#train-view [data-part=baseline]").count():
        page.locator("#train-start").click()
    page.locator("#train-view [data-part=baseline][data-state=finished]").wait_for()


def learn(page: Any) -> None:
    """Wait for the walk."""
    page.wait_for_selector("#walk")


TABS: dict[str, tuple[Callable[[Any], None], int]] = {
    "align": (align, 1700),
    "fuse": (fuse, 1500),
    "generate": (generate, 1000),
    "train": (train, 1700),
    "learn": (learn, 760),
}


def shoot(page: Any, name: str) -> None:
    """Write one picture, in few colours."""
    path = ROOT / "docs" / f"{name}.png"
    page.wait_for_timeout(1200)
    page.screenshot(path=path)
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(COLORS).save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes")


def main() -> None:
    """Serve the app, wait until each tab shows something, and write the pictures."""
    with tempfile.TemporaryDirectory() as runs:
        os.environ["FUSELAB_RUNS"] = runs
        with serve() as address, chromium() as browser:
            context = browser.new_context()
            for tab in sys.argv[1:] or TABS:
                ready, height = TABS[tab]
                for theme in THEMES:
                    page = context.new_page()
                    page.set_default_timeout(WAIT)
                    page.set_viewport_size({"width": WIDTH, "height": height})
                    page.goto(f"{address}/?__theme={theme}&tab={tab}")
                    ready(page)
                    shoot(page, f"{tab}-{theme}")
                    page.close()


if __name__ == "__main__":
    main()
