"""Runs: starting and stopping work, recording its events, and reopening the record."""

from dspynb.running.aio.signals import foreground
from dspynb.running.aio.sync import LoopThread, run_sync
from dspynb.running.aio.tasks import end_tasks
from dspynb.running.aio.threads import in_thread
from dspynb.running.call_history import Calls, history, remember
from dspynb.running.control import AcceptedRequests, Request, Steerable, Steering
from dspynb.running.journal_reader import read_journal
from dspynb.running.otel import export_otel
from dspynb.running.reader import RunReader
from dspynb.running.run import Run, Work, last_run
from dspynb.running.store import open_run, runs
from dspynb.running.tracing import Trace, record_of, trace
from dspynb.running.user_code import as_exception, exit_of, guarded

__all__ = [
    "AcceptedRequests",
    "Calls",
    "LoopThread",
    "Request",
    "Run",
    "RunReader",
    "Steerable",
    "Steering",
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
