// Everything that comes from a text, a vocabulary or a file name passes through here as textContent.

/** @import { Notice } from "./gradio" */

/**
 * Makes an element.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {string} [className]
 * @param {string | number | null} [text]
 * @param {Record<string, string | number | boolean>} [attributes]
 */
export function make(tag, className, text, attributes = {}) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined && text !== null) node.textContent = String(text);
  for (const name in attributes) node.setAttribute(name, String(attributes[name]));
  return node;
}

/**
 * Appends those children that there are.
 * @template {Node} T
 * @param {T} parent
 * @param {...(Node | null | undefined)} children
 */
export function add(parent, ...children) {
  for (const child of children) if (child) parent.appendChild(child);
  return parent;
}

/**
 * The element that a selector names below a node, which is there.
 * @param {ParentNode} parent
 * @param {string} selector
 */
export function find(parent, selector) {
  return /** @type {HTMLElement} */ (parent.querySelector(selector));
}

/**
 * All elements that a selector names below a node.
 * @param {ParentNode} parent
 * @param {string} selector
 * @returns {NodeListOf<HTMLElement>}
 */
export function all(parent, selector) {
  return parent.querySelectorAll(selector);
}

/**
 * The element around an event's target that a selector names.
 * @param {Event} event
 * @param {string} selector
 * @returns {HTMLElement | null}
 */
export function around(event, selector) {
  return event.target instanceof Element ? event.target.closest(selector) : null;
}

/** @param {KeyboardEvent} event */
export function withModifier(event) {
  return event.ctrlKey || event.metaKey || event.altKey;
}

/** @param {number} share */
export function percent(share) {
  return (100 * share).toFixed(1);
}

/**
 * @param {number | null | undefined} value
 * @param {number} digits
 */
export function figure(value, digits) {
  return value === null || value === undefined ? "–" : value.toFixed(digits);
}

/**
 * Colour of a source. Colours repeat after six; names stand beside every colour.
 * @param {number} index
 */
export function hue(index) {
  return "var(--fl-source-" + (index % 6) + ")";
}

/** What stands in a winner's place where no source has won. */
export const ALIKE = -1;
export const TARGET_ROW = -2;
/** @type {Record<number, string>} */
const NO_WINNER = { [ALIKE]: "all alike", [TARGET_ROW]: "the target's own row" };

/**
 * Name of a winner.
 * @param {number} winner
 * @param {string[]} names
 */
export function winnerName(winner, names) {
  return winner < 0 ? NO_WINNER[winner] : names[winner];
}

/** @param {Uint8Array} bytes */
export function hexBytes(bytes) {
  const shown = Array.from(bytes.slice(0, 24), (b) => b.toString(16).toUpperCase().padStart(2, "0"));
  return shown.join(" ") + (bytes.length > 24 ? " …" : "");
}

/**
 * @param {string} text
 * @param {string} title
 * @param {() => void} action
 */
export function button(text, title, action) {
  const node = make("button", "", text, { type: "button", title });
  node.addEventListener("click", action);
  return node;
}

/**
 * Makes a dot, in a colour where one is given.
 * @param {string} [color]
 */
export function dot(color) {
  const node = make("i", "fl-dot");
  if (color) node.style.background = color;
  return node;
}

/** Makes a line that shows a panel's notice; while work goes on, with the seconds it takes. */
export function noticeLine() {
  const node = make("p", "fl-status", "", { role: "status", "aria-live": "polite" });
  /** @type {ReturnType<typeof setInterval> | undefined} */
  let clock;
  /** @param {Notice} notice */
  function show(notice) {
    clearInterval(clock);
    node.className = "fl-status fl-" + notice.kind;
    node.setAttribute("role", notice.kind === "error" ? "alert" : "status");
    node.textContent = notice.text;
    if (notice.kind !== "busy") return;
    const seconds = make("span", "fl-seconds", "", { "aria-hidden": "true" });
    const begun = Date.now();
    node.appendChild(seconds);
    clock = setInterval(() => {
      if (!node.isConnected) clearInterval(clock);
      else seconds.textContent = " " + Math.round((Date.now() - begun) / 1000) + " s";
    }, 1000);
  }
  return { node, show };
}

/**
 * Makes a table of rows of cells; a cell is text, a number, or a node.
 * @param {string[]} heads
 * @param {(string | number | null | HTMLElement)[][]} rows
 */
export function makeTable(heads, rows) {
  const table = make("table");
  const head = make("tr");
  for (const title of heads) add(head, make("th", "", title, { scope: "col" }));
  const body = make("tbody");
  for (const cells of rows) {
    const row = make("tr");
    for (const cell of cells) add(row, cell instanceof Node ? cell : make("td", "", cell));
    add(body, row);
  }
  return add(table, add(make("thead"), head), body);
}

/** @param {string} name */
export function shortName(name) {
  const [plain, ...asked] = name.split("?");
  const short = plain.replace(/[/\\]+$/, "").split(/[/\\]/).pop()?.replace(/^zoo:/, "");
  return short ? [short, ...asked].join("?") : name;
}

/** Makes a tip that hangs from what is pointed at. */
export function makeTip() {
  return make("div", "fl-tip", "", { role: "tooltip", hidden: "" });
}

/**
 * Hangs a tip from a node, within the frame of the drawing.
 * @param {HTMLElement} tip
 * @param {Element} node
 * @param {Element} frame
 */
export function hang(tip, node, frame) {
  tip.hidden = false;
  const box = node.getBoundingClientRect();
  const outer = frame.getBoundingClientRect();
  tip.style.left = Math.min(Math.max(0, box.left - outer.left), outer.width - tip.offsetWidth) + "px";
  tip.style.top = box.bottom - outer.top + 8 + "px";
}
