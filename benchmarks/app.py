"""How long a visitor waits, in a real Chromium: `python benchmarks/app.py`.

Prints a table in Markdown: from the press of Analyse to score and cards on the screen, for texts of
about 300 target tokens and all zoo models; from a click or a key to the cards of another token.
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
_ANALYSE = f"""() => ({_UNTIL_DRAWN})(() => document.querySelector("#analyse").click())"""


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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=300)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    lines = []
    with real.serve() as address, real.chromium() as chromium:
        page = chromium.new_page(viewport={"width": 1440, "height": 1000})
        faults = real.watch(page)
        begun = time.perf_counter()
        page.goto(address)
        page.wait_for_selector(".fl-cards .fl-card")
        cold = [1000 * (time.perf_counter() - begun)]
        found = texts(options.repeat, options.tokens)
        waits = analyses(page, found)
        shown = page.locator(".fl-place").inner_text().split(" of ")[1].split()[0]
        lines.append(row("first page: load all models, first analysis drawn", cold))
        lines.append(row(f"Analyse → drawn ({shown} target tokens, 4 zoo models)", waits))
        clicks = [page.evaluate(_CLICK, link) for link in range(5, 125, 6)]
        lines.append(row("click a token → cards drawn", clicks))
        page.locator('.fl-target .fl-token[data-link="130"]').click()
        page.wait_for_timeout(500)
        lines.append(row("→ key → cards drawn", [page.evaluate(_KEY) for _ in range(20)]))
    print("| what | median | range | n |\n| --- | --- | --- | --- |")
    print("\n".join(lines))
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
