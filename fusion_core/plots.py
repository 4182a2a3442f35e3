"""Records -> Plotly figures, for notebooks and pages; plotly is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .errors import InputError
from .records import Analysis, Encoding, RowKind
from .reports import Piece, Report, bars_report, bits_report
from .text_display import short_name, visible

if TYPE_CHECKING:
    import plotly.graph_objects as go

SOURCE_COLORS = ("#5373f7", "#129a79", "#a24fd0", "#d1467f", "#0e8fb0", "#7d8b1f")
FUSED_COLOR, TARGET_COLOR, REST_COLOR = "#e1892a", "#5f6370", "#b3b5be"
_FONT = "ui-sans-serif, system-ui, -apple-system, Segoe UI, Roboto, sans-serif"


def source_color(index: int) -> str:
    """Return the colour of a source; colours repeat after six."""
    return SOURCE_COLORS[index % len(SOURCE_COLORS)]


def distribution_figure(
    analysis: Analysis, index: int, pieces: Mapping[str, Piece] | None = None
) -> go.Figure:
    """Draw what each source, carried over, the target and the fusion expect at one token.

    Args:
        analysis: the analysis.
        index: which text token of the target; row ``index`` predicts it.
        pieces: for each model's name, token id -> readable text (`tokenizer.piece`); without it
            only tokens that occur in the text have a name, others are shown by id.

    Returns:
        Bars in percent, one panel a row of the analysis; the observed token is framed.

    Raises:
        InputError: there is no such token.
    """
    from plotly.subplots import make_subplots

    panels = _panels(analysis, index, pieces or known_pieces(analysis))
    columns = min(4, len(panels))
    lines = -(-len(panels) // columns)
    titles = [_plain(title) for title, _, _ in panels]
    figure = make_subplots(lines, columns, subplot_titles=titles, horizontal_spacing=0.09)
    for at, (title, row, color) in enumerate(panels):
        place = {"row": at // columns + 1, "col": at % columns + 1}
        figure.add_trace(_bars(title, row, color), **place)
        labels = [_plain(bar[0]) for bar in row["bars"]] + ["tail"]
        ticks = {"tickvals": list(range(len(labels))), "ticktext": labels}
        figure.update_yaxes(autorange="reversed", **ticks, **place)
    figure.update_xaxes(range=[0, 100], ticksuffix=" %")
    token = visible(analysis.target.pieces[analysis.target.text_tokens[index]]) or "∅"
    _style(figure, f"Before “{_plain(token)}”, token {index + 1}", 230 * lines + 60)
    return figure


def _panels(
    analysis: Analysis, index: int, pieces: Mapping[str, Piece]
) -> list[tuple[str, Report, str]]:
    """Return the title, the row and the colour of each panel."""
    encoding, spell = analysis.target, pieces[analysis.target.model]
    tokens, target = encoding.text_tokens, short_name(encoding.model)
    if not 0 <= index < len(tokens):
        raise InputError(f"The text has {len(tokens)} target tokens, so there is no token {index}.")
    observed = int(encoding.ids[tokens[index]])
    panels = []
    for i, source in enumerate(analysis.sources):
        reads, at, color = source.encoding, int(source.alignment.row[index]), source_color(i)
        name, ids = short_name(reads.model), reads.ids[reads.text_tokens].tolist()
        if at >= 0 and source.kind[index] != RowKind.NONE:
            follows = ids[at] if at < len(ids) else None
            native = bars_report(source.native, at, pieces[reads.model], follows)
            panels.append((f"{name}: own tokens", native, color))
        projected = bars_report(source.projected, index, spell, observed, float(source.ce[index]))
        panels.append((f"{name} → {target}", projected, color))
    alone = bars_report(analysis.native, index, spell, observed, float(analysis.target_ce[index]))
    panels.append((f"{target} itself", alone, TARGET_COLOR))
    fused_ce = -float(analysis.fused.observed_logprob[index])
    fused = bars_report(analysis.fused.rows, index, spell, observed, fused_ce)
    return [*panels, ("fused", fused, FUSED_COLOR)]


def known_pieces(analysis: Analysis) -> dict[str, Piece]:
    """Return the names of the tokens that occur in the text, for analyses without tokenizers."""

    def namer(encoding: Encoding) -> Piece:
        names = dict(zip(encoding.ids.tolist(), encoding.pieces, strict=True))
        return lambda token: names.get(token, f"#{token}")

    encodings = [analysis.target, *(s.encoding for s in analysis.sources)]
    return {e.model: namer(e) for e in encodings}


def bits_per_byte_figure(analysis: Analysis) -> go.Figure:
    """Draw the bits per byte of every source, the target and the fused rows; lower is better."""
    import plotly.graph_objects as go

    rows = bits_report(analysis)
    colors = [source_color(i) for i in range(len(analysis.sources))] + [TARGET_COLOR, FUSED_COLOR]
    names = [short_name(r["name"]) + (" (target)" if r["role"] == "target" else "") for r in rows]
    names[-1] = "<br>".join([names[-1], *analysis.leaks])
    bits = [r["bits"] for r in rows]
    figure = go.Figure(
        go.Bar(
            x=bits,
            y=list(range(len(rows))),
            orientation="h",
            marker_color=colors,
            text=["–" if b is None else f"{b:.2f}" for b in bits],
            customdata=names,
            hovertemplate="%{x:.3f} bits per byte<extra></extra>",
        )
    )
    ticks = {"tickvals": list(range(len(rows))), "ticktext": [_plain(n) for n in names]}
    figure.update_yaxes(autorange="reversed", **ticks)
    figure.update_xaxes(title="bits per byte", rangemode="tozero")
    _style(figure, "Bits per byte on this text", 90 + 36 * len(rows))
    return figure


def winner_figure(analysis: Analysis) -> go.Figure:
    """Draw which source teaches each target token, with the carried-over cross-entropies."""
    import plotly.graph_objects as go

    tokens = analysis.target.text_tokens
    labels = [visible(analysis.target.pieces[t]) for t in tokens]
    winners = analysis.fused.winner.tolist()
    names = [short_name(s.encoding.model) for s in analysis.sources]
    figure = go.Figure()
    for i, source in enumerate(analysis.sources):
        figure.add_trace(
            go.Scatter(
                x=list(range(len(tokens))),
                y=source.ce.tolist(),
                mode="lines+markers",
                name=_plain(names[i]),
                line={"color": source_color(i), "width": 1},
                marker={"size": [9 if w == i else 3 for w in winners]},
                customdata=[_plain(label) for label in labels],
                hovertemplate="%{customdata}: %{y:.2f} nats",
            )
        )
    figure.update_xaxes(title="target token (large marks: the source that teaches it)")
    figure.update_yaxes(title="cross-entropy, nats", rangemode="tozero")
    _style(figure, "Who teaches each target token", 360)
    figure.update_layout(showlegend=True, legend={"orientation": "h", "y": 1.12})
    return figure


def _bars(title: str, row: dict[str, Any], color: str) -> go.Bar:
    import plotly.graph_objects as go

    shares = [100 * bar[1] for bar in row["bars"]] + [100 * row["tail"]]
    seen = [bool(bar[2]) for bar in row["bars"]] + [False]
    return go.Bar(
        x=shares,
        y=list(range(len(shares))),
        orientation="h",
        name=_plain(title),
        marker={
            "color": [color] * len(row["bars"]) + [REST_COLOR],
            "line": {"color": "#1c1e26", "width": [2 if s else 0 for s in seen]},
        },
        text=[f"{share:.1f}" for share in shares],
        hovertemplate="%{x:.2f} %<extra></extra>",
    )


def _plain(text: str) -> str:
    """Keep Plotly, which draws a little HTML, from reading a token as markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _style(figure: go.Figure, title: str, height: int) -> None:
    figure.update_layout(
        title={"text": title, "font": {"size": 15}},
        height=height,
        showlegend=False,
        font={"family": _FONT, "size": 12},
        margin={"l": 90, "r": 24, "t": 70, "b": 40},
        plot_bgcolor="rgba(0,0,0,0)",
        paper_bgcolor="rgba(0,0,0,0)",
        bargap=0.3,
    )
    figure.update_annotations(font_size=12)


def comparison_figure(result: Report) -> go.Figure:
    """Draw the bits per byte of every method of a comparison, with the verdict on each.

    Args:
        result: what `comparison.compare` returns.
    """
    import plotly.graph_objects as go

    methods = dict(sorted(result["methods"].items(), key=lambda m: -m[1]["mean"]))
    judged = {c.partition(" against ")[2]: w for c, w in result["verdicts"].items()}
    colors = [FUSED_COLOR if n.startswith("fused") else TARGET_COLOR for n in methods]
    labels = [f"{m['mean']:.3f}" for m in methods.values()]
    for at, name in enumerate(methods):
        if name in judged and name != "fused":
            labels[at] += f", fused: {judged[name]}"
    figure = go.Figure(
        go.Bar(
            x=[m["mean"] for m in methods.values()],
            y=[_plain(n) for n in methods],
            orientation="h",
            marker_color=colors,
            error_x={"array": [m["spread"] / 2 for m in methods.values()]},
            text=labels,
            hovertemplate="%{x:.3f} bits per byte<extra></extra>",
        )
    )
    figure.update_xaxes(title="bits per byte, lower is better", rangemode="tozero")
    _style(figure, f"{_plain(result['target'])}: what fusing adds", 90 + 34 * len(methods))
    return figure
