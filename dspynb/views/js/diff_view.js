/* Shows the difference of two texts, in one column or side by side. Long unchanged parts are folded. */

/** @import { Block, Piece } from "./types.js" */

import { countWords, diffWords } from "./diff.js";
import { button, copyButton, element, scrollable } from "./dom.js";
import { formatCount } from "./format.js";

/** Lines, and characters, of unchanged text that are shown next to a change. */
const NEAR_LINES = 3;
const NEAR_CHARACTERS = 300;

const TAGS = /** @type {const} */ ({ removed: "del", added: "ins" });

/**
 * @param {string} heading
 * @param {string} text what the copy button copies; empty: no button
 */
export function blockHead(heading, text) {
  const node = element("div", "dspynb-heading", element("span", "", heading));
  if (text) node.append(copyButton(text));
  return node;
}

/**
 * @param {Block} block
 * @param {string} before the text that it is compared with
 * @param {boolean} sideBySide
 * @returns {HTMLElement[]}
 */
export function diffBlock(block, before, sideBySide) {
  if (before === block.text) return [blockHead(`${block.heading} · unchanged`, block.text)];
  const pieces = diffWords(before, block.text);
  const counts = `+${countWords(pieces, "added")} −${countWords(pieces, "removed")} words`;
  const head = blockHead(`${block.heading} · ${counts}`, block.text);
  if (!sideBySide) return [head, scrollable("pre", "", ...shownPieces(pieces))];
  const left = scrollable("pre", "", ...shownPieces(pieces.filter(({ kind }) => kind !== "added")));
  const right = scrollable("pre", "", ...shownPieces(pieces.filter(({ kind }) => kind !== "removed")));
  return [head, element("div", "dspynb-sides", left, right)];
}

/**
 * @param {Piece[]} pieces
 * @returns {(Node | string)[]}
 */
function shownPieces(pieces) {
  return pieces.flatMap(({ kind, text }, i) => {
    if (kind === "same") return foldedText(text, i === 0, i === pieces.length - 1);
    const breaks = /^\s*\n/.exec(text)?.[0] ?? ""; // so that the sign of the change is beside its words
    const words = text.slice(breaks.length);
    return words ? [breaks, element(TAGS[kind], "", words)] : [breaks];
  });
}

/**
 * Unchanged text without its middle part, which a button shows.
 * @param {string} text
 * @param {boolean} first whether no change is before it
 * @param {boolean} last whether no change is after it
 * @returns {(Node | string)[]}
 */
function foldedText(text, first, last) {
  const { head, cut, tail } = splitUnchanged(text, first, last);
  if (!cut) return [text];
  const lines = cut.split("\n").length - 1;
  const size = lines > 1 ? `${lines} lines` : `${formatCount(cut.length)} characters`;
  const unfold = () => {
    if (cut.endsWith("\n")) fold.nextSibling?.remove();
    fold.replaceWith(cut);
  };
  const fold = button(`… ${size} unchanged …`, "dspynb-fold", unfold);
  return cut.endsWith("\n") ? [head, fold, "\n", tail] : [head, fold, tail];
}

/**
 * Split unchanged text into the parts next to a change (`head`, `tail`) and the part to fold (`cut`). `cut` is empty if
 * it would be short.
 * @param {string} text
 * @param {boolean} first
 * @param {boolean} last
 */
export function splitUnchanged(text, first, last) {
  const lines = text.split(/(?<=\n)/);
  const head = first ? "" : lines.slice(0, NEAR_LINES).join("").slice(0, NEAR_CHARACTERS);
  const tail = last ? "" : lines.slice(-NEAR_LINES).join("").slice(-NEAR_CHARACTERS);
  if (head.length + tail.length >= text.length) return { head: text, cut: "", tail: "" };
  const cut = text.slice(head.length, text.length - tail.length);
  const isShort = cut.split("\n").length <= NEAR_LINES && cut.length < NEAR_CHARACTERS;
  return isShort ? { head: text, cut: "", tail: "" } : { head, cut, tail };
}
