/* The view on a page: what it shows, selects and sends. The page is the fake one of fake_dom.mjs; looks and real browsers
 * are tested in tests/browser. */

import "./fake_dom.mjs";

import assert from "node:assert/strict";
import { test } from "node:test";
import { still } from "../../dspynb/views/js/saved_page.js";
import { createView } from "../../dspynb/views/js/view.js";
import widget from "../../dspynb/views/js/widget.js";
import { delta, header, row, storeOf } from "./examples.mjs";
import { FakeElement } from "./fake_dom.mjs";

const HOSTILE = `<img src=x onerror=alert(1)></pre><script>alert(2)</script>'"&\ud800 dspynb-best`;
const TAGS = new Set(
  "b button circle dd del details div dl dt g i input ins label line option path polyline pre section select"
    .concat(" span style summary svg table tbody td text textarea th thead title tr")
    .split(" "),
);

/** A view of a store on a page, closed at the end of the test. */
function open(t, rows, headerChanges = {}, source = {}) {
  const { store, sent } = storeOf(rows, headerChanges, source);
  const page = new FakeElement("body");
  const close = createView(store, page);
  t.after(close);
  const first = (className) => page.all(className)[0];
  return { store, sent, page, close, first, all: (className) => page.all(className) };
}

const detailOf = (texts) => ({ values: [["outputs", [["sentence", "a"]]]], blocks: texts, edit: {} });
const sentBlock = (text) => ({ kind: "sent", of: "self", heading: "system", text });
const labels = (view) =>
  view
    .all("dspynb-line")
    .filter((line) => line.dataset.key)
    .map((line) => line.all("dspynb-name-of")[0].textContent);
const selected = (view) =>
  view
    .all("dspynb-line")
    .filter((line) => line.getAttribute("aria-selected") === "true")
    .map((line) => line.dataset.key);
const lineOf = (view, key) => view.all("dspynb-line").find((line) => line.dataset.key === key);
const steers = (sent) => sent.filter((message) => message.type === "steer");

test("rows are shown in order, with their changes", (t) => {
  const view = open(t, [row(2), row(1, { score: 0.25, change: -0.25, best: true })]);
  assert.deepEqual(labels(view), ["1 ★", "2"]);
  view.store.receive(delta(1, { rows: [row(3), { key: "1", best: null, score: 0.5 }] }));
  assert.deepEqual(labels(view), ["1", "2", "3"]);
  assert.equal(lineOf(view, "1").all("dspynb-score")[0].textContent, "0.5 −0.25");
});

test("of many rows only the visible ones are on the page, also after scrolling", (t) => {
  const view = open(
    t,
    Array.from({ length: 1000 }, (_, i) => row(i)),
    { mode: "rows", ended: true },
  );
  assert.equal(labels(view).length, 14);
  const grid = view.first("dspynb-grid");
  grid.scrollTop = 46 * 500;
  grid.dispatch("scroll");
  assert.equal(labels(view)[0], "496");
  assert.equal(view.first("dspynb-body").style.height, "46000px");
  assert.equal(grid.getAttribute("aria-rowcount"), "1001");
});

test("a text from a model never becomes markup, a class or a style", (t) => {
  const texts = { label: HOSTILE, state: HOSTILE, about: HOSTILE, outputs: HOSTILE, by: HOSTILE, mark: HOSTILE };
  const rows = [1, 2, 3].map((number) => row(number, { ...texts, score: number / 3, kids: 1 }));
  const words = {
    name: HOSTILE,
    progress: HOSTILE,
    result: HOSTILE,
    notes: [HOSTILE],
    summary: HOSTILE,
    note: HOSTILE,
  };
  const view = open(t, rows, { ...words, state: HOSTILE, columns: [HOSTILE, HOSTILE], facts: [HOSTILE] });
  lineOf(view, "2").dispatch("click");
  for (const key of ["1", "2"]) {
    const blocks = [sentBlock(HOSTILE + key), { kind: "error", heading: HOSTILE, text: HOSTILE }];
    view.store.receive({
      type: "detail",
      key,
      detail: { ...detailOf(blocks), values: [[HOSTILE, [[HOSTILE, HOSTILE]]]] },
    });
  }
  view.store.receive({ type: "refused", text: HOSTILE });
  assert.ok(view.first("dspynb-detail").textContent.includes(HOSTILE));
  for (const node of view.page.everything()) {
    assert.ok(TAGS.has(node.tagName) || node === view.page, node.tagName);
    assert.doesNotMatch(node.className, /img|script|dspynb-best/);
    const named = [...node.attributes].filter(([, value]) => value.includes("<img"));
    assert.deepEqual(
      named.filter(([name]) => name !== "aria-label"),
      [],
    );
  }
});

test("the first row is selected, the latest attempt is followed, and a click stops following", (t) => {
  const view = open(t, [row(1), row(2)]);
  assert.deepEqual(selected(view), ["1"]);
  view.store.receive(delta(1, { rows: [row(3)] }));
  assert.deepEqual(selected(view), ["3"]);
  lineOf(view, "2").dispatch("click");
  view.store.receive(delta(2, { rows: [row(4)] }));
  assert.deepEqual(selected(view), ["2"]);
});

test("at the end the best row is selected", (t) => {
  const view = open(t, [row(1), row(2, { best: true }), row(3)], { ended: true });
  assert.deepEqual(selected(view), ["2"]);
});

test("an opened row requests the rows inside it, and shows them", (t) => {
  const view = open(t, [row(1, { kids: 2 }), row(2)], { mode: "rows" });
  lineOf(view, "1").all("dspynb-twist")[0].dispatch("click");
  assert.deepEqual(
    view.sent.filter(({ type }) => type === "open"),
    [{ type: "open", key: "1" }],
  );
  view.store.receive(delta(1, { rows: [row(11, { up: "1" }), row(12, { up: "1" })] }));
  assert.deepEqual(labels(view), ["▾ 1", "11", "12", "2"]);
  assert.equal(lineOf(view, "11").getAttribute("aria-level"), "2");
  lineOf(view, "1").dispatch("dblclick");
  assert.deepEqual(labels(view), ["▸ 1", "2"]);
  assert.equal(view.sent.at(-1).type, "close");
});

test("the filter shows only matching rows, and their number", (t) => {
  const rows = Array.from({ length: 20 }, (_, i) =>
    row(i, { about: i % 2 ? "odd" : "even", state: i ? "done" : "failed" }),
  );
  const view = open(t, rows, { mode: "rows", ended: true });
  const [search, states] = view
    .all("dspynb-input")
    .filter((node) => view.first("dspynb-tools").childNodes.includes(node));
  search.value = " ODD ";
  search.dispatch("input");
  assert.deepEqual(labels(view).slice(0, 3), ["1", "3", "5"]);
  assert.equal(view.first("dspynb-count").textContent, "10 of 20");
  states.value = "failed";
  states.dispatch("change");
  assert.deepEqual(labels(view), []);
  assert.equal(view.first("dspynb-empty").hidden, false);
  assert.deepEqual(
    states.options.map((option) => option.textContent),
    ["all states", "done", "failed"],
  );
});

test("a click on a heading sorts the rows", (t) => {
  const view = open(t, [row(1, { score: 0.1 }), row(2, { score: 0.9 }), row(3)]);
  const score = () => view.all("dspynb-sort").find((node) => node.textContent.startsWith("score"));
  score().dispatch("click");
  assert.deepEqual(labels(view), ["2", "1", "3"]);
  assert.equal(score().textContent, "score ▾");
  assert.equal(score().parentNode.getAttribute("aria-sort"), "descending");
  score().dispatch("click");
  assert.deepEqual(labels(view), ["3", "1", "2"]);
});

test("the arrow keys move the selection", (t) => {
  const view = open(t, [row(1), row(2), row(3)], { mode: "rows" });
  const grid = view.first("dspynb-grid");
  const handled = [];
  const press = (key, more = {}) => grid.dispatch("keydown", { key, preventDefault: () => handled.push(key), ...more });
  press("ArrowDown");
  press("End");
  press("ArrowUp");
  press("ArrowDown", { ctrlKey: true });
  press("x");
  assert.deepEqual(selected(view), ["2"]);
  assert.deepEqual(handled, ["ArrowDown", "End", "ArrowUp"]);
  assert.equal(grid.getAttribute("aria-activedescendant"), lineOf(view, "2").id);
});

test("two views of a store have different ids", (t) => {
  const view = open(t, [row(1)]);
  const page = new FakeElement("body");
  t.after(createView(view.store, page));
  assert.notEqual(lineOf(view, "1").id, page.all("dspynb-line").find((line) => line.dataset.key === "1").id);
});

test("the detail of the selected row is compared with that of the attempt before", (t) => {
  const view = open(t, [row(1), row(2)], { mode: "attempts" });
  lineOf(view, "2").dispatch("click");
  assert.equal(view.first("dspynb-waits").textContent, "…");
  view.store.receive({ type: "detail", key: "2", detail: detailOf([sentBlock("Be bold.")]) });
  view.store.receive({ type: "detail", key: "1", detail: detailOf([sentBlock("Be brief.")]) });
  const detail = view.first("dspynb-detail");
  assert.equal(view.first("dspynb-title").textContent, "attempt 2");
  assert.deepEqual(
    detail
      .everything()
      .filter(({ tagName }) => tagName === "ins")
      .map((node) => node.textContent),
    ["bold"],
  );
  assert.deepEqual(
    detail
      .everything()
      .filter(({ tagName }) => tagName === "del")
      .map((node) => node.textContent),
    ["brief"],
  );
  assert.ok(detail.textContent.includes("system · +1 −1 words"));
  const sides = detail.all("dspynb-tab").find((node) => node.textContent === "side by side");
  sides.dispatch("click");
  assert.deepEqual(
    view.first("dspynb-sides").children.map((node) => node.textContent),
    ["Be brief.", "Be bold."],
  );
});

test("the reasoning of a model is folded, with its heading", (t) => {
  const view = open(t, [row(1)]);
  lineOf(view, "1").dispatch("click");
  const reasoning = { kind: "reasoning", of: "self", heading: "self · reasoning · 61 tokens", text: HOSTILE };
  view.store.receive({ type: "detail", key: "1", detail: detailOf([sentBlock("Be bold."), reasoning]) });
  const [folded] = view.all("dspynb-folded");
  assert.equal(folded.tagName, "details");
  assert.equal(folded.getAttribute("open"), null);
  assert.equal(folded.children[0].tagName, "summary");
  assert.equal(folded.children[0].textContent, "self · reasoning · 61 tokens");
  assert.equal(folded.children.at(-1).textContent, HOSTILE);
});

test("long unchanged text is folded, and unfolds", (t) => {
  const text = Array.from({ length: 30 }, (_, i) => `line ${i}\n`).join("");
  const view = open(t, [row(1), row(2)]);
  lineOf(view, "2").dispatch("click");
  view.store.receive({ type: "detail", key: "2", detail: detailOf([sentBlock(`new ${text}new`)]) });
  view.store.receive({ type: "detail", key: "1", detail: detailOf([sentBlock(`old ${text}old`)]) });
  const [fold] = view.all("dspynb-fold");
  assert.equal(fold.textContent, "… 24 lines unchanged …");
  const pre = fold.parentNode;
  fold.dispatch("click");
  assert.equal(pre.textContent, `old new ${text}oldnew`);
});

test("a detail is not redrawn while nothing in it changes", (t) => {
  const view = open(t, [row(1), row(2)], { mode: "rows" });
  view.store.receive({ type: "detail", key: "1", detail: detailOf([sentBlock("Write.")]) });
  const [first] = view.first("dspynb-detail").children;
  view.store.receive(delta(1, { rows: [row(3)] }));
  assert.equal(view.first("dspynb-detail").children[0], first);
});

test("while the mouse is pressed nothing moves", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const view = open(t, [row(1)], { mode: "rows" });
  view.first("dspynb-view").dispatch("pointerdown");
  view.store.receive(delta(1, { rows: [row(2)] }));
  assert.deepEqual(labels(view), ["1"]);
  t.mock.timers.tick(3000); // the release of a scrollbar causes no event
  assert.deepEqual(labels(view), ["1", "2"]);
});

test("the buttons are those of actions that the run accepts", (t) => {
  const view = open(t, [row(1)], { steerable: ["pause", "budget", "hint"] });
  const hidden = () => ["stop", "pause", "budget", "hinting"].filter((name) => view.first(`dspynb-${name}`).hidden);
  assert.deepEqual(hidden(), []);
  view.first("dspynb-pause").dispatch("click");
  view.store.receive(delta(1, { header: { paused: true } }));
  assert.equal(view.first("dspynb-pause").textContent, "Continue");
  assert.equal(view.first("dspynb-state").textContent, "‖ paused");
  view.first("dspynb-pause").dispatch("click");
  assert.deepEqual(
    steers(view.sent).map(({ action }) => action),
    ["pause", "unpause"],
  );
  view.store.receive(delta(2, { header: { steerable: [], ended: true } }));
  assert.deepEqual(hidden(), ["stop", "pause", "budget", "hinting"]);
});

test("stop is sent once, and shown at once", (t) => {
  const view = open(t, [row(1)]);
  view.first("dspynb-stop").dispatch("click");
  assert.deepEqual(
    view.sent.filter(({ type }) => type === "stop"),
    [{ type: "stop" }],
  );
  assert.equal(view.first("dspynb-stop").disabled, true);
  assert.equal(view.first("dspynb-state").textContent, "■ stopping…");
});

test("a hint and new limits are sent as typed", (t) => {
  const view = open(t, [row(1)], { steerable: ["hint", "budget"] });
  const [text] = view
    .first("dspynb-hinting")
    .everything()
    .filter(({ tagName }) => tagName === "input");
  const sendButton = view.first("dspynb-give");
  sendButton.dispatch("click"); // nothing was typed
  text.value = " Be brief. ";
  sendButton.dispatch("click");
  const [calls, , usd] = view
    .first("dspynb-form")
    .everything()
    .filter(({ tagName }) => tagName === "input");
  calls.value = "20";
  usd.value = "0.5";
  view.first("dspynb-set").dispatch("click");
  assert.deepEqual(steers(view.sent), [
    { type: "steer", action: "hint", value: "Be brief." },
    { type: "steer", action: "budget", value: { calls: 20, usd: 0.5 } },
  ]);
});

test("a candidate is pinned, dropped, or edited and proposed", (t) => {
  const rows = [0, 1].map((number) =>
    row(number, { key: `candidate c${number}`, label: `c${number}`, score: number / 2 }),
  );
  const view = open(t, rows, { mode: "candidates", steerable: ["drop", "pin", "propose"] });
  lineOf(view, "candidate c1").dispatch("click");
  const detail = { ...detailOf([]), edit: { self: "Write.", other: "Read." } };
  view.store.receive({ type: "detail", key: "candidate c1", detail });
  view.first("dspynb-pin").dispatch("click");
  view.first("dspynb-drop").dispatch("click");
  view.first("dspynb-edit").dispatch("click");
  const [area] = view
    .first("dspynb-detail")
    .everything()
    .filter(({ tagName }) => tagName === "textarea");
  area.value = "Write well.";
  view.first("dspynb-detail").all("dspynb-give")[0].dispatch("click");
  assert.deepEqual(steers(view.sent), [
    { type: "steer", action: "pin", value: "c1" },
    { type: "steer", action: "drop", value: "c1" },
    { type: "steer", action: "propose", parent: "c1", value: { self: "Write well." } },
  ]);
  lineOf(view, "candidate c0").dispatch("click");
  view.store.receive({ type: "detail", key: "candidate c0", detail });
  assert.equal(view.first("dspynb-drop"), undefined); // the initial program cannot be dropped
});

test("charts: a point for each score, the lineage of candidates, and a click that selects", (t) => {
  const rows = [0, 1, 2].map((number) => row(number, { key: `candidate c${number}`, score: number / 2 }));
  rows[2].parents = ["candidate c0"];
  const view = open(t, rows, { mode: "candidates" });
  assert.equal(view.all("dspynb-point").length, 3);
  view.all("dspynb-point")[1].dispatch("click");
  assert.deepEqual(selected(view), ["candidate c1"]);
  assert.ok(view.all("dspynb-point")[1].classList.contains("dspynb-point-selected"));
  view
    .all("dspynb-tab")
    .find((node) => node.textContent === "lineage")
    .dispatch("click");
  assert.equal(view.all("dspynb-edge").length, 1);
  view.store.receive(delta(1, { leads: { c1: 2 } }));
  assert.ok(view.all("dspynb-point")[1].textContent.includes("best on 2 validation rows"));
});

test("the line of a chart is the best score so far, and the mean in a table of rows", (t) => {
  const rows = [0, 1, 0.5].map((score, i) => row(i, { score }));
  const line = (view) => view.page.everything().find(({ tagName }) => tagName === "polyline");
  const heights = (mode) => {
    const points = line(open(t, rows, { mode }))
      .getAttribute("points")
      .split(" ");
    return points.map((point) => Number(point.split(",")[1]));
  };
  assert.deepEqual(heights("attempts"), [92, 92, 12, 12, 12]); // 92 is the score 0, 12 the score 1
  assert.deepEqual(heights("rows"), [92, 52, 52]);
});

test("a parent that is not shown has no edge", (t) => {
  const rows = [0, 1].map((number) => row(number, { key: `candidate c${number}`, score: 0.5 }));
  rows[1].parents = ["candidate unknown"];
  const view = open(t, rows, { mode: "candidates" });
  view
    .all("dspynb-tab")
    .find((node) => node.textContent === "lineage")
    .dispatch("click");
  assert.equal(view.all("dspynb-edge").length, 0);
  assert.equal(view.all("dspynb-number").length, 2);
});

test("a row that failed shows its error in place of outputs", (t) => {
  const view = open(t, [row(1, { outputs: "a", error: "ParseError" })]);
  assert.equal(lineOf(view, "1").all("dspynb-outputs")[0].textContent, "ParseError");
});

test("attempts always have a column of scores; other columns appear with their values", (t) => {
  const headings = (view) => view.all("dspynb-sort").map((node) => node.textContent);
  assert.deepEqual(headings(open(t, [row(1)])), ["#", "hint", "score", "outputs"]);
  const view = open(t, [row(1)], { mode: "rows", columns: ["inputs", "answer"] });
  assert.deepEqual(headings(view), ["#", "inputs", "answer"]);
  view.store.receive(delta(1, { rows: [{ key: "1", score: 1, seconds: 0.5, tokens: 1200 }] }));
  assert.deepEqual(headings(view), ["#", "inputs", "score", "answer", "seconds", "tokens"]);
  assert.equal(lineOf(view, "1").textContent, "1○ scored–1–0.501,200");
});

test("few rows have no filter", (t) => {
  const view = open(
    t,
    Array.from({ length: 8 }, (_, i) => row(i)),
  );
  assert.equal(view.first("dspynb-tools").hidden, true);
  view.store.receive(delta(1, { rows: [row(8)] }));
  assert.equal(view.first("dspynb-tools").hidden, false);
});

test("a chart of very many scores has few points, and the best among them", (t) => {
  const rows = Array.from({ length: 20_000 }, (_, i) => row(i, { score: i === 7_777 ? 1 : 0.5 }));
  const view = open(t, rows, { mode: "rows" });
  assert.ok(view.all("dspynb-point").length <= 1200);
  assert.ok(view.all("dspynb-point").some((point) => point.textContent.includes("row 7777, score 1")));
});

test("a closed view is no longer updated", (t) => {
  const view = open(t, [row(1)]);
  view.close();
  assert.equal(view.store.views.size, 0);
  assert.deepEqual(view.page.children, []);
});

test("a widget has one store for all its outputs", () => {
  const listeners = {};
  const sent = [];
  const model = {
    get: () => ({ seq: 0, header: header(), rows: [row(1)] }),
    send: (message) => sent.push(message),
    on: (name, listener) => {
      listeners[name] = listener;
    },
    off: (name) => delete listeners[name],
  };
  const entry = widget();
  const end = entry.initialize({ model });
  const pages = [new FakeElement("div"), new FakeElement("div")];
  const closes = pages.map((el) => entry.render({ el }));
  listeners["msg:custom"](delta(1, { rows: [row(2)] }));
  for (const page of pages) assert.equal(page.all("dspynb-name-of").length, 2);
  assert.deepEqual(sent.filter(({ type }) => type === "alive").length, 2);
  for (const close of closes) close();
  end();
  assert.deepEqual(listeners, {});
});

test("a saved page shows its data, and its plain table is removed", () => {
  const root = new FakeElement("div");
  root.append(new FakeElement("style"), new FakeElement("table"));
  root.querySelector = () => root.children.find(({ tagName }) => tagName === "style");
  document.querySelectorAll = () => [root];
  const blocks = [{ kind: "sent", of: "self", heading: "system", text: 1 }];
  const data = {
    header: header({ ended: true }),
    rows: [row(1), row(2)],
    leads: {},
    file: "run.jsonl",
    details: { 1: { ...detailOf(blocks) } },
    texts: ["unused", "Write."],
  };
  still("a-run", data);
  assert.deepEqual(
    root.children.map(({ tagName }) => tagName),
    ["style", "div"],
  );
  assert.ok(root.all("dspynb-detail")[0].textContent.includes("Write."));
  root
    .all("dspynb-line")
    .find((line) => line.dataset.key === "2")
    .dispatch("click");
  assert.equal(root.all("dspynb-waits")[0].textContent, "the texts are only in the run's file (run.jsonl)");
  assert.equal(root.all("dspynb-follow").length, 0);
});
