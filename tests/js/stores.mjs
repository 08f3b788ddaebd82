/* Stores of the view's front end for tests in Python: reads commands as lines of JSON, and answers each with a line of
 * JSON. See tests/views/fakes.py. */

import { createInterface } from "node:readline";
import { groupByParent, listEntries, OWN_ORDER } from "../../dspynb/views/js/row_order.js";
import { RunStore } from "../../dspynb/views/js/store.js";

performance.now = () => 0; // no message of the store depends on the time

const stores = [];

const commands = {
  create() {
    const sent = [];
    stores.push({ store: new RunStore({ send: (message) => sent.push(message) }), sent });
    return stores.length - 1;
  },
  receive({ id, message }) {
    stores[id].store.receive(message);
    return stores[id].sent.splice(0);
  },
  snapshot({ id, snapshot }) {
    stores[id].store.applySnapshot(snapshot);
    return stores[id].sent.splice(0);
  },
  state({ id }) {
    const { header, rows, seq, leads, refusal, details, liveCalls } = stores[id].store;
    const live = Object.fromEntries(liveCalls);
    return { header, rows: [...rows.values()], seq, leads, refusal, details: Object.fromEntries(details), live };
  },
  entries({ id, filter = { words: "", state: "" }, sort = OWN_ORDER, open = [] }) {
    const entries = listEntries(groupByParent(stores[id].store.rows.values()), filter, sort, new Set(open));
    return entries.map(({ row, level }) => [level, row.label]);
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { command, ...options } = JSON.parse(line);
  process.stdout.write(`${JSON.stringify(commands[command](options))}\n`);
}
