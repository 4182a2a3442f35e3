"""Records -> what the command line prints: JSON objects and readable tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from .records import Alignment, Analysis, Encoding, SparseRows, leaks
from .text_display import visible

Report = dict[str, Any]


def align_report(target: Encoding, sources: list[tuple[Encoding, Alignment]]) -> Report:
    """Turn an alignment into the object that `align --json` prints."""
    return {
        "bytes": len(target.data),
        "target": _encoding(target),
        "sources": [_alignment(e, a) for e, a in sources],
    }


def _alignment(encoding: Encoding, alignment: Alignment) -> Report:
    report = {
        "model": encoding.model,
        "encoding": _encoding(encoding),
        "groups": alignment.groups.tolist(),
        "boundary": alignment.boundary.tolist(),
        "coverage": alignment.coverage,
        "coverage_with_prefix": alignment.coverage_with_prefix,
    }
    if alignment.target_to_source is not None:
        report["target_to_source"] = [list(pairs) for pairs in alignment.target_to_source]
        report["cost"] = alignment.cost
    return report


def _encoding(encoding: Encoding) -> Report:
    return {
        "model": encoding.model,
        "tokens": [
            {"id": int(i), "text": piece, "start": int(s), "end": int(e), "special": bool(x)}
            for i, piece, s, e, x in zip(
                encoding.ids,
                encoding.pieces,
                encoding.start,
                encoding.end,
                encoding.special,
                strict=True,
            )
        ],
        "lossless": encoding.lossless,
        "lost": [list(r) for r in encoding.lost],
        "lost_text": [encoding.data[s:e].decode("utf-8", "replace") for s, e in encoding.lost],
    }


SHOWN_RANGES, SHOWN_CHARACTERS = 5, 20
"""Lost stretches of a text that a table shows, and how much of each."""


def align_table(report: Report) -> str:
    """Show what each tokenizer loses of the text, and the groups of every source."""
    lines = [
        line
        for encoding in (report["target"], *(s["encoding"] for s in report["sources"]))
        for line in _losses(encoding)
    ]
    target = report["target"]["tokens"]
    for source in report["sources"]:
        own = source["encoding"]["tokens"]
        lines.append(
            f"{report['target']['model']} <- {source['model']}: {source['coverage']:.1%} of rows "
            f"at shared boundaries, {source['coverage_with_prefix']:.1%} with rows inside tokens"
        )
        for t0, t1, s0, s1 in source["groups"]:
            left = " ".join(repr(t["text"]) for t in target[t0:t1])
            right = " ".join(repr(t["text"]) for t in own[s0:s1])
            lines.append(f"  {t1 - t0}:{s1 - s0}  {left}  <-  {right}")
    return "\n".join(lines)


def _losses(encoding: Report) -> list[str]:
    """Say which bytes of the text an encoding does not reproduce."""
    if encoding["lossless"]:
        return []
    lost, name = encoding["lost"], encoding["model"]
    if not lost:
        return [f"{name}: no byte of the text is lost, but tokens spell characters that it has not"]
    shown = [
        f"{text[:SHOWN_CHARACTERS]!r}{'...' if len(text) > SHOWN_CHARACTERS else ''} at {start}"
        for (start, _), text in zip(lost, encoding["lost_text"], strict=True)
    ]
    shown[SHOWN_RANGES:] = ["..."] * (len(lost) > SHOWN_RANGES)
    n_bytes = sum(end - start for start, end in lost)
    return [f"{name}: bytes of the text that are lost: {n_bytes:,} ({', '.join(shown)})"]


Piece = Callable[[int], str]
"""Readable text of a token id."""


def fused_report(
    analysis: Analysis, piece: Piece, source_pieces: Sequence[Piece] | None = None
) -> Report:
    """Turn an analysis into the object that `fuse --json` prints.

    Args:
        analysis: of a text.
        piece: names the target's tokens.
        source_pieces: names each source's tokens; given, every fused token says where it is from.
    """
    fused, rows = analysis.fused, analysis.fused.rows
    positions = []
    for i, index in enumerate(analysis.target.text_tokens.tolist()):
        winner = int(fused.winner[i])
        positions.append(
            {
                "index": index,
                "start": int(analysis.target.start[index]),
                "fused": [
                    {"id": int(v), "text": piece(int(v)), "p": float(p)}
                    | ({"from": _named(analysis, i, r, source_pieces)} if source_pieces else {})
                    for r, (v, p) in enumerate(zip(rows.ids[i], rows.probs[i], strict=True))
                    if v >= 0
                ],
                "tail": float(rows.tail[i]),
                "winner": fused.sources[winner] if winner >= 0 else None,
                "weights": dict(zip(fused.sources, fused.weights[i].tolist(), strict=True)),
                "kept_mass": {s.encoding.model: float(s.kept[i]) for s in analysis.sources},
                "entropy": float(fused.entropy[i]),
            }
        )
    return {
        "target": _encoding(analysis.target),
        "positions": positions,
        "bits_per_byte": {
            analysis.target.model: analysis.target_bits_per_byte,
            **{s.encoding.model: s.bits_per_byte for s in analysis.sources},
        },
        "fused_bits_per_byte": analysis.fused_bits_per_byte,
        "rows": analysis.details["rows"],
        "knows_token": analysis.details["sees_token"],
    }


def _named(analysis: Analysis, i: int, r: int, pieces: Sequence[Piece]) -> Report:
    """Say what each source gave to the r-th fused token of row i."""
    found = analysis.attribution
    out: Report = {}
    for j, source in enumerate(analysis.fused.sources):
        named = zip(found.token[i, r, j].tolist(), found.mass[i, r, j].tolist(), strict=True)
        out[source] = {
            "tokens": [{"id": t, "text": pieces[j](t), "p": p} for t, p in named if t >= 0],
            "other_tokens": float(found.other[i, r, j]),
            "target": float(found.target[i, r, j]),
        }
    return out


def fuse_table(report: Report) -> str:
    """Show the top of every fused row, and bits per byte."""
    tokens = report["target"]["tokens"]
    lines = ["token            fused row                                     winner"]
    for position in report["positions"]:
        top = "  ".join(f"{t['text']!r} {t['p']:.2f}" for t in position["fused"][:4])
        token = repr(tokens[position["index"]]["text"])
        lines.append(f"{token:<16} {top:<45} {position['winner'] or '-'}")
    lines.append("")
    lines += [f"{b:.3f} bits per byte  {m}" for m, b in report["bits_per_byte"].items()]
    fused = f"{report['fused_bits_per_byte']:.3f} bits per byte  fused"
    lines.append(", ".join([fused, *leaks(report["knows_token"], report["rows"])]))
    return "\n".join(lines)


def evaluate_table(report: Report) -> str:
    """Show bits per byte of every model, and its tasks."""
    lines = []
    for name, score in report["models"].items():
        lines.append(f"{score['bits_per_byte']:.4f} bits per byte over {score['bytes']:,}  {name}")
        ends = " or ".join(score["end"]) or "nothing"
        lines.append(
            f"  documents begin with {score['start'] or 'nothing'} ({score['how']}) and end with "
            f"{ends}"
        )
        if not score["lossless"]:
            lines.append(
                f"  its tokens leave out {score['lost_share']:.1%} of the text's bytes, which "
                "flatters it: not comparable with models that read every byte"
            )
        lines += [f"  {task:<24} {_task(s)}" for task, s in score["tasks"].items()]
    return "\n".join(lines)


def _task(score: Report) -> str:
    """Show bits per byte and accuracy of a task, as far as it has them, beside chance."""
    parts = []
    if "bits_per_byte" in score:
        parts.append(f"{score['bits_per_byte']:.4f} bits per byte")
    if "accuracy" in score:
        near = "" if score["above_chance"] else ": no better than chance"
        parts.append(
            f"{score['accuracy']:.0%} ± {score['stderr']:.0%} of {score['questions']} "
            f"({score['how']}; chance {score['chance']:.0%}){near}"
        )
    return ", ".join(parts)


def transfer_table(report: Report) -> str:
    """Show the transfer of every strategy: at shared positions, inside tokens, at all of them."""
    names = ("positions", "kept_mass", "transfer_ce", "target_ce", "native_ce")
    head = "".join(f"{n.replace('_', ' '):>13}" for n in names)
    lines = [f"{'':<24}{'coverage':>10}{head}"]
    for strategy, score in report["strategies"].items():
        whole = score | {"positions": score["covered"]}
        parts = (strategy, whole), ("  inside tokens", score["inside"]), ("  all", score["all"])
        for label, part in parts:
            share = part["positions"] / score["positions"] if score["positions"] else 0.0
            cells = "".join(f"{_shown(part.get(n)):>13}" for n in names)
            lines.append(f"{label:<24}{share:>10.1%}{cells}")
    lines.append(
        f"{score['extra_positions']:.4f} rows on side paths for each source token; share of the "
        f"mass on spellings that the tokenizer never makes: {_shown(score['noncanonical'])}"
    )
    return "\n".join(lines)


def texts_table(report: Report) -> str:
    """Show the continuations of a prompt."""
    alone = {report.get("target_name", "target"): report["target"], **report["sources"]}
    texts = {**alone, "ensemble": report["ensemble"]}
    return "\n\n".join(f"{name}\n{text}" for name, text in texts.items())


def pairs_table(report: Report, indent: str = "") -> str:
    """Show an object as lines of names and values."""
    lines = []
    for name, value in report.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}", pairs_table(value, indent + "  ")]
        else:
            lines.append(f"{indent}{name:<18} {_shown(value)}")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "-" if value is None else str(value)


def finite(value: Any) -> Any:
    """Replace numbers that JSON has not (nan, infinity) by null."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


SHOWN_BARS = 6
"""Tokens of a row that a person is shown; the observed one besides, where it is not among them."""


def bars_report(
    rows: SparseRows,
    index: int,
    piece: Piece,
    observed: int | None,
    ce: float | None = None,
) -> Report:
    """Describe the top of one sparse row.

    Args:
        rows: sparse rows.
        index: which of them.
        piece: names the tokens of their vocabulary.
        observed: id of the token that followed, if any.
        ce: its cross-entropy in the full row, which tells its share where it is not in the top.

    Returns:
        ``bars`` (label, share of 1, whether it followed) and ``tail``, which sum to 1.
    """
    pairs = zip(rows.ids[index].tolist(), rows.probs[index].tolist(), strict=True)
    known = [(i, p) for i, p in pairs if i >= 0]
    bars = [[visible(piece(i)) or "∅", p, i == observed] for i, p in known[:SHOWN_BARS]]
    if observed is not None and not any(bar[2] for bar in bars):
        share = dict(known[SHOWN_BARS:]).get(observed)
        if share is None and ce is not None and math.isfinite(ce):
            share = math.exp(-ce)
        if share is not None:
            bars.append([visible(piece(observed)) or "∅", share, True])
    shown = sum(bar[1] for bar in bars)
    return {
        "bars": [[label, round(p, 5), seen] for label, p, seen in bars],
        "tail": round(max(0.0, 1.0 - shown), 5),
    }


def bits_report(analysis: Analysis) -> list[Report]:
    """List the bits per byte of every source, the target and, with their leaks, the fused rows."""
    found = [(s.encoding.model, f"source {i}", s.bits_per_byte)
             for i, s in enumerate(analysis.sources)]  # fmt: skip
    found += [
        (analysis.target.model, "target", analysis.target_bits_per_byte),
        ("fused", "fused", analysis.fused_bits_per_byte),
    ]
    report: list[Report] = [{"name": n, "role": r, "bits": rounded(b)} for n, r, b in found]
    report[-1]["leaks"] = list(analysis.leaks)
    return report


def rounded(value: float) -> float | None:
    """Return a number as a page shows it: five decimals, and nothing for nan and infinity."""
    value = float(value)
    return round(value, 5) if math.isfinite(value) else None
