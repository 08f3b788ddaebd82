/* Headers, rows and stores for tests. */

import { RunStore } from "../../dspynb/views/js/store.js";

/** A header of a run that goes on. */
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
  return new Map(rows.map((one) => [one.key, one]));
}

/** A store of a run that goes on, with a snapshot of these rows; `sent` is what it sends. */
export function storeOf(rows, headerChanges = {}, source = {}) {
  const sent = [];
  const store = new RunStore({ send: (message) => sent.push(message), ...source });
  store.applySnapshot({ seq: 0, header: header(headerChanges), rows });
  return { store, sent };
}

export function delta(seq, changes = {}) {
  return { type: "delta", seq, header: {}, rows: [], removed: [], ...changes };
}
