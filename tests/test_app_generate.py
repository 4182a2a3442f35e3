"""The Generate tab in a real browser: columns that grow, why a token was chosen, and Stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from test_app import HOSTILE, choose, poor_contrast

from fusion_core import zoo

pytestmark = pytest.mark.browser
COLUMNS = len(zoo.NAMES) + 1
FUSED = ".fl-writer[data-role='fused']"


@pytest.fixture
def writer(visit: Callable[..., Any]) -> Callable[..., Any]:
    """Open the tab as a new visitor."""

    def open_page(**options: Any) -> Any:
        page = visit(**options)
        page.get_by_role("tab", name="Generate").click()
        page.locator("#write").wait_for()
        return page

    return open_page


def fill(page: Any, **values: Any) -> None:
    """Fill in number fields by their elem_id."""
    for name, value in values.items():
        field = page.locator(f"#{name.replace('_', '-')} input")
        field.fill(str(value))
        field.press("Tab")


def write(page: Any, tokens: int = 24, prompt: str | None = None) -> None:
    """Press Write and wait for the end."""
    if prompt is not None:
        page.locator("#prompt textarea").fill(prompt)
    fill(page, new_tokens=tokens)
    page.locator("#write").click()
    page.locator("#generate-view .fl-status.fl-busy").wait_for()
    done(page)


def done(page: Any) -> None:
    page.locator("#generate-view .fl-status.fl-done").wait_for()


def written(page: Any) -> list[str]:
    """Return the text of every column."""
    return page.locator(".fl-text").evaluate_all("nodes => nodes.map(n => n.textContent)")


def begin(page: Any) -> None:
    """Start a writing that takes a while, and wait until every column has some text."""
    fill(page, new_tokens=512)
    page.locator("#write").click()
    page.wait_for_function(
        "count => { const t = [...document.querySelectorAll('.fl-text')];"
        "return t.length === count && t.every(n => n.children.length > 3); }",
        arg=COLUMNS,
    )


def test_columns_grow_side_by_side(writer: Callable[..., Any]) -> None:
    page = writer()
    begin(page)
    page.evaluate("window.first = document.querySelector('.fl-word')")
    before = written(page)
    page.wait_for_function(
        "old => [...document.querySelectorAll('.fl-text')]"
        ".filter((n, i) => n.textContent.length > old[i].length).length >= 2",
        arg=before,
    )
    after = written(page)
    assert all(new.startswith(old) for old, new in zip(before, after, strict=True))
    assert page.evaluate("window.first.isConnected")
    heads = page.locator(".fl-writer h3 > span").all_inner_texts()
    assert heads[:2] == ["Fused", "llama"] and sorted(heads[1:]) == sorted(zoo.NAMES)
    tops = page.locator(".fl-side-by-side .fl-writer").evaluate_all(
        "nodes => nodes.map(n => n.getBoundingClientRect().top)"
    )
    assert len(set(tops)) == 1


def test_hover_names_the_winner(writer: Callable[..., Any]) -> None:
    page = writer()
    write(page)
    page.locator(f"{FUSED} .fl-word").nth(3).hover()
    tip = page.locator("#generate-view .fl-tip")
    said = tip.inner_text()
    assert "probability" in said and "entropy" in said and "winner: " in said
    weights = list(map(float, tip.locator(".fl-number").all_inner_texts()))
    names = tip.locator(".fl-label").all_inner_texts()
    assert len(weights) == len(zoo.NAMES) - 1 and sum(weights) == pytest.approx(100, abs=0.3)
    assert f"winner: {names[weights.index(max(weights))]}" in said
    page.locator(".fl-writer[data-role='target'] .fl-word").nth(2).hover()
    assert "winner" not in tip.inner_text() and "llama" in tip.inner_text()
    page.keyboard.press("Escape")
    assert not tip.is_visible()


def test_keys_write_and_walk(writer: Callable[..., Any]) -> None:
    page = writer()
    fill(page, new_tokens=16)
    page.locator("#prompt textarea").press("Shift+Enter")
    done(page)
    page.locator(f"{FUSED} .fl-word").first.focus()
    for key, index in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 15)):
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.dataset.index") == str(index)
    label = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert "winner" in label and "probability" in label
    assert page.locator("#generate-view .fl-tip").is_visible()
    assert page.locator(f"{FUSED} .fl-word[tabindex='0']").count() == 1


def test_stop_ends_the_work(writer: Callable[..., Any]) -> None:
    page = writer()
    begin(page)
    began = time.monotonic()
    page.locator("#stop-writing").click()
    page.locator("#generate-view .fl-status", has_text="Stopped").wait_for()
    assert time.monotonic() - began < 3
    page.wait_for_timeout(500)
    kept = written(page)
    assert all(kept) and page.locator(".fl-running").count() == 0
    assert "stopped" in page.locator(f"{FUSED} footer").inner_text()
    page.wait_for_timeout(1000)
    assert written(page) == kept
    # Nothing is left behind that would keep the next one waiting.
    write(page, tokens=8)
    assert "8 tokens" in page.locator(f"{FUSED} footer").inner_text()
    page.locator("#stop-writing").click()
    page.wait_for_timeout(500)
    assert "in 5 columns" in page.locator("#generate-view .fl-status").inner_text()


def test_one_writing_at_a_time(writer: Callable[..., Any]) -> None:
    page = writer()
    begin(page)
    assert page.locator("#write").is_disabled()
    page.locator("#prompt textarea").press("Shift+Enter")
    for wait in (0, 100, 500):
        page.locator("#stop-writing").click()
        page.locator("#write:enabled").wait_for()
        page.locator("#write").click()
        page.locator("#write:disabled").wait_for()
        page.wait_for_timeout(wait)
    page.locator("#stop-writing").click()
    page.locator("#generate-view .fl-status", has_text="Stopped").wait_for()
    write(page, tokens=9)
    counts = page.locator(".fl-text").evaluate_all("nodes => nodes.map(n => n.children.length)")
    assert max(counts) == 9 and len(counts) == COLUMNS


def test_hostile_prompt_is_text(writer: Callable[..., Any]) -> None:
    page = writer()
    write(page, tokens=12, prompt=HOSTILE)
    shown = page.locator(".fl-prompt").inner_text()
    assert "</s>" in shown
    assert "\u202e" not in shown and "\u2066" not in shown
    page.locator("#generate-view .fl-table-view summary").click()
    assert page.locator("#generate-view img, #generate-view script").count() == 0
    assert page.evaluate("window.broken") is None


def test_bad_input_is_one_sentence_and_nothing_is_lost(writer: Callable[..., Any]) -> None:
    page = writer()
    own = "Tom has 3 apples."
    write(page, tokens=8, prompt=own)
    before = written(page)
    fault = page.locator("#generate-view .fl-status.fl-error")
    for field, bad, good, words in (
        ("new-tokens", "0", "8", "between 1 and 512"),
        ("new-tokens", "", "8", "not nothing"),
        ("temperature", "-1", "0.8", "Temperature must be a number of at least 0"),
        ("top-p", "2", "0.95", "Top-p must be a number above 0"),
        ("writer-seed", "1.5", "0", "Seed must be a whole number"),
    ):
        fill(page, **{field: bad})
        page.locator("#write").click()
        fault.filter(has_text=words).wait_for()
        sentence = fault.inner_text()
        assert "\n" not in sentence and "Traceback" not in sentence
        assert written(page) == before
        assert page.locator("#prompt textarea").input_value() == own
        assert page.locator(f"#{field} input").input_value() == bad
        fill(page, **{field: good})
    for prompt, words in (("", "prompt is empty"), ("x" * 100_000, "20,000")):
        page.locator("#prompt textarea").fill(prompt)
        page.locator("#write").click()
        fault.filter(has_text=words).wait_for()
        assert page.locator("#prompt textarea").input_value() == prompt
    page.locator("#prompt textarea").fill(own)
    choose(page, "#target", "zoo:nobody")
    page.locator("#write").click()
    fault.filter(has_text="zoo:nobody").wait_for()
    assert written(page) == before


def test_pictures_and_tables_can_be_saved(writer: Callable[..., Any], tmp_path: Any) -> None:
    page = writer()
    write(page, tokens=10)
    saved = {}
    for kind in ("PNG", "SVG", "CSV"):
        with page.expect_download() as event:
            page.locator("#generate-view .fl-tools button", has_text=kind).click()
        saved[kind] = tmp_path / event.value.suggested_filename
        event.value.save_as(saved[kind])
    assert saved["PNG"].read_bytes()[:4] == b"\x89PNG"
    assert "Fused" in saved["SVG"].read_text("utf-8")
    rows = saved["CSV"].read_text("utf-8-sig").splitlines()
    assert rows[0].startswith('"column","step","token","id","probability"')
    assert len(rows) == 1 + page.locator(".fl-word").count()
    page.locator("#generate-view .fl-table-view summary").click()
    page.locator("#generate-view .fl-table-view tbody tr").nth(len(rows) - 2).wait_for()
    assert page.locator("#generate-view .fl-table-view tbody tr").count() == len(rows) - 1


@pytest.mark.parametrize(("width", "theme"), [(390, "light"), (1440, "dark")])
def test_every_width_and_theme_fits(writer: Callable[..., Any], width: int, theme: str) -> None:
    page = writer(width=width, theme=theme)
    write(page, tokens=20)
    for word, now in enumerate((width, 768)):
        page.set_viewport_size({"width": now, "height": 900})
        page.locator(f"{FUSED} .fl-word").nth(word).focus()
        assert page.locator("#generate-view .fl-tip").is_visible()
        for _ in range(2):
            page.evaluate("document.body.classList.toggle('dark')")
            page.wait_for_timeout(250)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert poor_contrast(page) == []
