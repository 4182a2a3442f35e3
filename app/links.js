// Settings and text live in the address: what is not the default stands in the query string.

const LONGEST = 6000;
const PAUSE_MS = 250;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let waiting;
let complete = true;

/**
 * Writes what is not the default; called with all values whenever one changes. A burst of keys is
 * written once.
 * @param {string[]} keys
 * @param {unknown[]} defaults
 * @param {...unknown} values
 */
export function link(keys, defaults, ...values) {
  clearTimeout(waiting);
  waiting = setTimeout(() => write(keys, defaults, values), PAUSE_MS);
}

/**
 * Writes which token is selected.
 * @param {{ index: number } | null} selection
 */
export function linkToken(selection) {
  const query = new URLSearchParams(location.search);
  if (selection) query.set("token", String(selection.index + 1));
  else query.delete("token");
  replace(query);
}

/** Copies the address; returns what became of it, in words. */
export async function copy() {
  try {
    await navigator.clipboard.writeText(location.href);
  } catch {
    return "The link is in the address line";
  }
  return complete ? "Copied" : "Copied, without a text: it is too long for a link";
}

/**
 * @param {string[]} keys
 * @param {unknown[]} defaults
 * @param {unknown[]} values
 */
function write(keys, defaults, values) {
  const query = new URLSearchParams(location.search);
  complete = true;
  keys.forEach((key, i) => {
    query.delete(key);
    const value = values[i] ?? "";
    if (JSON.stringify(value) === JSON.stringify(defaults[i])) return;
    const list = Array.isArray(value) ? value : [value];
    if (encodeURIComponent(list.join("")).length > LONGEST) complete = false;
    else for (const item of list.length ? list : [""]) query.append(key, item);
  });
  replace(query);
}

/** @param {URLSearchParams} query */
function replace(query) {
  const text = query.toString();
  history.replaceState(history.state, "", location.pathname + (text ? "?" + text : ""));
}
