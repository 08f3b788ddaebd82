"""The reply cache: one SQLite file for all processes.

Look-ups run on the event loop as long as the file is fast: in WAL mode a reader never waits for a writer. One thread
does the rest. It batches writes into transactions, and it does the look-ups if the file is locked, slow or not in WAL
mode. So a call never waits for a lock that another process holds. Values are stored as JSON; nothing is unpickled.
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
from dspynb.lm.protocol import LMReply, is_complete
from dspynb.redact import redact_known

__all__ = ["ReplyCache", "default_cache"]

_log = logging.getLogger("dspynb")
_SCHEMA = "create table if not exists replies (key text primary key, body text not null, used real not null)"
BodyFuture = asyncio.Future[str | None]
"""The stored JSON text of a reply, or None for a miss."""
Job = tuple[str, str, Any]
"""``("get", key, BodyFuture)``, ``("write", "", None)`` or ``("flush", "", threading.Event)``."""
_NOT_LOOKED_UP = "\0"  # in place of a body: the thread has to look the key up
_connections_before_fork: list[sqlite3.Connection | None] = []  # a forked child must not close them
_LOCK_TIMEOUT = 0.25
"""Seconds that the thread waits for a file that another process has locked. Then a look-up counts as a miss."""
_WRITE_DELAY = 0.05
"""Seconds for which the thread gathers entries before it writes them."""
_SLOW_LOOK_UP = 0.02
"""A look-up on the event loop that takes more seconds pauses these look-ups."""
_LOOP_PAUSE = 1.0
"""Seconds for which look-ups go to the thread after a slow one."""
_BATCH = 512
"""Entries per statement: 1,536 values, which every SQLite version accepts."""
_STORED_FIELDS = ("text", "tool_calls", "finish", "reasoning", "completions", "logprobs", "sent")


class ReplyCache:
    """Replies by key in a SQLite file.

    ``path``: the file. ``most_bytes``: size of the stored replies at most; the least recently used are deleted first.
    A damaged entry is a miss. So is every look-up while the file is unusable, which is logged once. No call ever fails
    because of the cache.
    """

    def __init__(self, path: Path, most_bytes: int = 2**30) -> None:
        self.path = path
        self.most_bytes = most_bytes
        self._warned = False
        self._writes = 0
        self._file: tuple[int, int] | None = None  # the file that the thread has opened; see _identity
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._unwritten: dict[str, LMReply] = {}
        self._used: set[str] = set()  # keys that were read and are not marked as used in the file yet
        self._reader: sqlite3.Connection | None = None  # for look-ups on the loop; set when the thread opens the file
        self._reader_lock = threading.Lock()
        self._loop_paused_until = 0.0

    async def get(self, key: str) -> LMReply | None:
        """The cached reply of a key, with ``cached=True`` and no cost; None for a miss."""
        self._start_thread()
        unwritten = self._unwritten.get(key)
        body = _body(unwritten) if unwritten is not None else self._look_up(key)
        if body is _NOT_LOOKED_UP:
            future: BodyFuture = asyncio.get_running_loop().create_future()
            self._jobs.put(("get", key, future))
            body = await future
        return None if body is None else _reply(body)

    def put(self, key: str, reply: LMReply) -> None:
        """Add a reply. ``get`` returns it from now on; the thread writes it to the file soon."""
        self._start_thread()
        with self._lock:
            idle = not (self._unwritten or self._used)
            self._unwritten[key] = reply
        if idle:
            self._jobs.put(("write", "", None))

    def flush(self, timeout: float = 5.0) -> None:
        """Wait until all added replies are in the file, at most ``timeout`` seconds."""
        if self._thread is not None and self._pid == os.getpid():
            done = threading.Event()
            self._jobs.put(("flush", "", done))
            done.wait(timeout)

    def _start_thread(self) -> None:
        """Start the thread if this process has none."""
        if self._pid != os.getpid():  # after a fork: the child has no thread, and must not use the connection
            _connections_before_fork.append(self._reader)
            self._reset()
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._work, name="dspynb-cache", daemon=True)
                    self._thread.start()
                    atexit.register(self._close)

    def _close(self) -> None:
        self.flush()
        self._close_reader()

    def _look_up(self, key: str) -> str | None:
        """The body of a key, read on the event loop; ``_NOT_LOOKED_UP`` if the thread has to read it."""
        reader = self._reader
        started = time.monotonic()
        if reader is None or started < self._loop_paused_until or not self._reader_lock.acquire(blocking=False):
            return _NOT_LOOKED_UP
        try:
            row = reader.execute("select body from replies where key = ?", (key,)).fetchone()
        except sqlite3.Error:  # locked or damaged, which the thread handles
            return _NOT_LOOKED_UP
        finally:
            self._reader_lock.release()
        if time.monotonic() - started > _SLOW_LOOK_UP:
            self._loop_paused_until = started + _LOOP_PAUSE
        if row is None:
            return None
        with self._lock:
            idle = not (self._unwritten or self._used)
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
                if connection is None:
                    connection = self._connect()
                self._handle(connection, jobs)
            except (sqlite3.Error, OSError) as error:
                self._close_reader()
                _close(connection)
                connection = None
                if _is_damage(error):
                    self._set_aside(error)
                else:
                    self._warn_once(f"the reply cache {self.path} is not usable now ({error}); calls go on without it")
                    with self._lock:
                        self._unwritten = {}
                        self._used = set()
                _resolve_futures([(future, None) for kind, _, future in jobs if kind == "get"])
            for kind, _, value in jobs:
                if kind == "flush":
                    value.set()

    def _next_jobs(self) -> list[Job]:
        """The jobs in the queue. Waits a moment after a write, so that one transaction holds many; never after a
        look-up."""
        jobs = [self._jobs.get()]
        with contextlib.suppress(queue.Empty):
            if jobs[0][0] == "write":
                jobs.append(self._jobs.get(timeout=_WRITE_DELAY))
            while len(jobs) < _BATCH:
                jobs.append(self._jobs.get_nowait())
        return jobs

    def _handle(self, connection: sqlite3.Connection, jobs: list[Job]) -> None:
        look_ups = [(key, future) for kind, key, future in jobs if kind == "get"]
        bodies = _select(connection, [key for key, _ in look_ups])
        _resolve_futures([(future, bodies.get(key)) for key, future in look_ups])
        with self._lock:
            new_replies = dict(self._unwritten)
            used_keys = [*self._used, *bodies]
            self._used = set()
        now = time.time()
        for keys in _batches(used_keys):
            _mark_used(connection, keys, now)
        for keys in _batches(list(new_replies)):
            _insert(connection, [(key, _body(new_replies[key]), now) for key in keys])
        connection.commit()
        with self._lock:
            for key, reply in new_replies.items():
                if self._unwritten.get(key) is reply:
                    del self._unwritten[key]
            if self._unwritten or self._used:  # added during this batch, when put() saw a busy thread
                self._jobs.put(("write", "", None))
        self._writes += len(new_replies)
        if self._writes >= 1000:
            self._writes = 0
            _evict(connection, self.most_bytes)

    def _set_aside(self, error: Exception) -> None:
        """Rename a damaged file, so that its user can examine it, and let the next job begin a new one. Replies that
        are not written yet are written to the new file."""
        with self._lock:
            self._used = set()
            has_unwritten = bool(self._unwritten)
        if self._file == _identity(self.path):  # else another process has done so since this one opened the file
            aside = _rename_damaged(self.path)
            self._warn_once(
                f"the reply cache {self.path} is damaged ({error}); it is now {aside.name}, a new one begins"
            )
        if has_unwritten:
            self._jobs.put(("write", "", None))

    def _connect(self) -> sqlite3.Connection:
        _create_file(self.path)
        self._file = _identity(self.path)
        connection = _connect(self.path)
        if connection.execute("pragma journal_mode").fetchone() == ("wal",):
            self._reader = sqlite3.connect(self.path, timeout=0, check_same_thread=False)
        return connection

    def _close_reader(self) -> None:
        with self._reader_lock:
            reader = self._reader
            self._reader = None
            _close(reader)

    def _warn_once(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            _log.warning(text)


def _create_file(path: Path) -> None:
    """Create the file, unless there is one, so that only its user can read it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _is_damage(error: Exception) -> bool:
    """Whether SQLite reports that the content of the file is damaged, or that it is no database."""
    code = getattr(error, "sqlite_errorcode", 0) or 0
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)  # the low byte is the kind of an error


def _identity(path: Path) -> tuple[int, int] | None:
    """The device and the number of the file at a path, which another file of the same name does not share."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _rename_damaged(path: Path) -> Path:
    """Rename a damaged file, and remove the write-ahead log that belongs to it. Returns the new path."""
    aside = path.with_suffix(".damaged")
    with contextlib.suppress(OSError):
        path.replace(aside)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    return aside


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_LOCK_TIMEOUT)
    try:
        with contextlib.suppress(sqlite3.OperationalError):  # network file systems have no WAL: use the default mode
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


# One statement handles many rows: SQLite releases the GIL in each step, and waits for it while the event loop is busy.


def _batches(keys: list[str]) -> list[list[str]]:
    return [keys[start : start + _BATCH] for start in range(0, len(keys), _BATCH)]


def _select(connection: sqlite3.Connection, keys: list[str]) -> dict[str, str]:
    if not keys:
        return {}
    return dict(connection.execute(f"select key, body from replies where {_key_in(keys)}", keys))  # noqa: S608


def _mark_used(connection: sqlite3.Connection, keys: list[str], now: float) -> None:
    if keys:
        connection.execute(f"update replies set used = ? where {_key_in(keys)}", [now, *keys])  # noqa: S608


def _insert(connection: sqlite3.Connection, rows: list[tuple[str, str, float]]) -> None:
    if rows:
        placeholders = ",".join(["(?,?,?)"] * len(rows))
        values = list(itertools.chain(*rows))
        connection.execute(f"insert or replace into replies values {placeholders}", values)  # noqa: S608


def _key_in(keys: list[str]) -> str:
    return f"key in ({','.join('?' * len(keys))})"


def _evict(connection: sqlite3.Connection, most_bytes: int) -> None:
    (size,) = connection.execute("select coalesce(sum(length(body)), 0) from replies").fetchone()
    if size > most_bytes:
        (count,) = connection.execute("select count(*) from replies").fetchone()
        excess = max(1, int(count * (1 - 0.8 * most_bytes / size)))
        oldest = "select key from replies order by used limit ?"
        connection.execute(f"delete from replies where key in ({oldest})", (excess,))  # noqa: S608
        connection.commit()


def _resolve_futures(results: list[tuple[BodyFuture, str | None]]) -> None:
    """Give each future its body. The futures of one event loop are resolved in one step of the loop."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[BodyFuture, str | None]]] = {}
    for future, body in results:
        loops.setdefault(future.get_loop(), []).append((future, body))
    for loop, loop_results in loops.items():
        with contextlib.suppress(RuntimeError):  # the loop has closed meanwhile
            loop.call_soon_threadsafe(_set_results, loop_results)


def _set_results(results: list[tuple[BodyFuture, str | None]]) -> None:
    for future, body in results:
        if not future.done():
            future.set_result(body)


def _body(reply: LMReply) -> str:
    body = {name: getattr(reply, name) for name in _STORED_FIELDS}
    if reply.completion_reasoning:
        body["completion_reasoning"] = reply.completion_reasoning
    body["usage"] = {name: getattr(reply.usage, name) for name in Usage.__slots__}
    try:
        return redact_known(pydantic_core.to_json(body, fallback=str).decode())
    except ValueError:  # lone surrogates, which only json can escape
        return redact_known(json.dumps(body, default=str))


def _reply(body: str) -> LMReply | None:
    """The reply in a body, with no cost.

    None, which counts as a miss, for a damaged body, values of wrong types, and a truncated or filtered reply: earlier
    versions stored these.
    """
    try:
        values = json.loads(body)
        usage = usage_of({**values["usage"]})
        logprobs = values.get("logprobs")
        sent = values.get("sent")  # earlier versions did not store it
        completion_reasoning = values.get("completion_reasoning", ())  # stored if there is any
        if not all(check(values[name]) for name, check in _FIELD_CHECKS.items()):
            return None
        if not _are_optional_texts(completion_reasoning):
            return None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    reply = LMReply(
        values["text"],
        tuple(values["tool_calls"]),
        usage.as_cached(),
        None,
        cached=True,
        finish=values["finish"],
        reasoning=values["reasoning"],
        completions=tuple(values["completions"]),
        logprobs=logprobs,
        sent=sent if isinstance(sent, dict) else None,
        completion_reasoning=tuple(completion_reasoning),
    )
    return reply if is_complete(reply) else None


_are_optional_texts = check_of(tuple[str | None, ...])
_FIELD_CHECKS = {
    "text": check_of(str),
    "tool_calls": check_of(tuple[Mapping[str, Any], ...]),
    "finish": check_of(str | None),
    "reasoning": check_of(str | None),
    "completions": check_of(tuple[str, ...]),
}


_default: dict[str, ReplyCache] = {}


def default_cache() -> ReplyCache:
    """The user's cache: ``replies.sqlite`` in the user's cache folder (DSPYNB_CACHE_DIR overrides the folder)."""
    folder = os.environ.get("DSPYNB_CACHE_DIR", "")
    if folder not in _default:
        _default[folder] = ReplyCache(_cache_file(folder))
    return _default[folder]


def _cache_file(folder: str) -> Path:
    import platformdirs

    return Path(folder or platformdirs.user_cache_dir("dspynb")) / "replies.sqlite"
