/* The difference between two texts, word by word. */

/** @import { Piece } from "./types.js" */

const WORDS = /\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu;
const SPACES = /^[^\S\n]+$/;
/** If more words than this differ, the whole text is shown as replaced. */
const MOST_EDITS = 1500;

/**
 * The pieces of both texts in order. Those of the kinds "same" and "removed" join to `before`, those of the kinds "same"
 * and "added" to `after`.
 * @param {string} before
 * @param {string} after
 * @returns {Piece[]}
 */
export function diffWords(before, after) {
  const a = before.match(WORDS) ?? [];
  const b = after.match(WORDS) ?? [];
  const shorter = Math.min(a.length, b.length);
  let head = 0;
  while (head < shorter && a[head] === b[head]) head++;
  let tail = 0;
  while (tail < shorter - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail++;
  const middle = diffMiddle(a.slice(head, a.length - tail), b.slice(head, b.length - tail));
  const start = piece("same", a.slice(0, head).join(""));
  const end = piece("same", a.slice(a.length - tail).join(""));
  return joinPieces([start, ...middle, end]);
}

/**
 * @param {Piece["kind"]} kind
 * @param {string} text
 * @returns {Piece}
 */
function piece(kind, text) {
  return { kind, text };
}

/**
 * Myers, "An O(ND) Difference Algorithm and Its Variations" (1986): the fewest words to remove and insert.
 * `ends[middle + k]` is the furthest x on diagonal k that was reached with d edits.
 * @param {string[]} a
 * @param {string[]} b
 * @returns {Piece[]}
 */
function diffMiddle(a, b) {
  const replaced = [piece("removed", a.join("")), piece("added", b.join(""))];
  if (!a.length || !b.length) return replaced;
  const most = Math.min(a.length + b.length, MOST_EDITS);
  const middle = most + 1;
  const ends = new Int32Array(2 * most + 3);
  /** @type {Int32Array[]} */
  const history = [];
  for (let d = 0; d <= most; d++) {
    history.push(ends.slice());
    for (let k = -d; k <= d; k += 2) {
      const start = insertsWord(ends, middle, k, d) ? ends[middle + k + 1] : ends[middle + k - 1] + 1;
      const x = start + equalWords(a, b, start, start - k);
      ends[middle + k] = x;
      if (x >= a.length && x - k >= b.length) return tracePath(a, b, history, middle);
    }
  }
  return replaced;
}

/**
 * How many words are equal from these positions on.
 * @param {string[]} a
 * @param {string[]} b
 * @param {number} x position in a
 * @param {number} y position in b
 */
function equalWords(a, b, x, y) {
  let count = 0;
  while (x + count < a.length && y + count < b.length && a[x + count] === b[y + count]) count++;
  return count;
}

/**
 * Whether the furthest path to diagonal k comes from the diagonal above (a word of b is inserted), rather than from the
 * diagonal below (a word of a is removed).
 * @param {Int32Array} ends
 * @param {number} middle
 * @param {number} k
 * @param {number} d
 */
function insertsWord(ends, middle, k, d) {
  return k === -d || (k !== d && ends[middle + k - 1] < ends[middle + k + 1]);
}

/**
 * Follow the shortest path back from the end to the start.
 * @param {string[]} a
 * @param {string[]} b
 * @param {Int32Array[]} history
 * @param {number} middle
 * @returns {Piece[]}
 */
function tracePath(a, b, history, middle) {
  /** @type {Piece[]} */
  const pieces = [];
  let x = a.length;
  let y = b.length;
  for (let d = history.length - 1; d >= 0; d--) {
    const ends = history[d];
    const k = x - y;
    const inserts = insertsWord(ends, middle, k, d);
    const previous = inserts ? k + 1 : k - 1;
    const startX = d ? ends[middle + previous] : 0;
    const startY = d ? startX - previous : 0;
    while (x > startX && y > startY) {
      x--;
      y--;
      pieces.push(piece("same", a[x]));
    }
    if (!d) continue;
    if (inserts) {
      y--;
      pieces.push(piece("added", b[y]));
    } else {
      x--;
      pieces.push(piece("removed", a[x]));
    }
  }
  return pieces.reverse();
}

/**
 * Join neighbouring pieces of the same kind. A removed piece stands before the added piece that replaces it. Spaces
 * between two changed words count as changed, so that a changed phrase is one piece.
 * @param {Piece[]} pieces
 * @returns {Piece[]}
 */
function joinPieces(pieces) {
  /** @type {Piece[]} */
  const result = [];
  let removed = "";
  let added = "";
  const flush = () => {
    if (removed) result.push(piece("removed", removed));
    if (added) result.push(piece("added", added));
    removed = "";
    added = "";
  };
  for (const { kind, text } of pieces) {
    if (kind === "removed") {
      removed += text;
    } else if (kind === "added") {
      added += text;
    } else if (removed && added && SPACES.test(text)) {
      removed += text;
      added += text;
    } else if (text) {
      flush();
      const last = result[result.length - 1];
      if (last?.kind === "same") last.text += text;
      else result.push(piece("same", text));
    }
  }
  flush();
  return result;
}

/**
 * The number of words in the pieces of one kind.
 * @param {Piece[]} pieces
 * @param {Piece["kind"]} kind
 */
export function countWords(pieces, kind) {
  let count = 0;
  for (const piece of pieces) {
    if (piece.kind === kind) count += piece.text.trim().split(/\s+/).filter(Boolean).length;
  }
  return count;
}
