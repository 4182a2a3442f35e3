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

function button(text, title, action) {
  const node = make("button", "", text, { type: "button", title });
  node.addEventListener("click", action);
  return node;
}

// Names of props must not stand in quotes here: Gradio takes quoted words for names of events.
const PROPS = Object.keys({ content: 0, notice: 0 });

// Shows the notice of a panel in a line of its own; while work goes on, with the seconds it takes.
function noticeLine() {
  const line = make("p", "fl-status", "", { role: "status", "aria-live": "polite" });
  let clock = null;
  line.show = (status) => {
    clearInterval(clock);
    line.className = "fl-status fl-" + status.kind;
    line.setAttribute("role", status.kind === "error" ? "alert" : "status");
    line.textContent = status.text;
    if (status.kind !== "busy") return;
    const seconds = make("span", "fl-seconds", "", { "aria-hidden": "true" });
    const begun = Date.now();
    line.appendChild(seconds);
    clock = setInterval(() => {
      if (!line.isConnected) return clearInterval(clock);
      seconds.textContent = " " + Math.round((Date.now() - begun) / 1000) + " s";
    }, 1000);
  };
  return line;
}

// Parts of a table: rows of cells; a cell is text, a number, or a node.
function makeTable(heads, rows) {
  const table = make("table");
  const head = make("tr");
  for (const title of heads) add(head, make("th", "", title, { scope: "col" }));
  const body = make("tbody");
  for (const cells of rows) {
    const row = make("tr");
    for (const cell of cells) add(row, cell instanceof Node ? cell : make("td", "", cell));
    add(body, row);
  }
  return add(table, add(make("thead"), head), body);
}

function shortName(name) {
  const [plain, ...asked] = name.split("?");
  const short = plain.replace(/[\/\\]+$/, "").split(/[\/\\]/).pop().replace(/^zoo:/, "");
  return short ? [short, ...asked].join("?") : name;
}

// Hangs a tip from a node, within the frame of the drawing.
function hang(tip, node, frame) {
  tip.hidden = false;
  const box = node.getBoundingClientRect();
  const around = frame.getBoundingClientRect();
  tip.style.left = Math.min(Math.max(0, box.left - around.left), around.width - tip.offsetWidth) + "px";
  tip.style.top = box.bottom - around.top + 8 + "px";
}
