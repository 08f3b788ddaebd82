"""Reading the error responses of providers, which have many forms, into one form."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["ErrorReport", "read_report"]

_MAX_TEXT = 8_192
"""Maximum number of characters of a text that is searched for wordings."""
_LONG_WORD = re.compile(r"(\S{300})\S+")
"""A part without spaces that is too long for a wording, such as encoded data. Its end would make searches slow."""
_MAX_DEPTH = 6
_MAX_ITEMS = 20
_CODE_FIELDS = ("code", "type", "status", "error_type", "reason", "quotaId", "__type", "object")
_TEXT_FIELDS = ("message", "Message", "msg", "error", "error_message", "detail", "description")
_NESTED_FIELDS = ("errors", "details", "innererror", "inner_error", "metadata", "raw", "violations", "fieldViolations")
_NO_PARAMETER = ("", "none", "null")


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """An error of a provider.

    ``status``: the HTTP status; None if there is none, as within a stream. ``message``: the text for users; empty if
    there is none. ``text``: all texts of the response, in which wordings are searched. ``codes``: all codes and types,
    in lower case. ``parameter``: the request's field that the provider names in a field of the response, or empty.
    ``retry_after``: the seconds to wait that the body names, as Gemini's ``retryDelay`` does, or None.
    """

    status: int | None
    message: str
    text: str
    codes: frozenset[str] = frozenset()
    parameter: str = ""
    retry_after: float | None = None


def read_report(status: int | None, body: Any) -> ErrorReport:
    """Read the body of an error response, or the error event of a stream.

    The body is JSON as Python values, or a text. These forms are read: OpenAI, Azure and vLLM (``{"error":
    {"message", "type", "param", "code"}}`` or its inner part), Anthropic, Gemini (the same in a list, with
    ``details``), xAI and text-generation-inference (``{"error": "a text"}``), pydantic (``{"detail": [{"loc",
    "msg"}]}``), Mistral (that in ``message``), Bedrock and Cohere (``{"message": "a text"}``), and the forms of
    gateways that quote the JSON of another provider in a text (litellm's proxy, OpenRouter).
    """
    reader = _Reader()
    reader.read(body, 0)
    text = "\n".join(reader.texts + reader.quoted_texts)
    text = _LONG_WORD.sub(r"\1…", text[: 4 * _MAX_TEXT])[:_MAX_TEXT]
    message = reader.texts[0] if reader.texts else ""
    if len(reader.texts) > 1 and (reader.is_list or reader.is_quoted):
        message = "; ".join(dict.fromkeys(reader.texts))  # a gateway's own text says little
    if status is None:
        status = reader.status
    return ErrorReport(status, message, text, frozenset(reader.codes), reader.parameter, reader.retry_after)


class _Reader:
    """Collects the texts, codes and the parameter of a response."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.quoted_texts: list[str] = []
        self.codes: set[str] = set()
        self.parameter = ""
        self.status: int | None = None
        self.retry_after: float | None = None
        self.is_list = False
        self.is_quoted = False

    def read(self, value: Any, depth: int) -> None:
        """Read a value of the response, which may contain further values."""
        if depth > _MAX_DEPTH:
            return
        if isinstance(value, str):
            self._read_text(value, depth)
        elif isinstance(value, list | tuple):
            for item in value[:_MAX_ITEMS]:
                self.read(item, depth + 1)
        elif isinstance(value, Mapping):
            self._read_fields(value, depth)

    def _read_text(self, text: str, depth: int) -> None:
        if not text.strip():
            return
        start, quoted = _quoted_json(text)
        if quoted is None:
            self.texts.append(text)
            return
        if start:  # a text before the JSON
            self.texts.append(text)
            inner = _Reader()
            inner.read(quoted, depth + 1)
            self.quoted_texts += inner.texts
            self.codes |= inner.codes
            self.parameter = self.parameter or inner.parameter
            if self.retry_after is None:
                self.retry_after = inner.retry_after
            return
        self.read(quoted, depth + 1)

    def _read_fields(self, fields: Mapping[str, Any], depth: int) -> None:
        for name in _CODE_FIELDS:
            self._read_code(fields.get(name))
        if not self.parameter:
            self.parameter = _parameter(fields)
        if self.retry_after is None:
            self.retry_after = _delay(fields.get("retryDelay"))
        if isinstance(fields.get("msg"), str) and isinstance(fields.get("loc"), list | tuple):
            self.is_list = True
            self.texts.append(f"{_place(fields['loc'])}: {fields['msg']}")
            return
        for name in _TEXT_FIELDS:
            self.read(fields.get(name), depth + 1)
        for name in _NESTED_FIELDS:
            count = len(self.texts)
            self.read(fields.get(name), depth + 1)
            if name == "raw" and len(self.texts) > count:
                self.is_quoted = True

    def _read_code(self, code: Any) -> None:
        if isinstance(code, bool) or not isinstance(code, str | int):
            return
        self.codes.add(str(code).lower()[:200])
        digits = str(code)
        if self.status is None and digits.isdecimal() and len(digits) == 3 and 400 <= int(digits) < 600:
            self.status = int(digits)


def _delay(text: Any) -> float | None:
    """A duration in the form of Google's APIs, ``34.07s``, in seconds."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)s", text) if isinstance(text, str) else None
    if match is None:
        return None
    return float(match[1])


def _parameter(fields: Mapping[str, Any]) -> str:
    """The parameter that an error names: OpenAI's ``param``, pydantic's ``loc``."""
    name = fields.get("param") or fields.get("parameter")
    if isinstance(name, str):
        return "" if name.strip().lower() in _NO_PARAMETER else name.strip()
    if isinstance(fields.get("loc"), list | tuple):
        return _place(fields["loc"])
    return ""


def _place(location: Any) -> str:
    """A pydantic location as text, without ``body``: ``response_format.type``."""
    parts = [str(part) for part in location[:_MAX_ITEMS] if part != "body"]
    return ".".join(parts)


def _quoted_json(text: str) -> tuple[int, Any]:
    """The first JSON object or list in a text, with its position. ``(0, None)`` if there is none."""
    text = text[:_MAX_TEXT]
    for bracket in ("{", "[{"):
        start = text.find(bracket)
        if start < 0:
            continue
        try:
            value, _ = json.JSONDecoder().raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        if value and isinstance(value, dict | list):
            return start, value
    return 0, None
