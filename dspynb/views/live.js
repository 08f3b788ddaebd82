/* The live view of a run. One store per model, any number of views of it.
 *
 * Python sends the trait `snapshot` {seq, header, rows} and messages {type: "delta", seq, header, rows, gone}; rows are
 * whole, so applying one twice does no harm. A gap in seq is healed by asking for a snapshot. Everything shown goes
 * through textContent: what models write is hostile. `el.hidden` and classes are set from our own words only. */

const GLYPHS = {
  passed: "✓", done: "✓", finished: "✓", scored: "○", failed: "✕", cancelled: "⊘",
  stopped: "■", exhausted: "■", interrupted: "■", running: "●", pending: "●", "stopping…": "■",
};

function h(tag, className = "", ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children); // strings become text nodes
  return node;
}

const kindOf = (state) => (Object.hasOwn(GLYPHS, state) ? state.replace("…", "") : "other");
const shownState = (state) => `${GLYPHS[state] ?? "•"} ${state}`;
const score = (value) => String(Number(value.toPrecision(4)));
const signed = (value) =>
  Math.abs(value) < 1e-9 ? "±0" : (value > 0 ? "+" : "−") + Number(Math.abs(value).toPrecision(3));

/* ── the store ─────────────────────────────────────────────────────────────────────────────────────────────────── */

function createStore(model) {
  const store = { header: null, rows: new Map(), seq: -1, at: 0, asked: false, views: new Set() };
  const tell = (changed) => store.views.forEach((view) => view(changed));

  function head(message) {
    store.header = message.header;
    store.seq = message.seq;
    store.at = performance.now();
  }
  function takeSnapshot() {
    const snapshot = model.get("snapshot");
    if (!snapshot?.header || snapshot.seq < store.seq) return;
    head(snapshot);
    store.asked = false;
    store.rows = new Map(snapshot.rows.map((row) => [row.key, row]));
    tell(null);
  }
  function takeMessage(message) {
    if (message?.type !== "delta" || message.seq <= store.seq) return;
    if (message.seq !== store.seq + 1 && !store.asked) {
      store.asked = true;
      model.send({ type: "snapshot" });
    }
    if (message.seq !== store.seq + 1) return;
    head(message);
    message.gone.forEach((key) => store.rows.delete(key));
    message.rows.forEach((row) => store.rows.set(row.key, row));
    tell(new Set(message.rows.map((row) => row.key)));
  }
  model.on("change:snapshot", takeSnapshot);
  model.on("msg:custom", takeMessage);
  store.close = () => {
    model.off("change:snapshot", takeSnapshot);
    model.off("msg:custom", takeMessage);
    store.views.clear();
  };
  takeSnapshot();
  return store;
}

/* ── the head ──────────────────────────────────────────────────────────────────────────────────────────────────── */

function createHead(store, model) {
  const state = h("b", "dspynb-state");
  const progress = h("span", "dspynb-progress");
  const status = h("span", "dspynb-status", state, progress);
  status.setAttribute("aria-live", "polite");
  const name = h("span", "dspynb-name");
  const stop = h("button", "dspynb-stop", "Stop");
  stop.type = "button";
  const note = h("span", "dspynb-hint");
  const facts = h("div", "dspynb-facts");
  const notes = h("div", "dspynb-notes");
  const top = h("div", "dspynb-head", status, name, note, stop);
  let asked = false;

  const clicked = () => {
    asked = true;
    model.send({ type: "stop" });
    update();
  };
  stop.addEventListener("click", clicked);

  function elapsed() {
    const { elapsed: seconds, ended } = store.header;
    if (seconds === null) return "";
    const now = seconds + (ended ? 0 : (performance.now() - store.at) / 1000);
    return now < 60 ? `${now.toFixed(ended ? 1 : 0)} s` : `${Math.floor(now / 60)} min ${Math.floor(now % 60)} s`;
  }
  function tick() {
    if (!store.header) return;
    const parts = [store.header.result, ...store.header.facts, elapsed()].filter(Boolean);
    setText(facts, parts.join(" · "));
  }
  function update() {
    const header = store.header;
    if (!header) return;
    const stopping = !header.ended && (asked || header.stopping);
    const word = stopping ? "stopping…" : header.state;
    setText(state, shownState(word));
    state.className = `dspynb-state dspynb-${kindOf(word)}`;
    setText(progress, header.progress);
    setText(name, header.name);
    setText(note, header.ended ? "" : header.note);
    stop.disabled = stopping || header.ended;
    stop.hidden = header.ended;
    notes.replaceChildren(...header.notes.map((text) => h("div", "dspynb-note", text)));
    tick();
  }
  const timer = setInterval(() => store.header && !store.header.ended && tick(), 500);
  const close = () => {
    clearInterval(timer);
    stop.removeEventListener("click", clicked);
  };
  return { nodes: [top, facts, notes], update, close };
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/* ── the table ─────────────────────────────────────────────────────────────────────────────────────────────────── */

function named(pairs) {
  return pairs.map(([name, text]) => h("div", "", ...(name ? [h("i", "", `${name}: `), text] : [text])));
}

function scoreCell(row, { low, high }) {
  if (row.score === null) return h("td", "dspynb-score", "–");
  const fill = h("div");
  fill.style.width = `${(100 * (row.score - low)) / (high - low)}%`;
  const change = row.change === null ? [] : [" ", h("span", "dspynb-change", signed(row.change))];
  return h("td", "dspynb-score", h("b", "", score(row.score)), ...change, h("div", "dspynb-bar", fill));
}

function labelCell(row) {
  const star = row.best ? [" ", h("span", "dspynb-star", "★")] : [];
  return h(
    "td", "dspynb-label",
    h("b", "", row.label, ...star),
    h("span", `dspynb-state dspynb-${kindOf(row.state)}`, shownState(row.state)),
  );
}

function textCell(className, nodes) {
  return nodes.length ? h("td", className, h("div", "dspynb-text", ...nodes)) : h("td", "dspynb-none", "–");
}

function createTable(store, select) {
  const headings = h("tr");
  const body = h("tbody");
  const table = h("table", "dspynb-rows", h("thead", "", headings), body);
  table.setAttribute("role", "grid");
  table.setAttribute("aria-label", "attempts of the run");
  table.dataset.lmSuppressShortcuts = "true"; // the arrow keys are ours, not the notebook's
  const lines = new Map(); // key -> tr
  let selected = null;
  let columns = "";

  function shown() {
    const rows = [...store.rows.values()];
    const has = (test) => rows.some(test);
    return { score: has((r) => r.score !== null), error: has((r) => r.error), attempts: store.header.mode === "attempts" };
  }
  function heading(names) {
    headings.replaceChildren(...names.map((name) => {
      const cell = h("th", "", name);
      cell.scope = "col";
      return cell;
    }));
  }
  function fill(line, row, show) {
    line.className = row.best ? "dspynb-best" : "";
    line.replaceChildren(
      labelCell(row),
      textCell("dspynb-about", named(row.about)),
      ...(show.score || show.attempts ? [scoreCell(row, store.header)] : []),
      textCell("dspynb-outputs", named(row.outputs)),
      ...(show.error ? [textCell("dspynb-error", row.error ? [row.error] : [])] : []),
    );
  }
  function mark(line, on) {
    line.setAttribute("aria-selected", String(on));
    line.tabIndex = on ? 0 : -1;
  }
  function place(key, row) {
    const line = h("tr");
    line.dataset.key = key;
    const [s, a] = row.order;
    line.order = s * 1e6 + a;
    const after = [...body.children].findLast((other) => other.order <= line.order);
    after ? after.after(line) : body.prepend(line);
    mark(line, key === selected);
    lines.set(key, line);
    return line;
  }
  function update(changed) {
    const show = shown();
    const { columns: [about, outputs], low, high } = store.header;
    const score = show.score || show.attempts ? ["score"] : [];
    const names = ["#", about, ...score, outputs, ...(show.error ? ["error"] : [])];
    const shape = JSON.stringify([names, low, high]);
    const all = changed === null || shape !== columns;
    if (all) heading(names);
    columns = shape;
    for (const [key, line] of lines) {
      if (!store.rows.has(key)) {
        line.remove();
        lines.delete(key);
      }
    }
    for (const [key, row] of store.rows) {
      if (all || changed.has(key) || !lines.has(key)) fill(lines.get(key) ?? place(key, row), row, show);
    }
    table.hidden = !lines.size;
    if (lines.size && !lines.has(selected)) choose(body.firstElementChild.dataset.key, false);
  }
  function choose(key, focus = true) {
    if (lines.has(selected)) mark(lines.get(selected), false);
    selected = key;
    const line = lines.get(key);
    mark(line, true);
    if (focus) line.focus();
    select(key);
  }
  const clicked = (event) => {
    const line = event.target.closest("tr[data-key]");
    if (line && !String(getSelection())) choose(line.dataset.key);
  };
  const pressed = (event) => {
    const line = event.target.closest("tr[data-key]");
    if (!line) return;
    const to = {
      ArrowDown: line.nextElementSibling, ArrowUp: line.previousElementSibling,
      Home: body.firstElementChild, End: body.lastElementChild, Enter: line, " ": line,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    if (to) choose(to.dataset.key);
  };
  body.addEventListener("click", clicked);
  body.addEventListener("keydown", pressed);
  const close = () => {
    body.removeEventListener("click", clicked);
    body.removeEventListener("keydown", pressed);
  };
  return { node: table, update, close };
}

/* ── the selected row ──────────────────────────────────────────────────────────────────────────────────────────── */

const TAGS = { gone: "del", new: "ins", cut: "i" };

function block({ heading, note, pieces }) {
  const title = h("div", "dspynb-heading", [heading, note].filter(Boolean).join(" · "));
  if (!pieces.length) return [title];
  return [title, h("pre", "", ...pieces.map(([kind, text]) => h(TAGS[kind] ?? "span", "", text)))];
}

function createDetail(store) {
  const node = h("section", "dspynb-detail");
  node.hidden = true;
  let key = null;
  let seen = "";

  function part(title, nodes) {
    return nodes.length ? [h("dt", "", title), h("dd", "", ...nodes)] : [];
  }
  function update() {
    const row = store.rows.get(key);
    node.hidden = !row;
    if (!row) return;
    const now = JSON.stringify(row);
    if (now === seen) return; // keeps the reader's scroll position and selection
    seen = now;
    const [about, outputs] = store.header.columns;
    const what = { attempts: "attempt", rows: "row", candidates: "candidate", calls: "call" }[store.header.mode];
    const changes = row.detail.some((one) => one.note);
    node.replaceChildren(
      h("div", "dspynb-title", `${what} ${row.label}`),
      h("dl", "",
        ...part(about, named(row.about)), ...part(outputs, named(row.outputs)),
        ...part("feedback", row.feedback ? [row.feedback] : []), ...part("error", row.error ? [row.error] : [])),
      ...(row.detail.length && what === "attempt"
        ? [h("div", "dspynb-title", changes ? "prompt, against the previous attempt" : "prompt sent")] : []),
      ...row.detail.flatMap(block),
    );
  }
  const select = (chosen) => {
    key = chosen;
    update();
  };
  return { node, update, select };
}

/* ── what anywidget calls ──────────────────────────────────────────────────────────────────────────────────────── */

export default () => {
  let store = null;
  return {
    initialize({ model }) {
      store = createStore(model);
      return () => store.close();
    },
    render({ model, el }) {
      const detail = createDetail(store);
      const head = createHead(store, model);
      const table = createTable(store, detail.select);
      const root = h("div", "dspynb-live", ...head.nodes, table.node, detail.node);
      el.append(root);
      const update = (changed) => {
        if (!store.header) return;
        head.update();
        table.update(changed);
        detail.update();
      };
      store.views.add(update);
      update(null);
      return () => {
        store.views.delete(update);
        head.close();
        table.close();
        root.remove();
      };
    },
  };
};
