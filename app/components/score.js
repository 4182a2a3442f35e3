// Layout of the score: systems that wrap like music, lanes of tokens over their characters.

const CELL = 12;
const KINDS = {
  "-1": "put in by the tokenizer",
  0: "in no group",
  1: "same bytes as one target token",
  2: "one source token for several target tokens",
  3: "several source tokens for one target token",
  4: "overlaps: several for several",
};

// Cuts the axis into systems of at most `room` cells: at a line end where the system is well
// filled, else where all models have a boundary, else between characters.
function cutSystems(score, room) {
  const total = score.axis.reduce((sum, cell) => sum + cell[1], 0);
  const edges = [];
  score.axis.reduce((at, cell) => (edges.push(at + cell[1]), at + cell[1]), 0);
  const systems = [];
  let from = 0;
  const lastIn = (list, low, high) => list.filter((x) => x > low && x <= high).pop();
  while (total - from > room) {
    const limit = from + room;
    const to =
      lastIn(score.breaks, from + room * 0.4, limit) ||
      lastIn(score.bars, from + room * 0.5, limit) ||
      lastIn(edges, from, limit) ||
      limit;
    systems.push([from, to]);
    from = to;
  }
  systems.push([from, total]);
  return systems;
}

const WIDE = /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60]|\p{Extended_Pictographic}/u;
const JOINED = /\p{M}|\u200d|\p{Emoji_Modifier}/u;

function textWidth(label) {
  let width = 0;
  for (const c of label) {
    if (c <= "\u00ff") width += 7.9;
    else if (!JOINED.test(c)) width += WIDE.test(c) ? 14 : 7.9;
  }
  return width;
}

function drawSystem(score, system, number, label) {
  const node = make("div", "fl-system", null, { role: "rowgroup", "aria-label": "line " + (number + 1) });
  const staff = make("div", "fl-staff", null, { "aria-hidden": "true" });
  for (const bar of score.bars) {
    if (bar > system[0] && bar <= system[1]) {
      add(staff, make("i", "fl-bar")).lastChild.style.left = (bar - system[0]) * CELL - 0.5 + "px";
    }
  }
  const band = make("i", "fl-band");
  add(staff, band);
  staff.style.left = label + "px";
  add(node, staff, drawAxis(score, system));
  score.lanes.forEach((lane, at) => add(node, drawLane(score, lane, at, system, number)));
  return { node, band, from: system[0], to: system[1] };
}

function drawAxis(score, system) {
  const axis = make("div", "fl-axis", null, { "aria-hidden": "true" });
  let at = 0;
  for (const [sign, width] of score.axis) {
    if (at >= system[0] && at < system[1] && sign) {
      const cell = make("span", "", sign);
      cell.style.left = (at - system[0]) * CELL + "px";
      cell.style.width = width * CELL + "px";
      axis.appendChild(cell);
    }
    at += width;
    if (at >= system[1]) break;
  }
  return axis;
}

function drawLane(score, lane, at, system, number) {
  const target = at === score.lanes.length - 1;
  const row = make("div", "fl-lane" + (target ? " fl-target" : ""), null, {
    role: "row",
    "aria-label": lane.name + (target ? ", target" : ", source"),
  });
  const name = make("div", "fl-name", null, { role: "rowheader", title: lane.name });
  if (!target) name.style.setProperty("--fl-hue", hue(at));
  add(name, make("b", "", lane.short), make("small", "", number ? "" : lane.count + " tokens"));
  const track = make("div", "fl-track");
  track.style.width = (system[1] - system[0]) * CELL + "px";
  if (number === 0 && score.page === 0) add(track, make("i", "fl-start", null, { "data-start": at }));
  for (const [from, to] of lane.lost) {
    if (to <= system[0] || from >= system[1]) continue;
    const mark = make("i", "fl-lost", null, { title: "bytes that this tokenizer does not reproduce" });
    place(mark, from, to, system);
    add(track, mark);
  }
  lane.tokens.forEach((token, i) => {
    const last = system[1] === score.width;
    const flat = token[0] === token[1];
    const within = flat
      ? (token[0] > system[0] || (number === 0 && token[0] === 0)) && token[0] <= system[1]
      : token[1] > system[0] && token[0] < system[1];
    if (within || (flat && last && token[0] === system[1])) {
      add(track, drawToken(score, token, at, i, system, target));
    }
  });
  return add(row, name, track);
}

function place(node, from, to, system) {
  const left = Math.max(from, system[0]);
  const width = (Math.min(to, system[1]) - left) * CELL;
  node.style.left = (left - system[0]) * CELL + "px";
  node.style.width = width + "px";
  return width;
}

function drawToken(score, token, lane, i, system, target) {
  const [from, to, start, end, id, kind, label, link] = token;
  const cell = make("span", "fl-token", null, {
    role: "gridcell",
    tabindex: "-1",
    "data-lane": lane,
    "data-token": i,
    "aria-label": (label || "part of a character") + ", bytes " + start + " to " + end + ", id " + id,
  });
  if (link >= 0) cell.dataset.link = link;
  if (from === to) {
    cell.classList.add("fl-flat");
    cell.style.left = (from - system[0]) * CELL - 2 + "px";
  } else {
    const width = place(cell, from, to, system);
    if (from < system[0]) cell.classList.add("fl-opened");
    if (to > system[1]) cell.classList.add("fl-cut");
    if (width < 10) cell.classList.add("fl-tick");
    const fits = textWidth(label);
    const begins = from >= system[0] || label.length > 2;
    if (label && width >= 10 && begins) {
      cell.textContent = fits <= width + 1 || from < system[0] ? label : shorten(label, width);
    }
  }
  if (target) {
    if (link >= 0) {
      cell.setAttribute("aria-selected", "false");
      if (score.kinds[link] & 1) cell.classList.add("fl-inside");
    }
  } else if (kind > 0) {
    cell.classList.add("fl-k" + kind);
  }
  return cell;
}

function shorten(label, width) {
  let short = "";
  for (const c of label) {
    if (textWidth(short + c) > width) break;
    short += c;
  }
  return short;
}
