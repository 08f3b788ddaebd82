/* The contents of a row's cells. */

/** @import { ColumnName, Header, Row } from "./types.js" */

import { element } from "./dom.js";
import { formatChange, formatCount, formatNumber, stateClass, stateText } from "./format.js";

/** Pixels by which a row is indented for each level. */
const INDENT = 14;

/**
 * @param {ColumnName} name
 * @param {Row} row
 * @param {number} level 1 for an outermost row
 * @param {boolean} isOpen
 * @param {Header} header
 * @returns {HTMLElement[]}
 */
export function cellContent(name, row, level, isOpen, header) {
  switch (name) {
    case "label":
      return [labelContent(row, level, isOpen)];
    case "about":
      return [textContent(row.about)];
    case "outputs":
      if (row.error) return [textContent(row.error, "dspynb-error")];
      return [row.live && !row.outputs ? textContent(row.live, "dspynb-live") : textContent(row.outputs)];
    case "score":
      return scoreContent(row, header);
    case "seconds":
      return [textContent(row.seconds?.toFixed(2))];
    case "tokens":
      return [textContent(row.tokens ? formatCount(row.tokens) : "")];
  }
}

/**
 * A text, or a dash where there is none.
 * @param {string | undefined} text
 * @param {string} [className]
 */
function textContent(text, className = "") {
  return element("div", `dspynb-text ${text ? className : "dspynb-none"}`, text || "–");
}

/**
 * @param {Row} row
 * @param {number} level
 * @param {boolean} isOpen
 */
function labelContent(row, level, isOpen) {
  const name = element("div", "dspynb-name-of");
  if (row.kids) name.append(element("span", "dspynb-twist", isOpen ? "▾ " : "▸ "));
  name.append(element("b", "", row.label));
  if (row.best) name.append(" ", element("span", "dspynb-star", "★"));
  if (row.mark) name.append(" ", element("span", "dspynb-by", row.mark));
  if (row.by) name.append(" ", element("span", "dspynb-by", row.by));
  const state = element("div", `dspynb-state dspynb-${stateClass(row.state)}`, stateText(row.state));
  const node = element("div", "", name, state);
  node.style.paddingLeft = `${(level - 1) * INDENT}px`;
  return node;
}

/**
 * The score as a number and as a bar.
 * @param {Row} row
 * @param {Header} header
 */
function scoreContent(row, { low, high }) {
  if (row.score === undefined) return [textContent(undefined)];
  const filled = element("div");
  const percent = (100 * (row.score - low)) / (high - low);
  filled.style.width = `${Math.max(0, Math.min(100, percent))}%`;
  const numbers = element("div", "", element("b", "", formatNumber(row.score)));
  if (row.change !== undefined) numbers.append(" ", element("span", "dspynb-change", formatChange(row.change)));
  return [numbers, element("div", "dspynb-bar", filled)];
}
