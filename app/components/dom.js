// Everything that comes from a text, a vocabulary or a file name passes through here as textContent.

function make(tag, className, text, attributes) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined && text !== null) node.textContent = text;
  for (const name in attributes || {}) node.setAttribute(name, attributes[name]);
  return node;
}

function add(parent, ...children) {
  for (const child of children) if (child) parent.appendChild(child);
  return parent;
}

function percent(share) {
  return (100 * share).toFixed(1);
}

function figure(value, digits) {
  return value === null || value === undefined ? "–" : value.toFixed(digits);
}

// Colours of sources repeat after six; names stand beside every colour.
function hue(index) {
  return "var(--fl-source-" + (index % 6) + ")";
}

function hexBytes(bytes) {
  const shown = Array.from(bytes.slice(0, 24), (b) => b.toString(16).toUpperCase().padStart(2, "0"));
  return shown.join(" ") + (bytes.length > 24 ? " …" : "");
}
