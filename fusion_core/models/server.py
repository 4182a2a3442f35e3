"""OpenAI-compatible servers: lists of ids -> a model's most probable tokens after each of them.

A completion that echoes its prompt names for every token of it the log-probability that the model
gave it, and the most probable tokens in its place. vLLM takes and gives ids; others take text and
give strings, which stand for an id where one token alone is written so.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import httpx
import numpy as np

from fusion_core.errors import InputError, ModelFormatError, ModelNotFoundError, shown
from fusion_core.tokens import TextTokenizer

KEY = "FUSELAB_SERVER_KEY"
"""Environment variable that holds a server's key, where it wants one."""

SECONDS = 600.0
"""Longest answer to one request."""

PATIENCE = 120.0
"""Seconds for which a server that has answered before is asked again."""

TOKENS_AT_ONCE = 4096
"""Of the prompts of one request."""

PROBE = (
    "It's 10:30; the café (in Zürich) has 25 tables.\n\n    def area(x, y):\n\treturn x * y\n"
    "東京都に行く。 Привет, мир! नमस्ते 🙂 supercalifragilistic hahahaha  ====== fin"
)
"""Text that is sent as it is, to see whether a tokenizer is the server's."""

FEW = 5
"""Tokens of each place that are asked for where none are needed."""

_ID = "token_id:"


@dataclass(frozen=True, eq=False)
class Scored:
    """What a server says of n ids, and of what follows them.

    Attributes:
        ids: (n + 1, k) int64, the most probable tokens in the place of each id and after them, by
            falling probability; -1 for none. The first id follows nothing, of which no row is had.
        logprobs: (n + 1, k) float32 nats; -inf for none.
        observed: (n + 1,) float32, log-probability of each id; nan of the first and after them.
    """

    ids: np.ndarray
    logprobs: np.ndarray
    observed: np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class Server:
    """A model behind an OpenAI-compatible server.

    Attributes:
        address: of its programming interface, such as ``http://localhost:8000/v1``.
        model: what the server calls it.
        tokenizer: the model's.
        by_ids: whether it takes and gives ids.
        context: most tokens that it reads at once; None where it does not say.
        patience: seconds for which it is asked again where it does not answer, or is busy.
    """

    address: str
    model: str
    tokenizer: TextTokenizer
    by_ids: bool = True
    context: int | None = None
    patience: float = 0.0

    def __repr__(self) -> str:
        return f"Server({self.model} at {self.address})"

    @staticmethod
    def connect(name: str, tokenizer: TextTokenizer) -> Server:
        """Ask a server for its models, and try what it answers.

        Args:
            name: ``http://HOST/v1#MODEL``.
            tokenizer: what is said to be the model's.

        Raises:
            ModelNotFoundError: it does not answer, or has no such model.
            ModelFormatError: it gives no log-probabilities of a prompt, or reads other tokens.
            InputError: it wants another key.
        """
        address, _, model = name.partition("#")
        server = Server(address.rstrip("/"), model, tokenizer)
        known = server._asked("GET", "/models").get("data", [])
        entry = next((m for m in known if m.get("id") == model), None)
        if entry is None:
            names = ", ".join(shown(str(m.get("id"))) for m in known[:8]) or "none"
            raise ModelNotFoundError(
                f"The server at {address} has no model {shown(model)}: choose from {names}."
            )
        server = replace(server, context=entry.get("max_model_len"))
        return replace(server._tried(), patience=PATIENCE)

    def score(self, read: Sequence[np.ndarray], top_k: int) -> list[Scored]:
        """Ask for the most probable tokens along lists of ids, some lists at once.

        Raises:
            ModelNotFoundError: the server does not answer any more.
            ModelFormatError: it answers otherwise than for other texts.
            InputError: it gives fewer tokens than asked for, or wants another key.
        """
        out: list[Scored] = []
        for some in self._batches(read):
            prompts = [self._prompt(ids) for ids in some]
            for ids, answer in zip(some, self._completed(prompts, top_k), strict=True):
                out.append(self._scored(ids, answer, top_k))
        return out

    # Requests ----------------------------------------------------------------------------------

    def _batches(self, read: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
        batch: list[np.ndarray] = []
        for ids in read:
            if batch and (not self.by_ids or sum(map(len, batch)) + len(ids) > TOKENS_AT_ONCE):
                yield batch
                batch = []
            batch.append(ids)
        if batch:
            yield batch

    def _prompt(self, ids: np.ndarray) -> list[int] | str:
        """Write ids as a prompt; where they are sent as such, one more, whose place has a row."""
        if self.by_ids:
            return [*ids.tolist(), int(ids[-1])]
        entry, of = self.tokenizer.entry, self.tokenizer.bytes_of
        pieces = [piece if (piece := of[i]) is not None else entry(i).encode() for i in ids]
        try:
            return b"".join(pieces).decode()
        except UnicodeDecodeError as error:
            raise InputError(
                f"A part of this text ends within a character, and the server of {self.model} "
                "takes whole ones alone: give shorter documents."
            ) from error

    def _completed(self, prompts: Sequence[list[int] | str], top_k: int) -> list[dict[str, Any]]:
        """Return each prompt's ``tokens``, ``token_logprobs`` and ``top_logprobs``."""
        body = {
            "model": self.model,
            "prompt": list(prompts) if self.by_ids else prompts[0],
            "max_tokens": 1,
            "temperature": 0,
            "echo": True,
            "logprobs": top_k,
            "return_tokens_as_token_ids": True,
            "add_special_tokens": False,
        }
        choices = self._asked("POST", "/completions", body).get("choices") or []
        found = [c.get("logprobs") for c in sorted(choices, key=lambda c: c.get("index", 0))]
        if len(found) != len(prompts) or not all(found):
            raise ModelFormatError(
                f"The server of {self.model} gives no log-probabilities of a prompt: start one "
                "that does, such as vLLM's, or load the model."
            )
        return found

    def _asked(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Send a request, again where there is no answer; return what is answered."""
        until, pause = time.monotonic() + self.patience, 0.5
        while True:
            try:
                answer = self._client.request(method, self.address + path, json=body)
                busy = answer.status_code in (408, 429) or answer.status_code >= 500
                reason = f"status {answer.status_code}"
            except httpx.HTTPError as error:
                busy, reason = True, type(error).__name__
            if not busy:
                return self._read(answer)
            if time.monotonic() + pause > until:
                raise ModelNotFoundError(
                    f"The server at {self.address} does not answer ({reason}): start it (again), "
                    "and repeat the command; a cache goes on where it was."
                )
            time.sleep(pause)
            pause = min(2 * pause, 10)

    def _read(self, answer: httpx.Response) -> dict[str, Any]:
        if answer.status_code in (401, 403):
            raise InputError(
                f"The server at {self.address} refuses the key: put its key into the environment "
                f"variable {KEY}."
            )
        try:
            values = answer.json()
        except ValueError:
            values = None
        if answer.is_success and isinstance(values, dict):
            return values
        error = values.get("error", values) if isinstance(values, dict) else {}
        said = error.get("message") if isinstance(error, dict) else error
        raise ModelFormatError(
            f"The server at {self.address} refuses a request with status {answer.status_code} "
            f"({shown(str(said or 'no reason given')[:200])}): check its "
            "limits, and its address, which ends in /v1 as a rule."
        )

    @cached_property
    def _client(self) -> httpx.Client:
        key = os.environ.get(KEY)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(timeout=httpx.Timeout(SECONDS, connect=10), headers=headers)

    # Answers -----------------------------------------------------------------------------------

    def _tried(self) -> Server:
        """Find out whether the server reads the tokenizer's tokens, and whether it takes ids."""
        encoding = self.tokenizer.encode(PROBE)
        ids = encoding.ids[encoding.text_tokens]
        by_text = replace(self, by_ids=False)
        plain = by_text._completed([PROBE], FEW)[0]
        by_text._check_places(plain)
        if not all(str(token).startswith(_ID) for token in plain["tokens"]):
            by_text._check_tokens(ids, plain)
            return by_text
        self._check_tokens(ids, plain)
        self._check_tokens(ids, self._completed([self._prompt(ids)], FEW)[0])
        return self

    def _check_places(self, answer: dict[str, Any]) -> None:
        """Refuse a server whose rows know the token that they predict: those of the next place.

        Rows before the last token of a text are the same whatever that token is.
        """
        other = self._completed([PROBE[:-3] + "other"], FEW)[0]
        pairs = zip(answer["tokens"], other["tokens"], strict=False)
        differ = next((n for n, (a, b) in enumerate(pairs) if a != b), 0)
        rows = [(x["top_logprobs"][differ : differ + 1] or [None])[0] for x in (answer, other)]
        best = [max(row.items(), key=lambda entry: entry[1]) if row else None for row in rows]
        if (
            not (best[0] and best[1])
            or best[0][0] != best[1][0]
            or abs(best[0][1] - best[1][1]) > 0.1
        ):
            raise ModelFormatError(
                f"The server of {self.model} gives each token the log-probabilities of the place "
                "behind it (llama-cpp-python does): serve the model with vLLM, or name its GGUF "
                "file as the source."
            )

    def _check_tokens(self, ids: np.ndarray, answer: dict[str, Any]) -> None:
        """Refuse an answer of which the tokens are not these, and one more."""
        tokens = [str(t) for t in answer["tokens"]]
        if self.by_ids:
            ours = [f"{_ID}{i}" for i in ids.tolist()]
        else:
            ours = [self._strings[i] for i in ids.tolist()]
        if tokens[: len(ours)] != ours or len(tokens) > len(ours) + 2:
            raise ModelFormatError(
                f"{self.tokenizer.name} does not cut text as the server of {self.model} does: name "
                "the tokenizer that the server has."
            )

    def _scored(self, ids: np.ndarray, answer: dict[str, Any], top_k: int) -> Scored:
        """Read what was answered for ids."""
        self._check_tokens(ids, answer)
        n = len(ids)
        found = np.full((n + 1, top_k), -1, np.int64)
        logprobs = np.full((n + 1, top_k), -np.inf, np.float32)
        given = [np.nan if p is None else p for p in answer["token_logprobs"][:n]]
        observed = np.asarray([*given, np.nan], np.float32)
        observed[0] = np.nan
        for place, row in enumerate(answer["top_logprobs"][: n + 1]):
            named = {self._id_of(token): p for token, p in (row or {}).items()}
            if place < n and row and observed[place] >= min(row.values()):
                named[int(ids[place])] = float(observed[place])  # its string may be another's, too
            best = sorted(((p, i) for i, p in named.items() if i >= 0), reverse=True)[:top_k]
            for column, (p, i) in enumerate(best):
                found[place, column], logprobs[place, column] = i, p
        return Scored(found, logprobs, observed)

    def _id_of(self, token: str) -> int:
        """Return the id that a server writes so; -1 where several are."""
        if token.startswith(_ID):
            return int(token.removeprefix(_ID))
        return self._ids.get(token, -1)

    @cached_property
    def _strings(self) -> list[str]:
        """What a server that gives strings writes for each id."""
        return [(b or b"").decode("utf-8", "ignore") for b in self.tokenizer.bytes_of]

    @cached_property
    def _ids(self) -> dict[str, int]:
        """The ids that are alone in what is written for them."""
        count = Counter(self._strings)
        return {s: i for i, s in enumerate(self._strings) if s and count[s] == 1}
