"""How long a visitor waits, in a real Chromium: `python benchmarks/app.py`.

Prints a table in Markdown: from `python app.py` to the first answer; from the address to the first
score on the screen, with nothing in the browser's cache; from the press of Analyse to score and
cards, for three models and 512 target tokens; from a click or a key to the cards of another token.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import browser as real
import load

from fusion_core import corpus, models

# Resolves after the frame in which the cards of the new token stand on the screen.
_UNTIL_DRAWN = """(act) => new Promise((done) => {
  const cards = document.querySelector(".fl-cards");
  const begun = performance.now();
  const seen = new MutationObserver(() => {
    seen.disconnect();
    requestAnimationFrame(() => setTimeout(() => done(performance.now() - begun)));
  });
  seen.observe(cards, { childList: true });
  act();
})"""
_CLICK = f"""(link) => ({_UNTIL_DRAWN})(() =>
  document.querySelector(`.fl-target .fl-token[data-link="${{link}}"]`).click())"""
_KEY = f"""() => ({_UNTIL_DRAWN})(() => document.activeElement.dispatchEvent(
  new KeyboardEvent("keydown", {{ key: "ArrowRight", bubbles: true, cancelable: true }})))"""
_ANALYSE = f"""() => ({_UNTIL_DRAWN})(() => document.querySelector("#analyze").click())"""


def texts(count: int, tokens: int) -> list[str]:
    """Return different texts of about so many tokens of the target."""
    tokenizer = models.load_tokenizer("zoo:llama")
    stream = corpus.documents("commonsense", "test", seed=3)
    found = []
    for _ in range(count):
        text = ""
        while len(tokenizer.encode(text or ".").text_tokens) < tokens:
            text += next(stream)
        found.append(text)
    return found


def analyses(page: Any, found: list[str]) -> list[float]:
    """Analyse each text; return milliseconds from click to drawn."""
    times = []
    for text in found:
        page.locator("#text textarea").fill(text)
        page.wait_for_timeout(300)
        times.append(page.evaluate(_ANALYSE))
        page.locator(".fl-status.fl-done").wait_for()
    return times


def row(name: str, times: list[float]) -> str:
    """Return one line of the table."""
    return (
        f"| {name} | {statistics.median(times):.0f} ms | {min(times):.0f} – {max(times):.0f} ms "
        f"| {len(times)} |"
    )


def first_pages(chromium: Any, address: str, repeat: int) -> list[float]:
    """Open the page as new visitors; return milliseconds from the address to drawn."""
    times = []
    for _ in range(repeat):
        context = chromium.new_context(viewport={"width": 1440, "height": 1000})
        page = context.new_page()
        begun = time.perf_counter()
        page.goto(address)
        page.wait_for_selector(".fl-cards .fl-card")
        times.append(1000 * (time.perf_counter() - begun))
        context.close()
    return times


def starts(repeat: int) -> list[float]:
    """Start the app; return milliseconds to its first answer."""
    times = []
    for _ in range(repeat):
        with load.app() as (_, _, seconds):
            times.append(1000 * seconds)
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--starts", type=int, default=5)
    options = parser.parse_args()
    lines = [row("`python app.py` → first answer", starts(options.starts))]
    with load.app() as (address, _, _), real.chromium() as chromium:
        opened = first_pages(chromium, address, options.repeat)
        lines.append(row("first page, models not yet loaded", opened[:1]))
        lines.append(row("address → first score drawn", opened[1:]))
        context = chromium.new_context(viewport={"width": 1440, "height": 1000})
        page = context.new_page()
        faults = real.watch(page)
        two = "source=zoo%3Aneox-reason&source=zoo%3Agpt2-story"
        page.goto(f"{address}/?{two}")
        page.wait_for_selector(".fl-cards .fl-card")
        found = texts(options.repeat + 1, options.tokens)
        waits = analyses(page, found)[1:]
        shown = page.locator(".fl-place").inner_text().split(" of ")[1].split()[0]
        lines.append(row(f"Analyse → drawn, 3 models × {shown} target tokens", waits))
        clicks = [page.evaluate(_CLICK, link) for link in range(5, 5 + 6 * options.repeat, 6)]
        lines.append(row("click a token → its distributions drawn", clicks))
        page.locator('.fl-target .fl-token[data-link="130"]').click()
        page.wait_for_timeout(500)
        keys = [page.evaluate(_KEY) for _ in range(options.repeat)]
        lines.append(row("→ key → distributions drawn", keys))
    print("| what | median | range | n |\n| --- | --- | --- | --- |")
    print("\n".join(lines))
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
