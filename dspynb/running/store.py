"""Run files on disk: listing and reopening them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dspynb.errors import DamagedFileWarning, JournalError
from dspynb.events import Event, RunEnded, RunStarted
from dspynb.running.journal import flush_journals
from dspynb.running.journal_reader import load_journal, read_ends
from dspynb.running.locks import is_being_written
from dspynb.running.reader import RunReader
from dspynb.running.record import RunRecord
from dspynb.running.record_rows import Unfinished
from dspynb.running.tables.frames import encodable
from dspynb.scope.settings import setting

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["open_run", "run_file", "runs"]


def _folder() -> Path:
    return Path(setting("runs_dir") or ".dspynb/runs")


def run_file(which: str | Path) -> Path:
    """The file of a run, from an id of ``runs()`` or a path. Raises JournalError where there is no such file."""
    if not isinstance(which, str | Path):
        raise JournalError(f"a run is named by its id or the path of its file, got {type(which).__name__}")
    flush_journals()
    path = Path(which)
    if not _is_file(path):
        path = _folder() / f"{which}.jsonl"
    if not _is_file(path):
        raise JournalError(f"there is no run {str(which)!r}: no such file, and none of that id in {_folder()}")
    return path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # an invalid path, or a folder that may not be read
        return False


def open_run(which: str | Path) -> RunReader:
    """Reopen a run from its file.

    ``which``: an id of ``runs()``, or a path. Damaged lines are left out with a DamagedFileWarning, and listed in
    ``damaged`` of the run. Raises JournalError where the file cannot be read.

    >>> dn.configure(runs_dir="runs")
    >>> ask = dn.Predict("question -> answer", lm=dn.ScriptedLM(["answer: 4"]))
    >>> done = dn.Evaluate(dn.metrics.exact_match()).run_sync(ask, [{"question": "2+2?", "answer": "4"}])
    >>> run = dn.open_run(done.run.id)  # or the path of its file; in any later process
    >>> run.status, run.rollouts.score.tolist()
    ('finished', [1.0])
    """
    path = run_file(which)
    journal = load_journal(path, leave_prompts=True)
    damage = journal.damage()
    if damage:
        warnings.warn(f"{path}: {damage}; left out", DamagedFileWarning, stacklevel=2)
    run_id = str(journal.header.get("id", path.stem))
    run = RunReader(run_id, journal.events, path=str(path), damaged=journal.damaged)
    if not _has_ended(journal.events) and not is_being_written(path):
        _mark_unfinished(run.record, run_id)
    return run


def _has_ended(events: Sequence[Event]) -> bool:
    """Whether the run has ended since it was started or resumed last."""
    last = next((event for event in reversed(events) if isinstance(event, RunStarted | RunEnded)), None)
    return isinstance(last, RunEnded)


def _mark_unfinished(record: RunRecord, run_id: str) -> None:
    if record.started is not None:
        record.unfinished = Unfinished(run_id, max(event.at for event in record.events))


def runs() -> pd.DataFrame:
    """The runs in the runs folder, one row each, newest last: id, kind, name, status, started, path.

    Single calls (``await predict(…)``) have no file. A file that cannot be read has the status ``unreadable``.

    >>> dn.configure(runs_dir="runs")
    >>> ask = dn.Predict("question -> answer", lm=dn.ScriptedLM(["answer: 4"]))
    >>> done = dn.Evaluate(dn.metrics.exact_match()).run_sync(ask, [{"question": "2+2?", "answer": "4"}])
    >>> dn.runs()[["kind", "status"]]
           kind    status
    0  evaluate  finished
    """
    import pandas as pd

    flush_journals()
    rows = [_summary(path) for path in sorted(_folder().glob("*.jsonl"))]
    frame = pd.DataFrame(rows, columns=["id", "kind", "name", "status", "started", "path"])
    frame["started"] = pd.to_datetime(frame["started"], unit="s", utc=True)
    return frame.sort_values("started", kind="stable", na_position="first", ignore_index=True)


def _summary(path: Path) -> dict[str, object]:
    try:
        header, started, ended = read_ends(path)
    except JournalError:
        return {"id": encodable(path.stem), "status": "unreadable", "path": encodable(str(path))}
    summary: dict[str, object] = {
        "id": encodable(str(header.get("id", path.stem))),
        "kind": None,
        "name": None,
        "status": "pending",
        "started": None,
        "path": encodable(str(path)),
    }
    if started:
        summary["kind"] = encodable(started.kind)
        summary["name"] = encodable(started.name)
        summary["started"] = started.at
        summary["status"] = "running" if not ended and is_being_written(path) else "unfinished"
    if ended:
        summary["status"] = ended.status
    return summary
