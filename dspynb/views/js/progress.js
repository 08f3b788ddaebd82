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
function secondsLeft({ ended, total, done }, elapsed) {
  if (ended || !total || done <= 1 || done >= total) return null;
  return (elapsed / done) * (total - done);
}
