"""What a server sends: whole bodies up to a limit, and server-sent events by the standard of WHATWG."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any, NamedTuple

from dspynb.errors import MalformedReply

__all__ = ["EventParser", "ServerEvent", "read_body", "read_events", "read_start", "shown"]

MOST_OF_A_BODY = 64 * 2**20
"""Bytes of a body that is read whole; one that is longer is no reply."""
MOST_OF_AN_ERROR = 64 * 2**10
"""Bytes that are read of the body of an error."""
MOST_OF_A_STREAM = 256 * 2**20
"""Bytes of a stream of events, which tells each token in some hundred bytes."""
MOST_OF_AN_EVENT = 16 * 2**20
"""Bytes of one event: some servers send all of a long reply in one."""

_BOM = b"\xef\xbb\xbf"


class ServerEvent(NamedTuple):
    """One event: its ``name``, empty for most, and its ``data``, the lines of it joined."""

    name: bytes
    data: bytes


class EventParser:
    """Reads events from bytes that come in chunks, wherever these are cut. Lines end with LF, CRLF or CR."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []  # of a line that has not ended
        self._after_return = False  # the last chunk ended with CR: an LF that follows belongs to it
        self._begun = False
        self._name = b""
        self._data: list[bytes] = []
        self.pending = 0
        """Bytes of the event that has not ended."""

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """The events that end in this chunk."""
        if not chunk:
            return []
        if self._after_return and chunk[:1] == b"\n":
            chunk = chunk[1:]
        self._after_return = chunk[-1:] == b"\r"
        self.pending += len(chunk)
        if b"\n" not in chunk and b"\r" not in chunk:
            self._rest.append(chunk)
            return []
        lines = b"".join([*self._rest, chunk]).splitlines(keepends=True)
        self._rest = [] if lines[-1][-1:] in (b"\n", b"\r") else [lines.pop()]
        events = [event for line in lines if (event := self._take(line.rstrip(b"\r\n"))) is not None]
        if events or not self._data:  # comments, which keep a connection alive, are of no event
            self.pending = sum(map(len, (*self._data, *self._rest)))
        return events

    def end(self) -> list[ServerEvent]:
        """The event that the end of the stream ends: not every server closes the last one with an empty line."""
        last = [self._take(b"".join(self._rest)), self._take(b"")]
        return [event for event in last if event is not None]

    def _take(self, line: bytes) -> ServerEvent | None:
        if not self._begun:
            self._begun, line = True, line.removeprefix(_BOM)
        if not line:
            event = ServerEvent(self._name, b"\n".join(self._data)) if self._data else None
            self._name, self._data = b"", []
            return event
        field, _, value = line.partition(b":")  # a comment is a field without a name
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = value
        return None


async def read_events(chunks: AsyncIterator[bytes], facts: Mapping[str, Any]) -> AsyncGenerator[ServerEvent, None]:
    """The events of a stream. Raises MalformedReply for one that is too long."""
    parser, size = EventParser(), 0
    async for chunk in chunks:
        size += len(chunk)
        for event in parser.feed(chunk):
            yield event
        if parser.pending > MOST_OF_AN_EVENT:
            raise MalformedReply(f"a piece of the stream is too long: more than {shown(MOST_OF_AN_EVENT)}", **facts)
        if size > MOST_OF_A_STREAM:
            raise MalformedReply(f"the stream is too long: more than {shown(MOST_OF_A_STREAM)}", **facts)
    for event in parser.end():
        yield event


async def read_body(chunks: AsyncIterator[bytes], facts: Mapping[str, Any]) -> bytes:
    """The whole body. Raises MalformedReply for one that is too long."""
    body = await read_start(chunks, MOST_OF_A_BODY + 1)
    if len(body) > MOST_OF_A_BODY:
        raise MalformedReply(f"the body of the reply is too long: more than {shown(MOST_OF_A_BODY)}", **facts)
    return body


async def read_start(chunks: AsyncIterator[bytes], most: int) -> bytes:
    """At most so many bytes of a body."""
    read: list[bytes] = []
    size = 0
    async for chunk in chunks:
        read.append(chunk)
        size += len(chunk)
        if size >= most:
            break
    return b"".join(read)[:most]


def shown(size: int) -> str:
    """A number of bytes as people read it."""
    for unit, name in ((2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{size / unit:g} {name}"
    return f"{size} bytes"
