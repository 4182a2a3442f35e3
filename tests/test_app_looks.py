"""Every tab, wide and narrow, light and dark: readable, reachable by keys, and sound for axe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.browser
READY = {
    "align": ".fl-cards .fl-card",
    "fuse": "#fuse-view .fl-spoken",
    "generate": "#prompt",
    "train": "#train-start",
    "learn": "#walk",
}
SCRIPTS = {
    "English": "It was summer when Elora met a sheep, and neither of them was alone.",
    "Python": "def total(xs):\n    for x in xs:\n\tif x:\n            return sum(xs)  # all\n",
    "Japanese": "東京は日本の首都です。とても大きい都市で、人口は約1400万人です。",
    "Arabic": "مرحبا بالعالم! هذا نص قصير باللغة العربية.",
    "emoji": "👩🏽‍🚀 flies to 🇯🇵 with ❤️ and 🫠 🧑‍🤝‍🧑!",
}


def violations(page: Any) -> list[str]:
    """What axe-core calls serious or critical in our own components."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, context={"include": [[".fuselab-view"]]}).response["violations"]
    return [
        f"{v['id']} ({v['impact']}): {n['html'][:160]} {n['failureSummary'][:200]}"
        for v in found
        if v["impact"] in ("serious", "critical")
        for n in v["nodes"][:3]
    ]


def fits(page: Any) -> bool:
    """Whether the page needs no scrolling to the side."""
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("tab", READY)
@pytest.mark.parametrize(
    ("width", "theme"), [(390, "light"), (768, "dark"), (1440, "light"), (1440, "dark")]
)
def test_every_tab_fits_and_is_accessible(
    visit: Callable[..., Any], tab: str, width: int, theme: str
) -> None:
    page = visit(width, 900, theme, f"tab={tab}", READY[tab])
    page.wait_for_timeout(700)
    assert fits(page)
    if page.locator(".fuselab-view").locator("visible=true").count():
        assert violations(page) == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_stands_over_its_characters(visit: Callable[..., Any], script: str) -> None:
    page = visit(768)
    page.locator("#text textarea").fill(SCRIPTS[script])
    page.locator("#analyze").click()
    size = f"{len(SCRIPTS[script].encode()):,} bytes"
    page.locator("#align-view .fl-status.fl-done", has_text=size).wait_for()
    page.wait_for_timeout(300)
    assert fits(page)
    # Every token lies within its lane, and no lane is wider than the score.
    assert page.evaluate(
        """() => [...document.querySelectorAll('.fl-track')].every((track) => {
          const frame = track.getBoundingClientRect();
          return [...track.querySelectorAll('.fl-token')].every((token) => {
            const box = token.getBoundingClientRect();
            return box.left >= frame.left - 3 && box.right <= frame.right + 3;
          });
        })"""
    )
    # Characters of the axis run from left to right in the order of the text.
    shown = page.evaluate(
        """() => [...document.querySelectorAll('.fl-axis')].map((axis) =>
          [...axis.children].sort((a, b) => a.offsetLeft - b.offsetLeft)
            .map((c) => c.textContent).join('')).join('')"""
    )
    plain = shown.replace("⏎", "").replace("⇥", "")
    assert plain == "".join(c for c in SCRIPTS[script] if c not in " \n\t")


def test_align_and_fuse_by_keys_alone(visit: Callable[..., Any]) -> None:
    page = visit(query="text=Tom+buys+3+pears.")
    page.locator("#align-view .fl-status.fl-done").wait_for()
    page.get_by_role("tab", name="Align").focus()
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached |= set(page.evaluate("[...document.activeElement.classList]"))
        if page.evaluate("document.activeElement.tagName") == "SUMMARY":
            break
    assert {"fl-token", "fl-traced", "fl-filter"} <= reached
    page.keyboard.press("Enter")
    page.wait_for_selector(".fl-table-view table")
    page.get_by_role("tab", name="Align").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#fuse-view .fl-spoken")
