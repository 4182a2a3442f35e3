"""The settings of a fusion, checked once where they enter."""

from __future__ import annotations

from dataclasses import dataclass

from fusion_core.errors import InputError, shown

from .parts import is_number, is_whole


@dataclass(frozen=True)
class Truncation:
    """What is kept of a source's rows: one of three ways.

    Attributes:
        top_k: the k most probable tokens.
        top_p: the fewest tokens whose probabilities reach p.
        samples: N draws with replacement.
        seed: of the draws.
    """

    top_k: int | None = None
    top_p: float | None = None
    samples: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class FusionConfig:
    """How rows are carried over and fused.

    Names of strategies and operators are looked up in `vocab.STRATEGIES` and `fuse.OPERATORS`
    where they are used.

    Attributes:
        strategy: vocab mapping that carries a source's mass to the target's vocabulary.
        operator: fusion operator.
        level: "sequence" (one weight a document) or "token"; only `min_ce` and `avg_ce` have one.
        top_k: tokens kept of a fused row; the rest is its tail.
        source_top_k: tokens kept of a source's row before projection; None keeps all.
        source_top_p: the same by the mass that is kept.
        source_samples: the same by draws.
        temperature: what the logits of all models are divided by. Cross-entropies are of
            temperature 1, whatever it is.
        operator_temperature: what an operator's scores are divided by before its softmax.
        chain_rule: put the product of the source's own steps in the place of the carried-over
            probability of the token that followed, where it is known.
        with_target: fuse the target's own rows, too, after those of the sources.
        seed: of draws.
        overlap: share of a window that is read again as context of the next one, where a text is
            longer than a model's context.

    Raises:
        InputError: a number is outside its range.
    """

    strategy: str = "prefix"
    operator: str = "min_ce"
    level: str = "sequence"
    top_k: int = 10
    source_top_k: int | None = None
    source_top_p: float | None = None
    source_samples: int | None = None
    temperature: float = 1.0
    operator_temperature: float = 1.0
    chain_rule: bool = False
    with_target: bool = False
    seed: int = 0
    overlap: float = 0.25

    def __post_init__(self) -> None:
        """Check the names and numbers."""
        for name in ("strategy", "operator", "level"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise InputError(f"{name} must be a name, not {shown(value)}.")
        for name in ("top_k", "source_top_k", "source_samples"):
            value = getattr(self, name)
            if not (is_whole(value) and value >= 1) and (name == "top_k" or value is not None):
                raise InputError(
                    f"{name} must be a whole number of at least 1, not {shown(value)}: choose how "
                    "many tokens of a row to keep."
                )
        share = self.source_top_p
        if share is not None and not (is_number(share) and 0 < share <= 1):
            raise InputError(
                f"source_top_p must lie above 0 and be at most 1, not {shown(share)}: choose the "
                "share of a row to keep."
            )
        cuts = (self.source_top_k, self.source_top_p, self.source_samples)
        if sum(value is not None for value in cuts) > 1:
            raise InputError(
                "A source's rows are cut in one way: give only one of source_top_k, source_top_p "
                "and source_samples."
            )
        check_temperature(self.temperature)
        check_temperature(self.operator_temperature, "operator_temperature")
        if self.chain_rule and self.temperature != 1:
            raise InputError(
                "The chain rule gives probabilities of temperature 1: leave out chain_rule or the "
                "temperature."
            )
        if not (is_number(self.overlap) and 0 <= self.overlap <= 0.75):
            raise InputError(
                f"overlap must lie between 0 and 0.75, not {shown(self.overlap)}: choose the share "
                "of a window to read again."
            )

    @property
    def source_truncation(self) -> Truncation | None:
        """What is kept of a source's rows; None for everything."""
        if self.source_top_k is self.source_top_p is self.source_samples is None:
            return None
        return Truncation(self.source_top_k, self.source_top_p, self.source_samples, self.seed)


def check_temperature(value: float, name: str = "temperature") -> None:
    """Refuse what logits cannot be divided by.

    Raises:
        InputError: it is not a finite number above 0.
    """
    if not (is_number(value) and value > 0):
        raise InputError(f"{name} must be a number above 0, not {shown(value)}: 1 changes nothing.")
