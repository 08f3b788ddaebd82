"""Messages, replies and tools in the form of the conventions. They are content: sent only if a user asks for it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from dspynb.events import PredictorCalled, plain
from dspynb.running.otel.names import without_surrogates

__all__ = [
    "as_json",
    "finish_text",
    "input_messages",
    "output_messages",
    "tool_call_ids",
    "tool_definitions",
    "tool_descriptions",
]

_FINISH_REASONS = {"tool_calls": "tool_call", "function_call": "tool_call", "tool_use": "tool_call"}


def as_json(value: object) -> str:
    """A value as JSON text. NaN and infinity, which JSON does not have, become texts."""
    value = plain(value)
    try:
        text = json.dumps(value, default=repr, ensure_ascii=False, allow_nan=False)
    except ValueError:
        value = json.loads(json.dumps(value, default=repr), parse_constant=str)
        text = json.dumps(value, ensure_ascii=False)
    return without_surrogates(text)


def input_messages(call: PredictorCalled) -> list[Mapping[str, Any]]:
    """The messages of a request."""
    return [_input_message(message) for message in call.messages]


def output_messages(call: PredictorCalled) -> list[Mapping[str, Any]]:
    """The reply, one message for each completion. The first has the reasoning and the tool calls."""
    texts = call.completions or (call.reply or "",)
    finish = finish_text(call.finish)
    if finish is not None:
        finish = _FINISH_REASONS.get(finish, finish)
    messages: list[Mapping[str, Any]] = []
    for number, text in enumerate(texts):
        parts: list[Mapping[str, Any]] = []
        if number == 0 and call.reasoning:
            parts.append({"type": "reasoning", "content": call.reasoning})
        if text or not (call.tool_calls or parts):
            parts.append({"type": "text", "content": text})
        if number == 0:
            parts += _tool_call_parts(call.tool_calls)
        message = {"role": "assistant", "parts": parts}
        if finish is not None:
            message["finish_reason"] = finish
        messages.append(message)
    return messages


def finish_text(finish: object) -> str | None:
    """A finish reason as text; None for none. Models of users may have an enumeration."""
    if finish is None or isinstance(finish, str):
        return finish or None
    return str(getattr(finish, "value", finish))


def tool_definitions(call: PredictorCalled) -> list[Mapping[str, Any]]:
    """The descriptions of the tools of a request."""
    definitions: list[Mapping[str, Any]] = []
    for tool in call.tools:
        function = tool.get("function")
        facts = function if isinstance(function, Mapping) else tool
        definition: dict[str, Any] = {"type": str(tool.get("type") or "function"), "name": str(facts.get("name") or "")}
        for name in ("description", "parameters"):
            if facts.get(name) is not None:
                definition[name] = facts[name]
        definitions.append(definition)
    return definitions


def tool_descriptions(call: PredictorCalled) -> dict[str, str]:
    """Name → description of the tools of a request."""
    definitions = tool_definitions(call)
    return {definition["name"]: str(definition.get("description") or "") for definition in definitions}


def tool_call_ids(call: PredictorCalled) -> list[tuple[str, str]]:
    """(name, id) of each tool call of a reply that has an id."""
    parts = _tool_call_parts(call.tool_calls)
    return [(part["name"], part["id"]) for part in parts if isinstance(part["id"], str) and part["id"]]


def _input_message(message: Mapping[str, Any]) -> Mapping[str, Any]:
    role = str(message.get("role") or "user")
    content = message.get("content")
    if role == "tool":
        response = {"type": "tool_call_response", "id": message.get("tool_call_id"), "response": content}
        return {"role": role, "parts": [response]}
    parts: list[Mapping[str, Any]] = []
    for name in ("reasoning_content", "reasoning"):
        if isinstance(message.get(name), str) and message[name]:
            parts.append({"type": "reasoning", "content": message[name]})
            break
    if isinstance(content, list | tuple):
        parts += [_content_part(part) for part in content]
    elif content is not None:
        parts.append({"type": "text", "content": str(content)})
    tool_calls = message.get("tool_calls")
    if isinstance(tool_calls, list | tuple):
        parts += _tool_call_parts(tool_calls)
    return {"role": role, "parts": parts}


def _content_part(part: object) -> Mapping[str, Any]:
    """A part of a message. Images and files have a description in place of their data."""
    if not isinstance(part, Mapping):
        return {"type": "text", "content": str(part)}
    if isinstance(part.get("text"), str):
        return {"type": "text", "content": part["text"]}
    return {**part, "type": str(part.get("type") or "other")}


def _tool_call_parts(tool_calls: Any) -> list[Mapping[str, Any]]:
    return [_tool_call_part(call) for call in tool_calls if isinstance(call, Mapping)]


def _tool_call_part(call: Mapping[str, Any]) -> Mapping[str, Any]:
    function = call.get("function")
    facts = function if isinstance(function, Mapping) else call
    arguments = facts.get("arguments")
    if isinstance(arguments, str):
        with contextlib.suppress(ValueError):  # a model may write arguments that are no JSON: they are sent as text
            arguments = json.loads(arguments)
    return {"type": "tool_call", "id": call.get("id"), "name": str(facts.get("name") or ""), "arguments": arguments}
