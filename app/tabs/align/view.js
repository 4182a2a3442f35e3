// The Align tab: the score, its events, and the token that is selected.

import { add, around, withModifier } from "../../components/dom.js";
import { makeTableView } from "../../components/table_view.js";
import { askCards, switchCharacters } from "./ask.js";
import { showOnly } from "./marks.js";
import { makeParts } from "./parts.js";
import { drawScore, select, showScore } from "./selection.js";
import { hideTip, showOrigins, showTip } from "./tip.js";
import { tableHeads, tableRows } from "./tokens.js";
import { turnPage, walkMismatch } from "./walk.js";

/** @import { AlignMounted, Score, View } from "./types" */

const JITTER = 4; // pixels of width for which nothing is drawn again

/** @param {AlignMounted} mounted */
export function mount({ element, props, server, trigger, watch }) {
  const root = /** @type {HTMLElement} */ (element.querySelector(".fuselab-view"));
  const parts = makeParts({
    mismatch: (step) => walkMismatch(view, step),
    page: (step) => turnPage(view, step),
    characters: () => switchCharacters(view),
    only: (kind) => showOnly(view, kind),
  });
  const table = makeTableView(
    "tokens",
    () => (view.score ? tableHeads(view.score) : []),
    () => (view.score ? tableRows(view.score) : []),
    (column) => column === 1 || (view.score !== null && column > 4 && column < 4 + view.score.lanes.length),
  );
  /** @type {View} */
  const view = {
    ...{ root, props, server, trigger, parts, table },
    ...{ shown: null, score: null, bytes: new Uint8Array(), index: 0, opening: null },
    ...{ width: 0, systems: [], targetNodes: new Map(), sourceNodes: new Map(), only: null },
    ...{ characters: false, cards: new Map(), asked: null, asking: false, waiting: false },
  };
  add(root, parts.status.node, parts.bar, parts.grid, parts.legend, parts.strip, parts.cards);
  add(root, parts.board, table.node, parts.tip);
  listen(view);
  watch(["content", "notice"], () => refresh(view));
  new ResizeObserver(() => {
    if (!view.score || Math.abs(parts.grid.clientWidth - view.width) <= JITTER) return;
    if (drawScore(view)) select(view, view.index, false);
  }).observe(parts.grid);
  refresh(view);
}

/** @param {View} view */
function listen(view) {
  const { root, parts } = view;
  root.addEventListener("click", (event) => {
    const hit = around(event, "[data-link]");
    if (!hit || !view.score) return;
    select(view, view.score.first + Number(hit.dataset.link), hit.closest(".fl-score") !== null);
  });
  root.addEventListener("keydown", (event) => event.key === "Escape" && hideTip(view));
  parts.grid.addEventListener("keydown", (event) => {
    if (!view.score || withModifier(event) || !walk(view, view.score, event)) return;
    event.preventDefault();
  });
  parts.grid.addEventListener("scroll", () => hideTip(view));
  /** @type {[HTMLElement, typeof showTip][]} */
  const tips = [[parts.grid, showTip], [parts.cards, showOrigins]];
  for (const [node, show] of tips) {
    for (const kind of ["pointerover", "focusin"]) node.addEventListener(kind, (e) => show(view, e));
    for (const kind of ["pointerleave", "focusout"]) node.addEventListener(kind, () => hideTip(view));
  }
}

/**
 * Does what a key is for; returns whether it is for anything.
 * @param {View} view
 * @param {Score} score
 * @param {KeyboardEvent} event
 */
function walk(view, score, event) {
  /** @type {Record<string, () => void>} */
  const actions = {
    ArrowLeft: () => select(view, view.index - 1, true),
    ArrowRight: () => select(view, view.index + 1, true),
    Home: () => select(view, 0, true),
    End: () => select(view, score.total - 1, true),
    PageUp: () => turnPage(view, -1),
    PageDown: () => turnPage(view, 1),
    c: () => switchCharacters(view),
    n: () => walkMismatch(view, event.shiftKey ? -1 : 1),
  };
  const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  action?.();
  return action !== undefined;
}

/** @param {View} view */
function refresh(view) {
  const { props, parts } = view;
  parts.status.show(props.notice ?? { kind: "busy", text: "Reading …" });
  if (view.waiting && props.notice && props.notice.kind !== "busy") {
    view.waiting = false;
    if (props.notice.kind === "done") askCards(view);
  }
  if (!props.content || props.content === view.shown) return;
  view.shown = props.content;
  /** @type {Score} */
  const score = JSON.parse(props.content);
  if (view.score?.id === score.id) return;
  view.opening = null;
  showScore(view, score, score.open);
}
