// The cards of one token: each source's row and what it became, the target's, the fused row.

import {
  add, dot, figure, find, hue, make, percent, shortName, winnerName,
} from "../../components/dom.js";

/** @import { BoardRow, Cards, Characters, Origin, Row, Source } from "./types" */

const FUSED = "var(--fl-fused)";
const TARGET = "var(--fl-quiet)";
const OPERATORS = /** @type {Record<string, string>} */ ({ min_ce: "MinCE", avg_ce: "AvgCE" });
const SMALLEST_SCALE = 0.05;

/**
 * @param {Row} row
 * @param {number} scale
 * @param {string} color
 * @param {string[]} [names] sources, where bars show what they gave
 */
function drawBars(row, scale, color, names) {
  const list = make("ul", "fl-bars");
  row.bars.forEach(([label, share, seen], i) => {
    const bar = drawBar(label, share, scale, color, seen ? "fl-seen" : "");
    if (names && row.from?.[i]) trace(bar, row.from[i], share, names);
    add(list, bar);
  });
  return add(list, drawRest("tail", row.tail, scale, "all other tokens together"));
}

/**
 * @param {string} label
 * @param {number} share
 * @param {number} scale
 * @param {string} title
 */
function drawRest(label, share, scale, title) {
  return drawBar(label, share, scale, null, "fl-rest", title);
}

/**
 * @param {string} label
 * @param {number} share
 * @param {number} scale
 * @param {string | null} color
 * @param {string} className
 * @param {string} [title]
 */
function drawBar(label, share, scale, color, className, title) {
  const item = make("li", className, null, title ? { title } : {});
  const name = make("span", "fl-label", label, { title: title || label, dir: "auto" });
  const groove = make("span", "fl-groove", null, { "aria-hidden": "true" });
  const fill = make("i", "");
  fill.style.width = Math.min(100, (100 * share) / scale) + "%";
  if (color) fill.style.background = color;
  groove.appendChild(fill);
  add(item, name, groove, make("span", "fl-number", percent(share)));
  if (className === "fl-seen") {
    name.appendChild(make("em", "", "the token that follows"));
    item.title = "the token that follows in the text";
  }
  return item;
}

/** @type {WeakMap<Element, { origins: Origin[], lines: string[], sources: number }>} */
const traced = new WeakMap();

/**
 * A fused bar shows under itself whose mass it is, and says it when it is pointed at or focused.
 * @param {HTMLElement} bar
 * @param {Origin[]} origins
 * @param {number} share
 * @param {string[]} names
 */
function trace(bar, origins, share, names) {
  /** @type {Map<number, number>} */
  const shares = new Map();
  for (const [source, , mass] of origins) shares.set(source, (shares.get(source) || 0) + mass);
  const strip = make("span", "fl-origin", null, { "aria-hidden": "true" });
  for (const [source, mass] of shares) {
    const part = make("i");
    part.style.width = (100 * mass) / Math.max(share, 1e-9) + "%";
    part.style.background = originHue(source, names.length);
    strip.appendChild(part);
  }
  find(bar, ".fl-groove i").appendChild(strip);
  bar.tabIndex = 0;
  bar.classList.add("fl-traced");
  const lines = origins.map((origin) => originLine(origin, names));
  traced.set(bar, { origins, lines, sources: names.length });
  bar.setAttribute("aria-label", bar.textContent + " percent, " + lines.join("; "));
}

/**
 * @param {number} source
 * @param {number} sources
 */
function originHue(source, sources) {
  return source < sources ? hue(source) : TARGET;
}

/**
 * @param {Origin} origin
 * @param {string[]} names
 */
function originLine([source, label, mass], names) {
  const name = names[source] ?? "the target's own row";
  const what = label ? "“" + label + "” of " + name : names[source] ? "other tokens of " + name : name;
  return percent(mass) + " from " + what;
}

/**
 * What the tip of a traced bar shows.
 * @param {Element} bar
 */
export function originTip(bar) {
  const { origins, lines, sources } = traced.get(bar) ?? { origins: [], lines: [], sources: 0 };
  const list = make("ul");
  origins.forEach(([source], i) => {
    add(list, add(make("li"), dot(originHue(source, sources)), make("span", "", lines[i])));
  });
  const label = find(bar, ".fl-label").firstChild?.textContent;
  const what = "percent of the fused row, and where it came from";
  return [make("b", "", label), make("span", "", what), list];
}

/**
 * @param {string} title
 * @param {string} color
 * @param {string} [note]
 */
function cardHead(title, color, note) {
  const line = add(make("h3"), dot(color), make("span", "", title));
  return add(make("header"), line, note ? make("p", "", note) : null);
}

/**
 * @param {string} title
 * @param {string} note
 * @param {HTMLElement} body
 */
function column(title, note, body) {
  return add(make("div", "fl-column"), make("h4", "", title), make("p", "fl-note", note), body);
}

/** @param {string} after */
function quoted(after) {
  return after ? "after “" + after + "”" : "at the start of the text";
}

/**
 * @param {Source} source
 * @param {number} number
 * @param {Cards} cards
 * @param {number} scale
 */
function sourceCard(source, number, cards, scale) {
  const card = make("article", "fl-card" + (source.winner ? " fl-wins" : ""));
  card.style.setProperty("--fl-hue", hue(number));
  const head = cardHead(shortName(source.name), hue(number));
  if (source.winner) add(find(head, "h3"), make("span", "fl-crown", "♛ teaches this token"));
  const columns = make("div", "fl-columns");
  if (source.own) {
    const bars = drawBars(source.own, scale, hue(number));
    add(columns, column("its own tokens", quoted(source.after), bars));
  } else {
    const none = source.kind === "none";
    const why = none ? "No row of its own here: the target's row stands in." : "No boundary near here.";
    const empty = make("p", "fl-empty", why);
    add(columns, column("its own tokens", none ? "nothing to carry over here" : "", empty));
  }
  const carried = drawBars(source.carried, scale, hue(number));
  const lost = source.kept === null ? 0 : 1 - source.kept;
  const title = "mass that no rule carried over; it was spread by the target's own row";
  add(carried, drawBar("lost", lost, scale, null, "fl-rest fl-gone", title));
  add(columns, column("→ " + shortName(cards.target.name), arrival(source, cards), carried));
  const foot = [
    "kept mass " + figure(source.kept, 2),
    "CE " + figure(source.ce, 2) + " nats",
    "weight " + figure(source.weight, 2),
  ];
  return add(card, head, columns, make("footer", "", foot.join(" · ")));
}

/**
 * How a source's row came to the target.
 * @param {Source} source
 * @param {Cards} cards
 */
function arrival({ inside, kind, after }, { fused }) {
  if (kind === "none") return "the target's own row";
  if (fused.details.rows === "exact") return "from every way to cut what was read";
  if (kind !== "inside") return "carried over, " + (after ? "same byte" : "same start");
  return inside ? "inside " + inside[0] + ", after “" + inside[1] + "”" : quoted(after);
}

/**
 * @param {Cards} cards
 * @param {number} scale
 * @param {string[]} names
 */
function fusedCard({ fused, target, sources, after }, scale, names) {
  const { operator = "fused", level, strategy = "–" } = fused.details;
  const how = (OPERATORS[operator] || operator) + (level ? ", " + level + " level" : "");
  const columns = make("div", "fl-columns");
  add(columns, column(how, "mapping: " + strategy, drawBars(fused.row, scale, FUSED, names)));
  const alone = drawBars(target.row, scale, TARGET);
  add(columns, column(shortName(target.name) + " itself", quoted(after), alone));
  const name = winnerName(fused.winner, sources.map((source) => shortName(source.name)));
  const foot = [
    fused.winner < 0 ? name : "winner: " + name + " ♛",
    "CE " + figure(fused.ce, 2),
    "entropy " + figure(fused.entropy, 2) + " nats",
    "target alone: CE " + figure(target.ce, 2),
  ];
  const card = make("article", "fl-card fl-fused");
  return add(card, cardHead("Fused", FUSED), columns, make("footer", "", foot.join(" · ")));
}

/**
 * Draws the bits per byte of the whole text, in the order of the lanes.
 * @param {BoardRow[]} board
 */
export function drawBoard(board) {
  const list = make("ul", "fl-bars fl-board");
  const most = Math.max(...board.map((row) => row.bits || 0), 1e-9);
  const best = Math.min(...board.map((row) => row.bits ?? Infinity));
  board.forEach((row, i) => {
    const className = row.bits === best ? "fl-best" : "";
    const item = drawBar(titleOf(row), (row.bits || 0) / most, 1, hueOf(row.role, i), className);
    find(item, ".fl-number").textContent = figure(row.bits, 2);
    item.title = row.leaks?.join(", ") ?? "";
    add(list, item);
  });
  return list;
}

/** @param {{ name: string, role: string }} reader */
function titleOf({ name, role }) {
  return shortName(name) + (role === "target" ? " (target)" : "");
}

/**
 * @param {string} role
 * @param {number} source
 */
function hueOf(role, source) {
  return role === "fused" ? FUSED : role === "target" ? TARGET : hue(source);
}

/**
 * Draws the cards of a position. All bars share one scale, so that cards can be compared at a glance.
 * @param {Cards} cards
 * @param {string[]} names of the sources
 */
export function drawCards(cards, names) {
  const rows = [cards.fused.row, cards.target.row];
  for (const source of cards.sources) rows.push(source.carried, ...(source.own ? [source.own] : []));
  const shares = rows.flatMap((row) => [row.tail, ...row.bars.map((bar) => bar[1])]);
  const scale = Math.max(SMALLEST_SCALE, ...shares);
  const grid = document.createDocumentFragment();
  cards.sources.forEach((source, i) => add(grid, sourceCard(source, i, cards, scale)));
  return add(grid, fusedCard(cards, scale, names));
}

/**
 * Draws a position as next characters: one card a reader, all with the same characters.
 * @param {Characters} answer
 */
export function drawCharacters({ readers, labels, after }) {
  const shares = readers.flatMap((r) => [...r.shares, r.other, r.end, r.unknown]);
  const scale = Math.max(SMALLEST_SCALE, ...shares);
  const grid = document.createDocumentFragment();
  const [target, ...others] = readers;
  [...others.slice(0, -1), target, ...others.slice(-1)].forEach((reader, i) => {
    const color = hueOf(reader.role, i);
    const list = make("ul", "fl-bars");
    labels.forEach(([label, seen], n) => {
      add(list, drawBar(label, reader.shares[n], scale, color, seen ? "fl-seen" : ""));
    });
    const unknown = "ways to cut the text that were left out, and what was cut off the rows";
    add(
      list,
      drawRest("others", reader.other, scale, "all other characters together"),
      drawRest("end", reader.end, scale, "the text ends here"),
      drawBar("unknown", reader.unknown, scale, null, "fl-rest fl-gone", unknown),
    );
    const card = make("article", "fl-card fl-characters");
    add(grid, add(card, cardHead(titleOf(reader), color, quoted(after)), list));
  });
  return grid;
}
