"""OpenAI's Responses format: request bodies, made of messages and settings in the form of chat completions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from dspynb.errors import ConfigurationError
from dspynb.lm.protocol import LMRequest, Message
from dspynb.lm.providers.error_report import ErrorReport

__all__ = ["OWN_FIELDS", "REASONING_ITEMS", "REFUSED_SETTINGS", "in_words_of_chat", "responses_body"]

REFUSED_SETTINGS = frozenset(
    {"n", "seed", "stop", "logit_bias", "presence_penalty", "frequency_penalty", "functions", "function_call"}
    | {"modalities", "audio", "prediction", "web_search_options"}
)
"""The settings of chat completions that the Responses API does not have."""
REASONING_ITEMS = "reasoning_items"
"""The key of a tool call for the encrypted reasoning before it. A later request hands it back before the call."""
OWN_FIELDS = frozenset({"include", "store"})
"""Fields that a request has without being asked for. A server that refuses one gets requests without it."""

_LIMITS = ("max_completion_tokens", "max_tokens")
_ENCRYPTED_REASONING = "reasoning.encrypted_content"
_LOGPROBS = "message.output_text.logprobs"
_MERGED = ("reasoning", "text")
"""Fields of extra_body that are merged with those of the settings."""


def responses_body(
    remote: str, request: LMRequest, settings: Mapping[str, Any], left_out: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """The JSON body of a request, without its rollout.

    ``remote``: the model's name at the provider. ``settings``: with the names of chat completions. ``left_out``: those
    of ``OWN_FIELDS`` that are not sent. Raises ConfigurationError if both the settings and the request have tools.

    System messages stay among the items of the input: JSON mode wants the word "json" there, and does not look at
    ``instructions``.
    """
    body: dict[str, Any] = {"model": remote, "input": list(_input_items(request.messages)), "store": False}
    include = [_ENCRYPTED_REASONING]
    for name, value in settings.items():
        if name in _LIMITS:
            body["max_output_tokens"] = value
        elif name == "reasoning_effort":
            body["reasoning"] = {"effort": value}
        elif name == "verbosity":
            body["text"] = {**body.get("text", {}), "verbosity": value}
        elif name == "logprobs":
            include += [_LOGPROBS] if value else []
        elif name in _CONVERTED:
            if value is not None:
                _CONVERTED[name](body, value)
        elif name != "extra_body":
            body[name] = value
    _add_tools_and_format(body, request, settings)
    if body.get("top_logprobs") and _LOGPROBS not in include:
        include.append(_LOGPROBS)
    body["include"] = include
    if "include" in left_out:
        body["include"] = include[1:]
    if "store" in left_out and "store" not in settings:
        del body["store"]
    _merge_extra_body(body, settings.get("extra_body") or {})
    if not body["include"]:
        del body["include"]
    return body


def _add_tools_and_format(body: dict[str, Any], request: LMRequest, settings: Mapping[str, Any]) -> None:
    if request.tools:
        if body.get("tools") or (settings.get("extra_body") or {}).get("tools"):
            raise ConfigurationError("both the settings and the request have tools: give them in one place")
        body["tools"] = [_tool(tool) for tool in request.tools]
    if request.response_format is not None and "format" not in body.get("text", {}):
        schema = {"type": "json_schema", "name": "reply", "schema": dict(request.response_format)}
        body["text"] = {**body.get("text", {}), "format": schema}


def _merge_extra_body(body: dict[str, Any], extra_body: Mapping[str, Any]) -> None:
    for name, value in extra_body.items():
        if name in _MERGED and isinstance(value, Mapping):
            body[name] = {**(body.get(name) or {}), **value}
        elif name == "include" and isinstance(value, list | tuple):
            body[name] = list(dict.fromkeys([*body[name], *value]))
        else:
            body[name] = value


# ── messages ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def _input_items(messages: Iterable[Message]) -> Iterator[Mapping[str, Any]]:
    """The items of the input for the messages of a conversation. An item without a role stays as it is."""
    for message in messages:
        role = message.get("role")
        if role is None:
            yield dict(message)
        elif role == "assistant":
            yield from _items_of_assistant(message)
        elif role == "tool":
            output = _content(message.get("content"))
            yield {"type": "function_call_output", "call_id": message.get("tool_call_id"), "output": output}
        else:
            yield {"role": role, "content": _content(message.get("content"))}


def _items_of_assistant(message: Message) -> Iterator[Mapping[str, Any]]:
    """The reasoning, the text and the tool calls of a message of the model, in the order in which it wrote them."""
    calls = message.get("tool_calls") or ()
    reasoning = [_reasoning_items(call) for call in calls]
    if reasoning:
        yield from reasoning[0]
    text = _assistant_text(message)
    if text or not calls:
        yield {"role": "assistant", "content": text}
    for number, call in enumerate(calls):
        if number > 0:
            yield from reasoning[number]
        function = call.get("function") or {}
        yield {
            "type": "function_call",
            "call_id": call.get("id"),
            "name": function.get("name"),
            "arguments": function.get("arguments") or "{}",
        }


def _reasoning_items(call: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    items = call.get(REASONING_ITEMS)
    return list(items) if isinstance(items, list | tuple) else []


def _assistant_text(message: Message) -> str:
    """The text of a message of the model. Its parts would need the id of the reply that they come from."""
    content = message.get("content") or message.get("refusal") or ""
    if isinstance(content, str):
        return content
    texts = []
    for part in content:
        text = part if isinstance(part, str) else part.get("text") or part.get("refusal")
        if isinstance(text, str):
            texts.append(text)
    return "".join(texts)


def _content(content: Any) -> Any:
    """The content of a message: a text, or a list of parts."""
    if content is None:
        return ""
    if isinstance(content, str) or not isinstance(content, list | tuple):
        return content
    return [_part(part) for part in content]


def _part(part: Any) -> Any:
    """A part of a message: text, image or file. A part of another type stays as it is."""
    if isinstance(part, str):
        return {"type": "input_text", "text": part}
    if not isinstance(part, Mapping):
        return part
    kind = part.get("type")
    if kind == "text":
        return {"type": "input_text", "text": part.get("text")}
    if kind == "image_url":
        image = part.get("image_url")
        fields = image if isinstance(image, Mapping) else {"url": image}
        return {"type": "input_image", "image_url": fields.get("url"), "detail": fields.get("detail") or "auto"}
    if kind == "file" and isinstance(part.get("file"), Mapping):
        return {"type": "input_file", **_file_fields(part["file"])}
    return part


def _file_fields(file: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a file. The chat form has no field for a URL, so that ``dn.File`` writes it as the id."""
    file_id = file.get("file_id")
    if isinstance(file_id, str) and file_id.startswith(("http://", "https://")):
        return {"file_url": file_id}
    return {name: file[name] for name in ("file_id", "filename", "file_data") if file.get(name) is not None}


# ── tools and the format of the reply ─────────────────────────────────────────────────────────────────────────────────
def _tool(tool: Any) -> Any:
    """The description of a tool. A tool in the Responses form, or of the provider, stays as it is."""
    if not isinstance(tool, Mapping):
        return tool
    kind = tool.get("type")
    function = tool.get("function")
    if kind == "function" and isinstance(function, Mapping):
        no_parameters = {"type": "object", "properties": {}}
        defaults = {"parameters": no_parameters, "strict": False}  # left out, `strict` would be true here
        return {"type": "function", **defaults, **function}
    if kind == "custom" and isinstance(tool.get("custom"), Mapping):
        return {"type": "custom", **tool["custom"]}
    return tool


def _set_tools(body: dict[str, Any], tools: Any) -> None:
    body["tools"] = [_tool(tool) for tool in tools]


def _set_tool_choice(body: dict[str, Any], choice: Any) -> None:
    body["tool_choice"] = _without_envelope(choice)
    if isinstance(choice, Mapping) and isinstance(choice.get("allowed_tools"), Mapping):
        allowed = choice["allowed_tools"]
        tools = [_without_envelope(tool) for tool in allowed.get("tools") or ()]
        body["tool_choice"] = {"type": "allowed_tools", **allowed, "tools": tools}


def _without_envelope(choice: Any) -> Any:
    """A tool by name: ``{"type": "function", "name": "f"}`` for ``{"type": "function", "function": {"name": "f"}}``."""
    if not isinstance(choice, Mapping):
        return choice
    for kind in ("function", "custom"):
        if isinstance(choice.get(kind), Mapping):
            return {"type": kind, **choice[kind]}
    return choice


def _set_format(body: dict[str, Any], response_format: Any) -> None:
    text_format = response_format
    if isinstance(response_format, Mapping) and isinstance(response_format.get("json_schema"), Mapping):
        text_format = {"type": "json_schema", "name": "reply", **response_format["json_schema"]}
    body["text"] = {**body.get("text", {}), "format": text_format}


_CONVERTED = {"tools": _set_tools, "tool_choice": _set_tool_choice, "response_format": _set_format}


# ── refusals ──────────────────────────────────────────────────────────────────────────────────────────────────────────
_NAMES_IN_CHAT = (
    ("text.format", "response_format"),
    ("text.verbosity", "verbosity"),
    ("reasoning.effort", "reasoning_effort"),
    ("reasoning.summary", "reasoning_summary"),
    ("message.output_text.logprobs", "logprobs"),
)

_NO_ENCRYPTION = re.compile(r"encrypted content is not supported", re.IGNORECASE)
"""OpenAI: Encrypted content is not supported with this model. (issue: pydantic/pydantic-ai#2865)"""


def in_words_of_chat(report: ErrorReport) -> ErrorReport:
    """An error response with the names that settings have in chat completions, which the rules for refusals know."""
    text = report.text
    parameter = report.parameter
    if _NO_ENCRYPTION.search(text):
        return replace(report, parameter="include")
    for name, chat_name in _NAMES_IN_CHAT:
        text = text.replace(name, chat_name)
        if parameter.startswith(name):
            parameter = chat_name
    return replace(report, text=text, parameter=parameter)
