// A figure as Plotly wants it: colours of the page's style sheet, and texts that are no markup.

/** @import { Axis, Figure } from "./plotly" */

const TEXTS = new Set(["name", "legendgroup", "title", "text"]);

/**
 * Plotly reads a little HTML in names and titles.
 * @param {string} text
 */
function plain(text) {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

/**
 * Puts the colours that names of the style sheet stand for, and plain texts, into a value.
 * @template T
 * @param {T} value
 * @param {Element} root
 * @param {string} [key]
 * @returns {T}
 */
export function resolved(value, root, key = "") {
  /** @type {(found: unknown) => T} */
  const as = (found) => /** @type {T} */ (found);
  if (typeof value === "string") {
    if (!value.startsWith("var(")) return as(TEXTS.has(key) ? plain(value) : value);
    return as(getComputedStyle(root).getPropertyValue(value.slice(4, -1)).trim());
  }
  if (Array.isArray(value)) {
    return typeof value[0] === "number" ? value : as(value.map((item) => resolved(item, root, key)));
  }
  if (!value || typeof value !== "object") return value;
  return as(Object.fromEntries(Object.entries(value).map(([k, v]) => [k, resolved(v, root, k)])));
}

/** @param {Axis} given */
function axis(given) {
  return {
    gridcolor: "var(--fl-staff)",
    linecolor: "var(--fl-line)",
    zerolinecolor: "var(--fl-staff)",
    automargin: true,
    ...given,
    title: { text: given.title || "", standoff: 8 },
  };
}

/**
 * The layout of a figure in the page's colours.
 * @param {Figure} figure
 * @param {Element} root
 */
export function layoutOf(figure, root) {
  const { xaxis = {}, yaxis = {}, ...rest } = figure.layout;
  const layout = {
    font: { family: "system-ui, sans-serif", size: 12, color: "var(--fl-quiet)" },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 52, r: 10, t: 8, b: 40 },
    hovermode: "x unified",
    autosize: true,
    hoverlabel: {
      bgcolor: "var(--fl-card)",
      bordercolor: "var(--fl-line)",
      font: { color: "var(--fl-ink)" },
    },
    legend: { orientation: "h", x: 0, y: -0.24, font: { color: "var(--fl-ink)" } },
    ...rest,
    xaxis: axis(xaxis),
    yaxis: axis(yaxis),
  };
  return resolved(layout, root);
}

/**
 * The numbers of a figure, as rows of a table.
 * @param {Figure} figure
 */
export function figureRows({ layout, traces }) {
  /** @type {import("./saves.js").Rows} */
  const rows = [["curve", layout.xaxis?.title || "x", layout.yaxis?.title || "y"]];
  for (const { name, x, y } of traces) x.forEach((at, i) => rows.push([name, at, y[i]]));
  return rows;
}
