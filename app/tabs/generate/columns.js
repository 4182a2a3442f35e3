// Columns that grow: what is new is added, what is there stays, so that focus and selection do too.

import { add, dot, hue, make } from "../../components/dom.js";
import { isFused, makeToken, voiceHue } from "./token.js";

/** @import { Batch, Column, Heading, Role, View } from "./types" */

/** @type {Record<Role, string>} */
const ROLES = { fused: "fused", target: "target", source: "source", trained: "trained here" };
const STOPPED = "stopped";
/** @type {Record<string, string>} */
const ENDS = {
  "end of text": "ended by itself",
  failed: "failed",
  length: "length reached",
  stop: "ended",
};
const LONGEST_PROMPT = 160; // characters

/**
 * Begins anew, with empty columns.
 * @param {View} view
 * @param {Heading} head
 */
export function begin(view, head) {
  view.tip.hidden = true;
  view.head = head;
  view.columns = head.columns.map((given, i) => makeColumn(head, given, i));
  const cards = Object.groupBy(view.columns, (column) => (isFused(column) ? "fused" : "others"));
  view.fused.replaceChildren(...(cards.fused ?? []).map((column) => column.card));
  view.others.replaceChildren(...(cards.others ?? []).map((column) => column.card));
  view.bar.classList.add("fl-begun");
  view.table.node.hidden = false;
}

/**
 * @param {Heading} head
 * @param {Heading["columns"][number]} given
 * @param {number} index
 * @returns {Column}
 */
function makeColumn(head, [title, role, source], index) {
  const fused = isFused({ role });
  const text = make("div", "fl-text", null, {
    role: "listbox",
    "aria-label": "tokens of " + title,
    "aria-orientation": "horizontal",
    dir: "auto",
  });
  const fault = make("p", "fl-fault", "", { hidden: "" });
  const foot = make("footer", "", "", { title: "tokens a second of its own time" });
  const label = { "aria-label": "who won how many tokens" };
  const legend = fused ? make("ul", "fl-legend", null, label) : null;
  const page = make("div", "fl-page", null, { dir: "auto" });
  if (fused) add(page, make("span", "fl-prompt", endOf(head.prompt), { title: "the prompt" }));
  const line = add(make("h3"), dot(source >= 0 ? hue(source) : ""), make("span", "", title));
  if (!fused) add(line, make("small", "", ROLES[role]));
  const voices = head.voices.map(([name]) => name).join(", ");
  const about = voices + " by " + head.operator + ", in " + head.target + "’s tokens";
  const header = add(make("header"), line, fused ? make("p", "", about) : null, legend);
  const card = make("article", "fl-card fl-writer", null, {
    "aria-label": title,
    "data-column": index,
    "data-role": role,
  });
  add(card, header, add(page, text), fault, foot);
  const empty = { steps: [], end: "", rate: 0, wins: [] };
  return { title, role, source, ...empty, card, text, fault, foot, legend };
}

/** @param {string} prompt */
function endOf(prompt) {
  const characters = Array.from(prompt);
  if (characters.length <= LONGEST_PROMPT) return prompt;
  return "…" + characters.slice(-LONGEST_PROMPT / 2).join("");
}

/**
 * Adds what was written since the batch before.
 * @param {View} view
 * @param {Heading} head
 * @param {Batch} batch
 */
export function append({ columns }, head, { steps, ends, rates }) {
  const fresh = columns.map(() => document.createDocumentFragment());
  for (const [index, step] of steps) {
    const column = columns[index];
    const winner = step[3];
    column.steps.push(step);
    fresh[index].appendChild(makeToken(head, column, column.steps.length - 1));
    if (isFused(column) && winner >= 0) column.wins[winner] = (column.wins[winner] || 0) + 1;
  }
  fresh.forEach((nodes, i) => columns[i].text.appendChild(nodes));
  for (const [index, why, sentence] of ends) {
    const column = columns[index];
    column.end = ENDS[why] ?? why;
    column.fault.textContent = sentence;
    column.fault.hidden = !sentence;
  }
  rates.forEach((rate, i) => (columns[i].rate = rate));
}

/**
 * Notes that columns which go on have been stopped.
 * @param {Column[]} columns
 */
export function stop(columns) {
  for (const column of columns) column.end ||= STOPPED;
}

/**
 * Says how far each column is, and who won how much.
 * @param {View} view
 * @param {Heading} head
 */
export function sumUp({ columns }, head) {
  for (const column of columns) {
    const running = !column.end;
    const count = column.steps.length;
    column.card.classList.toggle("fl-running", running);
    const parts = [count + (running ? " of " + head.most : "") + (count === 1 ? " token" : " tokens")];
    if (column.rate) parts.push(column.rate.toFixed(column.rate < 10 ? 1 : 0) + "/s");
    if (!running) parts.push(column.end);
    column.foot.textContent = parts.join(" · ");
    column.legend?.replaceChildren(...winItems(column, head));
  }
}

/**
 * @param {Column} column
 * @param {Heading} head
 */
function winItems({ wins, steps }, { voices }) {
  const won = wins.length > 0;
  const items = voices.map((voice, i) => {
    const text = voice[0] + (won ? " " + (wins[i] || 0) : "");
    return add(make("li"), dot(voiceHue(voice)), make("span", "", text));
  });
  if (!steps.length) return items;
  const how = won ? "underlined in the colour of each token’s winner" : "all count alike: no token has a winner";
  return [...items, make("li", "", how)];
}
