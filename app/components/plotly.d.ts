/** What is used of Plotly. */
export interface Plotly {
  react(node: HTMLElement, traces: object[], layout: object, options: object): Promise<unknown>;
  purge(node: HTMLElement): void;
  downloadImage(figure: object, options: object): void;
}

/** What Plotly hangs on the node of a figure. */
export interface Drawn {
  data?: object[];
  layout?: object;
}

export interface Axis {
  title?: string;
}

export interface Figure {
  name: string;
  title: string;
  note?: string;
  traces: { name: string; x: (number | string)[]; y: (number | null)[] }[];
  layout: { xaxis?: Axis; yaxis?: Axis };
}

/** The node of a figure, kept from one drawing to the next. */
export interface Card {
  node: HTMLElement;
  plot: HTMLElement & Drawn;
  note: HTMLElement;
  figure: Figure;
  /** Width for which it was drawn. */
  width: number;
}

declare global {
  interface Window {
    Plotly?: Plotly;
  }
}
