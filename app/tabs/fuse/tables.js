// Tables of models, operators and mappings on one text.

import { add, button, figure, hue, make, makeTable, percent, shortName } from "../../components/dom.js";
import { saveButtons, tableRows } from "../../components/saves.js";
import { titled } from "./text.js";

/** @import { BoardRow, Choice, Fusion, Operator, Source, Strategy } from "./types" */

const NOTES = {
  models:
    "Bits per byte of each model alone, in its own tokens, and of the rows as they are fused now; " +
    "lower is better. Carried over: on the target's tokens, with the target's own row where " +
    "nothing arrives.",
  boundaries:
    " What is carried over knows the source's boundaries in the whole text, and a little of what follows.",
  operators:
    "The same text fused in every way. Those marked * were chosen knowing each token: what the target " +
    "would be taught, not what could be predicted.",
  mappings:
    "What each mapping keeps of a source on this very text: cross-entropy in nats per target token " +
    "where it says something, beside the target's own there. One that counts has counted this text " +
    "itself, which flatters it.",
};
const SMALLEST = 0.001; // share of wins that is drawn

/**
 * Draws the three tables.
 * @param {Fusion} fusion
 * @param {(choice: Choice) => void} choose
 */
export function drawTables(fusion, choose) {
  const { board, sources, operators, strategies, chosen, names } = fusion;
  const leak = chosen.rows === "boundary" ? NOTES.boundaries : "";
  const most = Math.max(...operators.map((o) => o.bits || 0), ...board.map((b) => b.bits || 0), 1e-9);
  return [
    drawTable(
      "Models",
      NOTES.models + leak,
      ["model", "bits per byte", "carried over", "coverage", "kept mass", "mean weight", "wins"],
      board.map((row, i) => modelRow(row, i, sources[i], most)),
    ),
    drawTable(
      "Operators",
      NOTES.operators + leak,
      ["operator", "level", "bits per byte", "winners", ""],
      operators.map((o) => {
        const now = o.operator === chosen.operator && o.level === chosen.level;
        const use = () => choose({ operator: o.operator, level: o.level });
        return [...operatorCells(o, names, most), useCell(now, o.operator, use)];
      }),
    ),
    drawTable(
      "Vocabulary mappings",
      NOTES.mappings + leak,
      ["source", "mapping", "coverage", "kept mass", "transfer CE", "target's CE", ""],
      strategies.map((s, i) => {
        const again = s.source === strategies[i - 1]?.source;
        const use = () => choose({ strategy: s.strategy });
        const now = s.strategy === chosen.strategy;
        return [...strategyCells(s, strategies, again), useCell(now, s.strategy, use)];
      }),
      "mappings",
    ),
  ];
}

/**
 * @param {string} title
 * @param {string} note
 * @param {string[]} heads
 * @param {(string | number | HTMLElement)[][]} rows
 * @param {string} [file] name of the file that it is saved as
 */
function drawTable(title, note, heads, rows, file = title.toLowerCase()) {
  const table = makeTable(heads, rows);
  const region = { tabindex: "0", role: "region", "aria-label": title };
  const box = add(make("div", "fl-table-box", null, region), table);
  const saves = saveButtons(file, { picture: () => box, rows: () => tableRows(table) });
  return add(make("article", "fl-card"), titled(title, note, saves), box);
}

/**
 * @param {BoardRow} row
 * @param {number} number
 * @param {Source | undefined} source
 * @param {number} most
 */
function modelRow({ name, role, bits, leaks }, number, source, most) {
  const colors = /** @type {Record<string, string>} */ ({
    fused: "var(--fl-fused)",
    target: "var(--fl-quiet)",
  });
  const title = shortName(name) + (role === "target" ? " (target)" : "");
  const cells = [title, barCell(bits, most, colors[role] ?? hue(number))];
  if (!source) return [...cells, make("td", "", leaks?.join(", ") ?? "", { colspan: "5" })];
  const { carried, coverage, kept, weight, wins } = source;
  const shares = [figure(carried, 3), percent(coverage) + " %", figure(kept, 3)];
  return [...cells, ...shares, figure(weight, 2), percent(wins) + " %"];
}

/**
 * @param {Operator} row
 * @param {string[]} names
 * @param {number} most
 */
function operatorCells({ operator, level, sees, bits, wins }, names, most) {
  const written = names.map((name, i) => name + " " + percent(wins[i]));
  const title = written.map((text) => text + " %").join(", ");
  const shares = make("td", "fl-shares", null, { title });
  wins.forEach((share, i) => {
    if (share <= SMALLEST) return;
    const part = make("i");
    part.style.width = 100 * share + "%";
    part.style.background = hue(i);
    shares.appendChild(part);
  });
  add(shares, make("em", "", written.join(", ")));
  return [operator + (sees ? " *" : ""), level || "–", barCell(bits, most, "var(--fl-fused)"), shares];
}

/**
 * @param {Strategy} row
 * @param {Strategy[]} rows
 * @param {boolean} again whether the row above is of the same source
 */
function strategyCells({ source, strategy, counts, coverage, kept, transfer, target }, rows, again) {
  const rivals = rows.filter((row) => row.source === source && !row.counts);
  const best = Math.min(...rivals.map((row) => row.transfer ?? Infinity));
  return [
    make("td", again ? "fl-again" : "", source),
    strategy + (counts ? " (counts)" : ""),
    percent(coverage) + " %",
    figure(kept, 3),
    make("td", !counts && transfer === best ? "fl-best-cell" : "", figure(transfer, 3)),
    figure(target, 3),
  ];
}

/**
 * @param {number | null} value
 * @param {number} most
 * @param {string} color
 */
function barCell(value, most, color) {
  const fill = make("i");
  fill.style.width = (100 * (value || 0)) / most + "%";
  fill.style.background = color;
  const groove = add(make("span", "fl-groove", null, { "aria-hidden": "true" }), fill);
  return add(make("td", "fl-bar-cell"), groove, make("span", "", figure(value, 3)));
}

/**
 * @param {boolean} chosen
 * @param {string} label
 * @param {() => void} use
 */
function useCell(chosen, label, use) {
  return add(make("td"), chosen ? make("b", "", "chosen") : button("use", "fuse by " + label, use));
}
