"""Sources of images and files: bytes, a path, a URL, or an image in memory."""

from __future__ import annotations

import base64
import binascii
import io
import mimetypes
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from dspynb.errors import InputError, shorten

__all__ = ["Source", "detect_type", "from_data_url", "read_source"]

_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
    b"II*\x00": "image/tiff",
    b"MM\x00*": "image/tiff",
    b"%PDF-": "application/pdf",
}

Source = tuple[bytes | None, str | None, str | None, str | None]
"""The data, URL, MIME type and name of a source; each is None if it is unknown."""


def read_source(source: object, owner: str) -> Source:
    """Read the source of an image or file. Raises InputError, whose message begins with ``owner``."""
    if isinstance(source, bytes | bytearray | memoryview):
        return _not_empty(bytes(source), owner), None, None, None
    if isinstance(source, str) and source.startswith("data:"):
        return from_data_url(source, owner)
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        return None, source, mimetypes.guess_type(urlsplit(source).path)[0], None
    if isinstance(source, str | PurePath):
        return _from_path(Path(source), owner)
    if callable(getattr(source, "save", None)):
        return _not_empty(_saved(source, owner), owner), None, None, None
    raise InputError(f"{owner} takes a path, a URL, bytes or a PIL image, got {type(source).__name__}")


def _not_empty(data: bytes, owner: str) -> bytes:
    if not data:
        raise InputError(f"{owner}: there is no content (0 bytes)")
    return data


def _from_path(path: Path, owner: str) -> Source:
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(f"{owner}: cannot read the file {shorten(repr(str(path)), 200)} ({error})") from None
    return _not_empty(data, owner), None, mimetypes.guess_type(path.name)[0], path.name


def from_data_url(url: str, owner: str) -> Source:
    """Read a ``data:`` URL. Raises InputError, whose message begins with ``owner``."""
    header, comma, body = url.partition(",")
    mime, *options = header.removeprefix("data:").split(";")
    try:
        data = base64.b64decode(body, validate=True) if "base64" in options else unquote_to_bytes(body)
    except (binascii.Error, ValueError):
        raise InputError(f"{owner}: the data URL is not valid base64") from None
    if not comma:
        raise InputError(f"{owner}: a data URL reads 'data:image/png;base64,…', got {shorten(repr(url), 80)}")
    name = None
    for option in options:
        if option.startswith("name="):
            name = unquote(option.removeprefix("name="))
            break
    return _not_empty(data, owner), None, mime or None, name


def _saved(image: Any, owner: str) -> bytes:
    """The bytes of a PIL image, in its own format if models take it, else as PNG."""
    image_format = str(getattr(image, "format", None) or "PNG")
    if image_format not in ("PNG", "JPEG", "GIF", "WEBP"):
        image_format = "PNG"
    stream = io.BytesIO()
    try:
        image.save(stream, format=image_format)
    except Exception as error:
        raise InputError(f"{owner}: the image could not be saved ({type(error).__name__}: {error})") from error
    return stream.getvalue()


def detect_type(data: bytes | None) -> str | None:
    """The MIME type of content, detected from its first bytes; None if it is unknown."""
    if data is None:
        return None
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    for signature, mime in _SIGNATURES.items():
        if data.startswith(signature):
            return mime
    return None
