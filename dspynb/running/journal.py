"""The journal: the file of a run, as JSON lines: a header, then the events in order.

Lines are written by one thread, so that a slow disk never delays the event loop. ``journal_reader.py`` reads them.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import errno
import json
import logging
import os
import queue
import secrets
import threading
from collections.abc import Iterable
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any

import pydantic_core
from pydantic_core import core_schema

from dspynb.data import Usage
from dspynb.errors import JournalError
from dspynb.events import EVENT_TYPES, FIELDS, Event, PredictorCalled, is_plain, store_messages, to_json
from dspynb.processes import after_fork_in_child
from dspynb.redact import holds_known, redact_known
from dspynb.running.locks import RunLock, lock_run
from dspynb.running.stored_prompts import LONG_LINE, PromptFile, StoredPrompt

__all__ = ["FORMAT", "JournalFile", "flush_journals", "write_journal"]

FORMAT = 1
_log = logging.getLogger("dspynb")
_USER_FIELDS = frozenset({"inputs", "outputs", "settings", "parts", "metrics"})
"""Fields of events whose values come from users, and may be of any type."""


def _user_values_getter(names: Iterable[str]) -> attrgetter[Any]:
    """Reads the values of an event's fields that come from users. ``span`` and ``at`` make it return a tuple always."""
    return attrgetter("span", "at", *(name for name in names if name in _USER_FIELDS))


_USER_VALUES = {event_type: _user_values_getter(names) for event_type, names in FIELDS.items()}
_EMPTY_FACTORIES = (dict, tuple, Usage)
"""Default factories of fields that are left out of a line where their value is empty."""
_BINARY = getattr(os, "O_BINARY", 0)
_PAUSE = 0.01
"""Seconds that the writer thread waits for further lines, so that it does not compete with the event loop for each
line."""


class JournalFile:
    """The file of one run. It queues events, and a thread writes them in order. ``failed`` holds the first write error.

    A new file is created once, with its header. A file that was deleted or replaced meanwhile is not created again,
    since its beginning would be missing: the rest of the run is not written.
    """

    def __init__(self, path: Path, header: dict[str, Any] | None, lock: RunLock | None = None) -> None:
        """``header``: the header of a new file; None to append to an existing file, whose ``lock`` this process holds.
        The lock of a new file is acquired when the file is first written, since it cannot be resumed before."""
        self.path = path
        self._file = path.absolute()  # made absolute now, since the working directory may change before the first write
        self._new = header is not None
        self._pid = os.getpid()
        self._last_state = _state_of(self._file) if header is None else None
        self._prompts: PromptFile | None = None
        self.lock = lock
        self.failed: OSError | JournalError | None = None
        _writer.begin()
        if header is not None:
            _writer.put(self, _line({"dspynb": FORMAT, **header}))

    def emit(self, event: Event) -> None:
        """Queue one event. If its line is long, the event's prompt is dropped from memory once the line is written, and
        read from the file after that."""
        line, lossless = _line_of(event)  # serialized now, since values may change before the thread writes them
        if lossless and len(line) > LONG_LINE and isinstance(event, PredictorCalled):
            _writer.put(self, line, event)
        else:
            _writer.put(self, line)

    def close(self) -> None:
        """Release the lock once all queued lines are written. A second call does nothing."""
        _writer.put(self, None)

    def __del__(self) -> None:
        lock = getattr(self, "lock", None)
        if lock is not None and not lock.released:  # by the thread: the code that this interrupts may hold locks
            _writer.release_later(lock)

    def write(self, lines: list[tuple[bytes, PredictorCalled | None]]) -> None:
        """Append lines now; called by the writer thread. A write error is logged once and ends the writing.

        A line may come with the call whose prompt it holds: from then on, the prompt is read from the file.
        """
        if self.failed is not None or self._pid != os.getpid():  # the file of a forked child belongs to its parent
            return
        try:
            fd = self._open_to_append()
            try:
                clean_lines = _without_secrets([line for line, _ in lines])
                offset = _append(fd, b"".join(clean_lines))
                self._last_state = _state(os.fstat(fd))
            finally:
                os.close(fd)
        except (OSError, JournalError) as error:
            self.failed = error
            reason = "it was deleted" if isinstance(error, FileNotFoundError) else error
            _log.warning("the run file %s could not be written (%s); the run continues without it", self.path, reason)
            self._delete_if_empty()
        else:
            self._store_prompts(offset, clean_lines, [call for _, call in lines])

    def _store_prompts(self, offset: int, lines: list[bytes], calls: list[PredictorCalled | None]) -> None:
        """Release the prompts of calls from memory. Their lines begin in the file at ``offset``."""
        for line, call in zip(lines, calls, strict=True):
            if call is not None:
                if self._prompts is None and self._last_state is not None:
                    device, inode, _ = self._last_state
                    self._prompts = PromptFile(self._file, (device, inode))
                if self._prompts is not None:
                    store_messages(call, StoredPrompt(self._prompts, offset, len(line)))
            offset += len(line)

    def _open_to_append(self) -> int:
        """Open the file for appending and return its descriptor. Raises FileNotFoundError where the file was deleted,
        OSError where it was replaced or changed."""
        if self._new:
            _make_private(self._file.parent)
            self.lock = self.lock or lock_run(self._file)
            fd = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | _BINARY, 0o600)
            self._new = False
            return fd
        fd = os.open(self._file, os.O_WRONLY | os.O_APPEND | _BINARY)
        if _state(os.fstat(fd)) != self._last_state:
            os.close(fd)
            raise OSError(errno.ESTALE, "it was replaced or changed by something else")
        return fd

    def _delete_if_empty(self) -> None:
        """Delete the file if its header could not be written."""
        with contextlib.suppress(OSError):
            stat = self._file.stat()
            if not self._new and not stat.st_size and self._last_state is None:
                self._file.unlink()


def _append(fd: int, data: bytes) -> int:
    """Append all of the data and return the offset at which it begins. Where that fails, as on a full disk, append
    nothing, so that the file ends with a complete line."""
    offset = os.fstat(fd).st_size
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(fd, rest) :]
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(fd, offset)
        raise
    return offset


def _state(stat: os.stat_result) -> tuple[int, int, int]:
    """Identifies a file that has one writer: device, inode and size. The size is needed, since the inode number of a
    deleted file is used again."""
    return stat.st_dev, stat.st_ino, stat.st_size


def _state_of(path: Path) -> tuple[int, int, int]:
    try:
        return _state(path.stat())
    except OSError as error:
        raise JournalError(f"cannot resume {path}: {error.strerror}") from error


def _make_private(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)


@cache
def _serializer(kind: str) -> pydantic_core.SchemaSerializer:
    """Writes the fields of an event that do not have their default value: most fields of most events have it, and the
    reader fills it in. The fields whose absence means something else are written always."""
    event_type = EVENT_TYPES[kind]
    declared = []
    for field in dataclasses.fields(event_type):
        schema: core_schema.CoreSchema = core_schema.any_schema()
        if field.default is not dataclasses.MISSING:
            schema = core_schema.with_default_schema(schema, default=field.default)
        elif field.default_factory in _EMPTY_FACTORIES:
            schema = core_schema.with_default_schema(schema, default=field.default_factory())
        declared.append(core_schema.dataclass_field(field.name, schema))
    arguments = core_schema.dataclass_args_schema(event_type.__name__, declared)
    schema = core_schema.dataclass_schema(event_type, arguments, list(FIELDS[event_type]), slots=True)
    return pydantic_core.SchemaSerializer(schema, core_schema.CoreConfig(ser_json_inf_nan="constants"))


def _line_of(event: Event) -> tuple[bytes, bool]:
    """The event as a line, and whether the line holds its values exactly. Only values that come from users can be of
    any type and must be checked; a data URL anywhere else is recognised in the line."""
    try:
        if all(map(is_plain, _USER_VALUES[type(event)](event))):
            fields = _serializer(type(event).__name__).to_json(event, exclude_defaults=True)
            if b";base64," not in fields:
                return b'{"type":"%b",%b\n' % (type(event).__name__.encode(), fields[1:]), True
    except Exception:  # too deep, a lone surrogate, or a message with values of an adapter's own types
        return _line(to_json(event)), False
    return _line(to_json(event)), False


def _line(item: dict[str, Any]) -> bytes:
    try:
        return pydantic_core.to_json(item, inf_nan_mode="constants") + b"\n"
    except Exception:  # a lone surrogate, or too deep
        return json.dumps(item, ensure_ascii=True, separators=(",", ":"), default=repr).encode() + b"\n"


def _without_secrets(lines: list[bytes]) -> list[bytes]:
    if not holds_known(b"".join(lines)):
        return lines
    return [redact_known(line.decode("utf-8", "surrogatepass")).encode("utf-8", "surrogatepass") for line in lines]


def _open_private(path: Path) -> Any:
    _make_private(path.parent)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")


class _Writer:
    """One daemon thread that drains a queue and writes each file's lines together."""

    def __init__(self) -> None:
        self._reset()
        after_fork_in_child(self._reset)
        atexit.register(self.flush)

    def _reset(self) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._flush_requested = threading.Event()

    def put(self, file: JournalFile, item: bytes | None, call: PredictorCalled | None = None) -> None:
        """Queue a line of a file, or None to close the file. ``call``: see ``JournalFile.write``."""
        self._queue.put((file, item, call))
        self.begin()

    def release_later(self, lock: RunLock) -> None:
        """Queue the release of a lock. Safe to call from the garbage collector."""
        self._queue.put((None, lock, None))

    def begin(self) -> None:
        """Start the thread if it has not been started."""
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._work, name="dspynb-journal", daemon=True)
                    self._thread.start()

    def flush(self, timeout: float = 10.0) -> None:
        """Wait until all lines that were queued before are handed to the operating system, ``timeout`` seconds at
        most."""
        if self._thread is not None:
            written = threading.Event()
            self._queue.put((None, written, None))
            self._flush_requested.set()
            written.wait(timeout)

    def _work(self) -> None:
        while True:
            first = self._queue.get()
            self._flush_requested.wait(_PAUSE)
            self._flush_requested.clear()
            batch = [first]
            with contextlib.suppress(queue.Empty):
                while len(batch) < 4096:
                    batch.append(self._queue.get_nowait())
            self._write_batch(batch)
            del first, batch  # so that no event stays in memory while the thread waits

    def _write_batch(self, batch: list[Any]) -> None:
        """Write the lines of each file together, then release locks, then tell those who wait for a flush."""
        files: dict[JournalFile, list[tuple[bytes, PredictorCalled | None]]] = {}
        for file, item, call in batch:
            if file is not None and item is not None:
                files.setdefault(file, []).append((item, call))
        for file, lines in files.items():
            self._write(file, lines)
        for file, item, _ in batch:
            if item is None:
                self._release(file.lock)
            elif isinstance(item, RunLock):
                self._release(item)
        for _, item, _ in batch:
            if isinstance(item, threading.Event):
                item.set()

    def _write(self, file: JournalFile, lines: list[tuple[bytes, PredictorCalled | None]]) -> None:
        try:
            file.write(lines)
        except Exception:
            _log.exception("a run file could not be written")

    def _release(self, lock: RunLock | None) -> None:
        try:
            if lock is not None:
                lock.release()
        except Exception:
            _log.exception("the lock of a run file could not be released")


_writer = _Writer()


def flush_journals() -> None:
    """Wait until all events so far are written to their files."""
    _writer.flush()


def write_journal(path: Path, header: dict[str, Any], events: Iterable[Event]) -> None:
    """Write a whole run file, readable by its owner only. An existing file is replaced once everything is written; if
    writing fails, it stays as it was.

    Raises JournalError where the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with _open_private(temporary) as stream:
            stream.writelines(_without_secrets([_line({"dspynb": FORMAT, **header})]))
            for event in events:
                line, _ = _line_of(event)
                stream.writelines(_without_secrets([line]))
        temporary.replace(path)
    except OSError as error:
        raise JournalError(f"cannot write {path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
