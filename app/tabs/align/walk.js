// Walking the score: pages and mismatches.

import { openPage, select } from "./selection.js";

/** @import { View } from "./types" */

const MISMATCHES = (1 << 2) | (1 << 3) | (1 << 4);

/**
 * @param {View} view
 * @param {number} step
 */
export function turnPage(view, step) {
  if (!view.score) return;
  const { page, starts } = view.score;
  const next = page + step;
  if (next >= 0 && next < starts.length) openPage(view, view.score, next, starts[next], false);
}

/**
 * Selects the next token that matches as is wanted, on whatever page.
 * @param {View} view
 * @param {number} step
 */
export async function walkMismatch(view, step) {
  if (!view.score) return;
  const wanted = view.only === null ? MISMATCHES : 1 << view.only;
  let score = view.score;
  let local = view.index - score.first + step;
  for (;;) {
    for (; local >= 0 && local < score.kinds.length; local += step) {
      if (score.kinds[local] & wanted) return select(view, score.first + local, true);
    }
    const page = score.page + step;
    if (page < 0 || page >= score.starts.length) {
      const what = view.only === null ? "mismatch" : "one of this kind";
      view.parts.place.textContent = (step > 0 ? "no further " : "no earlier ") + what;
      return;
    }
    const edge = step > 0 ? score.starts[page] : score.starts[page + 1] - 1;
    const opened = await openPage(view, score, page, edge, true);
    if (!opened) return;
    score = opened;
    local = edge - score.first;
  }
}
