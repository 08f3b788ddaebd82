/* The elapsed time of a run, and an estimate of the time left. */

/** @import { Header } from "./types.js" */

import { formatDuration } from "./format.js";

/**
 * The elapsed time, and while the run is active an estimate of the time left.
 * @param {Header} header
 * @param {number} sinceSent seconds since the header was received
 * @returns {string[]}
 */
export function timeTexts(header, sinceSent) {
  if (header.elapsed === null || header.elapsed === undefined) return [];
  const elapsed = header.elapsed + (header.ended ? 0 : sinceSent);
  const texts = [formatDuration(elapsed, !header.ended)];
  const left = secondsLeft(header, elapsed);
  if (left !== null) texts.push(`about ${formatDuration(left, true)} left`);
  return texts;
}

/**
 * Null without an estimate: the run has ended, its size is unknown, or too little of it is done.
 * @param {Header} header
 * @param {number} elapsed seconds
 * @returns {number | null}
 */
function secondsLeft(header, elapsed) {
  const share = shareDone(header);
  if (header.ended || header.done <= 1 || share <= 0 || share >= 1) return null;
  return (elapsed * (1 - share)) / share;
}

/**
 * The share of the rows that are done, or of the budget that is used if that is more. 0 if neither is known.
 * @param {Header} header
 * @returns {number}
 */
export function shareDone({ total, done, share }) {
  return Math.min(1, Math.max(total ? done / total : 0, share ?? 0));
}
