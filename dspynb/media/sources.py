"""Where the content of an image or file comes from: bytes, a path, a URL, a picture in memory."""

from __future__ import annotations

import base64
import binascii
import io
import mimetypes
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from dspynb.errors import InputError, shorten

__all__ = ["Source", "from_data_url", "read_source", "sniffed"]

_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
    b"II*\x00": "image/tiff",
    b"MM\x00*": "image/tiff",
    b"%PDF-": "application/pdf",
}

Source = tuple[bytes | None, str | None, str | None, str | None]


def read_source(source: Any, who: str) -> Source:
    """Data, URL, type and name of a source. Raises InputError, as ``who``."""
    if isinstance(source, bytes | bytearray | memoryview):
        return _content(bytes(source), who), None, None, None
    if isinstance(source, str) and source.startswith("data:"):
        return from_data_url(source, who)
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        return None, source, mimetypes.guess_type(urlsplit(source).path)[0], None
    if isinstance(source, str | PurePath):
        return _from_path(Path(source), who)
    if callable(getattr(source, "save", None)):
        return _content(_drawn(source, who), who), None, None, None
    raise InputError(f"{who} takes a path, a URL, bytes or a PIL image, got {type(source).__name__}")


def _content(data: bytes, who: str) -> bytes:
    if not data:
        raise InputError(f"{who}: there is no content (0 bytes)")
    return data


def _from_path(path: Path, who: str) -> Source:
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(f"{who}: cannot read the file {shorten(repr(str(path)), 200)} ({error})") from None
    return _content(data, who), None, mimetypes.guess_type(path.name)[0], path.name


def from_data_url(url: str, who: str) -> Source:
    """The content that stands in a ``data:`` URL. Raises InputError, as ``who``."""
    head, comma, body = url.partition(",")
    mime, *options = head.removeprefix("data:").split(";")
    try:
        data = base64.b64decode(body, validate=True) if "base64" in options else unquote_to_bytes(body)
    except (binascii.Error, ValueError):
        raise InputError(f"{who}: the data URL is not valid base64") from None
    if not comma:
        raise InputError(f"{who}: a data URL reads 'data:image/png;base64,…', got {shorten(repr(url), 80)}")
    name = next((unquote(option[5:]) for option in options if option.startswith("name=")), None)
    return _content(data, who), None, mime or None, name


def _drawn(picture: Any, who: str) -> bytes:
    form = str(getattr(picture, "format", None) or "PNG")
    stream = io.BytesIO()
    try:
        picture.save(stream, format=form if form in ("PNG", "JPEG", "GIF", "WEBP") else "PNG")
    except Exception as error:
        raise InputError(f"{who}: the picture could not be saved ({type(error).__name__}: {error})") from error
    return stream.getvalue()


def sniffed(data: bytes | None) -> str | None:
    """The type that the first bytes tell, if they do."""
    if data is None:
        return None
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((mime for start, mime in _MAGIC.items() if data.startswith(start)), None)
