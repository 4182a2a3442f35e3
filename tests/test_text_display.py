"""Text as it is shown: grapheme clusters, cells, signs for what cannot be seen."""

from __future__ import annotations

import unicodedata

import pytest

from fusion_core import text_display

FAMILY = "👩🏽‍🚀"
UNSEEN: dict[str, list[str]] = {kind: [] for kind in ("Cc", "Cf", "Cs", "Zl", "Zp")}
for _code in [*range(0x20000), *range(0xE0000, 0xE1000)]:
    _kind = unicodedata.category(chr(_code))
    if _kind in UNSEEN and (_kind != "Cs" or _code % 64 == 0):
        UNSEEN[_kind].append(chr(_code))


@pytest.mark.parametrize(
    ("text", "parts", "widths"),
    [
        ("ab", ["a", "b"], [1, 1]),
        ("e\u0301x", ["e\u0301", "x"], [1, 1]),
        ("東é", ["東", "é"], [2, 1]),
        (f"{FAMILY}!", [FAMILY, "!"], [2, 1]),
        ("🇩🇪🇫🇷", ["🇩🇪", "🇫🇷"], [2, 2]),
        # A mark on a space, and a joiner after a letter, belong to what is before them (UAX 29);
        # their signs need a cell more.
        (" \u0301\n", [" \u0301", "\n"], [2, 1]),
        ("❤️", ["❤️"], [2]),
        ("a\u200db", ["a\u200d", "b"], [2, 1]),
        ("1️⃣2", ["1️⃣", "2"], [2, 1]),  # a keycap
        ("🏴\U000e0067\U000e0062\U000e007fx", ["🏴\U000e0067\U000e0062\U000e007f", "x"], [2, 1]),
        # Of these the parts stood apart as long as clusters were found by categories alone.
        ("\u1112\u1161\u11ab!", ["\u1112\u1161\u11ab", "!"], [2, 1]),  # Hangul jamo
        ("क्षिa", ["क्षि", "a"], [2, 1]),  # a Devanagari conjunct
        ("กำ", ["กำ"], [2]),  # Thai sara am
        ("\r\nx", ["\r\n", "x"], [2, 1]),
    ],
)
def test_characters_and_cells(text: str, parts: list[str], widths: list[int]) -> None:
    assert text_display.characters(text) == parts
    assert [text_display.cells(p) for p in parts] == widths


def test_nothing_invisible_or_turning_is_shown_as_itself() -> None:
    text = " \n\t\r\x00\x1b\x7f\xa0\u202e\u2066\u200b\ufeff\u2028\U000e0041\ue000"
    shown = text_display.visible(text)
    assert len(shown) == len(text)
    assert not set(shown) & set(text)
    assert text_display.visible("<b>`${1}`") == "<b>`${1}`"
    assert text_display.visible("مرحبا") == "مرحبا"


@pytest.mark.parametrize("before", ["", "a", "é", "東", "م", " ", "\r", FAMILY])
@pytest.mark.parametrize("kind", list(UNSEEN))
def test_no_control_or_format_character_hides_behind_another(before: str, kind: str) -> None:
    """What joins a letter is in its cluster, and must be seen there, too; emoji may be joined."""
    joins = {"\u200d", *map(chr, range(0xE0020, 0xE0080))} if before == FAMILY else set()
    for char in UNSEEN[kind]:
        shown = text_display.visible(before + char)
        assert char in joins or char not in shown, ascii(char)
        assert len(shown) > len(text_display.visible(before)), ascii(char)


@pytest.mark.parametrize(
    ("covered", "piece", "label"),
    [
        (b"Tom", " Tom", "Tom"),  # a dummy prefix is no text
        (b" a", " a", "·a"),
        ("é".encode()[:1], "\\xc3", ""),
        (b" " + "é".encode()[:1], " \\xc3", "·"),
        ("東".encode(), "<unk>", "<unk>"),
    ],
)
def test_token_labels(covered: bytes, piece: str, label: str) -> None:
    assert text_display.token_label(covered, 0, len(covered), piece) == label


def test_short_names() -> None:
    assert text_display.short_name("zoo:llama") == "llama"
    assert text_display.short_name("owner/model") == "model"
    assert text_display.short_name("owner/model?start=</s>") == "model?start=</s>"
    assert text_display.short_name("/a/b/model/") == "model"
    assert text_display.short_name("C:\\models\\m") == "m"
