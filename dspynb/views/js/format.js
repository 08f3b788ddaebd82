/* Numbers, durations and states as text. */

/** A symbol beside each state, so that states differ not only in colour.
 * @type {Record<string, string>} */
const STATE_SYMBOLS = {
  passed: "✓",
  done: "✓",
  finished: "✓",
  scored: "○",
  failed: "✕",
  cancelled: "⊘",
  paused: "‖",
  stopped: "■",
  exhausted: "■",
  max_errors: "■",
  interrupted: "■",
  unfinished: "■",
  running: "●",
  pending: "●",
  "stopping…": "■",
};

/** Mode → the name of one row. */
export const ROW_NAMES = { attempts: "attempt", rows: "row", candidates: "candidate", calls: "call" };

/**
 * The state as part of a CSS class: only states that this file lists, never a text of a model.
 * @param {string} state
 */
export function stateClass(state) {
  return Object.hasOwn(STATE_SYMBOLS, state) ? state.replace("…", "") : "other";
}

/** @param {string} state */
export function stateText(state) {
  const symbol = Object.hasOwn(STATE_SYMBOLS, state) ? STATE_SYMBOLS[state] : "•";
  return `${symbol} ${state}`;
}

/**
 * Four significant digits, without zeros at the end.
 * @param {number} value
 */
export function formatNumber(value) {
  return String(Number(value.toPrecision(4)));
}

/**
 * A difference with its sign.
 * @param {number} value
 */
export function formatChange(value) {
  if (Math.abs(value) < 1e-9) return "±0";
  const sign = value > 0 ? "+" : "−";
  return sign + Number(Math.abs(value).toPrecision(3));
}

/**
 * @param {number} seconds
 * @param {boolean} whole without tenths of a second
 */
export function formatDuration(seconds, whole) {
  if (seconds < 60) return `${seconds.toFixed(whole ? 0 : 1)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
}

/** @param {number} count */
export function formatCount(count) {
  return count.toLocaleString("en");
}
