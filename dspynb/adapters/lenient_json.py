"""Reads JSON as models write it: with single quotes, trailing commas, comments, bare keys, Python's True and None, or
prose around it.

Nothing is guessed: a text that is cut off or lacks a bracket or comma is refused. The time is linear in the length of
the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from dspynb.text_search import search

__all__ = ["json_values", "read_json", "read_loose"]

_STRICT = json.JSONDecoder(strict=False)
_STRICT_TRIES = 20  # limited, since a failure of the strict reader counts the lines of all the text before it
_MAX_STARTS = 1000  # opening brackets that are tried in one text; prose has fewer, and noise may have a million
_NOTHING: Any = object()
_OBJECT = r"\{(?=\s*(?:[\"'“}/#]|[^\W\d][\w$-]*+\s*:))"
_STARTS = {"{": re.compile(_OBJECT), "{[": re.compile(_OBJECT + r"|\[(?=\s*[^,:)}\s])")}
_LONGEST_START = 2**12
"""Characters after an opening bracket, within which a key or value must begin."""
_MAX_DEPTH = 100
_MAX_DEPTH_STRICT = 500
"""Nested lists and objects. Python 3.13 reads thousands of levels, but cannot print, copy or compare the result."""
_SKIP = re.compile(r"(?:[\s\ufeff\u200b]+|//[^\n]*|\#[^\n]*|/\*(?:[^*]|\*(?!/))*+\*/)*+")
_QUOTED = {
    '"': re.compile(r'"((?:[^"\\]|\\.)*+)"', re.DOTALL),
    "'": re.compile(r"'((?:[^'\\]|\\.)*+)'", re.DOTALL),
    "“": re.compile(r"“([^“”]*+)”"),
}
_DIGITS = r"\d++(?:_\d++)*+"  # Python allows underscores between digits
_NUMBER = re.compile(rf"[-+]?(?:{_DIGITS}(?:\.(?:{_DIGITS})?+)?|\.{_DIGITS})(?:[eE][-+]?\d++)?(?![\w.])")
_WORD = re.compile(r"[^\W\d][\w$-]*+")
_NAMED = {
    **{"true": True, "True": True, "false": False, "False": False, "null": None, "None": None},
    **{"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")},
}
_CLOSING = {"{": "}", "[": "]", "(": ")"}


class _Stopped(ValueError):
    """The text cannot be read as loose JSON. ``at``: the offset of the error; the text's length if it is cut off."""

    def __init__(self, problem: str, at: int) -> None:
        super().__init__(f"{problem} at character {at}")
        self.at = at


def read_json(text: str) -> Any:
    """Read the text as one JSON value. Strings may contain control characters. Raises ValueError."""
    try:
        value = _STRICT.decode(text)
        _check_depth(value, text.count("[") + text.count("{"))
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    return value


def read_loose(text: str) -> Any:
    """Read the text as one loose JSON value. Raises ValueError."""
    reader = _Reader(text, 0)
    value = reader.read_value()
    reader.skip_space()
    if reader.at < len(text):
        raise _Stopped("there is more after the value", reader.at)
    return value


def json_values(text: str, opening: str = "{") -> Iterator[Any]:
    """Yield the objects in a text (``opening="{"``), or the objects and arrays (``"{["``), loose ones too, in order.

    Values inside another value, or inside a damaged one, are not yielded. At most 1,000 opening brackets are tried.
    Raises ValueError, after yielding the values before it, for a value that is cut off or nested too deeply.
    """
    starts = _STARTS[opening]
    at = 0
    strict_tries = _STRICT_TRIES
    for _ in range(_MAX_STARTS):
        start = search(starts, text, at, longest=_LONGEST_START)
        if start is None:
            return
        try:
            value, at = _strict_at(text, start.start()) if strict_tries else (_NOTHING, 0)
            if value is _NOTHING:
                strict_tries = max(strict_tries - 1, 0)
                value, at = _loose_at(text, start.start())
        except _Stopped as stopped:
            if stopped.at >= len(text):
                raise
            at = max(stopped.at, start.start() + 1)
            continue
        yield value


def _strict_at(text: str, start: int) -> tuple[Any, int]:
    try:
        value, end = _STRICT.raw_decode(text, start)
        _check_depth(value, text.count("[", start, end) + text.count("{", start, end))
    except ValueError:
        return _NOTHING, start
    except RecursionError:
        raise _Stopped("the JSON is nested too deeply", len(text)) from None
    return value, end


def _check_depth(value: object, bound: int) -> None:
    """Raise RecursionError for a value that is nested too deeply. ``bound``: an upper bound of its depth."""
    if bound <= _MAX_DEPTH_STRICT:
        return
    level = [value]
    depth = 0
    while level:
        depth += 1
        if depth > _MAX_DEPTH_STRICT:
            raise RecursionError
        next_level: list[Any] = []
        for part in level:
            if isinstance(part, dict):
                next_level += part.values()
            elif isinstance(part, list):
                next_level += part
        level = next_level


def _loose_at(text: str, start: int) -> tuple[Any, int]:
    reader = _Reader(text, start)
    return reader.read_value(), reader.at


class _Reader:
    """Reads one value, starting at the offset ``at``. Each method moves ``at`` to the end of what it has read."""

    def __init__(self, text: str, at: int) -> None:
        self.text = text
        self.at = at
        self.depth = 0

    def skip_space(self) -> str:
        """Skip white space and comments. Return the next character, or an empty text at the end."""
        match = _SKIP.match(self.text, self.at)
        if match:
            self.at = match.end()
        if self.text.startswith("/*", self.at):
            raise _Stopped("a comment does not end", len(self.text))
        return self.text[self.at : self.at + 1]

    def read_value(self) -> Any:
        first = self.skip_space()
        if first in _CLOSING:
            return self.read_container(first)
        if first in _QUOTED:
            return self.read_string(first)
        match = _NUMBER.match(self.text, self.at)
        if match:
            self.at = match.end()
            return _number(match[0])
        return self.read_word()

    def read_container(self, opening: str) -> Any:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise _Stopped("the JSON is nested too deeply", len(self.text))
        self.at += 1
        items = list(self.read_items(opening))
        self.depth -= 1
        return dict(items) if opening == "{" else items

    def read_items(self, opening: str) -> Iterator[Any]:
        closing = _CLOSING[opening]
        while self.skip_space() != closing:
            yield self.read_pair() if opening == "{" else self.read_value()
            if self.skip_space() == ",":
                self.at += 1
            elif self.skip_space() != closing:
                raise _Stopped(f"expected ',' or {closing!r}", self.at)
        self.at += 1

    def read_pair(self) -> tuple[str, Any]:
        first = self.skip_space()
        key = self.read_string(first) if first in _QUOTED else self.read_bare_key()
        if self.skip_space() != ":":
            raise _Stopped("expected ':'", self.at)
        self.at += 1
        return key, self.read_value()

    def read_string(self, quote: str) -> str:
        match = _QUOTED[quote].match(self.text, self.at)
        if match is None:
            raise _Stopped("a text does not end", len(self.text))
        start = self.at
        self.at = match.end()
        try:
            return str(json.loads(f'"{_as_json(match[1], quote)}"', strict=False))
        except ValueError:
            raise _Stopped("a text has a wrong escape", start + 1) from None

    def read_bare_key(self) -> str:
        match = _WORD.match(self.text, self.at) or _NUMBER.match(self.text, self.at)
        if match is None:
            raise _Stopped("expected a key", self.at)
        self.at = match.end()
        return match[0]

    def read_word(self) -> Any:
        start = self.at
        sign = "-" if self.text.startswith("-", start) else ""
        match = _WORD.match(self.text, start + len(sign))
        name = sign + match[0] if match else ""
        if name not in _NAMED:
            raise _Stopped("expected a value", start)
        self.at = start + len(name)
        return _NAMED[name]


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        if re.search(r"[.eE]", text):
            return float(text)
        raise _Stopped(f"a number of {len(text)} digits", 0) from None


def _as_json(body: str, quote: str) -> str:
    if quote == '"':
        return body
    swapped = {"\\'": "'", '"': '\\"'}
    return re.sub(r"\\.|\"", lambda match: swapped.get(match[0], match[0]), body, flags=re.DOTALL)
