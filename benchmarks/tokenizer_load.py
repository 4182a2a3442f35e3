"""What reading a tokenizer as bytes costs beyond `AutoTokenizer`.

    python benchmarks/tokenizer_load.py

writes benchmarks/results/tokenizer_load.md: `AutoTokenizer.from_pretrained` of every tokenizer in
the folder of test data that FUSELAB_TESTDATA names and of every model in the folder that
FUSELAB_REAL names, then `TextTokenizer` on top of it, in turn; and what is found out later, where
it is asked for: the two keys by which maps of vocabularies are kept.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from transformers import AutoTokenizer

from fusion_core import tokens

OUT = ROOT / "benchmarks" / "results" / "tokenizer_load.md"
REPEATS, LARGE_REPEATS = 7, 5
LARGE = 100_000
"""Entries from which fewer repeats do."""
TARGET = 1.25


def main() -> None:
    """Measure, and write the table."""
    folders = [
        folder
        for name, within in (("FUSELAB_TESTDATA", "tokenizers"), ("FUSELAB_REAL", "."))
        if os.environ.get(name)
        for folder in sorted((Path(os.environ[name]) / within).iterdir())
        if (folder / "tokenizer_config.json").is_file()
    ]
    if not folders:
        sys.exit("Set FUSELAB_TESTDATA, FUSELAB_REAL or both: they name folders of tokenizers.")
    lines = []
    for folder in folders:
        print(folder.name, file=sys.stderr)
        lines.append(compared(folder))
    OUT.write_text(
        "\n".join(
            [
                "# What reading a tokenizer as bytes costs",
                "",
                "`FUSELAB_TESTDATA=… FUSELAB_REAL=… python benchmarks/tokenizer_load.py`; medians",
                f"of {REPEATS} loads in turn, {LARGE_REPEATS} from {LARGE:,} entries. The ratio",
                "is that of `AutoTokenizer` and `TextTokenizer` together to `AutoTokenizer` alone,",
                f"the median of the ratios turn by turn; it should be at most {TARGET} for",
                "vocabularies that take seconds. The keys are made when maps are first asked for.",
                "",
                "| tokenizer | entries | AutoTokenizer | TextTokenizer | ratio | keys |",
                "| --- | ---: | ---: | ---: | ---: | ---: |",
                *lines,
                "",
                f"While this was measured the machine had {os.getloadavg()[2]:.1f} running",
                f"processes or threads on {os.cpu_count()} cores, the measured ones included.",
                "",
            ]
        ),
        encoding="utf-8",
    )


def compared(folder: Path) -> str:
    """Time the loads of one tokenizer in turn, and return the table's line."""
    found: list[tuple[float, float, float]] = []
    size = 0
    while len(found) < 1 + (
        LARGE_REPEATS if size >= LARGE else REPEATS
    ):  # the first is thrown away
        clock = [time.perf_counter()]
        bare = AutoTokenizer.from_pretrained(folder)
        clock.append(time.perf_counter())
        ours = tokens.from_transformers(bare, folder.name)
        clock.append(time.perf_counter())
        assert len(ours.key) == len(ours.vocabulary_key)
        clock.append(time.perf_counter())
        found.append((clock[1] - clock[0], clock[2] - clock[1], clock[3] - clock[2]))
        size = ours.size
    load, read, keys = (statistics.median(column) for column in zip(*found[1:], strict=True))
    ratio = statistics.median((a + b) / a for a, b, _ in found[1:])
    return (
        f"| `{folder.name}` | {size:,} | {load * 1000:,.0f} ms | {read * 1000:,.0f} ms "
        f"| **{ratio:.2f}** | {keys * 1000:,.0f} ms |"
    )


if __name__ == "__main__":
    main()
