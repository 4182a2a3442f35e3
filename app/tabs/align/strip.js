// The winner of each target token, as a strip under the score.

import { ALIKE, TARGET_ROW, add, dot, hue, make, winnerName } from "../../components/dom.js";
import { saveButtons } from "../../components/saves.js";
import { sourceNames, targetTokens } from "./tokens.js";

/** @import { Score, View } from "./types" */

/**
 * Draws the strip and its legend.
 * @param {View} view
 * @param {Score} score
 */
export function drawStrip({ parts }, score) {
  const { winners } = score;
  const tokens = targetTokens(score);
  const strip = make("div", "fl-strip", null, {
    role: "img",
    "aria-label": "winner of each target token",
  });
  strip.style.gap = winners.length > 240 ? "0" : winners.length > 100 ? "1px" : "2px";
  winners.forEach((winner, i) => {
    const cell = make("i", "", null, { "data-link": i });
    cell.style.flexGrow = String(Math.max(0.4, tokens[i] ? tokens[i][1] - tokens[i][0] : 1));
    if (winner >= 0) cell.style.background = hue(winner);
    strip.appendChild(cell);
  });
  const title = "who teaches each target token" + (score.starts.length > 1 ? " (this page)" : "");
  const saves = saveButtons("winners", { picture: () => parts.strip });
  const head = add(make("div", "fl-strip-head"), make("span", "", title), drawKey(score), saves);
  parts.strip.replaceChildren(head, strip);
}

/** @param {Score} score */
function drawKey({ lanes, winners }) {
  const names = sourceNames(lanes);
  const key = make("ul", "fl-legend");
  for (const winner of [...names.keys(), ALIKE, TARGET_ROW]) {
    const count = winners.filter((w) => w === winner).length;
    if (winner < 0 && !count) continue;
    const item = make("li", "", null, winner < 0 ? {} : { title: lanes[winner].name });
    const color = winner < 0 ? undefined : hue(winner);
    add(key, add(item, dot(color), make("span", "", winnerName(winner, names) + " " + count)));
  }
  return key;
}
