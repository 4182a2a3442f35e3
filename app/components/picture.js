// What is drawn on the page, as SVG: boxes with their grounds and borders, text at its place.

import { add } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = 8;

/** @typedef {{ x: number, y: number }} Point */

/**
 * @template {"svg" | "rect" | "text"} T
 * @param {T} tag
 * @param {Record<string, string | number>} attributes
 */
function svgNode(tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const name in attributes) node.setAttribute(name, String(attributes[name]));
  return node;
}

/**
 * Draws a node again as SVG.
 * @param {HTMLElement} node
 */
export function toSvg(node) {
  const frame = node.getBoundingClientRect();
  const width = Math.ceil(Math.max(frame.width, node.scrollWidth)) + 2 * MARGIN;
  const height = Math.ceil(Math.max(frame.height, node.scrollHeight)) + 2 * MARGIN;
  const svg = svgNode("svg", { xmlns: SVG, width, height, viewBox: `0 0 ${width} ${height}` });
  const paper = getComputedStyle(node).getPropertyValue("--fl-paper").trim() || "#fff";
  svg.appendChild(svgNode("rect", { width, height, fill: paper }));
  const origin = { x: frame.left - MARGIN - node.scrollLeft, y: frame.top - MARGIN - node.scrollTop };
  drawInto(svg, node, origin);
  return svg;
}

/**
 * @param {SVGElement} svg
 * @param {Node} node
 * @param {Point} origin
 */
function drawInto(svg, node, origin) {
  if (node instanceof Text) drawText(svg, node, origin);
  if (!(node instanceof Element) || node.classList.contains("fl-save")) return;
  if (!node.getClientRects().length) return;
  const style = getComputedStyle(node);
  if (style.visibility === "hidden" || style.clipPath.startsWith("inset(50%")) return;
  drawBox(svg, node.getBoundingClientRect(), style, origin);
  // What is lifted above its neighbours is drawn after them.
  /** @param {Node} child */
  const lifted = (child) => (child instanceof Element ? Number(getComputedStyle(child).zIndex) || 0 : 0);
  for (const child of Array.from(node.childNodes).sort((a, b) => lifted(a) - lifted(b))) drawInto(svg, child, origin);
}

/**
 * @param {SVGElement} svg
 * @param {DOMRect} box
 * @param {CSSStyleDeclaration} style
 * @param {Point} origin
 */
function drawBox(svg, box, style, origin) {
  const line = parseFloat(style.borderTopWidth) || parseFloat(style.borderLeftWidth) || 0;
  const ring = /(rgba?\([^)]*\)).* ([\d.]+)px/.exec(style.boxShadow.split("px,")[0]);
  const filled = !/rgba\(.*, 0\)|transparent/.test(style.backgroundColor);
  const hatched = style.backgroundImage.startsWith("repeating");
  if (!filled && !line && !hatched) return;
  const inset = line / 2;
  /** @type {Record<string, string | number>} */
  const shape = {
    x: box.left - origin.x + inset,
    y: box.top - origin.y + inset,
    width: Math.max(0.1, box.width - line),
    height: Math.max(0.1, box.height - line),
    rx: Math.min(parseFloat(style.borderTopLeftRadius) || 0, box.height / 2),
    fill: filled ? style.backgroundColor : "none",
  };
  if (line && parseFloat(style.borderTopWidth)) {
    shape.stroke = style.borderTopColor;
    shape["stroke-width"] = line;
    if (style.borderTopStyle === "dashed") shape["stroke-dasharray"] = "3 2";
    if (style.borderTopStyle === "dotted") shape["stroke-dasharray"] = "1 2";
  }
  if (hatched) Object.assign(shape, { fill: "none", stroke: style.getPropertyValue("--fl-over-line"), "stroke-dasharray": "2 3", "stroke-width": 1 });
  svg.appendChild(svgNode("rect", shape));
  if (ring && style.boxShadow.includes("0px 0px 0px")) {
    svg.appendChild(svgNode("rect", { ...shape, fill: "none", stroke: ring[1], "stroke-width": 2, "stroke-dasharray": "none" }));
  }
  if (line && !parseFloat(style.borderTopWidth)) {
    svg.appendChild(svgNode("rect", { ...shape, x: box.left - origin.x, width: line, rx: 0, fill: style.borderLeftColor }));
  }
}

/**
 * Cuts a text into the lines in which it wraps.
 * @param {Text} node
 */
function linesOf(node) {
  const range = document.createRange();
  /** @type {{ text: string, top: number, left: number, height: number }[]} */
  const lines = [];
  let from = 0;
  for (const part of node.data.split(/(?<=\s)/u)) {
    range.setStart(node, from);
    range.setEnd(node, from + part.length);
    const box = range.getBoundingClientRect();
    const last = lines[lines.length - 1];
    if (last && Math.abs(last.top - box.top) < 2) last.text += part;
    else lines.push({ text: part, top: box.top, left: box.left, height: box.height });
    from += part.length;
  }
  return lines;
}

/**
 * @param {SVGElement} svg
 * @param {Text} node
 * @param {Point} origin
 */
function drawText(svg, node, origin) {
  const parent = node.parentElement;
  if (!parent || !node.data.trim()) return;
  const style = getComputedStyle(parent);
  const outer = parent.getBoundingClientRect();
  const size = parseFloat(style.fontSize);
  const hides = style.overflowX === "hidden" || style.overflowX === "clip";
  const frame = svgNode("svg", {
    x: outer.left - origin.x,
    y: outer.top - origin.y,
    width: Math.max(1, outer.width),
    height: Math.max(1, outer.height),
    overflow: "hidden",
  });
  const from = hides ? { x: outer.left, y: outer.top } : origin;
  for (const line of linesOf(node)) {
    const left = hides ? Math.max(line.left, outer.left) : line.left;
    const label = svgNode("text", {
      x: left - from.x,
      y: line.top - from.y + line.height / 2 + size * 0.35,
      fill: style.color,
      "font-family": style.fontFamily,
      "font-size": size,
      "font-weight": style.fontWeight,
      "font-style": style.fontStyle,
      "xml:space": "preserve",
    });
    label.textContent = line.text;
    add(hides ? frame : svg, label);
  }
  if (hides) svg.appendChild(frame);
}
