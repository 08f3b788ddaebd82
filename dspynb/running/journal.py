"""The journal: a run as a file of JSON lines, a header and then its events in order.

Lines are written by one thread, so that a slow disk never delays the event loop. A torn last line (the process died
while writing) is dropped on reading.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import json
import logging
import os
import queue
import secrets
import threading
from collections.abc import Iterable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO

import pydantic_core

from dspynb.errors import JournalError
from dspynb.events import FIELDS, Event, RunEnded, RunStarted, from_json, is_plain, to_json
from dspynb.processes import after_fork_in_child
from dspynb.redact import holds_known, redact_known

__all__ = ["FORMAT", "JournalFile", "cut_torn_line", "flush_journals", "read_ends", "read_journal", "write_journal"]

FORMAT = 1
_log = logging.getLogger("dspynb")
_OF_ANY_TYPE = ("inputs", "outputs", "settings", "parts", "metrics")
_GIVEN = {
    kind: attrgetter("span", "at", *(name for name in names if name in _OF_ANY_TYPE)) for kind, names in FIELDS.items()
}
_BLOCK = 1 << 16
"""Bytes that are read at a time from the end of a file."""
_PAUSE = 0.01
"""Seconds that the writer waits for more, so that it does not take turns with the event loop for every line."""


class JournalFile:
    """The file of one run: takes events, writes them soon after, in order. ``failed`` holds the first write error."""

    def __init__(self, path: Path, header: dict[str, Any] | None) -> None:
        """``header``: None to go on with a file that is there."""
        self.path = path
        self._file = path.absolute()  # now: the working directory may be another when it is written
        self.failed: OSError | None = None
        if header is not None:
            _writer.put(self, _line({"dspynb": FORMAT, **header}))

    def emit(self, event: Event) -> None:
        """Queue one event."""
        _writer.put(self, _line_of(event))  # now: values may change before the thread comes to them

    def write(self, lines: list[bytes]) -> None:
        """Append lines now; called by the writer thread. A disk that fails is logged once and costs the file only."""
        if self.failed is not None:
            return
        try:
            with _open_private(self._file) as stream:
                stream.write(_without_secrets(b"".join(lines)))
        except OSError as error:
            self.failed = error
            _log.warning("the run file %s could not be written (%s); the run goes on without it", self.path, error)


def _line_of(event: Event) -> bytes:
    """The event as a line. Only what users give may be of any type, and has to be looked through; of the rest, a data
    URL shows in the line."""
    try:
        if all(map(is_plain, _GIVEN[type(event)](event))):
            fields = pydantic_core.to_json(event, inf_nan_mode="constants")
            if b";base64," not in fields:
                return b'{"type":"%b",%b\n' % (type(event).__name__.encode(), fields[1:])
    except Exception:  # too deep, a lone surrogate, or a message of an adapter's own making
        return _line(to_json(event))
    return _line(to_json(event))


def _line(item: dict[str, Any]) -> bytes:
    try:
        return pydantic_core.to_json(item, inf_nan_mode="constants") + b"\n"
    except Exception:  # a lone surrogate, or too deep
        return json.dumps(item, ensure_ascii=True, separators=(",", ":"), default=repr).encode() + b"\n"


def _without_secrets(lines: bytes) -> bytes:
    if not holds_known(lines):
        return lines
    return redact_known(lines.decode("utf-8", "surrogatepass")).encode("utf-8", "surrogatepass")


def _parsed(line: bytes) -> Any:
    try:
        return pydantic_core.from_json(line)
    except ValueError:
        return json.loads(line)


def _open_private(path: Path) -> Any:
    if not path.parent.is_dir():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
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

    def put(self, file: JournalFile, item: bytes) -> None:
        self._queue.put((file, item))
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._work, name="dspynb-journal", daemon=True)
                    self._thread.start()

    def flush(self, timeout: float = 10.0) -> None:
        """Wait until all that was queued before is on its way to the disk."""
        if self._thread is not None:
            done = threading.Event()
            self._queue.put((None, done))
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
            files: dict[JournalFile, list[bytes]] = {}
            for file, item in batch:
                if file is not None:
                    files.setdefault(file, []).append(item)
            for file, lines in files.items():
                self._write(file, lines)
            for file, item in batch:
                if file is None:
                    item.set()

    def _write(self, file: JournalFile, lines: list[bytes]) -> None:
        try:
            file.write(lines)
        except Exception:
            _log.exception("a run file could not be written")


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
            for line in itertools.chain([_line({"dspynb": FORMAT, **header})], map(_line_of, events)):
                stream.write(_without_secrets(line))
        part.replace(path)
    except OSError as error:
        raise JournalError(f"cannot write {path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def cut_torn_line(path: Path) -> None:
    """Take away a last line that was not written to its end (or end it, where only that is lacking), so that the file
    can be gone on with. Raises JournalError where it cannot be written."""
    try:
        with path.open("rb+") as stream:
            text = stream.read()
            tail = text[text.rfind(b"\n") + 1 :]
            if _is_whole(tail):
                stream.write(b"\n")
            else:
                stream.truncate(len(text) - len(tail))
    except OSError as error:
        raise JournalError(f"cannot go on with {path}: {error.strerror}") from error


def _is_whole(line: bytes) -> bool:
    try:
        return isinstance(_parsed(line), dict)
    except ValueError:
        return False


def read_journal(path: str | Path) -> tuple[dict[str, Any], list[Event]]:
    """Header and events of a run file.

    A torn last line is dropped. Raises JournalError for a file that is no journal, is of a newer format, or is damaged
    before its last line.
    """
    with _opened(Path(path)) as stream:
        return _header(Path(path), stream.readline()), list(_events(Path(path), stream))


def read_ends(path: str | Path) -> tuple[dict[str, Any], RunStarted | None, RunEnded | None]:
    """Header of a run file, how the run began, and how it ended, unless it was begun again since; where it has ended,
    what is between is not read, however much it is. Raises JournalError as read_journal does, of the header."""
    with _opened(Path(path)) as stream:
        header = _header(Path(path), stream.readline())
        began = next((line for line in stream if line.startswith(_mark(RunStarted))), b"")
        return header, _event_of(began), _ended(stream)


def _ended(stream: BinaryIO) -> RunEnded | None:
    """The last RunEnded, if no RunStarted comes after it; of those that were written to their end."""
    for line in _from_the_end(stream):
        if line.startswith((_mark(RunStarted), _mark(RunEnded))) and (event := _event_of(line)) is not None:
            return event if isinstance(event, RunEnded) else None
    return None


def _from_the_end(stream: BinaryIO) -> Iterator[bytes]:
    """The lines of a file, the last one first. Read and not mapped into memory: a file that another process cuts
    meanwhile would end this one."""
    place, block, rest = stream.seek(0, os.SEEK_END), _BLOCK, b""
    while place:
        size = min(block, place)
        place -= size
        stream.seek(place)
        rest, *lines = (stream.read(size) + rest).split(b"\n")
        block = _BLOCK if lines else 2 * block  # so that a long line is not put together from many
        yield from reversed(lines)
    yield rest


def _mark(kind: type[Event]) -> bytes:
    """How a line of such an event begins."""
    return b'{"type":"%b"' % kind.__name__.encode()


def _event_of(line: bytes) -> Any:
    """The event of a line; None for an empty one, and one that was cut."""
    try:
        return from_json(_parsed(line))
    except (ValueError, KeyError, TypeError):
        return None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    flush_journals()
    try:
        with path.open("rb") as stream:
            yield stream
    except OSError as error:
        raise JournalError(f"cannot read {path}: {error.strerror}") from error


def _header(path: Path, line: bytes) -> dict[str, Any]:
    try:
        header = _parsed(line)
        version = header["dspynb"]
    except (ValueError, KeyError, TypeError):
        raise JournalError(f"{path} is not a dspynb run file: its first line is no header") from None
    if not isinstance(version, int) or version > FORMAT:
        raise JournalError(f"{path} has format {version}, this version reads up to {FORMAT}; upgrade dspynb")
    return dict(header)


def _events(path: Path, lines: Iterable[bytes]) -> Iterator[Event]:
    for number, line in enumerate(lines, start=2):
        if line == b"\n":
            continue
        try:
            event = from_json(_parsed(line))
        except (ValueError, KeyError, TypeError) as error:
            if not line.endswith(b"\n"):  # the write was cut
                return
            raise JournalError(f"{path}, line {number}: damaged ({type(error).__name__}: {error})") from None
        if event is not None:
            yield event
