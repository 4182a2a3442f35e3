"""Fuse, Learn, links, downloads and the newer parts of Align, in a real browser."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

pytestmark = pytest.mark.browser
FUSE = "#fuse-view .fl-spoken"
STEPS = [
    ("Every model cuts", "Align"),
    ("Bytes are the one", "Align"),
    ("And where the source", "Align"),
    ("Carrying probability", "Align"),
    ("Whom to believe", "Fuse"),
    ("All together", "Generate"),
    ("Teach it to one", "Train"),
]
HOSTILE = "<img src=x onerror=alert(1)> ${alert(1)} `x` </script> a\u202eb"


def status(page: Any, view: str) -> Any:
    """The line that says what a view is doing."""
    return page.locator(f"{view} .fl-status")


def saved(page: Any, button: Any) -> Path:
    """Press a button and return the file that it saves."""
    with page.expect_download() as waiting:
        button.click()
    return waiting.value.path()


def test_fuse_shows_winners_and_follows_the_settings(visit: Callable[..., Any]) -> None:
    page = visit()
    page.get_by_role("tab", name="Fuse").click()
    page.wait_for_selector(FUSE)
    assert page.locator(FUSE).inner_text().startswith("It was summer when Elora")
    operators = page.locator("#fuse-view article", has_text="Operators").first
    assert operators.locator("tbody tr").count() == 7
    row = operators.locator("tbody tr", has_text="mean").first
    row.get_by_role("button").click()
    operators.locator("tbody tr", has_text="mean").first.get_by_text("chosen").wait_for()
    assert page.locator("#operator input").input_value() == "mean"
    mapping = page.locator("#fuse-view article", has_text="Vocabulary mappings")
    assert mapping.locator("tbody tr").count() == 18
    mapping.locator("tbody tr", has_text="exact").first.get_by_role("button").click()
    mapping.locator("tbody tr", has_text="exact").first.get_by_text("chosen").wait_for()
    assert page.locator("#strategy input").input_value() == "exact"


def test_rows_are_chosen_and_both_leaks_are_named(visit: Callable[..., Any]) -> None:
    page = visit(query="tab=fuse&rows=boundary&level=token", shows=FUSE)
    chosen, known = "chosen knowing each token", "knows the source's boundaries"
    said = status(page, "#fuse-view")
    said.filter(has_text=f"{chosen}, {known}").wait_for()
    models = page.locator("#fuse-view article", has_text="Models").first
    assert f"{chosen}, {known}" in models.locator("tbody tr").last.inner_text()
    assert known in page.locator("#fuse-view article", has_text="Operators").first.inner_text()
    page.locator("#rows").get_by_text("exact", exact=True).click()
    said.filter(has_not_text=known).wait_for()
    assert chosen in said.inner_text() and known not in page.locator("#fuse-view").inner_text()
    page.wait_for_function("!location.search.includes('rows=')")
    page.locator("#level").get_by_text("sequence", exact=True).click()
    said.filter(has_not_text=chosen).wait_for()
    page.get_by_role("tab", name="Align").click()
    cards = page.locator(".fl-cards")
    cards.get_by_text("from every way to cut what was read").first.wait_for()
    assert (
        page.locator(".fl-board-box .fl-note")
        .first.inner_text()
        .startswith("bits per byte on this text; lower is better")
    )
    page.locator("#rows").get_by_text("boundary", exact=True).click()
    page.locator(".fl-board-box .fl-note", has_text=f"fused: {known}").wait_for()


def test_fuse_is_walked_with_keys_and_explains_a_token(visit: Callable[..., Any]) -> None:
    page = visit(query="tab=fuse", shows=FUSE)
    first = page.locator(f"{FUSE} span").first
    first.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.at") == "5"
    tip = page.locator("#fuse-view .fl-tip")
    assert "nats" in tip.inner_text() and "llama (target)" in tip.inner_text()
    page.keyboard.press("Escape")
    assert tip.is_hidden()
    page.keyboard.press("End")
    page.keyboard.press("Home")
    assert page.evaluate("document.activeElement.dataset.at") == "0"


def test_a_link_sets_text_settings_token_and_tab(visit: Callable[..., Any]) -> None:
    page = visit()
    page.locator("#text textarea").fill("Anna buys 3 pears, 東京 & more?")
    page.locator("#level").get_by_text("token", exact=True).click()
    page.locator("#operator input").click()
    page.get_by_role("option", name="confidence").click()
    page.locator(".fl-fused h4", has_text="confidence").wait_for()
    page.locator("#analyze").click()
    page.locator("#align-view .fl-status.fl-done", has_text="bytes").wait_for()
    page.wait_for_function("document.querySelector('.fl-axis').innerText.startsWith('A')")
    page.locator(".fl-target .fl-token[data-link='4']").click()
    page.wait_for_function("location.search.includes('token=5')")
    page.wait_for_function("location.search.includes('operator=confidence')")
    query = page.evaluate("location.search.slice(1)")
    assert "strategy=" not in query  # what is the default needs no place
    other = visit(query=query)
    other.wait_for_function("document.querySelector('.fl-cards').dataset.index === '4'")
    assert other.locator("#text textarea").input_value() == "Anna buys 3 pears, 東京 & more?"
    assert "confidence" in other.locator(".fl-fused").inner_text()
    assert other.locator("#level input:checked").get_attribute("value") == "token"
    other.get_by_role("tab", name="Fuse").click()
    other.wait_for_function("location.search.includes('tab=fuse')")
    other.wait_for_selector(FUSE)
    third = visit(query=other.evaluate("location.search.slice(1)"), shows=FUSE)
    third.locator(FUSE, has_text="Anna buys").wait_for()  # what opens first is another text


def test_a_hostile_link_is_text_or_nothing(visit: Callable[..., Any]) -> None:
    page = visit(
        query="text=%3Cimg%20src=x%20onerror=alert(1)%3E%24%7Balert(1)%7D&operator=%3Cscript%3E"
        "&top_k=1e99&token=-5&tab=%22%3E&level=x&strategy=../.."
    )
    assert page.locator("#text textarea").input_value().startswith("<img src=x")
    assert page.locator("#operator input").input_value() == "min_ce"
    assert page.locator("#top-k input").input_value() == "10"
    assert page.locator(".fuselab-view img").count() == 0
    page = visit(query="target=zoo%3Anobody", shows="#align-view .fl-error")
    assert "zoo:nobody" in status(page, "#align-view").inner_text()


def test_next_characters_on_request(visit: Callable[..., Any]) -> None:
    page = visit()
    page.locator("#align-view .fl-status.fl-done").wait_for()
    switch = page.get_by_role("button", name="next characters")
    switch.click()
    page.wait_for_selector(".fl-characters")
    assert page.locator(".fl-characters").count() == 5
    for card in page.locator(".fl-characters").all():
        shares = [float(n) for n in card.locator(".fl-number").all_inner_texts()]
        assert sum(shares) == pytest.approx(100, abs=1)
    page.locator(".fl-target .fl-token[data-link='6']").click()
    page.wait_for_function("document.querySelector('.fl-cards').dataset.index === '6'")
    assert page.locator(".fl-cards").get_attribute("data-shows") == "characters"
    switch.click()
    page.wait_for_selector(".fl-fused")


def test_a_fused_bar_says_where_it_is_from(visit: Callable[..., Any]) -> None:
    page = visit()
    bar = page.locator(".fl-fused .fl-traced").first
    bar.hover()
    tip = page.locator("#align-view .fl-tip")
    assert " from " in tip.inner_text() and "percent of the fused row" in tip.inner_text()
    page.mouse.move(5, 5)
    page.locator(".fl-fused .fl-traced").nth(1).focus()
    assert " from " in tip.inner_text()


def test_one_kind_alone(visit: Callable[..., Any]) -> None:
    page = visit()
    page.locator("#align-view .fl-status.fl-done").wait_for()
    kind = page.locator(".fl-filter[data-kind='4']")
    kind.click()
    assert kind.get_attribute("aria-pressed") == "true"
    assert page.locator(".fl-score .fl-k4.fl-dim").count() == 0
    same = ".fl-score .fl-k1"
    assert page.locator(f"{same}.fl-dim").count() == page.locator(same).count() > 0
    page.locator("button", has_text="this kind ›").click()
    page.wait_for_function(
        "!document.querySelector('.fl-target .fl-selected').classList.contains('fl-dim')"
    )
    kind.click()
    assert page.locator(".fl-dim").count() == 0


def test_a_group_is_tied_when_it_is_pointed_at(visit: Callable[..., Any]) -> None:
    page = visit()
    page.locator("#align-view .fl-status.fl-done").wait_for()
    token = page.locator(".fl-lane:not(.fl-target) .fl-k3[data-link]").first
    token.hover()
    assert page.locator(".fl-target .fl-tied").count() == 1
    assert page.locator(".fl-lane:not(.fl-target) .fl-tied").count() >= 2
    page.mouse.move(5, 5)
    page.wait_for_function("document.querySelectorAll('.fl-tied').length === 0")


def test_pictures_and_tables_are_saved(visit: Callable[..., Any]) -> None:
    page = visit()
    page.locator("#text textarea").fill(HOSTILE)
    page.locator("#analyze").click()
    page.wait_for_function("document.querySelector('.fl-axis').innerText.startsWith('<')")
    tools = page.locator("#align-view .fl-tools .fl-save")
    drawn = ElementTree.parse(saved(page, tools.get_by_role("button", name="SVG"))).getroot()
    words = "".join(drawn.itertext())
    assert "onerror" in words and "\u202e" not in words
    assert not [n for n in drawn.iter() if n.tag.endswith(("script", "foreignObject", "img"))]
    with Image.open(saved(page, tools.get_by_role("button", name="PNG"))) as picture:
        assert picture.width > 1000 and len(picture.convert("RGB").getcolors(1 << 24)) > 20
    page.locator(".fl-table-view summary").click()
    table = saved(page, page.locator(".fl-table-view .fl-save").get_by_role("button", name="CSV"))
    rows = list(csv.reader(io.StringIO(table.read_text("utf-8-sig"))))
    assert rows[0][1] == "target token" and len(rows) > 10
    assert not [c for row in rows for c in row if c.startswith(("=", "+", "@"))]
    board = page.locator(".fl-board-box .fl-save").get_by_role("button", name="CSV")
    assert "fused" in saved(page, board).read_text("utf-8-sig")
    page.get_by_role("tab", name="Fuse").click()
    page.wait_for_selector(FUSE)
    for button in page.locator("#fuse-view .fl-save button").all():
        assert saved(page, button).stat().st_size > 100


def test_every_step_of_the_walk_shows_itself(visit: Callable[..., Any]) -> None:
    page = visit(query="tab=learn", shows="#walk")
    button = page.locator("#walk").get_by_role("button").locator("visible=true")
    for number, (_, tab) in enumerate(STEPS):
        if number:
            button.filter(has_text="Next step").click()
            page.locator("#walk").get_by_role("heading", name=STEPS[number][0]).wait_for()
        button.filter(has_text="Show me").click()
        page.locator(f"button[role='tab'][aria-selected='true']:text-is('{tab}')").wait_for()
        if tab == "Fuse":
            page.wait_for_selector(FUSE)
        page.get_by_role("tab", name="Learn").click()
    assert page.get_by_text("notebooks/01_first_look.ipynb").is_visible()
    page.get_by_role("tab", name="Align").click()
    page.wait_for_function("document.querySelector('.fl-axis').innerText.length > 0")
