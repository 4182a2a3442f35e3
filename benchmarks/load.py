"""Visitors who read different texts at the same time: `python benchmarks/load.py`.

Starts the app in a process of its own; each visitor reads a text, looks at three of its tokens with
pauses of up to two seconds, and goes on to the next. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import load


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visitors", type=int, nargs="+", default=[5, 20])
    parser.add_argument("--seconds", type=float, default=120)
    options = parser.parse_args()
    print("| visitors | analyses | median | 95 % | clicks | median | 95 % | errors | memory |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
    for visitors in options.visitors:
        with load.app() as (address, process, _):
            load.crowd(address, 2, 5, pause=0.1)
            before = load.settled(process)
            waits = load.crowd(address, visitors, options.seconds)
            after = load.settled(process)
        cells = [str(visitors)]
        for times in (waits.analyses, waits.clicks):
            cells += [str(len(times)), *(f"{waits.share(times, q):.2f} s" for q in (0.5, 0.95))]
        memory = f"{before / 1e6:.0f} → {after / 1e6:.0f} MB"
        print(f"| {' | '.join([*cells, str(len(waits.errors)), memory])} |", flush=True)
        if waits.errors:
            sys.exit("\n".join(waits.errors[:5]))


if __name__ == "__main__":
    main()
