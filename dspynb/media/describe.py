"""Descriptions of images and files without their data, for run files, views and the call history."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from dspynb.errors import InputError, shorten
from dspynb.media.sources import from_data_url

__all__ = ["content_text", "describe_data", "describe_url", "has_media", "public_url", "without_data"]


def describe_data(mime: str, data: bytes, name: str | None = None) -> str:
    """Describe content by name, type, size and digest: ``<cat.png, image/png, 12.3 kB, sha256 ab12cd34>``."""
    size = len(data)
    if size >= 1e6:
        size_text = f"{size / 1e6:.1f} MB"
    elif size >= 1e3:
        size_text = f"{size / 1e3:.1f} kB"
    else:
        size_text = f"{size} B"
    prefix = f"{shorten(name, 60)}, " if name else ""
    return f"<{prefix}{mime}, {size_text}, sha256 {hashlib.sha256(data).hexdigest()[:8]}>"


def public_url(url: str) -> str:
    """A URL without user, password and query, which may contain keys."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "a URL"
    query = "?…" if parts.query else ""
    return shorten(f"{parts.scheme}://{host}{parts.path}{query}", 200)


def describe_url(url: str) -> str:
    """A URL without secrets; for a data URL, the description of its data."""
    if url.startswith(("http://", "https://")):
        return public_url(url)
    if not url.startswith("data:"):
        return shorten(url, 200)
    try:
        data, _, mime, _ = from_data_url(url, "")
    except InputError:
        return f"<data, {len(url)} characters>"
    return describe_data(shorten(mime or "data", 60), data or b"")


def _describe_part(part: object) -> Any:
    """A copy of a content part, with data and URLs replaced by their descriptions."""
    if not isinstance(part, Mapping):
        return part
    image = part.get("image_url")
    if isinstance(image, Mapping):
        return {**part, "image_url": {**image, "url": describe_url(str(image.get("url", "")))}}
    file = part.get("file")
    if isinstance(file, Mapping):
        fields = dict(file)
        for name, value in file.items():
            if isinstance(value, str):
                fields[name] = describe_url(value)
        return {**part, "file": fields}
    return part


def _is_list_of_parts(content: object) -> bool:
    return isinstance(content, Sequence) and not isinstance(content, str | bytes)


def has_media(messages: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a message contains anything other than text."""
    for message in messages:
        if _is_list_of_parts(message.get("content")):
            for part in message["content"]:
                if isinstance(part, Mapping) and part.get("type") != "text":
                    return True
    return False


def without_data(messages: tuple[Mapping[str, Any], ...]) -> tuple[Mapping[str, Any], ...]:
    """Copies of messages, with each image and file replaced by its description. Returns the same tuple if all contents
    are texts."""
    for message in messages:
        if not isinstance(message.get("content"), str):
            break
    else:  # as in nearly every call
        return messages
    described: list[Mapping[str, Any]] = []
    for message in messages:
        if _is_list_of_parts(message.get("content")):
            described.append({**message, "content": [_describe_part(part) for part in message["content"]]})
        else:
            described.append(message)
    return tuple(described)


def content_text(content: Any) -> str:
    """The content of a message as one text, with descriptions of images and files."""
    if isinstance(content, str):
        return content
    if _is_list_of_parts(content):
        return "".join(_part_text(_describe_part(part)) for part in content)
    return "" if content is None else str(content)


def _part_text(part: object) -> str:
    if not isinstance(part, Mapping):
        return str(part)
    if isinstance(part.get("text"), str):
        return str(part["text"])
    image = part.get("image_url")
    if isinstance(image, Mapping):
        return str(image.get("url", "<image>"))
    file = part.get("file")
    if isinstance(file, Mapping):
        return " ".join(str(value) for value in file.values())
    return f"<{shorten(part.get('type', 'part'), 40)}>"
