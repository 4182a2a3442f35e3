// The tokens of a drawing once more, as a table that all can read and save.

import { add, make, makeTable } from "./dom.js";
import { saveButtons } from "./saves.js";

/**
 * Makes a table that is filled when it is opened.
 * @param {string} name name of the file that it is saved as
 * @param {() => string[]} heads
 * @param {() => (string | number)[][]} rows
 * @param {(column: number) => boolean} isCode whether a column holds tokens
 */
export function makeTableView(name, heads, rows, isCode) {
  const node = make("details", "fl-table-view", null, { hidden: "" });
  const region = { tabindex: "0", role: "region", "aria-label": "tokens as a table" };
  const box = make("div", "fl-table-view-box", null, region);
  const summary = make("summary", "", "The same as a table");
  add(node, summary, saveButtons(name, { rows: () => [heads(), ...rows()] }), box);
  function fill() {
    if (!node.open || node.hidden) return;
    const cells = rows().map((row) =>
      row.map((cell, n) => (isCode(n) ? make("td", "fl-code", cell) : cell)),
    );
    box.replaceChildren(makeTable(heads(), cells));
  }
  node.addEventListener("toggle", fill);
  return { node, fill };
}
