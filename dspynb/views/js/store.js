/* The store: the header and the rows of a run. Python sends a snapshot, then numbered deltas. When a number is missing,
 * the store requests a new snapshot. Applying a message twice has no effect. Several views can show one store. */

/** @import { CachedDetail, Delta, Header, Leads, LiveCall, LiveRow, Received, Row } from "./types.js" */
/** @import { RowPatch, Sent, Snapshot, Source } from "./types.js" */

/** Milliseconds between two messages that tell Python that this page is open. */
const ALIVE_INTERVAL = 5000;
/** Milliseconds after which a detail that was not received is requested again. */
const DETAIL_TIMEOUT = 3000;

/** The header before the first snapshot.
 * @type {Header} */
const EMPTY_HEADER = {
  mode: "attempts",
  state: "pending",
  name: "",
  progress: "",
  done: 0,
  total: null,
  share: null,
  result: "",
  facts: [],
  elapsed: null,
  columns: ["", ""],
  low: 0,
  high: 1,
  notes: [],
  summary: "",
  ended: false,
  stopping: false,
  paused: false,
  steerable: [],
};

export class RunStore {
  /** @param {Source} source */
  constructor(source) {
    this.source = source;
    /** Whether a header has been received. */
    this.ready = false;
    /** @type {Header} */
    this.header = EMPTY_HEADER;
    /** @type {Map<string, Row>} */
    this.rows = new Map();
    /** @type {Leads} */
    this.leads = {};
    /** The number of the last delta that was applied. */
    this.seq = -1;
    /** When the header was received, in milliseconds of the page's clock. */
    this.receivedAt = 0;
    /** Why the run refused the last action of a person; empty if it accepted it. */
    this.refusal = "";
    /** Called after each change.
     * @type {Set<() => void>} */
    this.views = new Set();
    /** Whether this is a saved page, in which nothing changes. */
    this.saved = !source.send;
    this.file = source.file ?? "";
    /** @type {Map<string, CachedDetail>} */
    this.details = new Map();
    /** Key of a row → its streamed calls, with their texts.
     * @type {Map<string, LiveCall[]>} */
    this.liveCalls = new Map();
    /** When each pending detail was requested.
     * @type {Map<string, number>} */
    this.pendingDetails = new Map();
    this.snapshotRequested = false;
    this.lastAlive = 0;
  }

  /**
   * Replace the header and all rows, unless a later delta was already applied.
   * @param {Partial<Snapshot>} snapshot
   */
  applySnapshot({ seq, header, rows, leads, live }) {
    if (!header || seq === undefined || seq < this.seq) return;
    this.header = header;
    this.ready = true;
    this.seq = seq;
    this.leads = leads ?? {};
    this.receivedAt = performance.now();
    this.rows = new Map();
    for (const row of rows ?? []) this.rows.set(row.key, mergeRow(undefined, row));
    this.applyLive(live ?? {});
    this.snapshotRequested = false;
    this.notify();
  }

  /**
   * Apply a message from Python.
   * @param {Received | null | undefined} message
   */
  receive(message) {
    if (message?.type === "delta") this.applyDelta(message);
    if (message?.type === "detail") {
      this.pendingDetails.delete(message.key);
      this.details.set(message.key, { ...message.detail, outdated: false });
      this.notify();
    }
    if (message?.type === "refused") {
      this.refusal = message.text;
      this.notify();
    }
    if (performance.now() - this.lastAlive > ALIVE_INTERVAL) this.sendAlive();
  }

  /** @param {Delta} delta */
  applyDelta(delta) {
    if (delta.seq <= this.seq) return;
    if (delta.seq !== this.seq + 1) {
      this.requestSnapshot();
      return;
    }
    this.header = { ...this.header, ...delta.header };
    this.ready = true;
    this.seq = delta.seq;
    this.receivedAt = performance.now();
    if (delta.leads) this.leads = delta.leads;
    for (const key of delta.removed) {
      this.rows.delete(key);
      this.liveCalls.delete(key);
    }
    for (const patch of delta.rows) this.applyPatch(patch);
    this.applyLive(delta.live ?? {});
    this.notify();
  }

  /**
   * Apply what is new of streamed calls. Their texts change no detail, so that a detail is requested again only when a
   * call began or ended.
   * @param {{ [key: string]: LiveRow }} rows
   */
  applyLive(rows) {
    for (const [key, { line, calls }] of Object.entries(rows)) {
      const row = this.rows.get(key);
      if (!row) continue;
      this.rows.set(key, mergeRow(row, { key, live: line || null }));
      if (calls) this.liveCalls.set(key, calls);
      else if (!line) this.liveCalls.delete(key);
      const detail = this.details.get(key);
      const shown = detail?.blocks.flatMap(({ live }) => (live ? [live.id] : [])) ?? [];
      const isOutdated = line ? calls && String(calls.map(({ id }) => id)) !== String(shown) : shown.length > 0;
      if (detail && isOutdated) detail.outdated = true;
    }
  }

  /** @param {RowPatch} patch */
  applyPatch(patch) {
    this.rows.set(patch.key, mergeRow(this.rows.get(patch.key), patch));
    const detail = this.details.get(patch.key);
    if (detail) detail.outdated = true;
  }

  requestSnapshot() {
    if (!this.snapshotRequested) this.source.send?.({ type: "snapshot" });
    this.snapshotRequested = true;
  }

  /** Tell Python that this page is open, and which delta it applied last. */
  sendAlive() {
    this.lastAlive = performance.now();
    if (!this.header.ended) this.source.send?.({ type: "alive", seq: this.seq });
  }

  /**
   * Send an action of a person to Python.
   * @param {Sent} message
   */
  send(message) {
    this.refusal = "";
    this.source.send?.(message);
  }

  /**
   * The detail of a row; null until it is received. An outdated detail is returned while a new one is requested.
   * @param {string} key
   * @returns {CachedDetail | null}
   */
  detail(key) {
    /** @type {CachedDetail | null} */
    const detail = this.details.get(key) ?? this.source.detail?.(key) ?? null;
    if (!detail || detail.outdated) this.requestDetail(key);
    return detail;
  }

  /** @param {string} key */
  requestDetail(key) {
    if (!this.source.send) return;
    const now = performance.now();
    const requestedAt = this.pendingDetails.get(key);
    if (requestedAt !== undefined && now - requestedAt < DETAIL_TIMEOUT) return;
    this.pendingDetails.set(key, now);
    this.source.send({ type: "detail", key });
  }

  notify() {
    for (const view of this.views) view();
  }
}

/**
 * The row with the fields of a patch. A field that is null in the patch is removed.
 * @param {Row | undefined} row
 * @param {RowPatch} patch
 * @returns {Row}
 */
export function mergeRow(row, patch) {
  /** @type {any} */
  const merged = { ...row, ...patch };
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete merged[name];
  }
  return merged;
}
