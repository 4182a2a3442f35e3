"""Does fusing the zoo's specialists beat every single model? Writes its table into docs/results.md.

    python benchmarks/zoo.py            # measure, print, and renew the table
    python benchmarks/zoo.py --check    # measure and print only

Twenty test documents a domain are read by the target and all three specialists; each document is
fused on its own with MinCE at sequence level and the prefix strategy. Bits per byte are sums over
a domain's documents; "mean" is the mean of the three domains.
"""

from __future__ import annotations

import argparse
import sys
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fusion_core import corpus, models, pipeline, zoo
from fusion_core.config import FusionConfig

DOCUMENTS = 20
SEED = 7
BEGIN, END = "<!-- zoo: begin -->", "<!-- zoo: end -->"


def measure() -> tuple[dict[str, dict[str, float]], dict[str, int]]:
    """Return bits per byte by model and domain, and how often the right specialist won."""
    target, *sources = (models.load(zoo.PREFIX + name) for name in zoo.NAMES)
    bits: dict[str, dict[str, float]] = {m.name: {} for m in (target, *sources)} | {"fused": {}}
    right = {}
    for domain in corpus.DOMAINS:
        sums, n_bytes, right[domain] = dict.fromkeys(bits, 0.0), 0, 0
        for text in islice(corpus.documents(domain, "test", seed=SEED), DOCUMENTS):
            analysis = pipeline.analyze(target, sources, text, FusionConfig())
            size = analysis.scored_bytes
            n_bytes += size
            sums[target.name] += analysis.target_bits_per_byte * size
            sums["fused"] += analysis.fused_bits_per_byte * size
            for source in analysis.sources:
                sums[source.encoding.model] += source.bits_per_byte * size
            best = min(analysis.sources, key=lambda s: s.bits_per_byte).encoding.model
            right[domain] += zoo.DOMAIN_OF[best.removeprefix(zoo.PREFIX)] == domain
        for name, total in sums.items():
            bits[name][domain] = total / n_bytes
    return bits, right


def render(bits: dict[str, dict[str, float]], right: dict[str, int]) -> str:
    """Write the figures as a Markdown table."""
    lines = [
        f"| bits per byte | {' | '.join(corpus.DOMAINS)} | mean |",
        f"| --- |{' ---: |' * (len(corpus.DOMAINS) + 1)}",
    ]
    for name, row in bits.items():
        mean = sum(row.values()) / len(row)
        cells = " | ".join(f"{row[d]:.3f}" for d in corpus.DOMAINS)
        lines.append(f"| {name if name == 'fused' else f'`{name}`'} | {cells} | {mean:.3f} |")
    shares = " | ".join(f"{right[d]} of {DOCUMENTS}" for d in corpus.DOMAINS)
    total = f"{sum(right.values())} of {DOCUMENTS * len(right)}"
    lines.append(f"| the right specialist wins | {shares} | {total} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and renew the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="leave the page as it is")
    options = parser.parse_args()
    table = render(*measure())
    print(table)
    if not options.check:
        page = ROOT / "docs" / "results.md"
        head, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        tail = rest.partition(END)[2]
        page.write_text(f"{head}{BEGIN}\n{table}\n{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
