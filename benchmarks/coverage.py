"""At how many positions can a source teach a target? By three rules, on five kinds of text.

    FUSELAB_TESTDATA=… python benchmarks/coverage.py

writes benchmarks/results/coverage.md. The published rule uses a position where its dynamic time
warping pairs exactly one source token with the target's, and the two are equal or mapped onto each
other by minimum edit distance. No model is needed: kept mass is estimated with the text's own next
tokens in place of a source's distribution.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fusion_core import mapping, tokens
from fusion_core.align import by_bytes_batch, by_dtw
from fusion_core.records import RowKind, VocabMap
from fusion_core.tokens import TextTokenizer

OUT = ROOT / "benchmarks" / "results" / "coverage.md"
TARGET = "llama-2-7b-fast"
SOURCES = {
    "gpt-neox-20b_mpt": "NeoX/MPT",
    "open_llama_3b-fast": "OpenLLaMA",
    "gpt2": "GPT-2",
    "qwen1.5": "Qwen-1.5",
}
MAPS = ("exact", "retokenise", "prefix")
PIECE = 3000
"""Most bytes of a stretch of text; each text is cut at line ends."""
LONGEST = 60_000
"""Most bytes taken of a text."""


def main() -> None:
    """Measure, and write the table."""
    folder = Path(os.environ["FUSELAB_TESTDATA"])
    loaded = {n: tokens.load(folder / "tokenizers" / n, n) for n in (TARGET, *SOURCES)}
    read = {name: list(cut(text)) for name, text in texts(folder / "data").items()}
    rows = []
    for source, shown in SOURCES.items():
        print(shown, file=sys.stderr)
        mined = mapping.matrix("mined", loaded[source], loaded[TARGET])[0]
        maps = {s: mapping.matrix(s, loaded[source], loaded[TARGET])[0] for s in MAPS}
        for name, parts in read.items():
            figures = shares(loaded[TARGET], loaded[source], parts, mined, maps)
            rows.append((shown, name, *(f"{x:.1%}" for x in figures)))
    head = ("source", "text", "published rule", "shared", "with inside rows", *MAPS)
    lines = [head, ("---", "---", *["---:"] * (len(head) - 2)), *rows]
    OUT.write_text(
        "\n".join(
            [
                "# Coverage: Llama-2 as the target",
                "",
                "`FUSELAB_TESTDATA=… python benchmarks/coverage.py`. Shares of the target's",
                "positions that a source can teach: by the published rule (one source token is",
                "warped onto the target's, and the two match), at byte boundaries that both share,",
                "and with the rows inside source tokens. The last three columns estimate the mass",
                "that a mapping keeps at the shared boundaries: the share of the source's next",
                "tokens, as they stand in the text, that the map carries to some target token.",
                "",
                *(f"| {' | '.join(line)} |" for line in lines),
                "",
                "English: UDHR and WikiText-2; code: HumanEval, prompts with their solutions;",
                "Japanese and Hindi: UDHR; numbers: the worked solutions of GSM8K.",
            ]
        )
        + "\n",
        encoding="utf-8",
    )
    print(OUT.read_text(encoding="utf-8"))


def texts(data: Path) -> dict[str, str]:
    """Read the texts, each up to LONGEST bytes."""

    def plain(*parts: str) -> str:
        return data.joinpath(*parts).read_text(encoding="utf-8")

    def lines(*parts: str) -> list[dict[str, str]]:
        return [json.loads(line) for line in plain(*parts).splitlines() if line]

    code = (t["prompt"] + t["canonical_solution"] for t in lines("humaneval", "HumanEval.jsonl"))
    found = {
        "English": plain("udhr", "udhr_eng.txt") + plain("wikitext-2", "valid.txt"),
        "code": "\n\n".join(code),
        "Japanese": plain("udhr", "udhr_jpn.txt"),
        "Hindi": plain("udhr", "udhr_hin.txt"),
        "numbers": "\n".join(t["answer"] for t in lines("gsm8k", "test.jsonl")),
    }
    return {name: text.encode()[:LONGEST].decode("utf-8", "ignore") for name, text in found.items()}


def cut(text: str) -> Iterator[str]:
    """Cut a text into stretches of at most PIECE bytes, at line ends where there are any."""
    part = ""
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        if part and len((part + line).encode()) > PIECE:
            yield part
            part = ""
        part += line
    if part:
        yield part


def shares(
    target: TextTokenizer,
    source: TextTokenizer,
    parts: Sequence[str],
    mined: VocabMap,
    maps: dict[str, VocabMap],
) -> tuple[float, ...]:
    """Return the shares of positions, and of the source's next tokens that each map carries."""
    goes = np.full(mined.shape[0], -1, np.int64)
    goes[mined.source_ids] = mined.indices
    counts = dict.fromkeys(("positions", "published", "shared", "usable"), 0)
    nexts: list[np.ndarray] = []
    read, others = target.encode_batch(parts), source.encode_batch(parts)
    for t, s, aligned in zip(read, others, by_bytes_batch(read, others), strict=True):
        counts["positions"] += len(aligned.row)
        counts["shared"] += int(aligned.at_boundary.sum())
        counts["usable"] += int((aligned.at_boundary | (aligned.kind != RowKind.NONE)).sum())
        own = s.ids[s.text_tokens]
        rows = aligned.row[(aligned.kind == RowKind.SHARED) & (aligned.row < len(own))]
        nexts.append(own[rows])
        for i, paired in enumerate(by_dtw(t, s).target_to_source or ()):
            alone = len(paired) == 1 and not t.special[i]
            counts["published"] += alone and goes[s.ids[paired[0]]] == t.ids[i]
    seen = np.concatenate(nexts)
    kept = (float((np.diff(m.indptr) > 0)[seen].mean()) for m in maps.values())
    total = counts.pop("positions")
    return *(n / total for n in counts.values()), *kept


if __name__ == "__main__":
    main()
