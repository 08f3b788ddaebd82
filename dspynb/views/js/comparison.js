/* Which rows the texts of a row can be compared with. */

/** @import { Mode, Row } from "./types.js" */

import { ROW_NAMES } from "./format.js";
import { compareRows, groupByParent } from "./row_order.js";

/** How many rows the list of choices has at first, and once it is opened. */
export const FEW_CHOICES = 20;
export const MOST_CHOICES = 2000;

/**
 * The row that another is compared with unless a person chooses: the parent of a candidate, the attempt before. The
 * empty key where there is none.
 * @param {Row} row
 * @param {Map<string, Row>} rows
 * @param {Mode} mode
 * @returns {string}
 */
export function usualComparison(row, rows, mode) {
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
 * The rows nearest to a row among its neighbours, and the best ones.
 * @param {Row} row
 * @param {Map<string, Row>} rows
 * @param {number} most
 * @returns {Row[]}
 */
export function comparableRows(row, rows, most) {
  const siblings = groupByParent(rows.values()).get(row.up ?? "") ?? [];
  const others = siblings.filter((other) => other.key !== row.key);
  const after = others.findIndex((other) => compareRows(other, row) > 0);
  const place = after < 0 ? others.length : after;
  const first = Math.max(0, Math.min(place - most / 2, others.length - most));
  const near = others.slice(first, first + most);
  const best = others.filter((other) => other.best && !near.includes(other));
  return [...near, ...best];
}

/**
 * The options of the list: nothing, the rows, and the usual one by what it is.
 * @param {Row[]} comparable
 * @param {Row | undefined} usual
 * @param {Mode} mode
 * @returns {Map<string, string>} key of the row → text
 */
export function comparisonOptions(comparable, usual, mode) {
  const options = new Map([["", "nothing"]]);
  for (const row of comparable) {
    const star = row.best ? " ★" : "";
    options.set(row.key, `${ROW_NAMES[mode]} ${row.label}${star}`);
  }
  const relation = mode === "candidates" ? "parent" : "previous";
  if (usual) options.set(usual.key, `${relation}: ${usual.label}`);
  return options;
}
