/* A call whose reply is arriving: its thinking, which is folded, and its text so far. */

/** @import { LiveCall } from "./types.js" */

import { blockHead } from "./diff_view.js";
import { element, scrollable, setText } from "./dom.js";
import { formatCount } from "./format.js";

/** Pixels from the end of a text within which it counts as scrolled to the end. */
const NEAR_END = 24;

export class LiveCallView {
  /**
   * @param {LiveCall} call
   * @param {HTMLDetailsElement} folded the element of the thinking, which may have been opened before
   */
  constructor(call, folded) {
    this.id = call.id;
    this.summary = element("summary", "");
    this.line = element("span", "dspynb-live");
    this.state = element("span", "");
    this.summary.append(this.state, this.line);
    this.thinking = scrollable("pre", "");
    this.folded = folded;
    this.folded.append(this.summary, this.thinking);
    this.replyHead = blockHead(`${call.of} · reply so far`, "");
    this.reply = scrollable("pre", "");
    this.nodes = [this.folded, this.replyHead, this.reply];
    this.update(call);
  }

  /** @param {LiveCall} call */
  update(call) {
    const { of, characters, line, thinking, reply } = call;
    setText(this.state, `${of} · ${thinkingState(characters, reply)}`);
    setText(this.line, line && !reply ? ` ${line}` : "");
    extendText(this.thinking, thinking);
    this.thinking.hidden = !thinking;
    extendText(this.reply, reply);
    this.replyHead.hidden = !reply;
    this.reply.hidden = !reply;
  }
}

/**
 * @param {number} characters of the thinking
 * @param {string} reply
 */
function thinkingState(characters, reply) {
  if (characters) return `${reply ? "reasoning" : "thinking"} · ${formatCount(characters)} characters`;
  return reply ? "no reasoning" : "waiting for the first words";
}

/**
 * Set the text of an element. A text that has grown is extended, so that a selection in it stays; if its end was shown,
 * the new end is shown.
 * @param {HTMLElement} node
 * @param {string} text
 */
export function extendText(node, text) {
  const before = node.textContent ?? "";
  if (text === before) return;
  const atEnd = node.scrollTop + node.clientHeight >= node.scrollHeight - NEAR_END;
  if (before && text.startsWith(before)) node.append(text.slice(before.length));
  else node.replaceChildren(text);
  if (atEnd) node.scrollTop = node.scrollHeight;
}
