"""Parts of a run's settings: the loss, adapters, and what text is read."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from fusion_core.errors import InputError

from .settings import Count, Names, Positive, Settings, Share


class Objective(Settings):
    """The loss of a training run."""

    lm_weight: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="λ of the first step, where 0 is the fused rows alone and 1 plain training",
    )
    lm_weight_end: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="λ of the last step, with a straight line in between; λ stays by default",
    )
    divergence: Literal["ce", "kl", "reverse_kl"] = Field(
        default="ce",
        description="the distance to the fused rows; cross-entropy and KL divergence differ in a "
        "constant, so that their gradient is the same; reverse_kl is KL(target, rows)",
    )
    target_divergence: Literal["ce", "kl", "reverse_kl"] = Field(
        default="reverse_kl",
        description="the distance to the fused rows on text that the target writes, in full "
        "whatever λ is, as such text is no label",
    )
    taught_share: Share = Field(
        default=1.0,
        description="the share of the positions with rows that is taught by them, the others being "
        "read; as much weight is on it as on all",
    )
    taught_by: Literal["entropy", "disagreement"] = Field(
        default="entropy",
        description="by what those positions are chosen, in each batch: the entropy of the target, "
        "or its divergence from the rows",
    )
    balance: Literal["lambda", "ratio"] = Field(
        default="lambda",
        description="how both parts are added, as λ·CLM + (1 - λ)·fusion (lambda) or as CLM + "
        "r·fusion (ratio), where r makes both equally large and is taken as given",
    )
    weigh_by_kept: bool = Field(
        default=False,
        description="whether a position's fusion loss is weighed by the mass that the mapping kept",
    )

    def weight_at(self, progress: float) -> float:
        """Return λ after a share of the training, from 0 to 1."""
        if self.lm_weight_end is None:
            return self.lm_weight
        return self.lm_weight + (self.lm_weight_end - self.lm_weight) * min(max(progress, 0.0), 1.0)


class Lora(Settings):
    """Low-rank adapters in place of full fine-tuning (arXiv 2106.09685)."""

    prefix: ClassVar[str] = "lora."

    r: Count = Field(default=16, description="the rank of the adapters")
    alpha: Positive = Field(default=32.0, description="what their product is scaled by, over r")
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="the share of their inputs that is left out"
    )
    target_modules: str | Names = Field(
        default="all-linear",
        description="the names of the layers that have one, or all-linear for all but the last",
    )


class TextMix(Settings):
    """What text is read, in shares that need not sum to 1: data alone, unless asked for more."""

    data_share: float = Field(
        default=1.0, ge=0, description="the share of the text read that the data's documents are"
    )
    continuation_share: float = Field(
        default=0.0,
        ge=0,
        description="the share that sources write, always new: each continues documents that it "
        "reads best, cut at random places, or begins with nothing where there is no data",
    )
    target_share: float = Field(
        default=0.0,
        ge=0,
        description="the share that the target writes while it is trained, with such beginnings; "
        "its rows are of an operator that looks at no label",
    )
    target_operator: str = Field(
        default="confidence",
        description="the fusion operator on text that the target writes, one that sees no label",
    )
    round_tokens: Count = Field(
        default=24_000,
        description="how many tokens of text are made at a time, before the steps that read them",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.data_share + self.continuation_share + self.target_share:
            raise InputError(
                "All shares of the text are 0: give data_share, continuation_share or target_share."
            )
        return self

    @property
    def streams(self) -> bool:
        """Whether text is written while the training goes on."""
        return self.continuation_share + self.target_share > 0
