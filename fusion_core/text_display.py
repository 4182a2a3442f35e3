"""How text stands on the score's axis: characters, the cells they take, signs for the unseen."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

ZWJ = "\u200d"
_SIGNS = {" ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍", "\xa0": "⍽", "\x7f": "␡", "\u3000": "⬚"}
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}


def characters(text: str) -> list[str]:
    """Split a text into what a reader takes for characters.

    Combining marks, joined emoji, skin tones and pairs of regional indicators stay together; this
    is the part of Unicode's grapheme clusters that text models meet, not all of it.

    Args:
        text: any text.

    Returns:
        The characters in order; joined they are the text.
    """
    parts: list[str] = []
    for char in text:
        if parts and _continues(parts[-1], char):
            parts[-1] += char
        else:
            parts.append(char)
    return parts


def _continues(before: str, char: str) -> bool:
    last = before[-1]
    if last in "\r\n\t " or (len(before) == 1 and unicodedata.category(last) in ("Cc", "Cf")):
        return False
    if unicodedata.category(char) in ("Mn", "Me", "Mc"):
        return True
    if "\U0001f3fb" <= char <= "\U0001f3ff" or "\U000e0020" <= char <= "\U000e007f":
        return _is_picture(before[0])
    if char == ZWJ:
        return _is_picture(before[0])
    if last == ZWJ:
        return _is_picture(char)
    return _is_regional(char) and len(before) == 1 and _is_regional(before)


def _is_picture(char: str) -> bool:
    return unicodedata.category(char) == "So" or "\U0001f000" <= char <= "\U0001faff"


def _is_regional(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"


def cells(character: str) -> int:
    """Return how many cells of a monospaced axis a character takes: 1, or 2 for wide ones."""
    wide = unicodedata.east_asian_width(character[0]) in "WF"
    return (
        2
        if wide or "\ufe0f" in character or (len(character) > 1 and _is_regional(character[0]))
        else 1
    )


def visible(text: str) -> str:
    """Return a text with signs for what cannot be seen, safe to stand in a line of its own.

    Spaces, line ends and tabs have their own signs; other control and format characters, those
    that turn the writing direction included, become a box.
    """
    shown = []
    for character in characters(text):
        first = character[0]
        if first in _SIGNS:
            shown.append(_SIGNS[first])
        elif first < " ":
            shown.append(chr(0x2400 + ord(first)))
        elif unicodedata.category(first) in _HIDDEN:
            shown.append("▯")
        elif unicodedata.category(first) in ("Mn", "Me", "Mc"):
            shown.append("◌" + character)
        else:
            shown.append("".join(c for c in character if c == ZWJ or not _turns(c)))
        if first in _SIGNS and len(character) > 1:
            shown.append("◌" + character[1:])
    return "".join(shown)


def _turns(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cf") and not "\U000e0020" <= char <= "\U000e007f"


def token_label(data: bytes, start: int, end: int, piece: str) -> str:
    """Return what to write into a token's box; empty where it covers no whole character.

    Args:
        data: the text as UTF-8.
        start: first byte of the token.
        end: one past its last byte.
        piece: the token as readable text, which may differ from the text that it covers
            (an unknown token, a normalised character).
    """
    covered = data[start:end]
    try:
        text = covered.decode("utf-8")
    except UnicodeDecodeError:
        return visible(covered.decode("utf-8", "ignore"))
    return visible(text if piece.removeprefix(" ") == text or piece == text else piece)


def around(data: bytes, byte: int, width: int = 14) -> str:
    """Return the last characters before a byte of a text, as they are quoted in a sentence."""
    before = data[max(0, byte - 8 * width) : byte].decode("utf-8", "ignore")
    parts: Sequence[str] = characters(before)
    short = visible("".join(parts[-width:])).replace("·", " ").strip()
    cut = len(parts) > width or byte > 8 * width
    return ("…" if cut else "") + short
