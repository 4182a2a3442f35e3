"""What fusion adds to a training step: time and memory beside the text alone.

    python benchmarks/train_step.py            # the zoo's target, and 30 M parameters
    python benchmarks/train_step.py --device cuda    # a random Llama of a billion parameters

writes benchmarks/results/train_step.md, each its part of it. A step is all of it: documents and
rows read from a cache on disk, laid out as a batch, forward, loss, backward, AdamW. In turn in one
process, medians:

- *text alone*: `FusionTrainer` in mode clm;
- *fusion*: the same with ten fused tokens and a tail a position;
- *transformers*: the loss of the model itself, for orientation;
- *dense*: the targets of the published collator, a whole row of the vocabulary a position
  (one source), and the cross-entropy against them;
- *adapters*: fusion with LoRA of rank 16 in place of full fine-tuning, timed after the others.

Peak memory is that of a process of its own for each, above what the same process has before its
first step.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, TrainingArguments

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fusion_core import zoo
from fusion_core.cache import Cache, CacheWriter, Manifest, StoredDocument, plan
from fusion_core.config import Lora, RunConfig
from fusion_core.records import SparseRows
from fusion_core.training import Blocks, CachedRowsDataset, Collator, FusionTrainer
from fusion_core.training.adapters import with_adapters

OUT = ROOT / "benchmarks" / "results" / "train_step.md"
GPU_PART = "# The same on a GPU"
K, DOCUMENT = 10, 200
WAYS = ("text alone", "fusion", "transformers", "dense")
ADAPTERS = "adapters"
CASES: dict[str, dict[str, Any]] = {
    "zoo": {"batch": 4, "block": 512, "rounds": 15},
    "30 M": {"batch": 2, "block": 512, "rounds": 7, "hidden": 512, "layers": 4, "size": 32_000},
    "1 B": {"batch": 1, "block": 2048, "rounds": 20, "hidden": 2048, "layers": 18, "size": 32_000},
}


def network(case: str, device: torch.device) -> Any:
    """Make a model of random weights, or take the zoo's target."""
    if case == "zoo":
        model = AutoModelForCausalLM.from_pretrained(zoo.path("llama"), dtype=torch.float32)
        return model.to(device)
    shape = CASES[case]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=shape["size"],
        hidden_size=shape["hidden"],
        intermediate_size=shape["hidden"] * 8 // 3 // 32 * 32,
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["hidden"] // 64,
        max_position_embeddings=shape["block"],
        tie_word_embeddings=shape["hidden"] < 1024,
    )
    with device:
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        return LlamaForCausalLM(config).to(dtype)


def write_cache(folder: Path, size: int, documents: int) -> None:
    """Write peaked random rows as a fused cache."""
    draws = torch.Generator().manual_seed(1)
    stored = []
    for _ in range(documents):
        observed = torch.randint(size, (DOCUMENT,), generator=draws)
        ids = torch.rand(DOCUMENT, size, generator=draws).topk(K).indices
        ids[:, 0] = observed
        ids[:, 1:] = torch.where(
            ids[:, 1:] == observed[:, None], (observed[:, None] + 1) % size, ids[:, 1:]
        )
        probs = torch.rand(DOCUMENT, K + 1, generator=draws).pow(4)
        probs = (probs / probs.sum(1, keepdim=True)).sort(dim=1, descending=True).values
        rows = SparseRows(ids, probs[:, :K], probs[:, K], size)
        kept = np.full(DOCUMENT, 255, np.uint8)
        stored.append(StoredDocument({"fused": rows}, observed, {"kept": kept}))
    manifest = Manifest("fused", {}, "random", plan([DOCUMENT] * documents, DOCUMENT * documents))
    writer = CacheWriter(folder, manifest)
    writer.prepare()
    writer.write(0, stored)


class Steps:
    """The four ways to do a step, on one model."""

    def __init__(
        self, case: str, folder: Path, device: torch.device, *, adapters: bool = False
    ) -> None:
        shape = CASES[case]
        self.model = network(case, device)
        if adapters:
            config = RunConfig(target="T", sources=("S",), data="D", lora=Lora())
            self.model = with_adapters(config, self.model.requires_grad_(False))
        self.size = self.model.config.vocab_size
        self.device = device
        cache = Cache.open(folder)
        self.batch, block = shape["batch"], shape["block"]
        self.blocks = {
            plain: Blocks(CachedRowsDataset(cache, plain=plain), block, start_id=1, end_id=2)
            for plain in (True, False)
        }
        self.collate = Collator(block, 2)
        arguments = TrainingArguments(
            output_dir=str(folder / "out"), report_to="none", use_cpu=device.type == "cpu"
        )
        self.trainer = FusionTrainer(model=self.model, args=arguments)
        self.model.train()
        self.optimiser = torch.optim.AdamW(
            [p for p in self.model.parameters() if p.requires_grad], lr=1e-5, fused=True
        )
        self.at = 0

    def step(self, way: str) -> None:
        """Do one step."""
        blocks = self.blocks[way in ("text alone", "transformers")]
        chosen = [(self.at + i) % len(blocks) for i in range(self.batch)]
        self.at += self.batch
        batch = self.collate([blocks[i] for i in chosen])
        dense = self._dense(batch) if way == "dense" else None
        batch = {k: v.to(self.device) for k, v in batch.items()}
        if way in ("text alone", "fusion", ADAPTERS):
            loss = self.trainer.compute_loss(self.model, batch)
        else:
            plain = {k: batch[k] for k in ("input_ids", "position_ids")}
            if dense is None:
                plain["labels"] = batch["labels"]
                shifted = {"shift_labels": batch["labels"]}
                loss = self.model(**plain, **shifted, use_cache=False).loss
            else:
                loss = self._dense_loss(plain, dense.to(self.device), batch["labels"])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _dense(self, batch: dict[str, Any]) -> torch.Tensor:
        """Lay rows out over the vocabulary."""
        ids, probs = batch["fused_ids"], batch["fused_probs"]
        rows = torch.zeros(*ids.shape[:2], self.size)
        return rows.scatter_add_(2, ids.clamp(min=0), probs)

    def _dense_loss(
        self, inputs: dict[str, Any], dense: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        logits = self.model(**inputs, use_cache=False).logits.float()
        logprobs = torch.log_softmax(logits, -1)
        fusion = -(dense * logprobs).sum(-1).mean()
        clm = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return 0.5 * clm + 0.5 * fusion


def seconds(case: str, folder: Path, device: torch.device) -> dict[str, float]:
    """Time the ways in turn: medians, and of the ratios to the text alone the median, too."""
    steps = Steps(case, folder, device)
    for way in WAYS:
        steps.step(way)
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    for n in range(CASES[case]["rounds"]):
        for way in WAYS if n % 2 else WAYS[::-1]:
            began = time.perf_counter()
            steps.step(way)
            taken[way].append(time.perf_counter() - began)
    with_lora = Steps(case, folder, device, adapters=True)
    taken[ADAPTERS] = []
    for _ in range(CASES[case]["rounds"] + 1):
        began = time.perf_counter()
        with_lora.step(ADAPTERS)
        taken[ADAPTERS].append(time.perf_counter() - began)
    del taken[ADAPTERS][0]
    base = taken[WAYS[0]]
    ratios = {
        f"{way} ratio": statistics.median(a / b for a, b in zip(taken[way], base, strict=True))
        for way in taken
    }
    return {way: statistics.median(t) for way, t in taken.items()} | ratios


def peak(case: str, folder: Path, device: torch.device, way: str) -> int:
    """Bytes that a process takes for steps of one way, above what it has before."""
    steps = Steps(case, folder, device, adapters=way == ADAPTERS)
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
    else:
        before = resident()
    for _ in range(3):
        steps.step(way)
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() - before
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before


def resident() -> int:
    """Bytes of this process in memory."""
    import psutil

    return psutil.Process().memory_info().rss


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description="What fusion adds to a training step.")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--case")
    parser.add_argument("--cache")
    parser.add_argument("--way", help="measure the memory of one way, as JSON")
    given = parser.parse_args()
    device = torch.device(given.device)
    if given.case:
        folder = Path(given.cache)
        if given.way:
            print(json.dumps(peak(given.case, folder, device, given.way)))
        else:
            print(json.dumps(seconds(given.case, folder, device)))
        return
    on_gpu = device.type == "cuda"
    about = torch.cuda.get_device_name(device) if on_gpu else f"{os.cpu_count()} cores"
    lines = [GPU_PART if on_gpu else "# What fusion adds to a training step", ""]
    lines += [f"`python benchmarks/train_step.py{' --device cuda' if on_gpu else ''}`; {about}."]
    for case in ("1 B",) if on_gpu else ("zoo", "30 M"):
        with tempfile.TemporaryDirectory() as folder:
            size = CASES[case].get("size", 1400)
            write_cache(Path(folder) / "cache", size, 60)
            lines += table(case, lambda *more, f=folder, c=case: ask(c, f, given.device, *more))
    before, part, after = OUT.read_text(encoding="utf-8").partition(f"\n{GPU_PART}")
    page = "\n".join(lines) + "\n"
    page = f"{before}\n{page}" if on_gpu else page + part + after
    OUT.write_text(page, encoding="utf-8")
    print(page)


def ask(case: str, folder: str, device: str, *more: str) -> Any:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, "--case", case, "--cache", f"{folder}/cache"]
    ran = subprocess.run(
        [*command, "--device", device, *more], check=True, capture_output=True, text=True
    )
    return json.loads(ran.stdout.splitlines()[-1])


def table(case: str, measured: Callable[..., Any]) -> list[str]:
    """Make the lines of one model."""
    times = measured()
    ways = (*WAYS, ADAPTERS)
    peaks = {way: measured("--way", way) for way in ways}
    shape = CASES[case]
    tokens = f"{shape['batch']} × {shape['block']} tokens"
    lines = ["", f"## {case}: {tokens}", ""]
    lines += ["| a step | ms | to the text alone | peak MB | to the text alone |"]
    lines += ["| --- | ---: | ---: | ---: | ---: |"]
    for way in ways:
        lines.append(
            f"| {way} | {1e3 * times[way]:.1f} | {times[f'{way} ratio']:.3f} | "
            f"{peaks[way] / 1e6:.0f} | {peaks[way] / peaks[WAYS[0]]:.3f} |"
        )
    return lines


if __name__ == "__main__":
    main()
