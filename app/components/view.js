// State and events. The selection lives in the component's value; everything else is a drawing.

const root = element.querySelector(".fuselab-view");
const state = { score: null, index: 0, systems: [], cards: new Map(), asked: null, busy: false, room: 0, only: null, characters: false };

const ui = {};
ui.status = noticeLine();
ui.bar = make("div", "fl-tools", null, { role: "toolbar", "aria-label": "walk the score" });
ui.grid = make("div", "fl-score", null, { role: "grid", "aria-label": "score: the tokens of every model over the same bytes" });
ui.legend = make("ul", "fl-legend");
ui.strip = make("div", "fl-strip-box");
ui.board = make("section", "fl-board-box", null, { "aria-label": "bits per byte on this text" });
ui.cards = make("section", "fl-cards", null, { "aria-label": "distributions at the selected token", "aria-live": "off" });
ui.twin = make("details", "fl-twin");
ui.tip = make("div", "fl-tip", "", { role: "tooltip", hidden: "" });
add(root, ui.status, ui.bar, ui.grid, ui.legend, ui.strip, ui.cards, ui.board, ui.twin, ui.tip);

ui.previous = button("‹ mismatch", "previous mismatch (Shift+N)", () => walkMismatch(-1));
ui.next = button("mismatch ›", "next mismatch (N)", () => walkMismatch(1));
ui.back = button("« page", "previous page (Page Up)", () => turnPage(-1));
ui.forth = button("page »", "next page (Page Down)", () => turnPage(1));
ui.characters = button("next characters", "show this position as the next character, on which all models can be compared (C)", showCharacters);
ui.characters.setAttribute("aria-pressed", "false");
ui.place = make("span", "fl-place");
ui.help = make("span", "fl-help", "Click a token, or walk with ← → Home End; N: next mismatch; C: characters");
ui.saves = saveButtons("alignment", { picture: () => ui.grid });
add(ui.bar, ui.previous, ui.next, ui.back, ui.forth, ui.characters, ui.place, ui.help, ui.saves);

ui.legend.setAttribute("aria-label", "kinds of match: choose one to see it alone");
for (const [kind, text] of [[1, "same bytes (1:1)"], [2, "one source token, several target tokens"], [3, "several source tokens, one target token"], [4, "overlaps"], [0, "target token that ends inside every source's token"]]) {
  const filter = button("", "show only this kind", () => showOnly(kind));
  filter.className = "fl-filter";
  filter.dataset.kind = kind;
  filter.setAttribute("aria-pressed", "false");
  add(filter, make("i", "fl-token " + (kind ? "fl-k" + kind : "fl-inside")), make("span", "", text));
  add(ui.legend, add(make("li"), filter));
}

ui.loss = add(make("li", "", null, { hidden: "" }), make("i", "fl-lost"), make("span", "", "bytes that a tokenizer does not reproduce"));
ui.legend.appendChild(ui.loss);

function showScore(score, index) {
  if (!score) return;
  if (!state.score || state.score.id !== score.id) state.cards.clear();
  state.index = index;
  score.width = score.axis.reduce((sum, cell) => sum + cell[1], 0);
  state.score = score;
  state.bytes = new TextEncoder().encode(score.text);
  const drawn = draw();
  ui.loss.hidden = !score.lanes.some((lane) => lane.lost.length);
  drawStrip();
  drawTwin();
  const note = make("p", "fl-note", "bits per byte on this text; lower is better");
  const rows = () => [["model", "role", "bits per byte"], ...score.board.map((row) => [row.name, row.role, row.bits])];
  add(note, saveButtons("bits_per_byte", { picture: () => ui.board, rows }));
  ui.board.replaceChildren(note, drawBoard(score.board));
  const pages = score.starts.length > 1;
  ui.back.hidden = ui.forth.hidden = !pages;
  ui.back.disabled = score.page === 0;
  ui.forth.disabled = score.page === score.starts.length - 1;
  if (drawn) select(index, false);
}

function draw() {
  const score = state.score;
  const width = ui.grid.clientWidth;
  if (!score || !width) return false; // drawn when it is shown
  const label = parseFloat(getComputedStyle(root).getPropertyValue("--fl-label")) || 120;
  state.room = Math.max(8, Math.floor((width - label - 30) / CELL));
  state.width = width;
  const systems = cutSystems(score, state.room).map((s, i) => drawSystem(score, s, i, label));
  state.systems = systems;
  ui.grid.replaceChildren(...systems.map((system) => system.node));
  state.byLink = new Map();
  for (const node of ui.grid.querySelectorAll(".fl-target .fl-token[data-link]")) {
    const link = Number(node.dataset.link);
    if (!state.byLink.has(link)) state.byLink.set(link, []);
    state.byLink.get(link).push(node);
  }
  state.byToken = new Map();
  for (const node of ui.grid.querySelectorAll(".fl-lane:not(.fl-target) .fl-token")) {
    const key = node.dataset.lane + "/" + node.dataset.token;
    if (!state.byToken.has(key)) state.byToken.set(key, []);
    state.byToken.get(key).push(node);
  }
  if (state.only !== null) dim();
  return true;
}

function select(index, focus) {
  const score = state.score;
  index = Math.min(Math.max(index, 0), score.total - 1);
  const local = index - score.first;
  if (local < 0 || local >= score.winners.length) return openPage(pageOf(index), index, focus);
  state.index = index;
  for (const node of ui.grid.querySelectorAll(".fl-selected, .fl-ring")) {
    node.classList.remove("fl-selected", "fl-ring");
    if (node.hasAttribute("aria-selected")) node.setAttribute("aria-selected", "false");
    node.tabIndex = -1;
  }
  const nodes = state.byLink.get(local) || [];
  for (const node of nodes) {
    node.classList.add("fl-selected");
    node.setAttribute("aria-selected", "true");
  }
  if (nodes[0]) nodes[0].tabIndex = 0;
  if (focus && nodes[0]) nodes[0].focus({ preventScroll: true });
  if (nodes[0]) reveal(nodes[0]);
  ring(local);
  for (const cell of ui.strip.querySelectorAll(".fl-selected")) cell.classList.remove("fl-selected");
  if (ui.stripCells[local]) ui.stripCells[local].classList.add("fl-selected");
  const token = targetTokens()[local];
  ui.place.textContent = "token " + (index + 1) + " of " + score.total + (token ? "  " + token[6] : "");
  const held = props.value;
  if (!held || held.id !== score.id || held.index !== index) props.value = { id: score.id, index };
  askCards();
}

function targetTokens() {
  return state.score.lanes[state.score.lanes.length - 1].tokens.filter((token) => token[7] >= 0);
}

function ring(local) {
  const token = targetTokens()[local];
  for (const system of state.systems) {
    const shown = token && token[1] > system.from && token[0] < system.to;
    system.band.hidden = !shown;
    if (shown) place(system.band, token[0], token[1], [system.from, system.to]);
  }
  state.score.rings.forEach((row, lane) => {
    const at = row[local];
    const nodes = at === -1 ? ui.grid.querySelectorAll('[data-start="' + lane + '"]') : state.byToken.get(lane + "/" + at) || [];
    for (const node of nodes) node.classList.add("fl-ring");
  });
}

// Scrolls the score alone: the page under the reader's eyes stays where it is.
function reveal(node) {
  const system = node.closest(".fl-system");
  const top = system.offsetTop;
  if (top < ui.grid.scrollTop) ui.grid.scrollTop = top;
  else if (top + system.offsetHeight > ui.grid.scrollTop + ui.grid.clientHeight) {
    ui.grid.scrollTop = top + system.offsetHeight - ui.grid.clientHeight;
  }
}

function pageOf(index) {
  const starts = state.score.starts;
  let page = 0;
  while (page + 1 < starts.length && starts[page + 1] <= index) page += 1;
  return page;
}

async function openPage(page, index, focus) {
  const id = state.score.id;
  state.opening = { page, index };
  const answer = await server.read_page({ id, page }).catch(() => null);
  if (state.score.id !== id || state.opening.page !== page || state.opening.index !== index) return null;
  if (!answer) return forgotten();
  showScore(answer, index);
  if (focus) select(index, true);
  return answer;
}

root.addEventListener("click", (event) => {
  const hit = event.target.closest("[data-link]");
  if (hit && state.score) select(state.score.first + Number(hit.dataset.link), hit.closest(".fl-score") !== null);
});

ui.grid.addEventListener("keydown", (event) => {
  if (!state.score || event.ctrlKey || event.metaKey || event.altKey) return;
  const steps = { ArrowLeft: -1, ArrowRight: 1 };
  if (event.key in steps) select(state.index + steps[event.key], true);
  else if (event.key === "Home") select(0, true);
  else if (event.key === "End") select(state.score.total - 1, true);
  else if (event.key === "PageUp") turnPage(-1);
  else if (event.key === "PageDown") turnPage(1);
  else if (event.key === "c" || event.key === "C") showCharacters();
  else if (event.key === "n" || event.key === "N") walkMismatch(event.shiftKey ? -1 : 1);
  else return;
  event.preventDefault();
});

ui.grid.addEventListener("pointerover", showTip);
ui.grid.addEventListener("pointerleave", hideTip);
ui.grid.addEventListener("focusin", showTip);
ui.grid.addEventListener("focusout", hideTip);
ui.grid.addEventListener("scroll", hideTip);
ui.cards.addEventListener("pointerover", showOrigins);
ui.cards.addEventListener("pointerleave", hideTip);
ui.cards.addEventListener("focusin", showOrigins);
ui.cards.addEventListener("focusout", hideTip);
root.addEventListener("keydown", (event) => event.key === "Escape" && hideTip());

ui.twin.addEventListener("toggle", () => ui.twin.open && fillTwin());

function refresh() {
  ui.status.show(props.notice || { kind: "busy", text: "Reading …" });
  if (state.waiting && props.notice && props.notice.kind !== BUSY) {
    state.waiting = false;
    if (props.notice.kind === DONE && state.score) askCards();
  }
  if (!props.content || state.shown === props.content) return;
  const score = JSON.parse(props.content);
  const known = state.score && state.score.id === score.id;
  state.shown = props.content;
  if (known) return;
  state.opening = null;
  showScore(score, score.open);
}
const [BUSY, DONE] = ["busy", "done"];
watch(PROPS, refresh);
new ResizeObserver(() => {
  if (state.score && Math.abs(ui.grid.clientWidth - (state.width || 0)) > 4) {
    if (draw()) select(state.index, false);
  }
}).observe(ui.grid);
refresh();
