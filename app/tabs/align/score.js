// Layout of the score: systems that wrap like music, lanes of tokens over their characters.

import { add, hue, make } from "../../components/dom.js";

/** @import { Lane, Score, Stretch, System, Token } from "./types" */

export const CELL = 12;
/** @type {Record<number, string>} */
export const KINDS = {
  [-1]: "put in by the tokenizer",
  0: "in no group",
  1: "same bytes as one target token",
  2: "one source token for several target tokens",
  3: "several source tokens for one target token",
  4: "overlaps: several for several",
};
const TICK = 10; // pixels below which a token has no label
const NARROW = 7.9; // pixels of a letter
const DOUBLE = 14; // pixels of a wide one

/**
 * Cuts the axis into systems of at most `room` cells: at a line end where the system is well
 * filled, else where all models have a boundary, else between characters.
 * @param {Score} score
 * @param {number} room
 */
export function cutSystems(score, room) {
  /** @type {number[]} */
  const edges = [];
  const total = score.axis.reduce((at, cell) => (edges.push(at + cell[1]), at + cell[1]), 0);
  /** @type {Stretch[]} */
  const systems = [];
  let from = 0;
  /** @type {(list: number[], low: number, high: number) => number | undefined} */
  const lastIn = (list, low, high) => list.filter((x) => x > low && x <= high).pop();
  while (total - from > room) {
    const limit = from + room;
    const to =
      lastIn(score.breaks, from + room * 0.4, limit) ||
      lastIn(score.bars, from + room * 0.5, limit) ||
      lastIn(edges, from, limit) ||
      limit;
    systems.push({ from, to, number: systems.length, last: false });
    from = to;
  }
  systems.push({ from, to: total, number: systems.length, last: true });
  return systems;
}

const WIDE = /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60]|\p{Extended_Pictographic}/u;
const JOINED = /\p{M}|\u200d|\p{Emoji_Modifier}/u;

/** @param {string} label */
function textWidth(label) {
  let width = 0;
  for (const c of label) {
    if (c <= "\u00ff") width += NARROW;
    else if (!JOINED.test(c)) width += WIDE.test(c) ? DOUBLE : NARROW;
  }
  return width;
}

/**
 * Draws one system.
 * @param {Score} score
 * @param {Stretch} stretch
 * @param {number} label pixels of the names before the lanes
 * @returns {System}
 */
export function drawSystem(score, stretch, label) {
  const { from, to, number } = stretch;
  const title = "line " + (number + 1);
  const node = make("div", "fl-system", null, { role: "rowgroup", "aria-label": title });
  const staff = make("div", "fl-staff", null, { "aria-hidden": "true" });
  for (const at of score.bars) {
    if (at <= from || at > to) continue;
    const bar = make("i", "fl-bar");
    bar.style.left = (at - from) * CELL - 0.5 + "px";
    add(staff, bar);
  }
  const band = make("i", "fl-band");
  add(staff, band);
  staff.style.left = label + "px";
  add(node, staff, drawAxis(score, stretch));
  score.lanes.forEach((lane, at) => add(node, drawLane(score, lane, at, stretch)));
  return { ...stretch, node, band };
}

/**
 * @param {Score} score
 * @param {Stretch} stretch
 */
function drawAxis(score, { from, to }) {
  const axis = make("div", "fl-axis", null, { "aria-hidden": "true" });
  let at = 0;
  for (const [sign, width] of score.axis) {
    if (at >= from && at < to && sign) {
      const cell = make("span", "", sign);
      cell.style.left = (at - from) * CELL + "px";
      cell.style.width = width * CELL + "px";
      axis.appendChild(cell);
    }
    at += width;
    if (at >= to) break;
  }
  return axis;
}

/**
 * @param {Score} score
 * @param {Lane} lane
 * @param {number} at
 * @param {Stretch} stretch
 */
function drawLane(score, lane, at, stretch) {
  const isTarget = at === score.lanes.length - 1;
  const row = make("div", "fl-lane" + (isTarget ? " fl-target" : ""), null, {
    role: "row",
    "aria-label": lane.name + (isTarget ? ", target" : ", source"),
  });
  const name = make("div", "fl-name", null, { role: "rowheader", title: lane.name });
  if (!isTarget) name.style.setProperty("--fl-hue", hue(at));
  const count = stretch.number ? "" : lane.count + " tokens";
  add(name, make("b", "", lane.short), make("small", "", count));
  const track = make("div", "fl-track");
  track.style.width = (stretch.to - stretch.from) * CELL + "px";
  if (stretch.number === 0 && score.page === 0) {
    add(track, make("i", "fl-start", null, { "data-start": at }));
  }
  for (const [from, to] of lane.lost) {
    if (to <= stretch.from || from >= stretch.to) continue;
    const title = "bytes that this tokenizer does not reproduce";
    const mark = make("i", "fl-lost", null, { title });
    place(mark, from, to, stretch);
    add(track, mark);
  }
  lane.tokens.forEach((token, i) => {
    if (isWithin(token, stretch)) add(track, drawToken(score, token, at, i, stretch));
  });
  return add(row, name, track);
}

/**
 * @param {Token} token
 * @param {Stretch} stretch
 */
function isWithin([from, to], stretch) {
  if (from !== to) return to > stretch.from && from < stretch.to;
  const begins = from > stretch.from || (stretch.number === 0 && from === 0);
  return (begins && from <= stretch.to) || (stretch.last && from === stretch.to);
}

/**
 * Puts a node over its cells, as far as they are in a system; returns its width in pixels.
 * @param {HTMLElement} node
 * @param {number} from
 * @param {number} to
 * @param {Stretch} stretch
 */
export function place(node, from, to, stretch) {
  const left = Math.max(from, stretch.from);
  const width = (Math.min(to, stretch.to) - left) * CELL;
  node.style.left = (left - stretch.from) * CELL + "px";
  node.style.width = width + "px";
  return width;
}

/**
 * @param {Score} score
 * @param {Token} token
 * @param {number} lane
 * @param {number} i
 * @param {Stretch} stretch
 */
function drawToken(score, token, lane, i, stretch) {
  const [from, to, start, end, id, kind, label, link] = token;
  const isTarget = lane === score.lanes.length - 1;
  const named = (label || "part of a character") + ", bytes " + start + " to " + end + ", id " + id;
  const cell = make("span", "fl-token", null, {
    role: "gridcell",
    tabindex: "-1",
    "data-lane": lane,
    "data-token": i,
    "aria-label": named,
  });
  if (link >= 0) cell.dataset.link = String(link);
  if (from === to) {
    cell.classList.add("fl-flat");
    cell.style.left = (from - stretch.from) * CELL - 2 + "px";
  } else {
    fillToken(cell, token, stretch);
  }
  if (isTarget && link >= 0) {
    cell.setAttribute("aria-selected", "false");
    if (score.kinds[link] & 1) cell.classList.add("fl-inside");
  } else if (!isTarget && kind > 0) {
    cell.classList.add("fl-k" + kind);
  }
  return cell;
}

/**
 * @param {HTMLElement} cell
 * @param {Token} token
 * @param {Stretch} stretch
 */
function fillToken(cell, [from, to, , , , , label], stretch) {
  const width = place(cell, from, to, stretch);
  const opened = from < stretch.from;
  cell.classList.toggle("fl-opened", opened);
  cell.classList.toggle("fl-cut", to > stretch.to);
  cell.classList.toggle("fl-tick", width < TICK);
  if (!label || width < TICK || (opened && label.length <= 2)) return;
  cell.textContent = textWidth(label) <= width + 1 || opened ? label : shorten(label, width);
}

/**
 * @param {string} label
 * @param {number} width
 */
function shorten(label, width) {
  let short = "";
  for (const c of label) {
    if (textWidth(short + c) > width) break;
    short += c;
  }
  return short;
}
