"""Rollouts of the same program in the files of earlier runs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dspynb.errors import JournalError
from dspynb.events import RunStarted
from dspynb.forecasting.cost_model import Sample
from dspynb.running.journal import flush_journals
from dspynb.running.journal_reader import load_journal, read_ends
from dspynb.running.record import RunRecord
from dspynb.scope.settings import setting

__all__ = ["EarlierRuns", "read_earlier_runs"]

_MOST_RUNS = 3
_MOST_ROLLOUTS = 200
_MOST_FILES = 200
_MOST_BYTES = 50_000_000


@dataclass
class EarlierRuns:
    """What earlier runs show. ``samples``: rollouts of the program as it is. ``replies``: the tokens of the replies of
    proposals. ``runs``: how many files they are from."""

    samples: list[Sample] = field(default_factory=list)
    replies: list[float] = field(default_factory=list)
    runs: int = 0


def read_earlier_runs(
    program: str, models: Sequence[str], metric: str | None, start: str, without: Collection[str | None] = ()
) -> EarlierRuns:
    """Read the latest runs of a program.

    ``program``: its fingerprint. ``models``: the names of its models, which must be the same. ``metric``: the name of
    the metric; a run with another one is left out. None leaves out the calls of metrics. ``start``: the id of the
    program itself among the candidates of an optimizer. ``without``: paths of files to leave out.
    """
    earlier = EarlierRuns()
    folder = setting("runs_dir")
    if folder is None:
        return earlier
    flush_journals()
    for path in sorted(Path(folder).glob("*.jsonl"), reverse=True)[:_MOST_FILES]:
        if str(path.absolute()) in without or not _is_same(path, program, models, metric):
            continue
        try:
            record = RunRecord(load_journal(path, leave_prompts=True).events)
        except (JournalError, OSError):
            continue
        _add(earlier, record, start, with_metrics=metric is not None)
        if earlier.runs >= _MOST_RUNS or len(earlier.samples) >= _MOST_ROLLOUTS:
            break
    return earlier


def _is_same(path: Path, program: str, models: Sequence[str], metric: str | None) -> bool:
    try:
        if path.stat().st_size > _MOST_BYTES:
            return False
        _, started, _ = read_ends(path)
    except (JournalError, OSError):
        return False
    if not isinstance(started, RunStarted):
        return False
    settings = started.settings
    if settings.get("program") != program or settings.get("models") != list(models):
        return False
    return metric is None or settings.get("metric") == metric


def _add(earlier: EarlierRuns, record: RunRecord, start: str, *, with_metrics: bool) -> None:
    added = 0
    for ended in record.rollouts:
        if ended.candidate not in (None, start) or len(earlier.samples) >= _MOST_ROLLOUTS:
            continue
        calls = record.calls_in(ended.span)
        if not with_metrics:
            calls = [call for call in calls if call.role != "judge"]
        if calls:
            earlier.samples.append(Sample(calls, ended))
            added += 1
    for proposal in record.proposals:
        for call in record.calls_in(proposal.span):
            if call.usage.completion_tokens is not None:
                earlier.replies.append(call.usage.completion_tokens)
    earlier.runs += added > 0
