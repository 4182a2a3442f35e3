// The text with its winners, and along it what each row found hard.

import { add, button, hue, make, percent, winnerName, ALIKE, TARGET_ROW, dot } from "../../components/dom.js";
import { saveButtons } from "../../components/saves.js";

/** @import { Fusion, View } from "./types" */

const PAGE = 512; // tokens
const MOST_NATS = 6;
const LINES = 6; // ways of underlining

/** @param {number} at */
export function pageOf(at) {
  return Math.floor(at / PAGE);
}

/** @param {number} page */
export function firstOf(page) {
  return page * PAGE;
}

/**
 * The rows of the heat map.
 * @param {Fusion} fusion
 */
export function rowNames({ names, target }) {
  return [...names, target + " (target)", "fused"];
}

/**
 * @param {string} title
 * @param {string} note
 * @param {HTMLElement} [saves]
 */
export function titled(title, note, saves) {
  return add(make("div", "fl-title-line"), make("h3", "", title), make("p", "fl-note", note), saves);
}

/**
 * Draws the page of the text.
 * @param {View} view
 * @param {Fusion} fusion
 * @param {(step: number) => void} turn
 */
export function drawText({ text, page }, fusion, turn) {
  const { tokens } = fusion;
  const pages = pageOf(tokens.length - 1) + 1;
  const tools = make("div", "fl-tools");
  if (pages > 1) {
    add(tools, button("« page", "previous page", () => turn(-1)));
    add(tools, button("page »", "next page", () => turn(1)));
    add(tools, make("span", "fl-place", "page " + (page + 1) + " of " + pages));
  }
  add(tools, saveButtons("winners", { picture: () => text, rows: () => winnerRows(fusion) }));
  const note = "Every target token is underlined in the manner of the source that weighs most there.";
  const title = titled("Who teaches each token", note);
  text.replaceChildren(title, drawKey(fusion), drawTokens(fusion, page), tools);
}

/** @param {Fusion} fusion */
function drawKey({ names, tokens }) {
  const key = make("ul", "fl-legend");
  for (const winner of [...names.keys(), ALIKE, TARGET_ROW]) {
    const share = tokens.filter((token) => token[1] === winner).length / tokens.length;
    if (winner < 0 && !share) continue;
    const sign = winner < 0 ? dot() : make("span", underline(winner), "abc", { "aria-hidden": "true" });
    if (winner >= 0) sign.style.setProperty("--fl-hue", hue(winner));
    const text = winnerName(winner, names) + " " + percent(share) + " %";
    add(key, add(make("li"), sign, make("span", "", text)));
  }
  return key;
}

/** @param {number} winner */
function underline(winner) {
  return winner < 0 ? "fl-open" : "fl-won fl-line-" + (winner % LINES);
}

/**
 * @param {Fusion} fusion
 * @param {number} page
 */
function drawTokens({ tokens, names }, page) {
  const label = "tokens of the target";
  const line = make("div", "fl-spoken", null, { role: "listbox", "aria-label": label, tabindex: "-1" });
  tokens.slice(firstOf(page), firstOf(page + 1)).forEach(([text, winner], i) => {
    const token = make("span", underline(winner), text || "▪", {
      role: "option",
      tabindex: "-1",
      "data-at": firstOf(page) + i,
      "aria-label": (text.trim() || "white space") + ", " + winnerName(winner, names),
    });
    if (winner >= 0) token.style.setProperty("--fl-hue", hue(winner));
    line.appendChild(token);
  });
  return line;
}

/** @param {Fusion} fusion */
function winnerRows({ names, tokens }) {
  const weights = names.map((name) => "weight of " + name);
  const nats = names.map((name) => "nats of " + name);
  return [
    ["token", "winner", ...weights, ...nats, "nats of the target", "nats fused"],
    ...tokens.map(([text, winner, shares, costs]) => [
      text, winnerName(winner, names), ...shares, ...costs,
    ]),
  ];
}

/**
 * Draws cross-entropies along the page of the text.
 * @param {View} view
 * @param {Fusion} fusion
 */
export function drawHeat({ heat, page }, fusion) {
  const shown = fusion.tokens.slice(firstOf(page), firstOf(page + 1));
  const box = make("div", "fl-heat");
  rowNames(fusion).forEach((name, row) => {
    const label = "cross-entropy of " + name + " along the text";
    const track = make("div", "fl-heat-track", null, { role: "img", "aria-label": label });
    shown.forEach(([, , , nats], i) => {
      const cell = make("i", "", null, { "data-at": firstOf(page) + i });
      const share = Math.min(1, (nats[row] ?? MOST_NATS) / MOST_NATS);
      cell.style.setProperty("--fl-heat", (100 * share).toFixed(0) + "%");
      track.appendChild(cell);
    });
    add(box, make("span", "fl-heat-name", name), track);
  });
  const key = add(
    make("ul", "fl-legend"),
    make("li", "", "0 nats"),
    add(make("li"), make("i", "fl-heat-key")),
    make("li", "", MOST_NATS + " nats and more"),
  );
  const note =
    "Cross-entropy of each row on the token that follows, in nats: the stronger the colour, the " +
    "greater the surprise. Sources are shown as carried over.";
  const saves = saveButtons("cross_entropy", { picture: () => heat });
  heat.replaceChildren(titled("Who found what hard", note, saves), box, key);
}
