/** "fused" or "baseline"; samples of the target as it was are "before". */
export type Part = "fused" | "baseline" | "before";

/** How far a part of a training is. */
export interface Progress {
  part: Part;
  label: string;
  state: string;
  stage: string;
  live: boolean;
  share: number;
  step: number;
  steps: number;
  left: number | null;
  message: string;
}

/** Bits per byte of one held-out text: before, after text alone, after fusion. */
export type Comparison = [
  text: string, before: number, baseline: number | null, fused: number | null,
];

export interface Sample {
  prompt: string;
  texts: [part: Part, label: string, text: string][];
}

/** What is shown of a training; each may be missing. */
export interface Run {
  title?: string;
  note?: string;
  facts?: [label: string, value: string][];
  parts?: Progress[];
  table?: Comparison[];
  samples?: Sample[];
}
