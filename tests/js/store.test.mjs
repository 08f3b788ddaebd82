import assert from "node:assert/strict";
import { test } from "node:test";
import { mergeRow, RunStore } from "../../dspynb/views/js/store.js";
import { delta, header, row, storeOf } from "./examples.mjs";

const ofType = (sent, type) => sent.filter((message) => message.type === type);

test("a snapshot replaces all rows", () => {
  const { store } = storeOf([row(1), row(2)]);
  store.applySnapshot({ seq: 4, header: header(), rows: [row(3)], leads: { a: 2 } });
  assert.deepEqual([...store.rows.keys()], ["3"]);
  assert.deepEqual([store.seq, store.leads], [4, { a: 2 }]);
});

test("a snapshot older than the last delta is ignored", () => {
  const { store } = storeOf([row(1)]);
  store.receive(delta(1, { rows: [row(2)] }));
  store.applySnapshot({ seq: 0, header: header(), rows: [] });
  assert.deepEqual([...store.rows.keys()], ["1", "2"]);
});

test("a store is not ready before its first snapshot", () => {
  const store = new RunStore({ send() {} });
  store.applySnapshot({});
  assert.equal(store.ready, false);
  store.applySnapshot({ seq: 0, header: header(), rows: [] });
  assert.equal(store.ready, true);
});

test("a delta changes the fields that it names, and null removes a field", () => {
  const { store } = storeOf([row(1, { about: "a hint", error: "too long" })]);
  store.receive(delta(1, { header: { done: 4 }, rows: [{ key: "1", state: "done", error: null }] }));
  assert.deepEqual(store.rows.get("1"), row(1, { about: "a hint", state: "done" }));
  assert.equal(store.header.done, 4);
  assert.equal(store.header.name, "Refine");
});

test("a new row has no fields that are null", () => {
  assert.deepEqual(mergeRow(undefined, row(1, { score: null })), row(1));
  const { store } = storeOf([row(1, { score: null })]);
  assert.equal("score" in store.rows.get("1"), false);
});

test("removed rows disappear", () => {
  const { store } = storeOf([row(1), row(2)]);
  store.receive(delta(1, { removed: ["1", "unknown"] }));
  assert.deepEqual([...store.rows.keys()], ["2"]);
});

test("a delta that was already applied is ignored", () => {
  const { store, sent } = storeOf([row(1)]);
  store.receive(delta(1, { rows: [{ key: "1", state: "done" }] }));
  store.receive(delta(2, { rows: [{ key: "1", state: "failed" }] }));
  store.receive(delta(1, { rows: [{ key: "1", state: "done" }] }));
  assert.equal(store.rows.get("1").state, "failed");
  assert.deepEqual(ofType(sent, "snapshot"), []);
});

test("after a missed delta one snapshot is requested, and later deltas are not applied", () => {
  const { store, sent } = storeOf([row(1)]);
  store.receive(delta(2, { rows: [row(2)] }));
  store.receive(delta(3, { rows: [row(3)] }));
  assert.deepEqual(ofType(sent, "snapshot"), [{ type: "snapshot" }]);
  assert.deepEqual([...store.rows.keys()], ["1"]);
  store.applySnapshot({ seq: 3, header: header(), rows: [row(1), row(2), row(3)] });
  store.receive(delta(4, { rows: [row(4)] }));
  assert.equal(store.rows.size, 4);
  store.receive(delta(6));
  assert.equal(ofType(sent, "snapshot").length, 2);
});

test("leads stay until a delta replaces them", () => {
  const { store } = storeOf([]);
  store.receive(delta(1, { leads: { a: 1 } }));
  store.receive(delta(2));
  assert.deepEqual(store.leads, { a: 1 });
});

test("a detail is requested once, and again after its row has changed", () => {
  const { store, sent } = storeOf([row(1)]);
  assert.equal(store.detail("1"), null);
  assert.equal(store.detail("1"), null);
  assert.deepEqual(ofType(sent, "detail"), [{ type: "detail", key: "1" }]);
  store.receive({ type: "detail", key: "1", detail: { values: [], blocks: [], edit: {} } });
  assert.equal(store.detail("1").outdated, false);
  assert.equal(ofType(sent, "detail").length, 1);
  store.receive(delta(1, { rows: [{ key: "1", state: "done" }] }));
  assert.equal(store.detail("1").outdated, true); // returned until the new one is received
  assert.equal(ofType(sent, "detail").length, 2);
});

test("a detail that is not received is requested again after a while", (t) => {
  let now = 10_000;
  t.mock.method(performance, "now", () => now);
  const { store, sent } = storeOf([row(1)]);
  store.detail("1");
  now += 2_999;
  store.detail("1");
  assert.equal(ofType(sent, "detail").length, 1);
  now += 1;
  store.detail("1");
  assert.equal(ofType(sent, "detail").length, 2);
});

test("a saved page has its own details and sends nothing", () => {
  const detail = { values: [], blocks: [], edit: {} };
  const store = new RunStore({ detail: (key) => (key === "1" ? detail : undefined), file: "run.jsonl" });
  assert.equal(store.saved, true);
  assert.equal(store.file, "run.jsonl");
  assert.equal(store.detail("1"), detail);
  assert.equal(store.detail("2"), null);
  store.sendAlive();
  store.send({ type: "open", key: "1" });
});

test("while messages are received, the page tells Python every five seconds that it is open", (t) => {
  let now = 10_000;
  t.mock.method(performance, "now", () => now);
  const { store, sent } = storeOf([]);
  store.receive(delta(1));
  store.receive(delta(2));
  assert.deepEqual(ofType(sent, "alive"), [{ type: "alive", seq: 1 }]);
  now += 5_001;
  store.receive(delta(3));
  assert.deepEqual(ofType(sent, "alive").at(-1), { type: "alive", seq: 3 });
});

test("after the end the page sends nothing", () => {
  const { store, sent } = storeOf([], { ended: true });
  store.sendAlive();
  assert.deepEqual(sent, []);
});

test("a refusal is shown until the next action", () => {
  const { store } = storeOf([]);
  store.receive({ type: "refused", text: "a hint needs words" });
  assert.equal(store.refusal, "a hint needs words");
  store.send({ type: "steer", action: "pause" });
  assert.equal(store.refusal, "");
});

test("unknown messages are ignored", () => {
  const { store } = storeOf([row(1)]);
  for (const message of [null, undefined, {}, { type: "unknown" }]) store.receive(message);
  assert.equal(store.rows.size, 1);
});

test("each view is notified of each change once", () => {
  const { store } = storeOf([]);
  const notified = [];
  store.views.add(() => notified.push("first"));
  store.views.add(() => notified.push("second"));
  store.receive(delta(1));
  assert.deepEqual(notified, ["first", "second"]);
});
