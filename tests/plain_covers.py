"""Oracle of exact rows: every token sequence that spells a text, one by one, in plain Python.

Nothing here shares code with the package. Bytes come from the vocabulary's entries, tokenisations
from the raw tokenizer, probabilities from plain forward passes, sums from loops in float64.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch
from tokenizers import Tokenizer, pre_tokenizers
from transformers.convert_slow_tokenizer import bytes_to_unicode

ALPHABET = {c: b for b, c in bytes_to_unicode().items()}
CHARACTERS = {b: c for c, b in ALPHABET.items()}

AFTER = ("", "a", "1", "\U0010fffd")
"""What may follow white space: nothing, a letter, a digit, or what no space is merged with."""

Path = tuple[int, ...]


@dataclass
class Expected:
    """What a model expects at one byte.

    Attributes:
        total: probability that its text begins so, all tokenisations together.
        never: of that, on tokens after the byte that the tokenizer never puts after the last one.
        next_byte: 256 probabilities, relative to what is left.
        end: probability that the text ends, alike.
    """

    total: float = 0.0
    never: float = 0.0
    next_byte: list[float] = field(default_factory=lambda: [0.0] * 256)
    end: float = 0.0


class PlainModel:
    """A network and a raw tokenizer, asked one sequence at a time."""

    def __init__(
        self,
        backend: Tokenizer,
        network: Any,
        start: int | None,
        ends: Sequence[int],
        style: str,
    ) -> None:
        """Take both.

        Args:
            backend: the raw tokenizer.
            network: the raw network.
            start: token that is read before a text.
            ends: tokens that end one.
            style: "bytes" for a byte alphabet; "mark" where `▁` is a space, and begins words;
                "unsplit" where it begins none.
        """
        self.backend, self.network, self.style = backend, network, style
        self.start, self.ends, self.size = start, ends, backend.get_vocab_size()
        state = json.loads(backend.to_str())
        special = {start, *ends, *(t["id"] for t in state["added_tokens"])}
        unknown = state["model"].get("unk_token")
        self.continued = state["model"].get("continuing_subword_prefix") or ""
        self.spelled: list[bytes | None] = []
        for i in range(self.size):
            entry = backend.id_to_token(i)
            silent = i in special or entry in (None, unknown)
            self.spelled.append(None if silent else self._bytes(entry))
        first = backend.encode("a", add_special_tokens=False).tokens[0]
        self.dummy = first.startswith(("▁", "Ġ"))
        self._known: dict[Path, list[float]] = {}
        self._pairs: dict[tuple[int, int], bool] = {}

    # The tokenizer, asked ----------------------------------------------------------------------

    def _bytes(self, entry: str) -> bytes:
        if self.style == "bytes":
            return bytes(ALPHABET[c] for c in entry)
        if re.fullmatch("<0x[0-9A-F]{2}>", entry):
            return bytes([int(entry[3:5], 16)])
        entry = entry.removeprefix(self.continued) if self.continued else entry
        return entry.replace("▁", " ").encode()

    def encode(self, text: str) -> Path:
        return tuple(self.backend.encode(text, add_special_tokens=False).ids)

    def joins(self, last: int, token: int) -> bool:
        """Tell whether no text has two tokens side by side: what both spell is cut otherwise."""
        if (last, token) not in self._pairs:
            one, two = self.spelled[last], self.spelled[token]
            apart = not one or not two
            if one and two:
                spaces = two[-1:].isspace()
                follows = [one + two + f.encode() for f in (AFTER if spaces else ("",))]
                if self.style == "bytes" and in_characters(one + two)[2]:
                    follows = [t.encode() for t in completed(one + two)] or follows
                apart = any(self._within(s)[:2] == [last, token] for s in follows)
                if self.continued:  # a token within a word comes after one that begins it
                    begins = [(x, i) for i, x in enumerate(self.spelled) if x and len(x) == 1]
                    apart = apart or any(
                        self._within(x + s)[:3] == [i, last, token]
                        for x, i in begins
                        for s in follows
                    )
            self._pairs[last, token] = not apart
        return self._pairs[last, token]

    def _within(self, string: bytes) -> list[int]:
        """Cut what lies within a text, by the model alone, word by word."""
        head, text, tail = in_characters(string)
        if self.style == "bytes":
            if head or tail:
                words = ["".join(CHARACTERS[b] for b in string)]
            else:
                part = pre_tokenizers.ByteLevel(add_prefix_space=False)
                words = [w for w, _ in part.pre_tokenize_str(text)]
            return [t.id for w in words for t in self.backend.model.tokenize(w)]
        marked = text.replace(" ", "▁")
        words = re.findall("▁?[^▁]*", marked)[:-1] if self.style == "mark" else [marked]
        inner = [t.id for w in words if w for t in self.backend.model.tokenize(w)]
        first, last = (
            [self.backend.token_to_id(f"<0x{b:02X}>") for b in part] for part in (head, tail)
        )
        return [*first, *inner, *last]

    def is_beginning(self, path: Path, head: bytes) -> bool:
        """Tell whether tokens are how the tokenizer spells a text's head, if something follows."""
        if not path:
            return True
        if not head:  # the dummy prefix alone
            return list(path) == [t.id for t in self.backend.model.tokenize("▁")]
        follows = ("", "a") if head[-1:].isspace() else ("",)
        return any(
            self.encode(t + f)[: len(path)] == path for t in completed(head) for f in follows
        )

    # The network, asked ------------------------------------------------------------------------

    def probs(self, path: Path) -> list[float]:
        """Probabilities of the next token after a text's first ones, in one plain pass."""
        if path not in self._known:
            read = [*([] if self.start is None else [self.start]), *path]
            with torch.no_grad():
                logits = self.network(input_ids=torch.tensor([read])).logits[0, -1, : self.size]
            self._known[path] = logits.double().softmax(0).tolist()
        return self._known[path]

    def nats(self, text: str) -> float:
        """Cross-entropy of a text, and its end, in the tokenizer's own tokens."""
        ids = self.encode(text)
        read = [*([] if self.start is None else [self.start]), *ids]
        with torch.no_grad():
            logits = self.network(input_ids=torch.tensor([read])).logits[0, :, : self.size]
        given = logits.double().log_softmax(-1)
        begin = int(self.start is not None)
        steps = [given[n - 1 + begin, i] for n, i in enumerate(ids) if n or begin]
        end = given[-1, list(self.ends)].logsumexp(0)
        return -float(torch.stack(steps).sum() + end)

    # The sum over all --------------------------------------------------------------------------

    def beginnings(self, data: bytes) -> Iterator[tuple[Path, int, float]]:
        """List all sequences that spell a beginning of a text, and are canonical all along.

        The text may end within a character.

        Yields:
            Tokens, bytes that they spell (a dummy prefix counts), and their probability.
        """
        shown = b" " * self.dummy + data

        def grow(path: Path, done: int) -> Iterator[tuple[Path, int, float]]:
            if not self.is_beginning(path, shown[self.dummy : done] if done else b""):
                return
            weight = 1.0
            for n, token in enumerate(path):
                if n or self.start is not None:
                    weight *= self.probs(path[:n])[token]
            yield path, done, weight
            for token, spelled in enumerate(self.spelled):
                if spelled and shown.startswith(spelled, done):
                    yield from grow((*path, token), done + len(spelled))

        yield from grow((), 0)

    def expects(self, data: bytes) -> list[Expected]:
        """Sum over all token sequences that spell x[:b], or go beyond it with their last token."""
        shown = b" " * self.dummy + data
        found = [Expected() for _ in range(len(data) + 1)]
        for path, done, weight in self.beginnings(data):
            if self.start is None and path[:1] != self.encode(data.decode())[:1]:
                continue  # what comes first is not predicted
            inside = _is_inside(shown, done)
            for token, p in enumerate(self.probs(path)):
                spelled = self.spelled[token] or b""
                never = bool(path) and self.joins(path[-1], token)
                never |= inside and bool(spelled) and spelled[0] & 0xC0 != 0x80
                never |= inside and bool(spelled) and self._has_character(shown[:done] + spelled)
                self._add(found, shown, (done, token, weight * p, never))
        for one in found:
            left = one.total - one.never
            one.next_byte = [p / left if left else 0.0 for p in one.next_byte]
            one.end = one.end / left if left else 0.0
        return found

    def _has_character(self, string: bytes) -> bool:
        """Tell whether the last character has a token, and so is not spelled in bytes."""
        begin = max(n for n, b in enumerate(string) if b & 0xC0 != 0x80)
        return self.style != "bytes" and string[begin:] in self.spelled

    def _add(self, found: list[Expected], shown: bytes, last: tuple[int, int, float, bool]) -> None:
        """Count a sequence at all bytes that its last token reaches."""
        done, token, p, never = last
        spelled = self.spelled[token] or b""
        for b, one in enumerate(found):
            known = shown[done : b + self.dummy]
            if b + self.dummy < done:
                continue
            if known and not (spelled.startswith(known) and len(spelled) > len(known)):
                break
            if known and never:
                continue
            one.total += p
            if never:
                one.never += p
            elif spelled:
                one.next_byte[spelled[len(known)]] += p
            elif token in self.ends:
                one.end += p


def in_characters(string: bytes) -> tuple[bytes, str, bytes]:
    """Split bytes into the end of a character, whole ones, and bytes that are none."""
    rest = string.lstrip(bytes(range(0x80, 0xC0)))
    try:
        return string[: len(string) - len(rest)], rest.decode(), b""
    except UnicodeDecodeError as error:
        text = rest[: error.start].decode()
        return string[: len(string) - len(rest)], text, rest[error.start :]


def completed(head: bytes) -> list[str]:
    """List texts that begin with bytes and end with the character that they have begun."""
    found = []
    for n in range(4):
        for more in product((0x80, 0x9F, 0xBF), repeat=n):  # some second bytes end earlier
            try:
                text = (head + bytes(more)).decode()
            except UnicodeDecodeError:
                continue
            if not (n and text[-1:].isspace()):  # white space is rare among what begins alike
                found.append(text)
        if found:
            break
    return found


def _is_inside(shown: bytes, done: int) -> bool:
    """Tell whether a place lies within a character."""
    return shown[done : done + 1] != b"" and shown[done] & 0xC0 == 0x80
