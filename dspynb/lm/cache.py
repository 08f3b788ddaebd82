"""The reply cache: one SQLite file for all processes, used off the event loop.

Look-ups and writes are queued to one thread, which handles all that has come together in one transaction: a call waits
for a reply that is there, and never for a lock that another process holds. Values are JSON; nothing is unpickled.
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
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic_core

from dspynb.data import Usage
from dspynb.lm.base import LMReply
from dspynb.redact import redact_known

__all__ = ["ReplyCache", "default_cache"]

_log = logging.getLogger("dspynb")
_SCHEMA = "create table if not exists replies (key text primary key, body text not null, used real not null)"
Found = asyncio.Future[str | None]
_PATIENCE = 0.25
"""Seconds that the thread waits for a file that another process has locked, before a look-up counts as a miss."""
_SOON = 0.05
"""Seconds after which a reply is handed to the thread without a look-up."""
_KEPT = ("text", "tool_calls", "finish", "reasoning", "completions", "logprobs")


class ReplyCache:
    """Replies by key in the file ``path``, at most ``most_bytes`` of it; the least recently used go first.

    A damaged entry or file is a miss, and logged once; a call never fails for it.
    """

    def __init__(self, path: Path, most_bytes: int = 2**30) -> None:
        self.path, self.most_bytes = path, most_bytes
        self._jobs: queue.SimpleQueue[tuple[str, Any, Any]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._warned = False
        self._writes = 0
        self._unwritten: deque[tuple[str, LMReply]] = deque()  # for the thread, with the next look-up or soon

    async def get(self, key: str) -> LMReply | None:
        """The reply of a key, marked as cached and costing nothing; None for a miss."""
        found: Found = asyncio.get_running_loop().create_future()
        self._hand_over()
        self._put("get", key, found)
        body = await found
        return None if body is None else _reply(body)

    def put(self, key: str, reply: LMReply) -> None:
        """Keep a reply, soon: it goes to the thread with the next look-up, which wakes it anyway."""
        self._unwritten.append((key, reply))
        if len(self._unwritten) == 1:
            asyncio.get_running_loop().call_later(_SOON, self._hand_over)

    def _hand_over(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._put("put", *self._unwritten.popleft())

    def flush(self, timeout: float = 5.0) -> None:
        """Wait until all that was put is in the file."""
        self._hand_over()
        if self._thread is not None and self._pid == os.getpid():
            done = threading.Event()
            self._jobs.put(("flush", "", done))
            done.wait(timeout)

    def _put(self, kind: str, key: str, value: Any) -> None:
        if self._thread is None or self._pid != os.getpid():
            self._start()
        self._jobs.put((kind, key, value))

    def _start(self) -> None:
        if self._pid != os.getpid():  # a forked child has the object but not the thread
            self._lock, self._jobs, self._thread = threading.Lock(), queue.SimpleQueue(), None
            self._unwritten = deque()
            self._pid = os.getpid()
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="dspynb-cache", daemon=True)
                self._thread.start()
                atexit.register(self.flush)

    # ── on the thread ─────────────────────────────────────────────────────────────────────────────────────────────
    def _work(self) -> None:
        connection: sqlite3.Connection | None = None
        while True:
            jobs = [self._jobs.get()]
            with contextlib.suppress(queue.Empty):
                while len(jobs) < 512:
                    jobs.append(self._jobs.get_nowait())
            try:
                connection = connection or _open(self.path)
                self._handle(connection, jobs)
            except (sqlite3.Error, OSError) as error:
                self._told(error)
                _close(connection)
                connection = None
                _deliver([(future, None) for kind, _, future in jobs if kind == "get"])
            for kind, _, value in jobs:
                if kind == "flush":
                    value.set()

    def _handle(self, connection: sqlite3.Connection, jobs: list[tuple[str, Any, Any]]) -> None:
        now = time.time()
        asked = [(key, future) for kind, key, future in jobs if kind == "get"]
        kept = {key: reply for kind, key, reply in jobs if kind == "put"}
        found = _rows(connection, [key for key, _ in asked])
        _deliver([(future, _body(kept[key]) if key in kept else found.get(key)) for key, future in asked])
        _touch(connection, list(found), now)
        _write(connection, [(key, _body(reply), now) for key, reply in kept.items()])
        connection.commit()
        self._writes += len(kept)
        if self._writes >= 1000:
            self._writes = 0
            _evict(connection, self.most_bytes)

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
    with contextlib.suppress(sqlite3.OperationalError):  # network file systems have no WAL; the default mode serves
        connection.execute("pragma journal_mode=wal")
    connection.execute("pragma synchronous=normal")
    connection.execute(_SCHEMA)
    connection.commit()
    return connection


def _close(connection: sqlite3.Connection | None) -> None:
    if connection is not None:
        with contextlib.suppress(sqlite3.Error):
            connection.close()


# Few statements for many rows: SQLite lets go of Python's lock for each step, and waits for it again while the event
# loop is busy. At most 512 jobs come together, so 1,536 values, which every SQLite takes.


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
    """The reply in a body, costing nothing now; None for a damaged one."""
    try:
        values: Mapping[str, Any] = json.loads(body)
        used = Usage(**values["usage"])
        return LMReply(
            values["text"],
            tuple(values["tool_calls"]),
            used.as_cached(),
            None,
            cached=True,
            finish=values["finish"],
            reasoning=values["reasoning"],
            completions=tuple(values["completions"]),
            logprobs=values.get("logprobs"),
        )
    except (ValueError, KeyError, TypeError):
        return None


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
