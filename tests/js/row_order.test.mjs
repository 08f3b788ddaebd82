import assert from "node:assert/strict";
import { test } from "node:test";
import { comparableRows, comparisonOptions, defaultComparison } from "../../dspynb/views/js/comparison.js";
import { actionOfKey } from "../../dspynb/views/js/keyboard.js";
import {
  groupByParent,
  listEntries,
  matchesFilter,
  nextSort,
  OWN_ORDER,
  sortRows,
} from "../../dspynb/views/js/row_order.js";
import { row, rowMap } from "./examples.mjs";

const ALL = { words: "", state: "" };
const labels = (entries) => entries.map((entry) => `${entry.level}:${entry.row.label}`);
const keys = (rows) => rows.map(({ key }) => key);

test("rows are in their own order, whatever the order of receiving them", () => {
  const rows = [row(3), row(1), { ...row(2), order: [1, 0] }, row(4)];
  assert.deepEqual(keys(groupByParent(rows).get("")), ["1", "3", "4", "2"]);
});

test("an open row is followed by the rows inside it, at any depth", () => {
  const rows = [row(1), row(2), row(11, { up: "1" }), row(12, { up: "1" }), row(111, { up: "11" })];
  const groups = groupByParent(rows);
  assert.deepEqual(labels(listEntries(groups, ALL, OWN_ORDER, new Set())), ["1:1", "1:2"]);
  assert.deepEqual(labels(listEntries(groups, ALL, OWN_ORDER, new Set(["1"]))), ["1:1", "2:11", "2:12", "1:2"]);
  const open = new Set(["1", "11"]);
  assert.deepEqual(labels(listEntries(groups, ALL, OWN_ORDER, open)), ["1:1", "2:11", "3:111", "2:12", "1:2"]);
});

test("a filter applies to outermost rows; rows inside an open row stay", () => {
  const rows = [row(1, { about: "Sea" }), row(2, { about: "sky" }), row(11, { up: "1", about: "sky" })];
  const entries = listEntries(groupByParent(rows), { words: "sea", state: "" }, OWN_ORDER, new Set(["1", "2"]));
  assert.deepEqual(labels(entries), ["1:1", "2:11"]);
});

test("a filter matches all texts of a row, in any case, and its state", () => {
  const failed = row(1, { error: "ParseError: x", by: "person" });
  assert.equal(matchesFilter(failed, { words: "parseerror", state: "" }), true);
  assert.equal(matchesFilter(failed, { words: "person", state: "scored" }), true);
  assert.equal(matchesFilter(failed, { words: "", state: "failed" }), false);
  assert.equal(matchesFilter(failed, { words: "sea", state: "" }), false);
});

test("rows are sorted by a column; equal ones keep their order", () => {
  const rows = [row(1, { score: 0.5 }), row(2), row(3, { score: 0.9 }), row(4, { score: 0.5 })];
  assert.deepEqual(keys(sortRows(rows, { by: "score", descending: true })), ["3", "1", "4", "2"]);
  assert.deepEqual(keys(sortRows(rows, { by: "score", descending: false })), ["2", "1", "4", "3"]);
  assert.deepEqual(keys(sortRows(rows, { by: "label", descending: true })), ["4", "3", "2", "1"]);
});

test("outputs are sorted by the error where there is one", () => {
  const rows = [row(1, { outputs: "b" }), row(2, { outputs: "z", error: "a" })];
  assert.deepEqual(keys(sortRows(rows, { by: "outputs", descending: false })), ["2", "1"]);
});

test("clicks on a heading: its usual direction, the other, the rows' own order", () => {
  const first = nextSort(OWN_ORDER, "score");
  const second = nextSort(first, "score");
  assert.deepEqual(first, { by: "score", descending: true });
  assert.deepEqual(second, { by: "score", descending: false });
  assert.deepEqual(nextSort(second, "score"), OWN_ORDER);
  assert.deepEqual(nextSort(first, "about"), { by: "about", descending: false });
});

test("an attempt is compared with the previous one of its search, a candidate with its parent", () => {
  const attempts = rowMap([row(1), row(2), row(3), { ...row(9), order: [1, 0] }]);
  assert.equal(defaultComparison(attempts.get("3"), attempts, "attempts"), "2");
  assert.equal(defaultComparison(attempts.get("1"), attempts, "attempts"), "");
  assert.equal(defaultComparison(attempts.get("9"), attempts, "attempts"), ""); // another search
  assert.equal(defaultComparison(attempts.get("3"), attempts, "rows"), "");
  const candidates = rowMap([row(1), row(2, { parents: ["unknown", "1"] }), row(3)]);
  assert.equal(defaultComparison(candidates.get("2"), candidates, "candidates"), "1");
  assert.equal(defaultComparison(candidates.get("3"), candidates, "candidates"), "");
});

test("the list to compare with has the nearest rows, and the best", () => {
  const rows = Array.from({ length: 100 }, (_, i) => row(i, i === 3 ? { best: true } : {}));
  const near = comparableRows(rows[50], rowMap(rows), 4);
  assert.deepEqual(keys(near), ["48", "49", "51", "52", "3"]);
  assert.deepEqual(keys(comparableRows(rows[0], rowMap(rows), 4)), ["1", "2", "3", "4"]);
  assert.deepEqual(keys(comparableRows(rows[99], rowMap(rows), 4)), ["95", "96", "97", "98", "3"]);
  const options = comparisonOptions(near, rows[49], "attempts");
  assert.deepEqual(
    [...options.values()],
    ["nothing", "attempt 48", "previous: 49", "attempt 51", "attempt 52", "attempt 3 ★"],
  );
});

test("the keys move, open and close; other keys are ignored", () => {
  const rows = [row(1, { kids: 2 }), row(2), row(11, { up: "1" })];
  const open = new Set(["1"]);
  const entries = listEntries(groupByParent(rows), ALL, OWN_ORDER, open);
  const press = (key, position) => actionOfKey(key, entries, position, 2, open);
  assert.deepEqual(press("ArrowDown", 0), { select: "11" });
  assert.deepEqual(press("ArrowUp", 0), { select: "1" });
  assert.deepEqual(press("End", 0), { select: "2" });
  assert.deepEqual(press("Home", 2), { select: "1" });
  assert.deepEqual(press("PageDown", 0), { select: "2" });
  assert.deepEqual(press("PageUp", 2), { select: "1" });
  assert.deepEqual(press("ArrowRight", 0), { open: "1" });
  assert.deepEqual(press("ArrowLeft", 0), { close: "1" });
  assert.deepEqual(press("ArrowLeft", 1), { select: "1" }); // to the row around it
  assert.deepEqual(press("Enter", 0), { toggle: "1" });
  assert.equal(press("Enter", 2), null);
  assert.equal(press("x", 0), null);
  assert.equal(press("constructor", 0), null);
  assert.equal(actionOfKey("End", [], 0, 2, open), null);
});
