// The cards of one token: each source's own row and what it became, the target's, the fused row.

function bars(row, scale, color, extra) {
  const list = make("ul", "fl-bars");
  row.bars.forEach(([label, share, seen], i) => {
    const bar = oneBar(label, share, scale, color, seen ? "fl-seen" : "");
    if (row.from && row.from[i]) traced(bar, row.from[i], share);
    add(list, bar);
  });
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

// A fused bar shows under itself whose mass it is, and says it when it is pointed at or focused.
function traced(bar, parts, share) {
  const shares = new Map();
  for (const [source, , mass] of parts) shares.set(source, (shares.get(source) || 0) + mass);
  const strip = make("span", "fl-origin", null, { "aria-hidden": "true" });
  for (const [source, mass] of shares) {
    const part = make("i");
    part.style.width = (100 * mass) / Math.max(share, 1e-9) + "%";
    part.style.background = sourceHue(source);
    strip.appendChild(part);
  }
  bar.querySelector(".fl-groove i").appendChild(strip);
  bar.tabIndex = 0;
  bar.classList.add("fl-traced");
  bar.origins = parts;
  bar.setAttribute("aria-label", bar.textContent + " percent, " + originLines(parts).join("; "));
}

function sourceHue(source) {
  return source < state.score.lanes.length - 1 ? hue(source) : "var(--fl-quiet)";
}

function originLines(parts) {
  const name = (source) => (source < state.score.lanes.length - 1 ? state.score.lanes[source].short : "the target's own row");
  return parts.map(([source, label, mass]) => {
    const what = label ? "“" + label + "” of " + name(source) : source < state.score.lanes.length - 1 ? "other tokens of " + name(source) : name(source);
    return percent(mass) + " from " + what;
  });
}

function showOrigins(event) {
  const bar = event.target.closest(".fl-traced");
  if (!bar) return hideTip();
  const list = make("ul");
  const lines = originLines(bar.origins);
  bar.origins.forEach(([source], i) => {
    const dot = make("i", "fl-dot");
    dot.style.background = sourceHue(source);
    add(list, add(make("li"), dot, make("span", "", lines[i])));
  });
  ui.tip.replaceChildren(make("b", "", bar.querySelector(".fl-label").firstChild.textContent), make("span", "", "percent of the fused row, and where it came from"), list);
  hang(ui.tip, bar, root);
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

// All bars of one position share one scale, so that cards can be compared at a glance.
function drawCards(data) {
  const rows = [data.fused.row, data.target.row];
  for (const source of data.sources) rows.push(source.carried, ...(source.own ? [source.own] : []));
  const scale = Math.max(0.05, ...rows.flatMap((row) => [row.tail, ...row.bars.map((bar) => bar[1])]));
  const grid = document.createDocumentFragment();
  data.sources.forEach((source, i) => add(grid, sourceCard(source, i, data, scale)));
  return add(grid, fusedCard(data, scale));
}

// The same position as next characters: one card a reader, all with the same characters.
function drawCharacters(answer) {
  const scale = Math.max(0.05, ...answer.readers.flatMap((r) => [...r.shares, r.other, r.end, r.unknown]));
  const grid = document.createDocumentFragment();
  const order = [...answer.readers.slice(1, -1), answer.readers[0], answer.readers[answer.readers.length - 1]];
  order.forEach((reader, i) => {
    const color = reader.role === "fused" ? "var(--fl-fused)" : reader.role === "target" ? "var(--fl-quiet)" : hue(i);
    const card = make("article", "fl-card fl-characters");
    add(card, cardHead(reader.role === "target" ? shortName(reader.name) + " (target)" : shortName(reader.name), color, quoted(answer.after)));
    const list = make("ul", "fl-bars");
    answer.labels.forEach(([label, seen], n) => add(list, oneBar(label, reader.shares[n], scale, color, seen ? "fl-seen" : "")));
    add(list, oneBar("others", reader.other, scale, null, "fl-rest", "all other characters together"));
    add(list, oneBar("end", reader.end, scale, null, "fl-rest", "the text ends here"));
    add(list, oneBar("unknown", reader.unknown, scale, null, "fl-rest fl-gone", "other ways to cut the text, and what was cut off the row"));
    add(grid, add(card, list));
  });
  return grid;
}
