"""Vocab maps on disk: built once, and again when damaged, edited or evicted."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from pathlib import Path
from threading import Barrier, Thread

import numpy as np
import pytest
from conftest import byte_level
from tiny import large_vocabulary

from fusion_core import compare, mapping, pipeline
from fusion_core.config import FusionConfig
from fusion_core.mapping import prefix, store
from fusion_core.records import MapReason, VocabMap
from fusion_core.tokens import TextTokenizer


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSELAB_CACHE", str(tmp_path))
    return tmp_path / "maps"


def equal(one: VocabMap, other: VocabMap) -> bool:
    first, second = one.arrays(), other.arrays()
    return first.keys() == second.keys() and all(
        np.array_equal(a, second[n]) and a.dtype == second[n].dtype for n, a in first.items()
    )


@pytest.mark.parametrize("name", mapping.MATRICES)
def test_a_map_is_built_once(folder, tiny_llama_tokenizer, tiny_gpt_tokenizer, name: str) -> None:
    pair = tiny_llama_tokenizer, tiny_gpt_tokenizer
    built, first = mapping.matrix(name, *pair, ["the cat"])
    kept, second = mapping.matrix(name, *pair, ["the cat"])
    assert (first, second) == (False, True) and equal(built, kept)
    assert not list(folder.glob("*.part"))
    _, other = mapping.matrix(name, *pair[::-1], ["the cat"])
    assert not other, "the other direction is another map"
    _, counted = mapping.matrix(name, *pair, ["sat"])
    assert counted == (name != "statistical"), "and so is another corpus"


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "foreign", "folder"])
def test_a_damaged_map_is_built_again(
    folder, tiny_llama_tokenizer, tiny_gpt_tokenizer, damage: str
) -> None:
    pair = tiny_llama_tokenizer, tiny_gpt_tokenizer
    built, _ = mapping.matrix("mined", *pair)
    (file,) = folder.iterdir()
    content = file.read_bytes()
    if damage == "folder":
        file.unlink()
        file.mkdir()
    else:
        flipped = bytearray(content)
        flipped[len(content) // 2] ^= 4
        changed = {"cut": content[: len(content) // 2], "empty": b"", "foreign": b"x" * 500}
        file.write_bytes(changed.get(damage, bytes(flipped)))
    again, from_cache = mapping.matrix("mined", *pair)
    assert not from_cache and equal(built, again)
    assert mapping.matrix("mined", *pair)[1] == (damage != "folder")


def test_every_flipped_byte_is_noticed(folder, tiny_llama_tokenizer, tiny_gpt_tokenizer) -> None:
    pair = tiny_llama_tokenizer, tiny_gpt_tokenizer
    mapping.matrix("exact", *pair)
    (file,) = folder.iterdir()
    content = file.read_bytes()
    shape = (pair[0].size, pair[1].size)
    for place in range(0, len(content), max(1, len(content) // 200)):
        changed = bytearray(content)
        changed[place] ^= 1
        file.write_bytes(changed)
        assert store._read(file, "exact", shape) is None


def test_without_a_place_to_keep_it_a_map_is_built(
    tmp_path, monkeypatch, tiny_llama_tokenizer, tiny_gpt_tokenizer
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FUSELAB_CACHE", str(tmp_path / "file" / "below"))
    for _ in range(2):
        pairs, from_cache = mapping.matrix("exact", tiny_llama_tokenizer, tiny_gpt_tokenizer)
        assert not from_cache and pairs.rows_mapped > 0


def _build(path: str, barrier, results) -> None:
    import os

    from fusion_core import models

    os.environ["FUSELAB_CACHE"] = path
    source, target = (models.load_tokenizer(f"zoo:{n}") for n in ("mpt-code", "llama"))
    barrier.wait()
    results.put([mapping.matrix(n, source, target)[0].rows_mapped for n in ("mined", "prefix")])


def test_two_processes_may_build_at_once(tmp_path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    workers = [
        context.Process(target=_build, args=(str(tmp_path), barrier, results)) for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    rows = [results.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    assert rows[0] == rows[1]
    files = list((tmp_path / "maps").iterdir())
    assert len(files) == 2 and all(f.suffix == ".map" for f in files)


# Versions --------------------------------------------------------------------------------------

RESULTS = {
    "exact": (1, "f01de13a901b245c"),
    "mined": (1, "9e331ef70dfa3a5b"),
    "prefix": (1, "c9e340c7439494fb"),
    "retokenise": (1, "5779abbaf51ac134"),
    "statistical": (1, "db36c74a7a437bfd"),
}
"""Version of each strategy, and a digest of its maps between three tiny vocabularies."""


def version_of(name: str) -> int:
    return prefix.VERSION if name == "prefix" else mapping.STRATEGIES[name].version


@pytest.mark.parametrize("name", mapping.MATRICES)
def test_a_strategy_that_changes_has_another_version(
    folder, tiny_llama_tokenizer, tiny_gpt_tokenizer, name: str
) -> None:
    """Where this fails, maps have changed: raise the strategy's version, then note it here."""
    every = (tiny_llama_tokenizer, tiny_gpt_tokenizer, large_vocabulary("the ", 3))
    digest = hashlib.sha256()
    for source in every:
        for target in every:
            made, _ = mapping.matrix(name, source, target, ["the cat sat"])
            for array in made.arrays().values():
                rounded = array.round(5) if array.dtype.kind == "f" else array
                digest.update(rounded.tobytes())
    assert (version_of(name), digest.hexdigest()[:16]) == RESULTS[name]


BUILDERS = {n: getattr(mapping, n) for n in mapping.MATRICES if n != "prefix"}


@pytest.mark.parametrize("name", mapping.MATRICES)
def test_another_version_of_a_strategy_makes_its_maps_again(
    folder, monkeypatch, tiny_llama_tokenizer, tiny_gpt_tokenizer, name: str
) -> None:
    pair = tiny_llama_tokenizer, tiny_gpt_tokenizer
    counts = mapping.STRATEGIES[name].counts
    for version, built in ((1, True), (1, False), (2, True), (1, False)):
        if name == "prefix":
            monkeypatch.setattr(prefix, "VERSION", version)
        else:
            entry = mapping._fixed(name, "", BUILDERS[name], version=version, counts=counts)
            monkeypatch.setitem(mapping.STRATEGIES, name, entry)
        assert mapping.matrix(name, *pair, ["the cat"])[1] != built


@pytest.mark.parametrize("name", ["exact", "mined", "retokenise", "prefix"])
def test_a_token_that_is_text_to_one_model_and_begins_documents_of_another(
    folder, name: str
) -> None:
    """An added token that is no control token has bytes, unless it is named as a start."""
    backend = byte_level()
    backend.add_tokens(["foo"])
    added = backend.token_to_id("foo")
    text = TextTokenizer(backend, "text", start_id=None, eos_id=None)
    start = text.with_document_tokens(added, [])
    for from_disk in (False, True):
        for tokenizer, reason in ((text, MapReason.SAME), (start, MapReason.UNMAPPED)):
            found, kept = mapping.matrix(name, tokenizer, text)
            assert kept == from_disk
            assert found.reason[added] == (MapReason.SAME if name == "mined" else reason)
            first = tokenizer.first_tokens([b"foo"])[0]
            assert first == (added if tokenizer is text else -1)


# Eviction --------------------------------------------------------------------------------------


def used(file: Path, hours_ago: float) -> None:
    """Set when a file was last used."""
    then = file.stat().st_mtime - 3600 * hours_ago
    os.utime(file, (then, then))


def fill(folder: Path, pair: tuple, names: tuple[str, ...]) -> dict[str, Path]:
    """Build maps, each used an hour after the one before; their files by name."""
    files: dict[str, Path] = {}
    for name in names:
        mapping.matrix(name, *pair, ["the cat"])
        (files[name],) = set(folder.iterdir()) - set(files.values())
    for hours, name in enumerate(reversed(names), 1):
        used(files[name], hours)
    return files


@pytest.mark.parametrize("room", range(4))
def test_what_was_not_used_for_longest_is_removed(
    folder, monkeypatch, tiny_llama_tokenizer, tiny_gpt_tokenizer, room: int
) -> None:
    """A limit with room for so many of the maps leaves those that were read or written last.

    Modification times are what a read touches: access times are rarely kept by file systems
    (as scrapy/scrapy#883 says of its cache of a million files).
    """
    pair = tiny_llama_tokenizer, tiny_gpt_tokenizer
    files = fill(folder, pair, ("exact", "mined", "retokenise"))
    assert mapping.matrix("exact", *pair)[1], "which is now the one that was used last"
    latest = ["prefix", "exact", "retokenise", "mined"]
    mapping.matrix("prefix", *pair)
    (files["prefix"],) = set(folder.iterdir()) - set(files.values())
    sizes = [files[n].stat().st_size for n in latest]
    files["prefix"].unlink()
    for extra in ("notes.txt", "folder.map"):  # what is no map of ours stays
        (folder / extra).mkdir() if extra.endswith(".map") else (folder / extra).write_text("x")
        used(folder / extra, 9)
    monkeypatch.setattr(store, "MAX_BYTES", sum(sizes[:room]))
    built, from_disk = mapping.matrix("prefix", *pair)
    assert not from_disk and built.rows_mapped > 0
    left = {name for name, file in files.items() if file.exists()}
    assert left == set(latest[:room])
    assert (folder / "notes.txt").exists() and (folder / "folder.map").exists()
    assert mapping.matrix("mined", *pair)[0].rows_mapped > 0


def test_what_killed_writers_left_is_removed(
    folder, monkeypatch, tiny_llama_tokenizer, tiny_gpt_tokenizer
) -> None:
    pair = tiny_llama_tokenizer, tiny_gpt_tokenizer
    fill(folder, pair, ("exact",))
    part = folder / ".0.map.1-0.part"
    part.write_bytes(b"x" * 100)
    used(part, 2)
    mapping.matrix("mined", *pair)
    assert part.exists(), "there is room for all"
    monkeypatch.setattr(store, "MAX_BYTES", sum(f.stat().st_size for f in folder.glob("*.map")))
    next(f for f in folder.glob("*.map")).unlink()
    mapping.matrix("exact", *pair)
    mapping.matrix("mined", *pair)
    assert not part.exists()


@pytest.mark.parametrize("call", ["unlink", "stat", "utime", "iterdir"])
def test_a_folder_that_cannot_be_tidied_does_no_harm(
    folder, monkeypatch, tiny_llama_tokenizer, tiny_gpt_tokenizer, call: str
) -> None:
    """Read-only folders, and files that another process removes at the same moment."""
    pair = tiny_llama_tokenizer, tiny_gpt_tokenizer
    mapping.matrix("exact", *pair)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(store, "MAX_BYTES", 1)
    monkeypatch.setattr(os if call == "utime" else Path, call, refuse)
    assert mapping.matrix("exact", *pair)[0].rows_mapped > 0
    assert mapping.matrix("mined", *pair)[0].rows_mapped > 0


def test_several_may_evict_at_once(
    folder, monkeypatch, tiny_llama_tokenizer, tiny_gpt_tokenizer
) -> None:
    pair = tiny_llama_tokenizer, tiny_gpt_tokenizer
    expected = {n: mapping.matrix(n, *pair, ["a cat"])[0] for n in mapping.MATRICES}
    monkeypatch.setattr(store, "MAX_BYTES", max(f.stat().st_size for f in folder.iterdir()))
    for file in folder.iterdir():
        file.unlink()
    barrier, wrong = Barrier(4), list[str]()

    def work(first: int) -> None:
        barrier.wait()
        for i in range(20):
            name = mapping.MATRICES[(first + i) % len(mapping.MATRICES)]
            try:
                if not equal(mapping.matrix(name, *pair, ["a cat"])[0], expected[name]):
                    wrong.append(name)
            except BaseException as error:
                wrong.append(repr(error))

    threads = [Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert 0 < sum(f.stat().st_size for f in folder.iterdir()) <= store.MAX_BYTES


# Texts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_texts_that_are_looked_at_leave_no_maps(folder, tiny_models, level: str) -> None:
    target, source = tiny_models
    config = FusionConfig(strategy="statistical", level=level)
    for text in ("the cat sat", "a cat", "the hat"):
        assert pipeline.analyze(target, [source], text, config).sources
        reading = pipeline.read(text, target, [source], config)
        assert compare.compare_mappings(reading, ["statistical"])[source.name]
    compare.transfer(target, source, ["the cats", "a hat"], config)
    assert not list(folder.glob("*"))
    pipeline.analyze(target, [source], "a cat sat", config, corpus=["the cat", level])
    assert len(list(folder.glob("*"))) == 1


@pytest.mark.parametrize("keep", [True, False])
def test_a_counted_map_is_kept_where_the_corpus_is_used_again(
    folder, tiny_llama_tokenizer, tiny_gpt_tokenizer, keep: bool
) -> None:
    pair = tiny_llama_tokenizer, tiny_gpt_tokenizer
    mapping.mapping_between(*pair, "statistical", ["a cat", f"{keep}"], keep=keep)
    assert len(list(folder.glob("*"))) == keep
    assert mapping.matrix("statistical", *pair, ["a cat", f"{keep}"])[1] == keep
    assert len(list(folder.glob("*"))) == 1, "what is written to a file is kept"
