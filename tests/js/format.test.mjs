import assert from "node:assert/strict";
import { test } from "node:test";
import {
  formatChange,
  formatCount,
  formatDuration,
  formatNumber,
  stateClass,
  stateText,
} from "../../dspynb/views/js/format.js";
import { timeTexts } from "../../dspynb/views/js/progress.js";
import { header } from "./examples.mjs";

test("numbers have four digits and no zeros at the end", () => {
  assert.deepEqual([0.5, 1, 1 / 3, 12345.6, 0, -0.25, 1e-7].map(formatNumber), [
    "0.5",
    "1",
    "0.3333",
    "12350",
    "0",
    "-0.25",
    "1e-7",
  ]);
});

test("a change has a sign, and no change is ±0", () => {
  assert.deepEqual([0.5, -0.5, 0, 1e-12, 1 / 3].map(formatChange), ["+0.5", "−0.5", "±0", "±0", "+0.333"]);
});

test("durations are in seconds, then in minutes", () => {
  assert.equal(formatDuration(1.26, false), "1.3 s");
  assert.equal(formatDuration(1.26, true), "1 s");
  assert.equal(formatDuration(125.9, true), "2 min 5 s");
});

test("counts have thousands", () => {
  assert.equal(formatCount(1234567), "1,234,567");
});

test("an unknown state never becomes a class", () => {
  assert.equal(stateClass("failed"), "failed");
  assert.equal(stateClass("stopping…"), "stopping");
  for (const hostile of ["x dspynb-best", "constructor", "__proto__"]) {
    assert.equal(stateClass(hostile), "other");
    assert.equal(stateText(hostile), `• ${hostile}`);
  }
  assert.equal(stateText("failed"), "✕ failed");
});

test("while the run is active, the elapsed time grows and the time left is estimated", () => {
  assert.deepEqual(timeTexts(header({ elapsed: 10, done: 5, total: 10 }), 2), ["12 s", "about 12 s left"]);
  assert.deepEqual(timeTexts(header({ elapsed: 10, done: 5, total: 10, ended: true }), 2), ["10.0 s"]);
  assert.deepEqual(timeTexts(header({ elapsed: null }), 2), []);
});

test("a budget that is used sooner than the rows are done decides the time left", () => {
  const texts = (changes) => timeTexts(header({ elapsed: 10, done: 5, ...changes }), 0);
  assert.deepEqual(texts({ total: null, share: 0.5 }), ["10 s", "about 10 s left"]);
  assert.deepEqual(texts({ total: 100, share: 0.5 }), ["10 s", "about 10 s left"]);
  assert.deepEqual(texts({ total: 10, share: 0.1 }), ["10 s", "about 10 s left"]);
  assert.deepEqual(texts({ total: 10, share: 1 }), ["10 s"]);
});

test("without progress or a known total there is no estimate of the time left", () => {
  const texts = (changes) => timeTexts(header({ elapsed: 10, ...changes }), 0);
  assert.deepEqual(texts({ done: 1, total: 10 }), ["10 s"]);
  assert.deepEqual(texts({ done: 5, total: null }), ["10 s"]);
  assert.deepEqual(texts({ done: 10, total: 10 }), ["10 s"]);
});
