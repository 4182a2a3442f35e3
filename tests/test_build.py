"""Caches of fused rows: what they hold, and that no kill changes them."""

from __future__ import annotations

import json
import math
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import byte_level, launched, tiny_model

from fusion_core import corpus, fuse, pipeline
from fusion_core.cache import Cache, building
from fusion_core.config import FusionConfig
from fusion_core.errors import InputError
from fusion_core.models import load
from fusion_core.tokens import TextTokenizer

DOCUMENTS = ["the cats sat, the cat 東京 sat", "a", "the " * 90, "sat thesat"]


def kl(ids, probs, other) -> torch.Tensor:
    """Divergence of rows from others, in nats; what either does not list is in its tail."""
    out = []
    for i, row in enumerate(ids.tolist()):
        q = dict(zip(other.ids[i].tolist(), other.probs[i].tolist(), strict=True))
        p = {v: x for v, x in zip(row, probs[i].tolist(), strict=True) if v in q}
        pairs = [(x, q[v]) for v, x in p.items()]
        pairs.append((1 - sum(p.values()), 1 - sum(q[v] for v in p)))
        out.append(sum(x * math.log(x / max(y, 1e-9)) for x, y in pairs if x > 1e-9))
    return torch.tensor(out)


@pytest.mark.parametrize("operator", ["min_ce", "product"])
def test_a_cache_holds_what_a_person_sees(tiny_models, tmp_path, operator: str) -> None:
    target, source = tiny_models
    config = FusionConfig(operator=operator, level="token", top_k=6)
    cache = building.build_cache(
        target, [source], DOCUMENTS, config, tmp_path / "c", shard_bytes=40
    )
    assert len(cache) == len(DOCUMENTS) and len(cache.manifest.shards) > 2
    assert cache.tokens == sum(len(target.tokenizer.encode(d).text_tokens) for d in DOCUMENTS)
    for document, text in zip(cache, DOCUMENTS, strict=True):
        analysis = pipeline.analyze(target, [source], text, config)
        expected, got = analysis.fused.rows, document.rows["fused"]
        reading = analysis.target
        assert document.observed.tolist() == reading.ids[reading.text_tokens].tolist()
        assert float(kl(expected.ids, expected.probs, got).max()) < 1e-3
        bits = [analysis.target_bits_per_byte, analysis.sources[0].bits_per_byte]
        assert document.extras["bits_per_byte"].tolist() == pytest.approx(bits, rel=1e-4)
        kept = document.extras["kept"] / 255
        assert kept == pytest.approx(analysis.fused.kept[:, 0].numpy(), abs=1 / 254)
        assert ((kept == 0) == (analysis.fused.kept[:, 0] == 0).numpy()).all()


def test_sources_are_fused_again_without_a_model(tmp_path) -> None:
    target, *sources = [load(f"zoo:{n}") for n in ("llama", "neox-reason", "mpt-code")]
    texts = [corpus.text(domain, "test", 900)[0] for domain in ("reasoning", "code")]
    folder = tmp_path / "c"
    cache = building.build_cache(target, sources, texts, FusionConfig(), folder, kind="sources")
    for operator in fuse.OPERATORS:
        for level in fuse.LEVELS:
            config = FusionConfig(operator=operator, level=level)
            for document, text in zip(cache, texts, strict=True):
                fused = pipeline.analyze(target, sources, text, config).fused
                again = building.fuse_again(document, operator=operator, level=level)
                got = again.rows["fused"]
                assert torch.allclose(got.probs.sum(1) + got.tail, torch.ones(len(got)), atol=1e-5)
                rows = fused.rows
                # what a tail held is spread by guess, which a product feels most
                divergence = kl(rows.ids, rows.probs, got)
                limit = {"min_ce": 1e-4, "product": 0.1}.get(operator, 2e-3)
                assert float(divergence.mean()) < limit
                weights = fused.weights.mean(0).numpy()
                assert again.extras["weights"] == pytest.approx(weights, abs=0.01)
    one = building.fuse_again(cache[0], sources=[1])
    assert one.rows["fused"].ids[0, 0] == cache[0].rows["1"].ids[0, 0]
    for wrong in ([], [2], [-1]):
        with pytest.raises(InputError, match="not to be had"):
            building.fuse_again(cache[0], sources=wrong)
    with pytest.raises(InputError, match="not to be had"):
        building.fuse_again(again)


def test_an_equal_build_goes_on_and_a_different_one_is_refused(tiny_models, tmp_path) -> None:
    target, source = tiny_models
    folder, config = tmp_path / "c", FusionConfig()
    building.build_cache(target, [source], DOCUMENTS, config, folder, shard_bytes=40)
    shards = {f.name: f.stat().st_mtime_ns for f in folder.iterdir()}
    building.build_cache(target, [source], DOCUMENTS, config, folder, shard_bytes=40)
    assert {f.name: f.stat().st_mtime_ns for f in folder.iterdir()} == shards
    for change, named in (
        ({"top_k": 5}, r"settings\.config\.top_k: 10, not 5"),
        ({"strategy": "exact"}, r"settings\.config\.strategy: prefix, not exact"),
        ({"temperature": 2.0}, r"settings\.config\.temperature: 1, not 2"),
    ):
        with pytest.raises(InputError, match=named):
            building.build_cache(target, [source], DOCUMENTS, FusionConfig(**change), folder)
    with pytest.raises(InputError, match="data_key"):
        building.build_cache(target, [source], DOCUMENTS[:2], config, folder)
    with pytest.raises(InputError, match="kind"):
        building.build_cache(target, [source], DOCUMENTS, config, folder, kind="sources")
    asked = building.settings(target, [source], FusionConfig(top_k=7))
    with pytest.raises(InputError, match=r"top_k: 10, not 7"):
        Cache.open(folder, {"config": asked["config"]})
    expected = building.settings(target, [source], config)
    assert len(Cache.open(folder, {k: expected[k] for k in ("target", "sources", "config")})) == 4


def test_other_weights_are_another_model(tmp_path) -> None:
    from safetensors.torch import load_file, save_file

    from fusion_core import zoo

    copy = tmp_path / "model"
    shutil.copytree(zoo.path("mpt-code"), copy)
    target, source = load("zoo:llama"), load(str(copy))
    before = building.settings(target, [source], FusionConfig())
    file = next(copy.glob("*.safetensors"))
    weights = load_file(file)
    name = next(iter(weights))
    weights[name] = weights[name] * 1.5
    save_file(weights, file, {"format": "pt"})
    after = building.settings(target, [load(str(copy))], FusionConfig())
    assert before["target"] == after["target"]
    assert before["sources"][0]["weights"] != after["sources"][0]["weights"]
    assert before["sources"][0]["tokenizer"] == after["sources"][0]["tokenizer"]


def test_a_document_of_no_use_is_named(tiny_models, tmp_path) -> None:
    mute = tiny_model(TextTokenizer(byte_level(), "mute", start_id=None, eos_id=None))
    with pytest.raises(InputError, match=r"^Document 3: There is no stretch"):
        building.build_cache(
            tiny_models[0],
            [mute],
            ["the cat", "ab", "x", "sat"],
            FusionConfig(),
            tmp_path / "c",
            shard_bytes=2,
        )
    with pytest.raises(InputError, match="kind of cache 'all'"):
        building.build_cache(*tiny_models[:1], [mute], ["a"], FusionConfig(), tmp_path, kind="all")


COMMAND = [sys.executable, "-m", "fusion_core", "cache", "--target", "zoo:llama"]
COMMAND += ["--source", "zoo:mpt-code", "--source", "zoo:gpt2-story", "--shard-bytes", "1500"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[list[str], dict[str, bytes], float]:
    """Build a cache once: the command but for its folder, the files, and the seconds it took."""
    folder = tmp_path_factory.mktemp("undisturbed")
    texts = corpus.text("code", "test", 20_000)
    data = folder / "docs.jsonl"
    data.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    command = [*COMMAND, "--data", str(data), "--out"]
    began = time.monotonic()
    subprocess.run([*command, str(folder / "cache")], check=True, capture_output=True)
    return command, content(folder / "cache"), time.monotonic() - began


def shards(folder: Path) -> list[Path]:
    return list(folder.glob("*.safetensors"))


def content(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in folder.iterdir()}


@pytest.mark.parametrize(
    "kills", [3, pytest.param(20, marks=pytest.mark.slow)], ids=["3 kills", "20 kills"]
)
def test_a_killed_build_ends_as_an_undisturbed_one(undisturbed, tmp_path, kills: int) -> None:
    command, expected, seconds = undisturbed
    folder = tmp_path / "cache"
    moments = random.Random(5 + kills)
    stopped, finished = 0, dict[str, int]()
    for n in range(kills):
        process = subprocess.Popen(
            [*command, str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # either while shards are written, or at any time since the start
        left = len(expected) - 1 - len(finished)
        more = moments.randint(0, max(1, (left - 1) // (kills - n)))
        while more and process.poll() is None and len(shards(folder)) < len(finished) + more:
            time.sleep(0.005)
        time.sleep(moments.random() * (0.1 if more else seconds))
        stopped += process.poll() is None
        process.kill()
        process.wait()
        now = {f.name: f.stat().st_mtime_ns for f in shards(folder)}
        assert finished.items() <= now.items(), "a finished shard was written again or lost"
        assert set(now) <= set(expected), "a shard differs"
        finished = now
    assert stopped
    subprocess.run([*command, str(folder)], check=True, capture_output=True)
    assert content(folder) == expected
    assert len(expected) > 10


def test_processes_know_one_another() -> None:
    code = (
        "import os; from fusion_core.cache.distributed import Processes as P; p = P();"
        "os.write(1, f'{p.index} of {p.number};'.encode())"  # at once, or lines run together
    )
    ran = launched("-c", code)
    assert sorted(ran.stdout.split(";")[:-1]) == ["0 of 2", "1 of 2"]


def test_several_processes_write_the_same_cache(undisturbed, tmp_path) -> None:
    command, expected, _ = undisturbed
    ran = launched(*command[1:], str(tmp_path / "cache"), "--json")
    report = json.loads(ran.stdout)
    assert report["target_tokens"] == Cache.open(tmp_path / "cache").tokens
    assert content(tmp_path / "cache") == expected


def test_damage_is_named(tiny_models, tmp_path) -> None:
    target, source = tiny_models
    folder = tmp_path / "c"
    building.build_cache(target, [source], DOCUMENTS, FusionConfig(), folder, shard_bytes=40)
    shard = sorted(folder.glob("*.safetensors"))[1]
    whole = shard.read_bytes()
    flipped = np.frombuffer(whole, np.uint8).copy()
    flipped[len(flipped) // 2] ^= 4
    for damaged in (whole[: len(whole) // 2], flipped.tobytes()):
        shard.write_bytes(damaged)
        with pytest.raises(InputError, match=shard.name):
            building.build_cache(
                target, [source], DOCUMENTS, FusionConfig(), folder, shard_bytes=40
            )
    shard.unlink()
    building.build_cache(target, [source], DOCUMENTS, FusionConfig(), folder, shard_bytes=40)
    assert shard.read_bytes() == whole
