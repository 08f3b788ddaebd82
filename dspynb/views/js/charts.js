/* The charts above the table: which chart is shown, and which point is selected. */

/** @import { RunStore } from "./store.js" */
/** @import { Row } from "./types.js" */

import { button, element, scrollable, svgElement } from "./dom.js";
import { formatNumber, ROW_NAMES } from "./format.js";
import { drawLineage } from "./lineage_chart.js";
import { compareRows } from "./row_order.js";
import { drawScores, leadsOf, scoredRows } from "./score_chart.js";

/** Makes a shape the point of a row: adds a tooltip, and selects the row when the shape is clicked.
 * @typedef {(shape: SVGElement, row: Row) => SVGElement} MarkPoint */

export class Charts {
  /**
   * @param {RunStore} store
   * @param {(key: string) => void} onSelect
   */
  constructor(store, onSelect) {
    this.store = store;
    this.onSelect = onSelect;
    this.chosen = "scores";
    this.drawn = "";
    /** @type {string | null} */
    this.selected = null;
    /** @type {Map<string, SVGElement>} */
    this.points = new Map();
    this.buttons = ["scores", "lineage"].map((name) => button(name, "dspynb-tab", () => this.choose(name)));
    this.tabs = element("div", "dspynb-tabs", ...this.buttons);
    this.box = scrollable("div", "dspynb-charts");
    this.node = element("div", "dspynb-chart-box", this.tabs, this.box);
  }

  /** @param {string} name */
  choose(name) {
    this.chosen = name;
    this.drawn = "";
    this.update();
  }

  update() {
    const { header, leads } = this.store;
    const rows = [...this.store.rows.values()].filter((row) => row.up === undefined).sort(compareRows);
    const scored = scoredRows(rows);
    const hasLineage = header.mode === "candidates" && rows.some((row) => row.parents);
    this.node.hidden = scored.length < 2 && !hasLineage;
    this.tabs.hidden = !hasLineage;
    if (this.node.hidden) return;
    const chart = this.chartToShow(hasLineage, scored.length);
    for (const tab of this.buttons) tab.setAttribute("aria-pressed", String(tab.textContent === chart));
    const scores = scored.map((row) => [row.score, row.best, row.state]);
    const key = JSON.stringify([chart, rows.length, scores, leads]);
    if (key === this.drawn) return;
    this.drawn = key;
    this.draw(chart, rows);
  }

  /**
   * @param {boolean} hasLineage
   * @param {number} scored how many rows have a score
   */
  chartToShow(hasLineage, scored) {
    if (!hasLineage) return "scores";
    return scored < 2 ? "lineage" : this.chosen;
  }

  /**
   * @param {string} chart
   * @param {Row[]} rows
   */
  draw(chart, rows) {
    const { header, leads } = this.store;
    this.points = new Map();
    /** @type {MarkPoint} */
    const markPoint = (shape, row) => this.markPoint(shape, row);
    const svg = chart === "lineage" ? drawLineage(rows, header, markPoint) : drawScores(rows, header, leads, markPoint);
    this.box.replaceChildren(svg);
  }

  /**
   * @param {SVGElement} shape
   * @param {Row} row
   */
  markPoint(shape, row) {
    shape.classList.add("dspynb-point");
    this.points.set(row.key, shape);
    if (row.best) shape.classList.add("dspynb-point-best");
    if (row.key === this.selected) shape.classList.add("dspynb-point-selected");
    if (row.by) shape.classList.add("dspynb-point-person");
    shape.append(svgElement("title", {}, this.describe(row)));
    shape.addEventListener("click", () => this.onSelect(row.key));
    return shape;
  }

  /** @param {Row} row */
  describe(row) {
    const leads = leadsOf(row, this.store.leads);
    const parts = [
      `${ROW_NAMES[this.store.header.mode]} ${row.label}`,
      row.score === undefined ? row.state : `score ${formatNumber(row.score)}`,
    ];
    if (row.best) parts.push("best");
    if (leads) parts.push(`best on ${leads} validation rows`);
    if (row.by) parts.push(`by a ${row.by}`);
    if (row.mark) parts.push(row.mark);
    return parts.join(", ");
  }

  /** @param {string} key */
  select(key) {
    if (this.selected !== null) this.points.get(this.selected)?.classList.remove("dspynb-point-selected");
    this.points.get(key)?.classList.add("dspynb-point-selected");
    this.selected = key;
  }
}
