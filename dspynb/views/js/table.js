/* The table of rows. It can be filtered and sorted, rows can be opened to show the rows inside them, and one row is
 * selected. */

/** @import { RunStore } from "./store.js" */
/** @import { ColumnName, Entry, Row, Sort } from "./types.js" */

import { columnWidths, headingCell, shownColumns } from "./columns.js";
import { element } from "./dom.js";
import { keepKeys } from "./fields.js";
import { FilterBar } from "./filter_bar.js";
import { actionOfKey } from "./keyboard.js";
import { groupByParent, listEntries, nextSort, OWN_ORDER } from "./row_order.js";
import { ROW_HEIGHT, TableRows } from "./table_rows.js";

export class Table {
  /**
   * @param {RunStore} store
   * @param {(key: string) => void} onSelect
   */
  constructor(store, onSelect) {
    this.store = store;
    this.onSelect = onSelect;
    /** All outermost rows, in their own order.
     * @type {Row[]} */
    this.outermost = [];
    /** The rows that are shown, from top to bottom.
     * @type {Entry[]} */
    this.entries = [];
    /** Key of a shown row → its position in the table.
     * @type {Map<string, number>} */
    this.places = new Map();
    /** @type {ColumnName[]} */
    this.columns = [];
    /** @type {Set<string>} */
    this.open = new Set();
    /** @type {Sort} */
    this.sort = OWN_ORDER;
    /** @type {string | null} */
    this.selected = null;
    /** The columns and headings that are on the page. */
    this.shownLayout = "";
    this.heading = element("tr", "dspynb-line dspynb-headings");
    this.head = element("thead", "", this.heading);
    this.grid = element("table", "dspynb-grid", this.head);
    this.lines = new TableRows(this.grid);
    this.grid.append(this.lines.body);
    this.empty = element("div", "dspynb-empty", "no rows match");
    this.filterBar = new FilterBar(store.saved, () => this.update());
    this.nodes = [this.filterBar.node, this.grid, this.empty];
    this.setRoles();
    this.listen();
  }

  setRoles() {
    this.heading.setAttribute("role", "row");
    this.head.setAttribute("role", "rowgroup");
    this.grid.setAttribute("role", "treegrid");
    this.grid.tabIndex = 0;
  }

  listen() {
    keepKeys(this.grid);
    this.grid.addEventListener("click", (event) => this.click(event));
    this.grid.addEventListener("dblclick", (event) => this.doubleClick(event));
    this.grid.addEventListener("keydown", (event) => this.pressKey(event));
    this.grid.addEventListener("scroll", () => this.draw());
  }

  update() {
    this.listRows();
    this.updateLayout();
    const { header } = this.store;
    this.grid.setAttribute("aria-label", `${header.mode} of the run`);
    this.grid.setAttribute("aria-rowcount", String(this.entries.length + 1));
    this.grid.hidden = !this.outermost.length;
    this.empty.hidden = !this.outermost.length || this.entries.length > 0;
    this.lines.setCount(this.entries.length);
    const follows = this.filterBar.follows && !header.ended;
    if (follows && !this.filterBar.node.hidden) this.grid.scrollTop = this.grid.scrollHeight;
    const next = this.rowToSelect(follows && header.mode === "attempts");
    if (next === null) this.draw();
    else this.setSelected(next);
  }

  listRows() {
    const groups = groupByParent(this.store.rows.values());
    this.outermost = groups.get("") ?? [];
    this.entries = listEntries(groups, this.filterBar.filter, this.sort, this.open);
    this.places = new Map(this.entries.map(({ row }, i) => [row.key, i]));
    this.filterBar.update(this.outermost, this.entries.length);
  }

  /** Redraw all lines if the columns, the headings or the scale of the scores changed. */
  updateLayout() {
    const { header } = this.store;
    this.columns = shownColumns(this.outermost, header.mode);
    const marked = this.outermost.some((row) => row.by || row.mark);
    const { columns, low, high } = header;
    const layout = JSON.stringify([this.columns, marked, this.sort, columns, low, high]);
    if (layout === this.shownLayout) return;
    this.shownLayout = layout;
    const cells = this.columns.map((name) => headingCell(name, header, this.sort, () => this.sortBy(name)));
    this.heading.replaceChildren(...cells);
    this.grid.style.setProperty("--dspynb-columns", columnWidths(this.columns, marked));
    this.lines.clear();
  }

  /**
   * The row to select if the selection has to change: the latest row if it is followed; if no row is selected, the best
   * row of a run that has ended, else the first row.
   * @param {boolean} followsLatest
   * @returns {string | null} null: the selection stays
   */
  rowToSelect(followsLatest) {
    const isShown = this.selected !== null && this.places.has(this.selected);
    if (!isShown && this.entries.length) {
      const best = this.store.header.ended ? this.outermost.find((row) => row.best) : undefined;
      return best && this.places.has(best.key) ? best.key : this.entries[0].row.key;
    }
    const latest = this.outermost[this.outermost.length - 1];
    return followsLatest && latest && latest.key !== this.selected ? latest.key : null;
  }

  draw() {
    if (!this.store.ready) return;
    const { entries, columns, open, selected } = this;
    this.lines.draw({ entries, columns, open, selected, header: this.store.header });
  }

  /** @param {string} key */
  setSelected(key) {
    this.selected = key;
    this.draw();
    this.onSelect(key);
  }

  /**
   * Select a row that a person chose: scroll to it, and stop following the latest row.
   * @param {string} key
   */
  select(key) {
    this.filterBar.stopFollowing();
    if (!this.places.has(key)) {
      this.filterBar.clear();
      this.listRows();
    }
    this.scrollTo(key);
    this.setSelected(key);
  }

  /** @param {string} key */
  scrollTo(key) {
    const place = this.places.get(key);
    if (place === undefined) return;
    const top = place * ROW_HEIGHT;
    const height = this.grid.clientHeight - this.heading.offsetHeight;
    const { scrollTop } = this.grid;
    if (top < scrollTop) this.grid.scrollTop = top;
    else if (top + ROW_HEIGHT > scrollTop + height) this.grid.scrollTop = top + ROW_HEIGHT - height;
  }

  /** @param {ColumnName} column */
  sortBy(column) {
    this.sort = nextSort(this.sort, column);
    this.filterBar.stopFollowing();
    this.update();
  }

  /**
   * @param {string} key
   * @param {boolean} [opens]
   */
  toggle(key, opens = !this.open.has(key)) {
    if (opens === this.open.has(key)) return;
    if (opens) this.open.add(key);
    else this.open.delete(key);
    this.store.send({ type: opens ? "open" : "close", key });
    this.update();
  }

  /** @param {MouseEvent} event */
  click(event) {
    const key = keyOfEvent(event);
    if (key === undefined || String(getSelection())) return;
    if (isInside(event, ".dspynb-twist")) this.toggle(key);
    this.select(key);
  }

  /** @param {MouseEvent} event */
  doubleClick(event) {
    const key = keyOfEvent(event);
    if (key !== undefined && this.store.rows.get(key)?.kids) this.toggle(key);
  }

  /** @param {KeyboardEvent} event */
  pressKey(event) {
    if (event.target !== this.grid || event.ctrlKey || event.metaKey || event.altKey) return;
    const place = (this.selected === null ? undefined : this.places.get(this.selected)) ?? 0;
    const pageSize = Math.max(1, Math.floor(this.grid.clientHeight / ROW_HEIGHT) - 1);
    const action = actionOfKey(event.key, this.entries, place, pageSize, this.open);
    if (!action) return;
    if ("select" in action) this.select(action.select);
    if ("open" in action) this.toggle(action.open, true);
    if ("close" in action) this.toggle(action.close, false);
    if ("toggle" in action) this.toggle(action.toggle);
    event.preventDefault();
  }
}

/**
 * The key of the row that was clicked.
 * @param {Event} event
 */
function keyOfEvent({ target }) {
  const line = target instanceof Element ? target.closest(".dspynb-line[data-key]") : null;
  return line instanceof HTMLElement ? line.dataset.key : undefined;
}

/**
 * @param {Event} event
 * @param {string} selector
 */
function isInside({ target }, selector) {
  return target instanceof Element && target.closest(selector) !== null;
}
