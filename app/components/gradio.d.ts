/** What a line over a drawing says. */
export interface Notice {
  kind: "busy" | "done" | "error";
  text: string;
  /** A visitor ended the work; nothing to say where nothing was being done. */
  stopped?: boolean;
}

/** What a `gr.HTML` gives its `js_on_load`, and `Panel` hands on to a module's `mount`. */
export interface Mounted<Value = unknown, Server = unknown> {
  element: HTMLElement;
  /** Live: reading gives what the server sent last, and a value that is set goes to the server. */
  props: { content: string | null; notice: Notice | null; value: Value | null };
  server: Server;
  trigger: (event: string) => void;
  watch: (props: string[], changed: () => void) => void;
}
