import type { Mounted } from "../../components/gradio";

/** Text, winner, weights of the sources, nats of the sources, the target and the fused row. */
export type FusedToken = [text: string, winner: number, weights: number[], nats: (number | null)[]];

export interface BoardRow {
  name: string;
  role: string;
  bits: number | null;
  /** What fused rows know that could not be known before the text went on. */
  leaks?: string[];
}

/** How a source's rows arrived at the target. */
export interface Source {
  carried: number | null;
  coverage: number;
  kept: number | null;
  weight: number | null;
  wins: number;
}

export interface Operator {
  operator: string;
  level: string;
  sees: boolean;
  bits: number | null;
  wins: number[];
}

export interface Strategy {
  source: string;
  strategy: string;
  counts: boolean;
  coverage: number;
  kept: number | null;
  transfer: number | null;
  target: number | null;
}

/** A text and all ways of fusing it (`fuse_view` in Python). */
export interface Fusion {
  names: string[];
  target: string;
  tokens: FusedToken[];
  board: BoardRow[];
  sources: Source[];
  operators: Operator[];
  strategies: Strategy[];
  chosen: { operator: string; level: string; strategy: string; rows: string };
}

/** What a visitor chose in a table. */
export type Choice = { operator: string; level: string } | { strategy: string };

export type FuseMounted = Mounted<Choice>;

/** What the tab's modules share. */
export interface View {
  root: HTMLElement;
  text: HTMLElement;
  heat: HTMLElement;
  tip: HTMLElement;
  /** Null until the first fusion has come. */
  fusion: Fusion | null;
  page: number;
  /** The selected token. */
  at: number;
}
