/* The order of rows, and the rows inside each row. */

/** @import { Entry, Filter, Row, Sort } from "./types.js" */

/**
 * @param {Row} a
 * @param {Row} b
 */
export function compareRows(a, b) {
  return a.order[0] - b.order[0] || a.order[1] - b.order[1];
}

/**
 * The rows inside each row, in order; the outermost rows are under the empty key.
 * @param {Iterable<Row>} rows
 * @returns {Map<string, Row[]>}
 */
export function groupByParent(rows) {
  /** @type {Map<string, Row[]>} */
  const groups = new Map();
  for (const row of rows) {
    const parent = row.up ?? "";
    const group = groups.get(parent);
    if (group) group.push(row);
    else groups.set(parent, [row]);
  }
  for (const group of groups.values()) group.sort(compareRows);
  return groups;
}

/**
 * @param {Row} row
 * @param {Filter} filter
 */
export function matchesFilter(row, { words, state }) {
  if (state && row.state !== state) return false;
  if (!words) return true;
  const texts = [row.label, row.about, row.outputs, row.error, row.by, row.mark];
  return texts.some((text) => text?.toLowerCase().includes(words));
}

/** Column → the value that rows are sorted by. Sorting by the label means the rows' own order.
 * @type {Record<Exclude<Sort["by"], "label">, (row: Row) => number | string>} */
const SORT_VALUES = {
  score: (row) => row.score ?? -Infinity,
  seconds: (row) => row.seconds ?? -1,
  tokens: (row) => row.tokens ?? 0,
  about: (row) => row.about ?? "",
  outputs: (row) => row.error ?? row.outputs ?? "",
};

/**
 * @param {Row[]} rows in their own order
 * @param {Sort} sort
 * @returns {Row[]}
 */
export function sortRows(rows, { by, descending }) {
  if (by === "label") return descending ? rows.toReversed() : rows;
  const sortValue = SORT_VALUES[by];
  const sign = descending ? -1 : 1;
  return rows.toSorted((a, b) => {
    const left = sortValue(a);
    const right = sortValue(b);
    if (left < right) return -sign;
    return left > right ? sign : 0;
  });
}

/** The order in which Python sends rows.
 * @type {Sort} */
export const OWN_ORDER = { by: "label", descending: false };

/**
 * The order after a click on a heading: first its usual direction, then the other one, then the rows' own order.
 * @param {Sort} sort
 * @param {Sort["by"]} column
 * @returns {Sort}
 */
export function nextSort(sort, column) {
  const descendingFirst = column === "score" || column === "seconds" || column === "tokens";
  if (sort.by !== column) return { by: column, descending: descendingFirst };
  if (sort.descending === descendingFirst) return { by: column, descending: !descendingFirst };
  return OWN_ORDER;
}

/**
 * The rows of a table from top to bottom: the outermost rows that match the filter, each followed by the rows inside it
 * if it is open.
 * @param {Map<string, Row[]>} groups from {@link groupByParent}
 * @param {Filter} filter
 * @param {Sort} sort
 * @param {Set<string>} open keys of open rows
 * @returns {Entry[]}
 */
export function listEntries(groups, filter, sort, open) {
  /** @type {Entry[]} */
  const entries = [];
  /** @type {(row: Row, level: number) => void} */
  const add = (row, level) => {
    entries.push({ row, level });
    if (!open.has(row.key)) return;
    for (const child of groups.get(row.key) ?? []) add(child, level + 1);
  };
  const outermost = (groups.get("") ?? []).filter((row) => matchesFilter(row, filter));
  for (const row of sortRows(outermost, sort)) add(row, 1);
  return entries;
}
