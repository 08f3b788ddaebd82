/* Joined from views/js/*.js by views/js/join.py. Edit those files, and run it again. */

/* ── dom.js ── */
function element(tag, className = "", ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

function svgElement(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
  node.append(...children);
  return node;
}

function button(text, className, action, label = "") {
  const node = element("button", `dspynb-button ${className}`, text);
  node.type = "button";
  if (label) node.setAttribute("aria-label", label);
  node.addEventListener("click", action);
  return node;
}

function withTooltip(text, node) {
  node.title = text;
  return node;
}

function scrollable(tag, className, ...children) {
  const node = element(tag, className, ...children);
  node.tabIndex = 0;
  return node;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function copyButton(text) {
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      node.textContent = "copied";
    } catch {
      node.textContent = "not allowed here";
    }
    setTimeout(() => {
      node.textContent = "copy";
    }, 1500);
  };
  const node = button("copy", "dspynb-copy", copy, "copy this text");
  return node;
}

/* ── store.js ── */
const ALIVE_INTERVAL = 5000;
const DETAIL_TIMEOUT = 3000;

const EMPTY_HEADER = {
  mode: "attempts",
  state: "pending",
  name: "",
  progress: "",
  done: 0,
  total: null,
  share: null,
  result: "",
  facts: [],
  elapsed: null,
  columns: ["", ""],
  low: 0,
  high: 1,
  notes: [],
  summary: "",
  ended: false,
  stopping: false,
  paused: false,
  steerable: [],
};

class RunStore {
  constructor(source) {
    this.source = source;
    this.ready = false;
    this.header = EMPTY_HEADER;
    this.rows = new Map();
    this.leads = {};
    this.seq = -1;
    this.receivedAt = 0;
    this.refusal = "";
    this.views = new Set();
    this.saved = !source.send;
    this.file = source.file ?? "";
    this.details = new Map();
    this.liveCalls = new Map();
    this.pendingDetails = new Map();
    this.snapshotRequested = false;
    this.lastAlive = 0;
  }

  applySnapshot({ seq, header, rows, leads, live }) {
    if (!header || seq === undefined || seq < this.seq) return;
    this.header = header;
    this.ready = true;
    this.seq = seq;
    this.leads = leads ?? {};
    this.receivedAt = performance.now();
    this.rows = new Map();
    for (const row of rows ?? []) this.rows.set(row.key, mergeRow(undefined, row));
    this.applyLive(live ?? {});
    this.snapshotRequested = false;
    this.notify();
  }

  receive(message) {
    if (message?.type === "delta") this.applyDelta(message);
    if (message?.type === "detail") {
      this.pendingDetails.delete(message.key);
      this.details.set(message.key, { ...message.detail, outdated: false });
      this.notify();
    }
    if (message?.type === "refused") {
      this.refusal = message.text;
      this.notify();
    }
    if (performance.now() - this.lastAlive > ALIVE_INTERVAL) this.sendAlive();
  }

  applyDelta(delta) {
    if (delta.seq <= this.seq) return;
    if (delta.seq !== this.seq + 1) {
      this.requestSnapshot();
      return;
    }
    this.header = { ...this.header, ...delta.header };
    this.ready = true;
    this.seq = delta.seq;
    this.receivedAt = performance.now();
    if (delta.leads) this.leads = delta.leads;
    for (const key of delta.removed) {
      this.rows.delete(key);
      this.liveCalls.delete(key);
    }
    for (const patch of delta.rows) this.applyPatch(patch);
    this.applyLive(delta.live ?? {});
    this.notify();
  }

  applyLive(rows) {
    for (const [key, { line, calls }] of Object.entries(rows)) {
      const row = this.rows.get(key);
      if (!row) continue;
      this.rows.set(key, mergeRow(row, { key, live: line || null }));
      if (calls) this.liveCalls.set(key, calls);
      else if (!line) this.liveCalls.delete(key);
      const detail = this.details.get(key);
      const shown = detail?.blocks.flatMap(({ live }) => (live ? [live.id] : [])) ?? [];
      const isOutdated = line ? calls && String(calls.map(({ id }) => id)) !== String(shown) : shown.length > 0;
      if (detail && isOutdated) detail.outdated = true;
    }
  }

  applyPatch(patch) {
    this.rows.set(patch.key, mergeRow(this.rows.get(patch.key), patch));
    const detail = this.details.get(patch.key);
    if (detail) detail.outdated = true;
  }

  requestSnapshot() {
    if (!this.snapshotRequested) this.source.send?.({ type: "snapshot" });
    this.snapshotRequested = true;
  }

  sendAlive() {
    this.lastAlive = performance.now();
    if (!this.header.ended) this.source.send?.({ type: "alive", seq: this.seq });
  }

  send(message) {
    this.refusal = "";
    this.source.send?.(message);
  }

  detail(key) {
    const detail = this.details.get(key) ?? this.source.detail?.(key) ?? null;
    if (!detail || detail.outdated) this.requestDetail(key);
    return detail;
  }

  requestDetail(key) {
    if (!this.source.send) return;
    const now = performance.now();
    const requestedAt = this.pendingDetails.get(key);
    if (requestedAt !== undefined && now - requestedAt < DETAIL_TIMEOUT) return;
    this.pendingDetails.set(key, now);
    this.source.send({ type: "detail", key });
  }

  notify() {
    for (const view of this.views) view();
  }
}

function mergeRow(row, patch) {
  const merged = { ...row, ...patch };
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete merged[name];
  }
  return merged;
}

/* ── format.js ── */
const STATE_SYMBOLS = {
  passed: "✓",
  done: "✓",
  finished: "✓",
  scored: "○",
  failed: "✕",
  cancelled: "⊘",
  paused: "‖",
  stopped: "■",
  exhausted: "■",
  max_errors: "■",
  interrupted: "■",
  unfinished: "■",
  running: "●",
  pending: "●",
  "stopping…": "■",
};

const ROW_NAMES = { attempts: "attempt", rows: "row", candidates: "candidate", calls: "call" };

function stateClass(state) {
  return Object.hasOwn(STATE_SYMBOLS, state) ? state.replace("…", "") : "other";
}

function stateText(state) {
  const symbol = Object.hasOwn(STATE_SYMBOLS, state) ? STATE_SYMBOLS[state] : "•";
  return `${symbol} ${state}`;
}

function formatNumber(value) {
  return String(Number(value.toPrecision(4)));
}

function formatChange(value) {
  if (Math.abs(value) < 1e-9) return "±0";
  const sign = value > 0 ? "+" : "−";
  return sign + Number(Math.abs(value).toPrecision(3));
}

function formatDuration(seconds, whole) {
  if (seconds < 60) return `${seconds.toFixed(whole ? 0 : 1)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
}

function formatCount(count) {
  return count.toLocaleString("en");
}

/* ── thinning.js ── */
const MOST_POINTS = 1200;

function thinned(items, heightOf) {
  if (items.length <= MOST_POINTS) return items;
  const size = Math.ceil((4 * items.length) / MOST_POINTS);
  const chosen = new Set();
  for (let start = 0; start < items.length; start += size) {
    const stretch = items.slice(start, start + size);
    chosen.add(stretch[0]);
    chosen.add(stretch[stretch.length - 1]);
    chosen.add(stretch.reduce((a, b) => (heightOf(b) > heightOf(a) ? b : a)));
    chosen.add(stretch.reduce((a, b) => (heightOf(b) < heightOf(a) ? b : a)));
  }
  return items.filter((item) => chosen.has(item));
}

/* ── score_chart.js ── */
const CHART_WIDTH = 900;
const CHART_HEIGHT = 110;
const LEFT = 44;

function drawScores(rows, header, leads, markPoint) {
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

function scoredRows(rows) {
  return /** @type {ScoredRow[]} */ (rows.filter((row) => row.score !== undefined));
}

function leadsOf(row, leads) {
  return leads[row.key.replace("candidate ", "")];
}

function placement(rows, header) {
  const places = new Map(rows.map((row, i) => [row.key, i]));
  const step = (CHART_WIDTH - 56) / Math.max(1, rows.length - 1);
  return (row, value) => ({ x: LEFT + (places.get(row.key) ?? 0) * step, y: heightOf(value, header) });
}

function heightOf(value, { low, high }) {
  return CHART_HEIGHT - 18 - ((value - low) * (CHART_HEIGHT - 30)) / (high - low);
}

function runningValues(scored, mode, place) {
  let best = -Infinity;
  let sum = 0;
  return scored.map((row, i) => {
    best = Math.max(best, row.score);
    sum += row.score;
    return place(row, mode === "rows" ? sum / (i + 1) : best);
  });
}

function drawLine(points, mode) {
  const drawn = thinned(points, (point) => point.y);
  const corners = mode === "rows" ? drawn : drawn.flatMap((point, i) => step(point, drawn[i - 1]));
  const text = corners.map(({ x, y }) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");
  return svgElement("polyline", { points: text, class: "dspynb-line" });
}

function step(point, before) {
  return before ? [{ x: point.x, y: before.y }, point] : [point];
}

function drawScale(header) {
  return [header.low, header.high].flatMap((value) => {
    const y = heightOf(value, header);
    const rule = svgElement("line", { x1: 40, x2: CHART_WIDTH - 8, y1: y, y2: y, class: "dspynb-rule" });
    return [rule, tick(36, y + 4, formatNumber(value), "end")];
  });
}

function drawPoint({ x, y }, radius, onFront, mark) {
  const group = svgElement("g", {});
  if (onFront) group.append(svgElement("circle", { cx: x, cy: y, r: 7, class: "dspynb-front" }));
  group.append(mark(svgElement("circle", { cx: x, cy: y, r: radius })));
  return group;
}

function tick(x, y, text, anchor = "start") {
  return svgElement("text", { x, y, "text-anchor": anchor, class: "dspynb-tick" }, text);
}

/* ── lineage_chart.js ── */
const MOST_NODES = 300;

function drawLineage(all, header, markPoint) {
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

function shownRows(rows) {
  if (rows.length <= MOST_NODES) return rows;
  return [...rows.slice(0, MOST_NODES - 1), ...rows.filter((row) => row.best).slice(0, 1)];
}

function generations(rows) {
  const generation = new Map();
  for (const row of rows) {
    const parents = (row.parents ?? []).map((key) => generation.get(key) ?? -1);
    generation.set(row.key, Math.max(-1, ...parents) + 1);
  }
  return generation;
}

function layout(rows) {
  const generation = generations(rows);
  const filled = []; // generation → the total height of its nodes
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

function pointOf(places, key) {
  return places.get(key) ?? { x: 0, y: 0 };
}

function drawEdges(rows, places) {
  return rows.flatMap((row) => {
    const to = pointOf(places, row.key);
    const parents = (row.parents ?? []).filter((key) => places.has(key));
    return parents.map((key) => drawEdge(pointOf(places, key), to));
  });
}

function drawEdge(from, to) {
  const middle = (from.x + to.x) / 2;
  const path = `M${from.x},${from.y} C${middle},${from.y} ${middle},${to.y} ${to.x},${to.y}`;
  return svgElement("path", { d: path, class: "dspynb-edge" });
}

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

/* ── row_order.js ── */
function compareRows(a, b) {
  return a.order[0] - b.order[0] || a.order[1] - b.order[1];
}

function groupByParent(rows) {
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

function matchesFilter(row, { words, state }) {
  if (state && row.state !== state) return false;
  if (!words) return true;
  const texts = [row.label, row.about, row.outputs, row.error, row.by, row.mark];
  return texts.some((text) => text?.toLowerCase().includes(words));
}

const SORT_VALUES = {
  score: (row) => row.score ?? -Infinity,
  seconds: (row) => row.seconds ?? -1,
  tokens: (row) => row.tokens ?? 0,
  about: (row) => row.about ?? "",
  outputs: (row) => row.error ?? row.outputs ?? "",
};

function sortRows(rows, { by, descending }) {
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

const OWN_ORDER = { by: "label", descending: false };

function nextSort(sort, column) {
  const descendingFirst = column === "score" || column === "seconds" || column === "tokens";
  if (sort.by !== column) return { by: column, descending: descendingFirst };
  if (sort.descending === descendingFirst) return { by: column, descending: !descendingFirst };
  return OWN_ORDER;
}

function listEntries(groups, filter, sort, open) {
  const entries = [];
  const add = (row, level) => {
    entries.push({ row, level });
    if (!open.has(row.key)) return;
    for (const child of groups.get(row.key) ?? []) add(child, level + 1);
  };
  const outermost = (groups.get("") ?? []).filter((row) => matchesFilter(row, filter));
  for (const row of sortRows(outermost, sort)) add(row, 1);
  return entries;
}

/* ── charts.js ── */
class Charts {
  constructor(store, onSelect) {
    this.store = store;
    this.onSelect = onSelect;
    this.chosen = "scores";
    this.drawn = "";
    this.selected = null;
    this.points = new Map();
    this.buttons = ["scores", "lineage"].map((name) => button(name, "dspynb-tab", () => this.choose(name)));
    this.tabs = element("div", "dspynb-tabs", ...this.buttons);
    this.box = scrollable("div", "dspynb-charts");
    this.node = element("div", "dspynb-chart-box", this.tabs, this.box);
  }

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

  chartToShow(hasLineage, scored) {
    if (!hasLineage) return "scores";
    return scored < 2 ? "lineage" : this.chosen;
  }

  draw(chart, rows) {
    const { header, leads } = this.store;
    this.points = new Map();
    const markPoint = (shape, row) => this.markPoint(shape, row);
    const svg = chart === "lineage" ? drawLineage(rows, header, markPoint) : drawScores(rows, header, leads, markPoint);
    this.box.replaceChildren(svg);
  }

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

  select(key) {
    if (this.selected !== null) this.points.get(this.selected)?.classList.remove("dspynb-point-selected");
    this.points.get(key)?.classList.add("dspynb-point-selected");
    this.selected = key;
  }
}

/* ── fields.js ── */
function keepKeys(node) {
  node.dataset.lmSuppressShortcuts = "true";
  node.addEventListener("keydown", (event) => event.stopPropagation());
}

function inputField(type, placeholder = "") {
  const node = element("input", "dspynb-input");
  node.type = type;
  node.placeholder = placeholder;
  keepKeys(node);
  return node;
}

function selectField(label) {
  const node = element("select", "dspynb-input");
  node.setAttribute("aria-label", label);
  keepKeys(node);
  return node;
}

function setOptions(select, options) {
  const nodes = [];
  for (const [value, text] of options) {
    const node = element("option", "", text);
    node.value = value;
    nodes.push(node);
  }
  select.replaceChildren(...nodes);
}

function labelled(text, field) {
  return element("label", "dspynb-field", element("span", "", text), field);
}

/* ── candidate_steering.js ── */
const MOST_LINES = 12;

function candidateButtons(store, row, onEdit) {
  const { header } = store;
  if (header.mode !== "candidates" || row.up !== undefined || header.ended) return [];
  const id = candidateId(row);
  const send = (action, value) => () => store.send({ type: "steer", action, value });
  const buttons = [];
  if (header.steerable.includes("drop") && row.mark !== "dropped" && row.label !== "c0") {
    const drop = button("Drop", "dspynb-drop", send("drop", id));
    buttons.push(withTooltip("never use this candidate as a parent or as the result", drop));
  }
  if (header.steerable.includes("pin")) {
    if (row.mark === "pinned") {
      buttons.push(button("Unpin", "dspynb-pin", send("unpin", id)));
    } else {
      const pin = button("Pin", "dspynb-pin", send("pin", id));
      buttons.push(withTooltip("return this candidate from the run, whatever its score", pin));
    }
  }
  if (header.steerable.includes("propose")) buttons.push(button("Edit…", "dspynb-edit", onEdit));
  const isSteerable = ["drop", "pin", "propose"].some((action) => header.steerable.includes(action));
  return isSteerable ? [element("div", "dspynb-form", ...buttons)] : [];
}

function candidateEditor(store, row, detail, onClose) {
  const fields = Object.entries(detail.edit).map(([path, text]) => ({ path, text, area: instructionField(text) }));
  const propose = () => {
    const changed = fields.filter(({ text, area }) => area.value !== text && area.value.trim());
    const value = Object.fromEntries(changed.map(({ path, area }) => [path, area.value]));
    if (changed.length) store.send({ type: "steer", action: "propose", parent: candidateId(row), value });
    onClose();
  };
  const nodes = [
    element("div", "dspynb-title", "propose an edited candidate"),
    ...fields.map(({ path, area }) => labelled(path, area)),
    element("div", "dspynb-form", button("Propose", "dspynb-give", propose), button("Cancel", "", onClose)),
  ];
  return { nodes, focus: () => fields[0]?.area.focus() };
}

function instructionField(text) {
  const area = element("textarea", "dspynb-input", text);
  area.rows = Math.min(MOST_LINES, text.split("\n").length + 2);
  keepKeys(area);
  return area;
}

function candidateId(row) {
  return row.key.replace("candidate ", "");
}

/* ── comparison.js ── */
const FEW_CHOICES = 20;
const MOST_CHOICES = 2000;

function defaultComparison(row, rows, mode) {
  if (mode === "candidates" && row.parents) return row.parents.find((key) => rows.has(key)) ?? "";
  if (mode !== "attempts" && row.up === undefined) return "";
  return rowBefore(row, rows)?.key ?? "";
}

function rowBefore(row, rows) {
  let last = null;
  for (const other of rows.values()) {
    const isBefore = other.up === row.up && other.order[0] === row.order[0] && other.order[1] < row.order[1];
    if (isBefore && (last === null || other.order[1] > last.order[1])) last = other;
  }
  return last;
}

function comparableRows(row, rows, most) {
  const siblings = groupByParent(rows.values()).get(row.up ?? "") ?? [];
  const others = siblings.filter((other) => other.key !== row.key);
  const after = others.findIndex((other) => compareRows(other, row) > 0);
  const position = after < 0 ? others.length : after;
  const first = Math.max(0, Math.min(position - most / 2, others.length - most));
  const near = others.slice(first, first + most);
  const best = others.filter((other) => other.best && !near.includes(other));
  return [...near, ...best];
}

function comparisonOptions(comparable, defaultRow, mode) {
  const options = new Map([["", "nothing"]]);
  for (const row of comparable) {
    const star = row.best ? " ★" : "";
    options.set(row.key, `${ROW_NAMES[mode]} ${row.label}${star}`);
  }
  const relation = mode === "candidates" ? "parent" : "previous";
  if (defaultRow) options.set(defaultRow.key, `${relation}: ${defaultRow.label}`);
  return options;
}

/* ── diff.js ── */
const WORDS = /\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu;
const SPACES = /^[^\S\n]+$/;
const MOST_EDITS = 1500;

function diffWords(before, after) {
  const a = before.match(WORDS) ?? [];
  const b = after.match(WORDS) ?? [];
  const shorter = Math.min(a.length, b.length);
  let head = 0;
  while (head < shorter && a[head] === b[head]) head++;
  let tail = 0;
  while (tail < shorter - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail++;
  const middle = diffMiddle(a.slice(head, a.length - tail), b.slice(head, b.length - tail));
  const start = piece("same", a.slice(0, head).join(""));
  const end = piece("same", a.slice(a.length - tail).join(""));
  return joinPieces([start, ...middle, end]);
}

function piece(kind, text) {
  return { kind, text };
}

function diffMiddle(a, b) {
  const replaced = [piece("removed", a.join("")), piece("added", b.join(""))];
  if (!a.length || !b.length) return replaced;
  const most = Math.min(a.length + b.length, MOST_EDITS);
  const middle = most + 1;
  const ends = new Int32Array(2 * most + 3);
  const history = [];
  for (let d = 0; d <= most; d++) {
    history.push(ends.slice());
    for (let k = -d; k <= d; k += 2) {
      const start = insertsWord(ends, middle, k, d) ? ends[middle + k + 1] : ends[middle + k - 1] + 1;
      const x = start + equalWords(a, b, start, start - k);
      ends[middle + k] = x;
      if (x >= a.length && x - k >= b.length) return tracePath(a, b, history, middle);
    }
  }
  return replaced;
}

function equalWords(a, b, x, y) {
  let count = 0;
  while (x + count < a.length && y + count < b.length && a[x + count] === b[y + count]) count++;
  return count;
}

function insertsWord(ends, middle, k, d) {
  return k === -d || (k !== d && ends[middle + k - 1] < ends[middle + k + 1]);
}

function tracePath(a, b, history, middle) {
  const pieces = [];
  let x = a.length;
  let y = b.length;
  for (let d = history.length - 1; d >= 0; d--) {
    const ends = history[d];
    const k = x - y;
    const inserts = insertsWord(ends, middle, k, d);
    const previous = inserts ? k + 1 : k - 1;
    const startX = d ? ends[middle + previous] : 0;
    const startY = d ? startX - previous : 0;
    while (x > startX && y > startY) {
      x--;
      y--;
      pieces.push(piece("same", a[x]));
    }
    if (!d) continue;
    if (inserts) {
      y--;
      pieces.push(piece("added", b[y]));
    } else {
      x--;
      pieces.push(piece("removed", a[x]));
    }
  }
  return pieces.reverse();
}

function joinPieces(pieces) {
  const result = [];
  let removed = "";
  let added = "";
  const flush = () => {
    if (removed) result.push(piece("removed", removed));
    if (added) result.push(piece("added", added));
    removed = "";
    added = "";
  };
  for (const { kind, text } of pieces) {
    if (kind === "removed") {
      removed += text;
    } else if (kind === "added") {
      added += text;
    } else if (removed && added && SPACES.test(text)) {
      removed += text;
      added += text;
    } else if (text) {
      flush();
      const last = result[result.length - 1];
      if (last?.kind === "same") last.text += text;
      else result.push(piece("same", text));
    }
  }
  flush();
  return result;
}

function countWords(pieces, kind) {
  let count = 0;
  for (const piece of pieces) {
    if (piece.kind === kind) count += piece.text.trim().split(/\s+/).filter(Boolean).length;
  }
  return count;
}

/* ── diff_view.js ── */
const NEAR_LINES = 3;
const NEAR_CHARACTERS = 300;

const TAGS = /** @type {const} */ ({ removed: "del", added: "ins" });

function blockHead(heading, text) {
  const node = element("div", "dspynb-heading", element("span", "", heading));
  if (text) node.append(copyButton(text));
  return node;
}

function diffBlock(block, before, sideBySide) {
  if (before === block.text) return [blockHead(`${block.heading} · unchanged`, block.text)];
  const pieces = diffWords(before, block.text);
  const counts = `+${countWords(pieces, "added")} −${countWords(pieces, "removed")} words`;
  const head = blockHead(`${block.heading} · ${counts}`, block.text);
  if (!sideBySide) return [head, scrollable("pre", "", ...shownPieces(pieces))];
  const left = scrollable("pre", "", ...shownPieces(pieces.filter(({ kind }) => kind !== "added")));
  const right = scrollable("pre", "", ...shownPieces(pieces.filter(({ kind }) => kind !== "removed")));
  return [head, element("div", "dspynb-sides", left, right)];
}

function shownPieces(pieces) {
  return pieces.flatMap(({ kind, text }, i) => {
    if (kind === "same") return foldedText(text, i === 0, i === pieces.length - 1);
    const breaks = /^\s*\n/.exec(text)?.[0] ?? ""; // so that the sign of the change is beside its words
    const words = text.slice(breaks.length);
    return words ? [breaks, element(TAGS[kind], "", words)] : [breaks];
  });
}

function foldedText(text, first, last) {
  const { head, cut, tail } = splitUnchanged(text, first, last);
  if (!cut) return [text];
  const lines = cut.split("\n").length - 1;
  const size = lines > 1 ? `${lines} lines` : `${formatCount(cut.length)} characters`;
  const unfold = () => {
    if (cut.endsWith("\n")) fold.nextSibling?.remove();
    fold.replaceWith(cut);
  };
  const fold = button(`… ${size} unchanged …`, "dspynb-fold", unfold);
  return cut.endsWith("\n") ? [head, fold, "\n", tail] : [head, fold, tail];
}

function splitUnchanged(text, first, last) {
  const lines = text.split(/(?<=\n)/);
  const head = first ? "" : lines.slice(0, NEAR_LINES).join("").slice(0, NEAR_CHARACTERS);
  const tail = last ? "" : lines.slice(-NEAR_LINES).join("").slice(-NEAR_CHARACTERS);
  if (head.length + tail.length >= text.length) return { head: text, cut: "", tail: "" };
  const cut = text.slice(head.length, text.length - tail.length);
  const isShort = cut.split("\n").length <= NEAR_LINES && cut.length < NEAR_CHARACTERS;
  return isShort ? { head: text, cut: "", tail: "" } : { head, cut, tail };
}

/* ── live_call.js ── */
const NEAR_END = 24;

class LiveCallView {
  constructor(call, folded) {
    this.id = call.id;
    this.summary = element("summary", "");
    this.line = element("span", "dspynb-live");
    this.state = element("span", "");
    this.summary.append(this.state, this.line);
    this.thinking = scrollable("pre", "");
    this.folded = folded;
    this.folded.append(this.summary, this.thinking);
    this.replyHead = blockHead(`${call.of} · reply so far`, "");
    this.reply = scrollable("pre", "");
    this.nodes = [this.folded, this.replyHead, this.reply];
    this.update(call);
  }

  update(call) {
    const { of, characters, line, thinking, reply } = call;
    setText(this.state, `${of} · ${thinkingState(characters, reply)}`);
    setText(this.line, line && !reply ? ` ${line}` : "");
    extendText(this.thinking, thinking);
    this.thinking.hidden = !thinking;
    extendText(this.reply, reply);
    this.replyHead.hidden = !reply;
    this.reply.hidden = !reply;
  }
}

function thinkingState(characters, reply) {
  if (characters) return `${reply ? "reasoning" : "thinking"} · ${formatCount(characters)} characters`;
  return reply ? "no reasoning" : "waiting for the first words";
}

function extendText(node, text) {
  const before = node.textContent ?? "";
  if (text === before) return;
  const atEnd = node.scrollTop + node.clientHeight >= node.scrollHeight - NEAR_END;
  if (before && text.startsWith(before)) node.append(text.slice(before.length));
  else node.replaceChildren(text);
  if (atEnd) node.scrollTop = node.scrollHeight;
}

/* ── detail.js ── */
const FOLDED = new Set(["reasoning", "record"]);

class DetailView {
  constructor(store) {
    this.store = store;
    this.key = null;
    this.chosen = null;
    this.sideBySide = false;
    this.editing = false;
    this.unfolded = new Set();
    this.liveViews = [];
    this.drawnState = "";
    this.openedFor = null;
    this.node = element("section", "dspynb-detail");
    this.node.hidden = true;
    this.node.setAttribute("aria-label", "the selected row");
    this.choices = selectField("compare the prompt with");
    this.choices.addEventListener("pointerdown", () => this.offerAll());
    this.choices.addEventListener("focus", () => this.offerAll());
    this.choices.addEventListener("change", () => {
      this.chosen = this.choices.value;
      this.redraw();
    });
    this.sides = button("side by side", "dspynb-tab", () => {
      this.sideBySide = !this.sideBySide;
      this.redraw();
    });
  }

  select(key) {
    if (key !== this.key) {
      this.chosen = null;
      this.editing = false;
    }
    this.key = key;
    this.update();
  }

  redraw() {
    this.drawnState = "";
    this.update();
  }

  update() {
    const row = this.selectedRow();
    this.node.hidden = !row;
    if (!row || this.editing) return;
    const { header } = this.store;
    const defaultKey = this.defaultKey(row);
    const compared = this.chosen ?? defaultKey;
    const detail = this.store.detail(row.key);
    const before = compared ? this.store.detail(compared) : null;
    const { key, state, score, mark } = row;
    const { steerable, ended } = header;
    const newState = JSON.stringify([
      [key, state, score, mark],
      [defaultKey, compared, detail, before, this.sideBySide],
      [steerable, ended],
    ]);
    if (newState === this.drawnState) {
      this.updateLive(key);
      return; // to keep the scroll position and the selection
    }
    this.drawnState = newState;
    const hasChoices = this.offerChoices(row, FEW_CHOICES) > 0;
    this.openedFor = null;
    this.choices.value = compared;
    this.sides.setAttribute("aria-pressed", String(this.sideBySide));
    const title = element("div", "dspynb-title", this.title(row));
    if (detail) this.node.replaceChildren(title, ...this.content(row, detail, before, hasChoices));
    else this.node.replaceChildren(title, element("div", "dspynb-waits", this.waitingText()));
    this.updateLive(key);
  }

  updateLive(key) {
    const calls = this.store.liveCalls.get(key) ?? [];
    for (const view of this.liveViews) {
      const call = calls.find(({ id }) => id === view.id);
      if (call) view.update(call);
    }
  }

  selectedRow() {
    return this.key === null ? undefined : this.store.rows.get(this.key);
  }

  defaultKey(row) {
    return defaultComparison(row, this.store.rows, this.store.header.mode);
  }

  offerChoices(row, most) {
    const { rows, header } = this.store;
    const comparable = comparableRows(row, rows, most);
    setOptions(this.choices, comparisonOptions(comparable, rows.get(this.defaultKey(row)), header.mode));
    return comparable.length;
  }

  offerAll() {
    const row = this.selectedRow();
    if (!row || this.openedFor === row.key) return;
    const { value } = this.choices;
    this.offerChoices(row, MOST_CHOICES);
    this.openedFor = row.key;
    this.choices.value = value;
  }

  title(row) {
    const { rows, header } = this.store;
    const outer = ROW_NAMES[header.mode];
    if (row.up === undefined) return `${outer} ${row.label}`;
    const parent = rows.get(row.up);
    const isRowOfCandidate = header.mode === "candidates" && parent?.up === undefined;
    const inner = ROW_NAMES[isRowOfCandidate ? "rows" : "attempts"];
    const above = parent ? `${outer} ${parent.label} › ` : "";
    return `${above}${inner} ${row.label}`;
  }

  waitingText() {
    const { saved, file, header } = this.store;
    if (!saved) return header.note ? "the texts are loaded after the cell has ended" : "…";
    return `the texts are only in the run's file${file ? ` (${file})` : ""}`;
  }

  content(row, detail, before, hasChoices) {
    const nodes = [...this.values(row, detail), ...candidateButtons(this.store, row, () => this.edit(row, detail))];
    if (hasChoices && detail.blocks.some((block) => block.kind === "sent")) nodes.push(this.compareBar(row, before));
    return [...nodes, ...this.blocks(detail, before)];
  }

  values(row, { values }) {
    const pairs = values.flatMap(([title, parts]) => {
      const heading = title === "outputs" && row.up === undefined ? this.store.header.columns[1] : title;
      const texts = parts.map(([name, text]) => namedText(name === heading ? "" : name, text));
      const className = title === "error" ? "dspynb-error" : "";
      return [element("dt", "", heading), scrollable("dd", className, ...texts)];
    });
    return pairs.length ? [element("dl", "", ...pairs)] : [];
  }

  compareBar(row, before) {
    const isCandidate = this.store.header.mode === "candidates" && row.up === undefined;
    const text = element("span", "", isCandidate ? "compare the texts with" : "compare the prompt with");
    const node = element("div", "dspynb-compare", text, this.choices);
    if (before) node.append(this.sides);
    return node;
  }

  blocks(detail, before) {
    const earlier = sentTexts(before);
    this.liveViews = [];
    let folds = 0;
    return detail.blocks.flatMap((block) => {
      if (before && block.kind === "sent") {
        return diffBlock(block, earlier.get(block.heading)?.shift() ?? "", this.sideBySide);
      }
      if (FOLDED.has(block.kind) && block.text) return [this.foldedBlock(folds++, block)];
      if (block.live) return this.liveBlock(folds++, block.live);
      const head = blockHead(block.heading, block.text);
      const className = block.kind === "error" ? "dspynb-error" : "";
      return block.text ? [head, scrollable("pre", className, block.text)] : [head];
    });
  }

  fold(position) {
    const node = element("details", "dspynb-folded");
    node.open = this.unfolded.has(position);
    node.addEventListener("toggle", () => {
      if (node.open) this.unfolded.add(position);
      else this.unfolded.delete(position);
    });
    return node;
  }

  foldedBlock(position, { heading, text }) {
    const node = this.fold(position);
    node.append(element("summary", "", heading), blockHead("", text), scrollable("pre", "", text));
    return node;
  }

  liveBlock(position, call) {
    const view = new LiveCallView(call, this.fold(position));
    this.liveViews.push(view);
    return view.nodes;
  }

  edit(row, detail) {
    this.editing = true;
    const close = () => {
      this.editing = false;
      this.redraw();
    };
    const editor = candidateEditor(this.store, row, detail, close);
    this.node.replaceChildren(...editor.nodes);
    editor.focus();
  }
}

function namedText(name, text) {
  return name ? element("div", "", element("i", "", `${name}: `), text) : element("div", "", text);
}

function sentTexts(detail) {
  const texts = new Map();
  for (const { kind, heading, text } of detail?.blocks ?? []) {
    if (kind !== "sent") continue;
    const group = texts.get(heading);
    if (group) group.push(text);
    else texts.set(heading, [text]);
  }
  return texts;
}

/* ── progress.js ── */
function timeTexts(header, sinceSent) {
  if (header.elapsed === null || header.elapsed === undefined) return [];
  const elapsed = header.elapsed + (header.ended ? 0 : sinceSent);
  const texts = [formatDuration(elapsed, !header.ended)];
  const left = secondsLeft(header, elapsed);
  if (left !== null) texts.push(`about ${formatDuration(left, true)} left`);
  return texts;
}

function secondsLeft(header, elapsed) {
  const share = shareDone(header);
  if (header.ended || header.done <= 1 || share <= 0 || share >= 1) return null;
  return (elapsed * (1 - share)) / share;
}

function shareDone({ total, done, share }) {
  return Math.min(1, Math.max(total ? done / total : 0, share ?? 0));
}

/* ── steering.js ── */
function createBudgetForm(store) {
  const fields = { calls: limitField(), metric_calls: limitField(), usd: limitField() };
  const send = () => {
    const filled = Object.entries(fields).filter(([, field]) => field.value !== "");
    const value = Object.fromEntries(filled.map(([name, field]) => [name, Number(field.value)]));
    if (filled.length) store.send({ type: "steer", action: "budget", value });
    form.hidden = true;
  };
  const form = element(
    "div",
    "dspynb-form",
    element("span", "", "new limits (including what is already spent):"),
    labelled("calls", fields.calls),
    labelled("rollouts", fields.metric_calls),
    labelled("USD", fields.usd),
    button("Set", "dspynb-set", send),
  );
  form.hidden = true;
  return form;
}

function limitField() {
  const field = inputField("number");
  field.min = "0";
  field.step = "any";
  return field;
}

class HintForm {
  constructor(store) {
    this.store = store;
    this.text = inputField("text", "what the next attempt should do differently");
    this.sent = element("span", "dspynb-said");
    this.text.addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.send();
    });
    const give = button("Send", "dspynb-give", () => this.send());
    this.node = element("div", "dspynb-form dspynb-hinting", labelled("hint", this.text), give, this.sent);
  }

  send() {
    const hint = this.text.value.trim();
    if (!hint) return;
    this.store.send({ type: "steer", action: "hint", value: hint });
    this.sent.textContent = `sent for the next attempt: ${hint}`;
    this.text.value = "";
  }

  update() {
    const { ended, steerable } = this.store.header;
    this.node.hidden = ended || !steerable.includes("hint");
  }
}

/* ── header.js ── */
class HeaderView {
  constructor(store) {
    this.store = store;
    this.stopRequested = false;
    this.state = element("b", "dspynb-state");
    this.progress = element("span", "dspynb-progress");
    this.status = element("span", "dspynb-status", this.state, this.progress);
    this.name = element("span", "dspynb-name");
    this.note = element("span", "dspynb-hint");
    this.stop = button("Stop", "dspynb-stop", () => this.requestStop());
    this.pause = button("Pause", "dspynb-pause", () => this.togglePause());
    this.form = createBudgetForm(store);
    this.budget = button("Budget…", "dspynb-budget", () => {
      this.form.hidden = !this.form.hidden;
    });
    this.filled = element("div");
    this.bar = element("div", "dspynb-progress-bar", this.filled);
    this.facts = element("div", "dspynb-facts");
    this.notes = element("div", "dspynb-notes");
    this.shownNotes = "";
    this.refusal = element("div", "dspynb-note dspynb-refused");
    this.refusal.setAttribute("role", "alert");
    if (!store.saved) this.status.setAttribute("aria-live", "polite");
    const top = [this.status, this.name, this.note, this.budget, this.pause, this.stop];
    this.nodes = [element("div", "dspynb-head", ...top), this.bar, this.facts, this.notes, this.refusal, this.form];
    this.timer = store.saved ? undefined : setInterval(() => this.everySecond(), 1000);
  }

  requestStop() {
    this.stopRequested = true;
    this.store.send({ type: "stop" });
    this.update();
  }

  togglePause() {
    const action = this.store.header.paused ? "unpause" : "pause";
    this.store.send({ type: "steer", action });
  }

  everySecond() {
    if (!this.store.ready) return;
    this.showFacts();
    if (!this.store.header.ended) this.store.sendAlive();
  }

  update() {
    const { header } = this.store;
    const stopping = !header.ended && (this.stopRequested || header.stopping);
    const state = shownState(header, stopping);
    setText(this.state, stateText(state));
    this.state.className = `dspynb-state dspynb-${stateClass(state)}`;
    setText(this.progress, header.progress);
    setText(this.name, header.name);
    setText(this.note, header.ended ? "" : (header.note ?? ""));
    this.showButtons(header, stopping);
    this.showBar(header);
    this.showNotes(header);
    setText(this.refusal, this.store.refusal);
    this.refusal.hidden = !this.store.refusal;
    this.showFacts();
  }

  showButtons({ ended, paused, steerable }, stopping) {
    this.stop.disabled = stopping;
    this.stop.hidden = ended;
    setText(this.pause, paused ? "Continue" : "Pause");
    this.pause.hidden = ended || !steerable.includes("pause");
    this.budget.hidden = ended || !steerable.includes("budget");
    if (this.budget.hidden) this.form.hidden = true;
  }

  showBar(header) {
    const { ended, total, share } = header;
    this.bar.hidden = ended || (!total && typeof share !== "number");
    this.filled.style.width = `${100 * shareDone(header)}%`;
  }

  showNotes({ summary, notes }) {
    const key = JSON.stringify([summary, notes]);
    if (this.shownNotes === key) return;
    this.shownNotes = key;
    const nodes = notes.map((text) => element("div", "dspynb-note", text));
    if (summary) nodes.unshift(element("div", "dspynb-summary", summary));
    this.notes.replaceChildren(...nodes);
  }

  showFacts() {
    const { header, receivedAt } = this.store;
    const seconds = (performance.now() - receivedAt) / 1000;
    const facts = [header.result, ...header.facts, ...timeTexts(header, seconds)];
    setText(this.facts, facts.filter(Boolean).join(" · "));
  }

  close() {
    clearInterval(this.timer);
  }
}

function shownState({ state, paused, ended }, stopping) {
  if (stopping) return "stopping…";
  return paused && !ended ? "paused" : state;
}

/* ── columns.js ── */
const WIDTHS = {
  label: "84px",
  about: "minmax(0, 3fr)",
  score: "104px",
  outputs: "minmax(0, 4fr)",
  seconds: "76px",
  tokens: "72px",
};
const MARKED_WIDTH = "132px";

function shownColumns(rows, mode) {
  const isFilled = (name) => rows.some((row) => row[name] !== undefined);
  const names = ["label", "about"];
  if (isFilled("score") || mode === "attempts") names.push("score");
  names.push("outputs");
  if (isFilled("seconds")) names.push("seconds");
  if (isFilled("tokens")) names.push("tokens");
  return names;
}

function columnWidths(names, marked) {
  return names.map((name) => (name === "label" && marked ? MARKED_WIDTH : WIDTHS[name])).join(" ");
}

function columnTitle(name, { columns }) {
  if (name === "label") return "#";
  if (name === "about") return columns[0];
  return name === "outputs" ? columns[1] : name;
}

function headingCell(name, header, sort, onClick) {
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

/* ── filter_bar.js ── */
const FEWEST_ROWS = 9;

class FilterBar {
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

  get filter() {
    return { words: this.search.value.trim().toLowerCase(), state: this.states.value };
  }

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

  update(rows, entryCount) {
    const { words, state } = this.filter;
    this.node.hidden = rows.length < FEWEST_ROWS;
    setText(this.count, words || state ? `${formatCount(entryCount)} of ${formatCount(rows.length)}` : "");
    this.updateStates(rows);
  }

  updateStates(rows) {
    const states = ["", ...new Set(rows.map((row) => row.state))].sort();
    if (states.join() === [...this.states.options].map((option) => option.value).join()) return;
    const selected = this.states.value;
    const options = states.map((state) => [state, state || "all states"]);
    setOptions(this.states, options);
    this.states.value = states.includes(selected) ? selected : "";
  }
}

/* ── keyboard.js ── */
function actionOfKey(key, entries, position, pageSize, open) {
  if (position >= entries.length) return null;
  const target = targetOfKey(key, position, entries.length, pageSize);
  if (target !== null) return { select: entries[target].row.key };
  const { row, level } = entries[position];
  if (key === "ArrowRight" && row.kids) return { open: row.key };
  if (key === "ArrowLeft" && open.has(row.key)) return { close: row.key };
  if (key === "ArrowLeft" && level > 1 && entries.some((entry) => entry.row.key === row.up)) {
    return { select: row.up ?? "" };
  }
  if (key === "Enter" && row.kids) return { toggle: row.key };
  return null;
}

function targetOfKey(key, position, count, pageSize) {
  const targets = {
    ArrowDown: position + 1,
    ArrowUp: position - 1,
    Home: 0,
    End: count - 1,
    PageDown: position + pageSize,
    PageUp: position - pageSize,
  };
  if (!Object.hasOwn(targets, key)) return null;
  return Math.max(0, Math.min(count - 1, targets[key]));
}

/* ── cells.js ── */
const INDENT = 14;

function cellContent(name, row, level, isOpen, header) {
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

function textContent(text, className = "") {
  return element("div", `dspynb-text ${text ? className : "dspynb-none"}`, text || "–");
}

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

function scoreContent(row, { low, high }) {
  if (row.score === undefined) return [textContent(undefined)];
  const filled = element("div");
  const percent = (100 * (row.score - low)) / (high - low);
  filled.style.width = `${Math.max(0, Math.min(100, percent))}%`;
  const numbers = element("div", "", element("b", "", formatNumber(row.score)));
  if (row.change !== undefined) numbers.append(" ", element("span", "dspynb-change", formatChange(row.change)));
  return [numbers, element("div", "dspynb-bar", filled)];
}

/* ── table_rows.js ── */
const ROW_HEIGHT = 46;
const SPARE_LINES = 4;

let tables = 0; // numbers the ids of elements, so that two views on a page have different ids

function visibleRange(count, scrollTop, height) {
  const first = Math.max(0, Math.floor(scrollTop / ROW_HEIGHT) - SPARE_LINES);
  const last = Math.min(count, Math.ceil((scrollTop + height) / ROW_HEIGHT) + SPARE_LINES);
  return { first, last };
}

class TableRows {
  constructor(grid) {
    this.grid = grid;
    this.body = element("tbody", "dspynb-body");
    this.body.setAttribute("role", "rowgroup");
    this.lines = new Map();
    tables += 1;
    this.id = `dspynb-${tables}`;
  }

  clear() {
    for (const { node } of this.lines.values()) node.remove();
    this.lines.clear();
  }

  setCount(count) {
    this.body.style.height = `${count * ROW_HEIGHT}px`;
  }

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

  removeAllBut(keys) {
    for (const [key, { node }] of this.lines) {
      if (keys.has(key)) continue;
      node.remove();
      this.lines.delete(key);
    }
  }

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

  addLine(key) {
    const node = element("tr", "dspynb-line");
    node.setAttribute("role", "row");
    node.dataset.key = key;
    node.id = `${this.id}-${key.replace(/\W/g, "-")}`;
    const line = { node, row: null, isOpen: false };
    this.lines.set(key, line);
    this.body.append(node);
    return line;
  }

  putInOrder(visible) {
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

  markActive(selected) {
    const line = selected === null ? undefined : this.lines.get(selected);
    if (line) this.grid.setAttribute("aria-activedescendant", line.node.id);
    else this.grid.removeAttribute("aria-activedescendant");
  }
}

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

/* ── table.js ── */
class Table {
  constructor(store, onSelect) {
    this.store = store;
    this.onSelect = onSelect;
    this.outermost = [];
    this.entries = [];
    this.places = new Map();
    this.columns = [];
    this.open = new Set();
    this.sort = OWN_ORDER;
    this.selected = null;
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

  setSelected(key) {
    this.selected = key;
    this.draw();
    this.onSelect(key);
  }

  select(key) {
    this.filterBar.stopFollowing();
    if (!this.places.has(key)) {
      this.filterBar.clear();
      this.listRows();
    }
    this.scrollTo(key);
    this.setSelected(key);
  }

  scrollTo(key) {
    const place = this.places.get(key);
    if (place === undefined) return;
    const top = place * ROW_HEIGHT;
    const height = this.grid.clientHeight - this.heading.offsetHeight;
    const { scrollTop } = this.grid;
    if (top < scrollTop) this.grid.scrollTop = top;
    else if (top + ROW_HEIGHT > scrollTop + height) this.grid.scrollTop = top + ROW_HEIGHT - height;
  }

  sortBy(column) {
    this.sort = nextSort(this.sort, column);
    this.filterBar.stopFollowing();
    this.update();
  }

  toggle(key, opens = !this.open.has(key)) {
    if (opens === this.open.has(key)) return;
    if (opens) this.open.add(key);
    else this.open.delete(key);
    this.store.send({ type: opens ? "open" : "close", key });
    this.update();
  }

  click(event) {
    const key = keyOfEvent(event);
    if (key === undefined || String(getSelection())) return;
    if (isInside(event, ".dspynb-twist")) this.toggle(key);
    this.select(key);
  }

  doubleClick(event) {
    const key = keyOfEvent(event);
    if (key !== undefined && this.store.rows.get(key)?.kids) this.toggle(key);
  }

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

function keyOfEvent({ target }) {
  const line = target instanceof Element ? target.closest(".dspynb-line[data-key]") : null;
  return line instanceof HTMLElement ? line.dataset.key : undefined;
}

function isInside({ target }, selector) {
  return target instanceof Element && target.closest(selector) !== null;
}

/* ── view.js ── */
const LONGEST_PRESS = 3000;
const RELEASES = ["pointerup", "pointercancel", "blur"];

function createView(store, parent) {
  const view = new View(store);
  parent.append(view.root);
  view.open();
  return () => view.close();
}

class View {
  constructor(store) {
    this.store = store;
    this.header = new HeaderView(store);
    this.hints = new HintForm(store);
    this.detail = new DetailView(store);
    this.charts = new Charts(store, (key) => this.table.select(key));
    this.table = new Table(store, (key) => {
      this.detail.select(key);
      this.charts.select(key);
    });
    const top = [...this.header.nodes, this.hints.node, this.charts.node];
    this.root = element("div", "dspynb-view", ...top, ...this.table.nodes, this.detail.node);
    if (store.file) this.root.append(element("div", "dspynb-file", store.file));
    this.pressed = undefined;
    this.update = () => this.updateParts();
    this.release = () => {
      if (this.pressed !== undefined) setTimeout(() => this.endPress()); // after the click
    };
    this.resized = new ResizeObserver(() => this.table.draw());
  }

  open() {
    this.root.addEventListener("pointerdown", () => this.beginPress());
    for (const name of RELEASES) addEventListener(name, this.release);
    this.resized.observe(this.root);
    this.store.views.add(this.update);
    this.update();
  }

  updateParts() {
    if (!this.store.ready || this.pressed !== undefined) return;
    this.header.update();
    this.hints.update();
    this.table.update();
    this.charts.update();
    this.detail.update();
  }

  beginPress() {
    clearTimeout(this.pressed);
    this.pressed = setTimeout(() => this.endPress(), LONGEST_PRESS);
  }

  endPress() {
    clearTimeout(this.pressed);
    this.pressed = undefined;
    this.update();
  }

  close() {
    this.store.views.delete(this.update);
    for (const name of RELEASES) removeEventListener(name, this.release);
    clearTimeout(this.pressed);
    this.resized.disconnect();
    this.header.close();
    this.root.remove();
  }
}

/* ── saved_page.js ── */
function still(name, data) {
  for (const root of document.querySelectorAll(`[data-run="${name}"]:not([data-on])`)) {
    if (!(root instanceof HTMLElement)) continue;
    root.dataset.on = "true";
    const store = new RunStore({ detail: (key) => savedDetail(data, key), file: data.file });
    root.replaceChildren(root.querySelector("style") ?? element("style"));
    store.applySnapshot({ seq: 0, ...data });
    createView(store, root);
  }
}

function savedDetail({ details, texts }, key) {
  if (!Object.hasOwn(details, key)) return undefined;
  const detail = details[key];
  const blocks = detail.blocks.map((block) => ({ ...block, text: texts[block.text] }));
  return { ...detail, blocks };
}

/* ── widget.js ── */
export default () => {
  let store;
  return {
    initialize({ model }) {
      store = new RunStore({ send: (message) => model.send(message) });
      const applySnapshot = () => store.applySnapshot(/** @type {Partial<Snapshot>} */ (model.get("snapshot") ?? {}));
      const receive = (message) => store.receive(message);
      model.on("change:snapshot", applySnapshot);
      model.on("msg:custom", receive);
      applySnapshot();
      return () => {
        model.off("change:snapshot", applySnapshot);
        model.off("msg:custom", receive);
        store.views.clear();
      };
    },
    render({ el }) {
      el.classList.add("dspynb");
      store.sendAlive();
      return createView(store, el);
    },
  };
};
