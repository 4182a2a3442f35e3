"""Take the pictures of the README: the app in Chromium, in both themes, as small PNG files.

python docs/screenshots.py
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from browser import chromium, serve
from PIL import Image

SHOTS = {
    "align-light": {"theme": "light", "width": 1280, "height": 1700},
    "align-dark": {"theme": "dark", "width": 1280, "height": 1700},
}
COLORS = 128


def main() -> None:
    """Serve the app, wait for the opening text to be drawn, and write the pictures."""
    with serve() as address, chromium() as browser:
        for name, shot in SHOTS.items():
            page = browser.new_page(
                viewport={"width": shot["width"], "height": shot["height"]}, device_scale_factor=1
            )
            page.goto(f"{address}/?__theme={shot['theme']}")
            page.wait_for_selector(".fl-card", timeout=120_000)
            page.wait_for_timeout(800)
            path = ROOT / "docs" / f"{name}.png"
            page.screenshot(path=path)
            page.close()
            with Image.open(path) as picture:
                picture.convert("RGB").quantize(COLORS).save(path, optimize=True)
            print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
