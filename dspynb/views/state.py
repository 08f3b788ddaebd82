"""A folded run as plain JSON-able rows and a header: what the live widget, static HTML and text all show."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from typing import Any, Literal, TypedDict

from dspynb.events import PredictorCalled
from dspynb.results import AttemptRow, Fold, summary_of
from dspynb.results.candidates import scores_of
from dspynb.results.fold import SpanRow
from dspynb.views.candidates import candidate_cells, shown_candidates
from dspynb.views.details import Block, attempts_detail, call_detail, prompt_detail
from dspynb.views.texts import Named, clip, named, number

__all__ = ["MOST_FAILED", "MOST_ROWS", "Header", "Row", "RunState"]

MOST_ROWS = 200
"""Rows shown from the start of a run; after them only failed ones, up to ``MOST_FAILED``."""
MOST_FAILED = 50

HALTED = "halted"
"""The error of a row that a stop or the end of a budget broke off."""

Mode = Literal["attempts", "rows", "candidates", "calls"]


class Row(TypedDict):
    """An attempt, a row of a batch, or a call. ``about``: its hint, inputs or predictor; ``order``: where it goes."""

    key: str
    order: list[int]
    label: str
    state: str
    best: bool
    about: Named
    score: float | None
    change: float | None
    outputs: Named
    feedback: str
    error: str
    seconds: float | None
    tokens: int
    detail: list[Block]


class Header(TypedDict):
    """What is said above the rows. ``result`` (best or mean score) and ``facts`` (what it cost) are ready to show;
    ``low`` and ``high`` are the ends of the score bars; ``columns`` head the second column and the outputs."""

    mode: str
    state: str
    name: str
    kind: str
    progress: str
    result: str
    facts: list[str]
    elapsed: float | None
    columns: list[str]
    low: float
    high: float
    notes: list[str]


class RunState:
    """Reads a fold, which may go on growing. ``search``: show only the attempts of this span.

    Details are kept, so that a live view does not compare the same two prompts again and again.
    """

    def __init__(self, fold: Fold, search: int = 0) -> None:
        self.fold, self.search = fold, search
        self._details: dict[tuple[int, ...], list[Block]] = {}
        self._spans_read = self._attempts_read = 0
        self._outer_rows: dict[int, SpanRow] = {}
        self._row_named: dict[str, int] = {}
        self._inner: dict[int, bool] = {}
        self._tried: dict[int, list[AttemptRow]] = {}

    def mode(self) -> Mode:
        """Whether the run is seen as attempts, rows of a batch, an optimizer's candidates, or single calls."""
        kind = self.fold.started.kind if self.fold.started else ""
        if not self.search and self.fold.candidates:
            return "candidates"
        if not self.search and (kind == "batch" or self._row_spans()):
            return "rows"
        return "attempts" if self.fold.attempts or kind in ("refine", "best_of_n") else "calls"

    def snapshot(self) -> tuple[Header, list[Row]]:
        """The header and the rows."""
        mode = self.mode()
        rows, counts = getattr(self, f"_{mode}")()
        return self._header(mode, rows, counts), rows

    # ── the three kinds of rows ───────────────────────────────────────────────────────────────────────────────────
    def _attempts(self) -> tuple[list[Row], dict[str, Any]]:
        searches = [self.search] if self.search in self.fold.searches() else self._outer_searches()
        found = [(s, row) for s, search in enumerate(searches) for row in self.fold.children(search)]
        rows: list[Row] = []
        before: AttemptRow | None = None
        for s, row in found[:MOST_ROWS]:
            previous = before if before is not None and before.parent == row.parent else None
            rows.append(self._attempt(row, previous, s, several=len(searches) > 1))
            before = row
        scores = [row.score for _, row in found if row.score is not None and row.state != "cancelled"]
        return rows, {"all": len(found), "searches": len(searches), "best": max(scores, default=None)}

    def _outer_searches(self) -> list[int]:
        attempts = self.fold.attempts
        return [s for s in self.fold.searches() if not any(a in attempts for a in self.fold.ancestors(s))]

    def _attempt(self, row: AttemptRow, previous: AttemptRow | None, search: int, *, several: bool) -> Row:
        key = (row.span, len(row.calls), previous.span if previous else 0, len(previous.calls) if previous else 0)
        if key not in self._details:
            self._details[key] = prompt_detail(row, previous)
        return {
            "key": str(row.span),
            "order": [search, row.attempt],
            "label": f"{search + 1}.{row.attempt}" if several else str(row.attempt),
            "state": row.state,
            "best": row.best,
            "about": named(row.hint) if isinstance(row.hint, Mapping) else [["", clip(row.hint)]] if row.hint else [],
            "score": row.score,
            "change": _change(row, previous),
            "outputs": named(row.outputs),
            "feedback": clip(row.feedback or ""),
            "error": clip(row.error or ""),
            "seconds": row.seconds,
            "tokens": row.usage.tokens,
            "detail": self._details[key],
        }

    def _rows(self) -> tuple[list[Row], dict[str, Any]]:
        spans, attempts = list(self._row_spans().values()), self._attempts_by_row()
        failed = [span for span in spans if span.error and span.error != HALTED]
        late = {span.span for span in spans[:MOST_ROWS]}
        shown = spans[:MOST_ROWS] + [span for span in failed if span.span not in late][:MOST_FAILED]
        chosen = {key: next((a for a in tried if a.best), None) for key, tried in attempts.items()}
        scores = [score for span in spans if (score := _score(span, chosen.get(span.span))) is not None]
        rows = [self._row(i, span, attempts.get(span.span, []), chosen.get(span.span)) for i, span in enumerate(shown)]
        counted = self.fold.started.settings.get("failure_score") if self.fold.started else None
        if isinstance(counted, int | float):  # an evaluation: its mean is that of all rows
            scores += [float(counted)] * len(failed)
        mean = sum(scores) / len(scores) if scores else None
        done = sum(span.done and span.error != HALTED for span in spans)
        return rows, {"all": len(spans), "done": done, "failed": len(failed), "mean": mean}

    def _row_spans(self) -> dict[int, SpanRow]:
        """The outermost rows of batches, in the order in which they began; of a row that a resumed run did again, the
        last. Reads only spans that are new."""
        new = list(itertools.islice(self.fold.spans.values(), self._spans_read, None))
        self._spans_read += len(new)
        run = self.fold.started.span if self.fold.started else 0
        for span in new:
            if span.kind == "row" and not self._is_inner(span.parent):
                if span.parent == run and (before := self._row_named.get(span.name)) is not None:
                    del self._outer_rows[before]
                self._row_named[span.name] = span.span
                self._outer_rows[span.span] = span
        return self._outer_rows

    def _is_inner(self, parent: int) -> bool:
        """Whether this span is in an attempt or a row; both were known before what happens in them."""
        if parent not in self._inner:
            above = list(self.fold.ancestors(parent))
            self._inner[parent] = any(span in self.fold.attempts or span in self._outer_rows for span in above)
        return self._inner[parent]

    def _attempts_by_row(self) -> dict[int, list[AttemptRow]]:
        """The outermost attempts in each of those rows. Reads only attempts that are new."""
        new = list(itertools.islice(self.fold.attempts.values(), self._attempts_read, None))
        self._attempts_read += len(new)
        for attempt in new:
            above = list(self.fold.ancestors(attempt.parent))
            row = next((span for span in above if span in self._outer_rows), None)
            if row is not None and not any(span in self.fold.attempts for span in above):
                self._tried.setdefault(row, []).append(attempt)
        return self._tried

    def _row(self, order: int, span: SpanRow, attempts: list[AttemptRow], chosen: AttemptRow | None) -> Row:
        above = self.fold.spans.get(span.parent)
        program = f"{above.name}: " if above is not None and above.kind == "evaluation" else ""
        row = _blank(str(span.span), order, clip(program + span.name.removeprefix("row "), 200))
        halted = span.error == HALTED or (self.fold.ended is not None and not span.done)
        row["state"] = "cancelled" if halted else "failed" if span.error else "done" if span.done else "running"
        row["about"], row["outputs"], row["error"] = named(span.inputs), named(span.outputs), clip(span.error or "")
        row["score"], row["feedback"] = _score(span, chosen), clip(span.feedback or "")
        row["seconds"] = span.seconds
        row["tokens"] = span.tokens or sum(attempt.usage.tokens for attempt in attempts)
        row["detail"] = attempts_detail(attempts)
        return row

    def _candidates(self) -> tuple[list[Row], dict[str, Any]]:
        scores, shown = scores_of(self.fold), shown_candidates(self.fold, MOST_ROWS)
        number = {candidate: i for i, candidate in enumerate(self.fold.candidates)}
        rows: list[Row] = []
        for candidate in shown:
            row = _blank(candidate.id, number[candidate.id], str(number[candidate.id]))
            row.update(candidate_cells(candidate, self.fold, scores))  # type: ignore[typeddict-item]
            rows.append(row)
        best = next((row["score"] for row in rows if row["best"]), None)
        return rows, {"all": len(number), "best": best, "rollouts": len(self.fold.rollouts)}

    def _calls(self) -> tuple[list[Row], dict[str, Any]]:
        return [_call(i, call) for i, call in enumerate(self.fold.calls[:MOST_ROWS])], {"all": len(self.fold.calls)}

    # ── the header ────────────────────────────────────────────────────────────────────────────────────────────────
    def _header(self, mode: Mode, rows: list[Row], counts: dict[str, Any]) -> Header:
        fold, started = self.fold, self.fold.started
        scores = [row["score"] for row in rows if row["score"] is not None]
        notes = [clip(f"wave {note.wave} went on without a new hint: {note.error}", 500) for note in fold.notes[:20]]
        if mode == "candidates" and fold.ended:
            notes.append(clip(summary_of(fold), 1000))
        if fold.ended and fold.ended.error:
            notes.append(clip(fold.ended.error))
        if counts["all"] > len(rows):
            notes.append(f"{len(rows):,} of {counts['all']:,} {mode} are shown; the run's tables have all of them")
        return {
            "mode": mode,
            "state": fold.status,
            "name": clip(started.name if started else "", 200),
            "kind": started.kind if started else "",
            "progress": _progress(mode, counts, started.settings.get("n") if started else None, fold),
            "result": _result(counts),
            "facts": self._costs(),
            "elapsed": _elapsed(fold),
            "columns": [_ABOUT[mode], "instruction" if mode == "candidates" else _unname_single(rows)],
            "low": min([0.0, *scores]),
            "high": max([1.0, *scores]),
            "notes": notes,
        }

    def _costs(self) -> list[str]:
        usage = self.fold.usage
        facts = [_count(len(self.fold.calls), "call"), *([_count(usage.tokens, "token")] if usage.tokens else [])]
        return [*facts, f"{usage.usd:.4f} USD"] if usage.usd else facts


_ABOUT = {"attempts": "hint", "rows": "inputs", "candidates": "made in", "calls": "predictor"}


def _change(row: AttemptRow, previous: AttemptRow | None) -> float | None:
    if previous is None or row.score is None or previous.score is None:
        return None
    return row.score - previous.score


def _score(span: SpanRow, chosen: AttemptRow | None) -> float | None:
    """A row's score: the metric's, else that of the attempt that was chosen in it."""
    return span.score if span.score is not None else chosen.score if chosen else None


def _call(order: int, call: PredictorCalled) -> Row:
    row = _blank(f"call {order}", order, str(order + 1))
    row["state"] = "failed" if call.error else "done"
    row["about"] = [["", clip(call.predictor)], *([["hint", clip(call.hint)]] if call.hint else [])]
    row["outputs"], row["error"] = named(call.outputs), clip(call.error or "")
    row["seconds"], row["tokens"], row["detail"] = call.seconds, call.usage.tokens, call_detail(call)
    return row


def _blank(key: str, order: int, label: str) -> Row:
    return {
        "key": key, "order": [0, order], "label": label, "state": "running", "best": False, "about": [], "score": None,
        "change": None, "outputs": [], "feedback": "", "error": "", "seconds": None, "tokens": 0, "detail": [],
    }  # fmt: skip


def _progress(mode: Mode, counts: dict[str, Any], limit: Any, fold: Fold) -> str:
    if mode == "rows":
        total = (fold.started.inputs.get("rows") if fold.started else None) or counts["all"]
        failed = f", {counts['failed']:,} failed" if counts["failed"] else ""
        return f"{counts['done']:,} of {clip(total, 20)} rows{failed}"
    if mode == "calls":
        return "" if fold.ended else "calling"
    if mode == "candidates":
        told = f"{_count(counts['all'], 'candidate')}, {_count(counts['rollouts'], 'rollout')}"
        bad = sum(proposal.error is not None for proposal in fold.proposals)
        return f"{told}, {_count(bad, 'failed proposal')}" if bad else told
    if counts["searches"] > 1:
        return f"{_count(counts['all'], 'attempt')} in {counts['searches']:,} searches"
    of = f" of {limit}" if isinstance(limit, int) else ""
    if fold.ended is None:
        return f"attempt {counts['all']}{of}"
    return f"{counts['all']}{of} attempt{_s(limit if of else counts['all'])}"


def _result(counts: dict[str, Any]) -> str:
    known = (f"{name} {number(counts[name])}" for name in ("best", "mean") if counts.get(name) is not None)
    return next(known, "")


def _count(n: int, unit: str) -> str:
    return f"{n:,} {unit}{_s(n)}"


def _s(n: int) -> str:
    return "" if n == 1 else "s"


def _elapsed(fold: Fold) -> float | None:
    if fold.started is None:
        return None
    return max(0.0, (fold.ended.at if fold.ended else time.time()) - fold.started.at)


def _unname_single(rows: list[Row]) -> str:
    """The heading of the outputs: the field's name where all rows have that one field, which then needs no naming."""
    names = {name for row in rows for name, _ in row["outputs"]}
    if len(names) != 1:
        return "outputs"
    for row in rows:
        row["outputs"] = [["", text] for _, text in row["outputs"]]
    return names.pop()
