"""Loading what a person may name, and the rows that a model gives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import byte_level, tiny_model
from transformers import PreTrainedTokenizerFast

from fusion_core import models
from fusion_core.config import Truncation
from fusion_core.errors import (
    InputError,
    ModelFormatError,
    ModelNotFoundError,
    TooLargeError,
)
from fusion_core.tokens import TextTokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Save a small model with its tokenizer."""
    backend = byte_level()
    tokenizer = TextTokenizer(byte_level(), "saved", start_id=256, eos_id=256)
    model = tiny_model(tokenizer, seed=5)
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>").save_pretrained(
        tmp_path
    )
    model.network.save_pretrained(tmp_path)
    return tmp_path


def test_rows_are_the_models_own_logits(tiny_models) -> None:
    for model in tiny_models:
        encoding = model.tokenizer.encode("the cat 東")
        rows = models.read_rows(model, encoding)
        own = encoding.ids[encoding.text_tokens].tolist()
        batch = torch.tensor([[model.tokenizer.start_id, *own]])
        logits = model.network(input_ids=batch).logits[0, :, : model.tokenizer.size]
        expected = torch.distributions.Categorical(logits=logits)
        assert torch.allclose(rows.logprobs.exp(), expected.probs, atol=1e-6)
        picked = expected.log_prob(torch.tensor([*own, 0]))[:-1]
        assert torch.allclose(rows.observed_logprob[:-1], picked, atol=1e-5)
        assert rows.observed.tolist() == [*own, -1]
        assert rows.boundary.tolist() == [0, *encoding.end[encoding.text_tokens].tolist()]


def test_rows_do_not_see_what_follows(tiny_models) -> None:
    model = tiny_models[1]
    short, long = (models.read_rows(model, model.tokenizer.encode(t)) for t in ("the", "the cats"))
    n = len(short.logprobs)
    assert torch.allclose(short.logprobs, long.logprobs[:n], atol=1e-5)


def test_batches_change_no_number(tiny_models, testdata) -> None:
    texts = ["the cat", "a", "the cats sat, 東京 the", "sat " * 9, "T"]
    real = models.load(str(testdata / "models" / "stories260K"))
    zoo = [models.load(f"zoo:{name}") for name in ("llama", "mpt-code", "gpt2-story")]
    for model in (*tiny_models, real, *zoo):
        encodings = model.tokenizer.encode_batch(texts)
        for cut in (None, Truncation(top_k=7)):
            together = models.read_rows_batch(model, encodings, cut=cut)
            for encoding, batched in zip(encodings, together, strict=True):
                alone = models.read_rows_batch(model, [encoding], cut=cut)[0]
                assert batched.boundary.tolist() == alone.boundary.tolist()
                assert torch.equal(batched.observed, alone.observed)
                given, expected = batched.observed_logprob[:-1], alone.observed_logprob[:-1]
                assert torch.allclose(given, expected, atol=1e-5)
                if cut is None:
                    assert torch.allclose(batched.dense.probs, alone.dense.probs, atol=1e-5)
                else:
                    assert torch.allclose(batched.rows.probs, alone.rows.probs, atol=1e-5)


def test_large_batches_are_read_in_parts(tiny_models, monkeypatch: pytest.MonkeyPatch) -> None:
    from fusion_core.models import rows

    model = tiny_models[1]
    encodings = model.tokenizer.encode_batch(["the cats sat " * n for n in (1, 3, 2, 1, 3)])
    whole = models.read_rows_batch(model, encodings)
    monkeypatch.setattr(rows, "BATCH_TOKENS", 40)
    monkeypatch.setattr(rows, "CHUNK_CELLS", 5 * model.tokenizer.size)
    for cut in (None, Truncation(top_p=0.8), Truncation(top_k=3)):
        parts = models.read_rows_batch(model, encodings, cut=cut)
        for a, b in zip(whole, parts, strict=True):
            assert torch.allclose(a.observed_logprob[:-1], b.observed_logprob[:-1], atol=1e-5)
            if cut is None:
                assert torch.allclose(a.dense.probs, b.dense.probs, atol=1e-6)
            else:
                assert torch.allclose(b.rows.probs.sum(1) + b.rows.tail, torch.ones(len(b.rows)))


def test_cut_rows_keep_what_is_most_probable(tiny_models) -> None:
    model = tiny_models[0]
    encoding = model.tokenizer.encode("the cat")
    probs = models.read_rows(model, encoding).dense.probs
    for row, i in (
        (models.read_rows_batch(model, [encoding], cut=Truncation(top_k=3))[0].rows, 2),
    ):
        best = sorted(enumerate(probs[i].tolist()), key=lambda x: -x[1])[:3]
        assert row.ids[i].tolist() == [v for v, _ in best]
        assert row.probs[i].tolist() == pytest.approx([p for _, p in best], abs=1e-6)
        assert float(row.tail[i]) == pytest.approx(1 - sum(p for _, p in best), abs=1e-6)
    everything = models.read_rows_batch(model, [encoding], cut=Truncation(top_k=10**6))[0].rows
    assert everything.ids.shape[1] == model.tokenizer.size
    assert torch.allclose(everything.tail, torch.zeros(len(probs)), atol=1e-6)


@pytest.mark.parametrize("p", [0.3, 0.9, 1.0])
def test_top_p_keeps_the_fewest_tokens_that_reach_it(tiny_models, p: float) -> None:
    model = tiny_models[0]
    encoding = model.tokenizer.encode("the cat")
    probs = models.read_rows(model, encoding).dense.probs
    rows = models.read_rows_batch(model, [encoding], cut=Truncation(top_p=p))[0].rows
    for i, row in enumerate(probs.tolist()):
        n = int((rows.ids[i] >= 0).sum())
        kept = sorted(row, reverse=True)[:n]
        assert rows.probs[i, :n].tolist() == pytest.approx(kept, abs=1e-6)
        assert not rows.probs[i, n:].any()
        assert sum(kept) >= p - 1e-5 > sum(kept[:-1]) - 2e-5


def test_sampled_rows_are_right_on_average(tiny_models) -> None:
    model = tiny_models[0]
    encoding = model.tokenizer.encode("the")
    probs = models.read_rows(model, encoding).dense.probs
    mean = torch.zeros_like(probs)
    n, draws = 300, 16
    for seed in range(n):
        rows = models.read_rows_batch(model, [encoding], cut=Truncation(samples=draws, seed=seed))[
            0
        ].rows
        assert torch.allclose(rows.probs.sum(1), torch.ones(len(probs))) and not rows.tail.any()
        assert bool((rows.probs[:, :-1] >= rows.probs[:, 1:]).all())
        real = rows.ids >= 0
        row = torch.arange(len(probs))[:, None].expand_as(rows.ids)
        mean.index_put_((row[real], rows.ids[real]), rows.probs[real] / n, accumulate=True)
    spread = (probs * (1 - probs) / (n * draws)).sqrt()
    once = 1 / (n * draws)  # a rare token is drawn once or not at all
    assert bool(((mean - probs).abs() < 5 * spread + 2 * once).all())
    again = models.read_rows_batch(model, [encoding], cut=Truncation(samples=draws, seed=n - 1))[
        0
    ].rows
    assert torch.equal(again.ids, rows.ids) and torch.equal(again.probs, rows.probs)


@pytest.mark.parametrize("temperature", [0, -1, float("nan"), float("inf")])
def test_temperatures_that_divide_nothing(tiny_models, temperature: float) -> None:
    model = tiny_models[0]
    with pytest.raises(InputError, match=r"temperature must be a number of at least 0\.0001"):
        models.read_rows(model, model.tokenizer.encode("the"), temperature=temperature)


def test_logits_that_are_no_numbers(tiny_llama_tokenizer) -> None:
    model = tiny_model(tiny_llama_tokenizer, seed=1)
    with torch.no_grad():
        model.network.lm_head.weight[5] = torch.nan
    with pytest.raises(ModelFormatError, match="no numbers"):
        models.read_rows(model, model.tokenizer.encode("the"))


def test_a_model_spread_over_devices_reads_the_same(folder: Path) -> None:
    one, spread = models.load(str(folder)), models.load(str(folder), device="spread")
    encoding = one.tokenizer.encode("the cat")
    assert torch.allclose(
        models.read_rows(one, encoding).logprobs,
        models.read_rows(spread, encoding).logprobs,
        atol=1e-6,
    )


def test_temperature_divides_the_logits(tiny_models) -> None:
    model = tiny_models[0]
    encoding = model.tokenizer.encode("the")
    warm, plain = (
        models.read_rows(model, encoding, temperature=2.0),
        models.read_rows(model, encoding),
    )
    assert torch.allclose(warm.logprobs, torch.log_softmax(plain.logprobs / 2, dim=1), atol=1e-5)
    # what followed is scored at temperature 1, whatever the rows have
    assert torch.equal(warm.observed_logprob[:-1], plain.observed_logprob[:-1])


def test_ids_without_a_token_have_no_probability() -> None:
    backend = byte_level()
    tokenizer = TextTokenizer(backend, "holes", start_id=256, eos_id=256)
    tokenizer.unused_ids = torch.tensor([3, 7]).numpy()
    rows = models.read_rows(tiny_model(tokenizer), tokenizer.encode("a"))
    assert bool((rows.logprobs[:, [3, 7]] == -torch.inf).all())
    assert torch.allclose(rows.logprobs.exp().sum(1), torch.ones(2), atol=1e-5)


def test_without_a_start_token_nothing_is_known_first() -> None:
    tokenizer = TextTokenizer(byte_level(), "mute", start_id=None, eos_id=None)
    rows = models.read_rows(tiny_model(tokenizer), tokenizer.encode("ab"))
    assert torch.allclose(rows.logprobs[0].exp(), torch.full((257,), 1 / 257), atol=1e-6)
    assert torch.isnan(rows.observed_logprob[[0, 2]]).all()
    assert rows.observed_logprob[1] < 0


def test_a_text_beyond_the_context_is_refused(tiny_models) -> None:
    model = tiny_models[1]
    with pytest.raises(TooLargeError, match="64 tokens"):
        models.read_rows(model, model.tokenizer.encode("x" * 64))


def test_a_saved_folder_is_read_in_float32(folder: Path) -> None:
    model = models.load(str(folder))
    assert model.network.dtype == torch.float32 and model.context == 64
    assert not any(p.requires_grad for p in model.network.parameters())
    assert models.load(str(folder), dtype="bfloat16").network.dtype == torch.bfloat16


def test_a_tokenizer_alone_is_enough_for_tokens(folder: Path) -> None:
    for file in (*folder.glob("*.safetensors"), folder / "config.json"):
        file.unlink()
    assert models.load_tokenizer(str(folder)).size == 257
    with pytest.raises(ModelFormatError, match=r"config\.json"):
        models.load(str(folder))


def test_size_is_checked_before_loading(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()  # would fail if anything were read
    with pytest.raises(TooLargeError, match="limit"):
        models.load(str(folder), max_bytes=1000)


def test_weights_that_are_no_safetensors(folder: Path) -> None:
    for file in folder.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(ModelFormatError, match="no weights"):
        models.load(str(folder))
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    with pytest.raises(ModelFormatError, match="pickled"):
        models.load(str(folder))


def test_a_cut_off_weights_file(folder: Path) -> None:
    weights = next(folder.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(ModelFormatError, match="cannot be loaded"):
        models.load(str(folder))


def test_remote_code_is_not_run(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "evil"
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    mark = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w')")
    with pytest.raises(ModelFormatError):
        models.load(str(folder))
    assert not mark.exists()


@pytest.mark.parametrize(
    "name",
    [
        "zoo:nobody",
        "zoo:../../etc",
        "",
        "./no/such/folder",
        "/no/such",
        "a b",
        "a/b/c",
        "x\0y",
        "~nosuch/x",
    ],
)
def test_names_that_lead_nowhere(name: str) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        models.load(name)
    assert "\n" not in str(caught.value)


def test_a_file_is_no_folder(folder: Path) -> None:
    with pytest.raises(ModelFormatError, match="is a file"):
        models.load(str(folder / "config.json"))


def test_a_hub_name_without_a_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi

    class TransportError(Exception):
        """As the hub's HTTP client has: no kind of OSError."""

    def offline(*args: object, **kwargs: object) -> None:
        raise TransportError("no network")

    monkeypatch.setattr(HfApi, "model_info", offline)
    for load in (models.load, models.load_tokenizer):
        with pytest.raises(ModelNotFoundError, match="hub cannot be reached"):
            load("nobody/nothing")


def test_a_hub_model_is_measured_before_it_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo

    info = ModelInfo(
        id="a/b",
        siblings=[
            {"rfilename": "model-1.safetensors", "size": 3_000_000_000},
            {"rfilename": "pytorch_model.bin", "size": 9},
        ],
    )
    monkeypatch.setattr(HfApi, "model_info", lambda *a, **k: info)
    with pytest.raises(TooLargeError, match=r"3\.0 GB"):
        models.load("a/b", max_bytes=2_000_000_000)


def test_a_hub_model_of_pickles_is_not_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo

    info = ModelInfo(id="a/b", siblings=[{"rfilename": "pytorch_model.bin", "size": 9}])
    monkeypatch.setattr(HfApi, "model_info", lambda *a, **k: info)
    with pytest.raises(ModelFormatError, match="pickled"):
        models.load("a/b")


def test_an_adapter_is_no_model(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "huge/model"}')
    with pytest.raises(ModelFormatError, match="adapter"):
        models.load(str(folder))


@pytest.mark.parametrize("options", [{"device": "tpu9"}, {"device": "cuda:99"}, {"dtype": "int3"}])
def test_devices_and_dtypes_that_are_not_to_be_had(folder: Path, options: dict) -> None:
    with pytest.raises(InputError, match="choose"):
        models.load(str(folder), **options)


def test_a_copied_folder_gives_equal_rows(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy, ignore=lambda *_: ["copy"])
    one, two = models.load(str(folder)), models.load(str(copy))
    encoding = one.tokenizer.encode("abc")
    assert torch.equal(
        models.read_rows(one, encoding).logprobs,
        models.read_rows(two, encoding).logprobs,
    )
    assert one.tokenizer.key == two.tokenizer.key
