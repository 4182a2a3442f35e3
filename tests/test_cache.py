"""Rows come back from the disk as they went, or the file that lost them is named."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save
from torch.utils.data import DataLoader

from fusion_core.cache import (
    Cache,
    CacheWriter,
    Manifest,
    StoredDocument,
    decode,
    differences,
    encode,
    plan,
    read_manifest,
    store,
)
from fusion_core.cache.manifest import MAX_BYTES
from fusion_core.cache.shards import ABOUT
from fusion_core.errors import FusionError, InputError
from fusion_core.records import SparseRows

SETTINGS = {
    "target": {"name": "zoo:llama", "revision": "r0"},
    "sources": [{"name": "a", "revision": "abc"}, {"name": "b", "revision": "xyz"}],
    "top_k": 3,
    "temperature": 1.0,
    "versions": {"torch": "2.6"},
}


def rows_of(mass: np.ndarray, vocab_size: int = 1000, seed: int = 0) -> SparseRows:
    """Make rows of (m, k + 1) masses, the tail last, with ids drawn at random."""
    rng = np.random.default_rng(seed)
    mass = mass / mass.sum(1, keepdims=True)
    probs = -np.sort(-mass[:, :-1], axis=1)
    k = probs.shape[1]
    ids = np.stack([rng.choice(vocab_size, k, replace=False) for _ in range(len(mass))])
    ids[probs[:, 0] == 0] = -1
    return SparseRows(
        torch.from_numpy(ids),
        torch.from_numpy(probs.astype(np.float32)),
        torch.from_numpy(mass[:, -1].astype(np.float32)),
        vocab_size,
    )


def random_rows(m: int, k: int, vocab_size: int = 1000, seed: int = 0) -> SparseRows:
    return rows_of(np.random.default_rng(seed).dirichlet(np.ones(k + 1), m), vocab_size, seed)


def through(rows: SparseRows, observed: torch.Tensor | None = None) -> SparseRows:
    seen = torch.arange(len(rows)) % rows.vocab_size if observed is None else observed
    back, again = decode(encode(rows, seen), rows.ids.shape[1], rows.vocab_size, rows.temperature)
    assert torch.equal(again, seen)
    return back


def divergence(p: SparseRows, q: SparseRows) -> np.ndarray:
    """KL(p || q) of each row in nats, by the definition, the tail as one bucket."""
    result = []
    for a, b in zip(
        torch.cat([p.probs, p.tail[:, None]], 1).double().tolist(),
        torch.cat([q.probs, q.tail[:, None]], 1).double().tolist(),
        strict=True,
    ):
        total = sum(a)
        pairs = zip(a, b, strict=True)
        result.append(sum(x / total * math.log(x / total / y) for x, y in pairs if x > 0))
    return np.array(result)


def test_the_bytes_by_hand() -> None:
    """Seven ids need three bits: 5, 2, 6 and the observed 3 are 101 010 110 011."""
    rows = SparseRows(
        torch.tensor([[5, 2, 6]]), torch.tensor([[0.5, 0.25, 0.05]]), torch.tensor([0.2]), 7
    )
    arrays = encode(rows, torch.tensor([3]))
    assert arrays["ids"].tolist() == [[0b10101011, 0b00110000]]
    share, *others = arrays["probs"][0].tolist()
    second, third = (((c - 0.5) / 255) ** 2 / j for j, c in enumerate(others, 2))
    angle = (share - 0.5) / 254 * math.pi / 2
    rest = 1 - second - third
    back = through(rows, torch.tensor([3]))
    assert back.ids.tolist() == [[5, 2, 6]]
    assert back.probs[0].tolist() == pytest.approx(
        [rest * math.cos(angle) ** 2, second, third], rel=1e-5
    )
    assert back.tail.item() == pytest.approx(rest * math.sin(angle) ** 2, rel=1e-5)
    assert back.probs[0].tolist() == pytest.approx([0.5, 0.25, 0.05], abs=0.004)


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 65_536, 100_000, 262_144, 2**31 - 1])
def test_ids_stand_bit_by_bit(size: int) -> None:
    numbers = np.random.default_rng(size).integers(0, size, (5, 4))
    numbers[0] = size - 1, 0, size - 1, size - 1
    rows = SparseRows(
        torch.from_numpy(numbers[:, :3]),
        torch.tensor([[0.5, 0.3, 0.1]]).repeat(5, 1),
        torch.full((5,), 0.1),
        size,
    )
    need = len(f"{size - 1:b}")
    for row, packed in zip(
        numbers.tolist(), encode(rows, torch.from_numpy(numbers[:, 3]))["ids"], strict=True
    ):
        text = "".join(f"{number:0{need}b}" for number in row)
        assert "".join(f"{byte:08b}" for byte in packed) == text.ljust(-(-len(text) // 8) * 8, "0")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_row_comes_back(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 300_000))
    k = data.draw(st.integers(1, min(size, 64)))
    powers = st.one_of(st.floats(-12, 0), st.just(-math.inf), st.just(0.0))
    mass = 10 ** np.array([data.draw(st.lists(powers, min_size=k + 1, max_size=k + 1))])
    mass = mass if mass.sum() > 0 else np.eye(k + 1)[-1:]
    rows = rows_of(mass, size, data.draw(st.integers(0, 9)))
    back = through(rows, torch.tensor([data.draw(st.integers(0, size - 1))]))
    assert torch.equal(back.ids, rows.ids)
    assert torch.equal(back.probs > 0, rows.probs > 0) and (back.tail > 0) == (rows.tail > 0)
    assert (back.probs.sum(1) + back.tail).item() == pytest.approx(1, abs=1e-6)
    assert divergence(rows, back).max() < 1e-4


@pytest.mark.parametrize("k", [1, 2, 3, 10, 64])
def test_codes_cost_next_to_nothing(k: int) -> None:
    rng = np.random.default_rng(k)
    masses = [rng.dirichlet(np.full(k + 1, c), 60) for c in (0.02, 0.1, 0.5, 1, 5, 1e3, 1e6)]
    peaked = 10 ** rng.uniform(-10, 0, (60, k + 1))
    flat = np.concatenate([np.ones((60, k)), k * rng.random((60, 1)) ** 4], axis=1)
    wide = np.concatenate([np.ones((60, k)), 10 ** rng.uniform(0, 6, (60, 1))], axis=1)
    slim = np.concatenate([rng.dirichlet(np.ones(k), 60), 10 ** rng.uniform(-9, -3, (60, 1))], 1)
    power = ((rng.integers(1, 200, (60, 1)) / 255) ** 2) / np.arange(1, k + 1)  # edges of the steps
    edges = np.concatenate([power, rng.random((60, 1)) / k], axis=1)
    rows = rows_of(np.concatenate([*masses, peaked, flat, wide, slim, edges]))
    costs = divergence(rows, through(rows))
    assert costs.max() < 1e-4
    assert costs.mean() < 3e-5


def test_the_worst_rounding_for_the_first_token() -> None:
    """Flat rows whose every code would be rounded the same way, were they not evened out."""
    k = 64
    j = np.arange(2, k + 1)
    for up in (0.001, 0.999):
        others = ((np.floor(255 * np.sqrt(j / (k + 4))) + up) / 255) ** 2 / j
        first = max(others.max(), 1 - others.sum())
        rows = rows_of(np.array([[first, *others, 0]]))
        assert divergence(rows, through(rows)).max() < 1e-4


def test_rows_that_hold_less() -> None:
    nothing = SparseRows(torch.full((2, 3), -1), torch.zeros(2, 3), torch.ones(2), 9)
    back = through(nothing)
    assert (back.ids == -1).all() and back.tail.tolist() == [1, 1] and back.probs.sum() == 0
    some = SparseRows(
        torch.tensor([[4, 0, -1], [0, 8, -1], [4, 0, 2]]),
        torch.tensor([[0.75, 0.25, 0.0], [0.5, 0.25, 0.0], [1.0, 0.0, 0.0]]),
        torch.tensor([0.0, 0.25, 0.0]),
        9,
        2.0,
    )
    back = through(some)
    assert torch.equal(back.ids, some.ids) and back.temperature == 2
    assert back.probs[2].tolist() == [1, 0, 0] and back.tail[0] == 0
    none = SparseRows(torch.empty(0, 3).long(), torch.empty(0, 3), torch.empty(0), 9)
    assert len(through(none)) == 0
    one = SparseRows(torch.tensor([[0]]), torch.tensor([[1.0]]), torch.tensor([0.0]), 1)
    assert through(one).ids.tolist() == [[0]]


@pytest.mark.parametrize(
    ("ids", "probs", "tail", "seen"),
    [
        ([1, 2], [0.2, 0.6], 0.2, 0),
        ([1, 2], [0.5, 0.5], 0.5, 0),
        ([1, 2], [math.nan, 0.5], 0.5, 0),
        ([1, 2], [1.5, -0.5], 0.0, 0),
        ([-1, 2], [0.6, 0.4], 0.0, 0),
        ([1, 9], [0.6, 0.4], 0.0, 0),
        ([1, -2], [0.6, 0.0], 0.4, 0),
        ([1, 2], [0.6, 0.4], 0.0, 9),
        ([1, 2], [0.6, 0.4], 0.0, -1),
    ],
)
def test_what_cannot_come_back_is_not_stored(ids, probs, tail, seen) -> None:
    rows = SparseRows(torch.tensor([ids]), torch.tensor([probs]), torch.tensor([tail]), 9)
    with pytest.raises(FusionError, match="to store"):
        encode(rows, torch.tensor([seen]))


def test_codes_that_nobody_wrote() -> None:
    good = encode(random_rows(4, 9, 100), torch.arange(4))
    back, _ = decode(good | {"probs": np.full((4, 9), 255, np.uint8)}, 9, 100, 1.0)
    assert torch.isfinite(back.probs).all()
    assert torch.allclose(back.probs.sum(1) + back.tail, torch.ones(4))
    for arrays, k, size in (
        (good | {"ids": np.full_like(good["ids"], 255)}, 9, 100),
        (good, 8, 100),
        (good, 9, 300),
        (good | {"probs": good["probs"].astype(np.int16)}, 9, 100),
        (good | {"probs": good["probs"][:3]}, 9, 100),
    ):
        with pytest.raises(InputError, match="build the cache again"):
            decode(arrays, k, size, 1.0)


def test_the_plan_is_cut_by_bytes() -> None:
    assert plan([3, 3, 3, 9, 1, 1], 6) == [(0, 2), (2, 3), (3, 4), (4, 6)]
    assert plan([100], 6) == [(0, 1)]
    assert plan([], 6) == []


def manifest_of(shards=((0, 2), (2, 3), (3, 5)), kind: str = "fused", **changed) -> Manifest:
    return Manifest(kind, SETTINGS | changed, "d" * 64, shards)


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
    assert cache.bytes / cache.tokens < most


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
