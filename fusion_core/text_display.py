"""How text is shown: grapheme clusters, the cells they take, signs for what cannot be seen."""

from __future__ import annotations

import unicodedata

import regex
from wcwidth import wcswidth

_SIGNS = {" ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍", "\xa0": "⍽", "\x7f": "␡", "\u3000": "⬚"}
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}
_MARKS = {"Mn", "Me", "Mc"}
_PICTURE = regex.compile(r"\p{Extended_Pictographic}")
_JOINERS = regex.compile("[\u200d\U000e0020-\U000e007f]")


def short_name(model: str) -> str:
    """Return a model's name without its folder and its ``zoo:``."""
    plain, mark, asked = model.partition("?")
    short = plain.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1].removeprefix("zoo:")
    return f"{short}{mark}{asked}" if short else model


def characters(text: str) -> list[str]:
    """Split a text into grapheme clusters, what a reader takes for characters."""
    return regex.findall(r"\X", text)


def cells(character: str) -> int:
    """Return how many cells of a monospaced axis a grapheme cluster and its sign take."""
    return max(1, wcswidth(character), wcswidth(visible(character)))


def visible(text: str) -> str:
    """Return a text with signs for what cannot be seen, safe to stand in a line of its own.

    Spaces, line ends and tabs have their own signs; other control and format characters, those
    that turn the writing direction included, become a box. A combining mark without a letter is
    drawn on a circle. What joins a picture of several code points stays in it.
    """
    return "".join(_visible(cluster) for cluster in characters(text))


def _visible(cluster: str) -> str:
    joined = _PICTURE.search(cluster) is not None
    shown, letter = [], False
    for char in cluster:
        kind = unicodedata.category(char)
        if char in _SIGNS:
            shown.append(_SIGNS[char])
        elif char < " ":
            shown.append(chr(0x2400 + ord(char)))
        elif kind in _HIDDEN and not (joined and _JOINERS.match(char)):
            shown.append("▯")
        elif kind in _MARKS and not letter:
            shown.append("◌" + char)
            letter = True
        else:
            shown.append(char)
            letter = True
    return "".join(shown)


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
    parts = characters(before)
    short = visible("".join(parts[-width:])).replace("·", " ").strip()
    cut = len(parts) > width or byte > 8 * width
    return ("…" if cut else "") + short
