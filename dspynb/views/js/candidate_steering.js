/* The actions of a person on a candidate of an optimizer: drop it, pin it, or propose an edited candidate. */

/** @import { RunStore } from "./store.js" */
/** @import { Detail, Row, Steer } from "./types.js" */

import { button, element, withTooltip } from "./dom.js";
import { keepKeys, labelled } from "./fields.js";

const MOST_LINES = 12;

/**
 * The buttons of a candidate; none if the run does not accept these actions.
 * @param {RunStore} store
 * @param {Row} row
 * @param {() => void} onEdit
 * @returns {HTMLElement[]}
 */
export function candidateButtons(store, row, onEdit) {
  const { header } = store;
  if (header.mode !== "candidates" || row.up !== undefined || header.ended) return [];
  const id = candidateId(row);
  /** @type {(action: Steer["action"], value?: string) => () => void} */
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

/**
 * Fields to edit the instructions of a candidate, and a button to propose the result as a new candidate.
 * @param {RunStore} store
 * @param {Row} row
 * @param {Detail} detail
 * @param {() => void} onClose
 */
export function candidateEditor(store, row, detail, onClose) {
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

/** @param {string} text */
function instructionField(text) {
  const area = element("textarea", "dspynb-input", text);
  area.rows = Math.min(MOST_LINES, text.split("\n").length + 2);
  keepKeys(area);
  return area;
}

/** @param {Row} row */
function candidateId(row) {
  return row.key.replace("candidate ", "");
}
