"""Models of strangers: none takes memory that its limit does not allow, or brings code along.

The limit of `--max-gb` and of a public page is held against what would be made, not against what
the files hold; memory is measured in processes of their own.
"""

from __future__ import annotations

import json
import pickle
import time
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hostile import empty_model, grown_by, with_config
from huggingface_hub.hf_api import ModelInfo
from safetensors.torch import load_file, save_file
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CLASSES

from fusion_core import models
from fusion_core.errors import FusionError, ModelFormatError, TooLargeError
from fusion_core.models import files

WIDE = {
    "llama": {"hidden_size": 4096, "intermediate_size": 8192, "num_hidden_layers": 4},
    "gpt2": {"n_embd": 4096, "n_layer": 4},
    "mixtral": {"hidden_size": 2048, "intermediate_size": 4096, "num_local_experts": 16},
    "mamba": {"hidden_size": 4096, "state_size": 2048, "num_hidden_layers": 4},
}


@pytest.mark.parametrize("kind", WIDE)
def test_memory_is_worked_out_from_the_configuration(kind: str, tmp_path: Path) -> None:
    """A file of some hundred bytes made 2 GB under a limit of 10 kB."""
    name = empty_model(tmp_path / "m", kind, **WIDE[kind])
    assert Path(name, "model.safetensors").stat().st_size < 400
    grown, said = grown_by(
        f"from fusion_core import models\nfrom transformers import {CLASSES[kind]}",
        f"models.load({name!r}, max_bytes=10_000)",
    )
    assert "in memory by its config.json, more than the limit of 10.0 kB" in said
    assert grown < 60


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("bfloat16", 2)])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
def test_the_size_by_configuration_is_that_of_the_network(
    kind: str, dtype: str, size: int, tmp_path: Path
) -> None:
    """Held against the network that plain transformers makes; tied weights count once."""
    name = tiny.saved(tmp_path / "m", kind, tie_word_embeddings=kind != "llama")
    network = tiny.network(kind, tie_word_embeddings=kind != "llama")
    buffers = sum(b.nbytes for b in network.buffers())
    needs = sum(p.numel() for p in network.parameters()) * size + buffers
    config, kept = models.read_config(models.find(name)), getattr(torch, dtype)
    assert models.skeleton(name, config, kept, needs)
    with pytest.raises(TooLargeError, match="in memory"):
        models.skeleton(name, config, kept, needs - buffers - 1)


ABSURD: dict[str, tuple[str, dict[str, Any]]] = {
    "layers": ("llama", {"num_hidden_layers": 10**9}),
    "layers of another name": ("gpt2", {"n_layer": 10**8}),
    "labels": ("llama", {"num_labels": 10**9}),
    "narrow layers": ("llama", {"num_hidden_layers": 9_999}),
    "narrow layers of others": ("mamba", {"num_hidden_layers": 998, "hidden_size": 10**5}),
    "experts": ("mixtral", {"num_local_experts": 10**7}),
    "positions": ("gpt2", {"n_positions": 10**12}),
    "a nested list of layers": ("llama", {"text_config": {"n_layers": 10**12}}),
    "infinitely many layers": ("qwen2", {"num_hidden_layers": float("inf")}),
}


@pytest.mark.parametrize("case", ABSURD)
def test_impossible_configurations_are_refused_at_once(case: str, tmp_path: Path) -> None:
    """Some took over 40 seconds, one of a billion labels all the memory there was."""
    kind, values = ABSURD[case]
    name = with_config(tiny.saved(tmp_path / "m", kind), **values)
    began = time.monotonic()
    with pytest.raises(FusionError):
        models.load(name, max_bytes=2_000_000_000)
    assert time.monotonic() - began < 10
    with pytest.raises(FusionError):
        models.skeleton(name, models.read_config(models.find(name)), torch.float32, 10**9)


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
def test_settings_have_a_size_limit(file: str, tmp_path: Path) -> None:
    name = tiny.saved(tmp_path / "m", "llama")
    settings = Path(name, file)
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"x": "y" * 1_000_000}))
    with pytest.raises(TooLargeError, match=file):
        models.load(name)


@pytest.mark.parametrize("field", ["attn_implementation", "experts_implementation"])
def test_a_configuration_names_no_code_of_the_hub(field: str, tmp_path: Path) -> None:
    """Kernels named as owner/name are fetched from the hub and run."""
    for kind in ("llama", "gpt2", "mixtral"):
        name = with_config(tiny.saved(tmp_path / kind, kind), **{field: "someone/kernel"})
        with pytest.raises(ModelFormatError, match="code of its own"):
            models.load(name)


# Pickles ------------------------------------------------------------------------------------------


class Canary:
    """Writes a file when it is read as a pickle."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


INDEXED = {
    "pickles": "pytorch_model.bin",
    "a mixture": "model-2.pt",
    "elsewhere": "../other/model.safetensors",
    "a folder": "a/model.safetensors",
    "a number": 7,
    "nothing": None,
}


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mamba"])
@pytest.mark.parametrize("case", INDEXED)
def test_an_index_names_safetensors_alone(
    case: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights loaded from pytorch_model.bin where model.safetensors.index.json named it."""
    name = tiny.saved(tmp_path / "m", kind)
    folder, part = Path(name), INDEXED[case]
    kept = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = dict.fromkeys(kept, part)
    if case == "a mixture":
        save_file(kept, folder / "model-1.safetensors", {"format": "pt"})
        names = dict.fromkeys(kept, "model-1.safetensors") | {next(iter(kept)): part}
    if isinstance(part, str):
        (folder / part).parent.mkdir(exist_ok=True)
        torch.save({"w": Canary(tmp_path / "run")}, folder / part)
    index = json.dumps({"metadata": {}, "weight_map": names})
    (folder / files.INDEX).write_text(index)
    with pytest.raises(ModelFormatError, match=r"no safetensors file beside it"):
        models.load(name)
    assert not (tmp_path / "run").exists()
    siblings = [{"rfilename": n, "size": 9} for n in (files.INDEX, "model-1.safetensors")]
    info = ModelInfo(id="a/b", siblings=siblings)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: info)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: folder / files.INDEX)
    with pytest.raises(ModelFormatError, match=r"no safetensors file beside it"):
        models.load("a/b")


def test_sharded_safetensors_load_as_before(tmp_path: Path) -> None:
    for kind in ("llama", "gpt2", "mixtral"):
        network = tiny.network(kind)
        name = tiny.saved(tmp_path / kind, network)
        Path(name, "model.safetensors").unlink()
        network.save_pretrained(name, max_shard_size="20KB")
        assert Path(name, files.INDEX).exists()
        found = models.load(name).network.state_dict()
        assert all(torch.equal(found[k], v) for k, v in network.state_dict().items())


@pytest.mark.parametrize("file", ["__0_0.distcp", ".metadata"])
def test_distributed_checkpoints_are_pickles(file: str, tmp_path: Path) -> None:
    for kind in ("llama", "gpt2", "mamba"):
        name = tiny.saved(tmp_path / kind, kind)
        Path(name, file).write_bytes(pickle.dumps(Canary(tmp_path / "run")))
        with pytest.raises(ModelFormatError, match="pickled"):
            models.load(name)
    assert not (tmp_path / "run").exists()


def test_a_configuration_names_no_other_weights(tmp_path: Path) -> None:
    for kind in ("llama", "gpt2", "mamba"):
        name = with_config(tiny.saved(tmp_path / kind, kind), transformers_weights="x.safetensors")
        with pytest.raises(ModelFormatError, match="transformers_weights"):
            models.load(name)
