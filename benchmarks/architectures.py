"""Every causal architecture of `transformers`, from its rows to the trained, exported model.

    python benchmarks/architectures.py [MODEL_TYPE …]

writes ``benchmarks/results/architectures.md``. A tiny random model of each is held against the
library's own logits, trained three steps, stopped after the second and resumed, exported and loaded
again; see ``tests/architecture_checks.py``. About ten minutes on two cores.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import transformers
from architecture_checks import EVERY, Checked, check

RESULT = ROOT / "benchmarks" / "results" / "architectures.md"


def main(kinds: list[str]) -> int:
    """Check architectures, all by default, and write the table."""
    began, checked, failed = time.time(), {}, {}
    for kind in kinds or EVERY:
        with tempfile.TemporaryDirectory() as folder:
            try:
                checked[kind] = check(kind, Path(folder))
            except Exception as error:  # told in the table, and by the exit status
                failed[kind] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        print(kind, checked.get(kind, failed.get(kind)), flush=True)
    if not kinds:
        RESULT.write_text(table(checked, failed, time.time() - began), encoding="utf-8")
    return int(bool(failed))


def table(checked: dict[str, Checked], failed: dict[str, str], seconds: float) -> str:
    """Write the table."""
    good = {k: c for k, c in checked.items() if c.trained}
    lines = [
        "# Architectures",
        f"`python benchmarks/architectures.py`: {len(checked) + len(failed)} causal architectures "
        f"of transformers {transformers.__version__}, tiny random models, {seconds / 60:.0f} "
        "minutes on two cores.",
        f"**{len(good)}** give the library's rows (largest difference of a probability: of a text "
        "alone, in a padded batch, from the cache) and train; a run that is stopped and resumed "
        "equals the straight one in losses and weights, and the exported folder, loaded anew, the "
        "trained network, bit for bit.",
        "| architecture | parameters | alone | batch | cache | losses of three steps |\n"
        "| --- | ---: | ---: | ---: | ---: | --- |\n"
        + "\n".join(
            f"| {kind} | {c.parameters:,} | {c.alone:.0e} | {c.batch:.0e} | {c.cache:.0e} | "
            f"{', '.join(f'{x:.2f}' for x in c.trained)} |"
            for kind, c in good.items()
        ),
        "## Refused, with a sentence",
        _listed({k: c.refused for k, c in checked.items() if c.refused}),
        "## Failed",
        _listed(failed),
        "## Not tried",
        "Their tiny configurations need sizes of their own, or a library that is not there.",
        _listed({k: c.unmade for k, c in checked.items() if c.unmade}),
    ]
    return "\n\n".join(lines) + "\n"


def _listed(reasons: dict[str, str]) -> str:
    return "\n".join(f"- {kind}: {why}" for kind, why in reasons.items()) or "None."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
