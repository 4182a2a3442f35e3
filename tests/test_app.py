"""The app in a real browser: what a visitor does, and what a visitor must not be able to do."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from visitors import WAIT

from app import example_texts as texts
from fusion_core import zoo

pytestmark = pytest.mark.browser
HOSTILE = (
    "<img src=x onerror=alert(1)> ${alert(1)} `${window.broken=1}` {{constructor}} "
    "</script><script>window.broken=1</script> a\u202eb\u2066c </s>"
)


def axis(page: Any) -> str:
    """Return the text on the score's axis."""
    return "".join(page.locator(".fl-axis").all_inner_texts()).replace("\n", "")


def analyse(page: Any, text: str) -> None:
    """Type a text and press Analyse; wait for its score and cards."""
    page.locator(".fl-status.fl-done, .fl-status.fl-error").wait_for()
    page.evaluate("document.querySelector('.fl-cards').dataset.index = ''")
    page.locator("#text textarea").fill(text)
    page.locator("#analyze").click()
    size = f"{len(text.encode()):,} bytes"
    page.locator(".fl-status.fl-done", has_text=size).wait_for()
    page.wait_for_function("document.querySelector('.fl-cards').dataset.index !== ''")


def done(page: Any) -> None:
    """Wait until nothing is going on."""
    page.locator(".fl-status.fl-done").wait_for()


def cards_for(page: Any, index: int) -> str:
    """Wait for the cards of a token and return their text."""
    page.wait_for_function(
        f"document.querySelector('.fl-cards').dataset.index === '{index}'", timeout=WAIT
    )
    return page.locator(".fl-cards").inner_text()


def lane_text(page: Any, lane: int) -> str:
    """Join the bytes that a lane's tokens cover, as their labels tell."""
    return page.evaluate(
        "lane => [...document.querySelectorAll(`.fl-token[data-lane='${lane}']`)]"
        ".map(n => n.getAttribute('aria-label').replace(/, bytes .*/s, '')).join('')",
        lane,
    )


def test_page_loads_with_an_analysis(visit: Callable[..., Any]) -> None:
    page = visit()
    assert page.title() == "FuseLab"
    assert "Elora" in axis(page) and "17*3=51" in axis(page)
    assert page.locator(".fl-system").first.locator(".fl-lane").count() == len(zoo.NAMES)
    assert page.locator(".fl-cards .fl-card").count() == len(zoo.NAMES)
    assert page.locator(".fl-board li").count() == len(zoo.NAMES) + 1
    assert page.get_by_role("tab").all_inner_texts() == [
        "Align", "Fuse", "Generate", "Train", "Learn"
    ]  # fmt: skip
    assert page.locator(".fl-target .fl-selected").count() >= 1
    assert page.locator(".fl-ring").count() >= 1


def test_own_text_is_read_by_every_model(visit: Callable[..., Any]) -> None:
    page = visit()
    analyse(page, "Anna buys 3 pears, 東京!")
    assert axis(page) == "Annabuys3pears,東京!"
    for lane in range(len(zoo.NAMES)):
        shown = lane_text(page, lane).replace("<s>", "")
        assert "Anna" in shown and "pears" in shown


def test_click_changes_the_cards(visit: Callable[..., Any]) -> None:
    page = visit()
    done(page)
    before = page.locator(".fl-cards").inner_text()
    tokens = page.locator(".fl-target .fl-token[data-link]")
    for index in (1, 4):
        tokens.nth(index).click()
        after = cards_for(page, index)
        assert after != before
        assert "kept mass" in after and "entropy" in after and "CE" in after
        before = after
    assert page.locator(".fl-target .fl-selected").count() == 1
    source = page.locator(".fl-lane:not(.fl-target) .fl-token.fl-k1[data-link]").nth(5)
    source.click()
    cards_for(page, int(source.get_attribute("data-link")))
    page.locator(".fl-strip i").nth(2).click()
    cards_for(page, 2)
    for source in page.locator(".fl-cards .fl-card").all()[:-1]:
        shares = source.locator(
            ".fl-column:last-child li:not(.fl-gone) .fl-number"
        ).all_inner_texts()
        assert sum(map(float, shares)) == pytest.approx(100, abs=1)


def test_keys_walk_and_a_burst_settles_on_the_last_token(visit: Callable[..., Any]) -> None:
    page = visit()
    done(page)
    page.locator(".fl-target .fl-token[data-link='0']").click()
    for _ in range(30):
        page.keyboard.press("ArrowRight")
    cards_for(page, 30)
    page.wait_for_timeout(300)
    assert page.locator(".fl-cards").get_attribute("data-index") == "30"
    assert page.evaluate("document.activeElement.dataset.link") == "30"
    assert page.evaluate("document.activeElement.getAttribute('aria-selected')") == "true"
    page.keyboard.press("ArrowLeft")
    cards_for(page, 29)
    page.keyboard.press("Home")
    cards_for(page, 0)
    page.keyboard.press("End")
    total = int(page.locator(".fl-place").inner_text().split(" of ")[1].split()[0])
    cards_for(page, total - 1)
    page.keyboard.press("Home")
    page.keyboard.press("n")
    place = page.locator(".fl-place").inner_text()
    page.locator("button", has_text="mismatch ›").click()
    page.wait_for_function(
        "old => document.querySelector('.fl-place').innerText !== old", arg=place
    )
    page.locator("button", has_text="‹ mismatch").click()
    page.wait_for_function(
        "old => document.querySelector('.fl-place').innerText === old", arg=place
    )


def test_hostile_text_is_text(visit: Callable[..., Any]) -> None:
    page = visit()
    analyse(page, HOSTILE)
    shown = axis(page)
    assert "<imgsrc=xonerror=alert(1)>" in shown and "${alert(1)}" in shown and "</s>" in shown
    assert "\u202e" not in shown and "\u2066" not in shown
    page.locator(".fl-table-view summary").click()
    page.locator(".fl-target .fl-token[data-link='3']").click()
    cards_for(page, 3)
    page.locator(".fl-target .fl-token[data-link='5']").hover()
    assert page.locator(".fl-tip").is_visible()
    assert page.locator(".fuselab-view img, .fuselab-view script").count() == 0
    assert page.evaluate("window.broken") is None
    left = page.evaluate(
        "[...document.querySelectorAll('.fl-axis')].every(a => { let x = -1;"
        "return [...a.children].every(c => { const l = c.offsetLeft; const ok = l >= x; x = l;"
        "return ok; }); })"
    )
    assert left


def choose(page: Any, box: str, name: str) -> None:
    """Type a name into a dropdown that takes names of its own."""
    field = page.locator(f"{box} input")
    field.click()
    field.fill(name)
    field.press("Enter")


def unchanged(page: Any, words: str, act: Callable[[], None]) -> None:
    """Do something wrong; it must be one sentence, and score and selection must stay."""
    before = axis(page), page.locator(".fl-place").inner_text()
    act()
    fault = page.locator(".fl-status.fl-error")
    fault.filter(has_text=words).wait_for()
    sentence = fault.inner_text()
    assert "\n" not in sentence and "Traceback" not in sentence and len(sentence) < 500
    assert (axis(page), page.locator(".fl-place").inner_text()) == before


def test_a_wrong_model_is_one_sentence(visit: Callable[..., Any], tmp_path: Any) -> None:
    page = visit()
    done(page)
    for name in (
        "zoo:nobody",
        "zoo:../../etc",
        "/no/such/folder",
        str(tmp_path),
        "<img src=x onerror=alert(1)>",
    ):
        unchanged(page, name, partial(choose, page, "#target", name))
        assert page.locator("#text textarea").input_value() == texts.OPENING
    choose(page, "#target", "zoo:llama")
    done(page)


def test_other_wrong_input_is_one_sentence(visit: Callable[..., Any]) -> None:
    page = visit()
    done(page)
    field, press = page.locator("#text textarea"), page.locator("#analyze").click

    def type_and_run(text: str) -> Callable[[], None]:
        return lambda: (field.fill(text), press())

    unchanged(page, "empty", type_and_run(""))
    unchanged(page, "20,000", type_and_run("x" * 2_000_000))
    assert len(field.input_value()) == 2_000_000
    analyse(page, "Tom has 3 apples.")
    page.locator("#top-k input").fill("0")
    unchanged(page, "Top-k", press)
    page.locator("#top-k input").fill("10")
    page.locator("#top-k input").press("Tab")
    done(page)
    unchanged(page, "named twice", lambda: choose(page, "#sources", "zoo:llama"))
    page.locator("#sources .token-remove[title='Remove 0']").click()
    done(page)
    assert field.input_value() == "Tom has 3 apples."


def test_settings_change_the_fusion(visit: Callable[..., Any]) -> None:
    page = visit()
    done(page)
    assert "MinCE, sequence level" in page.locator(".fl-fused").inner_text()
    page.locator("#level").get_by_text("token", exact=True).click()
    page.locator(".fl-fused", has_text="MinCE, token level").wait_for()
    for operator, alike in (("confidence", False), ("product", True), ("mean", True)):
        page.locator("#operator input").click()
        page.get_by_role("option", name=operator).click()
        page.locator(".fl-fused h4", has_text=operator).wait_for()
        assert "level" not in page.locator(".fl-fused h4").first.inner_text()
        assert ("all alike" in page.locator(".fl-strip-head").inner_text()) == alike
        assert "the target's own row" not in page.locator(".fl-strip-head").inner_text()
    page.locator("#example input").click()
    page.get_by_role("option", name="Python, indented").click()
    page.wait_for_function("document.querySelector('.fl-axis').innerText.startsWith('d')")
    assert page.locator(".fl-axis").count() > 1


def test_an_example_replaces_a_text_only_when_it_is_chosen(visit: Callable[..., Any]) -> None:
    page = visit()
    own = "my precious text"
    analyse(page, own)
    box = page.locator("#text textarea")
    for leave in ("Tab", "Escape"):
        page.locator("#example input").click()
        page.keyboard.press(leave)
        page.locator("h1").click()
        page.wait_for_timeout(400)
        assert box.input_value() == own
    for again in ("Many scripts", "Python, indented", "Many scripts"):
        page.locator("#example input").click()
        page.get_by_role("option", name=again).click()
        page.wait_for_function(
            "start => document.querySelector('#text textarea').value.startsWith(start)",
            arg=texts.examples()[again][:12],
        )
        done(page)


def test_a_strategy_with_nothing_to_say_says_so(visit: Callable[..., Any]) -> None:
    page = visit()
    page.locator("#strategy input").click()
    page.get_by_role("option", name="exact").click()
    done(page)
    page.locator(".fl-legend", has_text="the target's own row").wait_for()


def test_long_texts_have_pages(visit: Callable[..., Any]) -> None:
    page = visit()
    analyse(page, "Tom has 17 apples and Anna has 9 pears.\n" * 60)
    assert page.locator(".fl-token[data-lane='0']").count() < 700
    first = page.locator(".fl-place").inner_text()
    page.locator("button", has_text="page »").click()
    page.wait_for_function(
        "old => document.querySelector('.fl-place').innerText !== old", arg=first
    )
    index = int(page.locator(".fl-place").inner_text().split()[1]) - 1
    assert index > 200
    cards_for(page, index)
    assert page.locator(".fl-target .fl-selected").count() == 1
    page.locator(".fl-target .fl-selected").first.focus()
    page.keyboard.press("ArrowLeft")
    cards_for(page, index - 1)


@pytest.mark.parametrize(("width", "theme"), [(390, "light"), (1440, "dark")])
def test_every_width_and_theme_fits(visit: Callable[..., Any], width: int, theme: str) -> None:
    page = visit(width=width, theme=theme)
    done(page)
    for now in (width, 768):
        page.set_viewport_size({"width": now, "height": 900})
        for _ in range(2):
            page.evaluate("document.body.classList.toggle('dark')")
            page.wait_for_timeout(250)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert poor_contrast(page) == []
        beyond = page.evaluate(
            "[...document.querySelectorAll('.fuselab-view .fl-track, .fuselab-view .fl-card')]"
            ".filter(n => n.getBoundingClientRect().right > innerWidth).length"
        )
        assert beyond == 0


def poor_contrast(page: Any) -> list[str]:
    """List the places where text stands out by less than 4.5 to 1 from what is behind it."""
    return page.evaluate(
        """() => {
          const parse = (c) => c.match(/[\\d.]+/g).map(Number);
          const light = (c) => c.slice(0, 3).map((v) => v / 255)
            .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
            .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
          const ground = (n) => {
            for (; n; n = n.parentElement) {
              const c = parse(getComputedStyle(n).backgroundColor);
              if (c.length < 4 || c[3] > 0) return c;
            }
            return [255, 255, 255];
          };
          const poor = new Set();
          for (const n of document.querySelectorAll(".fuselab-view *")) {
            if (![...n.childNodes].some((c) => c.nodeType === 3 && c.data.trim())) continue;
            if (n.tagName === "BUTTON" && n.disabled) continue;
            const pair = [light(parse(getComputedStyle(n).color)), light(ground(n))].sort();
            const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
            if (ratio < 4.5) poor.add(n.className + " " + ratio.toFixed(2));
          }
          return [...poor];
        }"""
    )


def test_visitors_do_not_see_each_other(visit: Callable[..., Any]) -> None:
    first, second = visit(), visit()
    analyse(first, "One reads about apples.")
    analyse(second, "Two reads about pears.")
    assert axis(first) == "Onereadsaboutapples." and axis(second) == "Tworeadsaboutpears."
    first.locator(".fl-target .fl-token[data-link='2']").click()
    cards_for(first, 2)
    assert axis(first) == "Onereadsaboutapples."
