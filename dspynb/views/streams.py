"""What a view shows of a call whose reply is arriving: its prompt, and the thinking and the text so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

from dspynb.media.describe import content_text, without_data
from dspynb.redact import known_secrets, redact_growing, redact_values
from dspynb.running.streamed_calls import StreamedCall
from dspynb.views.details import MOST, Block, LiveCall, make_block
from dspynb.views.texts import clip, visible

__all__ = ["LiveRow", "live_row", "stream_blocks"]

_WORDS = 90
"""Characters of the last words of a text in a detail."""
_SHORT_WORDS = 42
"""The same in the line of a row, whose cell has two short lines."""
_LONGEST_SECRET = 4_000
"""Characters before the part of a text that is shown, so that a secret that begins in them is recognized."""
_MOST_CALLS = 8
"""Streamed calls of one row whose texts are shown."""
_WAITING = "waiting for the first words"


class LiveRow(TypedDict, total=False):
    """The calls of a row that are being streamed. ``line`` is empty when all of them have ended; ``calls`` is sent only
    for rows whose details a page has requested."""

    line: str
    calls: list[LiveCall]


def live_row(streams: Sequence[StreamedCall], *, with_texts: bool = False) -> LiveRow:
    """What is sent about the streamed calls of a row. The line is about the call that began last."""
    line = _line(streams[-1])
    if len(streams) > 1:
        line = f"{len(streams):,} calls · {line}"
    if not with_texts:
        return {"line": line}
    return {"line": line, "calls": [_live_call(stream) for stream in streams[-_MOST_CALLS:]]}


def stream_blocks(streams: Sequence[StreamedCall]) -> list[Block]:
    """The blocks of a detail for calls that are being streamed: the messages that were sent, and the reply so far."""
    blocks = []
    for stream in streams[-_MOST_CALLS:]:
        name = clip(stream.predictor, 200)
        messages: Any = redact_values(without_data(stream.messages))
        for message in messages:
            role = str(message.get("role", "message"))
            blocks.append(make_block("sent", name, f"{name} · {role}", content_text(message.get("content"))))
        block = make_block("live", name, name, "")
        block["live"] = _live_call(stream)
        blocks.append(block)
    return blocks


def _live_call(stream: StreamedCall) -> LiveCall:
    thinking, text, _ = stream.read()
    return {
        "id": stream.number,
        "of": clip(stream.predictor, 200),
        "characters": len(thinking),
        "line": _last_words(thinking),
        "thinking": _tail(thinking),
        "reply": _tail(text),
    }


def _line(stream: StreamedCall) -> str:
    """The state of a call in one line: whether it thinks or writes its reply, how far it is, and its last words."""
    thinking, text, is_finished = stream.read()
    shown = text if is_finished else thinking
    words = _last_words(shown, _SHORT_WORDS)
    if not words:
        return _WAITING
    what = "reply" if is_finished else "thinking"
    return f"{what} · {len(shown):,} characters · {words}"


def _last_words(text: str, most: int = _WORDS) -> str:
    end = _redacted_end(text, 2 * most + 1)
    words = visible(" ".join(end[-2 * most :].split()))
    if len(words) <= most and len(end) <= 2 * most:
        return words
    last = words[-most:]
    _, space, rest = last.partition(" ")
    return f"… {rest}" if space else f"…{last}"


def _tail(text: str) -> str:
    """The end of a growing text without secrets. A longer text begins with the number of characters that were cut."""
    shown = _redacted_end(text, MOST)
    if len(text) <= MOST:
        return clip(shown, MOST)
    return f"[{len(text) - MOST:,} earlier characters] … {clip(shown[-MOST:], MOST)}"


def _redacted_end(text: str, most: int) -> str:
    """At most ``most`` characters of the end of a growing text, without secrets. All of a text that is not longer."""
    if len(text) <= most + _LONGEST_SECRET:
        return redact_growing(text)[-max(most, len(text)) :]
    end = redact_growing(text[-most - _LONGEST_SECRET :])
    # The beginning may be the end of a secret, which is not recognized: of a known one, or of one with a usual shape.
    longest = 4 * max(map(len, known_secrets()), default=0)  # four characters for one in the longest spelling
    rest = end[min(longest, _LONGEST_SECRET) :]
    word, space, further = rest.partition(" ")
    return further if space and len(word) < _LONGEST_SECRET else rest
