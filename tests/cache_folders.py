"""Caches of a few documents on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from codec_rows import random_rows

from fusion_core.cache import (
    CacheWriter,
    Manifest,
    StoredDocument,
)
from fusion_core.records import SparseRows

SETTINGS = {
    "target": {"name": "zoo:llama", "revision": "r0"},
    "sources": [{"name": "a", "revision": "abc"}, {"name": "b", "revision": "xyz"}],
    "top_k": 3,
    "temperature": 1.0,
    "versions": {"torch": "2.6"},
}


def manifest_of(shards=((0, 2), (2, 3), (3, 5)), kind: str = "fused", **changed) -> Manifest:
    return Manifest(kind, SETTINGS | changed, "d" * 64, shards)


def documents_of(k: int = 3, vocab_size: int = 1000) -> list[StoredDocument]:
    """Five documents of 4, 0, 5, 1 and 2 rows."""
    documents = []
    for i, m in enumerate((4, 0, 5, 1, 2)):
        if m:
            rows = random_rows(m, k, vocab_size, seed=i)
        else:
            rows = SparseRows(
                torch.empty(0, k).long(), torch.empty(0, k), torch.empty(0), vocab_size
            )
        extras = {
            "weights": np.array([0.25, 0.75], np.float16) * i,
            "kept": np.arange(m, dtype=np.float16),
            "score": np.float32(i),
        }
        documents.append(StoredDocument({"fused": rows}, torch.arange(m) + i, extras))
    return documents


def build(folder: Path, manifest: Manifest | None = None, documents=None) -> Path:
    writer = CacheWriter(folder, manifest or manifest_of())
    writer.prepare()
    for number in writer.missing():
        first, last = writer.manifest.shards[number]
        writer.write(number, (documents or documents_of())[first:last])
    return folder


def shards_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))
