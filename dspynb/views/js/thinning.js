/* Reduces the points of a curve, so that a chart of many thousand points is drawn quickly and looks the same. */

/** More points than this cannot be distinguished in a chart. */
export const MOST_POINTS = 1200;

/**
 * The first, last, lowest and highest item of each stretch of a long list; all items of a short list.
 * @template Item
 * @param {Item[]} items
 * @param {(item: Item) => number} heightOf
 * @returns {Item[]}
 */
export function thinned(items, heightOf) {
  if (items.length <= MOST_POINTS) return items;
  const size = Math.ceil((4 * items.length) / MOST_POINTS);
  /** @type {Set<Item>} */
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
