// One token of a column: what it shows, what is said about it, and its row in the table.

const [TEXT, CHANCE, ENTROPY, WINNER, WEIGHTS, TOKEN, LABEL] = [0, 1, 2, 3, 4, 5, 6];

function voiceHue(voice) {
  return voice && voice[1] >= 0 ? hue(voice[1]) : "var(--fl-fill)";
}

function winnerName(step) {
  const voice = state.head.voices[step[WINNER]];
  return voice ? voice[0] : "none, all count alike";
}

function isFused(column) {
  return column.role === "fused";
}

// A line end is shown as a sign that is not part of the text.
function makeToken(column, index) {
  const step = column.steps[index];
  const node = make("span", "fl-word", null, { role: "option", tabindex: "-1", "aria-selected": "false" });
  node.dataset.index = index;
  step[TEXT].split("\n").forEach((part, n) => {
    if (n) add(node, make("i", "fl-return", null, { "aria-hidden": "true" }), document.createTextNode("\n"));
    if (part) add(node, document.createTextNode(part));
  });
  // Bytes of an unfinished character, and the end of the text, have a place without a text.
  if (!step[TEXT]) node.classList.add("fl-silent");
  if (isFused(column)) {
    const voice = state.head.voices[step[WINNER]];
    node.classList.add("fl-won");
    node.style.setProperty("--fl-hue", voice ? voiceHue(voice) : "transparent");
  }
  return node;
}

function tokenWords(column, index) {
  const step = column.steps[index];
  const words = step[LABEL] + ", token " + (index + 1) + ", probability " + percent(step[CHANCE]) + " %, entropy " + figure(step[ENTROPY], 2) + " nats";
  return isFused(column) ? words + ", winner " + winnerName(step) : words;
}

function weightBars(step) {
  const bars = make("ul", "fl-bars fl-weights");
  state.head.voices.forEach((voice, i) => {
    const row = make("li", i === step[WINNER] ? "fl-best" : "");
    const dot = make("i", "fl-dot");
    const bar = make("i");
    dot.style.background = bar.style.background = voiceHue(voice);
    bar.style.width = 100 * step[WEIGHTS][i] + "%";
    const name = add(make("span", "fl-label"), dot, document.createTextNode(voice[0]));
    add(bars, add(row, name, add(make("span", "fl-groove"), bar), make("span", "fl-number", percent(step[WEIGHTS][i]))));
  });
  return bars;
}

function showTip(event) {
  const node = event.target.closest(".fl-word");
  if (node) tipOf(node, event.clientX, event.clientY);
  else leaveTip();
}

// The pointer goes elsewhere: the token that the keyboard stands on has the tip again.
function leaveTip() {
  const held = ui.columns.querySelector(".fl-word:focus");
  if (held && !ui.tip.hidden) tipOf(held);
  else hideTip();
}

function tipOf(node, x, y) {
  const column = state.columns[Number(node.closest(".fl-writer").dataset.column)];
  const step = column.steps[Number(node.dataset.index)];
  ui.tip.replaceChildren(
    make("b", "", step[LABEL] || "no text"),
    make("span", "", "probability " + percent(step[CHANCE]) + " % · entropy " + figure(step[ENTROPY], 2) + " nats"),
    make("span", "fl-aside", column.title + " · token " + (Number(node.dataset.index) + 1) + " · id " + step[TOKEN]),
  );
  if (isFused(column)) add(ui.tip, make("span", "fl-winner", "winner: " + winnerName(step)), weightBars(step));
  ui.tip.hidden = false;
  // A token that wraps has a box in each line: the tip hangs from the one that is pointed at.
  const boxes = Array.from(node.getClientRects());
  const box = boxes.find((b) => y >= b.top && y <= b.bottom && x >= b.left && x <= b.right) || boxes[0];
  const frame = root.getBoundingClientRect();
  const left = Math.min(box.left - frame.left, frame.width - ui.tip.offsetWidth);
  ui.tip.style.left = Math.max(0, left) + "px";
  ui.tip.style.top = box.bottom - frame.top + 7 + "px";
}

function hideTip() {
  ui.tip.hidden = true;
}

function twinHead() {
  const weights = state.head.voices.map((voice) => "weight of " + voice[0]);
  return ["column", "step", "token", "id", "probability", "entropy, nats", "winner", ...weights];
}

function twinRows() {
  const rows = [];
  for (const column of state.columns) {
    column.steps.forEach((step, i) => {
      const won = isFused(column) ? [winnerName(step), ...step[WEIGHTS]] : ["", ...state.head.voices.map(() => "")];
      rows.push([column.title, i + 1, step[LABEL], step[TOKEN], step[CHANCE], step[ENTROPY], ...won]);
    });
  }
  return rows;
}

function fillTwin() {
  if (!state.head || !ui.twin.open) return;
  const rows = twinRows().map((cells) => cells.map((cell, n) => (n === 2 ? make("td", "fl-code", cell) : cell)));
  ui.twinBox.replaceChildren(makeTable(twinHead(), rows));
}
