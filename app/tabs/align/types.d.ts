import type { Mounted } from "../../components/gradio";
import type { makeTableView } from "../../components/table_view";
import type { makeParts } from "./parts";

/** Cells from, to; bytes from, to; id; kind of match; label; target token of the page it selects. */
export type Token = [
  from: number, to: number, start: number, end: number,
  id: number, kind: number, label: string, link: number,
];

/** The tokens of one model; the target's lane is the last. */
export interface Lane {
  name: string;
  short: string;
  count: number;
  tokens: Token[];
  lost: [from: number, to: number][];
}

export interface BoardRow {
  name: string;
  role: string;
  bits: number | null;
  /** What fused rows know that could not be known before the text went on. */
  leaks?: string[];
}

/** One page of an analysis (`score` in Python). */
export interface Score {
  id: string;
  page: number;
  starts: number[];
  first: number;
  total: number;
  text: string;
  start: number;
  axis: [sign: string, width: number][];
  lanes: Lane[];
  rings: number[][];
  bars: number[];
  breaks: number[];
  winners: number[];
  kinds: number[];
  board: BoardRow[];
  open: number;
}

/** A line of the score: a stretch of the axis, in cells. */
export interface Stretch {
  from: number;
  to: number;
  number: number;
  last: boolean;
}

export interface System extends Stretch {
  node: HTMLElement;
  band: HTMLElement;
}

/** What a source token gave to a fused one; the number of sources stands for the target. */
export type Origin = [source: number, label: string, share: number];

export interface Row {
  bars: [label: string, share: number, observed: boolean][];
  tail: number;
  from?: Origin[][];
}

export interface Source {
  name: string;
  kind: string;
  ce: number | null;
  kept: number | null;
  weight: number | null;
  winner: boolean;
  carried: Row;
  own: Row | null;
  after: string;
  inside: [token: string, known: string] | null;
}

/** The distributions that predict one target token (`cards` in Python). */
export interface Cards {
  index: number;
  after: string;
  target: { name: string; row: Row; ce: number | null };
  sources: Source[];
  fused: {
    row: Row;
    ce: number | null;
    entropy: number | null;
    winner: number;
    details: { operator?: string; level?: string; strategy?: string; rows?: string };
  };
}

export interface Reader {
  role: string;
  name: string;
  shares: number[];
  other: number;
  end: number;
  unknown: number;
}

/** The same position as next characters (`characters` in Python). */
export interface Characters {
  index: number;
  after: string;
  labels: [label: string, observed: boolean][];
  readers: Reader[];
}

export interface Question {
  id: string;
  index: number;
  characters: boolean;
}

/** What may be asked between two events; null: the server no longer has this analysis. */
export interface Server {
  read_page(question: { id: string; page: number }): Promise<Score | null>;
  read_cards(question: Question): Promise<Cards | null>;
  read_characters(question: Question): Promise<Characters | { wait: true } | null>;
}

export type AlignMounted = Mounted<{ id: string; index: number }, Server>;

/** What the tab's modules share. */
export interface View {
  root: HTMLElement;
  props: AlignMounted["props"];
  server: Server;
  trigger: AlignMounted["trigger"];
  parts: ReturnType<typeof makeParts>;
  table: ReturnType<typeof makeTableView>;
  /** What was drawn last, as it came. */
  shown: string | null;
  /** Null until the first analysis has come. */
  score: Score | null;
  /** The text of the page. */
  bytes: Uint8Array;
  /** The selected target token, counted through all pages. */
  index: number;
  /** The page that is being asked for, and the token to select on it. */
  opening: { page: number; index: number } | null;
  /** Width for which the score was drawn. */
  width: number;
  systems: System[];
  targetNodes: Map<number, HTMLElement[]>;
  sourceNodes: Map<string, HTMLElement[]>;
  /** The kind of match that is shown alone. */
  only: number | null;
  /** Whether cards show next characters. */
  characters: boolean;
  cards: Map<string, Cards | Characters>;
  asked: Question | null;
  asking: boolean;
  /** Next characters have been asked for by an event. */
  waiting: boolean;
}
