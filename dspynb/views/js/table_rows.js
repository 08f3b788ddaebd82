/* The visible lines of the table. The table's body is as high as all rows, and only visible rows have a line on the
 * page. */

/** @import { ColumnName, Entry, Header, Row } from "./types.js" */

import { cellContent } from "./cells.js";
import { element } from "./dom.js";

/** Pixels, as in live.css. */
export const ROW_HEIGHT = 46;
/** Extra lines above and below the visible ones, so that short scrolling shows no gap. */
const SPARE_LINES = 4;

/** A line on the page, and the row that it shows.
 * @typedef {{ node: HTMLTableRowElement, row: Row | null, isOpen: boolean }} Line */

/** The state of the table that the lines show.
 * @typedef {object} TableState
 * @property {Entry[]} entries
 * @property {ColumnName[]} columns
 * @property {Header} header
 * @property {Set<string>} open
 * @property {string | null} selected */

let tables = 0; // numbers the ids of elements, so that two views on a page have different ids

/**
 * The visible entries, as a range of positions.
 * @param {number} count
 * @param {number} scrollTop
 * @param {number} height
 */
export function visibleRange(count, scrollTop, height) {
  const first = Math.max(0, Math.floor(scrollTop / ROW_HEIGHT) - SPARE_LINES);
  const last = Math.min(count, Math.ceil((scrollTop + height) / ROW_HEIGHT) + SPARE_LINES);
  return { first, last };
}

export class TableRows {
  /** @param {HTMLElement} grid the element that scrolls */
  constructor(grid) {
    this.grid = grid;
    this.body = element("tbody", "dspynb-body");
    this.body.setAttribute("role", "rowgroup");
    /** @type {Map<string, Line>} */
    this.lines = new Map();
    tables += 1;
    this.id = `dspynb-${tables}`;
  }

  /** Remove all lines; needed when the columns change. */
  clear() {
    for (const { node } of this.lines.values()) node.remove();
    this.lines.clear();
  }

  /** @param {number} count */
  setCount(count) {
    this.body.style.height = `${count * ROW_HEIGHT}px`;
  }

  /**
   * Show the visible lines, and change only lines that are outdated.
   * @param {TableState} table
   */
  draw(table) {
    const { first, last } = visibleRange(table.entries.length, this.grid.scrollTop, this.grid.clientHeight);
    const visible = table.entries.slice(first, last);
    this.removeAllBut(new Set(visible.map(({ row }) => row.key)));
    visible.forEach((entry, i) => {
      this.drawLine(entry, first + i, table);
    });
    this.putInOrder(visible);
    this.markActive(table.selected);
  }

  /** @param {Set<string>} keys */
  removeAllBut(keys) {
    for (const [key, { node }] of this.lines) {
      if (keys.has(key)) continue;
      node.remove();
      this.lines.delete(key);
    }
  }

  /**
   * @param {Entry} entry
   * @param {number} position
   * @param {TableState} table
   */
  drawLine({ row, level }, position, table) {
    const line = this.lines.get(row.key) ?? this.addLine(row.key);
    const isOpen = table.open.has(row.key);
    const { node } = line;
    node.style.transform = `translateY(${position * ROW_HEIGHT}px)`;
    node.setAttribute("aria-rowindex", String(position + 2)); // the first row is that of the headings
    node.setAttribute("aria-level", String(level));
    node.setAttribute("aria-selected", String(row.key === table.selected));
    if (row.kids) node.setAttribute("aria-expanded", String(isOpen));
    else node.removeAttribute("aria-expanded");
    if (line.row !== row || line.isOpen !== isOpen) fillLine(line, row, level, isOpen, table);
  }

  /** @param {string} key */
  addLine(key) {
    const node = element("tr", "dspynb-line");
    node.setAttribute("role", "row");
    node.dataset.key = key;
    node.id = `${this.id}-${key.replace(/\W/g, "-")}`;
    /** @type {Line} */
    const line = { node, row: null, isOpen: false };
    this.lines.set(key, line);
    this.body.append(node);
    return line;
  }

  /**
   * Put the lines in order, since screen readers read elements in the order of the document.
   * @param {Entry[]} visible
   */
  putInOrder(visible) {
    /** @type {HTMLElement | null} */
    let before = null;
    for (const { row } of visible) {
      const node = this.lines.get(row.key)?.node;
      if (!node) continue;
      if (node.previousElementSibling !== before) {
        if (before) before.after(node);
        else this.body.prepend(node);
      }
      before = node;
    }
  }

  /** @param {string | null} selected */
  markActive(selected) {
    const line = selected === null ? undefined : this.lines.get(selected);
    if (line) this.grid.setAttribute("aria-activedescendant", line.node.id);
    else this.grid.removeAttribute("aria-activedescendant");
  }
}

/**
 * @param {Line} line
 * @param {Row} row
 * @param {number} level
 * @param {boolean} isOpen
 * @param {TableState} table
 */
function fillLine(line, row, level, isOpen, { columns, header }) {
  line.row = row;
  line.isOpen = isOpen;
  line.node.className = row.best ? "dspynb-line dspynb-best" : "dspynb-line";
  const cells = columns.map((name) => {
    const cell = element("td", `dspynb-cell dspynb-${name}`, ...cellContent(name, row, level, isOpen, header));
    cell.setAttribute("role", "gridcell");
    return cell;
  });
  line.node.replaceChildren(...cells);
}
