"""The journal: a run as a file of JSON lines, a header and then its events in order.

Lines are written by one thread, so that a slow disk never delays the event loop. ``journal_reader.py`` reads them.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import itertools
import json
import logging
import os
import queue
import secrets
import threading
from collections.abc import Iterable
from operator import attrgetter
from pathlib import Path
from typing import Any

import pydantic_core

from dspynb.errors import JournalError
from dspynb.events import FIELDS, Event, PredictorCalled, is_plain, store_messages, to_json
from dspynb.processes import after_fork_in_child
from dspynb.redact import holds_known, redact_known
from dspynb.running.locks import RunLock, lock_run
from dspynb.running.stored_prompts import LONG_LINE, PromptFile, StoredPrompt

__all__ = ["FORMAT", "JournalFile", "flush_journals", "write_journal"]

FORMAT = 1
_log = logging.getLogger("dspynb")
_OF_ANY_TYPE = ("inputs", "outputs", "settings", "parts", "metrics")
_GIVEN = {
    kind: attrgetter("span", "at", *(name for name in names if name in _OF_ANY_TYPE)) for kind, names in FIELDS.items()
}
_BINARY = getattr(os, "O_BINARY", 0)
_PAUSE = 0.01
"""Seconds that the writer waits for more, so that it does not take turns with the event loop for every line."""


class JournalFile:
    """The file of one run: takes events, writes them soon after, in order. ``failed`` holds the first write error.

    A new file is made once, with its header. One that was deleted or replaced meanwhile is not made again, since its
    beginning would be missing: the rest of the run has no file.
    """

    def __init__(self, path: Path, header: dict[str, Any] | None, lock: RunLock | None = None) -> None:
        """``header``: None to append to a file that is there, under its ``lock``; a new file's is taken when it is
        written first, since nobody can resume it before."""
        self.path = path
        self._file = path.absolute()  # now: the working directory may be another when it is written
        self._new, self._pid = header is not None, os.getpid()
        self._seen = _seen(self._file) if header is None else None
        self._prompts: PromptFile | None = None
        self.lock = lock
        self.failed: OSError | JournalError | None = None
        _writer.begin()
        if header is not None:
            _writer.put(self, _line({"dspynb": FORMAT, **header}))

    def emit(self, event: Event) -> None:
        """Queue one event. The prompt of a long line is not kept in memory once the line is written."""
        line, exact = _line_of(event)  # now: values may change before the thread comes to them
        if exact and len(line) > LONG_LINE and isinstance(event, PredictorCalled):
            _writer.put(self, line, event)
        else:
            _writer.put(self, line)

    def close(self) -> None:
        """Release the lock, when all lines so far are written. A second time does nothing."""
        _writer.put(self, None)

    def __del__(self) -> None:
        lock = getattr(self, "lock", None)
        if lock is not None and not lock.released:  # not here: whatever this interrupts may be holding locks
            _writer.release_later(lock)

    def write(self, lines: list[tuple[bytes, PredictorCalled | None]]) -> None:
        """Append lines now; called by the writer thread. A disk that fails is logged once and costs the file only.

        Beside a line there may be the call whose prompt is in it, and is read from there from now on.
        """
        if self.failed is not None or self._pid != os.getpid():  # in a forked child it is the parent's file
            return
        try:
            fd = self._opened()
            try:
                clean = _without_secrets([line for line, _ in lines])
                offset = _append(fd, b"".join(clean))
                self._seen = _state(os.fstat(fd))
            finally:
                os.close(fd)
        except (OSError, JournalError) as error:
            self.failed = error
            said = "it was deleted" if isinstance(error, FileNotFoundError) else error
            _log.warning("the run file %s could not be written (%s); the run goes on without it", self.path, said)
            self._delete_if_empty()
        else:
            self._store_prompts(offset, clean, [call for _, call in lines])

    def _store_prompts(self, offset: int, lines: list[bytes], calls: list[PredictorCalled | None]) -> None:
        """Let go of the prompts in lines that stand in the file from ``offset`` on."""
        for line, call in zip(lines, calls, strict=True):
            if call is not None:
                if self._prompts is None and self._seen is not None:
                    device, number, _ = self._seen
                    self._prompts = PromptFile(self._file, (device, number))
                if self._prompts is not None:
                    store_messages(call, StoredPrompt(self._prompts, offset, len(line)))
            offset += len(line)

    def _opened(self) -> int:
        """A descriptor to append to the file with. Raises FileNotFoundError where it is not the one it was."""
        if self._new:
            _make_private(self._file.parent)
            self.lock = self.lock or lock_run(self._file)
            fd = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | _BINARY, 0o600)
            self._new = False
            return fd
        fd = os.open(self._file, os.O_WRONLY | os.O_APPEND | _BINARY)
        if _state(os.fstat(fd)) != self._seen:
            os.close(fd)
            raise OSError(errno.ESTALE, "it was replaced or changed by something else")
        return fd

    def _delete_if_empty(self) -> None:
        """A file whose header could not be written is none."""
        with contextlib.suppress(OSError):
            stat = self._file.stat()
            if not self._new and not stat.st_size and self._seen is None:
                self._file.unlink()


def _append(fd: int, data: bytes) -> int:
    """Append all of it; where the disk is full, nothing of it, so that the file ends with a whole line. Returns where
    it begins."""
    before = os.fstat(fd).st_size
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(fd, rest) :]
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(fd, before)
        raise
    return before


def _state(stat: os.stat_result) -> tuple[int, int, int]:
    """What a file is known by that has one writer. Its size too: the number of a deleted file is used again."""
    return stat.st_dev, stat.st_ino, stat.st_size


def _seen(path: Path) -> tuple[int, int, int]:
    try:
        return _state(path.stat())
    except OSError as error:
        raise JournalError(f"cannot resume {path}: {error.strerror}") from error


def _make_private(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _line_of(event: Event) -> tuple[bytes, bool]:
    """The event as a line, and whether the line has its values exactly. Only what users give may be of any type, and
    has to be looked through; of the rest, a data URL shows in the line."""
    try:
        if all(map(is_plain, _GIVEN[type(event)](event))):
            fields = pydantic_core.to_json(event, inf_nan_mode="constants")
            if b";base64," not in fields:
                return b'{"type":"%b",%b\n' % (type(event).__name__.encode(), fields[1:]), True
    except Exception:  # too deep, a lone surrogate, or a message of an adapter's own making
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
        self._hurry = threading.Event()

    def put(self, file: JournalFile, item: bytes | None, call: PredictorCalled | None = None) -> None:
        """Queue a line of a file, or None for its end. ``call``: see ``JournalFile.write``."""
        self._queue.put((file, item, call))
        self.begin()

    def release_later(self, lock: RunLock) -> None:
        """Queue the release of a lock; safe where the garbage collector calls it."""
        self._queue.put((None, lock, None))

    def begin(self) -> None:
        """Start the thread, if it is not there."""
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._work, name="dspynb-journal", daemon=True)
                    self._thread.start()

    def flush(self, timeout: float = 10.0) -> None:
        """Wait until all that was queued before is on its way to the disk."""
        if self._thread is not None:
            done = threading.Event()
            self._queue.put((None, done, None))
            self._hurry.set()
            done.wait(timeout)

    def _work(self) -> None:
        while True:
            batch = [self._queue.get()]
            self._hurry.wait(_PAUSE)
            self._hurry.clear()
            with contextlib.suppress(queue.Empty):
                while len(batch) < 4096:
                    batch.append(self._queue.get_nowait())
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
            batch, files, file, item, call, lines = [], {}, None, None, None, []  # let go of all this while it waits

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
    """Wait until every event so far is in its file."""
    _writer.flush()


def write_journal(path: Path, header: dict[str, Any], events: Iterable[Event]) -> None:
    """A whole file at once, for its owner only; what was there is replaced when all is written, or not at all.

    Raises JournalError when it cannot be written.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with _open_private(part) as stream:
            for line in itertools.chain(
                [_line({"dspynb": FORMAT, **header})], (_line_of(event)[0] for event in events)
            ):
                stream.writelines(_without_secrets([line]))
        part.replace(path)
    except OSError as error:
        raise JournalError(f"cannot write {path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
