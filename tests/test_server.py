"""Sources that are models of OpenAI-compatible servers, against a stand-in that answers as such."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from stand_in_server import KEY, StandIn

from fusion_core import cli, corpus, models, zoo
from fusion_core.cache import Cache
from fusion_core.cache.building import build_cache
from fusion_core.config import FusionConfig, Truncation
from fusion_core.errors import FusionError, InputError, ModelFormatError, ModelNotFoundError
from fusion_core.models import server as client
from fusion_core.reading import read

SERVED = zoo.path("neox-reason")
TOP = FusionConfig(rows="boundary", source_top_k=20)
ROWS = ["--rows", "boundary", "--source-top-k", "20"]


@pytest.fixture(params=["ids", "strings"])
def stand_in(request: pytest.FixtureRequest) -> StandIn:
    return StandIn(SERVED, by_ids=request.param == "ids")


@pytest.fixture
def address(stand_in: StandIn) -> Iterator[str]:
    with stand_in.running() as found:
        yield f"{found}#tiny"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PATIENCE", 5.0)


def text(size: int = 600) -> str:
    return " ".join(corpus.text("reasoning", "test", 3000))[:size]


def named(address: str) -> str:
    return f"{address}?tokenizer={SERVED}"


def test_its_rows_are_those_of_the_same_weights(address: str, stand_in: StandIn) -> None:
    """All 20 tokens, their order and the observed token's figure, row by row."""
    served, local = models.load(named(address)), models.load(str(SERVED))
    assert served.around_documents == local.around_documents
    assert served.context == (510 if stand_in.by_ids else None)
    encodings = [served.tokenizer.encode(t) for t in (text(), "a", text(90), "naïve 東京 🙂\n")]
    cut = Truncation(top_k=20)
    ours = models.read_rows_batch(served, encodings, cut=cut)
    theirs = models.read_rows_batch(local, encodings, cut=cut)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.observed, other.observed)
        expected = other.observed_logprob
        assert torch.allclose(one.observed_logprob, expected, atol=1e-4, equal_nan=True)
        probs = [torch.zeros(len(r), r.vocab_size) for r in (one.rows, other.rows)]
        for filled, rows in zip(probs, (one.rows, other.rows), strict=True):
            filled.scatter_add_(1, rows.ids.clamp(min=0), rows.probs.masked_fill(rows.ids < 0, 0))
        more, less = ((a - b).clamp(min=0).sum(1) for a, b in (probs, probs[::-1]))
        # Strings that several tokens have name none of them: what those weigh is in the tail.
        assert float(more.max()) < 1e-4
        assert float(less.max() if stand_in.by_ids else less.mean()) < (
            1e-4 if stand_in.by_ids else 0.05
        )
        assert torch.allclose(one.rows.tail + one.rows.probs.sum(1), torch.ones(len(one.rows)))


def test_every_command_takes_it(
    address: str, stand_in: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Named by --tokenizer, results are keyed as typed; they are those of the model itself."""
    (tmp_path / "t.txt").write_text(text())
    both = ["--target", "zoo:llama", "--source", address, "--tokenizer", f"{address}={SERVED}"]
    same = ["--target", "zoo:llama", "--source", str(SERVED)]
    found = []
    for models_, name in ((both, address), (same, str(SERVED))):
        assert cli.main(["align", *models_, "--text", "the hen", "--json"]) == 0
        fuse = ["fuse", *models_, *ROWS, "--text", text(200), "--json"]
        assert cli.main(fuse) == 0, capsys.readouterr().err
        fused = json.loads(capsys.readouterr().out.splitlines()[-1])
        transfer = ["transfer", *models_, *ROWS, "--text-file", str(tmp_path / "t.txt")]
        assert cli.main([*transfer, "--strategy", "prefix", "--json"]) == 0
        scores = json.loads(capsys.readouterr().out)
        found.append((fused["bits_per_byte"][name], scores["transfer_ce"], scores["native_ce"]))
    assert np.allclose(*found, rtol=1e-3 if stand_in.by_ids else 0.05)
    assert abs(found[0][0] - found[1][0]) < 1e-4 and abs(found[0][2] - found[1][2]) < 1e-4


@pytest.mark.parametrize("stand_in", ["ids"], indirect=True)
def test_a_run_reads_it(address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The run's file names it by a mapping, whose folder is relative to the file."""
    (tmp_path / "teacher").symlink_to(SERVED)
    (tmp_path / "data.txt").write_text(text(900))
    given, model = address.split("#")
    run = {
        "target": "zoo:llama",
        "sources": [{"server": given, "model": model, "tokenizer": "teacher"}],
        "data": "data.txt",
        "rows": "boundary",
        "source_top_k": 20,
        "max_steps": 2,
        "block_size": 64,
    }
    out = tmp_path / "run"
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(run))
    options = ["train", "--config", str(path), "--out", str(out), "--json"]
    assert cli.main([*options, "--estimate"]) == 0, capsys.readouterr().err
    assert cli.main(options) == 0, capsys.readouterr().err
    assert str(tmp_path) not in (out / "model" / "README.md").read_text()
    for wrong, said in (
        ({"rows": "exact"}, "--rows boundary"),
        ({"source_top_k": None}, "source_top_k"),
        ({"generate_bytes": 1000}, "writes no text"),
        ({"target": f"{address}?tokenizer=teacher", "sources": ["zoo:llama"]}, "a source of rows"),
        ({"sources": [{"server": given, "model": model}]}, "server, model and tokenizer"),
    ):
        path.write_text(yaml.safe_dump(run | wrong))
        assert cli.main([*options[:-2], str(tmp_path / "other"), "--json"]) == 2
        assert said in capsys.readouterr().err


def test_a_killed_server_loses_nothing(stand_in: StandIn, tmp_path: Path) -> None:
    """A build that ends with its server goes on where it was with the next one."""
    texts = [text(300 + n) for n in range(12)]
    target = models.load("zoo:llama")

    def build(source: models.LoadedModel, out: str) -> Cache:
        return build_cache(target, [source], texts, TOP, tmp_path / out, shard_bytes=700)

    with stand_in.running() as first:
        port = int(first.split(":")[-1].split("/")[0])
        served = models.load(named(f"{first}#tiny"))
        stand_in.dies_after = stand_in.seen + (2 if stand_in.by_ids else 6)
        with pytest.raises(ModelNotFoundError, match="a cache goes on where it was"):
            build(served, "cache")
    done = len(list((tmp_path / "cache").glob("*.safetensors")))
    stand_in.dies_after = None
    with stand_in.running(port):
        build(models.load(named(f"{first}#tiny")), "cache")
        build(served, "whole")
    assert 0 < done < len(list((tmp_path / "whole").glob("*.safetensors")))
    one, other = Cache.open(tmp_path / "cache"), Cache.open(tmp_path / "whole")
    assert len(one) == len(other) == 12 and one.tokens == other.tokens
    for n in range(12):
        assert torch.equal(one[n].rows["fused"].ids, other[n].rows["fused"].ids)


@pytest.mark.parametrize("stand_in", ["ids"], indirect=True)
def test_a_server_that_comes_back_is_waited_for(stand_in: StandIn, address: str) -> None:
    served = models.load(named(address))
    stand_in.failing = 3
    began = time.monotonic()
    found = models.read_rows_batch(
        served, [served.tokenizer.encode("a hen")], cut=Truncation(top_k=5)
    )
    assert len(found) == 1 and time.monotonic() - began > 1
    stand_in.dies_after = stand_in.seen

    def revive() -> None:
        time.sleep(1)
        stand_in.dies_after = None

    threading.Thread(target=revive).start()
    again = models.read_rows_batch(
        served, [served.tokenizer.encode("a hen")], cut=Truncation(top_k=5)
    )
    assert torch.equal(again[0].rows.ids, found[0].rows.ids)


def refused(kind: type[FusionError], said: str, name: str) -> None:
    with pytest.raises(kind, match=said):
        models.load(name)


def test_a_key_is_sent_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in = StandIn(SERVED, key=KEY)
    with stand_in.running() as address:
        name = named(f"{address}#tiny")
        refused(InputError, client.KEY, name)
        monkeypatch.setenv(client.KEY, "another-key")
        with pytest.raises(InputError) as caught:
            models.load(name)
        assert "another-key" not in str(caught.value)
        monkeypatch.setenv(client.KEY, KEY)
        assert KEY not in repr(models.load(name))
        fuse = ["fuse", "--target", "zoo:llama", "--source", name, *ROWS, "--text", "a", "--json"]
        assert cli.main(fuse) == 0
        written = capsys.readouterr()
        assert KEY not in written.out + written.err


def test_what_a_server_cannot_give_is_refused(tmp_path: Path) -> None:
    with StandIn(SERVED).running() as address:
        name = f"{address}#tiny"
        refused(
            ModelNotFoundError, "no model 'other': choose from 'tiny'", named(f"{address}#other")
        )
        refused(ModelNotFoundError, "--tokenizer", name)
        refused(ModelFormatError, "does not cut text", f"{name}?tokenizer=zoo:llama")
        refused(ModelNotFoundError, "There is no folder", f"{name}?tokenizer=./nothing")
        served, target = models.load(named(name)), models.load("zoo:llama")
        for config in (FusionConfig(), FusionConfig(rows="boundary"), TOP.replace(temperature=2.0)):
            with pytest.raises(InputError, match="--rows boundary --source-top-k 20"):
                read(text(), target, served, config)
        with pytest.raises(ModelFormatError, match="greater than max"):
            read(text(), target, served, TOP.replace(source_top_k=21))
        with pytest.raises(InputError, match="let it be a source"):
            read(text(), served, target, TOP)
        prompt = ["generate", "--target", "zoo:llama", "--source", named(name), "--prompt", "a"]
        assert cli.main(prompt) == 2
    with StandIn(SERVED, silent=True).running() as address:
        refused(ModelFormatError, "no log-probabilities", named(f"{address}#tiny"))
    with StandIn(SERVED, by_ids=False, late=True).running() as address:
        refused(ModelFormatError, "the place behind it", named(f"{address}#tiny"))
    refused(ModelNotFoundError, "does not answer", named("http://127.0.0.1:9/v1#tiny"))


@pytest.mark.parametrize(
    "name",
    [
        "http://",
        "http://h/v1",
        "http://h/v1#",
        "ftp://h/v1#m",
        "http://u:p@h/v1#m",
        "http://h/v1#m?x=y",
    ],
)
def test_other_addresses_are_no_names(name: str) -> None:
    with pytest.raises(ModelNotFoundError):
        models.find(name)
