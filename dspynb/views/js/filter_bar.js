/* The fields above the table: the filter, and the checkbox that follows the latest row. */

/** @import { Filter, Row } from "./types.js" */

import { element, setText } from "./dom.js";
import { inputField, selectField, setOptions } from "./fields.js";
import { formatCount } from "./format.js";

/** The bar is hidden if the table has fewer rows. */
const FEWEST_ROWS = 9;

export class FilterBar {
  /**
   * @param {boolean} saved whether this is a saved page, to which no rows are added
   * @param {() => void} onChange
   */
  constructor(saved, onChange) {
    this.search = inputField("search", "filter");
    this.search.setAttribute("aria-label", "show only rows with this text");
    this.states = selectField("show only rows in this state");
    this.follow = inputField("checkbox");
    this.follow.checked = !saved;
    this.count = element("span", "dspynb-count");
    this.node = element("div", "dspynb-tools", this.search, this.states);
    if (!saved) this.node.append(element("label", "dspynb-follow", this.follow, " follow the latest"));
    this.node.append(this.count);
    this.search.addEventListener("input", onChange);
    this.states.addEventListener("change", onChange);
    this.follow.addEventListener("change", onChange);
  }

  /** @returns {Filter} */
  get filter() {
    return { words: this.search.value.trim().toLowerCase(), state: this.states.value };
  }

  /** Show all rows again. */
  clear() {
    this.search.value = "";
    this.states.value = "";
  }

  get follows() {
    return this.follow.checked;
  }

  stopFollowing() {
    this.follow.checked = false;
  }

  /**
   * @param {Row[]} rows all outermost rows
   * @param {number} entryCount how many rows the table shows
   */
  update(rows, entryCount) {
    const { words, state } = this.filter;
    this.node.hidden = rows.length < FEWEST_ROWS;
    setText(this.count, words || state ? `${formatCount(entryCount)} of ${formatCount(rows.length)}` : "");
    this.updateStates(rows);
  }

  /** @param {Row[]} rows */
  updateStates(rows) {
    const states = ["", ...new Set(rows.map((row) => row.state))].sort();
    if (states.join() === [...this.states.options].map((option) => option.value).join()) return;
    const selected = this.states.value;
    /** @type {[string, string][]} */
    const options = states.map((state) => [state, state || "all states"]);
    setOptions(this.states, options);
    this.states.value = states.includes(selected) ? selected : "";
  }
}
