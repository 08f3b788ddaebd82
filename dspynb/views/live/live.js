/* The view of a run: live, fed by Python through anywidget, and still, fed by what a page holds (static.py).
 *
 * A store keeps the header and the rows; any number of views show it. Rows come as what is not empty in them, and again
 * as what changed, null for what is no longer there: applying one twice does no harm. See live.py for the messages.
 * Everything shown goes through textContent: what models write is hostile. Classes are set from our own words only. */

const GLYPHS = {
  passed: "✓", done: "✓", finished: "✓", scored: "○", failed: "✕", cancelled: "⊘", paused: "‖",
  stopped: "■", exhausted: "■", interrupted: "■", running: "●", pending: "●", "stopping…": "■",
};
const WHAT = { attempts: "attempt", rows: "row", candidates: "candidate", calls: "call" };
const HEIGHT = 46; // of a row, as in live.css
const ALIVE = 5000; // ms between two words to Python that this page is open
const PRESSED = 3000; // ms at most: releasing a scrollbar is not told to the page

function h(tag, className = "", ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children); // strings become text nodes
  return node;
}

function s(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function button(text, className, action, label = "") {
  const node = h("button", `dspynb-button ${className}`, text);
  node.type = "button";
  if (label) node.setAttribute("aria-label", label);
  node.addEventListener("click", action);
  return node;
}

function titled(title, node) {
  node.title = title;
  return node;
}

/* A text that may be higher than its place: it can be scrolled with the keyboard. */
function scrolled(tag, className, ...children) {
  const node = h(tag, className, ...children);
  node.tabIndex = 0;
  return node;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const kindOf = (state) => (Object.hasOwn(GLYPHS, state) ? state.replace("…", "") : "other");
const shownState = (state) => `${GLYPHS[state] ?? "•"} ${state}`;
const digits = (value) => String(Number(value.toPrecision(4)));
const signed = (value) =>
  Math.abs(value) < 1e-9 ? "±0" : (value > 0 ? "+" : "−") + Number(Math.abs(value).toPrecision(3));
const duration = (seconds, whole) =>
  seconds < 60 ? `${seconds.toFixed(whole ? 0 : 1)} s` : `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
let made = 0; // ids of elements are numbered, so that two views on a page share none

function copyButton(text) {
  const node = button("copy", "dspynb-copy", async () => {
    try {
      await navigator.clipboard.writeText(text);
      node.textContent = "copied";
    } catch {
      node.textContent = "not allowed here";
    }
    setTimeout(() => (node.textContent = "copy"), 1500);
  }, "copy this text");
  return node;
}

/* ── the store ─────────────────────────────────────────────────────────────────────────────────────────────────── */

function createStore(source) {
  const store = {
    header: null, rows: new Map(), leads: {}, details: new Map(), seq: -1, at: 0, refused: "", views: new Set(),
    still: !source.send, file: source.file ?? "",
  };
  const asked = new Set(); // details under way
  const tell = () => store.views.forEach((view) => view());
  let gap = false;
  let heard = 0;

  function merge(before, patch) {
    const after = { ...before, ...patch };
    for (const name of Object.keys(patch)) if (patch[name] === null) delete after[name];
    return after;
  }
  store.take = ({ seq, header, rows, leads }) => {
    if (!header || seq < store.seq) return;
    Object.assign(store, { header, seq, leads: leads ?? {}, at: performance.now(), rows: new Map() });
    for (const row of rows) store.rows.set(row.key, row);
    gap = false;
    tell();
  };
  function delta(message) {
    if (message.seq <= store.seq) return;
    if (message.seq !== store.seq + 1) {
      if (!gap) source.send({ type: "snapshot" });
      gap = true;
      return;
    }
    store.header = { ...store.header, ...message.header };
    store.seq = message.seq;
    store.at = performance.now();
    if (message.leads) store.leads = message.leads;
    for (const key of message.gone) store.rows.delete(key);
    for (const row of message.rows) {
      store.rows.set(row.key, merge(store.rows.get(row.key), row));
      const kept = store.details.get(row.key);
      if (kept) kept.old = true;
    }
    tell();
  }
  store.message = (message) => {
    if (message?.type === "delta") delta(message);
    if (message?.type === "detail") {
      asked.delete(message.key);
      store.details.set(message.key, { ...message.detail, old: false });
      tell();
    }
    if (message?.type === "refused") {
      store.refused = message.text;
      tell();
    }
    if (performance.now() - heard > ALIVE) store.here();
  };
  store.here = () => {
    heard = performance.now();
    if (source.send && !store.header?.ended) source.send({ type: "here", seq: store.seq });
  };
  store.send = (message) => {
    store.refused = "";
    source.send?.(message);
  };
  store.detail = (key) => {
    const kept = store.details.get(key) ?? source.detail?.(key) ?? null;
    if ((!kept || kept.old) && source.send && !asked.has(key)) {
      asked.add(key);
      source.send({ type: "detail", key });
      setTimeout(() => asked.delete(key), 3000);
    }
    return kept;
  };
  return store;
}

/* Rows by what they are in, in their order. */
function childrenOf(store) {
  const found = new Map();
  for (const row of store.rows.values()) {
    const up = row.up ?? "";
    found.has(up) ? found.get(up).push(row) : found.set(up, [row]);
  }
  for (const rows of found.values()) rows.sort(inOrder);
  return found;
}

const inOrder = (a, b) => a.order[0] - b.order[0] || a.order[1] - b.order[1];

/* ── the head ──────────────────────────────────────────────────────────────────────────────────────────────────── */

function createHead(store) {
  const state = h("b", "dspynb-state");
  const progress = h("span", "dspynb-progress");
  const status = h("span", "dspynb-status", state, progress);
  const name = h("span", "dspynb-name");
  const note = h("span", "dspynb-hint");
  let asked = "";
  const stop = button("Stop", "dspynb-stop", () => ask("stop", { type: "stop" }));
  const pause = button("Pause", "dspynb-pause", () => {
    const action = store.header.paused ? "unpause" : "pause";
    store.send({ type: "steer", action });
  });
  const budget = button("Budget…", "dspynb-budget", () => (form.hidden = !form.hidden));
  const form = budgetForm(store);
  const bar = h("div", "dspynb-progress-bar", h("div"));
  const facts = h("div", "dspynb-facts");
  const notes = h("div", "dspynb-notes");
  const alert = h("div", "dspynb-note dspynb-refused");
  alert.setAttribute("role", "alert");
  const top = h("div", "dspynb-head", status, name, note, budget, pause, stop);
  if (!store.still) status.setAttribute("aria-live", "polite");

  function ask(what, message) {
    asked = what;
    store.send(message);
    update();
  }
  function elapsed() {
    const { elapsed: seconds, ended, done, total } = store.header;
    if (seconds === null || seconds === undefined) return [];
    const now = seconds + (ended ? 0 : (performance.now() - store.at) / 1000);
    const left = !ended && total && done > 1 && done < total ? (now / done) * (total - done) : null;
    return [duration(now, !ended), ...(left === null ? [] : [`about ${duration(left, true)} left`])];
  }
  function tick() {
    if (store.header) setText(facts, [store.header.result, ...store.header.facts, ...elapsed()].filter(Boolean).join(" · "));
  }
  function update() {
    const { ended, stopping, paused, steerable, done, total, ...header } = store.header;
    const ending = !ended && (asked === "stop" || stopping);
    const word = ending ? "stopping…" : paused && !ended ? "paused" : header.state;
    setText(state, shownState(word));
    state.className = `dspynb-state dspynb-${kindOf(word)}`;
    setText(progress, header.progress);
    setText(name, header.name);
    setText(note, ended ? "" : header.note ?? "");
    stop.disabled = ending;
    stop.hidden = ended;
    setText(pause, paused ? "Continue" : "Pause");
    pause.hidden = ended || !steerable.includes("pause");
    budget.hidden = ended || !steerable.includes("budget");
    if (budget.hidden) form.hidden = true;
    bar.hidden = !total || ended;
    bar.firstChild.style.width = `${total ? Math.min(100, (100 * done) / total) : 0}%`;
    const told = [...(header.summary ? [["summary", header.summary]] : []), ...header.notes.map((text) => ["note", text])];
    const key = JSON.stringify(told);
    if (notes.dataset.told !== key) {
      notes.dataset.told = key;
      notes.replaceChildren(...told.map(([kind, text]) => h("div", `dspynb-${kind}`, text)));
    }
    setText(alert, store.refused);
    alert.hidden = !store.refused;
    tick();
  }
  const timer = store.still ? 0 : setInterval(() => {
    tick();
    if (store.header && !store.header.ended) store.here();
  }, 1000);
  return { nodes: [top, bar, facts, notes, alert, form], update, close: () => clearInterval(timer) };
}

function labelled(text, field) {
  return h("label", "dspynb-field", h("span", "", text), field);
}

function input(type, placeholder = "") {
  const node = h("input", "dspynb-input");
  node.type = type;
  node.placeholder = placeholder;
  quiet(node);
  return node;
}

/* Keys pressed in here are not the notebook's. */
function quiet(node) {
  node.dataset.lmSuppressShortcuts = "true";
  node.addEventListener("keydown", (event) => event.stopPropagation());
}

function budgetForm(store) {
  const fields = { calls: input("number"), metric_calls: input("number"), usd: input("number") };
  for (const field of Object.values(fields)) Object.assign(field, { min: 0, step: "any" });
  const set = button("Set", "dspynb-set", () => {
    const given = Object.entries(fields).filter(([, field]) => field.value !== "");
    const value = Object.fromEntries(given.map(([name, field]) => [name, Number(field.value)]));
    if (given.length) store.send({ type: "steer", action: "budget", value });
    form.hidden = true;
  });
  const form = h(
    "div", "dspynb-form", h("span", "", "new limits, what is spent included:"),
    labelled("calls", fields.calls), labelled("rollouts", fields.metric_calls), labelled("USD", fields.usd), set,
  );
  form.hidden = true;
  return form;
}

function createHintForm(store) {
  const text = input("text", "what the next attempt should do differently");
  const send = () => {
    if (!text.value.trim()) return;
    store.send({ type: "steer", action: "hint", value: text.value.trim() });
    said.textContent = `in the next attempt: ${text.value.trim()}`;
    text.value = "";
  };
  text.addEventListener("keydown", (event) => event.key === "Enter" && send());
  const said = h("span", "dspynb-said");
  const node = h("div", "dspynb-form dspynb-hinting", labelled("hint", text), button("Give", "dspynb-give", send), said);
  const update = () => {
    node.hidden = store.header.ended || !store.header.steerable.includes("hint");
  };
  return { node, update };
}

/* ── charts ────────────────────────────────────────────────────────────────────────────────────────────────────── */

const WIDE = 900, HIGH = 110, MOST_POINTS = 1200, MOST_NODES = 300;

function createCharts(store, select) {
  const box = scrolled("div", "dspynb-charts");
  const tabs = h("div", "dspynb-tabs");
  const node = h("div", "dspynb-chart-box", tabs, box);
  const buttons = ["scores", "lineage"].map((name) => button(name, "dspynb-tab", () => {
    chosen = name;
    update(true);
  }));
  tabs.append(...buttons);
  let chosen = "scores";
  let drawn = "";
  let selected = null;
  let shapes = new Map(); // key -> its point

  function update(force = false) {
    const rows = [...store.rows.values()].filter((row) => row.up === undefined).sort(inOrder);
    const scored = rows.filter((row) => row.score !== undefined);
    const lineage = store.header.mode === "candidates" && rows.some((row) => row.parents);
    node.hidden = scored.length < 2 && !lineage;
    tabs.hidden = !lineage;
    if (node.hidden) return;
    const shown = !lineage ? "scores" : scored.length < 2 ? "lineage" : chosen;
    buttons.forEach((one) => one.setAttribute("aria-pressed", String(one.textContent === shown)));
    const key = JSON.stringify([shown, rows.length, scored.map((row) => [row.score, row.best, row.state]), store.leads]);
    if (key === drawn && !force) return;
    drawn = key;
    shapes = new Map();
    box.replaceChildren(shown === "lineage" ? drawLineage(rows) : drawScores(rows, scored));
  }
  function mark(shape, row, title) {
    shape.classList.add("dspynb-point");
    shapes.set(row.key, shape);
    if (row.best) shape.classList.add("dspynb-point-best");
    if (row.key === selected) shape.classList.add("dspynb-point-selected");
    if (row.by) shape.classList.add("dspynb-point-person");
    shape.append(s("title", {}, title));
    shape.addEventListener("click", () => select(row.key));
    return shape;
  }
  function described(row) {
    const leads = store.leads[row.key.replace("candidate ", "")];
    return [
      `${WHAT[store.header.mode]} ${row.label}`, row.score === undefined ? row.state : `score ${digits(row.score)}`,
      row.best ? "best" : "", leads ? `best on ${leads} validation rows` : "", row.by ? `by a ${row.by}` : "", row.mark ?? "",
    ].filter(Boolean).join(", ");
  }
  function drawScores(rows, scored) {
    const { low, high, mode } = store.header;
    const shown = scored.length > MOST_POINTS ? thinned(scored) : scored;
    const place = new Map(rows.map((row, i) => [row.key, i]));
    const x = (row) => 44 + (place.get(row.key) * (WIDE - 56)) / Math.max(1, rows.length - 1);
    const y = (value) => HIGH - 18 - ((value - low) * (HIGH - 30)) / (high - low);
    const line = [];
    let best = -Infinity, sum = 0;
    scored.forEach((row, i) => {
      best = Math.max(best, row.score);
      sum += row.score;
      line.push([x(row), y(mode === "rows" ? sum / (i + 1) : best)]);
    });
    const steps = thinned(line).flatMap(([px, py], i, all) => (i && mode !== "rows" ? [[px, all[i - 1][1]], [px, py]] : [[px, py]]));
    const what = mode === "rows" ? "mean so far" : "best so far";
    const points = shown.map((row) => {
      const front = mode === "candidates" && store.leads[row.key.replace("candidate ", "")];
      const ring = front ? [s("circle", { cx: x(row), cy: y(row.score), r: 7, class: "dspynb-front" })] : [];
      return s("g", {}, ...ring, mark(s("circle", { cx: x(row), cy: y(row.score), r: shown.length > 200 ? 2 : 4 }), row, described(row)));
    });
    const label = `scores of ${scored.length} ${mode}; ${what} ${store.header.result}`;
    const front = mode === "candidates" && Object.keys(store.leads).length > 0;
    const legend = `● score   ─ ${what}${front ? "   ○ on the Pareto front over rows" : ""}`;
    return s(
      "svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, class: "dspynb-chart", role: "img", "aria-label": label },
      ...[low, high].flatMap((value) => [
        s("line", { x1: 40, x2: WIDE - 8, y1: y(value), y2: y(value), class: "dspynb-rule" }),
        s("text", { x: 36, y: y(value) + 4, "text-anchor": "end", class: "dspynb-tick" }, digits(value)),
      ]),
      s("polyline", { points: steps.map((p) => p.map((v) => v.toFixed(1)).join(",")).join(" "), class: "dspynb-line" }),
      ...points,
      s("text", { x: WIDE - 8, y: HIGH - 4, "text-anchor": "end", class: "dspynb-tick" }, legend),
      s("text", { x: 44, y: HIGH - 4, class: "dspynb-tick" }, `${mode}, in order`),
    );
  }
  function drawLineage(all) {
    const rows = all.length > MOST_NODES ? [...all.slice(0, MOST_NODES - 1), ...all.filter((row) => row.best).slice(0, 1)] : all;
    const known = new Map(rows.map((row) => [row.key, row]));
    const depth = new Map();
    for (const row of rows) depth.set(row.key, Math.max(-1, ...(row.parents ?? []).map((p) => depth.get(p) ?? -1)) + 1);
    const room = (row) => (row.score === undefined ? 11 : 26); // those that were never validated are small
    const filled = []; // by depth: how high the nodes there are together
    const at = new Map();
    for (const row of rows) {
      const d = depth.get(row.key);
      filled[d] = (filled[d] ?? 0) + room(row);
      at.set(row.key, [d, filled[d] - room(row) / 2]);
    }
    const high = Math.max(60, ...filled) + 20;
    const x = (row) => 24 + at.get(row.key)[0] * Math.max(40, Math.min(110, (WIDE - 60) / Math.max(1, filled.length - 1)));
    const y = (row) => at.get(row.key)[1] + (high - filled[at.get(row.key)[0]]) / 2;
    const wide = Math.max(WIDE, ...rows.map((row) => x(row) + 30));
    const edges = rows.flatMap((row) => (row.parents ?? []).filter((p) => known.has(p)).map((p) => {
      const from = known.get(p), middle = (x(from) + x(row)) / 2;
      const path = `M${x(from)},${y(from)} C${middle},${y(from)} ${middle},${y(row)} ${x(row)},${y(row)}`;
      return s("path", { d: path, class: "dspynb-edge" });
    }));
    const nodes = rows.map((row) => {
      const { low, high: top } = store.header;
      const shade = row.score === undefined ? 0.08 : 0.15 + 0.75 * ((row.score - low) / (top - low));
      const small = row.score === undefined;
      const circle = mark(s("circle", { cx: x(row), cy: y(row), r: small ? 4 : 10, "fill-opacity": shade.toFixed(2) }), row, described(row));
      const number = s("text", { x: x(row), y: y(row) + 4, "text-anchor": "middle", class: "dspynb-number" }, row.label);
      const back = s("circle", { cx: x(row), cy: y(row), r: small ? 4 : 10, class: "dspynb-back" });
      return s("g", {}, back, circle, ...(small ? [] : [number]));
    });
    const label = `lineage of ${rows.length} candidates: which was made from which`;
    const svg = s("svg", { viewBox: `0 0 ${wide} ${high}`, class: "dspynb-chart dspynb-lineage", role: "img", "aria-label": label }, ...edges, ...nodes);
    svg.style.height = `${high}px`;
    return svg;
  }
  function choose(key) {
    shapes.get(selected)?.classList.remove("dspynb-point-selected");
    shapes.get(key)?.classList.add("dspynb-point-selected");
    selected = key;
  }
  return { node, update, choose };
}

/* At most as many as can be told apart: of each stretch its first, last, lowest and highest. */
function thinned(items) {
  if (items.length <= MOST_POINTS) return items;
  const value = (item) => item.score ?? item[1];
  const size = Math.ceil((4 * items.length) / MOST_POINTS);
  const kept = new Set();
  for (let i = 0; i < items.length; i += size) {
    const part = items.slice(i, i + size);
    kept.add(part[0]).add(part.at(-1));
    kept.add(part.reduce((a, b) => (value(b) > value(a) ? b : a)));
    kept.add(part.reduce((a, b) => (value(b) < value(a) ? b : a)));
  }
  return items.filter((item) => kept.has(item));
}

/* ── the table ─────────────────────────────────────────────────────────────────────────────────────────────────── */

const COLUMNS = { label: "84px", about: "minmax(0, 3fr)", score: "104px", outputs: "minmax(0, 4fr)", seconds: "76px", tokens: "72px" };

function createTable(store, chosen) {
  const id = `dspynb-${++made}`;
  const heading = h("tr", "dspynb-line dspynb-headings");
  const body = h("tbody", "dspynb-body");
  const grid = h("table", "dspynb-grid", h("thead", "", heading), body);
  const empty = h("div", "dspynb-empty");
  const search = input("search", "filter");
  const states = h("select", "dspynb-input");
  const follow = input("checkbox");
  const count = h("span", "dspynb-count");
  const following = h("label", "dspynb-follow", follow, " follow the latest");
  const tools = h("div", "dspynb-tools", search, states, ...(store.still ? [] : [following]), count);
  heading.setAttribute("role", "row");
  heading.parentNode.setAttribute("role", "rowgroup");
  body.setAttribute("role", "rowgroup");
  grid.setAttribute("role", "treegrid");
  grid.tabIndex = 0;
  quiet(grid);
  quiet(states);
  search.setAttribute("aria-label", "show only rows with this text");
  states.setAttribute("aria-label", "show only rows in this state");
  follow.checked = !store.still;

  const lines = new Map(); // key -> line that is on the page
  const open = new Set();
  let list = []; // what is shown: [row, level]
  let places = new Map(); // key -> place in the list
  let sort = { by: "label", down: false };
  let selected = null;
  let shape = "";
  let latest = null;

  const key = { label: null, score: (row) => row.score ?? -Infinity, seconds: (row) => row.seconds ?? -1, tokens: (row) => row.tokens ?? 0,
    about: (row) => row.about ?? "", outputs: (row) => row.error ?? row.outputs ?? "" };

  function sorted(rows) {
    if (sort.by === "label") return sort.down ? rows.toReversed() : rows;
    const value = key[sort.by], sign = sort.down ? -1 : 1;
    return rows.toSorted((a, b) => (value(a) < value(b) ? -sign : value(a) > value(b) ? sign : 0));
  }
  function matches(row, words) {
    if (states.value && row.state !== states.value) return false;
    if (!words) return true;
    return [row.label, row.about, row.outputs, row.error, row.by, row.mark].some((text) => text?.toLowerCase().includes(words));
  }
  function build() {
    const inside = childrenOf(store), words = search.value.trim().toLowerCase();
    const tops = inside.get("") ?? [];
    latest = tops.at(-1)?.key ?? null;
    list = [];
    const put = (row, level) => {
      list.push([row, level]);
      if (open.has(row.key)) for (const child of inside.get(row.key) ?? []) put(child, level + 1);
    };
    for (const row of sorted(tops.filter((one) => matches(one, words)))) put(row, 1);
    places = new Map(list.map(([row], i) => [row.key, i]));
    tools.hidden = tops.length < 9;
    setText(count, words || states.value ? `${list.length.toLocaleString("en")} of ${tops.length.toLocaleString("en")}` : "");
    fillStates(tops);
    return tops;
  }
  function fillStates(tops) {
    const found = ["", ...new Set(tops.map((row) => row.state))].sort();
    if (found.join() === [...states.options].map((one) => one.value).join()) return;
    const value = states.value;
    states.replaceChildren(...found.map((one) => {
      const option = h("option", "", one || "all states");
      option.value = one;
      return option;
    }));
    states.value = found.includes(value) ? value : "";
  }
  function columns(tops) {
    const has = (name) => tops.some((row) => row[name] !== undefined);
    return ["label", "about", ...(has("score") || store.header.mode === "attempts" ? ["score"] : []), "outputs",
      ...(has("seconds") ? ["seconds"] : []), ...(has("tokens") ? ["tokens"] : [])];
  }
  function headings(names) {
    const [about, outputs] = store.header.columns;
    const words = { label: "#", about, outputs };
    heading.replaceChildren(...names.map((name) => {
      const arrow = sort.by === name && (name !== "label" || sort.down) ? (sort.down ? " ▾" : " ▴") : "";
      const one = button((words[name] ?? name) + arrow, "dspynb-sort", () => order(name), `sort by ${words[name] ?? name}`);
      one.tabIndex = -1;
      const cell = h("th", `dspynb-cell dspynb-${name}`, one);
      cell.scope = "col";
      cell.setAttribute("role", "columnheader");
      cell.setAttribute("aria-sort", sort.by !== name ? "none" : sort.down ? "descending" : "ascending");
      return cell;
    }));
  }
  function order(name) {
    const first = name === "score" || name === "seconds" || name === "tokens";
    sort = sort.by !== name ? { by: name, down: first } : sort.down === first ? { by: name, down: !first } : { by: "label", down: false };
    shape = "";
    follow.checked = false;
    update();
  }
  function update() {
    const tops = build(), names = columns(tops);
    const marked = tops.some((row) => row.by || row.mark);
    const now = JSON.stringify([names, marked, sort, store.header.columns, store.header.low, store.header.high]);
    if (now !== shape) {
      shape = now;
      headings(names);
      grid.style.setProperty("--dspynb-columns", names.map((name) => (name === "label" && marked ? "132px" : COLUMNS[name])).join(" "));
      lines.forEach((line) => line.remove());
      lines.clear();
    }
    grid.setAttribute("aria-label", `${store.header.mode} of the run`);
    grid.setAttribute("aria-rowcount", String(list.length + 1));
    grid.hidden = !tops.length;
    empty.hidden = !tops.length || list.length > 0;
    setText(empty, "no row matches");
    body.style.height = `${list.length * HEIGHT}px`;
    if (follow.checked && !tools.hidden && !store.header.ended) grid.scrollTop = grid.scrollHeight;
    const followed = follow.checked && store.header.mode === "attempts" && !store.header.ended;
    const best = store.header.ended ? tops.find((row) => row.best)?.key : null;
    if (!places.has(selected) && list.length) choose(best && places.has(best) ? best : list[0][0].key, false);
    else if (followed && latest !== selected) choose(latest, false);
    else draw(names);
  }
  function draw(names = columns(build())) {
    const first = Math.max(0, Math.floor(grid.scrollTop / HEIGHT) - 4);
    const last = Math.min(list.length, Math.ceil((grid.scrollTop + grid.clientHeight) / HEIGHT) + 4);
    const wanted = new Set(list.slice(first, last).map(([row]) => row.key));
    for (const [one, line] of lines) {
      if (!wanted.has(one)) {
        line.remove();
        lines.delete(one);
      }
    }
    for (let i = first; i < last; i++) {
      const [row, level] = list[i];
      const line = lines.get(row.key) ?? add(row.key);
      line.style.transform = `translateY(${i * HEIGHT}px)`;
      line.setAttribute("aria-rowindex", String(i + 2));
      line.setAttribute("aria-level", String(level));
      line.setAttribute("aria-selected", String(row.key === selected));
      if (row.kids) line.setAttribute("aria-expanded", String(open.has(row.key)));
      else line.removeAttribute("aria-expanded");
      if (line.row !== row || line.opened !== open.has(row.key)) fill(line, row, level, names);
    }
    inOrderOnPage(first, last);
    const at = lines.get(selected);
    at ? grid.setAttribute("aria-activedescendant", at.id) : grid.removeAttribute("aria-activedescendant");
  }
  /* What is read aloud comes in the order of the page's elements. */
  function inOrderOnPage(first, last) {
    let before = null;
    for (let i = first; i < last; i++) {
      const line = lines.get(list[i][0].key);
      if (line.previousElementSibling !== before) before ? before.after(line) : body.prepend(line);
      before = line;
    }
  }
  function add(rowKey) {
    const line = h("tr", "dspynb-line");
    line.setAttribute("role", "row");
    line.dataset.key = rowKey;
    line.id = `${id}-${rowKey.replace(/\W/g, "-")}`;
    lines.set(rowKey, line);
    body.append(line);
    return line;
  }
  function fill(line, row, level, names) {
    line.row = row;
    line.opened = open.has(row.key);
    line.className = `dspynb-line${row.best ? " dspynb-best" : ""}`;
    line.replaceChildren(...names.map((name) => {
      const cell = h("td", `dspynb-cell dspynb-${name}`, ...content[name](row, level));
      cell.setAttribute("role", "gridcell");
      return cell;
    }));
  }
  const text = (words, className = "") => [h("div", `dspynb-text ${className}`, words ?? "–")];
  const content = {
    label: (row, level) => {
      const twist = row.kids ? [h("span", "dspynb-twist", open.has(row.key) ? "▾ " : "▸ ")] : [];
      const marks = [...(row.best ? [" ", h("span", "dspynb-star", "★")] : []), ...[row.by, row.mark].filter(Boolean).flatMap((told) => [" ", h("span", "dspynb-by", told)])];
      const top = h("div", "dspynb-name-of", ...twist, h("b", "", row.label), ...marks);
      const node = h("div", "", top, h("div", `dspynb-state dspynb-${kindOf(row.state)}`, shownState(row.state)));
      node.style.paddingLeft = `${(level - 1) * 14}px`;
      return [node];
    },
    about: (row) => text(row.about, row.about ? "" : "dspynb-none"),
    outputs: (row) => (row.error ? text(row.error, "dspynb-error") : text(row.outputs, row.outputs ? "" : "dspynb-none")),
    score: (row) => {
      if (row.score === undefined) return text(undefined, "dspynb-none");
      const { low, high } = store.header;
      const filled = h("div");
      filled.style.width = `${Math.max(0, Math.min(100, (100 * (row.score - low)) / (high - low)))}%`;
      const change = row.change === undefined ? [] : [" ", h("span", "dspynb-change", signed(row.change))];
      return [h("div", "", h("b", "", digits(row.score)), ...change), h("div", "dspynb-bar", filled)];
    },
    seconds: (row) => text(row.seconds?.toFixed(2), row.seconds === undefined ? "dspynb-none" : ""),
    tokens: (row) => text(row.tokens?.toLocaleString("en"), row.tokens ? "" : "dspynb-none"),
  };
  function choose(rowKey, scroll = true) {
    selected = rowKey;
    const i = places.get(rowKey);
    if (scroll && i !== undefined) {
      const top = i * HEIGHT, room = grid.clientHeight - heading.offsetHeight;
      if (top < grid.scrollTop) grid.scrollTop = top;
      else if (top + HEIGHT > grid.scrollTop + room) grid.scrollTop = top + HEIGHT - room;
    }
    draw();
    chosen(rowKey);
  }
  function chooseByHand(rowKey) {
    follow.checked = false;
    if (!places.has(rowKey)) {
      search.value = states.value = "";
      build();
    }
    choose(rowKey);
  }
  function toggle(rowKey, on = !open.has(rowKey)) {
    if (on === open.has(rowKey)) return;
    on ? open.add(rowKey) : open.delete(rowKey);
    store.send({ type: on ? "open" : "shut", key: rowKey });
    update();
  }
  grid.addEventListener("click", (event) => {
    const line = event.target.closest(".dspynb-line[data-key]");
    if (!line || String(getSelection())) return;
    if (event.target.closest(".dspynb-twist")) toggle(line.dataset.key);
    chooseByHand(line.dataset.key);
  });
  grid.addEventListener("dblclick", (event) => {
    const line = event.target.closest(".dspynb-line[data-key]");
    if (line?.row.kids) toggle(line.dataset.key);
  });
  grid.addEventListener("keydown", (event) => {
    if (event.target !== grid || event.ctrlKey || event.metaKey || event.altKey) return;
    const i = places.get(selected) ?? 0, page = Math.max(1, Math.floor(grid.clientHeight / HEIGHT) - 1);
    const to = { ArrowDown: i + 1, ArrowUp: i - 1, Home: 0, End: list.length - 1, PageDown: i + page, PageUp: i - page }[event.key];
    const [row, level] = list[i] ?? [];
    if (to !== undefined && row) chooseByHand(list[Math.max(0, Math.min(list.length - 1, to))][0].key);
    else if (event.key === "ArrowRight" && row?.kids) toggle(row.key, true);
    else if (event.key === "ArrowLeft" && row && open.has(row.key)) toggle(row.key, false);
    else if (event.key === "ArrowLeft" && level > 1 && places.has(row.up)) chooseByHand(row.up);
    else if (event.key === "Enter" && row?.kids) toggle(row.key);
    else return;
    event.preventDefault();
  });
  grid.addEventListener("scroll", () => draw());
  search.addEventListener("input", () => update());
  states.addEventListener("change", () => update());
  follow.addEventListener("change", () => update());
  return { nodes: [tools, grid, empty], update, select: chooseByHand, redraw: () => draw() };
}

/* ── differences ───────────────────────────────────────────────────────────────────────────────────────────────── */

const WORDS = /\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu;
const MOST_EDITS = 1500;

/* Pieces [kind, text]: same and gone join to `before`, same and new to `after`. Myers, "An O(ND) Difference Algorithm
 * and Its Variations" (1986), over words; where more than MOST_EDITS differ, one gone and one new piece. */
function diffWords(before, after) {
  const a = before.match(WORDS) ?? [], b = after.match(WORDS) ?? [];
  let head = 0, tail = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head++;
  while (tail < a.length - head && tail < b.length - head && a.at(-1 - tail) === b.at(-1 - tail)) tail++;
  const pieces = [["same", a.slice(0, head).join("")]];
  pieces.push(...myers(a.slice(head, a.length - tail), b.slice(head, b.length - tail)));
  pieces.push(["same", tail ? a.slice(-tail).join("") : ""]);
  return joined(pieces);
}

function myers(a, b) {
  if (!a.length || !b.length) return [["gone", a.join("")], ["new", b.join("")]];
  const most = Math.min(a.length + b.length, MOST_EDITS), size = 2 * most + 3, middle = most + 1;
  let ends = new Int32Array(size);
  const seen = [];
  for (let d = 0; d <= most; d++) {
    seen.push(ends.slice());
    for (let k = -d; k <= d; k += 2) {
      const down = k === -d || (k !== d && ends[middle + k - 1] < ends[middle + k + 1]);
      let x = down ? ends[middle + k + 1] : ends[middle + k - 1] + 1;
      let y = x - k;
      while (x < a.length && y < b.length && a[x] === b[y]) x++, y++;
      ends[middle + k] = x;
      if (x >= a.length && y >= b.length) return walkedBack(a, b, seen, middle);
    }
  }
  return [["gone", a.join("")], ["new", b.join("")]];
}

function walkedBack(a, b, seen, middle) {
  const pieces = [];
  let x = a.length, y = b.length;
  for (let d = seen.length - 1; d >= 0; d--) {
    const ends = seen[d], k = x - y;
    const down = k === -d || (k !== d && ends[middle + k - 1] < ends[middle + k + 1]);
    const k0 = down ? k + 1 : k - 1, x0 = d ? ends[middle + k0] : 0, y0 = d ? x0 - k0 : 0;
    while (x > x0 && y > y0) pieces.push(["same", a[--x]]), y--;
    if (d) down ? pieces.push(["new", b[--y]]) : pieces.push(["gone", a[--x]]);
  }
  return pieces.reverse();
}

/* Neighbours of a kind as one; what is gone stands before what is new in its place. */
function joined(pieces) {
  const found = [];
  let gone = "", fresh = "";
  const flush = () => {
    if (gone) found.push(["gone", gone]);
    if (fresh) found.push(["new", fresh]);
    gone = fresh = "";
  };
  for (const [kind, text] of pieces) {
    if (!text) continue;
    if (kind === "gone") gone += text;
    else if (kind === "new") fresh += text;
    else {
      const between = (gone || fresh) && /^[^\S\n]+$/.test(text);
      if (between && gone && fresh) gone += text, fresh += text;
      else {
        flush();
        found.at(-1)?.[0] === "same" ? (found.at(-1)[1] += text) : found.push(["same", text]);
      }
    }
  }
  flush();
  return found;
}

const NEAR_LINES = 3, NEAR = 300;

/* Of unchanged text only what is next to a change; the rest can be unfolded. */
function folded(text, first, last) {
  const parts = text.split(/(?<=\n)/);
  const head = first ? "" : parts.slice(0, NEAR_LINES).join("").slice(0, NEAR);
  const tail = last ? "" : parts.slice(-NEAR_LINES).join("").slice(-NEAR);
  const cut = text.slice(head.length, text.length - tail.length);
  if (head.length + tail.length >= text.length || (cut.split("\n").length <= NEAR_LINES && cut.length < NEAR)) return [text];
  const lines = cut.split("\n").length - 1;
  const fold = button(`… ${lines > 1 ? `${lines} lines` : `${cut.length.toLocaleString("en")} characters`} unchanged …`, "dspynb-fold", () => {
    if (cut.endsWith("\n")) fold.nextSibling.remove();
    fold.replaceWith(cut);
  });
  return [head, fold, ...(cut.endsWith("\n") ? ["\n"] : []), tail];
}

const TAGS = { gone: "del", new: "ins" };

function shownPieces(pieces, kinds) {
  const kept = pieces.filter(([kind]) => kinds.includes(kind));
  return kept.flatMap(([kind, text], i) => {
    if (kind === "same") return folded(text, i === 0, i === kept.length - 1);
    const breaks = /^\s*\n/.exec(text)?.[0] ?? ""; // so that the sign of the change stands where its words do
    return [breaks, ...(text.length > breaks.length ? [h(TAGS[kind], "", text.slice(breaks.length))] : [])];
  });
}

function diffBlock(block, before, sideBySide) {
  if (before === block.text) return [blockHead(`${block.heading} · unchanged`, block.text)];
  const pieces = diffWords(before, block.text);
  const words = (kind) => pieces.filter(([one]) => one === kind).map(([, text]) => text.trim().split(/\s+/).filter(Boolean).length).reduce((a, b) => a + b, 0);
  const head = blockHead(`${block.heading} · +${words("new")} −${words("gone")} words`, block.text);
  if (!sideBySide) return [head, scrolled("pre", "", ...shownPieces(pieces, ["same", "gone", "new"]))];
  return [head, h("div", "dspynb-sides", scrolled("pre", "", ...shownPieces(pieces, ["same", "gone"])), scrolled("pre", "", ...shownPieces(pieces, ["same", "new"])))];
}

function blockHead(heading, text) {
  return h("div", "dspynb-heading", h("span", "", heading), ...(text ? [copyButton(text)] : []));
}

/* ── the selected row ──────────────────────────────────────────────────────────────────────────────────────────── */

const FEW_CHOICES = 20, MOST_CHOICES = 2000;

function createDetail(store) {
  const node = h("section", "dspynb-detail");
  node.hidden = true;
  node.setAttribute("aria-label", "the selected row");
  const against = h("select", "dspynb-input");
  quiet(against);
  against.setAttribute("aria-label", "compare the prompt with");
  let key = null, seen = "", other = null, sides = false, editing = false;
  const side = button("side by side", "dspynb-tab", () => ((sides = !sides), (seen = ""), update()));
  const opened = () => {
    const row = store.rows.get(key), value = against.value;
    if (!row || against.dataset.of === key) return;
    choices(row, previous(row), MOST_CHOICES);
    against.dataset.of = key;
    against.value = value;
  };
  against.addEventListener("pointerdown", opened);
  against.addEventListener("focus", opened);
  against.addEventListener("change", () => ((other = against.value), (seen = ""), update()));

  function previous(row) {
    if (store.header.mode === "candidates" && row.parents) return row.parents.find((one) => store.rows.has(one)) ?? "";
    if (!["attempts", "candidates"].includes(store.header.mode) && row.up === undefined) return "";
    if (store.header.mode === "candidates" && row.up === undefined) return "";
    let last = null;
    for (const one of store.rows.values()) {
      const before = one.up === row.up && one.order[0] === row.order[0] && one.order[1] < row.order[1];
      if (before && (!last || one.order[1] > last.order[1])) last = one;
    }
    return last?.key ?? "";
  }
  /* What it can be compared with: those nearest, and the best; more of them once the list is opened. */
  function choices(row, usual, most = FEW_CHOICES) {
    const all = (childrenOf(store).get(row.up ?? "") ?? []).filter((one) => one.key !== row.key);
    const after = all.findIndex((one) => inOrder(one, row) > 0), at = after < 0 ? all.length : after;
    const first = Math.max(0, Math.min(at - most / 2, all.length - most)), near = all.slice(first, first + most);
    const rows = [...near, ...all.filter((one) => one.best && !near.includes(one))];
    const usualRow = store.rows.get(usual);
    const named = new Map([["", "nothing"], ...rows.map((one) => [one.key, `${WHAT[store.header.mode]} ${one.label}${one.best ? " ★" : ""}`])]);
    if (usualRow) named.set(usual, `${store.header.mode === "candidates" ? "parent" : "previous"}: ${usualRow.label}`);
    against.replaceChildren(...[...named].map(([value, text]) => {
      const option = h("option", "", text);
      option.value = value;
      return option;
    }));
    return rows.length > 0;
  }
  function values(detail, row) {
    const pairs = detail.values.flatMap(([title, parts]) => {
      const [about, outputs] = store.header.columns;
      const heading = title === "outputs" && row.up === undefined ? outputs : title;
      const told = parts.map(([name, text]) => h("div", "", ...(name && name !== heading ? [h("i", "", `${name}: `), text] : [text])));
      return [h("dt", "", heading), scrolled("dd", title === "error" ? "dspynb-error" : "", ...told)];
    });
    return pairs.length ? [h("dl", "", ...pairs)] : [];
  }
  function blocks(detail, before) {
    const had = new Map();
    for (const block of before?.blocks.filter((one) => one.kind === "sent") ?? []) {
      had.has(block.heading) ? had.get(block.heading).push(block.text) : had.set(block.heading, [block.text]);
    }
    return detail.blocks.flatMap((block) => {
      if (before && block.kind === "sent") return diffBlock(block, had.get(block.heading)?.shift() ?? "", sides);
      return [blockHead(block.heading, block.text), ...(block.text ? [scrolled("pre", block.kind === "error" ? "dspynb-error" : "", block.text)] : [])];
    });
  }
  function steering(row, detail) {
    const can = (action) => store.header.steerable.includes(action) && !store.header.ended;
    if (store.header.mode !== "candidates" || row.up !== undefined || !(can("propose") || can("drop") || can("pin"))) return [];
    const id = row.key.replace("candidate ", "");
    const act = (action, value) => () => store.send({ type: "steer", action, value });
    const buttons = [
      ...(can("drop") && row.mark !== "dropped" && row.label !== "0" ? [titled("neither parent nor winner from now on", button("Drop", "dspynb-drop", act("drop", id)))] : []),
      ...(can("pin") ? [row.mark === "pinned" ? button("Unpin", "dspynb-pin", act("unpin", id)) : titled("what the run returns, whatever the scores", button("Pin", "dspynb-pin", act("pin", id)))] : []),
      ...(can("propose") ? [button("Edit…", "dspynb-edit", () => edit(id, detail))] : []),
    ];
    return [h("div", "dspynb-form", ...buttons)];
  }
  function edit(id, detail) {
    editing = true;
    const fields = Object.entries(detail.edit).map(([path, text]) => {
      const area = h("textarea", "dspynb-input", text);
      area.rows = Math.min(12, text.split("\n").length + 2);
      quiet(area);
      return [path, text, area];
    });
    const done = () => ((editing = false), (seen = ""), update());
    const propose = () => {
      const changed = fields.filter(([, text, area]) => area.value !== text && area.value.trim());
      if (changed.length) store.send({ type: "steer", action: "propose", parent: id, value: Object.fromEntries(changed.map(([path, , area]) => [path, area.value])) });
      done();
    };
    node.replaceChildren(
      h("div", "dspynb-title", "a candidate of your own"), ...fields.map(([path, , area]) => labelled(path, area)),
      h("div", "dspynb-form", button("Propose", "dspynb-give", propose), button("Cancel", "", done)),
    );
    fields[0]?.[2].focus();
  }
  function update() {
    const row = store.rows.get(key);
    node.hidden = !row;
    if (!row || editing) return;
    const usual = previous(row), chosen = other ?? usual;
    const detail = store.detail(key), before = chosen ? store.detail(chosen) : null;
    const now = JSON.stringify([key, row.state, row.score, row.mark, usual, chosen, detail, before, sides, store.header.steerable, store.header.ended]);
    if (now === seen) return; // keeps the reader's scroll position and selection
    seen = now;
    const some = choices(row, usual);
    delete against.dataset.of;
    against.value = chosen;
    side.setAttribute("aria-pressed", String(sides));
    const what = row.up === undefined ? WHAT[store.header.mode] : WHAT[store.header.mode === "candidates" && store.rows.get(row.up)?.up === undefined ? "rows" : "attempts"];
    const above = row.up !== undefined && store.rows.has(row.up) ? `${WHAT[store.header.mode]} ${store.rows.get(row.up).label} › ` : "";
    const title = h("div", "dspynb-title", `${above}${what} ${row.label}`);
    if (!detail) {
      const file = store.file ? ` (${store.file})` : "";
      const waits = store.still ? `its texts are only in the run's file${file}` : store.header.note ? "its texts come when the cell has ended" : "…";
      node.replaceChildren(title, h("div", "dspynb-waits", waits));
      return;
    }
    const compare = detail.blocks.some((block) => block.kind === "sent") && some
      ? [h("div", "dspynb-compare", h("span", "", store.header.mode === "candidates" && row.up === undefined ? "texts against" : "prompt against"), against, ...(before ? [side] : []))] : [];
    node.replaceChildren(title, ...values(detail, row), ...steering(row, detail), ...compare, ...blocks(detail, before));
  }
  const select = (chosen) => {
    if (chosen !== key) (other = null), (editing = false);
    key = chosen;
    update();
  };
  return { node, update, select };
}

/* ── a view ────────────────────────────────────────────────────────────────────────────────────────────────────── */

function createView(store, el) {
  const head = createHead(store);
  const hints = createHintForm(store);
  const detail = createDetail(store);
  const charts = createCharts(store, (key) => table.select(key));
  const table = createTable(store, (key) => {
    detail.select(key);
    charts.choose(key);
  });
  const file = h("div", "dspynb-file", store.file);
  const root = h("div", "dspynb-view", ...head.nodes, hints.node, charts.node, ...table.nodes, detail.node, ...(store.file ? [file] : []));
  el.append(root);
  let pressed = 0; // while it is not 0, nothing moves: a click is lost where what was pressed is replaced or moved
  const press = () => {
    clearTimeout(pressed);
    pressed = setTimeout(released, PRESSED);
  };
  const release = () => pressed && setTimeout(released); // after the click
  const released = () => {
    clearTimeout(pressed);
    pressed = 0;
    update();
  };
  const update = () => {
    if (!store.header || pressed) return;
    head.update();
    hints.update();
    table.update();
    charts.update();
    detail.update();
  };
  root.addEventListener("pointerdown", press);
  const ends = ["pointerup", "pointercancel", "blur"];
  ends.forEach((end) => addEventListener(end, release));
  const resized = new ResizeObserver(() => store.header && table.redraw());
  resized.observe(root);
  store.views.add(update);
  update();
  return () => {
    store.views.delete(update);
    ends.forEach((end) => removeEventListener(end, release));
    clearTimeout(pressed);
    resized.disconnect();
    head.close();
    root.remove();
  };
}

/* In a page: the plain table gives way to the view of what the page holds. */
function still(name, data) {
  const details = Object.fromEntries(Object.entries(data.details).map(([key, detail]) => [
    key, { ...detail, blocks: detail.blocks.map((block) => ({ ...block, text: data.texts[block.text] })) },
  ]));
  for (const root of document.querySelectorAll(`[data-run="${name}"]:not([data-on])`)) {
    root.dataset.on = "true";
    const store = createStore({ detail: (key) => details[key], file: data.file });
    root.replaceChildren(root.querySelector("style"));
    store.take({ seq: 0, ...data });
    createView(store, root);
  }
}

/* ── what anywidget calls ──────────────────────────────────────────────────────────────────────────────────────── */

export default () => {
  let store = null;
  return {
    initialize({ model }) {
      store = createStore({ send: (message) => model.send(message) });
      const snapshot = () => store.take(model.get("snapshot") ?? {});
      model.on("change:snapshot", snapshot);
      model.on("msg:custom", store.message);
      snapshot();
      return () => {
        model.off("change:snapshot", snapshot);
        model.off("msg:custom", store.message);
        store.views.clear();
      };
    },
    render({ el }) {
      el.classList.add("dspynb");
      store.here();
      return createView(store, el);
    },
  };
};
