"""Rows come back from the disk as they went, or the file that lost them is named."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from cache_folders import build, documents_of, manifest_of, shards_in
from codec_rows import divergence, random_rows

from fusion_core.cache import (
    Cache,
    CacheWriter,
    Manifest,
    StoredDocument,
    differences,
    plan,
    store,
)
from fusion_core.cache.manifest import MAX_BYTES
from fusion_core.errors import FusionError, InputError
from fusion_core.records import SparseRows


def test_the_plan_is_cut_by_bytes() -> None:
    assert plan([3, 3, 3, 9, 1, 1], 6) == [(0, 2), (2, 3), (3, 4), (4, 6)]
    assert plan([100], 6) == [(0, 1)]
    assert plan([], 6) == []


def test_differences_are_named_by_path() -> None:
    other = manifest_of(
        sources=[{"name": "a", "revision": "def"}, {"name": "b", "revision": "xyz"}],
        top_k=4,
        seed=1,
    )
    assert differences(manifest_of(), manifest_of(temperature=1)) == []
    assert differences(manifest_of(), other) == [
        "settings.sources.0.revision: abc, not def",
        "settings.top_k: 3, not 4",
        "settings.seed: nothing, not 1",
    ]
    assert differences(manifest_of(), manifest_of(shards=[(0, 5)])) == [
        "shards.0.1: 2, not 5",
        "shards.1: [2, 3], not nothing",
        "shards.2: [3, 5], not nothing",
    ]
    assert differences(manifest_of(), manifest_of(kind="sources")) == ["kind: fused, not sources"]
    assert manifest_of().digest == manifest_of(temperature=1).digest != other.digest


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "fusd"},
        {"shards": [(0, 2), (3, 4)]},
        {"shards": [(0, 0)]},
        {"shards": [(0, 2.0)]},
        {"shards": []},
        {"settings": {"x": math.nan}},
        {"settings": {"x": object()}},
        {"settings": {"x": "y" * MAX_BYTES}},
        {"settings": []},
        {"data_key": 3},
        {"format": 2},
    ],
)
def test_an_impossible_manifest(change) -> None:
    good = {"kind": "fused", "settings": {}, "data_key": "", "shards": [(0, 1)]}
    with pytest.raises(InputError):
        Manifest(**good | change)


@pytest.mark.parametrize("shards", [((0, 2), (2, 3), (3, 5)), ((0, 1), (1, 2), (2, 5))])
def test_documents_come_back(tmp_path: Path, shards) -> None:
    cache = Cache.open(build(tmp_path / "new" / "cache", manifest_of(shards)))
    assert len(cache) == 5 and cache.lengths.tolist() == [4, 0, 5, 1, 2] and cache.tokens == 12
    assert cache.bytes == sum(f.stat().st_size for f in cache.folder.iterdir())
    for stored, given_ in zip(cache, documents_of(), strict=True):
        rows, wanted = stored.rows["fused"], given_.rows["fused"]
        assert torch.equal(rows.ids, wanted.ids) and torch.equal(stored.observed, given_.observed)
        assert (rows.vocab_size, rows.temperature) == (1000, 1.0)
        assert len(rows) == 0 or divergence(wanted, rows).max() < 1e-4
        for name, extra in given_.extras.items():
            assert stored.extras[name].dtype == extra.dtype
            assert np.array_equal(stored.extras[name], extra)
    for i in (-1, 5):
        with pytest.raises(IndexError):
            cache[i]


def test_rows_of_each_source(tmp_path: Path) -> None:
    rows = {name: random_rows(6, k, 50) for name, k in (("0", 2), ("1", 4), ("target", 3))}
    document = StoredDocument(rows, torch.arange(6))
    folder = build(tmp_path, manifest_of([(0, 1)], "sources"), [document])
    stored = Cache.open(folder)[0]
    assert list(stored.rows) == ["0", "1", "target"]
    assert all(torch.equal(stored.rows[name].ids, rows[name].ids) for name in rows)
    writer = CacheWriter(folder, manifest_of([(0, 1)], "sources"))
    for names in (("0", "2"), ("target",), ("fused",)):
        with pytest.raises(FusionError, match="kind sources"):
            writer.write(0, [StoredDocument(dict.fromkeys(names, rows["0"]), torch.arange(6))])


@pytest.mark.parametrize(("size", "most"), [(32_000, 32), (65_536, 32.2), (262_144, 35.2)])
def test_bytes_a_row(tmp_path: Path, size: int, most: float) -> None:
    top, ids = torch.rand(12_000, 500).softmax(1).topk(10)
    rows = SparseRows(ids, top, 1 - top.sum(1), size)
    parts = [
        StoredDocument(
            {"fused": SparseRows(rows.ids[i:j], rows.probs[i:j], rows.tail[i:j], size)},
            torch.arange(i, j),
            {"weights": np.ones(3, np.float16)},
        )
        for i, j in ((i, i + 200) for i in range(0, 12_000, 200))
    ]
    cache = Cache.open(build(tmp_path, manifest_of([(0, 30), (30, 60)]), parts))
    assert cache.rows_bytes / cache.tokens < most


def test_processes_share_the_work(tmp_path: Path) -> None:
    writer = CacheWriter(tmp_path, manifest_of())
    with pytest.raises(InputError, match="no cache at"):
        writer.missing()
    writer.prepare()
    assert [writer.missing(p, 2) for p in (0, 1)] == [[0, 2], [1]]
    writer.write(2, documents_of()[3:])
    again = CacheWriter(tmp_path, manifest_of())
    again.prepare()
    assert [again.missing(p, 2) for p in (0, 1)] == [[0], [1]]
    assert again.missing() == [0, 1] and again.missing(7, 8) == []
    with pytest.raises(InputError, match=r"lacks 2 of 3 shards \(0; 1\): run the same command"):
        Cache.open(tmp_path)
    with pytest.raises(FusionError, match="Shard 0 takes 2 documents"):
        again.write(0, documents_of()[:1])


def test_a_finished_shard_is_not_written_again(tmp_path: Path) -> None:
    build(tmp_path)
    before = [(p.name, p.stat().st_mtime_ns, p.stat().st_ino) for p in shards_in(tmp_path)]
    CacheWriter(tmp_path, manifest_of()).write(0, documents_of()[:2])
    build(tmp_path)
    assert before == [(p.name, p.stat().st_mtime_ns, p.stat().st_ino) for p in shards_in(tmp_path)]


def test_two_writers_write_the_same(tmp_path: Path, monkeypatch) -> None:
    build(tmp_path / "a")
    build(tmp_path / "b")
    build(tmp_path / "c")
    names = [p.name for p in shards_in(tmp_path / "a")]
    monkeypatch.setattr(store, "_shards", lambda folder: {})  # neither sees the other's
    build(tmp_path / "a")
    assert [p.name for p in shards_in(tmp_path / "a")] == names
    assert [p.name for p in shards_in(tmp_path / "b")] == names
    digests = [hashlib.sha256(p.read_bytes()).hexdigest() for p in shards_in(tmp_path / "c")]
    assert names == [f"{i:05d}-{digest[:16]}.safetensors" for i, digest in enumerate(digests)]


def test_what_a_killed_writer_leaves_is_swept(tmp_path: Path) -> None:
    build(tmp_path)
    victim = shards_in(tmp_path)[1]
    content = victim.read_bytes()
    victim.unlink()
    (tmp_path / f".{victim.name}.123-abcd.part").write_bytes(content[:100])
    (tmp_path / ".manifest.json.7-00.part").write_bytes(b"{")
    with pytest.raises(InputError, match=r"lacks 1 of 3 shards \(1\)"):
        Cache.open(tmp_path)
    build(tmp_path)
    assert not list(tmp_path.glob(".*")) and victim.read_bytes() == content


def test_a_part_that_another_writer_swept_is_written_again(tmp_path: Path, monkeypatch) -> None:
    real, failed = store.write_whole, []

    def once_swept(path: Path, content: bytes) -> None:
        if path not in failed:
            failed.append(path)
            raise FileNotFoundError(2, "No such file")
        real(path, content)

    monkeypatch.setattr(store, "write_whole", once_swept)
    assert len(Cache.open(build(tmp_path))) == 5 and len(failed) == 4


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch) -> None:
    writer = CacheWriter(tmp_path, manifest_of())
    writer.prepare()
    writer.write(0, documents_of()[:2])

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(InputError, match=r"No space left on device\): .*finished shards stay"):
            writer.write(1, documents_of()[2:3])
    assert len(list(tmp_path.iterdir())) == 2 and writer.missing() == [1, 2]
    assert len(Cache.open(build(tmp_path))) == 5


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    for name in ("notes.txt", ".hidden.part", "00001.safetensors", "folder/inside"):
        folder = tmp_path / name.replace("/", "-")
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("mine")
        with pytest.raises(InputError, match="is no part of a cache: choose an empty"):
            CacheWriter(folder, manifest_of()).prepare()
        assert [p.name for p in folder.iterdir()] == [Path(name).parts[0]]
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(InputError, match="cannot be written"):
        CacheWriter(file, manifest_of()).prepare()
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "manifest.json").write_text('{"name": "My app"}')
    with pytest.raises(InputError, match="is no manifest of a cache"):
        CacheWriter(tmp_path / "app", manifest_of()).prepare()


def test_another_cache_is_refused(tmp_path: Path) -> None:
    build(tmp_path)
    other = manifest_of([(0, 5)], "sources", versions={"torch": "2.7"}, top_k=4)
    wanted = (
        r"kind: fused, not sources; settings\.top_k: 3, not 4; "
        r"settings\.versions\.torch: 2\.6, not 2\.7; and 3 more"
    )
    writer = CacheWriter(tmp_path, other)
    for step in (writer.prepare, writer.missing):
        with pytest.raises(InputError, match=wanted):
            step()
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"shards but no manifest\.json"):
        CacheWriter(tmp_path, manifest_of()).prepare()
    with pytest.raises(InputError, match="There is no cache at"):
        Cache.open(tmp_path)


def test_training_asks_only_for_the_settings_it_needs(tmp_path: Path) -> None:
    build(tmp_path)
    Cache.open(tmp_path, {"target": {"revision": "r0"}, "temperature": 1, "sources": [{}, {}]})
    for expect, found in (
        ({"target": {"revision": "r1"}}, r"settings\.target\.revision: r0, not r1"),
        ({"target": {"vocab": 3}}, r"settings\.target\.vocab: nothing, not 3"),
        ({"sources": [{}]}, r"settings\.sources\.1: \{.*\}, not nothing"),
        ({"top_k": {"of": 3}}, r"settings\.top_k: 3, not \{"),
    ):
        with pytest.raises(InputError, match=found):
            Cache.open(tmp_path, expect)
