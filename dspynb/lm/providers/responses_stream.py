"""OpenAI's Responses format: assembling a streamed reply from its events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dspynb.data import token_count
from dspynb.errors import MalformedReply
from dspynb.lm.providers.openai_format import damaged_chunk, is_error_report, reported_error

__all__ = ["ResponseAssembler"]

_LAST_EVENTS = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")
_MOST_ITEMS = 1024
"""An event with a larger index is damaged."""
_DELTAS = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "refusal",
    "response.reasoning_summary_text.delta": "summary",
    "response.reasoning_text.delta": "reasoning",
    "response.function_call_arguments.delta": "arguments",
}
"""The events that add to an item, and what they add."""
_PARTS_OF_REASONING = {"summary": "summary_index", "reasoning": "content_index"}
"""The texts of an item that are its reasoning, and the field with the number of a part."""


class ResponseAssembler:
    """Assembles the events of a streamed reply. ``add`` returns the new text of an event, ``body`` the whole reply.

    The last event has the whole response. Where a server leaves its output empty there, it is made of the events
    before. ``has_begun``: whether a piece of the text, the reasoning, a refusal or a tool call has arrived.
    """

    def __init__(self) -> None:
        self.has_begun = False
        self._items: dict[int, _StreamedItem] = {}
        self._response: Mapping[str, Any] | None = None
        self.thinking = ""
        """The reasoning, or the summary of it, in the event that was added last."""
        self._thinking_part: tuple[Any, ...] | None = None  # the part that the last piece of reasoning belongs to

    def add(self, event: Mapping[str, Any], error_fields: Mapping[str, Any]) -> str:
        """Add an event and return the text that it adds to the reply.

        Raises a ModelError if the event is an error report of the provider, and MalformedReply if it is not in the
        Responses format. Events of unknown types are left out.
        """
        kind = event.get("type")
        self.thinking = ""
        if kind == "error" or (kind is None and is_error_report(event)):
            raise reported_error(event, error_fields)
        if not isinstance(kind, str):
            raise damaged_chunk(event, error_fields)
        if kind in _LAST_EVENTS:
            response = event.get("response")
            if not isinstance(response, Mapping):
                raise damaged_chunk(event, error_fields)
            self._response = {"status": kind.removeprefix("response."), **response}
            return ""
        if kind not in _DELTAS and kind not in ("response.output_item.added", "response.output_item.done"):
            return ""
        index = token_count(event.get("output_index") or 0)
        if index is None or index >= _MOST_ITEMS:
            raise damaged_chunk(event, error_fields)
        item = self._items.setdefault(index, _StreamedItem())
        if kind not in _DELTAS:
            if not isinstance(event.get("item"), Mapping):
                raise damaged_chunk(event, error_fields)
            item.fields = event["item"]
            item.is_done = kind.endswith("done")
            return ""
        delta = event.get("delta")
        if not isinstance(delta, str):
            raise damaged_chunk(event, error_fields)
        item.add(_DELTAS[kind], delta)
        self.has_begun = True
        if _DELTAS[kind] in _PARTS_OF_REASONING:
            self._add_thinking(index, event, delta)
        is_answer = _DELTAS[kind] == "text" and item.fields.get("phase") != "commentary"
        return delta if is_answer else ""

    def _add_thinking(self, index: int, event: Mapping[str, Any], delta: str) -> None:
        """Set ``thinking`` to a piece of reasoning, with a blank line before each part but the first. A summary of
        reasoning that has arrived itself is left out, as in the whole reply."""
        kind = _DELTAS[event["type"]]
        part = (index, kind, event.get(_PARTS_OF_REASONING[kind]))
        before = self._thinking_part
        if before is not None and kind == "summary" and before[:2] == (index, "reasoning"):
            return
        if before is not None and before != part:
            delta = f"\n\n{delta}"
        self._thinking_part = part
        self.thinking = delta

    def body(self, error_fields: Mapping[str, Any]) -> dict[str, Any]:
        """The whole reply as a response body. Raises MalformedReply if the stream ended before the reply did."""
        if self._response is None:
            raise MalformedReply("the reply ended before it was complete", **error_fields)
        body = dict(self._response)
        if not body.get("output"):
            body["output"] = [self._items[index].body() for index in sorted(self._items)]
        return body


class _StreamedItem:
    """An item of the output. ``fields``: as it was added or done."""

    def __init__(self) -> None:
        self.fields: Mapping[str, Any] = {}
        self.is_done = False
        self._texts: dict[str, list[str]] = {}

    def add(self, kind: str, delta: str) -> None:
        """Add a piece of the text, the refusal, the reasoning or the arguments."""
        self._texts.setdefault(kind, []).append(delta)

    def body(self) -> dict[str, Any]:
        """The item of a response body."""
        if self.is_done:
            return dict(self.fields)
        texts = {kind: "".join(parts) for kind, parts in self._texts.items()}
        if "arguments" in texts or self.fields.get("type") == "function_call":
            arguments = texts.get("arguments") or self.fields.get("arguments")
            return {**self.fields, "type": "function_call", "arguments": arguments}
        if "summary" in texts or "reasoning" in texts:
            parts = {"summary": [{"text": texts.get("summary", "")}], "content": [{"text": texts.get("reasoning", "")}]}
            return {**self.fields, "type": "reasoning", **parts}
        if "text" not in texts and "refusal" not in texts:
            return dict(self.fields)
        content = []
        if "text" in texts:
            content.append({"type": "output_text", "text": texts["text"]})
        if "refusal" in texts:
            content.append({"type": "refusal", "refusal": texts["refusal"]})
        return {**self.fields, "type": "message", "content": content}
