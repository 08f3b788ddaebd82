"""Assembling a streamed reply from its chunks, in OpenAI's chat completion format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dspynb.data import token_count
from dspynb.errors import MalformedReply
from dspynb.lm.protocol import LMReply, is_complete
from dspynb.lm.providers.openai_format import (
    damaged_chunk,
    is_error_report,
    read_content,
    read_reasoning,
    reported_error,
)

__all__ = ["ReplyAssembler"]

_NAMES = ("id", "model")
"""Fields of the chunks that belong to the reply. Not every chunk has them."""
_MOST_CHOICES = 1024
"""A chunk with a larger index is damaged."""


class ReplyAssembler:
    """Assembles the chunks of a streamed reply. ``add`` returns the new text of a chunk, ``body`` the whole reply.

    With ``n`` > 1, the chunks of several completions are mixed. The text of the first one is streamed.

    ``shares_finish``: whether the stream has one finish reason for all completions, as litellm's streams have. The last
    one then counts for every completion without its own. ``has_begun``: whether a piece of the text, the reasoning, a
    refusal or a tool call has arrived.
    """

    def __init__(self, *, shares_finish: bool = False) -> None:
        self._shares_finish = shares_finish
        self._choices: dict[int, _StreamedChoice] = {0: _StreamedChoice()}
        self.thinking = ""
        """The thinking beside the text in the chunk that was added last, of the first completion."""
        self._usage: Any = None
        self._service_tier: Any = None
        self._names: dict[str, Any] = {}
        self.has_begun = False

    def add(self, chunk: Mapping[str, Any], error_fields: Mapping[str, Any]) -> str:
        """Add a chunk and return the text that it adds to the first completion.

        Raises a ModelError if the chunk is an error report of the provider, and MalformedReply if it is not in OpenAI's
        format.
        """
        if is_error_report(chunk):
            raise reported_error(chunk, error_fields)
        self._usage = chunk.get("usage") or self._usage
        self.thinking = ""
        self._service_tier = chunk.get("service_tier") or self._service_tier
        if len(self._names) < len(_NAMES):
            self._names |= {name: chunk[name] for name in _NAMES if chunk.get(name)}
        choices = chunk.get("choices")
        if not isinstance(choices, list | tuple | None):
            raise damaged_chunk(chunk, error_fields)
        texts = []
        for choice in choices or ():
            index = _choice_index(choice)
            if index is None:
                raise damaged_chunk(chunk, error_fields)
            streamed = self._choices.setdefault(index, _StreamedChoice())
            text = streamed.add(choice)
            if text is None:
                raise damaged_chunk(chunk, error_fields)
            self.has_begun = self.has_begun or streamed.has_begun
            if index == 0:
                texts.append(text)
                self.thinking += streamed.reasoning
        return "".join(texts)

    def body(self, error_fields: Mapping[str, Any]) -> dict[str, Any]:
        """The whole reply as a response body. Raises MalformedReply if the stream ended before the first completion
        did. Another completion that did not end is left out."""
        if self._shares_finish:
            self._share_finish()
        if self._choices[0].finish is None:
            raise MalformedReply("the reply ended before it was complete", **error_fields)
        bodies = []
        for index in sorted(self._choices):
            choice = self._choices[index]
            if choice.finish is not None:
                bodies.append(choice.body())
        return {**self._names, "choices": bodies, "usage": self._usage, "service_tier": self._service_tier}

    def _share_finish(self) -> None:
        finishes = [choice.finish for choice in self._choices.values() if choice.finish is not None]
        if not finishes:
            return
        for choice in self._choices.values():
            if choice.finish is None:
                choice.finish = finishes[-1]


def _choice_index(choice: Any) -> int | None:
    """The index of a choice; None if the choice is not in OpenAI's format."""
    if not isinstance(choice, Mapping):
        return None
    index = token_count(choice.get("index") or 0)  # 0.0 counts as 0
    return index if index is not None and index < _MOST_CHOICES else None


class _StreamedChoice:
    """One completion of a streamed reply."""

    def __init__(self) -> None:
        self.finish: str | None = None
        self.reasoning = ""
        """The reasoning in the piece that was added last."""
        self.has_begun = False
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._logprobs: dict[str, list[Any]] = {}
        self._calls: dict[int, dict[str, Any]] = {}
        self._arguments: dict[int, list[str]] = {}

    def add(self, choice: Mapping[str, Any]) -> str | None:
        """Add a piece and return its text; None if it is not in OpenAI's format."""
        finish = choice.get("finish_reason")
        delta = choice.get("delta")
        if delta is None:
            delta = {}
            if choice.get("message") or choice.get("text"):  # another format, whose text would be lost
                return None
        if not isinstance(finish, str | None) or not isinstance(delta, Mapping):
            return None
        if self.finish is None or is_complete(LMReply("", finish=self.finish)):  # an incomplete finish is not replaced
            self.finish = finish or self.finish
        content = read_content(delta.get("content"))
        refusal = delta.get("refusal")
        calls = delta.get("tool_calls")
        if content is None or not isinstance(refusal, str | None) or not isinstance(calls, list | tuple | None):
            return None
        self.reasoning = read_reasoning(delta) or content.reasoning
        self._reasoning.append(self.reasoning)
        self._refusal.append(refusal or content.refusal)
        if content.text or self.reasoning or refusal or content.refusal or calls:
            self.has_begun = True
        self._add_logprobs(choice.get("logprobs"))
        if not all(map(self._add_call, calls or ())):
            return None
        self._texts.append(content.text)
        return content.text

    def _add_logprobs(self, logprobs: Any) -> None:
        """Add the log probabilities of a piece: lists by name, such as those of the tokens of the content."""
        if not isinstance(logprobs, Mapping):
            return
        for name, values in logprobs.items():
            if isinstance(values, list | tuple):
                self._logprobs.setdefault(name, []).extend(values)

    def _add_call(self, part: Any) -> bool:
        """Add a part of a tool call. Returns False if it is not in OpenAI's format."""
        if not isinstance(part, Mapping):
            return False
        index = part.get("index") or 0
        function = part.get("function")
        if function is None:
            function = {}
        if not isinstance(index, int) or not isinstance(function, Mapping):
            return False
        texts = (part.get("id"), part.get("type"), function.get("name"), function.get("arguments"))
        if not all(isinstance(text, str | None) for text in texts):
            return False
        call = self._calls.setdefault(index, {"type": "function", "function": {}})
        call.update({name: part[name] for name in ("id", "type") if part.get(name)})
        if function.get("name"):
            call["function"]["name"] = function["name"]
        self._arguments.setdefault(index, []).append(function.get("arguments") or "")
        return True

    def body(self) -> dict[str, Any]:
        """The completion as a choice of a response body."""
        for index, call in self._calls.items():
            call["function"]["arguments"] = "".join(self._arguments[index])
        message = {
            "content": "".join(self._texts),
            "tool_calls": [self._calls[index] for index in sorted(self._calls)],
            "reasoning_content": "".join(self._reasoning) or None,
            "refusal": "".join(self._refusal) or None,
        }
        return {"message": message, "finish_reason": self.finish, "logprobs": self._logprobs or None}
