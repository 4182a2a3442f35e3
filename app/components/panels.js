// What stands around the score: the winner strip, the table, the tip of a token.

const NO_WINNER = { "-1": "all alike", "-2": "the target's own row" };

function drawStrip() {
  const score = state.score;
  const strip = make("div", "fl-strip", null, { role: "img", "aria-label": "winner of each target token" });
  strip.style.gap = score.winners.length > 240 ? "0" : score.winners.length > 100 ? "1px" : "2px";
  const tokens = score.lanes[score.lanes.length - 1].tokens.filter((token) => token[7] >= 0);
  score.winners.forEach((winner, i) => {
    const cell = make("i", "", null, { "data-link": i });
    cell.style.flexGrow = Math.max(0.4, tokens[i] ? tokens[i][1] - tokens[i][0] : 1);
    if (winner >= 0) cell.style.background = hue(winner);
    strip.appendChild(cell);
  });
  const key = make("ul", "fl-legend");
  score.lanes.slice(0, -1).forEach((lane, i) => {
    const count = score.winners.filter((w) => w === i).length;
    const dot = make("i", "fl-dot");
    dot.style.background = hue(i);
    add(key, add(make("li", "", null, { title: lane.name }), dot, make("span", "", lane.short + " " + count)));
  });
  for (const none of [-1, -2]) {
    const count = score.winners.filter((w) => w === none).length;
    if (count) add(key, add(make("li"), make("i", "fl-dot"), make("span", "", NO_WINNER[none] + " " + count)));
  }
  const title = "who teaches each target token" + (score.starts.length > 1 ? " (this page)" : "");
  const head = add(make("div", "fl-strip-head"), make("span", "", title), key, saveButtons("winners", { picture: () => ui.strip }));
  ui.strip.replaceChildren(head, strip);
  ui.stripCells = strip.children;
}

function drawTwin() {
  ui.twin.replaceChildren(make("summary", "", "The same as a table"));
  if (ui.twin.open) fillTwin();
}

function twinRows() {
  const { lanes, first, winners, kinds } = state.score;
  const sources = lanes.slice(0, -1);
  const names = ["1:1", "1:n", "n:1", "m:n"];
  return targetTokens().map((token, i) => {
    const overlaps = sources.map((lane) => lane.tokens.filter((t) => t[3] > token[2] && t[2] < token[3]));
    return [
      first + i + 1,
      token[6] || "part of a character",
      token[2],
      token[3],
      token[4],
      ...overlaps.map((over) => over.map((t) => t[6] || "▪").join(" | ")),
      names.filter((_, n) => kinds[i] & (2 << n)).join(", ") + (kinds[i] & 1 ? ", inside" : ""),
      winners[i] < 0 ? NO_WINNER[winners[i]] : lanes[winners[i]].short,
    ];
  });
}

function twinHead() {
  return ["#", "target token", "from", "to", "id", ...state.score.lanes.slice(0, -1).map((l) => l.short), "match", "winner"];
}

function fillTwin() {
  if (!state.score || ui.twin.querySelector("table")) return;
  const code = (text) => make("td", "fl-code", text);
  const rows = twinRows().map((cells) => cells.map((cell, n) => (n === 1 || (n > 4 && n < cells.length - 2) ? code(cell) : cell)));
  const box = make("div", "fl-twin-box", null, { tabindex: "0", role: "region", "aria-label": "tokens as a table" });
  add(ui.twin, saveButtons("tokens", { rows: () => [twinHead(), ...twinRows()] }), add(box, makeTable(twinHead(), rows)));
}

function showTip(event) {
  const node = event.target.closest(".fl-score .fl-token");
  if (!node || !state.score) return hideTip();
  tie(node);
  const lane = state.score.lanes[Number(node.dataset.lane)];
  const token = lane.tokens[Number(node.dataset.token)];
  const target = Number(node.dataset.lane) === state.score.lanes.length - 1;
  const bytes = state.bytes.slice(token[2] - state.score.start, token[3] - state.score.start);
  ui.tip.replaceChildren(
    make("b", "", token[6] || "part of a character"),
    make("span", "", lane.short + " · id " + token[4]),
    make("span", "", token[3] > token[2] ? "bytes " + token[2] + "–" + token[3] + ": " + hexBytes(bytes) : "no bytes of the text"),
    make("span", "", target ? (node.classList.contains("fl-inside") ? "ends inside every source's token" : "target token") : KINDS[token[5]]),
  );
  hang(ui.tip, node, root);
}

function hideTip() {
  untie();
  ui.tip.hidden = true;
}
