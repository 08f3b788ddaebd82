"""The reply cache: one SQLite file for all processes.

A look-up is made where it is asked while the file answers at once: with a write-ahead log a reader waits for nobody.
All else is done by one thread: writes, some milliseconds' worth in one transaction, and look-ups where the file is
locked, slow or has no such log. So a call never waits for a lock that another process holds. Values are JSON; nothing
is unpickled.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import itertools
import json
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic_core

from dspynb.data import Usage, usage_of
from dspynb.json_checks import check_of
from dspynb.lm.protocol import LMReply, is_whole
from dspynb.redact import redact_known

__all__ = ["ReplyCache", "default_cache"]

_log = logging.getLogger("dspynb")
_SCHEMA = "create table if not exists replies (key text primary key, body text not null, used real not null)"
Found = asyncio.Future[str | None]
_ASK = "\0"  # in place of a body
_inherited: list[sqlite3.Connection | None] = []  # of the process that forked: not to be closed here
_PATIENCE = 0.25
"""Seconds that the thread waits for a file that another process has locked, before a look-up counts as a miss."""
_SOON = 0.05
"""Seconds for which the thread gathers what it writes."""
_SLOW, _REST = 0.02, 1.0
"""A look-up that took as many seconds is the last one made on the event loop for so many."""
_AT_ONCE = 512
"""Entries a statement: 1,536 values, which every SQLite takes."""
_KEPT = ("text", "tool_calls", "finish", "reasoning", "completions", "logprobs")


class ReplyCache:
    """Replies by key in the file ``path``, at most ``most_bytes`` of it; the least recently used go first.

    A damaged entry or file is a miss, and logged once; a call never fails for it.
    """

    def __init__(self, path: Path, most_bytes: int = 2**30) -> None:
        self.path, self.most_bytes = path, most_bytes
        self._warned = False
        self._writes = 0
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._jobs: queue.SimpleQueue[tuple[str, str, Any]] = queue.SimpleQueue()  # get, write, flush
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._fresh: dict[str, LMReply] = {}  # put, and not in the file yet
        self._used: set[str] = set()  # found, and not marked as used yet
        self._reader: sqlite3.Connection | None = None  # for look-ups on the loop, once the thread has opened the file
        self._reading = threading.Lock()
        self._resting = 0.0  # until when look-ups go to the thread

    async def get(self, key: str) -> LMReply | None:
        """The reply of a key, marked as cached and costing nothing; None for a miss."""
        self._ready()
        fresh = self._fresh.get(key)
        body = _body(fresh) if fresh is not None else self._look(key)
        if body is _ASK:
            found: Found = asyncio.get_running_loop().create_future()
            self._jobs.put(("get", key, found))
            body = await found
        return None if body is None else _reply(body)

    def put(self, key: str, reply: LMReply) -> None:
        """Keep a reply; it is in the file soon, and found from now on."""
        self._ready()
        with self._lock:
            idle = not (self._fresh or self._used)
            self._fresh[key] = reply
        if idle:
            self._jobs.put(("write", "", None))

    def flush(self, timeout: float = 5.0) -> None:
        """Wait until all that was put is in the file."""
        if self._thread is not None and self._pid == os.getpid():
            done = threading.Event()
            self._jobs.put(("flush", "", done))
            done.wait(timeout)

    def _ready(self) -> None:
        """Start the thread, if it is not there."""
        if self._pid != os.getpid():  # a forked child has the object, but no thread, and no use of the connection
            _inherited.append(self._reader)
            self._begin()
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._work, name="dspynb-cache", daemon=True)
                    self._thread.start()
                    atexit.register(self._end)

    def _end(self) -> None:
        self.flush()
        self._stop_reading()

    def _look(self, key: str) -> str | None:
        """The body of a key, read here and now; ``_ASK`` where the thread is to be asked."""
        reader, began = self._reader, time.monotonic()
        if reader is None or began < self._resting or not self._reading.acquire(blocking=False):
            return _ASK
        try:
            row = reader.execute("select body from replies where key = ?", (key,)).fetchone()
        except sqlite3.Error:  # locked, damaged: the thread sees to it
            return _ASK
        finally:
            self._reading.release()
        if time.monotonic() - began > _SLOW:
            self._resting = began + _REST
        if row is None:
            return None
        with self._lock:
            idle = not (self._fresh or self._used)
            self._used.add(key)
        if idle:
            self._jobs.put(("write", "", None))
        return str(row[0])

    # ── on the thread ─────────────────────────────────────────────────────────────────────────────────────────────
    def _work(self) -> None:
        connection: sqlite3.Connection | None = None
        while True:
            jobs = self._next_jobs()
            try:
                connection = connection or self._opened()
                self._handle(connection, jobs)
            except (sqlite3.Error, OSError) as error:
                self._told(error)
                self._stop_reading()
                _close(connection)
                connection = None
                with self._lock:
                    self._fresh, self._used = {}, set()
                _deliver([(future, None) for kind, _, future in jobs if kind == "get"])
            for kind, _, value in jobs:
                if kind == "flush":
                    value.set()

    def _next_jobs(self) -> list[tuple[str, str, Any]]:
        """What has come together; where that is only writing, wait for more of it, but not for a look-up."""
        jobs = [self._jobs.get()]
        with contextlib.suppress(queue.Empty):
            if jobs[0][0] == "write":
                jobs.append(self._jobs.get(timeout=_SOON))
            while len(jobs) < _AT_ONCE:
                jobs.append(self._jobs.get_nowait())
        return jobs

    def _handle(self, connection: sqlite3.Connection, jobs: list[tuple[str, str, Any]]) -> None:
        asked = [(key, future) for kind, key, future in jobs if kind == "get"]
        found = _rows(connection, [key for key, _ in asked])
        _deliver([(future, found.get(key)) for key, future in asked])
        with self._lock:
            fresh, used, self._used = dict(self._fresh), [*self._used, *found], set()
        now = time.time()
        for some in _chunks(used):
            _touch(connection, some, now)
        for some in _chunks(list(fresh)):
            _write(connection, [(key, _body(fresh[key]), now) for key in some])
        connection.commit()
        with self._lock:
            for key, reply in fresh.items():
                if self._fresh.get(key) is reply:
                    del self._fresh[key]
            if self._fresh or self._used:  # what came meanwhile found work under way, and woke nobody
                self._jobs.put(("write", "", None))
        self._writes += len(fresh)
        if self._writes >= 1000:
            self._writes = 0
            _evict(connection, self.most_bytes)

    def _opened(self) -> sqlite3.Connection:
        connection = _open(self.path)
        if connection.execute("pragma journal_mode").fetchone() == ("wal",):
            self._reader = sqlite3.connect(self.path, timeout=0, check_same_thread=False)
        return connection

    def _stop_reading(self) -> None:
        with self._reading:
            reader, self._reader = self._reader, None
            _close(reader)

    def _told(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            _log.warning("the reply cache %s is not usable now (%s); calls go on without it", self.path, error)


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    try:
        return _connect(path)
    except sqlite3.DatabaseError as error:
        if "not a database" not in str(error) and "malformed" not in str(error):
            raise
        path.replace(path.with_suffix(".damaged"))  # kept for whoever wants to look; a new file serves
        return _connect(path)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_PATIENCE)
    try:
        with contextlib.suppress(sqlite3.OperationalError):  # network file systems have no WAL; the default mode serves
            connection.execute("pragma journal_mode=wal")
        connection.execute("pragma synchronous=normal")
        connection.execute(_SCHEMA)
        connection.commit()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _close(connection: sqlite3.Connection | None) -> None:
    if connection is not None:
        with contextlib.suppress(sqlite3.Error):
            connection.close()


# Few statements for many rows: SQLite lets go of Python's lock for each step, and waits for it again while the event
# loop is busy.


def _chunks(keys: list[str]) -> list[list[str]]:
    return [keys[i : i + _AT_ONCE] for i in range(0, len(keys), _AT_ONCE)]


def _rows(connection: sqlite3.Connection, keys: list[str]) -> dict[str, str]:
    return dict(connection.execute(f"select key, body from replies where {_among(keys)}", keys)) if keys else {}  # noqa: S608


def _touch(connection: sqlite3.Connection, keys: list[str], now: float) -> None:
    if keys:
        connection.execute(f"update replies set used = ? where {_among(keys)}", [now, *keys])  # noqa: S608


def _write(connection: sqlite3.Connection, rows: list[tuple[str, str, float]]) -> None:
    if rows:
        marks = ",".join(["(?,?,?)"] * len(rows))
        connection.execute(f"insert or replace into replies values {marks}", list(itertools.chain(*rows)))  # noqa: S608


def _among(keys: list[str]) -> str:
    return f"key in ({','.join('?' * len(keys))})"


def _evict(connection: sqlite3.Connection, most_bytes: int) -> None:
    (size,) = connection.execute("select coalesce(sum(length(body)), 0) from replies").fetchone()
    if size > most_bytes:
        (count,) = connection.execute("select count(*) from replies").fetchone()
        drop = max(1, int(count * (1 - 0.8 * most_bytes / size)))
        connection.execute("delete from replies where key in (select key from replies order by used limit ?)", (drop,))
        connection.commit()


def _deliver(answers: list[tuple[Found, str | None]]) -> None:
    """Give the askers their answers, each loop all of its own in one step."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[Found, str | None]]] = {}
    for future, body in answers:
        loops.setdefault(future.get_loop(), []).append((future, body))
    for loop, some in loops.items():
        with contextlib.suppress(RuntimeError):  # a loop that has closed meanwhile
            loop.call_soon_threadsafe(_resolve, some)


def _resolve(answers: list[tuple[Found, str | None]]) -> None:
    for future, body in answers:
        if not future.done():
            future.set_result(body)


def _body(reply: LMReply) -> str:
    kept = {name: getattr(reply, name) for name in _KEPT}
    usage = {name: getattr(reply.usage, name) for name in Usage.__slots__}
    whole = {**kept, "usage": usage}
    try:
        return redact_known(pydantic_core.to_json(whole, fallback=str).decode())
    except ValueError:  # halves of surrogate pairs, which JSON can escape
        return redact_known(json.dumps(whole, default=str))


def _reply(body: str) -> LMReply | None:
    """The reply in a body, costing nothing now. None, so that it is asked again, for a body that is damaged or has
    values of wrong types, and for a reply that was cut or filtered, which earlier versions kept."""
    try:
        values = json.loads(body)
        kept = {"logprobs": None, **{name: values[name] for name in _KEPT if name in values}}
        if not all(check(kept[name]) for name, check in _CHECKS.items()):
            return None
        usage = usage_of({**values["usage"]})
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    reply = LMReply(
        kept["text"],
        tuple(kept["tool_calls"]),
        usage.as_cached(),
        None,
        cached=True,
        finish=kept["finish"],
        reasoning=kept["reasoning"],
        completions=tuple(kept["completions"]),
        logprobs=kept["logprobs"],
    )
    return reply if is_whole(reply) else None


_CHECKS = {
    name: check_of(annotation)
    for name, annotation in {
        "text": str,
        "tool_calls": tuple[Mapping[str, Any], ...],
        "finish": str | None,
        "reasoning": str | None,
        "completions": tuple[str, ...],
    }.items()
}


_default: dict[str, ReplyCache] = {}


def default_cache() -> ReplyCache:
    """The user's cache: ``replies.sqlite`` in the user's cache folder (DSPYNB_CACHE_DIR overrides the folder)."""
    folder = os.environ.get("DSPYNB_CACHE_DIR", "")
    if folder not in _default:
        _default[folder] = ReplyCache(_file(folder))
    return _default[folder]


def _file(folder: str) -> Path:
    import platformdirs

    return Path(folder or platformdirs.user_cache_dir("dspynb")) / "replies.sqlite"
