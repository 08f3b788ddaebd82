/* The header above the rows: state, progress, costs, notes, and the buttons for the whole run. */

/** @import { RunStore } from "./store.js" */
/** @import { Header } from "./types.js" */

import { button, element, setText } from "./dom.js";
import { stateClass, stateText } from "./format.js";
import { shareDone, timeTexts } from "./progress.js";
import { createBudgetForm } from "./steering.js";

export class HeaderView {
  /** @param {RunStore} store */
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

  /**
   * @param {Header} header
   * @param {boolean} stopping
   */
  showButtons({ ended, paused, steerable }, stopping) {
    this.stop.disabled = stopping;
    this.stop.hidden = ended;
    setText(this.pause, paused ? "Continue" : "Pause");
    this.pause.hidden = ended || !steerable.includes("pause");
    this.budget.hidden = ended || !steerable.includes("budget");
    if (this.budget.hidden) this.form.hidden = true;
  }

  /** @param {Header} header */
  showBar(header) {
    const { ended, total, share } = header;
    this.bar.hidden = ended || (!total && typeof share !== "number");
    this.filled.style.width = `${100 * shareDone(header)}%`;
  }

  /** @param {Header} header */
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

/**
 * @param {Header} header
 * @param {boolean} stopping
 */
function shownState({ state, paused, ended }, stopping) {
  if (stopping) return "stopping…";
  return paused && !ended ? "paused" : state;
}
