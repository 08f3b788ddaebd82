/* The actions of a person on the whole run: a new budget, and a hint for the next attempt. */

/** @import { RunStore } from "./store.js" */

import { button, element } from "./dom.js";
import { inputField, labelled } from "./fields.js";

/**
 * @param {RunStore} store
 * @returns {HTMLElement} hidden at first
 */
export function createBudgetForm(store) {
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

export class HintForm {
  /** @param {RunStore} store */
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
