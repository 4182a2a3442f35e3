"""Transfer cross-entropy: the published table, and the chain rule."""

from __future__ import annotations

import pytest

from fusion_core import compare, models
from fusion_core.config import FusionConfig
from fusion_core.io import documents

# Nats per target token, from a study of the method, with rows at the source's own boundaries:
# exact, mined, prefix at shared boundaries, prefix inside source tokens, and the target's own at
# both.
TABLE = [
    ("stories260K", "babyllama-tok105", None, (0.570, 0.953, 0.471, 0.723), (0.724, 0.854)),
    ("stories260K", "babyllama-tok105", 10, (0.586, 0.907, 0.506, 0.768), (0.724, 0.854)),
    ("babyllama-tok105", "stories260K", None, (7.41, 7.41, 1.69, None), (1.46, None)),
]


@pytest.mark.parametrize(("source", "target", "top_k", "expected", "own"), TABLE)
def test_transfer_between_real_models(testdata, source, target, top_k, expected, own) -> None:
    loaded = {n: models.load(str(testdata / "models" / n)) for n in (source, target)}
    texts = documents.read_documents(testdata / "data" / "tinystories" / "windows.txt")
    assert len(texts) == 19
    for strategy, shared in zip(("exact", "mined", "prefix"), expected[:3], strict=True):
        config = FusionConfig(strategy=strategy, source_top_k=top_k, rows="boundary")
        score = compare.transfer(loaded[target], loaded[source], texts, config)[strategy]
        assert score["transfer_ce"] == pytest.approx(shared, abs=0.02)
        assert score["target_ce"] == pytest.approx(own[0], abs=0.02)
        inside = score["inside"]
        if strategy == "prefix" and expected[3] is not None:
            assert inside["transfer_ce"] == pytest.approx(expected[3], abs=0.02)
            assert inside["target_ce"] == pytest.approx(own[1], abs=0.02)
            assert score["covered"] / score["positions"] == pytest.approx(0.48, abs=0.01)
            assert inside["positions"] + score["covered"] == score["positions"]
        else:
            assert inside["positions"] == 0 and inside["transfer_ce"] is None


def test_native_ce_is_the_chain_rule(testdata) -> None:
    loaded = {
        n: models.load(str(testdata / "models" / n)) for n in ("stories260K", "babyllama-tok105")
    }
    target, source = loaded["stories260K"], loaded["babyllama-tok105"]
    text = "Once upon a time, Tom had a dog."
    score = compare.transfer(target, source, [text], FusionConfig())["prefix"]
    # Every token of the target spans whole characters, so that the sums over the text are equal.
    rows = models.read_rows(source, source.tokenizer.encode(text))
    assert score["native_positions"] == score["positions"]
    total = -float(rows.observed_logprob[:-1].sum())
    assert score["native_ce"] * score["positions"] == pytest.approx(total, rel=1e-5)
