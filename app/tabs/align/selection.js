// A page of the score, and the token that is selected on it.

import { add, all, make } from "../../components/dom.js";
import { saveButtons } from "../../components/saves.js";
import { askCards, forgotten } from "./ask.js";
import { drawBoard } from "./cards.js";
import { dim } from "./marks.js";
import { CELL, cutSystems, drawSystem, place } from "./score.js";
import { drawStrip } from "./strip.js";
import { targetTokens } from "./tokens.js";

/** @import { Score, View } from "./types" */

const START_RING = -1; // the row before the first token

/**
 * Shows a page, and selects a token of it.
 * @param {View} view
 * @param {Score} score
 * @param {number} index
 */
export function showScore(view, score, index) {
  const { parts, table } = view;
  if (view.score?.id !== score.id) view.cards.clear();
  view.index = index;
  view.score = score;
  view.bytes = new TextEncoder().encode(score.text);
  const drawn = drawScore(view);
  parts.lost.hidden = !score.lanes.some((lane) => lane.lost.length);
  drawStrip(view, score);
  table.node.hidden = false;
  table.fill();
  showBoard(view, score);
  parts.back.hidden = parts.forth.hidden = score.starts.length === 1;
  parts.back.disabled = score.page === 0;
  parts.forth.disabled = score.page === score.starts.length - 1;
  if (drawn) select(view, index, false);
}

/**
 * @param {View} view
 * @param {Score} score
 */
function showBoard({ parts }, { board }) {
  const leaks = board.flatMap((row) => row.leaks ?? []);
  const fused = leaks.length ? "; fused: " + leaks.join(", ") : "";
  const note = make("p", "fl-note", "bits per byte on this text; lower is better" + fused);
  const rows = () => [["model", "role", "bits per byte"], ...board.map((r) => [r.name, r.role, r.bits])];
  add(note, saveButtons("bits_per_byte", { picture: () => parts.board, rows }));
  parts.board.replaceChildren(note, drawBoard(board));
}

/**
 * Draws the page for the width there is; returns false where there is none: it is drawn when shown.
 * @param {View} view
 */
export function drawScore(view) {
  const { score, parts, root } = view;
  const width = parts.grid.clientWidth;
  if (!score || !width) return false;
  const label = parseFloat(getComputedStyle(root).getPropertyValue("--fl-label")) || 120;
  const room = Math.max(8, Math.floor((width - label - 30) / CELL));
  view.width = width;
  view.systems = cutSystems(score, room).map((stretch) => drawSystem(score, stretch, label));
  parts.grid.replaceChildren(...view.systems.map((system) => system.node));
  const targets = all(parts.grid, ".fl-target .fl-token[data-link]");
  const others = all(parts.grid, ".fl-lane:not(.fl-target) .fl-token");
  view.targetNodes = Map.groupBy(targets, (node) => Number(node.dataset.link));
  view.sourceNodes = Map.groupBy(others, (node) => node.dataset.lane + "/" + node.dataset.token);
  if (view.only !== null) dim(view);
  return true;
}

/**
 * Selects a target token, on another page if need be.
 * @param {View} view
 * @param {number} wanted
 * @param {boolean} focus
 */
export function select(view, wanted, focus) {
  const { score, parts, props } = view;
  if (!score) return;
  const index = Math.min(Math.max(wanted, 0), score.total - 1);
  const local = index - score.first;
  if (local < 0 || local >= score.winners.length) {
    openPage(view, score, score.starts.findLastIndex((start) => start <= index), index, focus);
    return;
  }
  view.index = index;
  const nodes = markSelected(view, local);
  if (focus) nodes[0]?.focus({ preventScroll: true });
  if (nodes[0]) reveal(parts.grid, nodes[0]);
  ring(view, score, local);
  for (const cell of all(parts.strip, ".fl-strip > i")) {
    cell.classList.toggle("fl-selected", Number(cell.dataset.link) === local);
  }
  const label = targetTokens(score)[local]?.[6] ?? "";
  parts.place.textContent = "token " + (index + 1) + " of " + score.total + "  " + label;
  if (props.value?.id !== score.id || props.value.index !== index) {
    props.value = { id: score.id, index };
  }
  askCards(view);
}

/**
 * @param {View} view
 * @param {number} local
 */
function markSelected({ parts, targetNodes }, local) {
  for (const node of all(parts.grid, ".fl-selected, .fl-ring")) {
    node.classList.remove("fl-selected", "fl-ring");
    if (node.hasAttribute("aria-selected")) node.setAttribute("aria-selected", "false");
    node.tabIndex = -1;
  }
  const nodes = targetNodes.get(local) ?? [];
  for (const node of nodes) {
    node.classList.add("fl-selected");
    node.setAttribute("aria-selected", "true");
  }
  if (nodes[0]) nodes[0].tabIndex = 0;
  return nodes;
}

/**
 * Rings the source tokens whose rows are carried over, and draws the band through all lanes.
 * @param {View} view
 * @param {Score} score
 * @param {number} local
 */
function ring({ parts, systems, sourceNodes }, score, local) {
  const token = targetTokens(score)[local];
  for (const system of systems) {
    const shown = token && token[1] > system.from && token[0] < system.to;
    system.band.hidden = !shown;
    if (shown) place(system.band, token[0], token[1], system);
  }
  score.rings.forEach((row, lane) => {
    const at = row[local];
    const start = `[data-start="${lane}"]`;
    const nodes = at === START_RING ? all(parts.grid, start) : sourceNodes.get(lane + "/" + at);
    for (const node of nodes ?? []) node.classList.add("fl-ring");
  });
}

/**
 * Scrolls the score alone: the page under the reader's eyes stays where it is.
 * @param {HTMLElement} grid
 * @param {HTMLElement} node
 */
function reveal(grid, node) {
  const system = /** @type {HTMLElement} */ (node.closest(".fl-system"));
  const bottom = system.offsetTop + system.offsetHeight - grid.clientHeight;
  if (system.offsetTop < grid.scrollTop) grid.scrollTop = system.offsetTop;
  else if (bottom > grid.scrollTop) grid.scrollTop = bottom;
}

/**
 * Asks for a page and shows it; null where something else was asked for meanwhile.
 * @param {View} view
 * @param {Score} score
 * @param {number} page
 * @param {number} index
 * @param {boolean} focus
 */
export async function openPage(view, { id }, page, index, focus) {
  const opening = (view.opening = { page, index });
  const answer = await view.server.read_page({ id, page }).catch(() => null);
  if (view.score?.id !== id || view.opening !== opening) return null;
  if (!answer) {
    forgotten(view);
    return null;
  }
  showScore(view, answer, index);
  if (focus) select(view, index, true);
  return answer;
}
