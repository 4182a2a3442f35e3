// One training: cards of its parts, facts, what was better before, and what the models write.

const root = element.querySelector(".fuselab-view");
const state = { shown: null, told: "", seen: {} };
const ui = { status: noticeLine() };
for (const name of ["head", "parts", "facts", "table", "samples"]) ui[name] = make("section", "", null, { hidden: "" });
add(root, ui.status, ui.head, ui.facts, ui.parts, ui.table, ui.samples);

const HUES = { fused: "var(--fl-fused)", baseline: "var(--fl-quiet)", before: "var(--fl-none)" };

function minutes(seconds) {
  if (seconds === null || seconds === undefined) return "";
  return seconds < 90 ? Math.round(seconds) + " s" : Math.round(seconds / 60) + " min";
}

function partLine(part) {
  const words = [];
  if (part.steps) words.push("step " + part.step.toLocaleString("en") + " of " + part.steps.toLocaleString("en"));
  if (part.live && part.left !== null && part.steps) words.push("about " + minutes(part.left) + " left");
  if (part.live && part.stage && part.stage !== part.state) words.unshift(part.stage);
  return words.join(" · ");
}

function partCard(part) {
  const card = make("article", "fl-card fl-" + part.state + (part.live ? " fl-live" : ""), null, { "data-part": part.part, "data-state": part.state });
  card.style.setProperty("--fl-hue", HUES[part.part]);
  const head = cardTitle(part.label, HUES[part.part]);
  add(head, make("span", "fl-state", part.state));
  const share = Math.round(100 * part.share);
  const bar = make("span", "fl-progress", null, { role: "progressbar", "aria-label": part.label, "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": share });
  const fill = make("i");
  fill.style.width = 100 * part.share + "%";
  add(card, head, add(bar, fill), make("p", "fl-run-line", partLine(part)));
  if (part.message) add(card, make("p", "fl-run-line fl-fault", part.message));
  return card;
}

function cardTitle(text, color) {
  const dot = make("i", "fl-dot");
  dot.style.background = color;
  return add(make("h3"), dot, make("span", "", text));
}

function change(before, after) {
  const share = (100 * (after - before)) / before;
  return (share > 0 ? "+" : share < 0 ? "−" : "±") + Math.abs(share).toFixed(1) + " %";
}

function afterCell(before, after, best, color) {
  const cell = make("td", after === best ? "fl-best" : "", figure(after, 3));
  cell.style.setProperty("--fl-hue", color);
  if (after !== null) add(cell, make("small", "", change(before, after)));
  return cell;
}

function drawTable(rows) {
  const twin = rows.some((row) => row[2] !== null);
  const heads = ["held-out text", "before", ...(twin ? ["text alone"] : []), "fused"];
  const table = makeTable(heads, rows.map(([text, before, alone, fused]) => {
    const best = Math.min(...[before, alone, fused].filter((v) => v !== null));
    const first = make("td", before === best ? "fl-best" : "", figure(before, 3));
    return [text, first, ...(twin ? [afterCell(before, alone, best, HUES.baseline)] : []), afterCell(before, fused, best, HUES.fused)];
  }));
  if (rows.length > 1) table.tBodies[0].lastChild.className = "fl-mean";
  const box = add(make("div", "fl-scroll", null, { tabindex: "0", role: "region", "aria-label": "before and after" }), table);
  const plain = () => [["text", "before", "text alone", "change in percent", "fused", "change in percent"],
    ...rows.map(([text, before, alone, fused]) => [text, before, alone, shift(before, alone), fused, shift(before, fused)])];
  const head = add(make("h3"), make("span", "", "Before and after"), saveButtons("before_after", { picture: () => box, rows: plain }));
  return add(make("article", "fl-card"), add(make("header"), head, make("p", "fl-note", "bits per byte; lower is better")), box);
}

function shift(before, after) {
  return after === null ? "" : (100 * (after / before - 1)).toFixed(2);
}

function drawSamples(samples) {
  const list = make("div", "fl-samples");
  for (const { prompt, texts } of samples) {
    const card = make("article", "fl-card");
    add(card, make("p", "fl-prompt", prompt, { dir: "auto" }));
    const columns = make("div", "fl-written");
    for (const [part, label, text] of texts) {
      const title = make("h4");
      const dot = make("i", "fl-dot");
      dot.style.background = HUES[part];
      add(title, dot, make("span", "", label));
      add(columns, add(make("div"), title, make("p", "fl-writes", text, { dir: "auto" })));
    }
    add(list, add(card, columns));
  }
  return list;
}

function drawFacts(facts) {
  const list = make("dl", "fl-facts");
  for (const [label, value] of facts) add(list, make("dt", "", label), make("dd", "", value));
  return add(make("article", "fl-card"), list);
}

function drawHead({ title, note }) {
  return add(make("div"), make("h3", "fl-run-title", title), note ? make("p", "fl-run-note", note) : null);
}

// What has not changed keeps its nodes, and with them focus, selection and scrolling.
function section(name, value, drawn) {
  const written = JSON.stringify(value ?? null);
  if (state.seen[name] === written) return;
  state.seen[name] = written;
  const empty = !value || (Array.isArray(value) && !value.length);
  ui[name].hidden = empty;
  ui[name].replaceChildren(...(empty ? [] : [drawn(value)]));
}

function refresh() {
  const told = props.notice || { kind: "done", text: "" };
  if (state.told !== JSON.stringify(told)) ui.status.show(told);
  state.told = JSON.stringify(told);
  if (!props.content || props.content === state.shown) return;
  state.shown = props.content;
  const run = JSON.parse(props.content);
  section("head", run.title ? { title: run.title, note: run.note } : null, drawHead);
  section("facts", run.facts, drawFacts);
  section("parts", run.parts, (parts) => add(make("div", "fl-parts"), ...parts.map(partCard)));
  section("table", run.table, drawTable);
  section("samples", run.samples, drawSamples);
}
watch(PROPS, refresh);
refresh();
