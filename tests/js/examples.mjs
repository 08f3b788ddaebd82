/* Headers, rows and stores for tests. */

import { RunStore } from "../../dspynb/views/js/store.js";

/** The header of an active run. */
export function header(changes = {}) {
  return {
    mode: "attempts",
    state: "running",
    name: "Refine",
    progress: "3 attempts",
    done: 3,
    total: 10,
    result: "best 0.5",
    facts: ["3 calls"],
    elapsed: 1,
    columns: ["hint", "outputs"],
    low: 0,
    high: 1,
    notes: [],
    summary: "",
    ended: false,
    stopping: false,
    paused: false,
    steerable: [],
    ...changes,
  };
}

/** A row by its number. */
export function row(number, changes = {}) {
  return { key: String(number), order: [0, number], label: String(number), state: "scored", ...changes };
}

export function rowMap(rows) {
  return new Map(rows.map((row) => [row.key, row]));
}

/** The store of an active run, with a snapshot of these rows; `sent` has the messages that it sends. */
export function storeOf(rows, headerChanges = {}, source = {}) {
  const sent = [];
  const store = new RunStore({ send: (message) => sent.push(message), ...source });
  store.applySnapshot({ seq: 0, header: header(headerChanges), rows });
  return { store, sent };
}

export function delta(seq, changes = {}) {
  return { type: "delta", seq, header: {}, rows: [], removed: [], ...changes };
}
