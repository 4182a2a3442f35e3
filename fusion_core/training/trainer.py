"""`FusionTrainer`: a `transformers.Trainer` that learns from fused rows beside the text."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from transformers import Trainer

from fusion_core import losses
from fusion_core.config import Objective
from fusion_core.errors import InputError
from fusion_core.losses import IGNORED
from fusion_core.records import SparseRows

from .callbacks import read_weights
from .checkpoints import last_checkpoint, step_of

Scorer = Callable[[Any], dict[str, float]]
"""Network -> bits per byte by name of a text."""

WHOLE_CELLS = 1 << 27
"""Logits of a batch up to which they are made all at once: half a gigabyte in float32."""


class FusionTrainer(Trainer):
    """Trains a causal language model on λ·CLM + (1 - λ)·fusion.

    All that `transformers.Trainer` does stays: accelerate, DeepSpeed, FSDP, gradient checkpointing,
    mixed precision, schedulers, reports, pushing to the hub. The means of both parts are over all
    tokens of all devices and accumulated batches, so that how a batch is cut changes nothing (but
    for the ratio of `Objective.balance`, which each part of a batch takes for itself).

    Args:
        objective: the loss.
        temperature: of the fused rows.
        score: measures bits per byte; it takes the place of an evaluation dataset.
        chunked_head: never make a batch's logits all at once. None decides by their size; it needs
            an output layer without a scale or cap after it, which is checked at the first batch.
        **options: those of `transformers.Trainer`; batches are those of `Collator`.
    """

    def __init__(
        self,
        *,
        objective: Objective | None = None,
        temperature: float = 1.0,
        score: Scorer | None = None,
        chunked_head: bool | None = None,
        **options: Any,
    ) -> None:
        if score is not None:
            options.setdefault("eval_dataset", [])  # named, so that evaluating is allowed
        super().__init__(**options)
        self.objective: Objective = objective or Objective()
        self.loss_is_scaled_for_ga = True
        self.model_accepts_loss_kwargs = True  # counts the tokens of all accumulated batches
        self.can_return_loss = True
        self._score, self._temperature = score, temperature
        self._chunked_head = chunked_head
        self._sums = torch.zeros(2, dtype=torch.float64 if self.args.device.type == "cpu" else None)
        self._sums = self._sums.to(self.args.device)
        self._updates = self.tokens = 0
        self.began = time.monotonic()

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Score one batch; see `transformers.Trainer.compute_loss`."""
        inputs = dict(inputs)
        labels = inputs.pop("labels").flatten()
        inputs.pop("shift_labels", None)
        by_target = inputs.pop("by_target", torch.zeros_like(labels, dtype=torch.bool)).flatten()
        rows, weight = _fused(inputs, self._vocab_size(model), self._temperature)
        if num_items_in_batch is None:
            num_items_in_batch = (labels != IGNORED).sum()
        number = torch.as_tensor(num_items_in_batch, device=labels.device).reshape(-1)[0]
        number = number.clamp(min=1)  # a batch of prompts alone
        lost, outputs = self._token_losses(model, inputs, labels, rows, by_target)
        clm = lost.clm.masked_fill(by_target, 0).sum() / number
        if rows is None or weight is None:
            fusion, loss = torch.zeros_like(clm), clm
        else:
            taught = self._taught(lost, rows, weight, by_target)
            fusion = taught.masked_fill(by_target, 0).sum() / number
            of_target = taught.masked_fill(~by_target, 0).sum() / number
            loss = losses.total(self.objective, clm, fusion, self.progress) + of_target
            fusion = fusion + of_target
        if model.training:
            self._sums += torch.stack([clm.detach(), fusion.detach()]).to(self._sums.dtype)
        # The mean over devices that follows would divide by their number once too often.
        loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def _taught(
        self,
        lost: losses.TokenLosses,
        rows: SparseRows,
        weight: torch.Tensor,
        by_target: torch.Tensor,
    ) -> torch.Tensor:
        """Return (n,) nats from the fused rows, weighed."""
        objective = self.objective
        of_others, of_target = (losses.DIVERGENCES[name] for name in self._divergences)
        nats = torch.where(
            by_target, of_target.nats(lost.fusion, rows), of_others.nats(lost.fusion, rows)
        )
        if objective.taught_share < 1:
            apart = lost.fusion.detach()
            kinds = by_target & of_target.is_kl | ~by_target & of_others.is_kl
            apart = torch.where(kinds, apart, apart - losses.entropy(rows))
            score = losses.CHOICES[objective.taught_by].score(lost.entropy, apart)
            weight = losses.chosen_weight(weight, score, objective.taught_share)
        return nats * weight

    @property
    def _divergences(self) -> tuple[str, str]:
        return self.objective.divergence, self.objective.target_divergence

    @property
    def progress(self) -> float:
        """Share of the steps that is behind."""
        return self.state.global_step / max(1, self.state.max_steps)

    @property
    def sharded(self) -> bool:
        """Whether the weights lie on several devices, in parts."""
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

    def trained_network(self) -> Any:
        """Return the network as it was before it was prepared: without autocast around it."""
        network = self.accelerator.unwrap_model(self.model)
        forward = vars(network).pop("_original_forward", None)
        if forward is not None:
            network.forward = forward
        return network.eval()

    def _vocab_size(self, model: Any) -> int:
        return self.accelerator.unwrap_model(model).get_input_embeddings().weight.shape[0]

    def _token_losses(
        self,
        model: Any,
        inputs: dict[str, Any],
        labels: torch.Tensor,
        rows: SparseRows | None,
        by_target: torch.Tensor,
    ) -> tuple[losses.TokenLosses, Any]:
        of_others, of_target = (losses.DIVERGENCES[name].pull for name in self._divergences)
        by_entropy = self.objective.taught_share < 1 and self.objective.taught_by == "entropy"
        how: Any = {
            "pulls": losses.either(by_target, of_target, of_others),
            "with_entropy": rows is not None and by_entropy,
        }
        if self._chunked_head is None:
            cells = labels.numel() * self._vocab_size(model)
            self._chunked_head = cells > WHOLE_CELLS and self._can_chunk(model, inputs)
        if not self._chunked_head:
            outputs = model(**inputs, use_cache=False)
            logits = outputs.logits
            return losses.token_losses(logits.flatten(0, -2), labels, rows, **how), outputs
        with without_head(self.accelerator.unwrap_model(model)) as head:
            outputs = model(**inputs, use_cache=False)
        hidden = outputs.logits.flatten(0, -2)
        if self.accelerator.mixed_precision == "bf16":
            hidden = hidden.bfloat16()  # what the head would have multiplied
        lost = losses.token_losses_of_head(hidden, head.weight, head.bias, labels, rows, **how)
        return lost, outputs

    def _can_chunk(self, model: Any, inputs: dict[str, Any]) -> bool:
        """Check on a few tokens that the logits are what the output layer makes of its input."""
        if self.sharded:
            return False  # its weights are here only while the model runs
        inner = self.accelerator.unwrap_model(model)
        if type(inner.get_output_embeddings()) is not torch.nn.Linear:
            return False
        few = {k: v[:1, :8] for k, v in inputs.items()}
        trains = inner.training
        inner.eval()
        with torch.no_grad(), self.accelerator.autocast():
            logits = inner(**few, use_cache=False).logits.float()
            with without_head(inner) as head:
                hidden = inner(**few, use_cache=False).logits
            off = (head(hidden).float() - logits).abs().max()
        inner.train(trains)
        return bool(off <= 0.02 * logits.std())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the parts of the loss to what is logged of a step.

        Raises:
            InputError: the loss or its gradient is no number, so that the weights are none.
        """
        if "loss" in logs:
            sums = self.accelerator.reduce(self._sums.clone(), "sum")
            clm, fusion = (sums / max(1, self._updates)).tolist()
            if not all(map(math.isfinite, (logs["loss"], logs.get("grad_norm", 0), clm, fusion))):
                raise self._no_number()
            self._sums.zero_()
            self._updates = 0
            logs |= {
                "clm": clm,
                "fusion": fusion,
                "lm_weight": self.objective.weight_at(self.progress),
                "tokens": self.tokens,
            }
        super().log(logs, start_time)

    def _no_number(self) -> InputError:
        last = last_checkpoint(Path(str(self.args.output_dir)))
        kept = (
            f"the checkpoint of step {step_of(last)} is kept"
            if last
            else "there is no checkpoint yet"
        )
        return InputError(
            f"The loss or its gradient is no number at step {self.state.global_step}: start again "
            f"with a lower learning_rate than {self.args.learning_rate:g}; {kept}."
        )

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """Count the tokens of what comes next."""
        batches, number = super().get_batch_samples(*args, **kwargs)
        self._updates += bool(batches)
        if number is not None:
            self.tokens += int(torch.as_tensor(number).reshape(-1)[0])
        return batches, number

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Measure bits per byte."""
        if self._score is None:
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        inner = self.model_wrapped if self.sharded else self.accelerator.unwrap_model(self.model)
        network: Any = inner
        network.eval()
        scores = self._score(network)
        metrics = {f"{metric_key_prefix}_bits_per_byte/{k}": v for k, v in scores.items()}
        metrics[f"{metric_key_prefix}_bits_per_byte"] = sum(scores.values()) / len(scores)
        if self.accelerator.num_processes > 1:  # all go by the same digits
            metrics = broadcast_object_list([metrics])[0]
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Read all weights of a checkpoint, where the library would leave out what it renames."""
        if self.sharded:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            network = self.accelerator.unwrap_model(self.model if model is None else model)
            read_weights(network, Path(resume_from_checkpoint))


def _fused(
    inputs: dict[str, Any], vocab_size: int, temperature: float
) -> tuple[SparseRows | None, torch.Tensor | None]:
    """Take the fused rows out of a batch."""
    if "fused_ids" not in inputs:
        return None, None
    ids, probs = (inputs.pop(f"fused_{x}").flatten(0, -2) for x in ("ids", "probs"))
    tail, weight = (inputs.pop(f"fused_{x}").flatten() for x in ("tail", "weight"))
    return SparseRows(ids, probs, tail, vocab_size, temperature), weight


@contextmanager
def without_head(network: Any) -> Iterator[Any]:
    """Let a model's forward pass give hidden states in the place of logits.

    The model's own forward is called, so that wrappers around it see it as ever.
    """
    head = network.get_output_embeddings()
    network.set_output_embeddings(torch.nn.Identity())
    try:
        yield head
    finally:
        network.set_output_embeddings(head)
