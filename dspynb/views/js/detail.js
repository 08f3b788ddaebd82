/* The detail of the selected row: its values, its prompts and replies, and the differences to another row. */

/** @import { RunStore } from "./store.js" */
/** @import { Block, CachedDetail, Detail, LiveCall, Row } from "./types.js" */

import { candidateButtons, candidateEditor } from "./candidate_steering.js";
import { comparableRows, comparisonOptions, defaultComparison, FEW_CHOICES, MOST_CHOICES } from "./comparison.js";
import { blockHead, diffBlock } from "./diff_view.js";
import { button, element, scrollable } from "./dom.js";
import { selectField, setOptions } from "./fields.js";
import { ROW_NAMES } from "./format.js";
import { LiveCallView } from "./live_call.js";

/** The kinds of blocks that are folded until a person opens them. */
const FOLDED = new Set(["reasoning", "record"]);

export class DetailView {
  /** @param {RunStore} store */
  constructor(store) {
    this.store = store;
    /** @type {string | null} */
    this.key = null;
    /** The row to compare with, as chosen by a person; null: the default.
     * @type {string | null} */
    this.chosen = null;
    this.sideBySide = false;
    this.editing = false;
    /** The positions of the folded blocks that a person has opened. They stay open when the detail is drawn again, and
     * in the next row.
     * @type {Set<number>} */
    this.unfolded = new Set();
    /** @type {LiveCallView[]} */
    this.liveViews = [];
    /** The state that was drawn last, as JSON, to notice changes. */
    this.drawnState = "";
    /** The key of the row whose list of choices was opened.
     * @type {string | null} */
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

  /** @param {string} key */
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

  /**
   * Show the texts so far of the row's streamed calls.
   * @param {string} key
   */
  updateLive(key) {
    const calls = this.store.liveCalls.get(key) ?? [];
    for (const view of this.liveViews) {
      const call = calls.find(({ id }) => id === view.id);
      if (call) view.update(call);
    }
  }

  /** @returns {Row | undefined} */
  selectedRow() {
    return this.key === null ? undefined : this.store.rows.get(this.key);
  }

  /** @param {Row} row */
  defaultKey(row) {
    return defaultComparison(row, this.store.rows, this.store.header.mode);
  }

  /**
   * Fill the list of rows to compare with.
   * @param {Row} row
   * @param {number} most
   * @returns {number} how many rows there are
   */
  offerChoices(row, most) {
    const { rows, header } = this.store;
    const comparable = comparableRows(row, rows, most);
    setOptions(this.choices, comparisonOptions(comparable, rows.get(this.defaultKey(row)), header.mode));
    return comparable.length;
  }

  /** Fill the list with many rows when it is opened. At each selection this would take too long. */
  offerAll() {
    const row = this.selectedRow();
    if (!row || this.openedFor === row.key) return;
    const { value } = this.choices;
    this.offerChoices(row, MOST_CHOICES);
    this.openedFor = row.key;
    this.choices.value = value;
  }

  /** @param {Row} row */
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

  /**
   * @param {Row} row
   * @param {CachedDetail} detail
   * @param {CachedDetail | null} before
   * @param {boolean} hasChoices
   * @returns {HTMLElement[]}
   */
  content(row, detail, before, hasChoices) {
    const nodes = [...this.values(row, detail), ...candidateButtons(this.store, row, () => this.edit(row, detail))];
    if (hasChoices && detail.blocks.some((block) => block.kind === "sent")) nodes.push(this.compareBar(row, before));
    return [...nodes, ...this.blocks(detail, before)];
  }

  /**
   * @param {Row} row
   * @param {Detail} detail
   * @returns {HTMLElement[]}
   */
  values(row, { values }) {
    const pairs = values.flatMap(([title, parts]) => {
      const heading = title === "outputs" && row.up === undefined ? this.store.header.columns[1] : title;
      const texts = parts.map(([name, text]) => namedText(name === heading ? "" : name, text));
      const className = title === "error" ? "dspynb-error" : "";
      return [element("dt", "", heading), scrollable("dd", className, ...texts)];
    });
    return pairs.length ? [element("dl", "", ...pairs)] : [];
  }

  /**
   * @param {Row} row
   * @param {CachedDetail | null} before
   */
  compareBar(row, before) {
    const isCandidate = this.store.header.mode === "candidates" && row.up === undefined;
    const text = element("span", "", isCandidate ? "compare the texts with" : "compare the prompt with");
    const node = element("div", "dspynb-compare", text, this.choices);
    if (before) node.append(this.sides);
    return node;
  }

  /**
   * The texts that were sent, compared with the texts of another row under the same headings, and the replies.
   * @param {Detail} detail
   * @param {CachedDetail | null} before
   * @returns {HTMLElement[]}
   */
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

  /**
   * An element that is shown when a person opens it.
   * @param {number} position among the folded elements
   */
  fold(position) {
    const node = element("details", "dspynb-folded");
    node.open = this.unfolded.has(position);
    node.addEventListener("toggle", () => {
      if (node.open) this.unfolded.add(position);
      else this.unfolded.delete(position);
    });
    return node;
  }

  /**
   * @param {number} position
   * @param {Block} block
   */
  foldedBlock(position, { heading, text }) {
    const node = this.fold(position);
    node.append(element("summary", "", heading), blockHead("", text), scrollable("pre", "", text));
    return node;
  }

  /**
   * @param {number} position
   * @param {LiveCall} call
   */
  liveBlock(position, call) {
    const view = new LiveCallView(call, this.fold(position));
    this.liveViews.push(view);
    return view.nodes;
  }

  /**
   * @param {Row} row
   * @param {Detail} detail
   */
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

/**
 * @param {string} name
 * @param {string} text
 */
function namedText(name, text) {
  return name ? element("div", "", element("i", "", `${name}: `), text) : element("div", "", text);
}

/**
 * Heading → the texts that a row sent under it, in order.
 * @param {Detail | null} detail
 * @returns {Map<string, string[]>}
 */
export function sentTexts(detail) {
  /** @type {Map<string, string[]>} */
  const texts = new Map();
  for (const { kind, heading, text } of detail?.blocks ?? []) {
    if (kind !== "sent") continue;
    const group = texts.get(heading);
    if (group) group.push(text);
    else texts.set(heading, [text]);
  }
  return texts;
}
