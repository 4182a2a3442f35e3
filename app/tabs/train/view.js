// One training: cards of its parts, facts, what was better before, and what the models write.

import { add, dot, figure, make, makeTable, noticeLine } from "../../components/dom.js";
import { saveButtons } from "../../components/saves.js";

/** @import { Mounted } from "../../components/gradio" */
/** @import { Comparison, Part, Progress, Run, Sample } from "./types" */

/** @type {Record<Part, string>} */
const HUES = { fused: "var(--fl-fused)", baseline: "var(--fl-quiet)", before: "var(--fl-none)" };
const SECTIONS = /** @type {const} */ (["head", "facts", "parts", "table", "samples"]);

/** @param {Mounted} mounted */
export function mount({ element, props, watch }) {
  const root = /** @type {HTMLElement} */ (element.querySelector(".fuselab-view"));
  const status = noticeLine();
  add(root, status.node);
  const sections = SECTIONS.map((name) => {
    const node = make("section", "", null, { hidden: "" });
    add(root, node);
    return { name, node, written: "null" };
  });
  let notice = "";
  /** @type {string | null} */
  let shown = null;
  function refresh() {
    const next = props.notice ?? { kind: "done", text: "" };
    if (notice !== JSON.stringify(next)) status.show(next);
    notice = JSON.stringify(next);
    if (!props.content || props.content === shown) return;
    shown = props.content;
    /** @type {Run} */
    const run = JSON.parse(props.content);
    const data = { ...run, head: run.title ? { title: run.title, note: run.note } : null };
    for (const section of sections) {
      // What has not changed keeps its nodes, and with them focus, selection and scrolling.
      const written = JSON.stringify(data[section.name] ?? null);
      if (section.written === written) continue;
      section.written = written;
      const drawn = drawings(data)[section.name]();
      section.node.hidden = !drawn;
      section.node.replaceChildren(...(drawn ? [drawn] : []));
    }
  }
  watch(["content", "notice"], refresh);
  refresh();
}

/**
 * How each section is drawn; null where there is nothing to draw.
 * @param {Run & { head: { title: string, note?: string } | null }} run
 * @returns {Record<typeof SECTIONS[number], () => HTMLElement | null>}
 */
function drawings({ head, facts, parts, table, samples }) {
  return {
    head: () => head && drawHead(head),
    facts: () => (facts?.length ? drawFacts(facts) : null),
    parts: () => (parts?.length ? add(make("div", "fl-parts"), ...parts.map(partCard)) : null),
    table: () => (table?.length ? drawTable(table) : null),
    samples: () => (samples?.length ? drawSamples(samples) : null),
  };
}

/** @param {{ title: string, note?: string }} head */
function drawHead({ title, note }) {
  const line = make("h3", "fl-run-title", title);
  return add(make("div"), line, note ? make("p", "fl-run-note", note) : null);
}

/** @param {[label: string, value: string][]} facts */
function drawFacts(facts) {
  const list = make("dl", "fl-facts");
  for (const [label, value] of facts) add(list, make("dt", "", label), make("dd", "", value));
  return add(make("article", "fl-card"), list);
}

/** @param {number} seconds */
function minutes(seconds) {
  return seconds < 90 ? Math.round(seconds) + " s" : Math.round(seconds / 60) + " min";
}

/** @param {Progress} part */
function partLine({ stage, state, live, step, steps, left }) {
  const words = [];
  if (live && stage && stage !== state) words.push(stage);
  if (steps) words.push("step " + step.toLocaleString("en") + " of " + steps.toLocaleString("en"));
  if (live && steps && left !== null) words.push("about " + minutes(left) + " left");
  return words.join(" · ");
}

/** @param {Progress} progress */
function partCard(progress) {
  const { part, label, state, live, share, message } = progress;
  const className = "fl-card fl-" + state + (live ? " fl-live" : "");
  const card = make("article", className, null, { "data-part": part, "data-state": state });
  card.style.setProperty("--fl-hue", HUES[part]);
  const title = add(cardTitle("h3", label, HUES[part]), make("span", "fl-state", state));
  const bar = make("span", "fl-progress", null, {
    role: "progressbar",
    "aria-label": label,
    "aria-valuemin": 0,
    "aria-valuemax": 100,
    "aria-valuenow": Math.round(100 * share),
  });
  const fill = make("i");
  fill.style.width = 100 * share + "%";
  add(card, title, add(bar, fill), make("p", "fl-run-line", partLine(progress)));
  return add(card, message ? make("p", "fl-run-line fl-fault", message) : null);
}

/**
 * @param {"h3" | "h4"} tag
 * @param {string} text
 * @param {string} color
 */
function cardTitle(tag, text, color) {
  return add(make(tag), dot(color), make("span", "", text));
}

/**
 * @param {number} before
 * @param {number} after
 */
function change(before, after) {
  const share = (100 * (after - before)) / before;
  return (share > 0 ? "+" : share < 0 ? "−" : "±") + Math.abs(share).toFixed(1) + " %";
}

/**
 * @param {number} before
 * @param {number | null} after
 * @param {number} best
 */
function afterCell(before, after, best) {
  const cell = make("td", after === best ? "fl-best" : "", figure(after, 3));
  return add(cell, after === null ? null : make("small", "", change(before, after)));
}

/** @param {Comparison[]} rows */
function drawTable(rows) {
  const hasBaseline = rows.some(([, , baseline]) => baseline !== null);
  const heads = ["held-out text", "before", ...(hasBaseline ? ["text alone"] : []), "fused"];
  const cells = rows.map(([text, before, baseline, fused]) => {
    const best = Math.min(before, baseline ?? Infinity, fused ?? Infinity);
    const first = make("td", before === best ? "fl-best" : "", figure(before, 3));
    const second = hasBaseline ? [afterCell(before, baseline, best)] : [];
    return [text, first, ...second, afterCell(before, fused, best)];
  });
  const table = makeTable(heads, cells);
  if (rows.length > 1) table.rows[rows.length].className = "fl-mean";
  const region = { tabindex: "0", role: "region", "aria-label": "before and after" };
  const box = add(make("div", "fl-scroll", null, region), table);
  const saves = saveButtons("before_after", { picture: () => box, rows: () => plainRows(rows) });
  const title = add(make("h3"), make("span", "", "Before and after"), saves);
  const note = make("p", "fl-note", "bits per byte; lower is better");
  return add(make("article", "fl-card"), add(make("header"), title, note), box);
}

/** @param {Comparison[]} rows */
function plainRows(rows) {
  /** @type {(before: number, after: number | null) => string} */
  const shift = (before, after) => (after === null ? "" : (100 * (after / before - 1)).toFixed(2));
  const percent = "change in percent";
  return [
    ["text", "before", "text alone", percent, "fused", percent],
    ...rows.map(([text, before, baseline, fused]) => [
      text, before, baseline, shift(before, baseline), fused, shift(before, fused),
    ]),
  ];
}

/** @param {Sample[]} samples */
function drawSamples(samples) {
  const list = make("div", "fl-samples");
  for (const { prompt, texts } of samples) {
    const columns = make("div", "fl-written");
    for (const [part, label, text] of texts) {
      const title = cardTitle("h4", label, HUES[part]);
      add(columns, add(make("div"), title, make("p", "fl-writes", text, { dir: "auto" })));
    }
    const card = make("article", "fl-card");
    add(list, add(card, make("p", "fl-prompt", prompt, { dir: "auto" }), columns));
  }
  return list;
}
