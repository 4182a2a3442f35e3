// What is asked of a score in many places, and its rows as a table.

import { winnerName } from "../../components/dom.js";

/** @import { Lane, Score } from "./types" */

const MATCHES = ["1:1", "1:n", "n:1", "m:n"];

/**
 * The tokens of the target that have a row, in the order of winners and kinds.
 * @param {Score} score
 */
export function targetTokens({ lanes }) {
  return lanes[lanes.length - 1].tokens.filter((token) => token[7] >= 0);
}

/** @param {Lane[]} lanes */
export function sourceNames(lanes) {
  return lanes.slice(0, -1).map((lane) => lane.short);
}

/** @param {Score} score */
export function tableHeads({ lanes }) {
  const sources = sourceNames(lanes);
  return ["#", "target token", "from", "to", "id", ...sources, "match", "winner"];
}

/** @param {Score} score */
export function tableRows(score) {
  const { lanes, first, winners, kinds } = score;
  const sources = lanes.slice(0, -1);
  const names = sourceNames(lanes);
  return targetTokens(score).map((token, i) => [
    first + i + 1,
    token[6] || "part of a character",
    token[2],
    token[3],
    token[4],
    ...sources.map((lane) =>
      lane.tokens
        .filter((other) => other[3] > token[2] && other[2] < token[3])
        .map((other) => other[6] || "▪")
        .join(" | "),
    ),
    MATCHES.filter((_, n) => kinds[i] & (2 << n)).join(", ") + (kinds[i] & 1 ? ", inside" : ""),
    winnerName(winners[i], names),
  ]);
}
