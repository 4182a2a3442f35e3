// The Fuse tab: a text with its winners, what each row found hard, and tables of ways of fusing.

import {
  add, all, around, dot, figure, hang, hue, make, makeTip, noticeLine, winnerName, withModifier,
} from "../../components/dom.js";
import { drawTables } from "./tables.js";
import { drawHeat, drawText, firstOf, pageOf, rowNames } from "./text.js";

/** @import { FuseMounted, Fusion, View } from "./types" */

/** @param {FuseMounted} mounted */
export function mount({ element, props, trigger, watch }) {
  const root = /** @type {HTMLElement} */ (element.querySelector(".fuselab-view"));
  const status = noticeLine();
  const tables = make("section", "fl-tables");
  /** @type {View} */
  const view = {
    root,
    text: make("section", "fl-spoken-box", null, { "aria-label": "winner of each target token" }),
    heat: make("section", "fl-heat-box", null, { "aria-label": "cross-entropy along the text" }),
    tip: makeTip(),
    fusion: null,
    page: 0,
    at: 0,
  };
  add(root, status.node, view.text, view.heat, tables, view.tip);
  /** @type {string | null} */
  let shown = null;
  function refresh() {
    status.show(props.notice ?? { kind: "done", text: "" });
    if (!props.content || props.content === shown) return;
    shown = props.content;
    /** @type {Fusion} */
    const fusion = JSON.parse(props.content);
    view.fusion = fusion;
    drawPage(view, fusion, 0);
    const cards = drawTables(fusion, (choice) => {
      props.value = choice;
      trigger("choose");
    });
    tables.replaceChildren(...cards);
    choose(view, fusion, 0, false);
  }
  listen(view);
  watch(["content", "notice"], refresh);
  refresh();
}

/**
 * @param {View} view
 * @param {Fusion} fusion
 * @param {number} page
 */
function drawPage(view, fusion, page) {
  view.page = page;
  drawText(view, fusion, (step) => {
    const next = Math.min(Math.max(0, page + step), pageOf(fusion.tokens.length - 1));
    choose(view, fusion, firstOf(next), false);
  });
  drawHeat(view, fusion);
}

/**
 * Selects a token, on another page if need be.
 * @param {View} view
 * @param {Fusion} fusion
 * @param {number} wanted
 * @param {boolean} focus
 */
function choose(view, fusion, wanted, focus) {
  const at = Math.min(Math.max(0, wanted), fusion.tokens.length - 1);
  if (pageOf(at) !== view.page) drawPage(view, fusion, pageOf(at));
  view.at = at;
  for (const node of all(view.root, ".fl-selected")) node.classList.remove("fl-selected");
  for (const node of all(view.root, `[data-at="${at}"]`)) node.classList.add("fl-selected");
  for (const node of all(view.text, ".fl-spoken > span")) {
    const chosen = Number(node.dataset.at) === at;
    node.tabIndex = chosen ? 0 : -1;
    if (chosen && focus) node.focus({ preventScroll: true });
  }
}

/** @param {View} view */
function listen(view) {
  const hide = () => (view.tip.hidden = true);
  for (const box of [view.text, view.heat]) {
    for (const kind of ["pointerover", "focusin"]) box.addEventListener(kind, (e) => showTip(view, e));
    for (const kind of ["pointerleave", "focusout"]) box.addEventListener(kind, hide);
    box.addEventListener("click", (event) => {
      const node = around(event, "[data-at]");
      if (!node || !view.fusion) return;
      choose(view, view.fusion, Number(node.dataset.at), node.closest(".fl-spoken") !== null);
    });
  }
  view.text.addEventListener("keydown", (event) => {
    const { fusion, at } = view;
    if (!fusion || withModifier(event) || !around(event, ".fl-spoken")) return;
    const goals = /** @type {Record<string, number>} */ ({
      ArrowLeft: at - 1,
      ArrowRight: at + 1,
      Home: 0,
      End: fusion.tokens.length - 1,
    });
    if (!(event.key in goals)) return;
    choose(view, fusion, goals[event.key], true);
    event.preventDefault();
  });
  view.root.addEventListener("keydown", (event) => event.key === "Escape" && hide());
}

/**
 * @param {View} view
 * @param {Event} event
 */
function showTip({ fusion, tip, root }, event) {
  const node = around(event, "[data-at]");
  if (!node || !fusion) {
    tip.hidden = true;
    return;
  }
  const { names, tokens } = fusion;
  const [text, winner, weights, nats] = tokens[Number(node.dataset.at)];
  const list = make("ul");
  rowNames(fusion).forEach((name, i) => {
    const isSource = i < names.length;
    const color = isSource ? hue(i) : i === names.length ? "var(--fl-quiet)" : "var(--fl-fused)";
    const weight = isSource ? ", weight " + figure(weights[i], 2) : "";
    const line = name + ": " + figure(nats[i], 2) + " nats" + weight;
    add(list, add(make("li"), dot(color), make("span", "", line)));
  });
  const title = make("b", "", text || "part of a character");
  const name = winnerName(winner, names);
  tip.replaceChildren(title, make("span", "", winner < 0 ? name : "winner: " + name), list);
  hang(tip, node, root);
}
