"""Reading from a server: bodies up to a size limit, and server-sent events (the WHATWG standard)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any, NamedTuple

from dspynb.errors import MalformedReply

__all__ = ["EventParser", "ServerEvent", "format_size", "read_at_most", "read_body", "read_events"]

MAX_BODY_BYTES = 64 * 2**20
"""Maximum size of the body of a reply. A longer body is an error."""
MAX_ERROR_BYTES = 64 * 2**10
"""Number of bytes that are read of the body of an error response."""
MAX_STREAM_BYTES = 256 * 2**20
"""Maximum size of an event stream, which takes some hundred bytes per token."""
MAX_EVENT_BYTES = 16 * 2**20
"""Maximum size of one event. Some servers send a long reply in a single event."""

_BOM = b"\xef\xbb\xbf"


class ServerEvent(NamedTuple):
    """One event. ``name`` is empty for most events; ``data`` is its data lines, joined by line feeds."""

    name: bytes
    data: bytes


class EventParser:
    """Parses events from chunks of bytes, which may end anywhere. Lines end with LF, CRLF or CR."""

    def __init__(self) -> None:
        self._partial_line: list[bytes] = []
        self._after_return = False  # the last chunk ended with CR: a following LF belongs to the same line end
        self._first_line = True
        self._name = b""
        self._data: list[bytes] = []
        self.pending = 0
        """Size in bytes of the event that has not ended yet."""

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """Parse a chunk and return the events that end in it."""
        if not chunk:
            return []
        if self._after_return and chunk[:1] == b"\n":
            chunk = chunk[1:]
        self._after_return = chunk[-1:] == b"\r"
        self.pending += len(chunk)
        if b"\n" not in chunk and b"\r" not in chunk:
            self._partial_line.append(chunk)
            return []
        lines = b"".join([*self._partial_line, chunk]).splitlines(keepends=True)
        self._partial_line = []
        if lines[-1][-1:] not in (b"\n", b"\r"):
            self._partial_line = [lines.pop()]
        events = []
        for line in lines:
            event = self._parse_line(line.rstrip(b"\r\n"))
            if event is not None:
                events.append(event)
        if events or not self._data:  # not for a comment, which keeps a connection alive and belongs to no event
            self.pending = sum(map(len, (*self._data, *self._partial_line)))
        return events

    def end(self) -> list[ServerEvent]:
        """Return the event that ends with the stream. Not every server closes the last event with an empty line."""
        last = [self._parse_line(b"".join(self._partial_line)), self._parse_line(b"")]
        return [event for event in last if event is not None]

    def _parse_line(self, line: bytes) -> ServerEvent | None:
        """Parse one line and return the event that it ends, if any."""
        if self._first_line:
            self._first_line = False
            line = line.removeprefix(_BOM)
        if not line:
            event = None
            if self._data:
                event = ServerEvent(self._name, b"\n".join(self._data))
            self._name = b""
            self._data = []
            return event
        field, _, value = line.partition(b":")  # a comment is a field with an empty name
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = value
        return None


async def read_events(
    chunks: AsyncIterator[bytes], error_fields: Mapping[str, Any]
) -> AsyncGenerator[ServerEvent, None]:
    """Yield the events of a stream. Raises MalformedReply, with ``error_fields``, if the stream or an event is too
    long."""
    parser = EventParser()
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        for event in parser.feed(chunk):
            yield event
        if parser.pending > MAX_EVENT_BYTES:
            raise MalformedReply(
                f"a piece of the stream is too long: more than {format_size(MAX_EVENT_BYTES)}", **error_fields
            )
        if size > MAX_STREAM_BYTES:
            raise MalformedReply(f"the stream is too long: more than {format_size(MAX_STREAM_BYTES)}", **error_fields)
    for event in parser.end():
        yield event


async def read_body(chunks: AsyncIterator[bytes], error_fields: Mapping[str, Any]) -> bytes:
    """Read a whole body. Raises MalformedReply, with ``error_fields``, if it is too long."""
    body = await read_at_most(chunks, MAX_BODY_BYTES + 1)
    if len(body) > MAX_BODY_BYTES:
        raise MalformedReply(
            f"the body of the reply is too long: more than {format_size(MAX_BODY_BYTES)}", **error_fields
        )
    return body


async def read_at_most(chunks: AsyncIterator[bytes], limit: int) -> bytes:
    """Read a body up to a number of bytes, and leave the rest unread."""
    parts: list[bytes] = []
    size = 0
    async for chunk in chunks:
        parts.append(chunk)
        size += len(chunk)
        if size >= limit:
            break
    return b"".join(parts)[:limit]


def format_size(size: int) -> str:
    """A number of bytes as text: ``64 MiB``, ``16 KiB``, ``100 bytes``."""
    for unit, name in ((2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{size / unit:g} {name}"
    return f"{size} bytes"
