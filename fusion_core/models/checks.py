"""Checks of a loaded network: complete weights, causality, context and cache.

Whatever is wrong here would give a number, a cache or a trained model that looks right.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fusion_core.errors import ModelFormatError
from fusion_core.numerics import logits_off
from fusion_core.tokens import TextTokenizer

PROBE_TOKENS = 16
"""Tokens of the short text that a network is tried on."""

TOLERANCE = 1e-3
"""Share of the logits' spread by which rounding may move them in float32, at any position."""

SEEN, CACHED = 0.025, 0.2
"""The same in half precision: of two texts read side by side, whose products are the same, and of
one read in two ways. A later token that is seen moves logits by 0.1 to 1 in random networks, by
more in trained ones; another text by 0.3 to 0.5. A cache in bfloat16 is off by 0.08 with
SmolLM2-135M, by 0.15 with Gemma-3-270M."""

_OTHER_TASK = re.compile(r"For(\w*Classification|QuestionAnswering|MultipleChoice|Regression)$")
_BUFFER = re.compile(r"(inv_freq|masked_bias|att(ention|n)\.bias|position_ids|(cos|sin)_cached)$")
"""What old checkpoints hold beside weights: tables that networks work out for themselves."""

_INDEX = re.compile(r"(?<=\.)\d+(?=\.|$)")


def check_complete(name: str, network: Any, info: dict[str, Any]) -> None:
    """Refuse a network whose weights did not all come from its files, or not all went into it.

    Args:
        name: what the caller calls the model.
        network: as it was loaded.
        info: `from_pretrained`'s loading info; tied weights are not missing in it.

    Raises:
        ModelFormatError: weights are missing, of other shapes, of another task, or of layers that
            the configuration does not know.
    """
    missing = sorted(info["missing_keys"])
    shapes = sorted(str(key[0]) for key in info["mismatched_keys"])
    if missing:
        raise ModelFormatError(
            f"{name} lacks {_counted(missing)}, which would be random numbers: save the whole "
            "causal language model, and the config.json that belongs to it."
        )
    if shapes:
        raise ModelFormatError(
            f"{name} has {_counted(shapes)} of another shape than its config.json says: fetch the "
            "config.json that belongs to the weights."
        )
    modules = {_INDEX.sub("*", module) for module, _ in network.named_modules()} - {""}
    more = sorted(k for k in info["unexpected_keys"] if _has_a_place(k, modules))
    if more:
        raise ModelFormatError(
            f"{name} has {_counted(more)} that its config.json leaves out: fetch the config.json "
            "that belongs to the weights."
        )
    other = [a for a in network.config.architectures or () if _OTHER_TASK.search(a)]
    if other:
        raise ModelFormatError(
            f"{name} was trained as {other[0]}, not as a language model: name the model that it "
            "was made from."
        )


def _has_a_place(key: str, modules: set[str]) -> bool:
    """Tell whether a weight that was not taken belongs to a part of the network.

    Args:
        key: its name.
        modules: names of the network's parts, without the numbers of layers.
    """
    parent = _INDEX.sub("*", key).rpartition(".")[0]
    within_layer = ".*." in parent and parent.rpartition(".")[0] in modules
    return (parent in modules or within_layer) and not _BUFFER.search(key)


def _counted(keys: list[str]) -> str:
    more = f" and {len(keys) - 1} more weights" if len(keys) > 1 else ""
    return f"{keys[0]}{more}"


def check_causal(name: str, network: Any, tokenizer: TextTokenizer) -> int | None:
    """Try a network on a few tokens: a later token must not change an earlier prediction.

    Args:
        name: what the caller calls the model.
        network: in evaluation mode.
        tokenizer: the model's.

    Returns:
        Rows of its table of positions that a text can use, or None where it has no such table.

    Raises:
        ModelFormatError: predictions see what follows, or the network cannot read.
    """
    ids = probe_ids(network, tokenizer)
    length = ids.shape[1]
    positions = _Positions(length)
    with torch.inference_mode(), positions:
        logits = network(input_ids=ids, use_cache=False).logits.float()
    half = length // 2
    moved = float(logits_off(logits[0, :half], logits[1, :half]).max())
    if math.isnan(moved):
        raise ModelFormatError(
            f"{name} gives logits that are no numbers: load it in another dtype such as float32, "
            "or check its weights."
        )
    if moved > (TOLERANCE if network.dtype == torch.float32 else SEEN):
        raise ModelFormatError(
            f"{name} sees the words that it is to predict: its logits change by {moved:.0%} of "
            "their spread when a later word changes. Name a causal language model (for an encoder "
            "such as BERT, one trained with is_decoder: true in its config.json)."
        )
    return positions.usable


@dataclass(frozen=True)
class CacheSupport:
    """What a network's cache can be used for.

    Attributes:
        step: most tokens that may follow a cache at once; 0 where what follows one is not read as
            it is without.
        crops: the cache can be cut back to fewer tokens.
        forks: it can be copied, so that several texts go on from it at once, the shorter ones
            padded behind.
    """

    step: int
    crops: bool
    forks: bool


ANY = 1 << 30
"""A step without a limit."""

_supports: WeakKeyDictionary[Any, CacheSupport] = WeakKeyDictionary()


def cache_support(network: Any, tokenizer: TextTokenizer) -> CacheSupport:
    """Try a network's cache, once: read a few tokens from it and without, and compare.

    Recurrent layers may read one token a step only, or have no state that could be cut; some caches
    are wrong.

    Args:
        network: in evaluation mode.
        tokenizer: the model's.
    """
    found = _supports.get(network)
    if found is None:
        ids = probe_ids(network, tokenizer)
        steps = (s for s in (ANY, 1) if _reads_on(network, ids[:1], s))
        step = next(steps, 0)
        crops = bool(step) and _crops(network, ids, step)
        found = CacheSupport(step, crops, crops and step == ANY and _forks(network, ids))
        _supports[network] = found
    return found


def read_on(network: Any, ids: torch.Tensor, cache: Any, step: int, **options: Any) -> Any:
    """Read tokens (1, n) after those of a cache, as many at once as it takes.

    Returns:
        The last call's output, its logits those of all calls.
    """
    parts = ids.split(max(1, step) if cache is not None else ids.shape[1], dim=1)
    logits = []
    for part in parts:
        out = network(input_ids=part, past_key_values=cache, use_cache=True, **options)
        cache = getattr(out, "past_key_values", None)
        logits.append(out.logits)
    out.logits = torch.cat(logits, dim=1)
    return out


@torch.inference_mode()
def _reads_on(network: Any, ids: torch.Tensor, step: int) -> bool:
    half = ids.shape[1] // 2
    whole = network(input_ids=ids, use_cache=False).logits
    try:
        first = read_on(network, ids[:, :half], None, step)
        if getattr(first, "past_key_values", None) is None:
            return False
        then = read_on(network, ids[:, half:], first.past_key_values, step)
    except Exception:  # networks raise many types where they cannot
        return False
    return same_logits(torch.cat([first.logits, then.logits], dim=1)[0], whole[0], network.dtype)


@torch.inference_mode()
def _crops(network: Any, ids: torch.Tensor, step: int) -> bool:
    """Read the first text, go back to where the second one differs, and read on there."""
    half = ids.shape[1] // 2
    whole = network(input_ids=ids[1:], use_cache=False).logits
    try:
        cache = read_on(network, ids[:1], None, step).past_key_values
        if not all(hasattr(layer, "keys") for layer in getattr(cache, "layers", ())):
            return False  # a recurrent state, which keeps what has been read
        cache.crop(half - ids.shape[1])
        then = read_on(network, ids[1:, half:], cache, step).logits
    except Exception:
        return False
    return same_logits(then[0], whole[0, half:], network.dtype)


@torch.inference_mode()
def _forks(network: Any, ids: torch.Tensor) -> bool:
    """Read a beginning of the first text, go on in two ways at once, and then with the second."""
    half = ids.shape[1] // 2
    other = torch.cat([ids[:1, :half], ids[1:, half:]], dim=1)
    whole = [network(input_ids=x, use_cache=False).logits[0, half:] for x in (ids[:1], other)]
    try:
        cache = read_on(network, ids[:1, :half], None, ANY).past_key_values
        cache.batch_repeat_interleave(2)
        cut = torch.cat([other[:, half:-1], ids[:1, -1:]], dim=1)  # its end is padding
        both = read_on(network, torch.cat([ids[:1, half:], cut]), cache, ANY)
        cache = both.past_key_values
        cache.batch_select_indices(torch.tensor([1], device=ids.device))
        cache.crop(-1)
        last = read_on(network, other[:, -1:], cache, ANY).logits
    except Exception:
        return False
    found = torch.cat([both.logits[0], both.logits[1, :-1], last[0]])
    return same_logits(found, torch.cat(whole), network.dtype)


def same_logits(ours: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> bool:
    """Tell whether (n, vocabulary) logits of a text, read in two ways, differ by rounding alone."""
    off = float(logits_off(ours, expected).max())
    return off <= (TOLERANCE if dtype == torch.float32 else CACHED)


def probe_ids(network: Any, tokenizer: TextTokenizer, length: int | None = None) -> torch.Tensor:
    """(2, n) ordinary tokens: two texts that begin alike and go on differently."""
    if length is None:
        length = min(PROBE_TOKENS, max(4, (context_of(network.config) or PROBE_TOKENS) // 2))
    rows = network.get_input_embeddings().weight.shape[0]
    known = [i for i, text in enumerate(tokenizer.bytes_of[:rows]) if text]
    if len(known) < 2:
        raise ModelFormatError(
            f"The tokenizer of {tokenizer.name} has no text tokens that its network knows: check "
            "that both belong together."
        )
    drawn = np.random.default_rng(0).choice(known, (2, length))
    drawn[1, : length // 2] = drawn[0, : length // 2]
    return torch.as_tensor(drawn, device=next(network.parameters()).device)


class _Positions(TorchDispatchMode):
    """Look-ups, searched for a table that is asked for consecutive rows: that of positions.

    Attributes:
        usable: rows of the smallest such table, from the first that was asked for; None without.
    """

    def __init__(self, length: int) -> None:
        super().__init__()
        self._length = length
        self.usable: int | None = None

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given = _LOOKED_UP.get(str(operation))
        if given is not None and args[0].dim() == 2:
            index = args[given]
            self._see(len(args[0]), index[:1] if isinstance(index, list | tuple) else [index])
        return operation(*args, **(kwargs or {}))

    def _see(self, rows: int, indices: Iterable[torch.Tensor | None]) -> None:
        for index in indices:
            if index is None or index.dtype not in (torch.int64, torch.int32):
                continue
            first = index.flatten()[: self._length]
            if len(first) == self._length and bool((first.diff() == 1).all()):
                usable = rows - int(first[0])
                self.usable = usable if self.usable is None else min(self.usable, usable)


_LOOKED_UP = {"aten.embedding.default": 1, "aten.index_select.default": 2, "aten.index.Tensor": 1}
"""Operations that look rows up, and which of their arguments says which."""


def context_of(config: Any, positions: int | None = None) -> int | None:
    """Return the most tokens that a model reads at once; None if unlimited.

    Args:
        config: of the model; a nested text configuration counts.
        positions: rows of a table of positions that a text can use, as `check_causal` found them.
    """
    text = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    stated: int | None = None
    for field in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        value = getattr(text, field, None)
        if isinstance(value, int) and value > 0:
            stated = value
            break
    return min((n for n in (stated, positions) if n is not None), default=None)
