// Pictures and tables as files: what is drawn on the page, as SVG or PNG; tables as CSV.

const SVG = "http://www.w3.org/2000/svg";

function svgNode(tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const name in attributes) node.setAttribute(name, attributes[name]);
  return node;
}

// Draws a node again as SVG: boxes with their grounds and borders, and text where it stands.
function toSvg(node) {
  const frame = node.getBoundingClientRect();
  const width = Math.ceil(Math.max(frame.width, node.scrollWidth)) + 16;
  const height = Math.ceil(Math.max(frame.height, node.scrollHeight)) + 16;
  const svg = svgNode("svg", { xmlns: SVG, width, height, viewBox: `0 0 ${width} ${height}` });
  const paper = getComputedStyle(node).getPropertyValue("--fl-paper").trim() || "#fff";
  svg.appendChild(svgNode("rect", { width, height, fill: paper }));
  const origin = { x: frame.left - 8 - node.scrollLeft, y: frame.top - 8 - node.scrollTop };
  drawInto(svg, node, origin);
  return svg;
}

function drawInto(svg, node, origin) {
  if (node.nodeType === Node.TEXT_NODE) return drawText(svg, node, origin);
  if (node.nodeType !== Node.ELEMENT_NODE || node.classList.contains("fl-save")) return;
  if (!node.getClientRects().length) return;
  const style = getComputedStyle(node);
  if (style.visibility === "hidden" || style.clipPath.startsWith("inset(50%")) return;
  drawBox(svg, node.getBoundingClientRect(), style, origin);
  // What is lifted above its neighbours is drawn after them.
  const lifted = (child) => (child.nodeType === Node.ELEMENT_NODE ? Number(getComputedStyle(child).zIndex) || 0 : 0);
  for (const child of Array.from(node.childNodes).sort((a, b) => lifted(a) - lifted(b))) drawInto(svg, child, origin);
}

function drawBox(svg, box, style, origin) {
  const line = parseFloat(style.borderTopWidth) || parseFloat(style.borderLeftWidth) || 0;
  const ring = /(rgba?\([^)]*\)).* ([\d.]+)px/.exec(style.boxShadow.split("px,")[0]);
  const filled = !/rgba\(.*, 0\)|transparent/.test(style.backgroundColor);
  const hatched = style.backgroundImage.startsWith("repeating");
  if (!filled && !line && !hatched) return;
  const inset = line / 2;
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
    svg.appendChild(svgNode("rect", { ...shape, x: shape.x - inset, width: line, rx: 0, fill: style.borderLeftColor }));
  }
}

function drawText(svg, node, origin) {
  const text = node.textContent;
  if (!text.trim()) return;
  const style = getComputedStyle(node.parentElement);
  const around = node.parentElement.getBoundingClientRect();
  const range = document.createRange();
  // A text that wraps is drawn line by line.
  const lines = [];
  let from = 0;
  for (const part of text.split(/(?<=\s)/u)) {
    range.setStart(node, from);
    range.setEnd(node, from + part.length);
    const box = range.getBoundingClientRect();
    const last = lines[lines.length - 1];
    if (last && Math.abs(last.top - box.top) < 2) last.text += part;
    else lines.push({ text: part, top: box.top, left: box.left, height: box.height });
    from += part.length;
  }
  const size = parseFloat(style.fontSize);
  for (const line of lines) {
    const hides = style.overflowX === "hidden" || style.overflowX === "clip";
    const left = Math.max(line.left, hides ? around.left : -Infinity);
    const label = svgNode("text", {
      x: left - origin.x,
      y: line.top - origin.y + line.height / 2 + size * 0.35,
      fill: style.color,
      "font-family": style.fontFamily,
      "font-size": size,
      "font-weight": style.fontWeight,
      "font-style": style.fontStyle,
      "xml:space": "preserve",
    });
    label.textContent = line.text;
    if (!hides) {
      svg.appendChild(label);
      continue;
    }
    const frame = svgNode("svg", {
      x: around.left - origin.x,
      y: around.top - origin.y,
      width: Math.max(1, around.width),
      height: Math.max(1, around.height),
      overflow: "hidden",
    });
    label.setAttribute("x", left - around.left);
    label.setAttribute("y", line.top - around.top + line.height / 2 + size * 0.35);
    svg.appendChild(add(frame, label));
  }
}

function saveFile(blob, name) {
  const link = make("a", "", "", { download: name, href: URL.createObjectURL(blob) });
  document.body.appendChild(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function saveSvg(node, name) {
  const source = new XMLSerializer().serializeToString(toSvg(node));
  saveFile(new Blob([source], { type: "image/svg+xml" }), name + ".svg");
}

function savePng(node, name) {
  const svg = toSvg(node);
  const source = new XMLSerializer().serializeToString(svg);
  const image = new Image();
  image.addEventListener("error", () => saveFile(new Blob([source], { type: "image/svg+xml" }), name + ".svg"));
  image.addEventListener("load", () => {
    const canvas = document.createElement("canvas");
    const scale = Math.min(2, 16000 / Math.max(image.width, image.height));
    canvas.width = image.width * scale;
    canvas.height = image.height * scale;
    const paint = canvas.getContext("2d");
    paint.scale(scale, scale);
    paint.drawImage(image, 0, 0);
    canvas.toBlob((blob) => saveFile(blob, name + ".png"), "image/png");
  });
  image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(source);
}

// Cells that a spreadsheet would take for a formula are marked as text.
function csvCell(text) {
  const plain = /^[=+@\t\r]|^-(?![\d.])/.test(text) ? "'" + text : text;
  return '"' + plain.replace(/"/g, '""') + '"';
}

function saveCsv(rows, name) {
  const text = rows.map((row) => row.map((cell) => csvCell(String(cell ?? ""))).join(",")).join("\r\n");
  saveFile(new Blob(["\ufeff" + text], { type: "text/csv" }), name + ".csv");
}

function tableRows(table) {
  return Array.from(table.rows, (row) => Array.from(row.cells, (cell) => cell.textContent));
}

// Buttons that save a picture of a node, or a table; what is saved is asked for when it is pressed.
function saveButtons(name, { picture, rows }) {
  const group = make("span", "fl-save");
  if (picture) {
    add(group, button("PNG", "save this picture as PNG", () => savePng(picture(), name)));
    add(group, button("SVG", "save this picture as SVG", () => saveSvg(picture(), name)));
  }
  if (rows) add(group, button("CSV", "save this table as CSV", () => saveCsv(rows(), name)));
  return group;
}
