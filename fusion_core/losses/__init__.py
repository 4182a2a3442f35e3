"""L = λ·L_CLM + (1 - λ)·L_Fusion, from sparse fused rows and one pass over the logits.

For a position with logits z, the token y that follows, and a fused row of k probabilities P and a
tail τ, with Q = softmax(z / T) and the temperature T of the row,

    L_CLM    = -log softmax(z)[y]
    L_Fusion = -Σ_k P_k·log Q_k - τ·log(1 - Σ_k Q_k)

so that all tokens outside the row are one bucket. Only this form has no gradient where Q = P: tails
that are ignored, or spread over the k, pull the target away from what it is taught. Reverse KL has
the same buckets.

    divergences  buckets of the rows -> nats; which positions are taught; both parts, joined
    logits       logits x labels x rows -> the losses of every position, and their gradient
"""

from .divergences import (
    BALANCES,
    CHOICES,
    DIVERGENCES,
    Balance,
    Buckets,
    Choice,
    Divergence,
    Pull,
    chosen_weight,
    cross_entropy,
    either,
    entropy,
    reverse_kl,
    total,
)
from .logits import (
    CELLS,
    HEAD_CELLS,
    IGNORED,
    TokenLosses,
    token_losses,
    token_losses_of_head,
)

__all__ = [
    "BALANCES",
    "CELLS",
    "CHOICES",
    "DIVERGENCES",
    "HEAD_CELLS",
    "IGNORED",
    "Balance",
    "Buckets",
    "Choice",
    "Divergence",
    "Pull",
    "TokenLosses",
    "chosen_weight",
    "cross_entropy",
    "either",
    "entropy",
    "reverse_kl",
    "token_losses",
    "token_losses_of_head",
    "total",
]
