"""The Train tab in a real browser: a run that outlives its page, and what nobody else sees."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_app import HOSTILE, poor_contrast

pytestmark = pytest.mark.browser
LONG = 90_000
VIEW = "#train-view"


@pytest.fixture
def trainer(visit: Callable[..., Any], chromium: Any) -> Iterator[Callable[..., Any]]:
    """Open the tab; runs that still go on are stopped at the end."""
    contexts = []

    def open_page(context: Any = None, **options: Any) -> Any:
        if context is None:
            size = {"width": options.get("width", 1440), "height": 1000}
            context = chromium.new_context(viewport=size, accept_downloads=True)
            contexts.append(context)
        page = visit(context=context, query="tab=train", shows="#train-start", **options)
        page.wait_for_function("localStorage.getItem('fuselab-visitor')")
        page.locator(f"{VIEW} .fuselab-view").wait_for(state="attached")
        return page

    yield open_page
    for context in contexts:
        for page in context.pages[:1]:
            stop = page.locator("#train-stop")
            if stop.is_visible() and stop.is_enabled():
                stop.click()
                ended(page)


def fill(page: Any, **values: Any) -> None:
    """Fill in number fields by their elem_id."""
    for name, value in values.items():
        page.locator(f"#train-{name} input").fill(str(value))


def custom(page: Any, steps: int, kb: int = 8) -> None:
    """Fill in a short training of one domain without its baseline."""
    page.locator("#train-preset").get_by_text("Custom").click()
    for domain in ("Reasoning", "Commonsense"):
        page.locator("#train-domains").get_by_label(domain).uncheck()
    fill(page, steps=steps, kb=kb)


def unfold(page: Any, accordion: str, inside: str, key: str = "") -> None:
    """Open an accordion; fields that come into being take their first values a moment later."""
    lid = page.locator(f"{accordion} button").first
    lid.press(key) if key else lid.click()
    page.locator(inside).wait_for()
    page.wait_for_timeout(300)


def begin(page: Any, steps: int, baseline: bool = False) -> None:
    custom(page, steps)
    page.locator("#train-baseline input").set_checked(baseline)
    page.locator("#train-start").click()
    page.locator(f"{VIEW} [data-part=fused]").wait_for(timeout=LONG)


def part(page: Any, state: str, name: str = "fused") -> Any:
    return page.locator(f"{VIEW} [data-part={name}][data-state={state}]")


def ended(page: Any) -> None:
    """Wait until no part is live and the page has seen it."""
    page.locator("#train-delete:enabled").wait_for(timeout=LONG)


def test_a_run_from_start_to_files(trainer: Callable[..., Any], tmp_path: Path) -> None:
    page = trainer()
    assert page.evaluate("typeof Plotly") == "undefined"
    begin(page, 20, baseline=True)
    assert "20 of" in page.locator("#train-plan .fl-facts").inner_text()
    page.locator("#train-curves .scatterlayer .trace").first.wait_for(timeout=LONG)
    page.evaluate("window.node = document.querySelector('#train-curves .fl-figure')")
    part(page, "finished", "baseline").wait_for(timeout=LONG)
    ended(page)
    assert page.evaluate("window.node.isConnected")
    names = page.evaluate("window.node.data.map(t => t.name)")
    assert names == ["total", "CLM", "fusion", "baseline: CLM"]
    bits = page.locator("#train-curves .fl-figure").nth(1)
    assert bits.evaluate("n => n.data.map(t => t.name)") == ["code", "baseline: code"]
    assert bits.evaluate("n => n.data.map(t => t.x[0])") == [0, 0]
    row = page.locator(f"{VIEW} tbody tr").first.inner_text().split()
    assert row[0] == "code" and row.count("%") == 2

    page.locator("#train-samples").click()
    page.locator("#train-written .fl-samples .fl-card").first.wait_for(timeout=LONG)
    assert page.locator("#train-written h4").all_inner_texts() == ["before", "text alone", "fused"]

    page.locator("#train-pack").click()
    files = page.locator("#train-downloads a")
    files.nth(3).wait_for()
    with page.expect_download() as download:
        page.locator("#train-downloads a[download='metrics.csv']").click()
    assert Path(download.value.path()).read_text("utf-8-sig").startswith("part,step,tokens,loss")
    for panel, kind, start in (
        ("#train-curves", "PNG", b"\x89PNG"),
        ("#train-curves", "SVG", b"<svg"),
        ("#train-curves", "CSV", b"\xef\xbb\xbf"),
        (VIEW, "CSV", b"\xef\xbb\xbf"),
    ):
        with page.expect_download() as download:
            page.locator(f"{panel} .fl-save").first.get_by_text(kind).click()
        assert Path(download.value.path()).read_bytes().startswith(start)
    page.locator("#train-book button").first.click()
    page.locator("#train-snippet", has_text="AutoModelForCausalLM").wait_for()
    for now in (390, 768, 1440):
        page.set_viewport_size({"width": now, "height": 900})
        for _ in range(2):
            page.evaluate("document.body.classList.toggle('dark')")
            page.wait_for_timeout(250)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert poor_contrast(page) == []
    dark = page.evaluate("document.querySelector('.fl-figure')._fullLayout.font.color")
    page.evaluate("document.body.classList.toggle('dark')")
    page.wait_for_function(
        "old => document.querySelector('.fl-figure')._fullLayout.font.color !== old", arg=dark
    )

    delete = page.locator("#train-delete")
    delete.click()
    page.locator("#train-delete", has_text="for good").wait_for()
    assert part(page, "finished").count() == 1
    delete.click()
    page.locator(f"{VIEW} .fl-status", has_text="Deleted").wait_for()
    page.locator(f"{VIEW} [data-part]").wait_for(state="detached")
    assert page.locator("#train-curves article:visible").count() == 0


def test_a_run_goes_on_without_its_page(trainer: Callable[..., Any]) -> None:
    page = trainer()
    begin(page, 2000)
    part(page, "training").wait_for(timeout=LONG)
    context = page.context
    page.close()
    other = trainer()
    assert other.locator(f"{VIEW} [data-part]").count() == 0
    assert other.locator("#train-runs input").input_value() == ""
    again = trainer(context)
    part(again, "training").wait_for()
    again.locator("#train-curves").scroll_into_view_if_needed()
    again.locator("#train-curves .scatterlayer .trace").first.wait_for()
    line = again.locator(f"{VIEW} .fl-run-line").first
    before = line.inner_text()
    again.wait_for_function(
        "old => document.querySelector('#train-view .fl-run-line').innerText !== old", arg=before
    )
    asked = time.monotonic()
    again.locator("#train-stop").click()
    part(again, "stopped").wait_for(timeout=3000)
    assert time.monotonic() - asked < 3
    step = int(line.inner_text().split()[1].replace(",", ""))
    again.locator("#train-resume:enabled").click()
    again.wait_for_function(
        "step => Number((document.querySelector('#train-view .fl-run-line').innerText"
        ".match(/step ([\\d,]+)/) || ['', '0'])[1].replace(',', '')) > step",
        arg=step,
        timeout=LONG,
    )
    again.reload()
    part(again, "training").wait_for()
    again.locator("#train-stop").click()
    part(again, "stopped").wait_for()
    assert other.locator(f"{VIEW} [data-part]").count() == 0


def test_wrong_input_is_one_sentence(trainer: Callable[..., Any], tmp_path: Path) -> None:
    page = trainer()
    custom(page, 20)
    fault = page.locator("#train-plan .fl-status.fl-error")

    def refused(words: str) -> None:
        page.locator("#train-start").click()
        fault.filter(has_text=words).wait_for()
        assert "\n" not in fault.inner_text() and len(fault.inner_text()) < 300

    for name, bad, good, words in (
        ("steps", "", "20", "Steps must"),
        ("steps", "1e9", "20", "Steps must"),
        ("kb", "-3", "8", "KB of toy text"),
        ("lambda", "2", "0.1", "λ must"),
        ("rate", "0", "0.0005", "Learning rate"),
    ):
        fill(page, **{name: bad})
        refused(words)
        assert page.locator(f"#train-{name} input").input_value() == bad
        fill(page, **{name: good})
    unfold(page, "#train-more", "#train-seed input")
    for name, bad, good, words in (("batch", "0", "4", "Batch"), ("seed", "-1", "0", "Seed")):
        fill(page, **{name: bad})
        refused(words)
        fill(page, **{name: good})
    page.locator("#train-domains").get_by_label("Code").uncheck()
    refused("nothing to read")
    unfold(page, "#train-own", "#train-text textarea")
    page.locator("#train-text textarea").fill("short")
    refused("one document of 5 bytes")
    page.locator("#train-text textarea").fill("")
    for name, content in (("<img src=x onerror=alert(1)>.pdf", b"x"), ("a.jsonl", b"{")):
        file = tmp_path / name
        file.write_bytes(content)
        page.locator("#train-file input[type=file]").set_input_files(file)
        page.locator("#train-file .file-preview, #train-file .file-name").first.wait_for()
        refused("Your file")
        page.locator("#train-file [aria-label='Clear'], #train-file [title='Clear']").first.click()
        page.locator("#train-file input[type=file]").wait_for(state="attached")
    assert page.locator(f"{VIEW} [data-part]").count() == 0


def test_own_hostile_text_with_keys_alone(trainer: Callable[..., Any]) -> None:
    page = trainer()
    custom(page, 3)
    page.locator("#train-domains").get_by_label("Code").uncheck()
    unfold(page, "#train-own", "#train-text textarea", key="Enter")
    box = page.locator("#train-text textarea")
    box.fill("\n\n".join([HOSTILE] * 12))
    page.locator("#train-baseline input").uncheck()
    start = page.locator("#train-start")
    start.focus()
    page.keyboard.press("Enter")
    part(page, "finished").wait_for(timeout=LONG)
    ended(page)
    assert "your text" in page.locator(f"{VIEW} tbody").inner_text()
    page.locator("#train-samples").focus()
    page.keyboard.press("Enter")
    prompt = page.locator("#train-written .fl-prompt")
    prompt.wait_for(timeout=LONG)
    assert prompt.inner_text().startswith("<img src=x onerror=alert(1)>")
    assert page.locator(".fuselab-view img, .fuselab-view script").count() == 0
    assert page.evaluate("window.broken") is None
    page.get_by_role("tab", name="Generate").click()
    page.locator("#trained-here input").click()
    page.get_by_role("option", name="fused").click()
    page.locator("#write").click()
    page.locator("#generate-view .fl-status.fl-done").wait_for(timeout=LONG)
    titles = page.locator("#generate-view .fl-writer h3 span").all_inner_texts()
    assert titles[-1] == "#1 fused" and len(titles) == 6
    page.get_by_role("tab", name="Train").click()
    for words in ("for good", "Deleted"):
        page.locator("#train-delete").focus()
        page.keyboard.press("Enter")
        place = "#train-delete" if words == "for good" else f"{VIEW} .fl-status"
        page.locator(place, has_text=words).wait_for()
