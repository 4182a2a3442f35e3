// Walking the score: pages, mismatches, one kind alone, and which tokens share their bytes.

const MISMATCHES = (1 << 2) | (1 << 3) | (1 << 4);

function wantedKinds() {
  return state.only === null ? MISMATCHES : 1 << state.only;
}

// Leaves one kind of match in full colour, and lets the walk stop only there; once more undoes it.
function showOnly(kind) {
  state.only = state.only === kind ? null : kind;
  for (const node of ui.legend.querySelectorAll(".fl-filter")) {
    node.setAttribute("aria-pressed", String(Number(node.dataset.kind) === state.only));
  }
  const words = state.only === null ? "mismatch" : "this kind";
  ui.previous.textContent = "‹ " + words;
  ui.next.textContent = words + " ›";
  dim();
}

function dim() {
  const { only, score } = state;
  for (const node of ui.grid.querySelectorAll(".fl-token")) {
    const lane = score.lanes[Number(node.dataset.lane)];
    const token = lane.tokens[Number(node.dataset.token)];
    const target = lane === score.lanes[score.lanes.length - 1];
    const shown = target ? token[7] >= 0 && score.kinds[token[7]] & (1 << only) : only === 0 || token[5] === only;
    node.classList.toggle("fl-dim", only !== null && !shown);
  }
}

// Marks the group of a token: what both sides need until they end at the same byte.
function tie(node) {
  untie();
  const lanes = state.score.lanes;
  const target = lanes.length - 1;
  const own = Number(node.dataset.lane);
  const token = lanes[own].tokens[Number(node.dataset.token)];
  for (const lane of own === target ? lanes.keys() : [own]) {
    if (lane === target) continue;
    let [start, end] = [token[2], token[3]];
    for (let size = -1; size !== end - start; ) {
      size = end - start;
      for (const other of [...lanes[lane].tokens, ...lanes[target].tokens]) {
        if (other[3] > start && other[2] < end) [start, end] = [Math.min(start, other[2]), Math.max(end, other[3])];
      }
    }
    for (const side of own === target ? [lane] : [lane, target]) markTied(side, start, end);
  }
}

function markTied(lane, start, end) {
  const last = lane === state.score.lanes.length - 1;
  state.score.lanes[lane].tokens.forEach((token, i) => {
    if (token[3] <= start || token[2] >= end || token[2] === token[3]) return;
    const nodes = last ? state.byLink.get(token[7]) : state.byToken.get(lane + "/" + i);
    for (const node of nodes || []) node.classList.add("fl-tied");
  });
}

function untie() {
  for (const node of ui.grid.querySelectorAll(".fl-tied")) node.classList.remove("fl-tied");
}

function turnPage(step) {
  const page = state.score.page + step;
  if (page >= 0 && page < state.score.starts.length) openPage(page, state.score.starts[page], false);
}

async function walkMismatch(step) {
  if (!state.score) return;
  let score = state.score;
  let local = state.index - score.first + step;
  for (;;) {
    while (local >= 0 && local < score.kinds.length) {
      if (score.kinds[local] & wantedKinds()) return select(score.first + local, true);
      local += step;
    }
    const page = score.page + step;
    if (page < 0 || page >= score.starts.length) {
      ui.place.textContent = (step > 0 ? "no further " : "no earlier ") + (state.only === null ? "mismatch" : "one of this kind");
      return;
    }
    const edge = step > 0 ? score.starts[page] : score.starts[page + 1] - 1;
    score = await openPage(page, edge, true);
    if (!score) return;
    local = edge - score.first;
  }
}

