// Figures that Plotly draws again and again into the same nodes.

import { add, button, figure as written, make, noticeLine } from "./dom.js";
import { figureRows, layoutOf, resolved } from "./plotly_figure.js";
import { saveButtons } from "./saves.js";

/** @import { Mounted } from "./gradio" */
/** @import { Card, Figure, Plotly } from "./plotly" */

const NARROWEST = 160; // pixels
const WELL_BEFORE = "400px";
const SETTLED_MS = 120;
const OPTIONS = { displayModeBar: false, displaylogo: false, responsive: false };
const SAVED = { width: 900, height: 480, scale: 2 };

/** @type {Promise<Plotly> | undefined} */
let library;

/** Loads Plotly once for all panels of the page. */
function plotly() {
  library ??= new Promise((loaded, failed) => {
    const script = document.createElement("script");
    script.src = new URL("plotly.min.js", import.meta.url).href;
    script.addEventListener("load", () => loaded(/** @type {Plotly} */ (window.Plotly)));
    script.addEventListener("error", () => {
      library = undefined;
      failed(new Error("Plotly did not come"));
    });
    document.head.appendChild(script);
  });
  return library;
}

/** @param {Mounted} mounted */
export function mount({ element, props, watch }) {
  const root = /** @type {HTMLElement} */ (element.querySelector(".fuselab-view"));
  const panel = new Panel(root);
  /** @type {string | null} */
  let shown = null;
  function refresh() {
    if (props.notice) panel.status.show(props.notice);
    if (!props.content || props.content === shown) return;
    shown = props.content;
    /** @type {{ figures: Figure[] }} */
    const { figures } = JSON.parse(props.content);
    // Axes without a curve are nothing to look at.
    panel.figures = figures.filter((figure) => figure.traces.length);
    panel.draw();
  }
  watch(["content", "notice"], refresh);
  panel.follow(element);
  refresh();
}

class Panel {
  /** Whether the panel has come into sight. */
  seen = false;
  drawing = false;
  again = false;
  /** @type {Figure[]} */
  figures = [];
  /** @type {Map<string, Card>} */
  cards = new Map();
  status = noticeLine();
  grid = make("div", "fl-figures");

  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    add(root, this.status.node, this.grid);
  }

  /**
   * Draws when the panel comes into sight, the theme changes, or there is another width.
   * @param {Element} element
   */
  follow(element) {
    const theme = { attributes: true, attributeFilter: ["class"] };
    new MutationObserver(() => this.draw()).observe(document.body, theme);
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let settling;
    new ResizeObserver(() => {
      clearTimeout(settling);
      settling = setTimeout(() => {
        const cards = Array.from(this.cards.values());
        if (cards.some((c) => isDisplayed(c) && c.plot.clientWidth !== c.width)) this.draw();
      }, SETTLED_MS);
    }).observe(this.grid);
    const sight = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      sight.disconnect();
      this.seen = true;
      this.draw();
    }, { rootMargin: WELL_BEFORE });
    sight.observe(element);
  }

  /** One drawing after another: what comes meanwhile is drawn once, at its end. */
  async draw() {
    this.again = true;
    if (this.drawing) return;
    this.drawing = true;
    try {
      while (this.again) await this.drawAll();
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      this.again = false;
      this.root.hidden = false;
      const text = "The curves cannot be drawn (" + why + "): reload the page.";
      this.status.show({ kind: "error", text });
    } finally {
      this.drawing = false;
    }
  }

  async drawAll() {
    this.again = false;
    this.root.hidden = this.figures.length === 0;
    if (!this.seen || !this.figures.length) return;
    const found = await plotly();
    const { figures } = this;
    for (const [name, card] of this.cards) {
      if (figures.some((figure) => figure.name === name)) continue;
      found.purge(card.plot);
      card.node.remove();
      this.cards.delete(name);
    }
    for (const figure of figures) await this.drawFigure(found, figure);
  }

  /**
   * @param {Plotly} found
   * @param {Figure} figure
   */
  async drawFigure(found, figure) {
    const card = this.cards.get(figure.name) ?? makeCard(figure, this.root);
    this.cards.set(figure.name, card);
    card.figure = figure;
    card.note.textContent = figure.note || "";
    if (!card.node.isConnected) add(this.grid, card.node);
    const last = figure.traces.map(({ name, y }) => name + " " + written(y[y.length - 1], 3));
    card.plot.setAttribute("aria-label", figure.title + "; at the end: " + last.join(", "));
    if (!isDisplayed(card)) return;
    const traces = resolved(figure.traces, this.root);
    await found.react(card.plot, traces, layoutOf(figure, this.root), OPTIONS);
    card.width = card.plot.clientWidth;
  }
}

/**
 * @param {Figure} figure
 * @param {HTMLElement} root
 * @returns {Card}
 */
function makeCard(figure, root) {
  const plot = make("div", "fl-figure", null, { role: "img" });
  const card = { node: make("article", "fl-card"), plot, note: make("p", "fl-note"), figure, width: 0 };
  const saves = saveButtons(figure.name, { rows: () => figureRows(card.figure) });
  for (const format of ["SVG", "PNG"]) {
    const save = () => download(card, format.toLowerCase(), root);
    saves.prepend(button(format, "save this figure as " + format, save));
  }
  const title = add(make("h3"), make("span", "", figure.title), saves);
  add(card.node, add(make("header"), title, card.note), plot);
  return card;
}

/**
 * @param {Card} card
 * @param {string} format
 * @param {Element} root
 */
function download({ plot, figure }, format, root) {
  const paper = resolved("var(--fl-card)", root);
  const layout = { ...plot.layout, paper_bgcolor: paper, plot_bgcolor: paper };
  window.Plotly?.downloadImage({ data: plot.data, layout }, { ...SAVED, format, filename: figure.name });
}

/**
 * Plotly can measure only what is displayed, and fails where the margins leave no room; a page that
 * becomes narrow passes through such widths.
 * @param {Card} card
 */
function isDisplayed({ plot }) {
  return plot.isConnected && plot.clientWidth >= NARROWEST;
}
