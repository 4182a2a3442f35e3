"""Which way of carrying distributions over keeps what a source knows: every strategy, every pair.

    python benchmarks/transfer.py

writes benchmarks/results/transfer.md: all ordered pairs of the zoo on test documents of each of its
three domains, and, where FUSELAB_TESTDATA names the folder of test data, both directions of its two
models of children's stories, with full source rows and with their top 10. `statistical` counts in
other text than it is scored on: the zoo's training split, and the other half of the stories. It
fails where a source's rows predict single bytes better than the source itself does.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice, permutations, product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as backends
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from fusion_core import compare, corpus, mapping, models, tokens, zoo
from fusion_core.config import FusionConfig
from fusion_core.io import documents
from fusion_core.models import LoadedModel
from fusion_core.project import project_rows
from fusion_core.project.text import aligned
from fusion_core.reading import read_documents

OUT = ROOT / "benchmarks" / "results" / "transfer.md"
TEST_DOCUMENTS = 12
"""A domain."""
COUNTED_DOCUMENTS = 100
"""A domain."""
STRATEGIES = tuple(mapping.STRATEGIES)
CLOSE = 1.02
"""A strategy is level with the best where its cross-entropy is at most this many times its."""


@dataclass(frozen=True)
class Row:
    """One pair on one text.

    Attributes:
        name: source and target.
        text: what they read.
        bits: the source's and the target's own bits per byte on it.
        study: for each strategy the figures of `transfer`.
    """

    name: str
    text: str
    bits: tuple[float, float]
    study: dict[str, dict[str, Any]]

    def shared(self, strategy: str) -> float:
        """Transfer cross-entropy at shared boundaries."""
        return self.study[strategy]["transfer_ce"]

    @property
    def best(self) -> float:
        """The lowest transfer cross-entropy of all strategies."""
        return min(map(self.shared, STRATEGIES))

    @property
    def target_ce(self) -> float:
        """The target's own cross-entropy at the same positions."""
        return self.study[FusionConfig().strategy]["target_ce"]


def main() -> None:
    """Measure, and write the tables."""
    rows, sums = zoo_rows(), []
    for name in zoo.NAMES:
        domain = zoo.DOMAIN_OF.get(name, corpus.DOMAINS[0])
        sums.append(summed(models.load(zoo.PREFIX + name), domain, texts(domain, "test", 4)))
    folder = os.environ.get("FUSELAB_TESTDATA")
    if folder:
        rows += story_rows(Path(folder))
        windows = documents.read_documents(Path(folder) / "data" / "tinystories" / "windows.txt")
        source = models.load(f"{folder}/models/stories260K")
        sums.append(summed(replace(source, name="BPE-512"), "stories", windows))
    OUT.write_text("\n".join([*report(rows), *bytes_table(sums)]) + "\n", encoding="utf-8")
    print(OUT.read_text(encoding="utf-8"))


def texts(domain: str, split: str, number: int) -> list[str]:
    """Take documents of a domain."""
    return list(islice(corpus.documents(domain, split), number))


def bits(source: LoadedModel, target: LoadedModel, read: Sequence[str]) -> tuple[float, float]:
    """Score both models on the texts, in bits per byte."""
    scores = compare.bits_per_byte([source, target], read)
    return scores[source.name]["bits_per_byte"], scores[target.name]["bits_per_byte"]


def zoo_rows() -> list[Row]:
    """Study all ordered pairs of the embedded models on every domain."""
    loaded = {n: models.load(zoo.PREFIX + n) for n in zoo.NAMES}
    counted = [t for d in corpus.DOMAINS for t in texts(d, "train", COUNTED_DOCUMENTS)]
    rows = []
    for name, domain in product(permutations(loaded, 2), corpus.DOMAINS):
        source, target = loaded[name[0]], loaded[name[1]]
        print(f"{name[0]} → {name[1]}, {domain}", file=sys.stderr)
        read = texts(domain, "test", TEST_DOCUMENTS)
        study = compare.transfer(target, source, read, FusionConfig(), STRATEGIES, corpus=counted)
        rows.append(Row(" → ".join(name), domain, bits(source, target, read), study))
    return rows


def story_rows(folder: Path) -> list[Row]:
    """Study both directions of the two models of children's stories."""
    names = {"stories260K": "BPE-512", "babyllama-tok105": "characters"}
    loaded = {n: models.load(str(folder / "models" / n)) for n in names}
    windows = documents.read_documents(folder / "data" / "tinystories" / "windows.txt")
    rows = []
    for one, other in permutations(names, 2):
        source, target = loaded[one], loaded[other]
        both = bits(source, target, windows)
        for top_k in (None, 10):
            label = f"{names[one]} → {names[other]}" + (f", top {top_k}" if top_k else "")
            print(label, file=sys.stderr)
            study = halves(target, source, windows, FusionConfig(source_top_k=top_k))
            rows.append(Row(label, "stories", both, study))
    return rows


def halves(
    target: LoadedModel, source: LoadedModel, windows: Sequence[str], config: FusionConfig
) -> dict[str, dict[str, Any]]:
    """Study all windows at once, but `statistical` half by half, counted in the other half."""
    fixed = [s for s in STRATEGIES if not mapping.STRATEGIES[s].counts]
    counting = [s for s in STRATEGIES if mapping.STRATEGIES[s].counts]
    study = compare.transfer(target, source, windows, config, fixed)
    parts = [
        compare.transfer(target, source, read, config, counting, corpus=counted)
        for read, counted in ((windows[::2], windows[1::2]), (windows[1::2], windows[::2]))
    ]
    for strategy in counting:
        both = [p[strategy] for p in parts]
        total = sum(b["covered"] for b in both)
        means = {
            k: sum(b[k] * b["covered"] for b in both) / total for k in ("transfer_ce", "kept_mass")
        }
        study[strategy] = both[0] | means
    return study


def byte_model() -> LoadedModel:
    """Make a random model that reads single bytes, with tokens for start and end."""
    alphabet = {c: n for n, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(backends.BPE({**alphabet, "<s>": 256, "</s>": 257}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=4096,
    )
    network = LlamaForCausalLM(config).eval().requires_grad_(False)
    return LoadedModel("bytes", tokens.from_transformers(fast, "bytes"), network, 4096, 0)


def summed(source: LoadedModel, text: str, read: Sequence[str]) -> tuple[str, str, list[float]]:
    """Carry a source's rows to single bytes, and add up their cross-entropy and that of the end.

    Returns:
        The source, the text, and nats a byte: the sum, the source's own tokens and end, and what
        its tokenizer never makes.
    """
    total = own = never = size = 0.0
    ends = list(source.tokenizer.end_ids)
    for reading in read_documents([byte_model(), source], read, FusionConfig(prune=0)):
        (window,) = reading.windows
        (target, rows), covers = window.rows, window.covers[1]
        assert covers is not None
        (prefix,) = reading.project("prefix").mappings
        carried = project_rows(rows, target, aligned(reading, window, 1), prefix, covers)
        p = carried.probs(target.dense.probs[:-1]).gather(1, target.observed[:-1, None])
        last = (covers.place == len(covers.positions) - 1) & (covers.known == 0)
        at_end = covers.dense.probs[covers.row[last]][:, ends].sum(1).double().numpy()
        total -= float(p.double().log().sum()) + math.log(covers.weight[last] @ at_end)
        own -= float(rows.observed_logprob[:-1].double().sum())
        own -= math.log(float(rows.dense.probs[-1, ends].sum()))
        never -= float(np.log1p(-covers.noncanonical.astype(float)).sum())
        size += len(reading.encodings[0].data)
    assert total >= own - never - 1e-3 * size, f"{source.name} beats itself"
    return source.name.removeprefix(zoo.PREFIX), text, [x / size for x in (total, own, never)]


def bytes_table(sums: Sequence[tuple[str, str, list[float]]]) -> list[str]:
    """Hold rows carried to single bytes against the source itself."""
    return [
        "",
        "## Single bytes",
        "",
        "Rows carried to a random model that reads bytes, nothing left out: nats a byte over all",
        "positions and the text's end, and what the source's own tokens and end take. No marginal",
        "of a model beats the model, but by the spellings that its tokenizer never makes. The",
        "target's own boundaries are not looked at: that bytes are text would help a little, too.",
        "",
        *table(
            ("source", "text", "carried", "own", "never made"),
            [(name, text, *(f"{x:.4f}" for x in figures)) for name, text, figures in sums],
        ),
    ]


def report(rows: Sequence[Row]) -> list[str]:
    """Lay the figures out as Markdown."""
    better = [r for r in rows if r.bits[0] < r.bits[1]]
    worse = [r for r in rows if r.bits[0] >= r.bits[1]]
    return [
        "# Transfer cross-entropy of every strategy",
        "",
        "`python benchmarks/transfer.py`. Nats per target token on the target's actual next",
        "tokens, lower is better. *target* is the target's own prediction at the same positions;",
        "*native* the source's own steps along the text where a target token spans whole source",
        "tokens (other positions, so that it is no bound). The lowest strategy of a row is bold.",
        f"Every pair of the zoo reads {TEST_DOCUMENTS} test documents of each domain.",
        f"`statistical` counted in {COUNTED_DOCUMENTS} training documents a domain, and for the",
        "two models of children's stories in the other half of the text.",
        "",
        "## The source reads the text better than the target",
        "",
        "Here there is something to carry over.",
        "",
        *shared(better),
        "",
        *verdict(better),
        "",
        "## The source reads the text worse than the target",
        "",
        "Here the target's own row is what there is to beat, and a strategy does the better the",
        "less it carries: what it does not map falls back to that row (kept mass, below). `min_ce`",
        "would not choose such a source.",
        "",
        *shared(worse),
        "",
        *verdict(worse),
        "",
        "## Kept mass at shared boundaries",
        "",
        "The share of the source's probability that the mapping carried; the rest fell back to the",
        "target's own row. A strategy that maps everything may map it wrongly.",
        "",
        *table(
            ("source → target", "text", *STRATEGIES),
            [
                (row.name, row.text, *(f"{row.study[s]['kept_mass']:.3f}" for s in STRATEGIES))
                for row in rows
            ],
        ),
        "",
        "## Inside source tokens",
        "",
        "Positions of the target without a boundary of the source, where `prefix` conditions the",
        "source's last row on the bytes that are known, and every other strategy has nothing.",
        "",
        *table(
            ("source → target", "text", "share", "kept mass", "target", "prefix"),
            [inside(row) for row in rows],
        ),
    ]


def shared(rows: Sequence[Row]) -> list[str]:
    """Lay out the positions at shared boundaries."""
    head = ("source → target", "text", "bits per byte", "share", "target", "native", *STRATEGIES)
    lines = []
    for row in rows:
        whole = row.study["prefix"]
        lines.append(
            (
                row.name,
                row.text,
                "{:.2f} : {:.2f}".format(*row.bits),
                f"{whole['coverage']:.0%}",
                f"{row.target_ce:.3f}",
                f"{whole['native_ce']:.3f}",
                *(marked(row, s) for s in STRATEGIES),
            )
        )
    return table(head, lines)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Write a Markdown table whose first column is text."""
    lines = [head, ("---", *["---:"] * (len(head) - 1)), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def marked(row: Row, strategy: str) -> str:
    """Show a cross-entropy, the lowest of the row in bold."""
    shown = f"{row.shared(strategy):.3f}"
    return f"**{shown}**" if row.shared(strategy) == row.best else shown


def verdict(rows: Sequence[Row]) -> list[str]:
    """Say how often each strategy is the best or close to it, and how often it helps."""
    lines = [
        f"Best, or within {CLOSE - 1:.0%} of the best, of {len(rows)} rows: "
        + ", ".join(f"`{s}` {sum(r.shared(s) <= CLOSE * r.best for r in rows)}" for s in STRATEGIES)
        + ". Below the target's own: "
        + ", ".join(f"`{s}` {sum(r.shared(s) < r.target_ce for r in rows)}" for s in STRATEGIES)
        + "."
    ]
    default = FusionConfig().strategy
    behind = [r for r in rows if r.shared(default) > CLOSE * r.best]
    if behind:
        lines.append(
            f"`{default}` is further behind in: "
            + "; ".join(
                f"{r.name}, {r.text} ({r.shared(default) / r.best - 1:+.0%})" for r in behind
            )
            + "."
        )
    return lines


def inside(row: Row) -> tuple[str, ...]:
    """Show the positions inside source tokens."""
    whole, part = row.study["prefix"], row.study["prefix"]["inside"]
    share = part["positions"] / whole["positions"]
    if not part["positions"]:
        return row.name, row.text, "0%", "–", "–", "–"
    figures = (f"{part[k]:.3f}" for k in ("kept_mass", "target_ce", "transfer_ce"))
    return row.name, row.text, f"{share:.0%}", *figures


if __name__ == "__main__":
    main()
