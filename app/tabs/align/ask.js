// What is known of the selected token: its cards, and what its position is as next characters.

import { saveButtons } from "../../components/saves.js";
import { drawCards, drawCharacters } from "./cards.js";
import { sourceNames } from "./tokens.js";

/** @import { Cards, Characters, Question, Score, View } from "./types" */

const KEPT = 256; // answers

/**
 * Asks for the selected token's cards. One question at a time; a burst of keys leaves only its last
 * token to be asked for.
 * @param {View} view
 */
export async function askCards(view) {
  if (!view.score) return;
  const { index, characters } = view;
  const question = { id: view.score.id, index, characters };
  const known = view.cards.get(keyOf(question));
  if (known) return showCards(view, view.score, known);
  view.asked = question;
  if (view.asking) return;
  view.asking = true;
  try {
    while (view.asked) {
      const asked = view.asked;
      view.asked = null;
      await answer(view, asked);
    }
  } catch {
    forgotten(view);
  } finally {
    view.asking = false;
  }
}

/**
 * @param {View} view
 * @param {Question} question
 */
async function answer(view, question) {
  const { server } = view;
  const found = await (question.characters
    ? server.read_characters(question)
    : server.read_cards(question));
  if (view.score?.id !== question.id) return;
  if (!found) {
    forgotten(view);
  } else if ("wait" in found) {
    if (view.characters && !view.waiting) view.trigger("characters");
    view.waiting = true;
  } else {
    if (view.cards.size > KEPT) view.cards.clear();
    view.cards.set(keyOf(question), found);
    if (question.index === view.index && question.characters === view.characters) {
      showCards(view, view.score, found);
    }
  }
}

/** @param {Question} question */
function keyOf({ index, characters }) {
  return (characters ? "c" : "t") + index;
}

/** @param {View} view */
export function forgotten({ parts }) {
  const text = "The server no longer has this analysis: press Analyse to read the text again.";
  parts.status.show({ kind: "error", text });
}

/**
 * @param {View} view
 * @param {Score} score
 * @param {Cards | Characters} answered
 */
function showCards({ parts: { cards } }, score, answered) {
  const hasCharacters = "labels" in answered;
  const saves = saveButtons("distributions_" + (answered.index + 1), {
    picture: () => cards,
    rows: () => (hasCharacters ? characterRows(answered) : cardRows(answered)),
  });
  const names = sourceNames(score.lanes);
  cards.replaceChildren(hasCharacters ? drawCharacters(answered) : drawCards(answered, names), saves);
  cards.dataset.index = String(answered.index);
  cards.dataset.shows = hasCharacters ? "characters" : "tokens";
}

/** @param {Characters} found */
function characterRows({ labels, readers }) {
  const head = ["reader", "role", ...labels.map(([label]) => label), "other", "end of text", "unknown"];
  return [head, ...readers.map((r) => [r.name, r.role, ...r.shares, r.other, r.end, r.unknown])];
}

/** @param {Cards} found */
function cardRows({ sources, target, fused }) {
  /** @type {import("../../components/saves.js").Rows} */
  const rows = [["row", "token", "share", "follows in the text"]];
  /** @type {(title: string, row: import("./types").Row) => void} */
  const put = (title, row) => {
    for (const [label, share, seen] of row.bars) rows.push([title, label, share, seen ? "yes" : ""]);
    rows.push([title, "tail", row.tail, ""]);
  };
  for (const source of sources) {
    if (source.own) put(source.name + ": own tokens", source.own);
    put(source.name + ": carried over", source.carried);
    rows.push([source.name + ": carried over", "kept mass", source.kept, ""]);
  }
  put(target.name, target.row);
  put("fused", fused.row);
  return rows;
}

/**
 * Shows the selected position as next characters, or as tokens again.
 * @param {View} view
 */
export function switchCharacters(view) {
  view.characters = !view.characters;
  view.parts.characters.setAttribute("aria-pressed", String(view.characters));
  askCards(view);
}
