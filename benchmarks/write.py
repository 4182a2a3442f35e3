"""How fast do models write documents? `python benchmarks/write.py` prints KB a second of one core.

The zoo's three specialists write equal shares, as in a run with generate_bytes, in one thread.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
SOURCES = ("zoo:neox-reason", "zoo:gpt2-story", "zoo:mpt-code")


def main() -> None:
    """Write, and count."""
    parser = argparse.ArgumentParser(description="How fast do models write documents?")
    parser.add_argument("--bytes", type=int, default=360_000)
    given = parser.parse_args()
    import torch

    from fusion_core import generation, models

    torch.set_num_threads(1)
    writers = [models.load(name) for name in SOURCES]
    total = seconds = 0.0
    for writer in writers:
        began = time.process_time()
        texts = generation.write_documents([writer], given.bytes // len(writers), seed=1)
        spent, size = time.process_time() - began, sum(len(t.encode()) for t in texts)
        print(f"{writer.name}: {size:,} bytes, {spent:.1f} s, {size / spent / 1000:.1f} KB/s")
        total, seconds = total + size, seconds + spent
    print(f"all: {total / seconds / 1000:.1f} KB a second of one core")


if __name__ == "__main__":
    main()
