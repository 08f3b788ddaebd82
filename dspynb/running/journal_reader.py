"""Reading run files, which may be damaged or come from an untrusted source.

A line that is not an event of this format is left out and reported; the rest is read. The events that are returned have
the types that they declare, and their spans form a forest of limited depth. So code that uses events needs no further
checks.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pydantic_core

from dspynb.errors import JournalError, shorten
from dspynb.events import (
    AttemptStarted,
    Event,
    PredictorCalled,
    RunEnded,
    RunStarted,
    SpanStarted,
    from_json,
    store_messages,
)
from dspynb.running.journal import FORMAT, flush_journals
from dspynb.running.stored_prompts import LONG_LINE, PromptFile, StoredPrompt

__all__ = ["Journal", "cut_torn_line", "load_journal", "read_ends", "read_journal"]

_BLOCK = 1 << 16
"""Bytes that are read at a time from the end of a file."""
_MAX_LINE = 1 << 28
"""Bytes of a line. A longer line counts as damage and is not read into memory."""
_MAX_VALUE_DEPTH = 300
"""Levels of lists and dicts in a value. Recursive code cannot display deeper values."""
_MAX_SPAN_DEPTH = 1000
_SPAN_EVENTS = (RunStarted, SpanStarted, AttemptStarted, PredictorCalled)
"""Events that begin a span, and so give its place in the tree."""


@dataclass(slots=True)
class Journal:
    """The content of a run file. ``damaged``: line number → error, for the lines that were left out."""

    header: dict[str, Any]
    events: list[Event] = field(default_factory=list)
    damaged: dict[int, str] = field(default_factory=dict)

    def damage(self) -> str:
        """A description of the damage in one line; empty where there is none."""
        if not self.damaged:
            return ""
        first, error = next(iter(self.damaged.items()))
        count = len(self.damaged)
        numbers = ", ".join(map(str, list(self.damaged)[:10]))
        if count > 10:
            numbers += ", …"
        lines = "1 damaged line" if count == 1 else f"{count} damaged lines"
        return f"{lines}: {numbers} (line {first}: {error})"


def load_journal(path: str | Path, *, leave_prompts: bool = False) -> Journal:
    """Read a run file. An incomplete last line is dropped; damaged lines are left out and reported in ``damaged``.

    ``leave_prompts``: leave long prompts in the file; each is read when it is first used. Raises JournalError for a
    file that cannot be read, is not a run file, or has a newer format.
    """
    with _open(Path(path)) as stream:
        lines = _lines(stream)
        journal = Journal(_header(Path(path), next(lines, b"")))
        numbers: list[int] = []
        prompts = PromptFile.of(Path(path).absolute(), stream) if leave_prompts else None
        events = []
        for event, line in _events(lines, numbers, journal.damaged):
            events.append(event)
            if prompts is not None and len(line) > LONG_LINE and isinstance(event, PredictorCalled):
                store_messages(event, StoredPrompt(prompts, stream.tell() - len(line), len(line)))
    journal.events = _as_forest(events, numbers, journal.damaged)
    journal.damaged = dict(sorted(journal.damaged.items()))
    return journal


def read_journal(path: str | Path) -> tuple[dict[str, Any], list[Event]]:
    """The header and the events of a run file; see ``load_journal``. Damaged lines are left out."""
    journal = load_journal(path)
    return journal.header, journal.events


def _events(lines: Iterator[bytes], numbers: list[int], damaged: dict[int, str]) -> Iterator[tuple[Event, bytes]]:
    """Yield each event with its line. The line's number is added to ``numbers``, and errors to ``damaged``."""
    for number, line in enumerate(lines, start=2):
        if line == b"\n":
            continue
        try:
            body = _parse(line)
        except ValueError as error:
            if line.endswith(b"\n") or len(line) >= _MAX_LINE:
                damaged[number] = shorten(f"no JSON: {error}", 120)
            continue  # a line without a line break was not written completely
        try:
            event = from_json(body)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            damaged[number] = f"no event: {shorten(error, 120)}"
            continue
        if event is None:
            damaged[number] = f"an event of type {shorten(repr(body['type']), 60)}, which this version does not know"
        else:
            numbers.append(number)
            yield event, line


def _as_forest(events: list[Event], numbers: list[int], damaged: dict[int, str]) -> list[Event]:
    """The events without those that put a span inside itself, begin a span twice, or are nested too deeply."""
    parents: dict[int, int] = {}
    ancestors: dict[int, int] = {}  # span → one of its ancestors; see _root
    for number, event in zip(numbers, events, strict=True):
        if type(event) not in _SPAN_EVENTS:
            continue
        if event.span in parents:
            if not isinstance(event, RunStarted) or parents[event.span] != event.parent:
                damaged[number] = f"span {event.span} begins twice"
        elif event.parent and event.span in (event.parent, _root(ancestors, event.parent)):
            damaged[number] = f"span {event.span} is inside itself"
        else:
            parents[event.span] = event.parent
            if event.parent:
                ancestors[event.span] = event.parent
    depths = {0: 0}
    for number, event in zip(numbers, events, strict=True):
        depth = depths.get(event.parent)
        if depth is None:
            depth = _depth(parents, depths, event.parent)
        if depth >= _MAX_SPAN_DEPTH:
            damaged[number] = f"span {event.span} is more than {_MAX_SPAN_DEPTH} spans deep"
    if not damaged:
        return events
    return [event for number, event in zip(numbers, events, strict=True) if number not in damaged]


def _root(ancestors: dict[int, int], span: int) -> int:
    """The root of the tree of a span. Each search shortens the path: an entry of ``ancestors`` is moved towards the
    root (union-find with path halving)."""
    while span in ancestors:
        ancestor = ancestors[span]
        if ancestor in ancestors:
            ancestor = ancestors[ancestor]
            ancestors[span] = ancestor
        span = ancestor
    return span


def _depth(parents: dict[int, int], depths: dict[int, int], span: int) -> int:
    """The number of spans from the root to a span, both included; 0 for no span."""
    path = []
    while span and span not in depths:
        path.append(span)
        span = parents.get(span, 0)
    depth = depths.get(span, 0)
    for inner in reversed(path):
        depth += 1
        depths[inner] = depth
    return depth


def _parse(line: bytes) -> Any:
    """The value of a line of JSON. Raises ValueError for a line that is not JSON, or whose value is too deep."""
    try:
        return pydantic_core.from_json(line)
    except ValueError:  # it also refuses half of a surrogate pair, and more than 200 levels
        pass
    try:
        value = json.loads(line)
    except RecursionError:
        raise ValueError("it is too deep") from None
    if _is_deep(value):
        raise ValueError(f"it has more than {_MAX_VALUE_DEPTH} levels")
    return value


def _is_deep(value: object) -> bool:
    level = [value]
    depth = 0
    while level and depth <= _MAX_VALUE_DEPTH:
        next_level: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                next_level += item.values()
            elif isinstance(item, list):
                next_level += item
        level = next_level
        depth += 1
    return bool(level)


def read_ends(path: str | Path) -> tuple[dict[str, Any], RunStarted | None, RunEnded | None]:
    """The header of a run file, the first RunStarted, and the last RunEnded unless the run was resumed after it.

    Of a file whose run has ended, only the beginning and the end are read. Raises JournalError as ``load_journal``
    does, for the header only.
    """
    with _open(Path(path)) as stream:
        lines = _lines(stream)
        header = _header(Path(path), next(lines, b""))
        started = None
        for line in lines:
            if line.startswith(_prefix(RunStarted)):
                started = _event_of(line)
                if started is not None:
                    break
        return header, started, _ended(stream)


def _ended(stream: BinaryIO) -> RunEnded | None:
    """The last complete RunEnded of a file, unless a RunStarted follows it."""
    prefixes = (_prefix(RunStarted), _prefix(RunEnded))
    for line in _lines_from_end(stream):
        if line.startswith(prefixes):
            event = _event_of(line)
            if event is not None:
                if isinstance(event, RunEnded):
                    return event
                return None
    return None


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """The lines of a file with their line breaks. Of a line that is too long, only the beginning is read."""
    if os.fstat(stream.fileno()).st_size < _MAX_LINE:
        return stream
    return _limited_lines(stream)


def _limited_lines(stream: BinaryIO) -> Iterator[bytes]:
    while line := stream.readline(_MAX_LINE):
        yield line
        while len(line) == _MAX_LINE and not line.endswith(b"\n"):
            line = stream.readline(_MAX_LINE)


def _lines_from_end(stream: BinaryIO) -> Iterator[bytes]:
    """The lines of a file, the last one first, up to a line that is too long.

    The file is read and not mapped into memory: if another process truncated a mapped file, this process would crash.
    """
    position = stream.seek(0, os.SEEK_END)
    block = _BLOCK
    rest = b""
    while position and len(rest) < _MAX_LINE:
        size = min(block, position)
        position -= size
        stream.seek(position)
        rest, *lines = (stream.read(size) + rest).split(b"\n")
        block = _BLOCK if lines else 2 * block  # so that a long line is not joined from many blocks
        yield from reversed(lines)
    yield rest


def _prefix(event_type: type[Event]) -> bytes:
    """The first bytes of a line that holds an event of this type."""
    return b'{"type":"%b"' % event_type.__name__.encode()


def _event_of(line: bytes) -> Any:
    """The event of a line; None for a line that is empty, incomplete or damaged."""
    try:
        return from_json(_parse(line))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None


@contextlib.contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    flush_journals()
    try:
        # Non-blocking: opening a named pipe would otherwise wait until somebody writes to it.
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(fd, "rb") as stream:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise JournalError(f"cannot read {path}: it is not a regular file")
            yield stream
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise JournalError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _header(path: Path, line: bytes) -> dict[str, Any]:
    try:
        header = _parse(line)
        version = header["dspynb"]
    except (ValueError, KeyError, TypeError, IndexError):
        raise _no_run_file(path) from None
    if not isinstance(header, dict) or type(version) is not int or version < 1:
        raise _no_run_file(path)
    if version > FORMAT:
        raise JournalError(f"{path} has format {version}, this version reads up to {FORMAT}; upgrade dspynb")
    return header


def _no_run_file(path: Path) -> JournalError:
    return JournalError(f"{path} is not a dspynb run file: its first line is no header; dn.runs() lists the run files")


def cut_torn_line(path: Path) -> None:
    """Remove an incomplete last line, so that the file can be resumed. Where only the line break is missing, add it.
    Raises JournalError where the file cannot be written."""
    try:
        with path.open("rb+") as stream:
            text = stream.read()
            last_line = text[text.rfind(b"\n") + 1 :]
            if _is_complete(last_line):
                stream.write(b"\n")
            else:
                stream.truncate(len(text) - len(last_line))
    except OSError as error:
        raise JournalError(f"cannot resume {path}: {error.strerror}") from error


def _is_complete(line: bytes) -> bool:
    try:
        return isinstance(_parse(line), dict)
    except ValueError:
        return False
