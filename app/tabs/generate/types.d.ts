import type { makeTableView } from "../../components/table_view";

/** Of a fused step also its winner and the weights of all voices. */
export type Step = [
  text: string, chance: number, entropy: number,
  winner: number, weights: number[], token: number, label: string,
];

/** A model that the ensemble fuses; its number among the sources, -1 for the target. */
export type Voice = [name: string, source: number];

export type Role = "fused" | "target" | "source" | "trained";

/** The first line of the content. */
export interface Heading {
  prompt: string;
  columns: [title: string, role: Role, source: number][];
  voices: Voice[];
  operator: string;
  target: string;
  most: number;
}

/** Each further line of the content. */
export interface Batch {
  steps: [column: number, step: Step][];
  ends: [column: number, why: string, sentence: string][];
  rates: number[];
}

export interface Column {
  title: string;
  role: Role;
  source: number;
  steps: Step[];
  /** Why it has ended; empty while it goes on. */
  end: string;
  /** Tokens a second of its own time. */
  rate: number;
  /** How many tokens each voice has won. */
  wins: number[];
  card: HTMLElement;
  text: HTMLElement;
  fault: HTMLElement;
  foot: HTMLElement;
  /** Who won how much, for the fused column. */
  legend: HTMLElement | null;
}

/** What the tab's modules share. */
export interface View {
  root: HTMLElement;
  bar: HTMLElement;
  stage: HTMLElement;
  fused: HTMLElement;
  others: HTMLElement;
  tip: HTMLElement;
  table: ReturnType<typeof makeTableView>;
  /** Null until something is written. */
  head: Heading | null;
  columns: Column[];
}
