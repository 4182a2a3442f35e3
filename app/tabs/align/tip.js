// What is said of a token of the score, or of a fused bar, when it is pointed at or focused.

import { around, hang, hexBytes, make } from "../../components/dom.js";
import { originTip } from "./cards.js";
import { tie, tokenOf, untie } from "./marks.js";
import { KINDS } from "./score.js";

/** @import { View } from "./types" */

/**
 * @param {View} view
 * @param {Event} event
 */
export function showTip(view, event) {
  const { parts, score, root } = view;
  const node = around(event, ".fl-score .fl-token");
  if (!node || !score) return hideTip(view);
  tie(view, score, node);
  const { lane, token, isTarget } = tokenOf(score, node);
  const [, , start, end, id, kind, label] = token;
  const bytes = hexBytes(view.bytes.slice(start - score.start, end - score.start));
  const inside = node.classList.contains("fl-inside");
  parts.tip.replaceChildren(
    make("b", "", label || "part of a character"),
    make("span", "", score.lanes[lane].short + " · id " + id),
    make("span", "", end > start ? "bytes " + start + "–" + end + ": " + bytes : "no bytes of the text"),
    make("span", "", !isTarget ? KINDS[kind] : inside ? "ends inside every source's token" : "target token"),
  );
  hang(parts.tip, node, root);
}

/**
 * @param {View} view
 * @param {Event} event
 */
export function showOrigins(view, event) {
  const bar = around(event, ".fl-traced");
  if (!bar) return hideTip(view);
  view.parts.tip.replaceChildren(...originTip(bar));
  hang(view.parts.tip, bar, view.root);
}

/** @param {View} view */
export function hideTip(view) {
  untie(view);
  view.parts.tip.hidden = true;
}
