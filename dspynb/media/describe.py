"""Messages with images and files, told without their data: for journals, views and histories."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from dspynb.errors import InputError, shorten
from dspynb.media.sources import from_data_url

__all__ = ["content_text", "describe_url", "facts", "has_media", "plain_url", "without_data"]


def facts(mime: str, data: bytes, name: str | None = None) -> str:
    """Type, size and digest in one line: ``<image/png, 12.3 kB, sha256 ab12cd34>``."""
    size = next(f"{len(data) / n:.1f} {unit}" for n, unit in ((1e6, "MB"), (1e3, "kB"), (1, "B")) if len(data) >= n)
    named = f"{shorten(name, 60)}, " if name else ""
    return f"<{named}{mime}, {size.replace('.0 B', ' B')}, sha256 {hashlib.sha256(data).hexdigest()[:8]}>"


def plain_url(url: str) -> str:
    """A URL as it may be shown: without user, password and query, which can hold keys."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "a URL"
    return shorten(f"{parts.scheme}://{host}{parts.path}" + ("?…" if parts.query else ""), 200)


def describe_url(url: str) -> str:
    """A URL in a few words: a data URL by type, size and digest, without its data."""
    if not url.startswith("data:"):
        return plain_url(url) if url.startswith(("http://", "https://")) else shorten(url, 200)
    try:
        data, _, mime, _ = from_data_url(url, "")
    except InputError:
        return f"<data, {len(url)} characters>"
    return facts(shorten(mime or "data", 60), data or b"")


def _told_part(part: Any) -> Any:
    """A content part, its data and URLs replaced by their description."""
    if not isinstance(part, Mapping):
        return part
    image, file = part.get("image_url"), part.get("file")
    if isinstance(image, Mapping):
        return {**part, "image_url": {**image, "url": describe_url(str(image.get("url", "")))}}
    if isinstance(file, Mapping):
        return {**part, "file": {k: describe_url(v) if isinstance(v, str) else v for k, v in file.items()}}
    return part


def _is_parts(content: Any) -> bool:
    return isinstance(content, Sequence) and not isinstance(content, str | bytes)


def has_media(messages: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a message holds more than text."""
    return any(
        isinstance(part, Mapping) and part.get("type") != "text"
        for message in messages
        if _is_parts(message.get("content"))
        for part in message["content"]
    )


def without_data(messages: tuple[Mapping[str, Any], ...]) -> tuple[Mapping[str, Any], ...]:
    """The messages with each image and file replaced by its description; the same tuple where there is none."""
    if all(isinstance(message.get("content"), str) for message in messages):
        return messages
    return tuple(
        {**message, "content": [_told_part(part) for part in message["content"]]}
        if _is_parts(message.get("content"))
        else message
        for message in messages
    )


def content_text(content: Any) -> str:
    """The content of a message as text, images and files as their description."""
    if isinstance(content, str):
        return content
    if not _is_parts(content):
        return "" if content is None else str(content)
    return "".join(_part_text(_told_part(part)) for part in content)


def _part_text(part: Any) -> str:
    if not isinstance(part, Mapping):
        return str(part)
    if isinstance(part.get("text"), str):
        return str(part["text"])
    image, file = part.get("image_url"), part.get("file")
    if isinstance(image, Mapping):
        return str(image.get("url", "<image>"))
    if isinstance(file, Mapping):
        return " ".join(str(v) for v in file.values())
    return f"<{shorten(part.get('type', 'part'), 40)}>"
