// Files that a visitor saves: pictures as SVG or PNG, tables as CSV.

import { add, button, make } from "./dom.js";
import { toSvg } from "./picture.js";

const LARGEST = 16000; // pixels of a side that browsers draw

/** @typedef {(string | number | null | undefined)[][]} Rows */

/**
 * @param {Blob} blob
 * @param {string} name
 */
function saveFile(blob, name) {
  const link = make("a", "", "", { download: name, href: URL.createObjectURL(blob) });
  document.body.appendChild(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

/**
 * @param {HTMLElement} node
 * @param {string} name
 */
function saveSvg(node, name) {
  const source = new XMLSerializer().serializeToString(toSvg(node));
  saveFile(new Blob([source], { type: "image/svg+xml" }), name + ".svg");
}

/**
 * @param {HTMLElement} node
 * @param {string} name
 */
function savePng(node, name) {
  const source = new XMLSerializer().serializeToString(toSvg(node));
  const image = new Image();
  const instead = () => saveFile(new Blob([source], { type: "image/svg+xml" }), name + ".svg");
  image.addEventListener("error", instead);
  image.addEventListener("load", () => {
    const canvas = document.createElement("canvas");
    const scale = Math.min(2, LARGEST / Math.max(image.width, image.height));
    canvas.width = image.width * scale;
    canvas.height = image.height * scale;
    const paint = canvas.getContext("2d");
    paint?.scale(scale, scale);
    paint?.drawImage(image, 0, 0);
    canvas.toBlob((blob) => (blob ? saveFile(blob, name + ".png") : instead()), "image/png");
  });
  image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(source);
}

/**
 * Cells that a spreadsheet would take for a formula are marked as text.
 * @param {string} text
 */
function csvCell(text) {
  const plain = /^[=+@\t\r]|^-(?![\d.])/.test(text) ? "'" + text : text;
  return '"' + plain.replace(/"/g, '""') + '"';
}

/**
 * @param {Rows} rows
 * @param {string} name
 */
function saveCsv(rows, name) {
  const text = rows.map((row) => row.map((cell) => csvCell(String(cell ?? ""))).join(",")).join("\r\n");
  saveFile(new Blob(["\ufeff" + text], { type: "text/csv" }), name + ".csv");
}

/**
 * The texts of a table on the page.
 * @param {HTMLTableElement} table
 */
export function tableRows(table) {
  return Array.from(table.rows, (row) => Array.from(row.cells, (cell) => cell.textContent));
}

/**
 * Makes buttons that save a picture of a node, or a table; what is saved is asked for when one is
 * pressed.
 * @param {string} name
 * @param {{ picture?: () => HTMLElement, rows?: () => Rows }} saved
 */
export function saveButtons(name, { picture, rows }) {
  const group = make("span", "fl-save");
  if (picture) {
    add(group, button("PNG", "save this picture as PNG", () => savePng(picture(), name)));
    add(group, button("SVG", "save this picture as SVG", () => saveSvg(picture(), name)));
  }
  if (rows) add(group, button("CSV", "save this table as CSV", () => saveCsv(rows(), name)));
  return group;
}
