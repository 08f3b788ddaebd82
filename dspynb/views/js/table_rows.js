/* The lines of the table that are on the page: only those in sight, each at its place in a body as high as all rows. */

/** @import { ColumnName, Entry, Header, Row } from "./types.js" */

import { cellContent } from "./cells.js";
import { element } from "./dom.js";

/** Pixels, as in live.css. */
export const ROW_HEIGHT = 46;
/** Lines beyond the visible ones, so that a little scrolling shows no gap. */
const SPARE_LINES = 4;

/** A line on the page, and what it shows.
 * @typedef {{ node: HTMLTableRowElement, row: Row | null, isOpen: boolean }} Line */

/** What the lines show.
 * @typedef {object} Shown
 * @property {Entry[]} entries
 * @property {ColumnName[]} columns
 * @property {Header} header
 * @property {Set<string>} open
 * @property {string | null} selected */

let tables = 0; // ids of elements are numbered, so that two views on a page share none

/**
 * The entries that are in sight, as a range of places.
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

  /** Remove all lines, as when the columns change. */
  clear() {
    for (const { node } of this.lines.values()) node.remove();
    this.lines.clear();
  }

  /** @param {number} count */
  setCount(count) {
    this.body.style.height = `${count * ROW_HEIGHT}px`;
  }

  /**
   * Put the visible lines on the page, and change only what is not as it should be.
   * @param {Shown} shown
   */
  draw(shown) {
    const { first, last } = visibleRange(shown.entries.length, this.grid.scrollTop, this.grid.clientHeight);
    const visible = shown.entries.slice(first, last);
    this.removeAllBut(new Set(visible.map(({ row }) => row.key)));
    visible.forEach((entry, i) => {
      this.drawLine(entry, first + i, shown);
    });
    this.putInOrder(visible);
    this.markActive(shown.selected);
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
   * @param {number} place
   * @param {Shown} shown
   */
  drawLine({ row, level }, place, shown) {
    const line = this.lines.get(row.key) ?? this.addLine(row.key);
    const isOpen = shown.open.has(row.key);
    const { node } = line;
    node.style.transform = `translateY(${place * ROW_HEIGHT}px)`;
    node.setAttribute("aria-rowindex", String(place + 2)); // the first row is that of the headings
    node.setAttribute("aria-level", String(level));
    node.setAttribute("aria-selected", String(row.key === shown.selected));
    if (row.kids) node.setAttribute("aria-expanded", String(isOpen));
    else node.removeAttribute("aria-expanded");
    if (line.row !== row || line.isOpen !== isOpen) fillLine(line, row, level, isOpen, shown);
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
   * Screen readers read the elements in their order on the page.
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
 * @param {Shown} shown
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
