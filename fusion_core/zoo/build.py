"""Makes the models of the zoo from the seed: tokenizer, training, half-precision weights."""

import itertools
import random
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel
from transformers import PreTrainedTokenizerFast as Tokenizer

from fusion_core import corpus
from fusion_core.zoo.recipes import CONTEXT, RECIPES, SEED, Recipe
from fusion_core.zoo.vocabularies import FAMILIES

VOCABULARY_BYTES = 800_000
BATCH_TOKENS = 2048
BUCKET = 512  # documents sorted by length together
WARM_UP = 0.05
WORKERS = 4  # one thread each; more than cores, so that all cores stay busy to the end

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def train_tokenizer(recipe: Recipe, n_bytes: int = VOCABULARY_BYTES) -> Tokenizer:
    """Trains a recipe's tokenizer on the training split.

    Args:
        recipe: which.
        n_bytes: amount of text.

    Returns:
        The tokenizer; equal arguments give equal ones.
    """
    texts = [
        document
        for domain, share in recipe.vocabulary_mix.items()
        for document in corpus.text(domain, "train", int(share * n_bytes), seed=SEED)
    ]
    return FAMILIES[recipe.family](texts, recipe.vocabulary)


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Encodes a document as the models read it: start token (BOS, else EOS), text, EOS."""
    start = tokenizer.bos_token_id
    start = tokenizer.eos_token_id if start is None else start
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return [start, *ids[: CONTEXT - 2], tokenizer.eos_token_id]


def batches(recipe: Recipe, tokenizer: Tokenizer) -> Iterator[Batch]:
    """Streams batches without end: one document a row, from position 0, lengths alike.

    Args:
        recipe: whose mix of domains to draw.
        tokenizer: its tokenizer.

    Yields:
        Input ids, attention mask and labels (-100 where padded), each (rows, longest row), with
        about `BATCH_TOKENS` tokens.
    """
    rng = random.Random(f"{SEED}/{recipe.name}/batches")
    streams = {domain: corpus.documents(domain, "train", seed=SEED) for domain in recipe.mix}
    domains, shares = list(recipe.mix), list(recipe.mix.values())
    while True:
        drawn = rng.choices(domains, shares, k=BUCKET)
        rows = sorted((encode(tokenizer, next(streams[domain])) for domain in drawn), key=len)
        group: list[list[int]] = []
        groups = [group]
        for row in rows:
            if (len(group) + 1) * len(row) > BATCH_TOKENS:
                groups.append(group := [])
            group.append(row)
        rng.shuffle(groups)
        yield from (_padded(group, tokenizer.eos_token_id) for group in groups if group)


def _padded(rows: list[list[int]], filler: int) -> Batch:
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), filler)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    labels = torch.full((len(rows), width), -100)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = labels[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return ids, mask, labels


def train_model(recipe: Recipe, tokenizer: Tokenizer, steps: int | None = None) -> PreTrainedModel:
    """Trains a recipe's model: AdamW, warm-up, then a cosine down to a fiftieth.

    Args:
        recipe: which.
        tokenizer: its tokenizer.
        steps: optimiser steps, if not the recipe's.

    Returns:
        The model, in float32.
    """
    steps = recipe.steps if steps is None else steps
    torch.manual_seed(SEED)
    config = recipe.config(len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.train()
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
    )
    warm_up = torch.optim.lr_scheduler.LinearLR(
        optimizer, 1e-3, total_iters=max(1, int(WARM_UP * steps))
    )
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, max(1, steps - warm_up.total_iters), recipe.learning_rate / 50
    )
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer, [warm_up, cosine], [warm_up.total_iters]
    )
    began = time.monotonic()
    for step, (ids, mask, labels) in enumerate(
        itertools.islice(batches(recipe, tokenizer), steps), 1
    ):
        loss = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 100 == 0 or step == steps:
            spent = time.monotonic() - began
            _say(f"{recipe.name}: step {step}/{steps}, loss {loss.item():.3f}, {spent:.0f} s")
    return model.eval()


def save(model: PreTrainedModel, tokenizer: Tokenizer, folder: Path) -> None:
    """Writes a model in float16 and its tokenizer, in the layout of `from_pretrained`.

    Args:
        model: the trained model.
        tokenizer: its tokenizer.
        folder: where to; made if need be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    start = tokenizer.bos_token_id
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.eos_token_id if start is None else start,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def build_one(name: str, out: Path, steps: int | None = None) -> float:
    """Makes one model on one thread.

    Args:
        name: a key of `RECIPES`.
        out: the folder to put the model's folder into.
        steps: optimiser steps, if not the recipe's.

    Returns:
        The seconds it took.
    """
    began = time.monotonic()
    torch.set_num_threads(1)
    recipe = RECIPES[name]
    tokenizer = train_tokenizer(recipe)
    model = train_model(recipe, tokenizer, steps)
    save(model, tokenizer, out / name)
    return time.monotonic() - began


def build(names: list[str], out: Path, steps: int | None = None) -> None:
    """Makes several models, one thread each, a few at a time.

    Args:
        names: keys of `RECIPES`.
        out: the folder to put the models' folders into.
        steps: optimiser steps, if not the recipes'.
    """
    began = time.monotonic()
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        jobs = {name: pool.submit(build_one, name, out, steps) for name in names}
        for name, job in jobs.items():
            _say(f"{name}: made in {job.result():.0f} s")
    _say(f"zoo: {len(names)} models in {time.monotonic() - began:.0f} s")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
