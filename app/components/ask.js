// What is known of the selected token: its cards, and what its position is as next characters.

// One question at a time; a burst of keys leaves only its last token to be asked for.
async function askCards() {
  const { id } = state.score;
  const known = state.cards.get(cardKey(state.characters, state.index));
  if (known) return showCards(known);
  state.asked = { id, index: state.index, characters: state.characters };
  if (state.busy) return;
  state.busy = true;
  try {
    while (state.asked) {
      const question = state.asked;
      state.asked = null;
      const answer = await (question.characters ? server.read_characters(question) : server.read_cards(question));
      if (state.score.id !== question.id) continue;
      if (!answer) {
        forgotten();
      } else if (answer.wait) {
        if (state.characters && !state.waiting) trigger("characters");
        state.waiting = true;
      } else {
        if (state.cards.size > 256) state.cards.clear();
        state.cards.set(cardKey(question.characters, question.index), answer);
        if (question.index === state.index && question.characters === state.characters) showCards(answer);
      }
    }
  } catch (error) {
    forgotten();
  } finally {
    state.busy = false;
  }
}

function cardKey(characters, index) {
  return (characters ? "c" : "t") + index;
}

function forgotten() {
  ui.status.show({ kind: "error", text: "The server no longer has this analysis: press Analyse to read the text again." });
}

function showCards(answer) {
  const drawn = state.characters ? drawCharacters(answer) : drawCards(answer);
  ui.cards.replaceChildren(drawn, saveButtons("distributions_" + (answer.index + 1), { picture: () => ui.cards, rows: () => cardRows(answer) }));
  ui.cards.dataset.index = answer.index;
  ui.cards.dataset.shows = state.characters ? "characters" : "tokens";
}

function cardRows(answer) {
  if (answer.labels) {
    const head = ["reader", "role", ...answer.labels.map(([label]) => label), "other", "end of text", "unknown"];
    return [head, ...answer.readers.map((r) => [r.name, r.role, ...r.shares, r.other, r.end, r.unknown])];
  }
  const rows = [["row", "token", "share", "follows in the text"]];
  const put = (title, row) => {
    for (const [label, share, seen] of row.bars) rows.push([title, label, share, seen ? "yes" : ""]);
    rows.push([title, "tail", row.tail, ""]);
  };
  for (const source of answer.sources) {
    if (source.own) put(source.name + ": own tokens", source.own);
    put(source.name + ": carried over", source.carried);
    rows.push([source.name + ": carried over", "kept mass", source.kept, ""]);
  }
  put(answer.target.name, answer.target.row);
  put("fused", answer.fused.row);
  return rows;
}

function showCharacters() {
  state.characters = !state.characters;
  ui.characters.setAttribute("aria-pressed", String(state.characters));
  if (state.score) askCards();
}
