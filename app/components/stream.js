// Columns that grow: what is new is added, what is there stays, so that focus and selection do too.

const root = element.querySelector(".fuselab-view");
const state = { head: null, first: null, read: 0, columns: [], notice: null };
const ROLES = { fused: "fused", target: "target", source: "source", trained: "trained here" };
const ENDS = { length: "length reached", stop: "ended", failed: "failed", stopped: "stopped" };
ENDS["end of text"] = "ended by itself";

const ui = {};
ui.status = noticeLine();
ui.columns = make("div", "fl-stage");
ui.fused = make("div", "fl-row");
ui.others = make("div", "fl-row fl-side-by-side");
ui.twin = make("details", "fl-twin");
ui.twinBox = make("div", "fl-twin-box", null, { tabindex: "0", role: "region", "aria-label": "tokens as a table" });
ui.tip = make("div", "fl-tip", "", { role: "tooltip", hidden: "" });
ui.bar = make("div", "fl-tools", null, { hidden: "" });
ui.help = make("span", "fl-help", "Point at a token, or walk with ← → Home End, to see why it was chosen");
add(ui.columns, ui.fused, ui.others);
add(ui.bar, ui.status, ui.help, saveButtons("continuations", { picture: drawn, rows: () => [twinHead(), ...twinRows()] }));
add(ui.twin, make("summary", "", "The same as a table"), saveButtons("continuation_tokens", { rows: () => [twinHead(), ...twinRows()] }), ui.twinBox);
add(root, ui.bar, ui.columns, ui.twin, ui.tip);
ui.twin.hidden = true;

// Marks of winners are backgrounds, which a picture has only where they are boxes.
function drawn() {
  const frame = ui.columns.getBoundingClientRect();
  const marks = make("div", "fl-marks");
  for (const node of ui.fused.querySelectorAll(".fl-won")) {
    for (const box of node.getClientRects()) {
      const mark = make("i");
      mark.style.background = node.style.getPropertyValue("--fl-hue");
      mark.style.left = box.left - frame.left + "px";
      mark.style.top = box.bottom - frame.top - 2 + "px";
      mark.style.width = Math.max(1, box.width - 1) + "px";
      add(marks, mark);
    }
  }
  add(ui.columns, marks);
  setTimeout(() => marks.remove(), 0);
  return ui.columns;
}

function begin(head) {
  hideTip();
  state.head = head;
  state.columns = head.columns.map(([title, role, source]) => ({ title, role, source, steps: [], end: "", rate: 0, wins: [] }));
  ui.fused.replaceChildren();
  ui.others.replaceChildren();
  state.columns.forEach((column, i) => add(isFused(column) ? ui.fused : ui.others, makeColumn(column, i)));
  ui.bar.classList.add("fl-written");
  ui.twin.hidden = false;
}

function makeColumn(column, index) {
  const card = make("article", "fl-card fl-writer", null, { "aria-label": column.title });
  card.dataset.column = index;
  card.dataset.role = column.role;
  const dot = make("i", "fl-dot");
  if (column.source >= 0) dot.style.background = hue(column.source);
  const head = add(make("h3"), dot, make("span", "", column.title));
  if (!isFused(column)) add(head, make("small", "", ROLES[column.role]));
  let about = null;
  if (isFused(column)) {
    const voices = state.head.voices.map((voice) => voice[0]).join(", ");
    about = make("p", "", voices + " by " + state.head.operator + ", in " + state.head.target + "’s tokens");
    column.legend = make("ul", "fl-legend", null, { "aria-label": "who won how many tokens" });
  }
  column.text = make("div", "fl-text", null, { role: "listbox", "aria-label": "tokens of " + column.title, "aria-orientation": "horizontal", dir: "auto" });
  column.fault = make("p", "fl-fault", "", { hidden: "" });
  column.foot = make("footer", "", "", { title: "tokens a second of its own time" });
  const shown = make("div", "fl-page", null, { dir: "auto" });
  if (isFused(column)) add(shown, make("span", "fl-prompt", lastOf(state.head.prompt), { title: "the prompt" }));
  column.card = card;
  return add(card, add(make("header"), head, about, column.legend), add(shown, column.text), column.fault, column.foot);
}

function lastOf(prompt) {
  const characters = Array.from(prompt);
  return characters.length > 160 ? "…" + characters.slice(-80).join("") : prompt;
}

function take(batch) {
  const fresh = new Map();
  for (const [index, step] of batch.steps) {
    const column = state.columns[index];
    if (!fresh.has(column)) fresh.set(column, document.createDocumentFragment());
    column.steps.push(step);
    const node = makeToken(column, column.steps.length - 1);
    if (column.steps.length === 1) node.tabIndex = 0;
    fresh.get(column).appendChild(node);
    if (isFused(column) && step[WINNER] >= 0) column.wins[step[WINNER]] = (column.wins[step[WINNER]] || 0) + 1;
  }
  for (const [column, nodes] of fresh) column.text.appendChild(nodes);
  for (const [index, end, sentence] of batch.ends) {
    const column = state.columns[index];
    column.end = end;
    column.fault.textContent = sentence;
    column.fault.hidden = !sentence;
  }
  batch.rates.forEach((rate, i) => (state.columns[i].rate = rate));
}

function tell() {
  for (const column of state.columns) {
    const running = !column.end;
    column.card.classList.toggle("fl-running", running);
    const parts = [column.steps.length + (running ? " of " + state.head.most : "") + (column.steps.length === 1 ? " token" : " tokens")];
    if (column.rate) parts.push((column.rate < 10 ? column.rate.toFixed(1) : Math.round(column.rate)) + "/s");
    if (!running) parts.push(ENDS[column.end] || column.end);
    column.foot.textContent = parts.join(" · ");
    if (column.legend) tellWins(column);
  }
}

function tellWins(column) {
  if (!column.legend.children.length) {
    for (const voice of state.head.voices) {
      const dot = make("i", "fl-dot");
      dot.style.background = voiceHue(voice);
      add(column.legend, add(make("li"), dot, make("span", "", "")));
    }
    add(column.legend, make("li"));
  }
  const won = column.wins.length > 0;
  state.head.voices.forEach((voice, i) => {
    column.legend.children[i].lastChild.textContent = voice[0] + (won ? " " + (column.wins[i] || 0) : "");
  });
  if (column.steps.length) column.legend.lastChild.textContent = won ? "underlined in the colour of each token’s winner" : "all count alike: no token has a winner";
}

function walk(event) {
  const node = event.target.closest(".fl-word");
  if (!node || event.ctrlKey || event.metaKey || event.altKey) return;
  const words = node.parentElement.children;
  const at = Number(node.dataset.index);
  const goals = { ArrowLeft: at - 1, ArrowRight: at + 1, ArrowUp: at - 1, ArrowDown: at + 1, Home: 0, End: words.length - 1 };
  if (!(event.key in goals)) return;
  event.preventDefault();
  const goal = words[Math.min(Math.max(goals[event.key], 0), words.length - 1)];
  goal.focus();
}

function focused(event) {
  const node = event.target.closest(".fl-word");
  if (!node) return;
  for (const other of node.parentElement.querySelectorAll('[tabindex="0"]')) {
    other.tabIndex = -1;
    other.setAttribute("aria-selected", "false");
  }
  node.tabIndex = 0;
  node.setAttribute("aria-selected", "true");
  const column = state.columns[Number(node.closest(".fl-writer").dataset.column)];
  node.setAttribute("aria-label", tokenWords(column, Number(node.dataset.index)));
  showTip(event);
}

ui.columns.addEventListener("keydown", walk);
ui.columns.addEventListener("focusin", focused);
ui.columns.addEventListener("focusout", hideTip);
ui.columns.addEventListener("pointerover", showTip);
ui.columns.addEventListener("pointerleave", leaveTip);
document.addEventListener("keydown", function leave(event) {
  if (!root.isConnected) document.removeEventListener("keydown", leave);
  else if (event.key === "Escape") hideTip();
});
ui.twin.addEventListener("toggle", fillTwin);

function readContent() {
  const text = props.content;
  const first = text.slice(0, text.indexOf("\n"));
  if (first !== state.first) {
    state.first = first;
    begin(JSON.parse(first));
    state.read = first.length + 1;
  }
  const end = text.lastIndexOf("\n") + 1;
  for (const line of text.slice(state.read, end).split("\n")) if (line) take(JSON.parse(line));
  state.read = Math.max(state.read, end);
  tell();
}

function readNotice() {
  const told = props.notice;
  const same = state.notice && told && told.kind === state.notice.kind && told.text === state.notice.text;
  if (!told || same) return;
  // Stop, where nothing is going on, changes nothing.
  if (told.stopped && state.notice && state.notice.kind !== BUSY) return;
  state.notice = told;
  ui.bar.hidden = false;
  ui.status.show(told);
  if (told.kind === BUSY) return;
  for (const column of state.columns) if (!column.end) column.end = ENDS.stopped;
  tell();
  fillTwin();
}

const BUSY = "busy";
function refresh() {
  if (props.content) readContent();
  readNotice();
}
watch(PROPS, refresh);
refresh();
