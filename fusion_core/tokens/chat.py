"""Messages, in a model's chat template -> an `Encoding` of the bytes of their contents.

Models of different makers wrap the same messages in different control tokens and role names. What
they share is what was said: the contents, one after the other, are the text that is aligned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fusion_core.config import MAX_TEXT_BYTES, utf8
from fusion_core.errors import InputError
from fusion_core.records import Encoding

from .spans import ranges
from .tokenizer import TextTokenizer

_OPEN, _CLOSE = "\ue000", "\ue001"
"""Around the number that replaces a message's content while a template is traced."""


def encode_chat(tokenizer: TextTokenizer, messages: Sequence[dict[str, str]]) -> Encoding:
    """Encode messages as a model reads them in its chat template.

    Args:
        tokenizer: with a chat template.
        messages: each with a ``role`` and a ``content``.

    Returns:
        An encoding of the contents' bytes, joined. Tokens of the template have no width, are
        `special` and lie where they come between the contents; a token that reaches from the
        template into a content is cut to the content's bytes. What the template trims is `lost`.

    Raises:
        InputError: a message is malformed, the model has no template or its template refuses or
            rewrites the messages, or a content holds a control token of the model.
        TooLargeError: the contents have more than a million bytes.
    """
    contents = [_content(m) for m in messages]
    data = utf8("".join(contents), limit=MAX_TEXT_BYTES)
    rendered, places = _rendered(tokenizer, messages, contents)
    read = tokenizer.encode(rendered, template=True)
    widths = np.cumsum([0] + [len(c.encode()) for c in rendered])
    begins = np.asarray([widths[b] for b, _, _ in places], np.int64)
    ends = np.asarray([widths[e] for _, e, _ in places], np.int64)
    starts = np.asarray([s for _, _, s in places], np.int64)

    def place(byte: np.ndarray) -> np.ndarray:
        """Carry offsets in the rendered template to offsets in the contents."""
        last = np.searchsorted(begins, byte, side="right") - 1
        known = np.maximum(last, 0)
        inside = np.minimum(byte - begins[known], ends[known] - begins[known])
        return np.where(last < 0, 0, starts[known] + inside)

    last = np.maximum(np.searchsorted(begins, read.start, side="right") - 1, 0)
    within = (read.start >= begins[last]) & (read.start < ends[last])
    until = np.maximum(np.searchsorted(begins, read.end, side="left") - 1, 0)
    reaches = (read.end > begins[until]) & (read.start < ends[until])
    special = ~(within | reaches)
    start, end = place(read.start), place(read.end)
    end[special] = start[special]
    _check_control(tokenizer, read, within)
    lost = np.ones(len(data), bool)
    for b, e, s in zip(begins, ends, starts, strict=True):
        lost[s : s + e - b] = False
    for s, e in read.lost:
        lost[place(np.asarray(s)) : place(np.asarray(e))] = True
    return replace(
        read,
        data=data,
        start=start,
        end=end,
        special=special,
        lost=tuple(ranges(lost)),
        lossless=not lost.any() and (read.lossless or bool(read.lost)),
        dummy_prefix=False,
    )


def _check_control(tokenizer: TextTokenizer, read: Encoding, within: np.ndarray) -> None:
    """Refuse contents that hold control tokens; ``within`` says which tokens are a content's."""
    control = tokenizer.special_ids - {tokenizer.unknown_id}
    for token in np.flatnonzero(within).tolist():
        if int(read.ids[token]) in control:
            raise InputError(
                f"A message holds {read.pieces[token]!r}, a control token of {tokenizer.name}: "
                "take it out of the text."
            )


def _content(message: Any) -> str:
    if isinstance(message, dict) and isinstance(message.get("role"), str):
        content = message.get("content")
        if isinstance(content, str):
            return content
    raise InputError(
        'A message is malformed: give a list of objects with a "role" and a "content", both text.'
    )


def _rendered(
    tokenizer: TextTokenizer, messages: Sequence[dict[str, str]], contents: Sequence[str]
) -> tuple[str, list[tuple[int, int, int]]]:
    """Render the messages and find the contents in them.

    The template is first rendered with marks in place of the contents, which shows what it puts
    around them, however short or common a content is.

    Returns:
        The rendered text, and for each message that is shown ``(first character, one past the last
        character, first byte among the joined contents)``.
    """
    marks = [f"{_OPEN}{i}{_CLOSE}" for i in range(len(messages))]
    traced = _apply(tokenizer, [m | {"content": k} for m, k in zip(messages, marks, strict=True)])
    rendered = _apply(tokenizer, messages)
    places, cursor, before, done = [], 0, 0, 0
    for mark, content in zip(marks, contents, strict=True):
        found = traced.find(mark, cursor)
        if found >= 0:
            around = traced[cursor:found]
            after = traced[found + len(mark) :].partition(_OPEN)[0]
            done += len(around)
            shown = next(
                (c for c in (content, content.strip()) if rendered.startswith(c + after, done)),
                None,
            )
            if shown is None or not rendered.startswith(around, done - len(around)):
                raise _unfollowed(tokenizer)
            trimmed = len(content[: content.index(shown)].encode()) if shown else 0
            places.append((done, done + len(shown), before + trimmed))
            cursor, done = found + len(mark), done + len(shown)
        before += len(content.encode())
    if rendered[done:] != traced[cursor:]:
        raise _unfollowed(tokenizer)
    return rendered, places


def _unfollowed(tokenizer: TextTokenizer) -> InputError:
    return InputError(
        f"The chat template of {tokenizer.name} rewrites these messages, so that their bytes "
        "cannot be followed: align the plain text."
    )


def _apply(tokenizer: TextTokenizer, messages: Sequence[dict[str, str]]) -> str:
    if tokenizer.render is None:
        raise InputError(
            f"{tokenizer.name} has no chat template: align the plain text, or name a chat model."
        )
    try:
        return tokenizer.render(list(messages), tokenize=False)
    except Exception as error:  # templates raise what they like
        raise InputError(
            f"The chat template of {tokenizer.name} refuses these messages ({str(error)[:200]}): "
            "change their roles or order."
        ) from error
