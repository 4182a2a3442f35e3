"""How small fused rows are on disk, and how quick to read.

    FUSELAB_TESTDATA=… python benchmarks/storage.py

writes benchmarks/results/storage.md: fused rows of the zoo, and of real vocabularies with random
rows (those of cases.py) where FUSELAB_TESTDATA is set, as `fusion_core.cache` writes them, whole
folders counted, and as Arrow lists, the published layout; and how fast they are read, beside the
rows that a training step takes.
"""

from __future__ import annotations

import copy
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from cases import CONFIG, ROOT, Case, Part, fused, large_case
from rows import load, medians

from fusion_core import cache, corpus, models, zoo
from fusion_core.mapping import mapping_between
from fusion_core.models import LoadedModel
from fusion_core.reading import read_documents
from fusion_core.records import FusedRows, SparseRows

OUT = ROOT / "benchmarks" / "results" / "storage.md"
STORED_BYTES = 40_000
"""Text of each domain whose fused rows of the zoo are stored."""
BATCH, BLOCK = 8, 256
"""Texts of a training step, and their tokens."""
TARGETS = {"bytes": "36", "kl": "1e-3", "reading": "10"}


def main() -> None:
    """Measure, and write the tables."""
    torch.set_num_threads(2)
    readers = [models.load(zoo.PREFIX + n) for n in zoo.NAMES]
    stored = {"zoo": zoo_documents(readers)}
    if folder := os.environ.get("FUSELAB_TESTDATA"):
        case = large_case(Path(folder) / "tokenizers", Path(folder) / "data")
        rows = fused(case, case.maps(CONFIG.strategy))
        stored["large"] = [document(r, p) for r, p in zip(rows, case.parts, strict=True)]
    else:
        print("FUSELAB_TESTDATA is not set: no large vocabularies.", file=sys.stderr)
    lines = ["# Storing fused rows", ""]
    lines += ["`FUSELAB_TESTDATA=… python benchmarks/storage.py`; two cores, one run.", ""]
    with tempfile.TemporaryDirectory() as scratch:
        lines += [*storage(stored, Path(scratch)), *reading(readers[0], Path(scratch) / "zoo")]
    lines += ["", load()]
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(OUT.read_text(encoding="utf-8"))


def document(rows: FusedRows, part: Part) -> cache.StoredDocument:
    """Return a window's fused rows as they are stored."""
    return cache.StoredDocument({"fused": rows.rows}, part.rows[0].observed[:-1])


def zoo_documents(readers: Sequence[LoadedModel]) -> list[cache.StoredDocument]:
    """Fuse the zoo on documents of every domain, each short enough for one window."""
    texts = [t for d in (*corpus.DOMAINS, "mixed") for t in corpus.text(d, "test", STORED_BYTES)]
    target, *sources = (m.tokenizer for m in readers)
    maps = [mapping_between(s, target, CONFIG.strategy) for s in sources]
    out = []
    for reading in read_documents(readers, texts, CONFIG):
        bits = list(reading.bits_per_byte.values())
        case = Case("", list(reading.tokenizers), "", Part.all_of(reading), bits)
        out += [document(r, p) for r, p in zip(fused(case, maps), case.parts, strict=True)]
    return out


def storage(stored: dict[str, list[cache.StoredDocument]], folder: Path) -> list[str]:
    """Write rows as a cache and as Arrow lists, and read the cache back."""
    lines = []
    for name, documents in stored.items():
        n = sum(map(len, documents))
        settings = {**CONFIG.model_dump(), "target": name, "sources": ["0", "1", "2"]}
        shards = cache.plan([4 * len(d) for d in documents], 1 << 20)
        manifest = cache.Manifest("fused", settings, "0" * 64, shards)
        writer = cache.CacheWriter(folder / name, manifest)
        writer.prepare()
        for number in writer.missing():
            writer.write(number, documents[slice(*manifest.shards[number])])
        ours = sum(f.stat().st_size for f in (folder / name).iterdir())
        nats = np.concatenate(
            [
                divergence(before.rows["fused"], after.rows["fused"])
                for before, after in zip(documents, cache.Cache.open(folder / name), strict=True)
            ]
        )
        sizes = published_sizes(documents, folder)
        size = documents[0].rows["fused"].vocab_size
        lines.append(
            f"| {name} | {size:,} | {n:,} | {len(documents):,} | **{ours / n:.2f}** | "
            f"{nats.mean():.1e} | **{nats.max():.1e}** | "
            + " | ".join(f"{b / n:.1f} (x {b / ours:.1f})" for b in sizes)
            + " |"
        )
    return [
        f"## Storage: fused rows of {CONFIG.top_k} tokens",
        "",
        "Bytes per target token, the observed token included; at most",
        f"{TARGETS['bytes']} were aimed at, with a Kullback-Leibler divergence of at most",
        f"{TARGETS['kl']} nats a row. Beside them",
        "the same rows as lists of lists, one record a document, as `datasets` writes them for the",
        "published code (an Arrow stream of int64 and float64), the same in 32 bits, and that as",
        "Parquet with zstd; none of these holds less than the top rows and the observed token.",
        "",
        "| rows | vocabulary | tokens | documents | cache | KL, mean | KL, max | Arrow, 64 bits | "
        "Arrow, 32 bits | Parquet, 32 bits, zstd |",
        "| --- |" + " ---: |" * 9,
        *lines,
        "",
    ]


def divergence(before: SparseRows, after: SparseRows) -> np.ndarray:
    """KL(before || after) of (m,) rows in nats, the tail as one bucket."""
    assert torch.equal(before.ids.masked_fill(before.probs <= 0, -1), after.ids)
    p, q = (torch.cat([r.probs, r.tail[:, None]], dim=1).double().numpy() for r in (before, after))
    p = p / p.sum(1, keepdims=True)
    ratio = np.divide(p, q, out=np.ones_like(p), where=p > 0)
    return (p * np.log(ratio)).sum(1)


def published_sizes(documents: Sequence[cache.StoredDocument], folder: Path) -> list[int]:
    """Return the bytes of Arrow streams of 64 and of 32 bits, and of Parquet."""
    rows = [d.rows["fused"] for d in documents]
    sizes = []
    for whole, real in ((pa.int64(), pa.float64()), (pa.int32(), pa.float32())):
        table = pa.table(
            {
                "input_ids": pa.array([d.observed.tolist() for d in documents], pa.list_(whole)),
                "indices": pa.array([r.ids.tolist() for r in rows], pa.list_(pa.list_(whole))),
                "values": pa.array([r.probs.tolist() for r in rows], pa.list_(pa.list_(real))),
            }
        )
        file = folder / "lists"
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table, max_chunksize=1000)
        sizes.append(file.stat().st_size)
    pq.write_table(table, file, compression="zstd")
    return [*sizes, file.stat().st_size]


def reading(target: LoadedModel, folder: Path) -> list[str]:
    """Compare reading a cache with the rows that training takes."""
    network = copy.deepcopy(target.network).float().train().requires_grad_(True)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4)
    ids = torch.randint(
        target.tokenizer.size, (BATCH, BLOCK), generator=torch.Generator().manual_seed(0)
    )

    def step() -> None:
        network(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    def read(verify: bool) -> int:
        return sum(map(len, cache.Cache.open(folder, verify=verify)))

    taken = medians({"step": step, "read": lambda: read(True), "unchecked": lambda: read(False)}, 9)
    n = read(True)
    needs = BATCH * BLOCK / taken["step"]
    lines = [
        f"| {name} | {n / taken[key]:,.0f} | **{n / taken[key] / needs:.0f}** |"
        for name, key in (("open, verify, read all", "read"), ("open, read all", "unchecked"))
    ]
    return [
        "## Reading back",
        "",
        f"The cache of the zoo's {n:,} rows, {n // len(cache.Cache.open(folder))} a document,",
        f"against a training step of `{target.name}` (float32, batch {BATCH} x {BLOCK}, AdamW),",
        f"which takes {needs:,.0f} rows a second; a ratio of {TARGETS['reading']} was aimed at.",
        "",
        "| | rows a second | times what training takes |",
        "| --- | ---: | ---: |",
        *lines,
    ]


if __name__ == "__main__":
    main()
