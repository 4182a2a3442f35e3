"""The mutable state that visitors share: loaded models, limits, and the analyses they look at."""

from __future__ import annotations

import ctypes
import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fusion_core import models, pipeline
from fusion_core.config import FusionConfig, utf8
from fusion_core.errors import FusionError, InputError, shown
from fusion_core.records import Analysis

from . import cards, gpu, views, work
from .limits import Limits
from .shelf import PROGRESS_SECONDS, Shelf
from .work import Request

KEPT_ANALYSES = 64
GONE = "The server no longer has this analysis: press Analyse to read the text again."


@dataclass(frozen=True)
class Kept:
    """An analysis under the name by which pages ask for parts of it.

    Attributes:
        id: its unguessable name.
        request: what it is an analysis of.
        analysis: what the page looks at.
        pieces: for each model's name, token id -> readable text.
        extras: what was worked out about the same text later, by name.
    """

    id: str
    request: Request
    analysis: Analysis
    pieces: dict[str, views.Piece]
    extras: dict[str, Any] = field(default_factory=dict)


def give_back() -> None:
    """Return what the heap no longer needs to the system, where the C library can (glibc)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def text_of(what: str, value: Any) -> str:
    """Return a text that a visitor gave; nothing is an empty one.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(value, str | None):
        raise InputError(f"{what} must be text, not {shown(value)}.")
    return value or ""


class Session:
    """One process's state, shared by its visitors."""

    def __init__(self, limits: Limits | None = None, device: str | None = None) -> None:
        """Start with no model loaded and nothing kept.

        Args:
            limits: those of this place by default.
            device: where models run; ``FUSELAB_DEVICE`` by default, else the CPU.
        """
        self.limits = limits or Limits.here()
        usual = "cuda" if gpu.LENT else "cpu"
        self.device = device = device or os.environ.get("FUSELAB_DEVICE") or usual
        self.shelf = Shelf(
            self.limits.memory_bytes,
            lambda name: models.load(name, device=device, max_bytes=self.limits.model_bytes),
        )
        self._lock = threading.Lock()
        self._kept: OrderedDict[Request, Kept] = OrderedDict()
        self._doing: dict[Request, threading.Event] = {}

    def names(self, target: str | None, sources: Sequence[str] | None) -> tuple[str, ...]:
        """Check which models a visitor asks for, before anything is loaded.

        Returns:
            Their names, the target first.

        Raises:
            FusionError: one sentence that says what to change.
        """
        target = text_of("target", target).strip()
        if not isinstance(sources, list | tuple | None):
            raise InputError(f"sources must be a list of names, not {shown(sources)}.")
        names = tuple(
            s.strip() for s in (text_of("sources", x) for x in sources or ()) if s.strip()
        )
        if not target:
            raise InputError("There is no target: choose the model that is to learn.")
        if not names:
            raise InputError("There is no source: choose at least one model to learn from.")
        if len(names) > self.limits.sources:
            raise InputError(
                f"{len(names)} sources are more than the limit of {self.limits.sources} on this "
                "page: remove some."
            )
        pipeline.check_names(*names)
        for name in (target, *names):
            self._check_place(name)
        return (target, *names)

    def request(
        self, target: str | None, sources: Sequence[str] | None, text: str | None, **options: Any
    ) -> Request:
        """Check what a visitor asks for, before anything is loaded.

        Raises:
            FusionError: one sentence that says what to change.
        """
        text = text_of("text", text)
        utf8(text, limit=self.limits.text_bytes)
        first, *others = self.names(target, sources)
        return Request(first, tuple(others), text, FusionConfig(**options))

    def _check_place(self, name: str) -> None:
        if self.limits.local_folders or name.startswith("zoo:"):
            return
        plain = models.split_name(name)[0]
        elsewhere = plain[:1] in ("", "/", ".", "~") or "\\" in plain or plain.count("/") != 1
        if elsewhere or Path(plain).exists():
            raise InputError(
                f"{name} is no model that this public page reads: choose a zoo model, or the hub "
                "id of a model as owner/name."
            )

    def analyse(self, request: Request) -> Iterator[str | Kept]:
        """Load what is missing and analyse, telling what goes on.

        Yields:
            Sentences of progress, and at last the kept analysis.

        Raises:
            FusionError: one sentence that says what was wrong.
        """
        while True:
            with self._lock:
                kept = self._kept.get(request)
                if kept:
                    self._kept.move_to_end(request)
                    break
                other = self._doing.get(request)
                if other is None:
                    self._doing[request] = threading.Event()
                    break
            if not other.wait(PROGRESS_SECONDS):  # the same, asked for by another tab or visitor
                yield "Reading the text with every model …"
        if kept:
            yield kept
            return
        try:
            yield from self._analysed(request)
        finally:
            with self._lock:
                self._doing.pop(request).set()

    def _analysed(self, request: Request) -> Iterator[str | Kept]:
        loaded = yield from self.shelf.loading(request.names)
        yield "Reading the text with every model …"
        for step in work.analyse(self.shelf.key, request):
            if isinstance(step, str):
                yield step
            else:
                pieces = {name: model.tokenizer.piece for name, model in loaded.items()}
                kept = Kept(secrets.token_urlsafe(16), request, step, pieces)
                self._keep(kept)
                yield kept

    def _keep(self, kept: Kept) -> None:
        with self._lock:
            self._kept[kept.request] = kept
            total = sum(len(k.analysis.target.data) for k in self._kept.values())
            while len(self._kept) > 1 and (
                total > self.limits.kept_bytes or len(self._kept) > KEPT_ANALYSES
            ):
                _, old = self._kept.popitem(last=False)
                total -= len(old.analysis.target.data)
        give_back()

    def find(self, question: Any) -> Kept | None:
        """Return the kept analysis whose id stands in a question from a page, if there is one."""
        wanted = question.get("id") if isinstance(question, dict) else None
        with self._lock:
            for kept in self._kept.values():
                if kept.id == wanted:
                    return kept
        return None

    def _asked(self, question: Any, what: str) -> tuple[Kept, int] | None:
        """Return the kept analysis of a question and the number that it asks for, if it has both.

        Questions come from a page, past queue and session: they only read.
        """
        kept = self.find(question)
        number = question.get(what) if kept else None
        return (kept, number) if kept and isinstance(number, int) else None

    def cards(self, question: dict[str, Any]) -> dict[str, Any] | None:
        """Return the cards of token ``index`` of analysis ``id``; None if there is none."""
        asked = self._asked(question, "index")
        if asked is None:
            return None
        kept, index = asked
        try:
            return cards.cards(kept.analysis, index, kept.pieces)
        except FusionError:
            return None

    def characters(self, question: dict[str, Any]) -> dict[str, Any] | None:
        """Return what every model expects as the next character at token ``index``.

        Returns:
            None if there is no such analysis; ``{"wait": True}`` where the models have not been
            asked, which `ask_characters` does.
        """
        asked = self._asked(question, "index")
        if asked is None:
            return None
        kept, index = asked
        readers = kept.extras.get(f"characters {views.page_of(kept.analysis, index)}")
        if readers is None:
            return {"wait": True}
        return cards.characters(readers, kept.analysis, index)

    def ask_characters(self, question: dict[str, Any]) -> Iterator[str]:
        """Ask all models for the next character at every token on the page of ``index``.

        Yields:
            Sentences of progress.

        Raises:
            InputError: the analysis is gone.
        """
        asked = self._asked(question, "index")
        if asked is None:
            raise InputError(GONE)
        kept, index = asked
        yield from self.shelf.loading(kept.request.names)
        yield "Asking every model for the next character …"
        target, starts = kept.analysis.target, views.pages(kept.analysis)
        page = views.page_of(kept.analysis, index)
        own = target.text_tokens[slice(*[*starts, None][page : page + 2])]
        positions = sorted({int(b) for b in target.start[own]})
        kept.extras[f"characters {page}"] = work.characters(
            self.shelf.key, kept.request, kept.analysis, positions
        )

    def study(self, request: Request) -> Iterator[str | tuple[Kept, work.Study]]:
        """Analyse a text, and try every operator and strategy on it.

        Yields:
            Sentences of progress, and at last the analysis and what was found.

        Raises:
            FusionError: one sentence that says what was wrong.
        """
        for step in self.analyse(request):
            if isinstance(step, str):
                yield step
                continue
            found = self._known_study(request)
            if found is None:
                yield "Trying every operator and every mapping …"
                for part in work.study(self.shelf.key, request):
                    if isinstance(part, str):
                        yield part
                    else:
                        found = part
            assert found is not None
            step.extras["study"] = found
            yield step, found

    def _known_study(self, request: Request) -> work.Study | None:
        """Return a study of the same text and models; it is the same for every operator."""

        def plain(asked: Request) -> Request:
            return replace(asked, config=replace(asked.config, operator="", level=""))

        wanted = plain(request)
        with self._lock:
            same = (k for k in self._kept.values() if plain(k.request) == wanted)
            return next((k.extras["study"] for k in same if "study" in k.extras), None)

    def page(self, question: dict[str, Any]) -> dict[str, Any] | None:
        """Return page ``page`` of the score of the kept analysis ``id``; None if there is none."""
        asked = self._asked(question, "page")
        if asked is None:
            return None
        kept, number = asked
        return views.score(kept.analysis, kept.id, number)
