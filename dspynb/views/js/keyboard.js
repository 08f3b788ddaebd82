/* The keys of the table: arrows, Page Up, Page Down, Home, End and Enter. */

/** @import { Entry } from "./types.js" */

/** @typedef {{ select: string } | { open: string } | { close: string } | { toggle: string }} KeyAction */

/**
 * The action of a key; null if the table does not use the key.
 * @param {string} key as in KeyboardEvent.key
 * @param {Entry[]} entries the rows of the table
 * @param {number} position the position of the selected row
 * @param {number} pageSize how many rows a page has
 * @param {Set<string>} open keys of open rows
 * @returns {KeyAction | null}
 */
export function actionOfKey(key, entries, position, pageSize, open) {
  if (position >= entries.length) return null;
  const target = targetOfKey(key, position, entries.length, pageSize);
  if (target !== null) return { select: entries[target].row.key };
  const { row, level } = entries[position];
  if (key === "ArrowRight" && row.kids) return { open: row.key };
  if (key === "ArrowLeft" && open.has(row.key)) return { close: row.key };
  if (key === "ArrowLeft" && level > 1 && entries.some((entry) => entry.row.key === row.up)) {
    return { select: row.up ?? "" };
  }
  if (key === "Enter" && row.kids) return { toggle: row.key };
  return null;
}

/**
 * The position to which a key moves the selection; null if it does not move it.
 * @param {string} key
 * @param {number} position
 * @param {number} count
 * @param {number} pageSize
 */
function targetOfKey(key, position, count, pageSize) {
  /** @type {Record<string, number>} */
  const targets = {
    ArrowDown: position + 1,
    ArrowUp: position - 1,
    Home: 0,
    End: count - 1,
    PageDown: position + pageSize,
    PageUp: position - pageSize,
  };
  if (!Object.hasOwn(targets, key)) return null;
  return Math.max(0, Math.min(count - 1, targets[key]));
}
