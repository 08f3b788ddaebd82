"""Tool calls in the text of a reply, as servers without a parser for tool calls pass them on."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Container, Mapping
from typing import Any

from dspynb.adapters.lenient_json import json_values

__all__ = ["calls_in_text"]

_MARKS = ("<tool_call>", "<function_call>", "[tool_calls]", "<|python_tag|>", "<function=")
"""What the chat templates of Qwen, Hermes, Granite, Mistral and Llama have before a call, in lower case."""
_NAMED_TAG = re.compile(r"<function=([\w.-]+)>(.*?)(?:</function>|$)", re.DOTALL | re.IGNORECASE)
"""Llama's ``<function=name>{…}</function>``, with the arguments alone."""
_MOST_TEXT = 100_000


def calls_in_text(text: str, tools: Container[str]) -> list[dict[str, Any]]:
    """The tool calls in a reply's text: ``{"name", "args"}`` of each.

    Read is a text with the marks of a chat template, and a text that begins with a JSON object or list. Calls of other
    names than those of ``tools`` are no calls.
    """
    begins = text.lstrip()[:1]
    lowered = text[:_MOST_TEXT].lower()
    if begins not in ("{", "[") and not any(mark in lowered for mark in _MARKS):
        return []
    calls = []
    for name, body in _NAMED_TAG.findall(text[:_MOST_TEXT]):
        if name in tools:
            arguments = _objects(body)
            calls.append({"name": name, "args": arguments[0] if arguments else {}})
    if calls:
        return calls
    for value in _objects(text[:_MOST_TEXT]):
        call = _as_call(value, tools)
        if call is not None:
            calls.append(call)
    return calls


def _objects(text: str) -> list[Any]:
    """The JSON objects in a text, up to the first that is damaged or cut off."""
    objects = []
    with contextlib.suppress(ValueError):
        for value in json_values(text):
            objects.append(value)  # noqa: PERF402  # keeps the values before an error
    return objects


def _as_call(value: Mapping[str, Any], tools: Container[str]) -> dict[str, Any] | None:
    function = value.get("function")
    fields = function if isinstance(function, Mapping) else value
    name = fields.get("name")
    if not isinstance(name, str) or name not in tools:
        return None
    for key in ("arguments", "parameters", "args"):
        if isinstance(fields.get(key), Mapping | str):
            return {"name": name, "args": fields[key]}
    return None
