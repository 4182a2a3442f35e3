"""The only mutable state of the app: loaded models, limits, and the analyses that pages look at."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from fusion_core import models, pipeline
from fusion_core.config import FusionConfig, utf8
from fusion_core.errors import FusionError, InputError
from fusion_core.records import Analysis

from . import cards, views

GIB = 1 << 30
PROGRESS_SECONDS = 0.5
"""How often a visitor is told what is being done."""


@dataclass(frozen=True)
class Limits:
    """What one visitor may ask for.

    Attributes:
        text_bytes: longest text.
        sources: most sources at once.
        memory_bytes: loaded models kept for the next visitor, all together.
        model_bytes: largest model that is fetched; None for no limit.
        kept_bytes: text bytes of the analyses that are kept, all together.
        local_folders: whether models may be read from folders of this machine.
    """

    text_bytes: int = 20_000
    sources: int = 6
    memory_bytes: int = 8 * GIB
    model_bytes: int | None = None
    kept_bytes: int = 300_000
    local_folders: bool = True

    @classmethod
    def here(cls) -> Limits:
        """Return the limits of this place: on a public Space nothing is read from folders."""
        if os.environ.get("SPACE_ID"):
            return cls(model_bytes=2 * GIB, local_folders=False)
        return cls()


@dataclass(frozen=True)
class Request:
    """All that an analysis depends on."""

    target: str
    sources: tuple[str, ...]
    text: str
    config: FusionConfig


@dataclass
class _Slot:
    lock: threading.Lock = field(default_factory=threading.Lock)
    model: Any = None


@dataclass(frozen=True)
class Kept:
    """An analysis under the name by which pages ask for parts of it."""

    id: str
    analysis: Analysis
    pieces: dict[str, views.Piece]


class Shelf:
    """Loaded models, the most recently used ones within a limit of memory."""

    def __init__(self, limit: int, load: Callable[[str], Any]) -> None:
        """Start empty; ``load`` turns a name into a model with a ``size_bytes``."""
        self._limit, self._load = limit, load
        self._lock = threading.Lock()
        self._slots: OrderedDict[str, _Slot] = OrderedDict()

    def has(self, name: str) -> bool:
        """Tell whether a model can be had at once."""
        with self._lock:
            slot = self._slots.get(name)
            return slot is not None and slot.model is not None

    def get(self, name: str) -> Any:
        """Return a model, loading it once however many visitors ask for it at a time."""
        with self._lock:
            slot = self._slots.setdefault(name, _Slot())
            self._slots.move_to_end(name)
        with slot.lock:
            if slot.model is None:
                try:
                    slot.model = self._load(name)
                except BaseException:
                    with self._lock:
                        if self._slots.get(name) is slot:
                            del self._slots[name]
                    raise
        self._evict(keep=name)
        return slot.model

    def _evict(self, keep: str) -> None:
        with self._lock:
            loaded = [
                (n, s.model.size_bytes) for n, s in self._slots.items() if s.model is not None
            ]
            total = sum(size for _, size in loaded)
            for name, size in loaded:
                if total <= self._limit:
                    return
                if name != keep:
                    del self._slots[name]
                    total -= size


class Session:
    """One process's state, shared by its visitors."""

    def __init__(self, limits: Limits | None = None, device: str | None = None) -> None:
        """Start with no model loaded and nothing kept.

        Args:
            limits: those of this place by default.
            device: where models run; ``FUSELAB_DEVICE`` by default, else the CPU.
        """
        self.limits = limits or Limits.here()
        self.device = device = device or os.environ.get("FUSELAB_DEVICE") or "cpu"
        self.shelf = Shelf(
            self.limits.memory_bytes,
            lambda name: models.load(name, device=device, max_bytes=self.limits.model_bytes),
        )
        self._lock = threading.Lock()
        self._kept: OrderedDict[Request, Kept] = OrderedDict()

    def request(
        self, target: str | None, sources: Sequence[str] | None, text: str | None, **options: Any
    ) -> Request:
        """Check what a visitor asks for, before anything is loaded.

        Raises:
            FusionError: one sentence that says what to change.
        """
        text = text or ""
        utf8(text, limit=self.limits.text_bytes)
        target = (target or "").strip()
        names = tuple(s.strip() for s in sources or () if s and s.strip())
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
        return Request(target, names, text, FusionConfig(**options))

    def _check_place(self, name: str) -> None:
        if self.limits.local_folders or name.startswith("zoo:"):
            return
        if name[0] in "/.~" or "\\" in name or name.count("/") != 1 or Path(name).exists():
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
        with self._lock:
            kept = self._kept.get(request)
            if kept:
                self._kept.move_to_end(request)
        if kept:
            yield kept
            return
        names = (request.target, *request.sources)
        loaded = {}
        for i, name in enumerate(dict.fromkeys(names)):
            if not self.shelf.has(name):
                yield f"Loading {name} ({i + 1} of {len(names)}) …"
            loaded[name] = self.shelf.get(name)
        yield "Reading the text with every model …"
        analysis = yield from _analysed(
            loaded[request.target], [loaded[name] for name in request.sources], request
        )
        if not len(analysis.target.text_tokens):
            raise InputError(
                f"{request.target} reads no token in this text: write something it can read."
            )
        pieces = {name: model.tokenizer.piece for name, model in loaded.items()}
        kept = Kept(secrets.token_urlsafe(16), analysis, pieces)
        self._keep(request, kept)
        yield kept

    def _keep(self, request: Request, kept: Kept) -> None:
        with self._lock:
            self._kept[request] = kept
            total = sum(len(k.analysis.target.data) for k in self._kept.values())
            while len(self._kept) > 1 and (total > self.limits.kept_bytes or len(self._kept) > 64):
                _, old = self._kept.popitem(last=False)
                total -= len(old.analysis.target.data)

    def _find(self, question: Any) -> Kept | None:
        wanted = question.get("id") if isinstance(question, dict) else None
        with self._lock:
            for kept in self._kept.values():
                if kept.id == wanted:
                    return kept
        return None

    def cards(self, question: dict[str, Any]) -> dict[str, Any] | None:
        """Return the cards of token ``index`` of the kept analysis ``id``; None if there is none.

        Asked by the page, past queue and session: it only reads.
        """
        kept = self._find(question)
        index = question.get("index") if kept else None
        if kept is None or not isinstance(index, int):
            return None
        try:
            return cards.cards(kept.analysis, index, kept.pieces)
        except FusionError:
            return None

    def page(self, question: dict[str, Any]) -> dict[str, Any] | None:
        """Return page ``page`` of the score of the kept analysis ``id``; None if there is none."""
        kept = self._find(question)
        number = question.get("page") if kept else None
        if kept is None or not isinstance(number, int):
            return None
        return views.score(kept.analysis, kept.id, number)


def _analysed(
    target: models.LoadedModel, sources: Sequence[models.LoadedModel], request: Request
) -> Generator[str, None, Analysis]:
    """Analyse in a thread of its own, so that progress can be told while it works."""
    steps: SimpleQueue[str | None] = SimpleQueue()
    with ThreadPoolExecutor(max_workers=1) as pool:
        job = pool.submit(
            pipeline.analyse,
            target,
            sources,
            request.text,
            request.config,
            view_top_k=12,
            progress=lambda stage, share: steps.put(f"{stage.capitalize()} ({share:.0%}) …"),
        )
        job.add_done_callback(lambda _: steps.put(None))
        told = time.monotonic()
        while (step := steps.get()) is not None:
            if time.monotonic() - told > PROGRESS_SECONDS:
                told = time.monotonic()
                yield step
        return job.result()
