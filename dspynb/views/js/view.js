/* One view of a run on the page: its parts, and when they are updated. */

/** @import { RunStore } from "./store.js" */

import { Charts } from "./charts.js";
import { DetailView } from "./detail.js";
import { element } from "./dom.js";
import { HeaderView } from "./header.js";
import { HintForm } from "./steering.js";
import { Table } from "./table.js";

/** Milliseconds after which a press counts as released, since releasing a scrollbar causes no event. */
const LONGEST_PRESS = 3000;
const RELEASES = ["pointerup", "pointercancel", "blur"];

/**
 * Show a store in an element.
 * @param {RunStore} store
 * @param {Element} parent
 * @returns {() => void} removes the view
 */
export function createView(store, parent) {
  const view = new View(store);
  parent.append(view.root);
  view.open();
  return () => view.close();
}

class View {
  /** @param {RunStore} store */
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
    /** The timer of a press. During a press nothing is updated: replacing the target of a click would lose the click.
     * @type {ReturnType<typeof setTimeout> | undefined} */
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
