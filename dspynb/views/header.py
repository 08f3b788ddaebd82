"""The header that views show above a run's rows: progress, result, costs and notes."""

from __future__ import annotations

from typing import TypedDict

from dspynb.data import tokens_text
from dspynb.running.record import RunRecord
from dspynb.running.record_rows import Unfinished
from dspynb.running.tables.candidates import summary_of
from dspynb.running.tables.costs import usd_text
from dspynb.views.counts import Counts
from dspynb.views.rows import Mode
from dspynb.views.run_facts import (
    budget_uses,
    elapsed_seconds,
    end_text,
    result_text,
    run_setting,
    total_of_rows,
    used_share,
)
from dspynb.views.texts import clip, counted

__all__ = ["Header", "build_header"]

_MOST_NOTES = 20


class Header(TypedDict):
    """What is shown above the rows. Texts are ready to show."""

    mode: str
    state: str
    name: str
    kind: str
    progress: str
    done: int
    """Rows that have ended."""
    total: int | None
    """All rows; None where their number is unknown."""
    result: str
    """The best or the mean score."""
    facts: list[str]
    """Costs and models."""
    share: float | None
    """The used share of the run's own budget, from 0 to 1; None without a budget."""
    elapsed: float | None
    """Seconds since the start; None before it."""
    columns: list[str]
    """The headings of the second column and of the outputs."""
    low: float
    """The low end of the score bars."""
    high: float
    """The high end of the score bars."""
    notes: list[str]
    summary: str
    """How an optimizer's run ended; empty for other runs."""


def build_header(record: RunRecord, mode: Mode, counts: Counts, searches: int) -> Header:
    """The present header of a run.

    Args:
        record: the run's record.
        mode: what the outermost rows are.
        counts: the counts of the outermost rows.
        searches: the number of searches that the outermost attempts belong to.
    """
    name = ""
    kind = ""
    if record.started is not None:
        name = clip(record.started.name, 200)
        kind = record.started.kind
    summary = ""
    if mode == "candidates" and record.is_over:
        summary = clip(summary_of(record), 1000)
    done, total = _done(record, mode, counts, searches)
    return {
        "mode": mode,
        "state": record.status,
        "name": name,
        "kind": kind,
        "progress": _progress(record, mode, counts, searches, total),
        "done": done,
        "total": total,
        "result": result_text(record, mode, counts),
        "facts": [*_budget(record), *_costs(record)],
        "share": used_share(record),
        "elapsed": elapsed_seconds(record),
        "columns": counts.columns(mode),
        "low": min(0.0, counts.low),
        "high": max(1.0, counts.high),
        "notes": _notes(record),
        "summary": summary,
    }


def _done(record: RunRecord, mode: Mode, counts: Counts, searches: int) -> tuple[int, int | None]:
    """How many rows have ended, and how many there are in total; None if unknown."""
    if mode == "rows":
        total = total_of_rows(record)
        if total is None:
            total = counts.all
        return counts.ended - counts.in_state("cancelled"), total
    limit = run_setting(record, "n")
    if mode == "attempts" and isinstance(limit, int) and searches <= 1:
        return counts.ended, limit
    return counts.ended, None


def _progress(record: RunRecord, mode: Mode, counts: Counts, searches: int, total: int | None) -> str:
    match mode:
        case "rows":
            return _progress_of_rows(counts, total)
        case "calls":
            return "" if record.is_over else "calling"
        case "candidates":
            return _progress_of_candidates(record, counts)
        case "attempts":
            return _progress_of_attempts(record, counts, searches, total)


def _progress_of_rows(counts: Counts, total: int | None) -> str:
    done = counts.ended - counts.in_state("cancelled")
    failed = counts.in_state("failed")
    progress = f"{done:,} of {total:,} rows"
    return f"{progress}, {failed:,} failed" if failed else progress


def _progress_of_candidates(record: RunRecord, counts: Counts) -> str:
    progress = f"{counted(counts.all, 'candidate')}, {counted(len(record.rollouts), 'rollout')}"
    failed = sum(proposal.error is not None for proposal in record.proposals)
    return f"{progress}, {counted(failed, 'failed proposal')}" if failed else progress


def _progress_of_attempts(record: RunRecord, counts: Counts, searches: int, total: int | None) -> str:
    attempts = counts.all
    if searches > 1:
        return f"{counted(attempts, 'attempt')} in {searches:,} searches"
    of_total = "" if total is None else f" of {total}"
    if not record.is_over:
        return f"attempt {attempts}{of_total}"
    plural_of = attempts if total is None else total
    return f"{attempts}{of_total} {'attempt' if plural_of == 1 else 'attempts'}"


def _budget(record: RunRecord) -> list[str]:
    texts = [use.text for use in budget_uses(record)]
    return [f"budget: {', '.join(texts)}"] if texts else []


def _costs(record: RunRecord) -> list[str]:
    usage = record.usage
    calls = counted(len(record.calls), "call")
    if record.cached:
        calls += f" ({record.cached:,} cached)"
    facts = [calls]
    tokens = tokens_text(usage.tokens)
    if tokens:
        facts.append(tokens)
    usd = usd_text(record)
    if usd:
        facts.append(usd)
    facts += [clip(model, 60) for model in record.models[:2]]
    return facts


def _notes(record: RunRecord) -> list[str]:
    failures = record.hint_failures[:_MOST_NOTES]
    notes = [
        clip(f"wave {failure.wave} had no new hint: the advisor failed: {failure.error}", 500) for failure in failures
    ]
    if notes:
        notes.append("a reward that returns dn.Score(value, feedback=...) needs no advisor")
    if record.ended and record.ended.error:
        notes.append(clip(record.ended.error))
    if record.unfinished is not None:
        notes.append(_how_to_resume(record.unfinished, record.started.kind if record.started else ""))
    reason = end_text(record)
    if reason:
        notes.append(clip(reason, 500))
    return notes


_RESUMED_BY = {"evaluate": "Evaluate(…).resume({run!r}, program, rows)"}
_NOT_RESUMED = ("batch", "refine", "best_of_n", "call", "compare", "grid")


def _how_to_resume(unfinished: Unfinished, kind: str) -> str:
    """A note for a run whose process died: its id, and the call that resumes it."""
    run = unfinished.run_id
    note = f"run {run} is unfinished: its process ended before it"
    if kind in _NOT_RESUMED:
        return f"{note}. A run of this kind cannot be resumed; what it has is in its tables"
    call = _RESUMED_BY.get(kind, "optimizer.resume({run!r}, program, train, val)").format(run=run)
    return f"{note}. To resume it: await {call}"
