"""Runs: driving work, stopping it, keeping and reopening its record."""

from dspynb.running.aio.signals import foreground
from dspynb.running.aio.sync import LoopThread, run_sync
from dspynb.running.aio.tasks import end_tasks
from dspynb.running.aio.threads import in_thread
from dspynb.running.call_history import Calls, history, remember
from dspynb.running.control import Ask, Steerable, Steering, Takes
from dspynb.running.journal_reader import read_journal
from dspynb.running.otel import export_otel
from dspynb.running.reader import RunReader
from dspynb.running.run import Run, Work, last_run
from dspynb.running.store import open_run, runs
from dspynb.running.tracing import Trace, record_of, trace
from dspynb.running.user_code import as_exception, exit_of, guarded

__all__ = [
    "Ask",
    "Calls",
    "LoopThread",
    "Run",
    "RunReader",
    "Steerable",
    "Steering",
    "Takes",
    "Trace",
    "Work",
    "as_exception",
    "end_tasks",
    "exit_of",
    "export_otel",
    "foreground",
    "guarded",
    "history",
    "in_thread",
    "last_run",
    "open_run",
    "read_journal",
    "record_of",
    "remember",
    "run_sync",
    "runs",
    "trace",
]
