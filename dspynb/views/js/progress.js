/* How long a run has taken, and about how long it will go on. */

/** @import { Header } from "./types.js" */

import { formatDuration } from "./format.js";

/**
 * The elapsed time, and an estimate of what is left while the run goes on.
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
 * Null where nothing can be said: the run has ended, its size is unknown, or too little of it is done.
 * @param {Header} header
 * @param {number} elapsed seconds
 * @returns {number | null}
 */
function secondsLeft({ ended, total, done }, elapsed) {
  if (ended || !total || done <= 1 || done >= total) return null;
  return (elapsed / done) * (total - done);
}
