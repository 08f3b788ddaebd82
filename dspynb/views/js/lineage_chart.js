/* The chart of an optimizer's candidates, with parents to the left of their children. */

/** @import { Header, Point, Row } from "./types.js" */
/** @import { MarkPoint } from "./charts.js" */

import { svgElement } from "./dom.js";
import { CHART_WIDTH } from "./score_chart.js";

const MOST_NODES = 300;

/**
 * @param {Row[]} all the candidates, in order
 * @param {Header} header
 * @param {MarkPoint} markPoint
 */
export function drawLineage(all, header, markPoint) {
  const rows = shownRows(all);
  const { places, height } = layout(rows);
  const width = Math.max(CHART_WIDTH, ...[...places.values()].map(({ x }) => x + 30));
  const label = `lineage of ${rows.length} candidates, from parents to children`;
  const attributes = { viewBox: `0 0 ${width} ${height}`, class: "dspynb-chart dspynb-lineage" };
  const nodes = rows.map((row) => drawNode(row, pointOf(places, row.key), header, markPoint));
  const drawing = [...drawEdges(rows, places), ...nodes];
  const svg = svgElement("svg", { ...attributes, role: "img", "aria-label": label }, ...drawing);
  svg.style.height = `${height}px`;
  return svg;
}

/**
 * All candidates; if there are very many, the first ones and the best.
 * @param {Row[]} rows
 */
function shownRows(rows) {
  if (rows.length <= MOST_NODES) return rows;
  return [...rows.slice(0, MOST_NODES - 1), ...rows.filter((row) => row.best).slice(0, 1)];
}

/**
 * The generation of each candidate: 0 without parents, else one more than its latest parent's.
 * @param {Row[]} rows parents before children
 * @returns {Map<string, number>}
 */
export function generations(rows) {
  /** @type {Map<string, number>} */
  const generation = new Map();
  for (const row of rows) {
    const parents = (row.parents ?? []).map((key) => generation.get(key) ?? -1);
    generation.set(row.key, Math.max(-1, ...parents) + 1);
  }
  return generation;
}

/**
 * A column for each generation; the nodes of a column are centred.
 * @param {Row[]} rows
 * @returns {{ places: Map<string, Point>, height: number }}
 */
function layout(rows) {
  const generation = generations(rows);
  /** @type {number[]} */
  const filled = []; // generation → the total height of its nodes
  /** @type {Map<string, Point>} */
  const places = new Map(); // x: the generation, y: the middle of the node in its column
  for (const row of rows) {
    const column = generation.get(row.key) ?? 0;
    const space = row.score === undefined ? 11 : 26; // candidates without a validation score are small
    filled[column] = (filled[column] ?? 0) + space;
    places.set(row.key, { x: column, y: filled[column] - space / 2 });
  }
  const height = Math.max(60, ...filled) + 20;
  const columnWidth = Math.max(40, Math.min(110, (CHART_WIDTH - 60) / Math.max(1, filled.length - 1)));
  for (const [key, { x, y }] of places) {
    places.set(key, { x: 24 + x * columnWidth, y: y + (height - filled[x]) / 2 });
  }
  return { places, height };
}

/**
 * @param {Map<string, Point>} places
 * @param {string} key
 * @returns {Point}
 */
function pointOf(places, key) {
  return places.get(key) ?? { x: 0, y: 0 };
}

/**
 * @param {Row[]} rows
 * @param {Map<string, Point>} places
 */
function drawEdges(rows, places) {
  return rows.flatMap((row) => {
    const to = pointOf(places, row.key);
    const parents = (row.parents ?? []).filter((key) => places.has(key));
    return parents.map((key) => drawEdge(pointOf(places, key), to));
  });
}

/**
 * @param {Point} from
 * @param {Point} to
 */
function drawEdge(from, to) {
  const middle = (from.x + to.x) / 2;
  const path = `M${from.x},${from.y} C${middle},${from.y} ${middle},${to.y} ${to.x},${to.y}`;
  return svgElement("path", { d: path, class: "dspynb-edge" });
}

/**
 * @param {Row} row
 * @param {Point} point
 * @param {Header} header
 * @param {MarkPoint} markPoint
 */
function drawNode(row, { x, y }, { low, high }, markPoint) {
  const validated = row.score !== undefined;
  const radius = validated ? 10 : 4;
  const shade = row.score === undefined ? 0.08 : 0.15 + 0.75 * ((row.score - low) / (high - low));
  const back = svgElement("circle", { cx: x, cy: y, r: radius, class: "dspynb-back" });
  const circle = svgElement("circle", { cx: x, cy: y, r: radius, "fill-opacity": shade.toFixed(2) });
  const group = svgElement("g", {}, back, markPoint(circle, row));
  const number = { x, y: y + 4, "text-anchor": "middle", class: "dspynb-number" };
  if (validated) group.append(svgElement("text", number, row.label));
  return group;
}
