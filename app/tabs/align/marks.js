// Marks on the score's tokens: one kind of match alone, tokens that share their bytes.

import { all } from "../../components/dom.js";

/** @import { Lane, Score, View } from "./types" */

/**
 * Leaves one kind of match in full colour, and lets the walk stop only there; once more undoes it.
 * @param {View} view
 * @param {number} kind
 */
export function showOnly(view, kind) {
  const { parts } = view;
  view.only = view.only === kind ? null : kind;
  for (const node of all(parts.legend, ".fl-filter")) {
    node.setAttribute("aria-pressed", String(Number(node.dataset.kind) === view.only));
  }
  const words = view.only === null ? "mismatch" : "this kind";
  parts.previous.textContent = "‹ " + words;
  parts.next.textContent = words + " ›";
  dim(view);
}

/**
 * Dims the tokens of the other kinds.
 * @param {View} view
 */
export function dim({ only, parts, score }) {
  if (!score) return;
  for (const node of all(parts.grid, ".fl-token")) {
    const { token, isTarget } = tokenOf(score, node);
    const shown =
      only === null ||
      (isTarget ? token[7] >= 0 && score.kinds[token[7]] & (1 << only) : !only || token[5] === only);
    node.classList.toggle("fl-dim", !shown);
  }
}

/**
 * The token that a node of the grid shows.
 * @param {Score} score
 * @param {HTMLElement} node
 */
export function tokenOf(score, node) {
  const lane = Number(node.dataset.lane);
  const token = score.lanes[lane].tokens[Number(node.dataset.token)];
  return { lane, token, isTarget: lane === score.lanes.length - 1 };
}

/**
 * Marks the group of a token: what both sides need until they end at the same byte.
 * @param {View} view
 * @param {Score} score
 * @param {HTMLElement} node
 */
export function tie(view, score, node) {
  untie(view);
  const { lane, token, isTarget } = tokenOf(score, node);
  const target = score.lanes.length - 1;
  for (const source of isTarget ? score.lanes.keys() : [lane]) {
    if (source === target) continue;
    const [start, end] = groupOf(score.lanes[source], score.lanes[target], token[2], token[3]);
    for (const side of isTarget ? [source] : [source, target]) {
      markTied(view, score, side, start, end);
    }
  }
}

/**
 * Widens a stretch of bytes until it cuts no token of either lane.
 * @param {Lane} source
 * @param {Lane} target
 * @param {number} start
 * @param {number} end
 */
function groupOf(source, target, start, end) {
  for (let size = -1; size !== end - start; ) {
    size = end - start;
    for (const token of [...source.tokens, ...target.tokens]) {
      if (token[3] <= start || token[2] >= end) continue;
      start = Math.min(start, token[2]);
      end = Math.max(end, token[3]);
    }
  }
  return [start, end];
}

/**
 * @param {View} view
 * @param {Score} score
 * @param {number} lane
 * @param {number} start
 * @param {number} end
 */
function markTied(view, score, lane, start, end) {
  const isTarget = lane === score.lanes.length - 1;
  score.lanes[lane].tokens.forEach((token, i) => {
    if (token[3] <= start || token[2] >= end || token[2] === token[3]) return;
    const nodes = isTarget ? view.targetNodes.get(token[7]) : view.sourceNodes.get(lane + "/" + i);
    for (const node of nodes ?? []) node.classList.add("fl-tied");
  });
}

/** @param {View} view */
export function untie({ parts }) {
  for (const node of all(parts.grid, ".fl-tied")) node.classList.remove("fl-tied");
}
