/* What Python sends to a page and what the page sends back. The Python side is in views/header.py, views/rows.py,
 * views/details.py and views/live/live_view.py. These declarations are for the type checker only. */

export type Mode = "attempts" | "rows" | "candidates" | "calls";

export interface Header {
  mode: Mode;
  state: string;
  name: string;
  progress: string;
  done: number;
  total: number | null;
  result: string;
  facts: string[];
  /** The used share of the run's own budget, from 0 to 1; null without a budget. */
  share: number | null;
  /** Seconds at the time of sending; null before the run has started. */
  elapsed: number | null;
  /** The headings of the second column and of the outputs. */
  columns: string[];
  /** The ends of the score bars. */
  low: number;
  high: number;
  notes: string[];
  summary: string;
  ended: boolean;
  stopping: boolean;
  paused: boolean;
  /** The actions that a person can take, as in {@link Steer}. */
  steerable: string[];
  /** Why Python handles messages of the page only after the cell has ended; empty if it handles them at once. */
  note?: string;
}

/** A row without its empty fields. */
export interface Row {
  key: string;
  /** Its place among the rows of the same parent. */
  order: [number, number];
  label: string;
  state: string;
  /** The key of the row that it is inside; absent for an outermost row. */
  up?: string;
  /** How many rows are inside it. */
  kids?: number;
  best?: boolean;
  by?: string;
  mark?: string;
  about?: string;
  outputs?: string;
  error?: string;
  score?: number;
  change?: number;
  seconds?: number;
  tokens?: number;
  /** Keys of the candidate's parents. */
  parents?: string[];
  /** The state of the calls inside it that are being streamed, from {@link LiveRow}; absent if there are none. */
  live?: string;
}

/** The changed fields of a row; null for a field that no longer exists. */
export type RowPatch = { key: string } & { [Name in keyof Row]?: Row[Name] | null };

/** Candidate → the number of validation rows on which it is the best. */
export type Leads = { [candidate: string]: number };

/** The reply so far of a call that is being streamed. */
export interface LiveCall {
  id: number;
  /** The path of the predictor. */
  of: string;
  /** How many characters the thinking has. */
  characters: number;
  /** The last words of the thinking. */
  line: string;
  thinking: string;
  reply: string;
}

/** The streamed calls of a row: a line, which is empty when all of them have ended; and their texts if its detail was
 * requested. */
export interface LiveRow {
  line: string;
  calls?: LiveCall[];
}

export interface Snapshot {
  seq: number;
  header: Header;
  rows: RowPatch[];
  leads?: Leads;
  live?: { [key: string]: LiveRow };
}

export interface Delta {
  type: "delta";
  seq: number;
  header: Partial<Header>;
  rows: RowPatch[];
  /** Keys of rows that no longer exist. */
  removed: string[];
  leads?: Leads;
  /** Key of a row → its streamed calls, for rows in which they changed. */
  live?: { [key: string]: LiveRow };
}

export interface Block {
  kind: string;
  heading: string;
  text: string;
  /** Of a block of the kind `live`. */
  live?: LiveCall;
}

/** Everything about a row that does not fit into its line in the table. */
export interface Detail {
  values: [title: string, parts: [name: string, text: string][]][];
  blocks: Block[];
  /** Path of a predictor → its instruction, for a candidate. */
  edit: { [path: string]: string };
}

export interface CachedDetail extends Detail {
  /** Whether the row changed since, so that a new detail has to be requested. */
  outdated?: boolean;
}

export type Received = Delta | { type: "detail"; key: string; detail: Detail } | { type: "refused"; text: string };

export interface Steer {
  type: "steer";
  action: "hint" | "propose" | "drop" | "pin" | "unpin" | "pause" | "unpause" | "budget";
  value?: unknown;
  parent?: string;
}

export type Sent =
  | { type: "stop" }
  | { type: "snapshot" }
  | { type: "alive"; seq: number }
  | { type: "detail" | "open" | "close"; key: string }
  | Steer;

/** Where a store gets its data from: a running kernel (`send`), or the page itself (`detail`). */
export interface Source {
  send?: (message: Sent) => void;
  detail?: (key: string) => Detail | undefined;
  /** The path of the run's file, shown below the view. */
  file?: string;
}

/** The data in a saved page. Details refer to texts by number, so that each text is in the page only once. */
export interface SavedData {
  header: Header;
  rows: RowPatch[];
  leads?: Leads;
  details: { [key: string]: Omit<Detail, "blocks"> & { blocks: (Omit<Block, "text"> & { text: number })[] } };
  texts: string[];
  file?: string;
}

export interface Sort {
  by: ColumnName;
  descending: boolean;
}

export type ColumnName = "label" | "about" | "score" | "outputs" | "seconds" | "tokens";

/** A row in the table and its level: 1 for an outermost row. */
export interface Entry {
  row: Row;
  level: number;
}

export interface Filter {
  /** Lower-case words that a row must contain; empty: all rows. */
  words: string;
  /** The state that a row must be in; empty: any. */
  state: string;
}

export interface Piece {
  kind: "same" | "removed" | "added";
  text: string;
}

export interface Point {
  x: number;
  y: number;
}

/** The part of anywidget's model that the front end uses. */
export interface WidgetModel {
  get(name: string): unknown;
  send(message: unknown): void;
  on(name: string, callback: (message: any) => void): void;
  off(name: string, callback: (message: any) => void): void;
}
