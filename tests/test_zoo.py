"""The embedded models: small, safe, lossless tokenizers, each specialist ahead in its domain."""

import hashlib
import json
import math
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from fusion_core import corpus, zoo
from fusion_core.errors import ModelNotFoundError
from fusion_core.zoo import build, table
from fusion_core.zoo.recipes import RECIPES

MEBIBYTE = 2**20
AWKWARD = [
    "",
    " one space before",
    "  two, and two after  ",
    "tabs\tand\r\nlines\n\n\n   \n",
    "東京 and 大阪, Zoë, café, e\u0301, 5 °C, 3 €, 1 m², “quotes” — dash…",
    "emoji 🙂🚀👩‍👩‍👧 \u0000 \u200b \ufeff",
    "<0x0A> <0xE2> written out",
    "def f(x):\n        return x  # 8 and 2 spaces\n",
    "1234567890 = 12 * 34 / 5 - 6",
]


@pytest.fixture(scope="module")
def loaded():
    """Every model with its tokenizer, as anyone would load them."""
    return {
        name: (
            AutoModelForCausalLM.from_pretrained(zoo.path(name), dtype=torch.float32).eval(),
            AutoTokenizer.from_pretrained(zoo.path(name)),
        )
        for name in zoo.NAMES
    }


@torch.no_grad()
def bits(model, tokenizer, text: str) -> float:
    """Bits of a text after the start token; written without the core, as its check."""
    start = tokenizer.bos_token_id
    start = tokenizer.eos_token_id if start is None else start
    ids = torch.tensor([[start, *tokenizer.encode(text, add_special_tokens=False)]])
    nats = torch.nn.functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="sum")
    return nats.item() / math.log(2)


@pytest.fixture(scope="module")
def scores(loaded):
    """Bits per byte of every model on every domain's first test documents."""
    result = {}
    for domain in (*corpus.DOMAINS, "mixed"):
        texts = corpus.text(domain, "test", 5_000, seed=11)
        size = sum(len(text.encode()) for text in texts)
        for name, pair in loaded.items():
            result[name, domain] = sum(bits(*pair, text) for text in texts) / size
    return result


def test_the_zoo_has_a_target_and_a_specialist_for_every_domain():
    assert zoo.TARGET == "llama"
    assert len(zoo.NAMES) == 4
    assert sorted(zoo.DOMAIN_OF.values()) == sorted(corpus.DOMAINS)
    assert set(zoo.NAMES) == set(RECIPES) == {zoo.TARGET, *zoo.DOMAIN_OF}


@pytest.mark.parametrize("name", zoo.NAMES)
def test_folders_hold_half_precision_safetensors_within_the_limits(name):
    folder = zoo.path(name)
    assert zoo.path(f"zoo:{name}") == folder
    assert {file.name for file in folder.iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert (folder / "model.safetensors").stat().st_size < 4 * 10**6
    with safe_open(folder / "model.safetensors", "pt") as file:
        types = {file.get_tensor(key).dtype for key in file.keys()}  # noqa: SIM118
    assert types <= {torch.float16, torch.bfloat16}


def test_the_whole_zoo_is_small():
    files = [file for name in zoo.NAMES for file in zoo.path(name).iterdir()]
    assert sum(file.stat().st_size for file in files) < 16 * 10**6


@pytest.mark.parametrize(
    "name",
    [
        "",
        "foo",
        "zoo:",
        "zoo:foo",
        "../../etc",
        "zoo:../llama",
        "llama/",
        "/etc",
        "LLAMA",
        "zoo:zoo:llama",
        "a\nb" * 99,
    ],
)
def test_other_names_are_refused_without_a_look_at_the_disk(name, monkeypatch):
    monkeypatch.setattr(Path, "stat", None)
    monkeypatch.setattr(Path, "is_file", None)
    with pytest.raises(ModelNotFoundError, match="zoo:llama"):
        zoo.path(name)


def test_a_model_that_was_not_built_says_how_to_build_it(monkeypatch, tmp_path):
    monkeypatch.setattr(zoo, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(ModelNotFoundError, match="zoo build --only llama"):
        zoo.path("llama")


def test_architectures_and_vocabularies_differ(loaded):
    assert len({type(model).__name__ for model, _ in loaded.values()}) == 4
    assert len({frozenset(tokenizer.get_vocab()) for _, tokenizer in loaded.values()}) == 4
    for model, tokenizer in loaded.values():
        assert 700 <= len(tokenizer) <= 2_000
        assert model.get_output_embeddings().weight.shape[0] >= len(tokenizer)
        assert model.config.eos_token_id == tokenizer.eos_token_id


@pytest.mark.parametrize("name", zoo.NAMES)
def test_tokenizers_spell_any_text_without_loss(loaded, name):
    _, tokenizer = loaded[name]
    texts = AWKWARD + [corpus.text(d, "test", 2_000)[0] for d in (*corpus.DOMAINS, "mixed")]
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
        assert tokenizer.unk_token_id is None or tokenizer.unk_token_id not in ids


def test_the_target_is_laid_out_like_llama_2(loaded):
    _, tokenizer = loaded["llama"]
    vocabulary = tokenizer.get_vocab()
    assert [vocabulary[piece] for piece in ("<unk>", "<s>", "</s>")] == [0, 1, 2]
    assert [vocabulary[f"<0x{byte:02X}>"] for byte in range(256)] == list(range(3, 259))
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("東"))[1:] == [
        "▁",
        "<0xE6>",
        "<0x9D>",
        "<0xB1>",
    ]
    assert tokenizer.encode("the")[0] == tokenizer.bos_token_id


@pytest.mark.parametrize(("name", "domain"), zoo.DOMAIN_OF.items())
def test_specialists_are_far_ahead_in_their_domain_and_behind_elsewhere(scores, name, domain):
    assert scores[name, domain] <= 0.6 * scores[zoo.TARGET, domain]
    for other in corpus.DOMAINS:
        if other != domain:
            assert scores[name, other] > 1.1 * scores[zoo.TARGET, other]


def test_the_target_is_a_decent_generalist(scores):
    for domain in (*corpus.DOMAINS, "mixed"):
        assert scores[zoo.TARGET, domain] < 1.2


def test_the_best_source_of_a_document_is_its_domains_specialist(loaded):
    right = total = 0
    for name, domain in zoo.DOMAIN_OF.items():
        for text in corpus.text(domain, "test", 3_000, seed=5):
            best = min(zoo.DOMAIN_OF, key=lambda other: bits(*loaded[other], text))
            right += best == name
            total += 1
    assert right >= 0.9 * total


def test_the_table_in_the_readme_is_whole(scores):
    text = (Path(zoo.__file__).parent / "README.md").read_text(encoding="utf-8")
    body = text.partition(table.BEGIN)[2].partition(table.END)[0]
    rows = [line.split("|") for line in body.splitlines() if line.startswith("| `")]
    assert [row[1].strip(" `") for row in rows] == list(zoo.NAMES)
    for row in rows:
        name = row[1].strip(" `")
        for domain, cell in zip(table.COLUMNS, row[2:], strict=False):
            assert float(cell.strip(" *")) == pytest.approx(scores[name, domain], rel=0.3)


def test_the_table_is_put_between_its_markers(tmp_path, monkeypatch):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n", encoding="utf-8")
    row = dict.fromkeys(table.COLUMNS, 0.5)
    monkeypatch.setattr(table, "measure", lambda: {"llama": row, "mpt-code": row})
    table.renew(readme)
    text = readme.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{table.BEGIN}\n| model |")
    assert text.endswith(f"|\n{table.END}\nafter\n")
    assert "| `mpt-code` | 0.500 | 0.500 | **0.500** | 0.500 |" in text
    readme.write_text("no markers", encoding="utf-8")
    with pytest.raises(ValueError, match="no lines"):
        table.renew(readme)


@pytest.mark.parametrize("name", zoo.NAMES)
def test_tokenizers_come_out_the_same_twice(name):
    spelled = [
        build.train_tokenizer(RECIPES[name], 60_000).backend_tokenizer.to_str() for _ in range(2)
    ]
    assert spelled[0] == spelled[1]
    assert json.loads(spelled[0])["model"]["vocab"]


@pytest.mark.parametrize("name", ["llama", "mpt-code"])
def test_training_comes_out_the_same_twice(name, tmp_path):
    hashes = set()
    threads = torch.get_num_threads()
    for attempt in ("one", "two"):
        build.build_one(name, tmp_path / attempt, steps=2)
        weights = (tmp_path / attempt / name / "model.safetensors").read_bytes()
        hashes.add(hashlib.sha256(weights).hexdigest())
    torch.set_num_threads(threads)
    assert len(hashes) == 1


def test_documents_are_read_as_the_models_will_meet_them():
    tokenizer = build.train_tokenizer(RECIPES["gpt2-story"], 60_000)
    ids = build.encode(tokenizer, "A hen eats grain.")
    assert ids[0] == ids[-1] == tokenizer.eos_token_id
    tokens, mask, labels = next(build.batches(RECIPES["gpt2-story"], tokenizer))
    assert tokens.shape == mask.shape == labels.shape
    assert (tokens[:, 0] == tokenizer.eos_token_id).all()
    assert tokens.numel() <= build.BATCH_TOKENS
    assert ((labels == -100) == (mask == 0)).all()
    assert (labels[mask == 1] == tokens[mask == 1]).all()
