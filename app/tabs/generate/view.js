// The Generate tab: columns of text that models write side by side, and why each token was chosen.

import { add, all, around, make, makeTip, noticeLine, withModifier } from "../../components/dom.js";
import { saveButtons } from "../../components/saves.js";
import { makeTableView } from "../../components/table_view.js";
import { append, begin, stop, sumUp } from "./columns.js";
import { leaveTip, nameToken, showTip, tableHeads, tableRows } from "./token.js";

/** @import { Mounted, Notice } from "../../components/gradio" */
/** @import { View } from "./types" */

/** @param {Mounted} mounted */
export function mount({ element, props, watch }) {
  const root = /** @type {HTMLElement} */ (element.querySelector(".fuselab-view"));
  const status = noticeLine();
  const heads = () => tableHeads(view.head);
  const rows = () => tableRows(view.head, view.columns);
  const table = makeTableView("continuation_tokens", heads, rows, (column) => column === 2);
  /** @type {View} */
  const view = {
    root,
    bar: make("div", "fl-tools", null, { hidden: "" }),
    stage: make("div", "fl-stage"),
    fused: make("div", "fl-row"),
    others: make("div", "fl-row fl-side-by-side"),
    tip: makeTip(),
    table,
    head: null,
    columns: [],
  };
  const keys = "Point at a token, or walk with ← → Home End, to see why it was chosen";
  const picture = () => pictured(view);
  const saves = saveButtons("continuations", { picture, rows: () => [heads(), ...rows()] });
  add(view.bar, status.node, make("span", "fl-help", keys), saves);
  add(view.stage, view.fused, view.others);
  add(root, view.bar, view.stage, table.node, view.tip);
  listen(view);
  const read = reader(view);
  /** @type {Notice | null} */
  let notice = null;
  function refresh() {
    if (props.content) read(props.content);
    const next = props.notice;
    if (!next || (next.kind === notice?.kind && next.text === notice.text)) return;
    // Stop, where nothing is going on, changes nothing.
    if (next.stopped && notice && notice.kind !== "busy") return;
    notice = next;
    view.bar.hidden = false;
    status.show(next);
    if (next.kind !== "busy") finish(view);
  }
  watch(["content", "notice"], refresh);
  refresh();
}

/**
 * Reads a content that only grows, line by line; another first line begins anew.
 * @param {View} view
 * @returns {(content: string) => void}
 */
function reader(view) {
  let first = "";
  let done = 0;
  return (content) => {
    const heading = content.slice(0, content.indexOf("\n"));
    if (heading !== first || !view.head) {
      first = heading;
      done = heading.length + 1;
      begin(view, JSON.parse(heading));
    }
    const { head } = view;
    if (!head) return;
    const end = content.lastIndexOf("\n") + 1;
    for (const line of content.slice(done, end).split("\n")) {
      if (line) append(view, head, JSON.parse(line));
    }
    done = Math.max(done, end);
    sumUp(view, head);
  };
}

/** @param {View} view */
function finish(view) {
  stop(view.columns);
  if (view.head) sumUp(view, view.head);
  view.table.fill();
}

/**
 * What a picture is made of. Marks of winners are backgrounds, which a picture has only where they
 * are boxes.
 * @param {View} view
 */
function pictured({ stage, fused }) {
  const frame = stage.getBoundingClientRect();
  const marks = make("div", "fl-marks");
  for (const node of all(fused, ".fl-won")) {
    for (const box of node.getClientRects()) {
      const mark = make("i");
      mark.style.background = node.style.getPropertyValue("--fl-hue");
      mark.style.left = box.left - frame.left + "px";
      mark.style.top = box.bottom - frame.top - 2 + "px";
      mark.style.width = Math.max(1, box.width - 1) + "px";
      add(marks, mark);
    }
  }
  add(stage, marks);
  setTimeout(() => marks.remove(), 0);
  return stage;
}

/** @param {View} view */
function listen(view) {
  const { stage, root, tip } = view;
  stage.addEventListener("keydown", walk);
  stage.addEventListener("focusin", (event) => focused(view, event));
  stage.addEventListener("focusout", () => (tip.hidden = true));
  stage.addEventListener("pointerover", (event) => showTip(view, event));
  stage.addEventListener("pointerleave", () => leaveTip(view));
  document.addEventListener("keydown", function leave(event) {
    if (!root.isConnected) document.removeEventListener("keydown", leave);
    else if (event.key === "Escape") tip.hidden = true;
  });
}

/** @param {KeyboardEvent} event */
function walk(event) {
  const node = around(event, ".fl-word");
  if (!node?.parentElement || withModifier(event)) return;
  const words = all(node.parentElement, ".fl-word");
  const at = Number(node.dataset.index);
  const last = words.length - 1;
  const goals = /** @type {Record<string, number>} */ ({
    ArrowLeft: at - 1,
    ArrowRight: at + 1,
    ArrowUp: at - 1,
    ArrowDown: at + 1,
    Home: 0,
    End: last,
  });
  if (!(event.key in goals)) return;
  event.preventDefault();
  words[Math.min(Math.max(goals[event.key], 0), last)].focus();
}

/**
 * @param {View} view
 * @param {Event} event
 */
function focused(view, event) {
  const node = around(event, ".fl-word");
  if (!node?.parentElement || !view.head) return;
  for (const other of all(node.parentElement, '[tabindex="0"]')) {
    other.tabIndex = -1;
    other.setAttribute("aria-selected", "false");
  }
  node.tabIndex = 0;
  node.setAttribute("aria-selected", "true");
  nameToken(view, view.head, node);
  showTip(view, event);
}
