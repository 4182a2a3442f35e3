"""Rows, projection and fusion on a GPU: a random model of a billion parameters, random texts.

    python benchmarks/gpu.py

writes benchmarks/results/gpu.md; where FUSELAB_REAL and FUSELAB_TESTDATA name models and texts,
with the real pair in it. On a machine without a GPU it can be tried in small, without writing
anything:

    python benchmarks/gpu.py --device cpu --layers 2 --hidden 64 --vocabulary 500 --tokens 64

*Rows.* `models.read_rows_batch` with the top 10 of each row against the network alone in inference
mode on the same ids, at once and in the batches that `read_rows_batch` makes. *Fusion.* The top 10
of three sources' random rows (those of cases.py) on one text, from `NextTokenRows` and `Alignment`
to `FusedRows`, on the device and on the CPU. Vocabularies are grown by random merges. *The real
pair.* SmolLM2-135M is the target, Gemma-3-270M the source of exact rows, from texts to fused rows.
"""

from __future__ import annotations

import os

# Threads that spin while another process has their core make a call up to thirty times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cases import CONFIG, OPERATORS, Case, Part, fused, random_rows
from rows import TARGET, TOP_K, ratio, timed
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as backends

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fusion_core import models, read
from fusion_core.align import by_bytes
from fusion_core.config import Truncation
from fusion_core.models import LoadedModel
from fusion_core.records import Encoding
from fusion_core.tokens import TextTokenizer

OUT = ROOT / "benchmarks" / "results" / "gpu.md"
SOURCES = 3
KEPT = 0.95
"""Share of the common merges that a vocabulary keeps."""
REPEATS = 11
PAIR = ("smollm2-135m", "gemma3-270m")
PAIR_BYTES, PAIR_REPEATS = 2_000, 2
TEXTS = {"English": "udhr_eng.txt", "Hindi": "udhr_hin.txt", "Japanese": "udhr_jpn.txt"}


def main() -> None:
    """Measure, and write the tables where there is a GPU."""
    parser = argparse.ArgumentParser(description="Rows, projection and fusion on a GPU.")
    parser.add_argument("--device", default="cuda")
    for name, value in (
        ("layers", 18),
        ("hidden", 2048),
        ("vocabulary", 32_000),
        ("tokens", 2048),
        ("batch", 8),
        ("pair-bytes", PAIR_BYTES),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    on_gpu = given.device.startswith("cuda")
    if on_gpu and not torch.cuda.is_available():
        raise SystemExit("There is no CUDA device: run this on a GPU, or try --device cpu.")
    device = torch.device(given.device)
    vocabularies = [grown(given.vocabulary, seed) for seed in range(SOURCES + 1)]
    about = torch.cuda.get_device_name(device) if on_gpu else "CPU"
    model = random_model(vocabularies[0], given.layers, given.hidden, given.tokens, device)
    lines = [
        "# On a GPU",
        "",
        f"`python benchmarks/gpu.py`; {about}, torch {torch.__version__}, medians of {REPEATS} "
        "calls in turn.",
        "",
        *rows(model, given.batch, given.tokens),
    ]
    del model
    lines += fusion(vocabularies, given.tokens, device)
    if on_gpu:
        write(lines)
    folders = [os.environ.get(name) for name in ("FUSELAB_REAL", "FUSELAB_TESTDATA")]
    if all(folders):
        lines += pair(*(Path(str(f)) for f in folders), given.pair_bytes, device)
    if on_gpu:
        write(lines)
    print("\n".join(lines))


def write(lines: list[str]) -> None:
    """Write the page, as far as it is made."""
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")


def grown(size: int, seed: int) -> TextTokenizer:
    """Grow a byte-level vocabulary by random merges, of which any two vocabularies share most."""
    vocabulary = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    shared, own, merges = random.Random("shared"), random.Random(seed), []
    pool = [*"abcdefghijklmnopqrstuvwxyz", "Ġ"]
    known = set(pool)
    while len(vocabulary) < size - 1:
        left, right = shared.choice(pool), shared.choice(pool)
        joined = left + right
        if len(joined) > 8 or joined.rfind("Ġ") > 0 or joined in known:
            continue
        pool.append(joined)
        known.add(joined)
        # A merge that is left out takes along what would be built on it.
        if own.random() < KEPT and left in vocabulary and right in vocabulary:
            vocabulary[joined] = len(vocabulary)
            merges.append((left, right))
    backend = Tokenizer(backends.BPE(vocabulary, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|endoftext|>"])
    end = backend.token_to_id("<|endoftext|>")
    return TextTokenizer(backend, f"random-{seed}", start_id=end, eos_id=end)


def random_model(
    tokenizer: TextTokenizer, layers: int, hidden: int, context: int, device: torch.device
) -> LoadedModel:
    """Build a random Llama in bfloat16."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    heads = max(1, hidden // 64)
    config = LlamaConfig(
        vocab_size=tokenizer.size,
        hidden_size=hidden,
        intermediate_size=hidden * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=context,
    )
    network: Any = LlamaForCausalLM(config)
    network = network.to(device, torch.bfloat16).eval().requires_grad_(False)
    size = sum(p.numel() * p.element_size() for p in network.parameters())
    return LoadedModel("random", tokenizer, network, context, size)


def waits(device: torch.device) -> Callable[[], None]:
    """Return what waits for a device."""
    return torch.cuda.synchronize if device.type == "cuda" else lambda: None


def peak(call: Callable[[], Any], device: torch.device) -> str:
    """Measure the most memory that a call takes beyond what is held before, in MB."""
    if device.type != "cuda":
        return "–"
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    result = call()
    torch.cuda.synchronize()
    del result
    return f"{(torch.cuda.max_memory_allocated() - before) / 1e6:,.0f}"


def rows(model: LoadedModel, batch: int, tokens: int) -> list[str]:
    """Compare rows with the bare network."""
    n = tokens - 1  # the start token is the first
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.tokenizer.size, (batch, n), generator=generator).numpy()
    place = np.arange(n)
    texts = [
        Encoding("random", b" " * n, own, place, place + 1, np.zeros(n, bool), [""] * n)
        for own in ids
    ]
    start = np.full((batch, 1), model.tokenizer.start_id)
    inputs = torch.as_tensor(np.concatenate([start, ids], axis=1), device=model.device)

    @torch.inference_mode()
    def bare(some: torch.Tensor) -> None:
        model.network(input_ids=some, use_cache=False)

    at_once = max(1, models.BATCH_TOKENS // tokens)
    calls: dict[str, Callable[[], Any]] = {
        "bare": lambda: bare(inputs),
        "bare in batches": lambda: [bare(some) for some in inputs.split(at_once)],
        "rows": lambda: models.read_rows_batch(model, texts, cut=Truncation(top_k=TOP_K)),
    }
    taken = timed(calls, REPEATS, waits(model.device))
    middle = {key: statistics.median(t) for key, t in taken.items()}
    parameters = sum(p.numel() for p in model.network.parameters())
    names = {
        "bare": f"the network alone, {batch} texts at once",
        "bare in batches": f"the network alone, {min(at_once, batch)} at once",
        "rows": f"`read_rows_batch`, top {TOP_K}",
    }
    return [
        f"## Rows of a Llama of {parameters / 1e9:.2f} billion parameters, bfloat16",
        "",
        f"{batch} x {tokens:,} random tokens, a vocabulary of {model.tokenizer.size:,}. Ratios are",
        f"to the network alone, all texts at once; at most {TARGET} was aimed at.",
        "",
        "| | ms | tokens/s | ratio | peak, MB |",
        "| --- | ---: | ---: | ---: | ---: |",
        *(
            f"| {names[key]} | {middle[key] * 1e3:.1f} | {batch * tokens / middle[key]:,.0f} | "
            f"**{ratio(taken, key, 'bare'):.3f}** | {peak(call, model.device)} |"
            for key, call in calls.items()
        ),
        "",
    ]


def fusion(vocabularies: list[TextTokenizer], tokens: int, device: torch.device) -> list[str]:
    """Time projection and fusion on the device and on the CPU."""
    draw = random.Random(0)
    words = [
        piece for piece in map(vocabularies[0].piece, range(256, vocabularies[0].size)) if piece
    ]
    text = "".join(draw.choice(words) for _ in range(2 * tokens))
    whole = vocabularies[0].encode(text)
    text = whole.data[: int(whole.end[whole.text_tokens[tokens - 1]])].decode()
    encodings = [v.encode(text) for v in vocabularies]
    cases = {}
    for where in {"cpu", device.type}:
        generator = torch.Generator().manual_seed(0)
        read = [
            random_rows(e, v.size, generator, CONFIG.source_top_k if j else None, where)
            for j, (e, v) in enumerate(zip(encodings, vocabularies, strict=True))
        ]
        part = Part(encodings, read, [by_bytes(encodings[0], e) for e in encodings[1:]])
        cases[where] = Case("random", vocabularies, text, [part], [1.0, 0.9, 0.8, 1.0])
    lines = []
    for strategy in ("prefix", "mined"):
        maps = cases["cpu"].maps(strategy)
        for operator in OPERATORS:
            taken = timed(
                {where: partial(fused, case, maps, operator) for where, case in cases.items()},
                5,
                waits(device),
            )
            memory = peak(partial(fused, cases[device.type], maps, operator), device)
            lines.append(
                f"| `{strategy}` | `{operator}` | "
                f"{statistics.median(taken[device.type]) * 1e3:.1f} | {memory} | "
                f"{statistics.median(taken['cpu']) * 1e3:.0f} |"
            )
    m = len(encodings[0].text_tokens)
    return [
        f"## Fusing the top {CONFIG.source_top_k} of {SOURCES} sources at {m:,} positions",
        "",
        f"| strategy | operator | {device.type}, ms | peak, MB | CPU, ms |",
        "| --- | --- | ---: | ---: | ---: |",
        *lines,
    ]


def pair(folder: Path, data: Path, n_bytes: int, device: torch.device) -> list[str]:
    """Time reading, projection of exact rows and fusion of the real pair."""
    began = time.perf_counter()
    target, source = (models.load(str(folder / name), device=str(device)) for name in PAIR)
    loaded = time.perf_counter() - began
    lines = []
    for language, name in TEXTS.items():
        text = (data / "data" / "udhr" / name).read_bytes()[:n_bytes].decode(errors="ignore")
        reading = read(text, target, source)
        calls: dict[str, Callable[[], Any]] = {
            "bare": partial(bare_passes, [target, source], text),
            "read": partial(read, text, target, source),
            "fuse": lambda reading=reading: reading.project("prefix").fuse("confidence"),
        }
        taken = timed(calls, PAIR_REPEATS, waits(device))
        middle = {key: statistics.median(t) for key, t in taken.items()}
        whole = peak(lambda t=text: read(t, target, source).project("prefix").fuse(), device)
        tokens = [len(e.text_tokens) for e in reading.encodings]
        extra = sum(
            len(w.covers[1].rows) - len(w.rows[1].rows) for w in reading.windows if w.covers[1]
        )
        lines.append(
            f"| {language} | {len(text.encode()):,} | {tokens[0]:,} / {tokens[1]:,} | {extra:,} | "
            + " | ".join(f"{middle[key] * 1e3:,.0f}" for key in calls)
            + f" | {(middle['read'] + middle['fuse']) / middle['bare']:.1f} | {whole} |"
        )
    size = sum(m.size_bytes for m in (target, source)) / 1e6
    kind = str(target.network.dtype).removeprefix("torch.")
    return [
        "",
        f"## {PAIR[1]} in the tokens of {PAIR[0]}, {kind}",
        "",
        "Exact rows carried by `prefix`, and fused; milliseconds, medians of "
        f"{PAIR_REPEATS} calls in turn. *Bare* are both forward passes alone, *ratio* is that of "
        f"reading and fusing to them, *peak* is beyond the {size:,.0f} MB of weights. Both models "
        f"are loaded and checked in {loaded:.1f} s.",
        "",
        "| text | bytes | tokens of target / source | rows on side paths | bare | read | "
        "project and fuse | ratio | peak, MB |",
        "| --- |" + " ---: |" * 8,
        *lines,
    ]


@torch.inference_mode()
def bare_passes(readers: list[LoadedModel], text: str) -> None:
    """Run networks alone over a text, in windows that do not overlap."""
    for model in readers:
        ids = torch.as_tensor(model.tokenizer.encode(text).ids, device=model.device)
        for some in ids.split(model.window):
            model.network(input_ids=some[None], use_cache=False)


if __name__ == "__main__":
    main()
