/* The chart of scores in the order of the rows, with the best (or the mean) so far as a line. */

/** @import { Header, Leads, Mode, Point, Row } from "./types.js" */
/** @import { MarkPoint } from "./charts.js" */

import { svgElement } from "./dom.js";
import { formatNumber } from "./format.js";
import { thinned } from "./thinning.js";

export const CHART_WIDTH = 900;
const CHART_HEIGHT = 110;
const LEFT = 44;

/** @typedef {Row & { score: number }} ScoredRow */

/**
 * @param {Row[]} rows all outermost rows, in order
 * @param {Header} header
 * @param {Leads} leads
 * @param {MarkPoint} markPoint
 */
export function drawScores(rows, header, leads, markPoint) {
  const { mode } = header;
  const scored = scoredRows(rows);
  const place = placement(rows, header);
  const lineName = mode === "rows" ? "mean so far" : "best so far";
  const points = thinned(scored, (row) => row.score).map((row, _, drawn) => {
    const radius = drawn.length > 200 ? 2 : 4;
    const onFront = mode === "candidates" && leadsOf(row, leads);
    return drawPoint(place(row, row.score), radius, Boolean(onFront), (circle) => markPoint(circle, row));
  });
  const label = `scores of ${scored.length} ${mode}; ${lineName} ${header.result}`;
  const hasFront = mode === "candidates" && Object.keys(leads).length > 0;
  const legend = `● score   ─ ${lineName}${hasFront ? "   ○ on the Pareto front over rows" : ""}`;
  return svgElement(
    "svg",
    { viewBox: `0 0 ${CHART_WIDTH} ${CHART_HEIGHT}`, class: "dspynb-chart", role: "img", "aria-label": label },
    ...drawScale(header),
    drawLine(runningValues(scored, mode, place), mode),
    ...points,
    tick(CHART_WIDTH - 8, CHART_HEIGHT - 4, legend, "end"),
    tick(LEFT, CHART_HEIGHT - 4, `${mode}, in order`),
  );
}

/**
 * @param {Row[]} rows
 * @returns {ScoredRow[]}
 */
export function scoredRows(rows) {
  return /** @type {ScoredRow[]} */ (rows.filter((row) => row.score !== undefined));
}

/**
 * The number of validation rows on which a candidate is the best.
 * @param {Row} row
 * @param {Leads} leads
 * @returns {number | undefined}
 */
export function leadsOf(row, leads) {
  return leads[row.key.replace("candidate ", "")];
}

/**
 * @param {Row[]} rows
 * @param {Header} header
 * @returns {(row: Row, value: number) => Point}
 */
function placement(rows, header) {
  const places = new Map(rows.map((row, i) => [row.key, i]));
  const step = (CHART_WIDTH - 56) / Math.max(1, rows.length - 1);
  return (row, value) => ({ x: LEFT + (places.get(row.key) ?? 0) * step, y: heightOf(value, header) });
}

/**
 * @param {number} value
 * @param {Header} header
 */
function heightOf(value, { low, high }) {
  return CHART_HEIGHT - 18 - ((value - low) * (CHART_HEIGHT - 30)) / (high - low);
}

/**
 * After each row, the mean score so far in the mode `rows`, and the best score so far in other modes.
 * @param {ScoredRow[]} scored
 * @param {Mode} mode
 * @param {(row: Row, value: number) => Point} place
 * @returns {Point[]}
 */
function runningValues(scored, mode, place) {
  let best = -Infinity;
  let sum = 0;
  return scored.map((row, i) => {
    best = Math.max(best, row.score);
    sum += row.score;
    return place(row, mode === "rows" ? sum / (i + 1) : best);
  });
}

/**
 * @param {Point[]} points
 * @param {Mode} mode
 */
function drawLine(points, mode) {
  const drawn = thinned(points, (point) => point.y);
  const corners = mode === "rows" ? drawn : drawn.flatMap((point, i) => step(point, drawn[i - 1]));
  const text = corners.map(({ x, y }) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");
  return svgElement("polyline", { points: text, class: "dspynb-line" });
}

/**
 * The corners of a step: the best score stays constant until there is a better one.
 * @param {Point} point
 * @param {Point | undefined} before
 * @returns {Point[]}
 */
function step(point, before) {
  return before ? [{ x: point.x, y: before.y }, point] : [point];
}

/** @param {Header} header */
function drawScale(header) {
  return [header.low, header.high].flatMap((value) => {
    const y = heightOf(value, header);
    const rule = svgElement("line", { x1: 40, x2: CHART_WIDTH - 8, y1: y, y2: y, class: "dspynb-rule" });
    return [rule, tick(36, y + 4, formatNumber(value), "end")];
  });
}

/**
 * @param {Point} point
 * @param {number} radius
 * @param {boolean} onFront
 * @param {(circle: SVGElement) => SVGElement} mark
 */
function drawPoint({ x, y }, radius, onFront, mark) {
  const group = svgElement("g", {});
  if (onFront) group.append(svgElement("circle", { cx: x, cy: y, r: 7, class: "dspynb-front" }));
  group.append(mark(svgElement("circle", { cx: x, cy: y, r: radius })));
  return group;
}

/**
 * @param {number} x
 * @param {number} y
 * @param {string} text
 * @param {string} [anchor]
 */
function tick(x, y, text, anchor = "start") {
  return svgElement("text", { x, y, "text-anchor": anchor, class: "dspynb-tick" }, text);
}
