/* Calls that are being streamed: their line in the row, and their thinking and text in the detail. */

import "./fake_dom.mjs";

import assert from "node:assert/strict";
import { test } from "node:test";
import { extendText } from "../../dspynb/views/js/live_call.js";
import { createView } from "../../dspynb/views/js/view.js";
import { delta, row, storeOf } from "./examples.mjs";
import { FakeElement } from "./fake_dom.mjs";

const HOSTILE = "<img src=x onerror=alert(1)>";
const sentBlock = { kind: "sent", of: "self", heading: "self · system", text: "Write." };
const reasoning = (text) => ({ kind: "reasoning", of: "self", heading: "self · reasoning · 61 tokens", text });
const call = (id, changes = {}) => ({
  id,
  of: "self",
  characters: 8,
  line: "The sea.",
  thinking: "The sea.",
  reply: "",
  ...changes,
});
const detailOf = (...blocks) => ({ values: [], blocks: [sentBlock, ...blocks], edit: {} });
const liveBlock = (live) => ({ kind: "live", of: "self", heading: "self", text: "", live });

/** A page with a view of one running row, whose detail has these blocks. */
function open(t, ...blocks) {
  const { store, sent } = storeOf([row(1, { state: "running" })]);
  const page = new FakeElement("body");
  t.after(createView(store, page));
  if (blocks.length) store.receive({ type: "detail", key: "1", detail: detailOf(...blocks) });
  let seq = 0;
  const receive = (changes) => {
    seq += 1;
    store.receive(delta(seq, changes));
  };
  const requests = () => sent.filter(({ type }) => type === "detail").length;
  return { store, page, receive, requests, all: (className) => page.all(className) };
}

const tagged = (view, tag) => view.page.everything().filter(({ tagName }) => tagName === tag);
const outputs = (view) => view.all("dspynb-outputs").at(-1).textContent;

test("a row shows the state of its streamed call until it has outputs", (t) => {
  const view = open(t);
  view.receive({ live: { 1: { line: "thinking · 8 characters · The sea." } } });
  assert.equal(outputs(view), "thinking · 8 characters · The sea.");
  view.receive({ rows: [{ key: "1", outputs: "blue" }] });
  assert.equal(outputs(view), "blue");
  view.receive({ live: { 1: { line: "" } } });
  assert.equal(view.store.rows.get("1").live, undefined);
});

test("what is new of an unknown row is left out", (t) => {
  const view = open(t);
  view.receive({ live: { 7: { line: "thinking" } } });
  assert.deepEqual([...view.store.rows.keys()], ["1"]);
});

test("a snapshot has the lines of streamed calls", () => {
  const { store } = storeOf([row(1)]);
  store.applySnapshot({ seq: 3, header: store.header, rows: [row(1)], live: { 1: { line: "thinking" } } });
  assert.equal(store.rows.get("1").live, "thinking");
});

test("the thinking is folded, grows in place, and stays open", (t) => {
  const view = open(t, liveBlock(call(5)));
  const [folded] = view.all("dspynb-folded");
  assert.ok(!folded.open);
  assert.equal(folded.children[0].textContent, "self · thinking · 8 characters The sea.");
  folded.open = true;
  folded.dispatch("toggle");
  const requested = view.requests();
  const grown = call(5, { characters: 16, thinking: "The sea. It is w", line: "The sea. It is w" });
  view.receive({ live: { 1: { line: "thinking", calls: [grown] } } });
  assert.equal(view.all("dspynb-folded")[0], folded);
  assert.equal(folded.children[1].textContent, "The sea. It is w");
  assert.equal(view.requests(), requested, "no detail is requested again");
  view.store.receive({ type: "detail", key: "1", detail: detailOf(reasoning("The sea. It is wide.")) });
  const [final] = view.all("dspynb-folded");
  assert.notEqual(final, folded);
  assert.ok(final.open);
  assert.ok(final.textContent.includes("It is wide."));
});

test("the text of a reply is shown below its thinking", (t) => {
  const view = open(t, liveBlock(call(5)));
  const shown = () => tagged(view, "pre").filter(({ hidden }) => !hidden);
  assert.equal(shown().length, 2);
  view.receive({ live: { 1: { line: "reply", calls: [call(5, { reply: "The sea is blue." })] } } });
  assert.equal(shown().at(-1).textContent, "The sea is blue.");
  assert.equal(view.all("dspynb-folded")[0].children[0].textContent, "self · reasoning · 8 characters");
  const silent = call(5, { characters: 0, line: "", thinking: "", reply: "The sea." });
  view.receive({ live: { 1: { line: "reply", calls: [silent] } } });
  assert.equal(view.all("dspynb-folded")[0].children[0].textContent, "self · no reasoning");
});

test("a call without a piece waits", (t) => {
  const view = open(t, liveBlock(call(5, { characters: 0, line: "", thinking: "" })));
  assert.equal(view.all("dspynb-folded")[0].children[0].textContent, "self · waiting for the first words");
});

test("a detail is requested again when a call begins or ends", (t) => {
  const view = open(t, liveBlock(call(5)));
  const requested = view.requests();
  view.receive({ live: { 1: { line: "thinking", calls: [call(5), call(6)] } } });
  assert.equal(view.requests(), requested + 1);
  view.store.receive({ type: "detail", key: "1", detail: detailOf(liveBlock(call(5)), liveBlock(call(6))) });
  assert.equal(view.all("dspynb-folded").length, 2);
  view.receive({ live: { 1: { line: "" } } });
  assert.equal(view.requests(), requested + 2);
});

test("reasoning without a text is a heading", (t) => {
  const view = open(t, reasoning(""));
  assert.equal(view.all("dspynb-folded").length, 0);
  assert.ok(view.all("dspynb-heading").some((node) => node.textContent === "self · reasoning · 61 tokens"));
});

test("a text from a streamed call never becomes markup", (t) => {
  const hostile = call(5, { of: HOSTILE, line: HOSTILE, thinking: HOSTILE, reply: HOSTILE });
  const view = open(t, liveBlock(hostile));
  view.receive({ live: { 1: { line: HOSTILE, calls: [hostile] } } });
  assert.equal(outputs(view), HOSTILE);
  assert.deepEqual(tagged(view, "img"), []);
});

test("a text that has grown is extended, and follows its end if that was shown", () => {
  const node = new FakeElement("pre");
  node.append("The sea");
  const [first] = node.childNodes;
  extendText(node, "The sea is wide.");
  assert.equal(node.childNodes[0], first);
  assert.equal(node.textContent, "The sea is wide.");
  extendText(node, "[9 earlier characters] … wide.");
  assert.equal(node.textContent, "[9 earlier characters] … wide.");
  Object.defineProperty(node, "scrollHeight", { value: 900 });
  node.scrollTop = 100; // a person has scrolled up
  extendText(node, "[9 earlier characters] … wide. And blue.");
  assert.equal(node.scrollTop, 100);
  node.scrollTop = 440;
  extendText(node, "[9 earlier characters] … wide. And blue. And deep.");
  assert.equal(node.scrollTop, 900);
});
