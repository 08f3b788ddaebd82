"""Structured output without the help of the server: the prompt asks for JSON in words, and the JSON is taken out of the
reply."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from dspynb.lm.protocol import Message

__all__ = ["ask_for_json", "json_in"]

_ASK = "Answer with one JSON value only, without any other text before or after it."
_OPENING_FENCE = re.compile(r"```[ \t]*+(?:json[c5]?)?[ \t]*+\r?\n", re.IGNORECASE)
_CLOSING_FENCE = re.compile(r"\n[ \t]*+```")
_MOST_FENCES = 20


def ask_for_json(messages: Sequence[Message], schema: Mapping[str, Any] | None) -> tuple[Message, ...]:
    """The messages with the instruction to answer with JSON of this schema; None for any JSON.

    It is added to the last message of the user, or to the last message of a prompt without one.
    """
    instruction = _ASK
    if schema is not None:
        instruction += f" It must be valid against this JSON schema:\n{json.dumps(schema, ensure_ascii=False)}"
    positions = [number for number, message in enumerate(messages) if message.get("role") == "user"]
    position = positions[-1] if positions else len(messages) - 1
    if position < 0 or messages[position].get("role") in ("assistant", "tool"):
        return (*messages, {"role": "user", "content": instruction})
    message = messages[position]
    extended = {**message, "content": _extended(message.get("content"), instruction)}
    return (*messages[:position], extended, *messages[position + 1 :])


def _extended(content: Any, instruction: str) -> Any:
    if isinstance(content, list | tuple):
        return [*content, {"type": "text", "text": instruction}]
    return f"{content}\n\n{instruction}" if content else instruction


def json_in(text: str) -> str:
    """The JSON in a reply: the text between the Markdown fences that many models write around it. The text itself if it
    is JSON, or if no fenced JSON is found."""
    if _is_json(text):
        return text
    position = 0
    for _ in range(_MOST_FENCES):
        opening = _OPENING_FENCE.search(text, position)
        closing = None if opening is None else _CLOSING_FENCE.search(text, opening.end() - 1)
        if opening is None or closing is None:
            break
        fenced = text[opening.end() : closing.start()].strip()
        if _is_json(fenced):
            return fenced
        position = closing.end()
    return text


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
