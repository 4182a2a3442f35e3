// The cards of one token: each source's own row and what it became, the target's, the fused row.

function bars(row, scale, color, extra) {
  const list = make("ul", "fl-bars");
  for (const [label, share, seen] of row.bars) {
    add(list, oneBar(label, share, scale, color, seen ? "fl-seen" : ""));
  }
  add(list, oneBar("tail", row.tail, scale, null, "fl-rest", "all other tokens together"));
  if (extra) add(list, oneBar("lost", extra.share, scale, null, "fl-rest fl-gone", extra.title));
  return list;
}

function oneBar(label, share, scale, color, className, title) {
  const item = make("li", className, null, title ? { title } : {});
  const name = make("span", "fl-label", label, { title: title || label, dir: "auto" });
  const groove = make("span", "fl-groove", null, { "aria-hidden": "true" });
  const fill = make("i", "");
  fill.style.width = Math.min(100, (100 * share) / scale) + "%";
  if (color) fill.style.background = color;
  groove.appendChild(fill);
  add(item, name, groove, make("span", "fl-number", percent(share)));
  if (className === "fl-seen") {
    name.appendChild(make("em", "", "the token that follows"));
    item.title = "the token that follows in the text";
  }
  return item;
}

function cardHead(title, color, note) {
  const head = make("header");
  const dot = make("i", "fl-dot");
  dot.style.background = color;
  const line = make("h3");
  return add(head, add(line, dot, make("span", "", title)), note ? make("p", "", note) : null);
}

function column(title, note, body) {
  return add(make("div", "fl-column"), make("h4", "", title), make("p", "fl-note", note), body);
}

function quoted(after) {
  return after ? "after “" + after + "”" : "at the start of the text";
}

function sourceCard(source, number, data, scale) {
  const card = make("article", "fl-card" + (source.winner ? " fl-wins" : ""));
  card.style.setProperty("--fl-hue", hue(number));
  add(card, cardHead(shortName(source.name), hue(number)));
  if (source.winner) {
    card.querySelector("h3").appendChild(make("span", "fl-crown", "♛ teaches this token"));
  }
  const columns = make("div", "fl-columns");
  const where = source.inside
    ? "inside " + source.inside[0] + ", after “" + source.inside[1] + "”"
    : quoted(source.after);
  if (source.own) {
    add(columns, column("its own tokens", quoted(source.after), bars(source.own, scale, hue(number))));
  } else {
    const empty = make("p", "fl-empty", "No row of its own here: the target's row stands in.");
    add(columns, column("its own tokens", "nothing to carry over here", empty));
  }
  const lost = {
    share: source.kept === null ? 0 : 1 - source.kept,
    title: "mass that no rule carried over; it was spread by the target's own row",
  };
  const carried = bars(source.carried, scale, hue(number), lost);
  const kind = source.kind === "inside" ? where : "carried over, " + (source.after ? "same byte" : "same start");
  add(columns, column("→ " + shortName(data.target.name), source.own ? kind : "the target's own row", carried));
  add(card, columns);
  const foot = "kept mass " + figure(source.kept, 2) + " · CE " + figure(source.ce, 2) + " nats";
  return add(card, make("footer", "", foot + " · weight " + figure(source.weight, 2)));
}

function fusedCard(data, scale) {
  const fused = data.fused;
  const card = make("article", "fl-card fl-fused");
  const columns = make("div", "fl-columns");
  const names = { min_ce: "MinCE", avg_ce: "AvgCE" };
  const details = fused.details;
  const level = details.operator === "mean" || details.operator === "product" ? "" : ", " + details.level + " level";
  const how = (names[details.operator] || details.operator || "fused") + (details.level ? level : "");
  add(card, cardHead("Fused", "var(--fl-fused)"));
  add(columns, column(how, "mapping: " + (details.strategy || "–"), bars(fused.row, scale, "var(--fl-fused)")));
  const own = bars(data.target.row, scale, "var(--fl-quiet)");
  add(columns, column(shortName(data.target.name) + " itself", quoted(data.after), own));
  add(card, columns);
  const winner = fused.alike ? "all weigh alike" : fused.winner < 0 ? "no source speaks here: the target's own row" : "winner: " + shortName(data.sources[fused.winner].name) + " ♛";
  return add(card, make("footer", "", winner + " · CE " + figure(fused.ce, 2) + " · entropy " + figure(fused.entropy, 2) + " nats · target alone: CE " + figure(data.target.ce, 2)));
}

// The score of the whole text, in the order of the lanes.
function drawBoard(board) {
  const list = make("ul", "fl-bars fl-board");
  const most = Math.max(...board.map((row) => row.bits || 0), 1e-9);
  const best = Math.min(...board.map((row) => (row.bits === null ? Infinity : row.bits)));
  let source = 0;
  for (const row of board) {
    const color = row.role === "fused" ? "var(--fl-fused)" : row.role === "target" ? "var(--fl-quiet)" : hue(source++);
    const label = row.role === "target" ? shortName(row.name) + " (target)" : shortName(row.name);
    const item = oneBar(label, (row.bits || 0) / most, 1, color, row.bits === best ? "fl-best" : "");
    item.querySelector(".fl-number").textContent = figure(row.bits, 2);
    add(list, item);
  }
  return list;
}

function shortName(name) {
  return name.replace(/[\/\\]+$/, "").split(/[\/\\]/).pop().replace(/^zoo:/, "") || name;
}

// All bars of one position share one scale, so that cards can be compared at a glance.
function drawCards(data) {
  const rows = [data.fused.row, data.target.row];
  for (const source of data.sources) rows.push(source.carried, ...(source.own ? [source.own] : []));
  const scale = Math.max(0.05, ...rows.flatMap((row) => [row.tail, ...row.bars.map((bar) => bar[1])]));
  const grid = document.createDocumentFragment();
  data.sources.forEach((source, i) => add(grid, sourceCard(source, i, data, scale)));
  return add(grid, fusedCard(data, scale));
}
