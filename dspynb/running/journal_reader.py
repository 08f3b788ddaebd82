"""Reading run files, which may be damaged or come from anywhere.

A line that is no event of this format is left out and reported; the rest is read. What is read has the types that
events declare, and its spans are a forest: none is inside itself, and none is deeper than any program comes. So what
uses events needs no further checks.
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
_LONGEST = 1 << 28
"""Bytes of a line: a longer one is damage, and is not taken into memory."""
_DEEPEST_VALUE = 300
"""Levels of lists and dicts in a value: what is deeper cannot be shown by code that calls itself for each level."""
_DEEPEST_SPAN = 1000
_BEGINS = (RunStarted, SpanStarted, AttemptStarted, PredictorCalled)
"""Events that say where a span is in the tree."""


@dataclass(slots=True)
class Journal:
    """A run file as it was read. ``damaged``: line number → what is wrong with it, of the lines left out."""

    header: dict[str, Any]
    events: list[Event] = field(default_factory=list)
    damaged: dict[int, str] = field(default_factory=dict)

    def damage(self) -> str:
        """What is damaged, in one line; empty where nothing is."""
        if not self.damaged:
            return ""
        first, why = next(iter(self.damaged.items()))
        numbers = ", ".join(map(str, [*self.damaged][:10])) + (", …" if len(self.damaged) > 10 else "")
        lines = "1 damaged line" if len(self.damaged) == 1 else f"{len(self.damaged)} damaged lines"
        return f"{lines}: {numbers} (line {first}: {why})"


def load_journal(path: str | Path, *, leave_prompts: bool = False) -> Journal:
    """A run file. A torn last line is dropped, damaged lines are left out and reported in ``damaged``.
    ``leave_prompts``: leave long prompts in the file, and read them when somebody asks for them.

    Raises JournalError for a file that cannot be read, is no journal, or is of a newer format.
    """
    with _opened(Path(path)) as stream:
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
    """Header and events of a run file, as ``load_journal`` reads them; damaged lines are left out."""
    journal = load_journal(path)
    return journal.header, journal.events


def _events(lines: Iterator[bytes], numbers: list[int], damaged: dict[int, str]) -> Iterator[tuple[Event, bytes]]:
    """The events of the lines, each with its line, and in ``numbers`` the number of that."""
    for number, line in enumerate(lines, start=2):
        if line == b"\n":
            continue
        try:
            body = _parsed(line)
        except ValueError as error:
            if line.endswith(b"\n") or len(line) >= _LONGEST:
                damaged[number] = shorten(f"no JSON: {error}", 120)
            continue  # without its end: the write was cut
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
    """The events without those that put a span into itself, begin it twice, or are deeper than any program comes."""
    parents: dict[int, int] = {}
    roots: dict[int, int] = {}  # of each span one that is above it, nearer to the root of its tree with every look
    for number, event in zip(numbers, events, strict=True):
        if type(event) not in _BEGINS:
            continue
        if event.span in parents:
            if not isinstance(event, RunStarted) or parents[event.span] != event.parent:
                damaged[number] = f"span {event.span} begins twice"
        elif event.parent and event.span in (event.parent, _root(roots, event.parent)):
            damaged[number] = f"span {event.span} is inside itself"
        else:
            parents[event.span] = event.parent
            if event.parent:
                roots[event.span] = event.parent
    depths = {0: 0}
    for number, event in zip(numbers, events, strict=True):
        depth = depths.get(event.parent)
        if (_depth(parents, depths, event.parent) if depth is None else depth) >= _DEEPEST_SPAN:
            damaged[number] = f"span {event.span} is more than {_DEEPEST_SPAN} spans deep"
    if not damaged:
        return events
    return [event for number, event in zip(numbers, events, strict=True) if number not in damaged]


def _root(roots: dict[int, int], span: int) -> int:
    while span in roots:
        above = roots[span]
        if above in roots:
            roots[span] = above = roots[above]
        span = above
    return span


def _depth(parents: dict[int, int], depths: dict[int, int], span: int) -> int:
    """How many spans a span is in, itself included; 0 for none."""
    path = []
    while span and span not in depths:
        path.append(span)
        span = parents.get(span, 0)
    depth = depths.get(span, 0)
    for inner in reversed(path):
        depth += 1
        depths[inner] = depth
    return depth


def _parsed(line: bytes) -> Any:
    """Raises ValueError for what is no JSON, or is too deep."""
    try:
        return pydantic_core.from_json(line)
    except ValueError:  # also for half of a surrogate pair, and at 200 levels
        pass
    try:
        value = json.loads(line)
    except RecursionError:
        raise ValueError("it is too deep") from None
    if _is_deep(value):
        raise ValueError(f"it has more than {_DEEPEST_VALUE} levels")
    return value


def _is_deep(value: Any) -> bool:
    level, depth = [value], 0
    while level and depth <= _DEEPEST_VALUE:
        inside: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inside += item.values()
            elif isinstance(item, list):
                inside += item
        level, depth = inside, depth + 1
    return bool(level)


def read_ends(path: str | Path) -> tuple[dict[str, Any], RunStarted | None, RunEnded | None]:
    """Header of a run file, how the run began, and how it ended, unless it was begun again since; where it has ended,
    what is between is not read, however much it is. Raises JournalError as load_journal does, of the header."""
    with _opened(Path(path)) as stream:
        lines = _lines(stream)
        header = _header(Path(path), next(lines, b""))
        starts = (_event_of(line) for line in lines if line.startswith(_mark(RunStarted)))
        began = next((event for event in starts if event is not None), None)
        return header, began, _ended(stream)


def _ended(stream: BinaryIO) -> RunEnded | None:
    """The last RunEnded, if no RunStarted comes after it; of those that were written to their end."""
    for line in _from_the_end(stream):
        if line.startswith((_mark(RunStarted), _mark(RunEnded))) and (event := _event_of(line)) is not None:
            return event if isinstance(event, RunEnded) else None
    return None


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """The lines of a file, each with its end; of one that is too long its beginning, without."""
    return stream if os.fstat(stream.fileno()).st_size < _LONGEST else _cut_lines(stream)


def _cut_lines(stream: BinaryIO) -> Iterator[bytes]:
    while line := stream.readline(_LONGEST):
        yield line
        while len(line) == _LONGEST and not line.endswith(b"\n"):
            line = stream.readline(_LONGEST)


def _from_the_end(stream: BinaryIO) -> Iterator[bytes]:
    """The lines of a file, the last one first, up to one that is too long. Read and not mapped into memory: a file that
    another process cuts meanwhile would end this one."""
    place, block, rest = stream.seek(0, os.SEEK_END), _BLOCK, b""
    while place and len(rest) < _LONGEST:
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
    """The event of a line; None for an empty one, one that was cut, and one that is damaged."""
    try:
        return from_json(_parsed(line))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    flush_journals()
    try:
        # Without waiting: a pipe of that name would be waited for until somebody writes to it.
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(fd, "rb") as stream:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise JournalError(f"cannot read {path}: it is no regular file")
            yield stream
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise JournalError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _header(path: Path, line: bytes) -> dict[str, Any]:
    try:
        header = _parsed(line)
        version = header["dspynb"]
    except (ValueError, KeyError, TypeError, IndexError):
        raise JournalError(
            f"{path} is not a dspynb run file: its first line is no header; dn.runs() lists the run files"
        ) from None
    if not isinstance(header, dict) or type(version) is not int or version < 1:
        raise JournalError(
            f"{path} is not a dspynb run file: its first line is no header; dn.runs() lists the run files"
        )
    if version > FORMAT:
        raise JournalError(f"{path} has format {version}, this version reads up to {FORMAT}; upgrade dspynb")
    return header


def cut_torn_line(path: Path) -> None:
    """Take away a last line that was not written to its end (or end it, where only that is lacking), so that the file
    can be resumed. Raises JournalError where it cannot be written."""
    try:
        with path.open("rb+") as stream:
            text = stream.read()
            tail = text[text.rfind(b"\n") + 1 :]
            if _is_whole(tail):
                stream.write(b"\n")
            else:
                stream.truncate(len(text) - len(tail))
    except OSError as error:
        raise JournalError(f"cannot resume {path}: {error.strerror}") from error


def _is_whole(line: bytes) -> bool:
    try:
        return isinstance(_parsed(line), dict)
    except ValueError:
        return False
