// Settings and text live in the address: what is not the default stands in the query string.
(() => {
  const LONGEST = 6000;
  let waiting = null;
  let whole = true;
  window.fuselab = {
    // Called with all values whenever one changes; a burst of keys is written once.
    link(keys, defaults, values) {
      clearTimeout(waiting);
      waiting = setTimeout(() => write(keys, defaults, values), 250);
    },
    set(key, value) {
      const query = new URLSearchParams(location.search);
      if (value === null || value === undefined) query.delete(key);
      else query.set(key, value);
      history.replaceState(history.state, "", address(query));
    },
    async copy() {
      try {
        await navigator.clipboard.writeText(location.href);
      } catch (error) {
        return "The link is in the address line";
      }
      return whole ? "Copied" : "Copied, without a text: it is too long for a link";
    },
  };

  function write(keys, defaults, values) {
    const query = new URLSearchParams(location.search);
    whole = true;
    keys.forEach((key, i) => {
      query.delete(key);
      const value = values[i] ?? "";
      if (JSON.stringify(value) === JSON.stringify(defaults[i])) return;
      const list = Array.isArray(value) ? value : [value];
      if (encodeURIComponent(list.join("")).length > LONGEST) whole = false;
      else for (const item of list.length ? list : [""]) query.append(key, item);
    });
    history.replaceState(history.state, "", address(query));
  }

  function address(query) {
    const text = query.toString();
    return location.pathname + (text ? "?" + text : "");
  }
})();
