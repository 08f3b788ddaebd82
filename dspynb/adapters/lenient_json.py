"""JSON as models write it: single quotes, trailing commas, comments, bare keys, Python's True and None, prose around.

Nothing is guessed: what is cut off, or needs a bracket or a comma put in, is refused. Work is linear in the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["json_values", "read_json", "read_loose"]

_STRICT = json.JSONDecoder(strict=False)
_STRICT_TRIES = 20  # each failure of the strict reader counts the lines of all the text before it
_PLACES = 1000  # of a text are looked at for a value; prose has fewer, and noise may have a million
_NOTHING: Any = object()
_OBJECT = r"\{(?=\s*(?:[\"'“}/#]|[^\W\d][\w$-]*+\s*:))"
_STARTS = {"{": re.compile(_OBJECT), "{[": re.compile(_OBJECT + r"|\[(?=\s*[^,:)}\s])")}
_DEEPEST = 100
_DEEPEST_STRICT = 500
"""Lists and objects inside each other. Python 3.13 reads thousands, which nothing can then print, copy or compare."""
_SKIP = re.compile(r"(?:[\s\ufeff\u200b]+|//[^\n]*|\#[^\n]*|/\*(?:[^*]|\*(?!/))*+\*/)*+")
_QUOTED = {
    '"': re.compile(r'"((?:[^"\\]|\\.)*+)"', re.DOTALL),
    "'": re.compile(r"'((?:[^'\\]|\\.)*+)'", re.DOTALL),
    "“": re.compile(r"“([^“”]*+)”"),
}
_NUMBER = re.compile(r"[-+]?(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][-+]?\d++)?(?![\w.])")
_WORD = re.compile(r"[^\W\d][\w$-]*+")
_NAMED = {
    **{"true": True, "True": True, "false": False, "False": False, "null": None, "None": None},
    **{"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")},
}
_CLOSING = {"{": "}", "[": "]", "(": ")"}


class _Stopped(ValueError):
    """The text is no loose JSON from ``at`` on; ``at`` is its end where it was cut off."""

    def __init__(self, said: str, at: int) -> None:
        super().__init__(f"{said} at character {at}")
        self.at = at


def read_json(text: str) -> Any:
    """The text as one JSON value, control characters in strings allowed. Raises ValueError."""
    try:
        value = _STRICT.decode(text)
        _check_depth(value, text.count("[") + text.count("{"))
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    return value


def read_loose(text: str) -> Any:
    """The text as one loose JSON value. Raises ValueError."""
    reader = _Reader(text, 0)
    value = reader.value()
    reader.skip()
    if reader.at < len(text):
        raise _Stopped("there is more after the value", reader.at)
    return value


def json_values(text: str, opening: str = "{") -> Iterator[Any]:
    """Objects (``opening="{"``) or objects and arrays (``"{["``) that stand in a text, loose ones too, in order.

    A value inside another one, or inside a damaged one, is not given. Raises ValueError, after the values before it,
    for one that is cut off or nested too deeply. Looks at 1,000 places at most.
    """
    starts, at, strict = _STARTS[opening], 0, _STRICT_TRIES
    for _ in range(_PLACES):
        if (found := starts.search(text, at)) is None:
            return
        try:
            value, at = _strict_at(text, found.start()) if strict else (_NOTHING, 0)
            if value is _NOTHING:
                strict = max(strict - 1, 0)
                value, at = _loose_at(text, found.start())
        except _Stopped as stopped:
            if stopped.at >= len(text):
                raise
            at = max(stopped.at, found.start() + 1)
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


def _check_depth(value: Any, most: int) -> None:
    """Raise RecursionError for a value that is nested too deeply. ``most``: its depth is no more than that."""
    level, depth = [value], 0
    while level and most > _DEEPEST_STRICT:
        depth += 1
        if depth > _DEEPEST_STRICT:
            raise RecursionError
        level = [item for part in level if isinstance(part, dict | list) for item in _items(part)]


def _items(part: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return part.values() if isinstance(part, dict) else part


def _loose_at(text: str, start: int) -> tuple[Any, int]:
    reader = _Reader(text, start)
    return reader.value(), reader.at


class _Reader:
    """Reads one value from ``at`` on; each method leaves ``at`` behind what it read."""

    def __init__(self, text: str, at: int) -> None:
        self.text, self.at, self.depth = text, at, 0

    def skip(self) -> str:
        """Pass white space and comments; the next character, or an empty text at the end."""
        if match := _SKIP.match(self.text, self.at):
            self.at = match.end()
        if self.text.startswith("/*", self.at):
            raise _Stopped("a comment does not end", len(self.text))
        return self.text[self.at : self.at + 1]

    def value(self) -> Any:
        first = self.skip()
        if first in _CLOSING:
            return self.inside(first)
        if first in _QUOTED:
            return self.quoted(first)
        if match := _NUMBER.match(self.text, self.at):
            self.at = match.end()
            return _number(match[0])
        return self.word()

    def inside(self, opening: str) -> Any:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise _Stopped("the JSON is nested too deeply", len(self.text))
        self.at += 1
        items = list(self.items(opening))
        self.depth -= 1
        return dict(items) if opening == "{" else items

    def items(self, opening: str) -> Iterator[Any]:
        closing = _CLOSING[opening]
        while self.skip() != closing:
            yield self.pair() if opening == "{" else self.value()
            if self.skip() == ",":
                self.at += 1
            elif self.skip() != closing:
                raise _Stopped(f"expected ',' or {closing!r}", self.at)
        self.at += 1

    def pair(self) -> tuple[str, Any]:
        first = self.skip()
        key = self.quoted(first) if first in _QUOTED else self.bare()
        if self.skip() != ":":
            raise _Stopped("expected ':'", self.at)
        self.at += 1
        return key, self.value()

    def quoted(self, quote: str) -> str:
        match = _QUOTED[quote].match(self.text, self.at)
        if match is None:
            raise _Stopped("a text does not end", len(self.text))
        begun, self.at = self.at, match.end()
        try:
            return str(json.loads(f'"{_as_json(match[1], quote)}"', strict=False))
        except ValueError:
            raise _Stopped("a text has a wrong escape", begun + 1) from None

    def bare(self) -> str:
        match = _WORD.match(self.text, self.at) or _NUMBER.match(self.text, self.at)
        if match is None:
            raise _Stopped("expected a key", self.at)
        self.at = match.end()
        return match[0]

    def word(self) -> Any:
        begun = self.at
        sign = "-" if self.text.startswith("-", begun) else ""
        match = _WORD.match(self.text, begun + len(sign))
        name = sign + match[0] if match else ""
        if name not in _NAMED:
            raise _Stopped("expected a value", begun)
        self.at = begun + len(name)
        return _NAMED[name]


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text) if re.search(r"[.eE]", text) else _too_long(text)


def _too_long(text: str) -> float:
    raise _Stopped(f"a number of {len(text)} digits", 0)


def _as_json(body: str, quote: str) -> str:
    if quote == '"':
        return body
    return re.sub(r"\\.|\"", lambda found: {"\\'": "'", '"': '\\"'}.get(found[0], found[0]), body, flags=re.DOTALL)
