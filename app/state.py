"""The mutable state that visitors share: loaded models, and the analyses that they look at."""

from __future__ import annotations

import ctypes
import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache

from cachetools import LRUCache

from fusion_core import models
from fusion_core.characters import NextCharacters
from fusion_core.config import FusionConfig
from fusion_core.records import Analysis
from fusion_core.reports import Piece

from .compute import analyze, device, progress
from .compute.analyze import Comparison
from .compute.model_cache import ModelCache
from .compute.tokenizers import TokenizerCache, Trials
from .limits import Limits, forget_tokens
from .requests import AnalysisRequest

KEPT_ANALYSES = 64


@dataclass(frozen=True)
class KeptAnalysis:
    """An analysis under the name by which pages ask for parts of it.

    Attributes:
        id: its unguessable name.
        request: what it is an analysis of.
        analysis: what the page looks at.
        pieces: for each model's name, token id -> readable text.
        characters: by the bytes at which they were asked for, what every model and the fused rows
            expect as the next character.
    """

    id: str
    request: AnalysisRequest
    analysis: Analysis
    pieces: dict[str, Piece]
    characters: dict[tuple[int, ...], list[NextCharacters]] = field(default_factory=dict)


def return_memory() -> None:
    """Return what the heap no longer needs to the system, where the C library can (glibc)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class AppState:
    """One process's state, shared by its visitors."""

    def __init__(self, limits: Limits | None = None, device_name: str | None = None) -> None:
        """Start with no model loaded and nothing kept.

        Args:
            limits: those of this place by default.
            device_name: where models run; ``FUSELAB_DEVICE`` by default, else the CPU.
        """
        self.limits = limits = limits or Limits.here()
        if limits.public:
            forget_tokens()
        usual = "cuda" if device.LENT else "cpu"
        self.device = device_name or os.environ.get("FUSELAB_DEVICE") or usual
        self.trials = Trials(limits)
        self.tokenizers = TokenizerCache(limits, self.trials)
        self.models = ModelCache(limits.memory_bytes, self._load, limits.rows_bytes)
        self._lock = threading.Lock()
        # Pages ask by names that nobody can guess, past queue and session.
        self._id = lru_cache(maxsize=4 * KEPT_ANALYSES)(lambda _: secrets.token_urlsafe(16))
        most = limits.kept_bytes
        self._kept: LRUCache[str, KeptAnalysis] = LRUCache(
            most,
            # No more than `KEPT_ANALYSES`, and a text that is too long for others is kept alone.
            getsizeof=lambda k: min(most, max(len(k.analysis.target.data), most // KEPT_ANALYSES)),
        )
        self._comparisons: LRUCache[AnalysisRequest, Comparison] = LRUCache(KEPT_ANALYSES)
        self._doing: dict[str, threading.Event] = {}

    def _load(self, name: str) -> models.LoadedModel:
        self.trials.model(name)
        return models.load(name, device=self.device, max_bytes=self.limits.model_bytes)

    def find(self, id_: object) -> KeptAnalysis | None:
        """Return the kept analysis of a name, if there is one."""
        with self._lock:
            return self._kept.get(id_) if isinstance(id_, str) else None

    def analyze(self, request: AnalysisRequest) -> Iterator[str | KeptAnalysis]:
        """Load what is missing and analyze, saying what goes on.

        Yields:
            Sentences of progress, and at last the kept analysis.

        Raises:
            FusionError: one sentence that says what was wrong.
        """
        with self._lock:
            id_ = self._id(request)
        while True:
            with self._lock:
                kept, other = self._kept.get(id_), self._doing.get(id_)
                if kept is None and other is None:
                    self._doing[id_] = threading.Event()
            if kept is not None:
                yield kept
                return
            if other is None:
                break
            # The same is asked for by another tab or visitor.
            if not other.wait(progress.INTERVAL_SECONDS):
                yield "Reading the text with every model …"
        try:
            yield from self._analyzed(id_, request)
        finally:
            with self._lock:
                self._doing.pop(id_).set()

    def _analyzed(self, id_: str, request: AnalysisRequest) -> Iterator[str | KeptAnalysis]:
        loaded = yield from self.models.loading(request.names)
        yield "Reading the text with every model …"
        # No rows outlive a call on a lent device: it compares as well, once for a text.
        with self._lock:
            compare = device.LENT and _any_operator(request) not in self._comparisons
        for step in analyze.analyze(self.models.key, request, compare):
            if isinstance(step, str):
                yield step
                continue
            pieces = {name: model.tokenizer.piece for name, model in loaded.items()}
            kept = KeptAnalysis(id_, request, step.analysis, pieces)
            with self._lock:
                self._kept[id_] = kept
                if step.comparison:
                    self._comparisons[_any_operator(request)] = step.comparison
            return_memory()
            yield kept

    def ask_characters(self, kept: KeptAnalysis, positions: Sequence[int]) -> Iterator[str]:
        """Ask all models for the next character, and keep what they answer with the analysis.

        Args:
            kept: of a text.
            positions: bytes of the text.

        Yields:
            Sentences of progress.
        """
        yield from self.models.loading(kept.request.names)
        yield "Asking every model for the next character …"
        kept.characters[tuple(positions)] = analyze.characters(
            self.models.key, kept.request, kept.analysis, positions
        )

    def compare(self, request: AnalysisRequest) -> Iterator[str | tuple[KeptAnalysis, Comparison]]:
        """Analyze a text, and try every operator and mapping on it.

        Yields:
            Sentences of progress, and at last the analysis and what was found.

        Raises:
            FusionError: one sentence that says what was wrong.
        """
        same = _any_operator(request)
        for step in self.analyze(request):
            if isinstance(step, str):
                yield step
                continue
            with self._lock:
                found = self._comparisons.get(same)
            if found is None:
                yield "Trying every operator and every mapping …"
                for part in analyze.compare(self.models.key, request):
                    if isinstance(part, str):
                        yield part
                    else:
                        found = part
                assert found is not None
                with self._lock:
                    self._comparisons[same] = found
            yield step, found


def _any_operator(request: AnalysisRequest) -> AnalysisRequest:
    """Return what a comparison depends on: it is the same for every operator and level."""
    usual = FusionConfig()
    config = request.config.replace(operator=usual.operator, level=usual.level)
    return replace(request, config=config)
