"""Caches that are damaged or foreign: the file that is at fault is named."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from cache_folders import build, documents_of, manifest_of, shards_in
from codec_rows import random_rows
from safetensors.numpy import load, save
from torch.utils.data import DataLoader

from fusion_core.cache import (
    Cache,
    StoredDocument,
    read_manifest,
)
from fusion_core.cache.shards import ABOUT
from fusion_core.errors import FusionError, InputError


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    folder = build(tmp_path, manifest_of([(0, 1)]), documents_of()[:1])
    for file in folder.iterdir():
        content = file.read_bytes()
        for bit in range(8 * len(content)):
            broken = bytearray(content)
            broken[bit // 8] ^= 1 << bit % 8
            file.write_bytes(broken)
            with pytest.raises(InputError) as caught:
                Cache.open(folder)
            assert file.name in str(caught.value) or file.name == "manifest.json"
        file.write_bytes(content)
    assert len(Cache.open(folder)) == 1


@pytest.mark.parametrize("verify", [True, False])
def test_a_short_or_foreign_shard_is_named(tmp_path: Path, verify: bool) -> None:
    build(tmp_path / "a")
    build(tmp_path / "b", manifest_of(top_k=9))
    for number, victim in enumerate(shards_in(tmp_path / "a")):
        content = victim.read_bytes()
        foreign = shards_in(tmp_path / "b")[number]
        for broken in (b"", content[:-1], content[: len(content) // 2], content + b"\0"):
            victim.write_bytes(broken)
            with pytest.raises(InputError, match=f"{victim.name} is damaged .*delete this file"):
                Cache.open(tmp_path / "a", verify=verify)
        victim.unlink()
        stranger = tmp_path / "a" / foreign.name
        stranger.write_bytes(foreign.read_bytes())
        with pytest.raises(InputError, match=f"{foreign.name} is damaged .*manifest beside it"):
            Cache.open(tmp_path / "a", verify=verify)
        stranger.unlink()
        victim.write_bytes(content)
    extra = tmp_path / "a" / f"00003-{'0' * 16}.safetensors"
    extra.write_bytes(b"")
    with pytest.raises(InputError, match=f"{extra.name} is one shard too many"):
        Cache.open(tmp_path / "a", verify=verify)
    twice = extra.rename(tmp_path / "a" / f"00002-{'f' * 16}.safetensors")
    with pytest.raises(InputError, match=f"{twice.name} is one shard too many"):
        Cache.open(tmp_path / "a", verify=verify)


def about(change: Callable[[dict], object]) -> Callable[[dict, dict], object]:
    return lambda arrays, about: change(about)


HOSTILE: dict[str, Callable[[dict, dict], object]] = {
    "lengths": lambda arrays, about: arrays["lengths"].fill(9),
    "huge": lambda arrays, about: arrays["lengths"].fill(2**32 - 1),
    "signed": lambda arrays, about: arrays.update(lengths=arrays["lengths"].view(np.int32)),
    "scalar": lambda arrays, about: arrays.update(lengths=np.array(4, np.uint32)),
    "absent": lambda arrays, about: arrays.pop("rows.fused.probs"),
    "flat": lambda arrays, about: arrays.update({"rows.fused.probs": np.zeros(4, np.uint8)}),
    "thin": lambda arrays, about: arrays.update({"rows.fused.probs": np.zeros((4, 0), np.uint8)}),
    "float": lambda arrays, about: arrays.update({"rows.fused.probs": np.zeros((4, 3), "f4")}),
    "more": lambda arrays, about: arrays.update(other=np.zeros(3)),
    "extra": lambda arrays, about: arrays.update({"extras.weights": np.zeros((2, 2), "f2")}),
    "number": about(lambda a: a.update(shard=1)),
    "vocabulary": about(lambda a: a["rows"]["fused"].update(vocab_size=-1)),
    "wide": about(lambda a: a["rows"]["fused"].update(vocab_size=2**40)),
    "text": about(lambda a: a["rows"]["fused"].update(vocab_size="1000")),
    "cold": about(lambda a: a["rows"]["fused"].update(temperature=-1)),
    "word": about(lambda a: a["rows"]["fused"].update(temperature="1")),
    "list": about(lambda a: a.update(rows=[])),
    "no rows": about(lambda a: a.pop("rows")),
    "renamed": about(lambda a: a["rows"].update(x=a["rows"].pop("fused"))),
    "by": about(lambda a: a["extras"].update(weights="row")),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_shard_is_refused(tmp_path: Path, name: str) -> None:
    folder = build(tmp_path, manifest_of([(0, 1)]), documents_of()[:1])
    [file] = shards_in(folder)
    content = file.read_bytes()
    file.unlink()
    arrays = load(content)
    length = int.from_bytes(content[:8], "little")
    told = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][ABOUT])
    HOSTILE[name](arrays, told)
    content = save(arrays, {ABOUT: json.dumps(told)})
    bad = folder / f"00000-{hashlib.sha256(content).hexdigest()[:16]}.safetensors"
    bad.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(bad.name)):
        Cache.open(folder)


def test_a_shard_that_holds_an_impossible_id(tmp_path: Path) -> None:
    folder = build(tmp_path, manifest_of([(0, 1)]), documents_of(vocab_size=1000)[:1])
    [file] = shards_in(folder)
    file.write_bytes(file.read_bytes().replace(b"1000", b" 513"))
    cache = Cache.open(folder, verify=False)
    with pytest.raises(InputError, match=f"{file.name} is damaged .*outside the vocabulary"):
        cache[0]


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"3", b"{}", b"\xff", b"[" * 100_000, b'{"kind": "fused", "x": 1}'],
    ids=range(7),
)
def test_a_hostile_manifest_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(text)
    with pytest.raises(InputError, match=r"manifest\.json is no manifest of a cache"):
        read_manifest(tmp_path)


def test_documents_of_a_shard_are_alike(tmp_path: Path) -> None:
    one, _, three, *_ = documents_of()
    for other, found in (
        (StoredDocument(three.rows, three.observed), "different names"),
        (StoredDocument({"fused": random_rows(5, 4)}, three.observed, three.extras), "differ in"),
        (StoredDocument(three.rows, three.observed, three.extras | {"kept": np.ones(7)}), "'kept'"),
    ):
        with pytest.raises(FusionError, match=found):
            build(tmp_path, manifest_of([(0, 2)]), [one, other])
    with pytest.raises(FusionError, match="has 3 tokens, but rows"):
        StoredDocument(one.rows, torch.arange(3))


def test_workers_of_a_loader_read_it(tmp_path: Path) -> None:
    cache = Cache.open(build(tmp_path))
    cache[0]  # a file is open here that no worker may share
    loader = DataLoader(
        cache, batch_size=None, num_workers=2, multiprocessing_context="spawn", shuffle=False
    )
    seen = [document.observed.tolist() for document in loader]
    assert seen == [d.observed.tolist() for d in documents_of()]
