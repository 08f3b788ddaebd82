/* The script of a saved page: it replaces the plain table with a view of the data in the page. */

/** @import { Detail, SavedData } from "./types.js" */

import { element } from "./dom.js";
import { RunStore } from "./store.js";
import { createView } from "./view.js";

/**
 * Show the data in the page. The page calls this function (views/html/static.py).
 * @param {string} name the data-run attribute of the run's elements
 * @param {SavedData} data
 */
export function still(name, data) {
  for (const root of document.querySelectorAll(`[data-run="${name}"]:not([data-on])`)) {
    if (!(root instanceof HTMLElement)) continue;
    root.dataset.on = "true";
    const store = new RunStore({ detail: (key) => savedDetail(data, key), file: data.file });
    root.replaceChildren(root.querySelector("style") ?? element("style"));
    store.applySnapshot({ seq: 0, ...data });
    createView(store, root);
  }
}

/**
 * The detail of a row, with texts instead of their numbers.
 * @param {SavedData} data
 * @param {string} key
 * @returns {Detail | undefined}
 */
export function savedDetail({ details, texts }, key) {
  if (!Object.hasOwn(details, key)) return undefined;
  const detail = details[key];
  const blocks = detail.blocks.map((block) => ({ ...block, text: texts[block.text] }));
  return { ...detail, blocks };
}
