import assert from "node:assert/strict";
import { test } from "node:test";
import { countWords, diffWords } from "../../dspynb/views/js/diff.js";
import { splitUnchanged } from "../../dspynb/views/js/diff_view.js";

const signs = { same: " ", removed: "-", added: "+" };
const marked = (pieces) => pieces.map(({ kind, text }) => signs[kind] + text);
const side = (pieces, without) =>
  pieces
    .filter(({ kind }) => kind !== without)
    .map(({ text }) => text)
    .join("");

test("equal texts are one piece", () => {
  assert.deepEqual(marked(diffWords("a b", "a b")), [" a b"]);
  assert.deepEqual(diffWords("", ""), []);
});

test("a changed word is removed and added", () => {
  assert.deepEqual(marked(diffWords("Be brief, please.", "Be bold, please.")), [
    " Be ",
    "-brief",
    "+bold",
    " , please.",
  ]);
});

test("a changed phrase is one piece", () => {
  assert.deepEqual(marked(diffWords("say one two now", "say three four now")), [
    " say ",
    "-one two",
    "+three four",
    "  now",
  ]);
});

test("spaces beside a word that is only removed are not added", () => {
  assert.deepEqual(marked(diffWords("say(it) now Y", "say now Z")), [" say", "-(it)", "  now ", "-Y", "+Z"]);
});

test("texts that are only added, only removed, or entirely different", () => {
  assert.deepEqual(marked(diffWords("", "new text")), ["+new text"]);
  assert.deepEqual(marked(diffWords("old text", "")), ["-old text"]);
  assert.deepEqual(marked(diffWords("old", "new")), ["-old", "+new"]);
});

test("words of any script are words", () => {
  assert.deepEqual(marked(diffWords("größer als 東京", "größer als 大阪")), [" größer als ", "-東京", "+大阪"]);
});

test("the pieces always join to both texts", () => {
  let seed = 7;
  const random = (below) => {
    seed = (seed * 1103515245 + 12345) % 2147483648;
    return seed % below;
  };
  const words = ["a", "b", "c", " ", "  ", "\n", ".", "é", "\ud800"];
  const text = () => Array.from({ length: random(30) }, () => words[random(words.length)]).join("");
  for (let i = 0; i < 500; i++) {
    const before = text();
    const after = text();
    const pieces = diffWords(before, after);
    assert.equal(side(pieces, "added"), before);
    assert.equal(side(pieces, "removed"), after);
    assert.equal(
      pieces.some((piece, j) => piece.kind === pieces[j + 1]?.kind),
      false,
    );
  }
});

test("texts that differ in too many words are replaced as a whole, in little time", () => {
  const before = Array.from({ length: 5000 }, (_, i) => `a${i}`).join(" ");
  const after = Array.from({ length: 5000 }, (_, i) => `b${i}`).join("-");
  const pieces = diffWords(before, after);
  assert.deepEqual(
    pieces.map(({ kind }) => kind),
    ["removed", "added"],
  );
});

test("words are counted by kind", () => {
  const pieces = diffWords("one two three", "one 2 3 three");
  assert.equal(countWords(pieces, "removed"), 1);
  assert.equal(countWords(pieces, "added"), 2);
});

test("of long unchanged text only the parts next to a change are shown", () => {
  const text = Array.from({ length: 20 }, (_, i) => `line ${i}\n`).join("");
  const { head, cut, tail } = splitUnchanged(text, false, false);
  assert.equal(head, "line 0\nline 1\nline 2\n");
  assert.equal(tail, "line 17\nline 18\nline 19\n");
  assert.equal(head + cut + tail, text);
  assert.equal(splitUnchanged(text, true, false).head, "");
  assert.equal(splitUnchanged(text, false, true).tail, "");
});

test("short unchanged text is shown whole", () => {
  assert.deepEqual(splitUnchanged("a\nb\nc\nd\n", false, false), { head: "a\nb\nc\nd\n", cut: "", tail: "" });
  assert.equal(splitUnchanged("x".repeat(2000), false, false).cut.length, 1400);
});
