// Figures that Plotly draws again and again into the same nodes.

const root = element.querySelector(".fuselab-view");
const state = { shown: null, seen: false, drawing: false, again: false, drawn: new Map(), figures: [] };
const ui = { status: noticeLine(), grid: make("div", "fl-figures") };
add(root, ui.status, ui.grid);

// One script for all panels of the page.
function plotly() {
  if (window.Plotly) return Promise.resolve(window.Plotly);
  window.fuselabPlotly ??= new Promise((loaded, failed) => {
    const script = document.createElement("script");
    const base = (window.gradio_config && window.gradio_config.root) || "";
    script.src = base + "/gradio_api/file=" + LIBRARY;
    script.addEventListener("load", () => loaded(window.Plotly));
    script.addEventListener("error", () => {
      window.fuselabPlotly = undefined;
      failed(new Error("Plotly did not come"));
    });
    document.head.appendChild(script);
  });
  return window.fuselabPlotly;
}

// Plotly reads a little HTML in names and titles.
function plain(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

const NARROWEST = 160;
const WELL_BEFORE = "400px";
const WORDS = new Set(["name", "legendgroup", "title", "text"]);
function resolved(value, key) {
  if (typeof value === "string") {
    if (value.startsWith("var(")) return getComputedStyle(root).getPropertyValue(value.slice(4, -1)).trim();
    return WORDS.has(key) ? plain(value) : value;
  }
  if (Array.isArray(value)) return typeof value[0] === "number" ? value : value.map((item) => resolved(item, key));
  if (!value || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, resolved(v, k)]));
}

function axis(given) {
  return {
    gridcolor: "var(--fl-staff)", linecolor: "var(--fl-line)", zerolinecolor: "var(--fl-staff)", automargin: true,
    ...given, title: { text: given.title || "", standoff: 8 },
  };
}

function layoutOf(figure) {
  const { xaxis = {}, yaxis = {}, ...rest } = figure.layout;
  return resolved({
    font: { family: "system-ui, sans-serif", size: 12, color: "var(--fl-quiet)" },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 52, r: 10, t: 8, b: 40 }, hovermode: "x unified", autosize: true,
    hoverlabel: { bgcolor: "var(--fl-card)", bordercolor: "var(--fl-line)", font: { color: "var(--fl-ink)" } },
    legend: { orientation: "h", x: 0, y: -0.24, font: { color: "var(--fl-ink)" } },
    ...rest, xaxis: axis(xaxis), yaxis: axis(yaxis),
  });
}

function tracesRows(figure) {
  const rows = [["curve", figure.layout.xaxis?.title || "x", figure.layout.yaxis?.title || "y"]];
  for (const trace of figure.traces) trace.x.forEach((x, i) => rows.push([trace.name, x, trace.y[i]]));
  return rows;
}

function cardOf(figure) {
  const found = state.drawn.get(figure.name);
  if (found) return found;
  const card = { node: make("article", "fl-card"), plot: make("div", "fl-figure"), figure };
  const saves = saveButtons(figure.name, { rows: () => tracesRows(card.figure) });
  for (const format of ["SVG", "PNG"]) {
    const save = () => {
      const paper = resolved("var(--fl-card)");
      const drawn = { data: card.plot.data, layout: { ...card.plot.layout, paper_bgcolor: paper, plot_bgcolor: paper } };
      window.Plotly.downloadImage(drawn, { format: format.toLowerCase(), width: 900, height: 480, scale: 2, filename: figure.name });
    };
    saves.prepend(button(format, "save this figure as " + format, save));
  }
  card.note = make("p", "fl-note");
  const head = add(make("header"), add(make("h3"), make("span", "", figure.title), saves), card.note);
  card.plot.setAttribute("role", "img");
  add(card.node, head, card.plot);
  state.drawn.set(figure.name, card);
  return card;
}

const OPTIONS = { displayModeBar: false, displaylogo: false, responsive: false };

async function drawCard(library, figure) {
  const card = cardOf(figure);
  card.figure = figure;
  card.note.textContent = figure.note || "";
  if (!card.node.isConnected) add(ui.grid, card.node);
  const last = figure.traces.map((t) => t.name + " " + figure_(t.y[t.y.length - 1])).join(", ");
  card.plot.setAttribute("aria-label", figure.title + "; at the end: " + last);
  if (!displayed(card)) return;
  await library.react(card.plot, figure.traces.map((t) => resolved(t)), layoutOf(figure), OPTIONS);
  card.width = card.plot.clientWidth;
}

// Plotly can measure only what is displayed, and fails where the margins leave no room; a page that
// becomes narrow passes through such widths.
function displayed(card) {
  return card.plot.isConnected && card.plot.clientWidth >= NARROWEST;
}

async function drawAll() {
  state.again = false;
  root.hidden = state.figures.length === 0;
  if (!state.seen || !state.figures.length) return;
  const library = await plotly();
  const figures = state.figures;
  for (const [name, card] of state.drawn) {
    if (figures.some((f) => f.name === name)) continue;
    library.purge(card.plot);
    card.node.remove();
    state.drawn.delete(name);
  }
  for (const figure of figures) await drawCard(library, figure);
}

// One drawing after another: what comes meanwhile is drawn once, at its end.
async function draw() {
  if (state.drawing) return (state.again = true);
  state.drawing = true;
  try {
    do await drawAll();
    while (state.again);
  } catch (error) {
    root.hidden = false;
    ui.status.show({ kind: "error", text: "The curves cannot be drawn (" + error.message + "): reload the page." });
  } finally {
    state.drawing = false;
  }
}

function figure_(value) {
  return figure(value, 3);
}

function refresh() {
  if (props.notice) ui.status.show(props.notice);
  if (!props.content || props.content === state.shown) return;
  state.shown = props.content;
  // Axes without a curve are nothing to look at.
  state.figures = JSON.parse(props.content).figures.filter((f) => f.traces.length);
  draw();
}
watch(PROPS, refresh);
new MutationObserver(draw).observe(document.body, { attributes: true, attributeFilter: ["class"] });
let settling = null;
new ResizeObserver(() => {
  clearTimeout(settling);
  settling = setTimeout(() => {
    const cards = Array.from(state.drawn.values());
    if (cards.some((card) => displayed(card) && card.plot.clientWidth !== card.width)) draw();
  }, 120);
}).observe(ui.grid);
new IntersectionObserver((entries) => {
  if (state.seen || !entries.some((e) => e.isIntersecting)) return;
  state.seen = true;
  draw();
}, { rootMargin: WELL_BEFORE }).observe(element);
refresh();
