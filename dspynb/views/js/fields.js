/* Input fields. */

import { element } from "./dom.js";

/**
 * Stop key presses in a field from triggering keyboard shortcuts of the notebook.
 * @param {HTMLElement} node
 */
export function keepKeys(node) {
  node.dataset.lmSuppressShortcuts = "true";
  node.addEventListener("keydown", (event) => event.stopPropagation());
}

/**
 * @param {string} type
 * @param {string} [placeholder]
 */
export function inputField(type, placeholder = "") {
  const node = element("input", "dspynb-input");
  node.type = type;
  node.placeholder = placeholder;
  keepKeys(node);
  return node;
}

/** @param {string} label the name for screen readers */
export function selectField(label) {
  const node = element("select", "dspynb-input");
  node.setAttribute("aria-label", label);
  keepKeys(node);
  return node;
}

/**
 * @param {HTMLSelectElement} select
 * @param {Iterable<[value: string, text: string]>} options
 */
export function setOptions(select, options) {
  const nodes = [];
  for (const [value, text] of options) {
    const node = element("option", "", text);
    node.value = value;
    nodes.push(node);
  }
  select.replaceChildren(...nodes);
}

/**
 * @param {string} text
 * @param {HTMLElement} field
 */
export function labelled(text, field) {
  return element("label", "dspynb-field", element("span", "", text), field);
}
