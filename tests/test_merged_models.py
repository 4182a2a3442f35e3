"""Weight merging of whole model folders."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fusion_core import baselines, zoo
from fusion_core.baselines import METHODS, merge
from fusion_core.errors import InputError


def t(*rows: object) -> Tensor:
    """Make a tensor of a number, of a list, or of several lists."""
    return torch.tensor(rows[0] if len(rows) == 1 else rows, dtype=torch.float32)


def close(a: Tensor, b: Tensor, atol: float = 1e-6) -> None:
    torch.testing.assert_close(a, b, rtol=1e-6, atol=atol)


# Real models ------------------------------------------------------------------------------------


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two copies of the zoo's llama: one whole file, and shards of another type."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folders = []
    for seed, dtype, shard in ((1, torch.float32, "1GB"), (2, torch.bfloat16, "1MB")):
        model = AutoModelForCausalLM.from_pretrained(zoo.path("llama"), dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                noise = torch.randn(parameter.shape, generator=seeded(seed))
                parameter.add_(noise, alpha=0.01)
        folder = tmp_path_factory.mktemp("tuned") / str(seed)
        model.to(dtype).save_pretrained(folder, max_shard_size=shard)
        AutoTokenizer.from_pretrained(zoo.path("llama")).save_pretrained(folder)
        folders.append(folder)
    assert (folders[0] / "model.safetensors").is_file()
    assert len(list(folders[1].glob("model-*.safetensors"))) > 1
    return folders


def arrays(folder: Path) -> dict[str, np.ndarray]:
    files = [load_file(file) for file in folder.glob("*.safetensors")]
    return {name: x.double().numpy() for file in files for name, x in file.items()}


def oracle(method: str, base: np.ndarray, tuned: list[np.ndarray], density: float) -> np.ndarray:
    """Merge by sorting and by masks, in float64."""
    if method == "linear":
        return sum(tuned) / len(tuned)
    task = [(x.astype(np.float32) - base.astype(np.float32)).astype(float) for x in tuned]
    kept = round(density * base.size)

    def top(score: np.ndarray) -> np.ndarray:
        return score >= np.sort(score.ravel())[::-1][kept - 1]

    if method == "ties":
        task = [x * top(np.abs(x)) for x in task]
        weights = [1.0] * len(task)
    else:
        task = [x * top(np.var(task, axis=0).astype(np.float32)) for x in task]
        weights = [float((x**2).sum()) for x in task]
    up = sum(task) > 0
    pairs = list(zip(weights, task, strict=True))
    numerator = sum(w * np.where(up, x.clip(min=0), x.clip(max=0)) for w, x in pairs)
    divisor = sum(w * np.where(up, x > 0, x < 0) for w, x in pairs)
    change = np.divide(numerator, divisor, out=np.zeros_like(base), where=divisor > 0)
    return base + np.where(sum(task) == 0, 0, change)


@pytest.mark.parametrize("method", METHODS)
def test_a_merged_model_loads_and_has_the_right_weights(
    method: str, tuned: list[Path], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = tmp_path / "merged"
    merge(zoo.path("llama"), tuned, out, method=method, density=0.2)
    assert [p.name for p in tmp_path.iterdir()] == ["merged"]
    for name in ("config.json", "generation_config.json", "tokenizer.json"):
        assert (out / name).read_bytes() == (tuned[0] / name).read_bytes()

    base, copies = arrays(zoo.path("llama")), [arrays(folder) for folder in tuned]
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.dtype == torch.float32
    state = model.state_dict()
    assert set(state) - set(base) == {"lm_head.weight"}  # tied
    for name, x in base.items():
        expected = oracle(method, x, [copy[name] for copy in copies], 0.2)
        np.testing.assert_allclose(state[name].numpy(), expected, rtol=1e-6, atol=1e-6)
    assert state["lm_head.weight"].equal(state["model.embed_tokens.weight"])

    text = "Three numbers: 1, 2 and 3."
    ids = AutoTokenizer.from_pretrained(out)(text, return_tensors="pt")
    assert ids["input_ids"].equal(
        AutoTokenizer.from_pretrained(zoo.path("llama"))(text, return_tensors="pt")["input_ids"]
    )
    assert model(**ids).logits.isfinite().all()


def test_the_type_is_that_of_the_first_copy(tuned: list[Path], tmp_path: Path) -> None:
    merge(zoo.path("llama"), tuned[::-1], tmp_path / "merged")
    types = {x.dtype for x in load_file(tmp_path / "merged" / "model.safetensors").values()}
    assert types == {torch.bfloat16}


# Folders made by hand ---------------------------------------------------------------------------

Folders = Callable[..., Path]


@pytest.fixture
def made(tmp_path: Path) -> Folders:
    def make(name: str, config: dict | None = None, **tensors: Tensor) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config or {}))
        held = {"w": t([1.0, 2.0])} | tensors
        save_file(held, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return make


def weights_of(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def test_what_is_not_a_float_is_copied(made: Folders, tmp_path: Path) -> None:
    def tensors(n: int) -> dict[str, Tensor]:
        return {"steps": torch.tensor(n), "seen": torch.tensor([n > 1]), "none": torch.zeros(0, 3)}

    base, a, b = (made(name, **tensors(n)) for n, name in enumerate("xab"))
    merge(base, [b, a], tmp_path / "out")
    found = weights_of(tmp_path / "out")
    assert found["steps"] == 2 and found["seen"].tolist() == [True]
    assert found["none"].shape == (0, 3)


def test_a_number_is_merged_as_a_tensor(made: Folders, tmp_path: Path) -> None:
    base, a, b = (made(name, scale=torch.tensor(float(n))) for n, name in enumerate("xab"))
    for method in METHODS:
        merge(base, [a, b], tmp_path / method, method=method)
    # linear and ties (1 + 2) / 2; sce (1·1 + 4·2) / (1 + 4)
    found = [float(weights_of(tmp_path / method)["scale"]) for method in METHODS]
    assert found == pytest.approx([1.5, 1.5, 1.8])


def test_a_tied_tensor_may_be_written_twice(made: Folders, tmp_path: Path) -> None:
    base, a = made("base"), made("a")
    b = made("b", w=t([3.0, 4.0]), head=t([3.0, 4.0]))
    merge(base, [a, b], tmp_path / "out", method="linear")
    assert weights_of(tmp_path / "out").keys() == {"w"}
    close(weights_of(tmp_path / "out")["w"], t([2.0, 3.0]))


def test_a_model_that_is_there_is_replaced(made: Folders, tmp_path: Path) -> None:
    base, a, out = made("base"), made("a", w=t([5.0, 5.0])), made("out")
    (out / "old.txt").touch()
    merge(base, [a], out, method="linear")
    assert weights_of(out)["w"].tolist() == [5.0, 5.0] and not (out / "old.txt").exists()


# What is refused --------------------------------------------------------------------------------


def refused(*args: object, match: str, **options: object) -> None:
    """Check that a merge is refused in one sentence, and leaves its surroundings as they were."""
    around = Path(str(args[-1])).parent
    before = sorted(str(p) for p in around.rglob("*"))
    with pytest.raises(InputError, match=re.escape(match)) as caught:
        merge(*args, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert message.endswith(".") and not re.search(r"[.!?] +[A-Z]", message)
    assert sorted(str(p) for p in around.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"method": "slerp"}, "choose one of linear, ties, sce"),
        ({"density": 0.0}, "choose one above 0"),
        ({"density": -0.1}, "choose one above 0"),
        ({"density": 1.1}, "not above 1"),
        ({"density": float("nan")}, "density"),
        ({"method": "ties", "weights": [1.0]}, "one weight for each model"),
        ({"method": "linear", "weights": [1.0, 1.0, 1.0]}, "one weight for each model"),
        ({"method": "linear", "weights": [1.0, -1.0]}, "not negative"),
        ({"method": "linear", "weights": [0.0, 0.0]}, "at least one of them above 0"),
        ({"method": "linear", "weights": [1.0, float("inf")]}, "numbers"),
        ({"weights": [1.0, 1.0]}, "leave them out"),
    ],
)
def test_bad_options(options: dict, match: str, made: Folders, tmp_path: Path) -> None:
    refused(made("base"), [made("a"), made("b")], tmp_path / "out", match=match, **options)


def test_nothing_to_merge(made: Folders, tmp_path: Path) -> None:
    refused(made("base"), [], tmp_path / "out", match="one fine-tuned model or more")


def test_models_that_are_no_copies(made: Folders, tmp_path: Path) -> None:
    base, a, out = made("base"), made("a"), tmp_path / "out"
    more = made("more", v=t([1.0, 3.0]))
    wide = made("wide", w=t([1.0, 2.0, 3.0]))
    refused(base, [more], out, match=f"{base} lacks the tensor v")
    refused(base, [a, more], out, match=f"{a} lacks the tensor v")
    refused(more, [a], out, match=f"{a} lacks the tensor v")
    refused(base, [a, wide], out, match="[2] in")
    refused(wide, [a], out, match="[3] in")


def test_missing_files(made: Folders, tmp_path: Path) -> None:
    base, a, out = made("base"), made("a"), tmp_path / "out"
    refused(tmp_path / "nowhere", [a], out, match="There is no model.safetensors")
    refused(base, [tmp_path / "nowhere"], out, match="There is no model.safetensors")
    (a / "config.json").unlink()
    refused(base, [a], out, match=str(a / "config.json"))


def test_shards(made: Folders, tmp_path: Path) -> None:
    base, a, out = made("base"), made("a"), tmp_path / "out"
    (a / "model.safetensors").rename(a / "one.safetensors")
    index = a / "model.safetensors.index.json"
    index.write_text("{")
    refused(base, [a], out, match="cannot be read")
    index.write_text("[]")
    refused(base, [a], out, match="JSON object")
    index.write_text('{"weight_map": {}}')
    refused(base, [a], out, match="names no files")
    index.write_text('{"weight_map": {"w": "one.safetensors", "v": "two.safetensors"}}')
    refused(base, [a], out, match=f"There is no {a / 'two.safetensors'}")
    index.write_text('{"weight_map": {"w": "one.safetensors"}}')
    merge(base, [a], out)
    assert sorted(p.name for p in out.iterdir()) == ["config.json", "model.safetensors"]


def test_broken_weights(made: Folders, tmp_path: Path) -> None:
    base, a = made("base"), made("a")
    (a / "model.safetensors").write_bytes(b"version https://git-lfs")
    refused(base, [a], tmp_path / "out", match="cannot be read")


def test_quantized_models(made: Folders, tmp_path: Path) -> None:
    a = made("a", {"quantization_config": {"quant_method": "fp8"}})
    refused(made("base"), [a], tmp_path / "out", match="quantized")


def test_folders_that_must_not_be_replaced(made: Folders, tmp_path: Path) -> None:
    base, a, b = made("base"), made("a"), made("b")
    refused(base, [a, b], b, match="would delete")
    refused(base, [a, b], base, match="would delete")
    (tmp_path / "x").mkdir()
    moved = shutil.move(a, tmp_path / "x" / "a")
    refused(base, [moved, b], tmp_path / "x", match="would delete")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").touch()
    refused(base, [b], tmp_path / "notes", match="no model folder")
    refused(base, [b], tmp_path / "notes" / "mine.txt", match="no model folder")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_what_was_there(
    error: BaseException, made: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, a, out = made("base"), made("a", w=t([5.0, 5.0])), made("out")

    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(baselines, "save_file", full)
    for place in (out, tmp_path / "new"):
        if isinstance(error, OSError):
            refused(base, [a], place, match="No space left", method="linear")
        else:
            with pytest.raises(KeyboardInterrupt):
                merge(base, [a], place, method="linear")
    assert weights_of(out)["w"].tolist() == [1.0, 2.0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "base", "out"]
