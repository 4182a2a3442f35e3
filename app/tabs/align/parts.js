// The nodes of the tab, before there is anything to show.

import { add, button, make, makeTip, noticeLine } from "../../components/dom.js";
import { saveButtons } from "../../components/saves.js";

/** @type {[kind: number, text: string][]} */
const FILTERS = [
  [1, "same bytes (1:1)"],
  [2, "one source token, several target tokens"],
  [3, "several source tokens, one target token"],
  [4, "overlaps"],
  [0, "target token that ends inside every source's token"],
];

/**
 * Makes the nodes of the tab.
 * @param {{
 *   mismatch: (step: number) => void,
 *   page: (step: number) => void,
 *   characters: () => void,
 *   only: (kind: number) => void,
 * }} actions what the buttons do
 */
export function makeParts(actions) {
  const grid = make("div", "fl-score", null, {
    role: "grid",
    "aria-label": "score: the tokens of every model over the same bytes",
  });
  const tools = makeTools(actions, grid);
  const lost = add(
    make("li", "", null, { hidden: "" }),
    make("i", "fl-lost"),
    make("span", "", "bytes that a tokenizer does not reproduce"),
  );
  return {
    ...tools,
    grid,
    lost,
    status: noticeLine(),
    legend: add(makeLegend(actions.only), lost),
    strip: make("div", "fl-strip-box"),
    board: make("section", "fl-board-box", null, { "aria-label": "bits per byte on this text" }),
    cards: make("section", "fl-cards", null, {
      "aria-label": "distributions at the selected token",
      "aria-live": "off",
    }),
    tip: makeTip(),
  };
}

/**
 * @param {Parameters<typeof makeParts>[0]} actions
 * @param {HTMLElement} grid
 */
function makeTools(actions, grid) {
  const bar = make("div", "fl-tools", null, { role: "toolbar", "aria-label": "walk the score" });
  const previous = button("‹ mismatch", "previous mismatch (Shift+N)", () => actions.mismatch(-1));
  const next = button("mismatch ›", "next mismatch (N)", () => actions.mismatch(1));
  const back = button("« page", "previous page (Page Up)", () => actions.page(-1));
  const forth = button("page »", "next page (Page Down)", () => actions.page(1));
  const characters = button(
    "next characters",
    "show this position as the next character, on which all models can be compared (C)",
    actions.characters,
  );
  characters.setAttribute("aria-pressed", "false");
  const place = make("span", "fl-place");
  const keys = "Click a token, or walk with ← → Home End; N: next mismatch; C: characters";
  const help = make("span", "fl-help", keys);
  const saves = saveButtons("alignment", { picture: () => grid });
  add(bar, previous, next, back, forth, characters, place, help, saves);
  return { bar, previous, next, back, forth, characters, place };
}

/** @param {(kind: number) => void} only */
function makeLegend(only) {
  const legend = make("ul", "fl-legend", null, {
    "aria-label": "kinds of match: choose one to see it alone",
  });
  for (const [kind, text] of FILTERS) {
    const filter = button("", "show only this kind", () => only(kind));
    filter.className = "fl-filter";
    filter.dataset.kind = String(kind);
    filter.setAttribute("aria-pressed", "false");
    const sign = make("i", "fl-token " + (kind ? "fl-k" + kind : "fl-inside"));
    add(legend, add(make("li"), add(filter, sign, make("span", "", text))));
  }
  return legend;
}
