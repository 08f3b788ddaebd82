"""Keeping keys out of what people read and what is written to disk."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from dspynb.errors import shorten

__all__ = [
    "holds_known",
    "is_secret_name",
    "keep_secret",
    "key_names",
    "known_secrets",
    "redact",
    "redact_growing",
    "redact_known",
    "redact_values",
    "told",
]

_NAMES = ("_API_KEY", "_TOKEN", "_SECRET", "_PASSWORD")
_SHAPES = re.compile(r"\b(?:sk|pk|rk)-[A-Za-z0-9_\-]{16,}|\bBearer\s+[A-Za-z0-9._\-]{16,}|://[^/\s:@]+:[^/\s:@]+@")
_SECRET = re.compile(r"key|secret|password|credential|header|auth|access_token|session_token|bearer", re.IGNORECASE)
_SHORTEST = 8  # a shorter value would be found in the middle of words
_FEWEST = 4  # characters at a text's end that are taken for the beginning of a secret
_LOOK_AGAIN = 1.0  # seconds between two looks at the environment

_PLAIN = frozenset({type(None), bool, int, float})
_kept: set[str] = set()
_seen: tuple[float, frozenset[str]] = (-_LOOK_AGAIN, frozenset())


def is_secret_name(name: str) -> bool:
    """Whether a setting of this name may hold a secret."""
    return _SECRET.search(name) is not None


def key_names() -> list[str]:
    """The names of the environment variables that may hold keys and are set."""
    return sorted(name for name, value in os.environ.items() if name.endswith(_NAMES) and value)


def keep_secret(*secrets: str | None) -> None:
    """Replace these, from now on, in everything this process writes or shows."""
    _kept.update(secret for secret in secrets if secret and len(secret) >= _SHORTEST)


def known_secrets() -> frozenset[str]:
    """The secrets that were named, and the keys in the environment."""
    global _seen  # noqa: PLW0603
    now = time.monotonic()
    if now - _seen[0] >= _LOOK_AGAIN or not _kept <= _seen[1]:
        keys = {v for name, v in os.environ.items() if name.endswith(_NAMES) and len(v) >= _SHORTEST}
        _seen = now, frozenset(keys | _kept)
    return _seen[1]


@lru_cache(maxsize=8)
def _written(secrets: frozenset[str]) -> list[str]:
    """The secrets as they may stand in text or in JSON, the longest first."""
    escaped = {json.dumps(secret, ensure_ascii=plain)[1:-1] for secret in secrets for plain in (True, False)}
    return sorted({*secrets, *escaped}, key=len, reverse=True)


def redact_known(text: str) -> str:
    """``text`` without the secrets this process knows, also where they stand in JSON."""
    for secret in _written(known_secrets()):
        if secret in text:
            text = text.replace(secret, "***")
    return text


def holds_known(text: bytes) -> bool:
    """Whether ``redact_known`` would change a text that is given in UTF-8."""
    return any(secret.encode("utf-8", "surrogatepass") in text for secret in _written(known_secrets()))


def redact_growing(text: str) -> str:
    """``redact_known`` for a text that grows: without its end, where that may be the beginning of a secret."""
    text = redact_known(text)
    for secret in _written(known_secrets()):
        for size in range(min(len(secret) - 1, len(text)), _FEWEST - 1, -1):
            if text.endswith(secret[:size]):
                return text[:-size]
    return text


def redact(text: str) -> str:
    """The same, and without what has the shape of a key."""
    return _SHAPES.sub("***", redact_known(text))


def told(error: BaseException, limit: int = 1000) -> str:
    """An error as a record keeps it: its type and message on one line, cut to about ``limit``, without secrets."""
    return shorten(redact(f"{type(error).__name__}: {error}"), limit)


def redact_values(value: Any, depth: int = 30) -> Any:
    """A value with ``redact_known`` applied to the texts in its dicts, lists and tuples; itself where there are none
    to replace. A value of another type that holds a secret becomes what a file would hold of it. Looks ``depth`` levels
    deep: a list may hold itself."""
    if isinstance(value, str):
        return redact_known(value)
    if value is None or not depth or _is_clean(value) or isinstance(value, int | float):
        return value
    if hasattr(value, "__next__"):  # to look into an iterator would use it up
        return value
    if isinstance(value, Mapping):
        return {name: redact_values(item, depth - 1) for name, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(redact_values(item, depth - 1) for item in value)
    return _redacted_object(value)


def _is_clean(value: Any) -> bool:
    """Whether no secret stands in a value made of texts, numbers, dicts, lists and tuples; False where it cannot tell.
    One search through all its texts: nearly every value is clean."""
    secrets = _written(known_secrets())
    if not secrets:
        return True
    texts: list[str] = []
    if not _gather((value,), texts, 30):
        return False
    whole = "\n".join(texts)
    return not any(secret in whole for secret in secrets)


def _gather(values: Iterable[Any], texts: list[str], depth: int) -> bool:
    """Add the texts in values; False for a value of another type, or one that is too deep."""
    for value in values:
        kind = type(value)
        if kind is str:
            texts.append(value)
        elif kind is dict:
            if not depth or not _gather(value.values(), texts, depth - 1):
                return False
        elif kind is tuple or kind is list:
            if not depth or not _gather(value, texts, depth - 1):
                return False
        elif kind not in _PLAIN:
            return False
    return True


def _redacted_object(value: Any) -> Any:
    from pydantic_core import to_jsonable_python

    try:
        plain = to_jsonable_python(value, fallback=repr)
    except Exception:  # circular, too deep, or it cannot be shown
        return value
    return value if (clean := redact_values(plain)) == plain else clean
