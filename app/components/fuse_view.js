// The text with its winners, who found what hard, and tables of operators and mappings.

const root = element.querySelector(".fuselab-view");
const state = { view: null, page: 0, at: 0 };
const PAGE = 512;
const ui = {};
ui.status = noticeLine();
ui.text = make("section", "fl-spoken-box", null, { "aria-label": "winner of each target token" });
ui.heat = make("section", "fl-heat-box", null, { "aria-label": "cross-entropy along the text" });
ui.tables = make("section", "fl-tables");
ui.tip = make("div", "fl-tip", "", { role: "tooltip", hidden: "" });
add(root, ui.status, ui.text, ui.heat, ui.tables, ui.tip);

function titled(title, note, ...more) {
  return add(make("div", "fl-title-line"), make("h3", "", title), note ? make("p", "fl-note", note) : null, ...more);
}

function winnerName(winner) {
  return winner === -2 ? "the target's own row" : winner < 0 ? "no single winner" : state.view.names[winner];
}

function drawText() {
  const { tokens, names } = state.view;
  const pages = Math.ceil(tokens.length / PAGE);
  const legend = make("ul", "fl-legend");
  names.forEach((name, i) => {
    const share = tokens.filter((t) => t[1] === i).length / tokens.length;
    const sign = make("span", "fl-won fl-line-" + (i % 6), "abc", { "aria-hidden": "true" });
    sign.style.setProperty("--fl-hue", hue(i));
    add(legend, add(make("li"), sign, make("span", "", name + " " + percent(share) + " %")));
  });
  for (const none of [-1, -2]) {
    const share = tokens.filter((t) => t[1] === none).length / tokens.length;
    if (share) add(legend, add(make("li"), make("i", "fl-dot"), make("span", "", winnerName(none) + " " + percent(share) + " %")));
  }
  const line = make("div", "fl-spoken", null, { role: "listbox", "aria-label": "tokens of the target", tabindex: "-1" });
  tokens.slice(state.page * PAGE, (state.page + 1) * PAGE).forEach(([text, winner], i) => {
    const token = make("span", winner < 0 ? "fl-open" : "fl-won fl-line-" + (winner % 6), null, { role: "option", tabindex: "-1", "data-at": state.page * PAGE + i });
    token.textContent = text || "▪";
    token.setAttribute("aria-label", (text.trim() || "white space") + ", " + winnerName(winner));
    if (winner >= 0) token.style.setProperty("--fl-hue", hue(winner));
    line.appendChild(token);
  });
  const tools = make("div", "fl-tools");
  if (pages > 1) {
    add(tools, button("« page", "previous page", () => turn(-1)), button("page »", "next page", () => turn(1)));
    add(tools, make("span", "fl-place", "page " + (state.page + 1) + " of " + pages));
  }
  const rows = () => [["token", "winner", ...names.map((n) => "weight of " + n), ...names.map((n) => "nats of " + n), "nats of the target", "nats fused"],
    ...tokens.map(([text, winner, weights, nats]) => [text, winnerName(winner), ...weights, ...nats])];
  add(tools, saveButtons("winners", { picture: () => ui.text, rows }));
  ui.text.replaceChildren(titled("Who teaches each token", "Every target token is underlined in the manner of the source that weighs most there."), legend, line, tools);
  ui.spoken = line;
}

function turn(step) {
  const pages = Math.ceil(state.view.tokens.length / PAGE);
  state.page = Math.min(Math.max(0, state.page + step), pages - 1);
  drawText();
  drawHeat();
  choose(state.page * PAGE, false);
}

function drawHeat() {
  const { tokens, names, target } = state.view;
  const shown = tokens.slice(state.page * PAGE, (state.page + 1) * PAGE);
  const box = make("div", "fl-heat");
  [...names, target + " (target)", "fused"].forEach((name, row) => {
    const track = make("div", "fl-heat-track", null, { role: "img", "aria-label": "cross-entropy of " + name + " along the text" });
    shown.forEach(([, , , nats], i) => {
      const cell = make("i", "", null, { "data-at": state.page * PAGE + i });
      const share = nats[row] === null ? 1 : Math.min(1, nats[row] / 6);
      cell.style.setProperty("--fl-heat", (100 * share).toFixed(0) + "%");
      track.appendChild(cell);
    });
    add(box, make("span", "fl-heat-name", name), track);
  });
  const key = add(make("ul", "fl-legend"), make("li", "", "0 nats"), add(make("li"), make("i", "fl-heat-key")), make("li", "", "6 nats and more"));
  ui.heat.replaceChildren(
    titled("Who found what hard", "Cross-entropy of each row on the token that follows, in nats: the stronger the colour, the greater the surprise. Sources are shown as carried over.", saveButtons("cross_entropy", { picture: () => ui.heat })),
    box, key,
  );
}

function bitsTable(title, note, heads, rows, name) {
  const table = makeTable(heads, rows);
  const box = add(make("div", "fl-table-box", null, { tabindex: "0", role: "region", "aria-label": title }), table);
  const saves = saveButtons(name, { picture: () => box, rows: () => tableRows(table) });
  return add(make("article", "fl-card"), titled(title, note, saves), box);
}

function cell(text, className) {
  return make("td", className || "", text);
}

function barCell(value, most, color) {
  const node = make("td", "fl-bar-cell");
  const groove = make("span", "fl-groove", null, { "aria-hidden": "true" });
  const fill = make("i");
  fill.style.width = (100 * (value || 0)) / most + "%";
  fill.style.background = color;
  return add(node, add(groove, fill), make("span", "", figure(value, 3)));
}

function useButton(chosen, value, label) {
  const node = make("td");
  if (chosen) return add(node, make("b", "", "chosen"));
  return add(node, button("use", "fuse by " + label, () => {
    props.value = value;
    trigger("choose");
  }));
}

function drawTables() {
  const { operators, strategies, sources, board, chosen, names } = state.view;
  const most = Math.max(...operators.map((o) => o.bits || 0), ...board.map((b) => b.bits || 0), 1e-9);
  const colors = { fused: () => "var(--fl-fused)", target: () => "var(--fl-quiet)" };
  const modelTable = bitsTable("Models", "Bits per byte of each model alone, in its own tokens, and of the rows as they are fused now; lower is better. Carried over: on the target's tokens, with the target's own row where nothing arrives.", ["model", "bits per byte", "carried over", "coverage", "kept mass", "mean weight", "wins"],
    board.map((row, i) => {
      const s = sources[i];
      const own = [cell(shortName(row.name) + (row.role === "target" ? " (target)" : "")), barCell(row.bits, most, (colors[row.role] || hue)(i))];
      if (!s) return [...own, "", "", "", "", ""];
      return [...own, figure(s.carried, 3), percent(s.coverage) + " %", figure(s.kept, 3), figure(s.weight, 2), percent(s.wins) + " %"];
    }), "models");
  const operatorTable = bitsTable("Operators", "The same text fused in every way. Those marked * looked at each token before they chose: what the target would be taught, not what could be predicted.", ["operator", "level", "bits per byte", "winners", ""],
    operators.map((o) => {
      const shares = make("td", "fl-shares", null, { title: names.map((n, i) => n + " " + percent(o.wins[i]) + " %").join(", ") });
      o.wins.forEach((w, i) => {
        const part = make("i");
        part.style.width = 100 * w + "%";
        part.style.background = hue(i);
        if (w > 0.001) shares.appendChild(part);
      });
      add(shares, make("em", "", names.map((n, i) => n + " " + percent(o.wins[i])).join(", ")));
      const now = o.operator === chosen.operator && o.level === chosen.level;
      return [cell(o.operator + (o.sees ? " *" : "")), cell(o.level || "–"), barCell(o.bits, most, "var(--fl-fused)"), shares, useButton(now, { operator: o.operator, level: o.level }, o.operator)];
    }), "operators");
  const best = {};
  for (const s of strategies) if (!s.counts && s.transfer !== null && s.transfer < (best[s.source] ?? Infinity)) best[s.source] = s.transfer;
  const strategyTable = bitsTable("Vocabulary mappings", "What each mapping keeps of a source on this very text: cross-entropy in nats per target token where it says something, beside the target's own there. One that counts has counted this text itself, which flatters it.", ["source", "mapping", "coverage", "kept mass", "transfer CE", "target's CE", ""],
    strategies.map((s, i) => [cell(s.source, i && strategies[i - 1].source === s.source ? "fl-again" : ""), cell(s.strategy + (s.counts ? " (counts)" : "")), percent(s.coverage) + " %", figure(s.kept, 3), cell(figure(s.transfer, 3), !s.counts && s.transfer === best[s.source] ? "fl-best-cell" : ""), figure(s.target, 3), useButton(s.strategy === chosen.strategy, { strategy: s.strategy }, s.strategy)]), "mappings");
  ui.tables.replaceChildren(modelTable, operatorTable, strategyTable);
}

function choose(at, focus) {
  const { tokens } = state.view;
  at = Math.min(Math.max(0, at), tokens.length - 1);
  if (Math.floor(at / PAGE) !== state.page) {
    state.page = Math.floor(at / PAGE);
    drawText();
    drawHeat();
  }
  state.at = at;
  for (const node of root.querySelectorAll(".fl-selected")) node.classList.remove("fl-selected");
  for (const node of root.querySelectorAll(`[data-at="${at}"]`)) node.classList.add("fl-selected");
  for (const node of ui.spoken.children) node.tabIndex = -1;
  const token = ui.spoken.children[at - state.page * PAGE];
  token.tabIndex = 0;
  if (focus) token.focus({ preventScroll: true });
}

function showTip(event) {
  const node = event.target.closest("[data-at]");
  if (!node || !state.view) return hideTip();
  const [text, winner, weights, nats] = state.view.tokens[Number(node.dataset.at)];
  const { names, target } = state.view;
  const list = make("ul");
  [...names, target + " (target)", "fused"].forEach((name, i) => {
    const dot = make("i", "fl-dot");
    dot.style.background = i < names.length ? hue(i) : i === names.length ? "var(--fl-quiet)" : "var(--fl-fused)";
    const weight = i < names.length ? ", weight " + figure(weights[i], 2) : "";
    add(list, add(make("li"), dot, make("span", "", name + ": " + figure(nats[i], 2) + " nats" + weight)));
  });
  ui.tip.replaceChildren(make("b", "", text || "part of a character"), make("span", "", winner < 0 ? winnerName(winner) : "winner: " + names[winner]), list);
  hang(ui.tip, node, root);
}

function hideTip() {
  ui.tip.hidden = true;
}

for (const box of [ui.text, ui.heat]) {
  box.addEventListener("pointerover", showTip);
  box.addEventListener("pointerleave", hideTip);
  box.addEventListener("focusin", showTip);
  box.addEventListener("focusout", hideTip);
  box.addEventListener("click", (event) => {
    const node = event.target.closest("[data-at]");
    if (node) choose(Number(node.dataset.at), node.closest(".fl-spoken") !== null);
  });
}
ui.text.addEventListener("keydown", (event) => {
  if (!state.view || event.ctrlKey || event.metaKey || event.altKey || !event.target.closest(".fl-spoken")) return;
  const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -state.at, End: state.view.tokens.length };
  if (!(event.key in steps)) return;
  choose(state.at + steps[event.key], true);
  event.preventDefault();
});
root.addEventListener("keydown", (event) => event.key === "Escape" && hideTip());

function refresh() {
  ui.status.show(props.notice || { kind: "done", text: "" });
  if (!props.content || state.shown === props.content) return;
  state.shown = props.content;
  state.view = JSON.parse(props.content);
  state.page = 0;
  drawText();
  drawHeat();
  drawTables();
  choose(0, false);
}
watch(PROPS, refresh);
refresh();
