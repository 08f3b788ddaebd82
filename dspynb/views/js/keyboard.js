/* What the keys do in the table: the arrows, Page Up and Page Down, Home and End, and Enter. */

/** @import { Entry } from "./types.js" */

/** @typedef {{ select: string } | { open: string } | { close: string } | { toggle: string }} KeyAction */

/**
 * What a key does; null: nothing, and the page may have it.
 * @param {string} key as in KeyboardEvent.key
 * @param {Entry[]} entries the rows of the table
 * @param {number} place the selected row's place among them
 * @param {number} pageSize how many rows a page has
 * @param {Set<string>} open keys of open rows
 * @returns {KeyAction | null}
 */
export function actionOfKey(key, entries, place, pageSize, open) {
  if (place >= entries.length) return null;
  const target = targetOfKey(key, place, entries.length, pageSize);
  if (target !== null) return { select: entries[target].row.key };
  const { row, level } = entries[place];
  if (key === "ArrowRight" && row.kids) return { open: row.key };
  if (key === "ArrowLeft" && open.has(row.key)) return { close: row.key };
  if (key === "ArrowLeft" && level > 1 && entries.some((entry) => entry.row.key === row.up)) {
    return { select: row.up ?? "" };
  }
  if (key === "Enter" && row.kids) return { toggle: row.key };
  return null;
}

/**
 * The place that a key moves to; null where it does not move.
 * @param {string} key
 * @param {number} place
 * @param {number} count
 * @param {number} pageSize
 */
function targetOfKey(key, place, count, pageSize) {
  /** @type {Record<string, number>} */
  const targets = {
    ArrowDown: place + 1,
    ArrowUp: place - 1,
    Home: 0,
    End: count - 1,
    PageDown: place + pageSize,
    PageUp: place - pageSize,
  };
  if (!Object.hasOwn(targets, key)) return null;
  return Math.max(0, Math.min(count - 1, targets[key]));
}
