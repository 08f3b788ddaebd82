/* The rows that a row can be compared with. */

/** @import { Mode, Row } from "./types.js" */

import { ROW_NAMES } from "./format.js";
import { compareRows, groupByParent } from "./row_order.js";

/** How many rows the list of choices has before it is opened, and after. */
export const FEW_CHOICES = 20;
export const MOST_CHOICES = 2000;

/**
 * The row that a row is compared with by default: the parent of a candidate, or the previous attempt.
 * @param {Row} row
 * @param {Map<string, Row>} rows
 * @param {Mode} mode
 * @returns {string} its key; empty if there is none
 */
export function defaultComparison(row, rows, mode) {
  if (mode === "candidates" && row.parents) return row.parents.find((key) => rows.has(key)) ?? "";
  if (mode !== "attempts" && row.up === undefined) return "";
  return rowBefore(row, rows)?.key ?? "";
}

/**
 * @param {Row} row
 * @param {Map<string, Row>} rows
 * @returns {Row | null}
 */
function rowBefore(row, rows) {
  /** @type {Row | null} */
  let last = null;
  for (const other of rows.values()) {
    const isBefore = other.up === row.up && other.order[0] === row.order[0] && other.order[1] < row.order[1];
    if (isBefore && (last === null || other.order[1] > last.order[1])) last = other;
  }
  return last;
}

/**
 * Up to `most` siblings around a row, and the best ones.
 * @param {Row} row
 * @param {Map<string, Row>} rows
 * @param {number} most
 * @returns {Row[]}
 */
export function comparableRows(row, rows, most) {
  const siblings = groupByParent(rows.values()).get(row.up ?? "") ?? [];
  const others = siblings.filter((other) => other.key !== row.key);
  const after = others.findIndex((other) => compareRows(other, row) > 0);
  const position = after < 0 ? others.length : after;
  const first = Math.max(0, Math.min(position - most / 2, others.length - most));
  const near = others.slice(first, first + most);
  const best = others.filter((other) => other.best && !near.includes(other));
  return [...near, ...best];
}

/**
 * The options of the list: nothing, and the rows; the default row is named by its relation (parent or previous).
 * @param {Row[]} comparable
 * @param {Row | undefined} defaultRow
 * @param {Mode} mode
 * @returns {Map<string, string>} key of the row → text
 */
export function comparisonOptions(comparable, defaultRow, mode) {
  const options = new Map([["", "nothing"]]);
  for (const row of comparable) {
    const star = row.best ? " ★" : "";
    options.set(row.key, `${ROW_NAMES[mode]} ${row.label}${star}`);
  }
  const relation = mode === "candidates" ? "parent" : "previous";
  if (defaultRow) options.set(defaultRow.key, `${relation}: ${defaultRow.label}`);
  return options;
}
