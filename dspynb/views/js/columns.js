/* The columns of the table: which are shown, their headings and widths. */

/** @import { ColumnName, Header, Mode, Row, Sort } from "./types.js" */

import { button, element } from "./dom.js";

/** @type {Record<ColumnName, string>} */
const WIDTHS = {
  label: "84px",
  about: "minmax(0, 3fr)",
  score: "104px",
  outputs: "minmax(0, 4fr)",
  seconds: "76px",
  tokens: "72px",
};
/** The width of the first column if rows show who proposed them. */
const MARKED_WIDTH = "132px";

/**
 * The columns that are not empty. The column of scores is always shown for attempts.
 * @param {Row[]} rows
 * @param {Mode} mode
 * @returns {ColumnName[]}
 */
export function shownColumns(rows, mode) {
  /** @type {(name: ColumnName) => boolean} */
  const isFilled = (name) => rows.some((row) => row[name] !== undefined);
  /** @type {ColumnName[]} */
  const names = ["label", "about"];
  if (isFilled("score") || mode === "attempts") names.push("score");
  names.push("outputs");
  if (isFilled("seconds")) names.push("seconds");
  if (isFilled("tokens")) names.push("tokens");
  return names;
}

/**
 * The widths as a CSS value.
 * @param {ColumnName[]} names
 * @param {boolean} marked whether a row shows who proposed it
 */
export function columnWidths(names, marked) {
  return names.map((name) => (name === "label" && marked ? MARKED_WIDTH : WIDTHS[name])).join(" ");
}

/**
 * @param {ColumnName} name
 * @param {Header} header
 */
function columnTitle(name, { columns }) {
  if (name === "label") return "#";
  if (name === "about") return columns[0];
  return name === "outputs" ? columns[1] : name;
}

/**
 * @param {ColumnName} name
 * @param {Header} header
 * @param {Sort} sort
 * @param {() => void} onClick
 */
export function headingCell(name, header, sort, onClick) {
  const title = columnTitle(name, header);
  const sorted = sort.by === name;
  const inOwnOrder = name === "label" && !sort.descending;
  const arrow = sort.descending ? " ▾" : " ▴";
  const text = sorted && !inOwnOrder ? title + arrow : title;
  const sortButton = button(text, "dspynb-sort", onClick, `sort by ${title}`);
  sortButton.tabIndex = -1;
  const cell = element("th", `dspynb-cell dspynb-${name}`, sortButton);
  cell.scope = "col";
  cell.setAttribute("role", "columnheader");
  const direction = sort.descending ? "descending" : "ascending";
  cell.setAttribute("aria-sort", sorted ? direction : "none");
  return cell;
}
