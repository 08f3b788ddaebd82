"""Calls whose replies arrive as streams: the part of a reply that views show before the call has ended.

Nothing of this is an event, and no run file has it. The event of the call has the whole reply.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from dspynb.thinking import BLANK, SERVER_TAGS, SplitReply, Tags, closing_tags, split_growing, unopened_tag

__all__ = ["StreamedCall", "StreamedCalls"]

_log = logging.getLogger("dspynb")
_numbers = itertools.count(1)
_SHORT = 10_000
"""Characters up to which a growing text is split anew each time. A longer one is split again after growth by 2 %, and
where its thinking may have ended."""
_LONGEST_TAG = 128
"""More characters than any tag has."""


class StreamedCall:
    """A call that has not ended, with the pieces of its reply so far.

    Args:
        predictor: the path of the calling predictor.
        parent: the span around the call.
        messages: the messages that were sent, with their secrets and media.
        tags: the tags that are thinking in the text of the reply.
        begins_within_thinking: whether the reply begins within its thinking, because the prompt has the opening tag.
    """

    def __init__(
        self,
        predictor: str,
        parent: int,
        messages: tuple[Mapping[str, Any], ...],
        tags: Tags = SERVER_TAGS,
        *,
        begins_within_thinking: bool = False,
    ) -> None:
        self.number = next(_numbers)
        self.predictor = predictor
        self.parent = parent
        self.messages = messages
        self.size = 0
        """The number of characters that have arrived."""
        self.runs: list[StreamedCalls] = []
        """The streamed calls of the runs around the call."""
        self._tags = tags
        self._begins_within_thinking = begins_within_thinking
        self._thinking: list[str] = []
        self._text: list[str] = []
        self._split = SplitReply("", "")
        self._split_length = 0
        self._reading = threading.Lock()

    def add_text(self, piece: str) -> None:
        """Add a piece of the text, which may contain thinking between tags."""
        self._text.append(piece)
        self._grow(len(piece))

    def add_thinking(self, piece: str) -> None:
        """Add a piece of the thinking that the provider sends beside the text."""
        self._thinking.append(piece)
        self._grow(len(piece))

    def restart(self) -> None:
        """Forget all pieces, since the request is sent again."""
        if self.size:
            with self._reading:
                self._thinking = []
                self._text = []
                self._split = SplitReply("", "")
                self._split_length = 0
            self._grow(-self.size)

    def _grow(self, characters: int) -> None:
        self.size += characters
        for calls in self.runs:
            calls.notify()

    def read(self) -> SplitReply:
        """The thinking and the text so far. ``is_finished``: whether the thinking has ended, as far as is known."""
        with self._reading:  # the views of several runs may read at the same time
            beside = _joined(self._thinking)
            split = self._split_text(_joined(self._text))
        parts = [part for part in (beside, split.thinking) if part]
        is_finished = bool(split.text.strip(BLANK)) or not (parts or split.is_finished)
        return SplitReply("\n\n".join(parts), split.text, is_finished)

    def _split_text(self, text: str) -> SplitReply:
        last = self._split
        if text and len(text) == self._split_length:
            return last
        if self._split_length > _SHORT and len(text) < self._split_length * 1.02:
            rest = text[self._split_length :]
            may_end = closing_tags(f"{last.thinking[-_LONGEST_TAG:]}{rest}", 1, self._tags)
            if not last.is_finished and may_end:
                return self._split_again(text)
            if last.is_finished:
                return last._replace(text=last.text + rest)
            return last._replace(thinking=last.thinking + rest)
        return self._split_again(text)

    def _split_again(self, text: str) -> SplitReply:
        self._split = self._split_anew(text)
        self._split_length = len(text)
        return self._split

    def _split_anew(self, text: str) -> SplitReply:
        split = split_growing(text, self._tags)
        if split.text != text:
            return split._replace(thinking=split.thinking.strip(BLANK), text=split.text.lstrip(BLANK))
        if self._begins_within_thinking:
            tags = closing_tags(text, 1, self._tags)
            if not tags:
                return SplitReply(text, "", is_finished=False)
            closing = tags[0]
        else:
            tag = unopened_tag(text, self._tags)
            if tag is None:
                return split
            closing = tag
        return SplitReply(text[: closing.start()].strip(BLANK), text[closing.end() :].lstrip(BLANK))


def _joined(pieces: list[str]) -> str:
    """The pieces as one text, which replaces them in the list. Another thread may append meanwhile."""
    count = len(pieces)
    if count == 1:
        return pieces[0]
    text = "".join(pieces[:count])
    pieces[:count] = [text]
    return text


class StreamedCalls:
    """The streamed calls of a run that have not ended, by number. Views are notified of each piece."""

    def __init__(self) -> None:
        self.pending: dict[int, StreamedCall] = {}
        self._watchers: tuple[Callable[[], object], ...] = ()

    def add(self, call: StreamedCall) -> None:
        """Add a call that has begun."""
        self.pending[call.number] = call
        call.runs.append(self)
        self.notify()

    def remove(self, call: StreamedCall) -> None:
        """Remove a call that has ended."""
        self.pending.pop(call.number, None)
        self.notify()

    def watch(self, watcher: Callable[[], object]) -> None:
        """Call ``watcher`` after each piece, in the thread of the call. It must be fast."""
        self._watchers = (*self._watchers, watcher)

    def unwatch(self, watcher: Callable[[], object]) -> None:
        """Stop calling ``watcher``."""
        self._watchers = tuple(each for each in self._watchers if each != watcher)

    def notify(self) -> None:
        """Call the watchers. One that fails is logged and removed; the call continues."""
        for watcher in self._watchers:
            try:
                watcher()
            except Exception:
                _log.exception("a view of streamed calls failed and was dropped")
                self.unwatch(watcher)
