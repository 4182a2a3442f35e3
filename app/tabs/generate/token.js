// One token of a column: what it shows, what is said about it, and its row in the table.

import { add, around, dot, figure, find, hue, make, percent, winnerName } from "../../components/dom.js";

/** @import { Column, Heading, Step, View, Voice } from "./types" */

/** @param {Voice} voice */
export function voiceHue([, source]) {
  return source >= 0 ? hue(source) : "var(--fl-fill)";
}

/**
 * @param {Heading} head
 * @param {Step} step
 */
function winnerOf({ voices }, step) {
  return winnerName(step[3], voices.map(([name]) => name));
}

/** @param {{ role: string }} column */
export function isFused({ role }) {
  return role === "fused";
}

/**
 * Makes the node of a token. A line end is shown as a sign that is not part of the text.
 * @param {Heading} head
 * @param {Column} column
 * @param {number} index
 */
export function makeToken({ voices }, column, index) {
  const [text, , , winner] = column.steps[index];
  const node = make("span", "fl-word", null, {
    role: "option",
    tabindex: index ? "-1" : "0",
    "aria-selected": "false",
    "data-index": index,
  });
  text.split("\n").forEach((part, n) => {
    const sign = make("i", "fl-return", null, { "aria-hidden": "true" });
    if (n) add(node, sign, document.createTextNode("\n"));
    if (part) add(node, document.createTextNode(part));
  });
  // Bytes of an unfinished character, and the end of the text, have a place without a text.
  if (!text) node.classList.add("fl-silent");
  if (isFused(column)) {
    node.classList.add("fl-won");
    node.style.setProperty("--fl-hue", winner < 0 ? "transparent" : voiceHue(voices[winner]));
  }
  return node;
}

/**
 * The column and step of a token's node.
 * @param {View} view
 * @param {HTMLElement} node
 */
function stepOf({ columns }, node) {
  const writer = /** @type {HTMLElement} */ (node.closest(".fl-writer"));
  const column = columns[Number(writer.dataset.column)];
  const index = Number(node.dataset.index);
  return { column, index, step: column.steps[index] };
}

/** @param {Step} step */
function numbersOf([, chance, entropy]) {
  return ["probability " + percent(chance) + " %", "entropy " + figure(entropy, 2) + " nats"];
}

/**
 * Names a token in full for those who cannot see its tip.
 * @param {View} view
 * @param {Heading} head
 * @param {HTMLElement} node
 */
export function nameToken(view, head, node) {
  const { column, index, step } = stepOf(view, node);
  const words = [step[6], "token " + (index + 1), ...numbersOf(step)];
  if (isFused(column)) words.push("winner " + winnerOf(head, step));
  node.setAttribute("aria-label", words.join(", "));
}

/**
 * @param {Heading} head
 * @param {Step} step
 */
function weightBars({ voices }, [, , , winner, weights]) {
  const bars = make("ul", "fl-bars fl-weights");
  voices.forEach((voice, i) => {
    const bar = make("i");
    bar.style.background = voiceHue(voice);
    bar.style.width = 100 * weights[i] + "%";
    const label = make("span", "fl-label");
    add(label, dot(voiceHue(voice)), document.createTextNode(voice[0]));
    const groove = add(make("span", "fl-groove"), bar);
    const row = make("li", i === winner ? "fl-best" : "");
    add(bars, add(row, label, groove, make("span", "fl-number", percent(weights[i]))));
  });
  return bars;
}

/**
 * @param {View} view
 * @param {Event} event
 */
export function showTip(view, event) {
  const node = around(event, ".fl-word");
  if (node) hangTip(view, node, event instanceof MouseEvent ? event : null);
  else leaveTip(view);
}

/**
 * The pointer goes elsewhere: the token that the keyboard is on has the tip again.
 * @param {View} view
 */
export function leaveTip(view) {
  const held = find(view.stage, ".fl-word:focus");
  if (held && !view.tip.hidden) hangTip(view, held, null);
  else view.tip.hidden = true;
}

/**
 * @param {View} view
 * @param {HTMLElement} node
 * @param {MouseEvent | null} pointer
 */
function hangTip(view, node, pointer) {
  const { tip, root, head } = view;
  if (!head) return;
  const { column, index, step } = stepOf(view, node);
  const aside = column.title + " · token " + (index + 1) + " · id " + step[5];
  tip.replaceChildren(
    make("b", "", step[6] || "no text"),
    make("span", "", numbersOf(step).join(" · ")),
    make("span", "fl-aside", aside),
  );
  if (isFused(column)) {
    const winner = make("span", "fl-winner", "winner: " + winnerOf(head, step));
    add(tip, winner, weightBars(head, step));
  }
  tip.hidden = false;
  // A token that wraps has a box in each line: the tip hangs from the one that is pointed at.
  const boxes = Array.from(node.getClientRects());
  const box = (pointer && boxes.find((b) => isIn(b, pointer.clientX, pointer.clientY))) || boxes[0];
  const frame = root.getBoundingClientRect();
  const left = Math.min(box.left - frame.left, frame.width - tip.offsetWidth);
  tip.style.left = Math.max(0, left) + "px";
  tip.style.top = box.bottom - frame.top + 7 + "px";
}

/**
 * @param {DOMRect} box
 * @param {number} x
 * @param {number} y
 */
function isIn({ top, bottom, left, right }, x, y) {
  return y >= top && y <= bottom && x >= left && x <= right;
}

/** @param {Heading | null} head */
export function tableHeads(head) {
  const weights = (head?.voices ?? []).map(([name]) => "weight of " + name);
  return ["column", "step", "token", "id", "probability", "entropy, nats", "winner", ...weights];
}

/**
 * @param {Heading | null} head
 * @param {Column[]} columns
 */
export function tableRows(head, columns) {
  if (!head) return [];
  return columns.flatMap((column) =>
    column.steps.map((step, i) => {
      const [, chance, entropy, , weights, token, label] = step;
      const won = isFused(column) ? [winnerOf(head, step), ...weights] : ["", ...head.voices.map(() => "")];
      return [column.title, i + 1, label, token, chance, entropy, ...won];
    }),
  );
}
