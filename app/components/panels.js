// What stands around the score: the winner strip, the table, the tip of a token.

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
  const none = score.winners.filter((w) => w < 0).length;
  if (none) add(key, add(make("li"), make("i", "fl-dot"), make("span", "", (score.operator === "mean" ? "all alike " : "the target's own row ") + none)));
  ui.strip.replaceChildren(add(make("div", "fl-strip-head"), make("span", "", "who teaches each target token" + (score.starts.length > 1 ? " (this page)" : "")), key), strip);
  ui.stripCells = strip.children;
}

function drawTwin() {
  ui.twin.replaceChildren(make("summary", "", "The same as a table"));
  if (ui.twin.open) fillTwin();
}

function fillTwin() {
  if (!state.score || ui.twin.querySelector("table")) return;
  const { lanes, first, winners, mismatch, rings } = state.score;
  const sources = lanes.slice(0, -1);
  const table = make("table");
  const head = make("tr");
  for (const title of ["#", "target token", ...sources.map((l) => l.short), "match", "winner"]) add(head, make("th", "", title, { scope: "col" }));
  add(table, add(make("thead"), head));
  const body = make("tbody");
  targetTokens().forEach((token, i) => {
    const row = make("tr");
    add(row, make("td", "", first + i + 1), make("td", "fl-code", token[6] || "part of a character"));
    for (const lane of sources) {
      const over = lane.tokens.filter((t) => t[3] > token[2] && t[2] < token[3]);
      add(row, make("td", "fl-code", over.map((t) => t[6] || "▪").join(" | ")));
    }
    const kinds = sources.map((lane) => {
      const over = lane.tokens.find((t) => t[3] > token[2] && t[2] < token[3]);
      return over ? ["–", "1:1", "1:n", "n:1", "m:n"][Math.max(0, over[5])] : "–";
    });
    add(row, make("td", "", mismatch[i] ? kinds.join(", ") : "1:1"), make("td", "", winners[i] < 0 ? "target" : lanes[winners[i]].short));
    add(body, row);
  });
  add(ui.twin, add(make("div", "fl-twin-box", null, { tabindex: "0" }), add(table, body)));
}

function showTip(event) {
  const node = event.target.closest(".fl-score .fl-token");
  if (!node || !state.score) return hideTip();
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
  ui.tip.hidden = false;
  const box = node.getBoundingClientRect();
  const frame = root.getBoundingClientRect();
  const left = Math.min(Math.max(0, box.left - frame.left), frame.width - ui.tip.offsetWidth);
  ui.tip.style.left = left + "px";
  ui.tip.style.top = box.bottom - frame.top + 8 + "px";
}

function hideTip() {
  ui.tip.hidden = true;
}
