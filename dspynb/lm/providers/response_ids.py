"""The ids of a request and of its response, and the name of the model, as a response reports them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import pydantic_core

from dspynb.lm.protocol import LONG_TEXT
from dspynb.redact import redact

__all__ = ["ResponseNames", "request_id", "short_text"]

_LONGEST_ID = 200
_HEADERS = (
    "x-request-id",  # OpenAI, Azure, Groq, xAI, Fireworks, vLLM with --enable-request-id-headers
    "request-id",  # Anthropic
    "mistral-correlation-id",
    "x-ds-trace-id",  # DeepSeek
    "x-amzn-requestid",  # Bedrock
    "apim-request-id",  # Azure
    "x-ms-request-id",  # Azure
    "x-goog-request-id",  # Vertex AI
    "x-litellm-call-id",  # litellm's proxy
    "x-kong-request-id",  # gateways
)
"""Headers with the id of a request. Providers that send several of them send the one for their support first in this
list. The ids of networks in between, such as ``cf-ray``, are left out."""


def request_id(headers: Mapping[str, str]) -> str | None:
    """The provider's id of a request, without secrets; None if the headers have none.

    ``headers``: of the response, whose names are found in any case.
    """
    for name in _HEADERS:
        value = headers.get(name)
        if value:
            return short_text(redact(value))
    return None


def short_text(value: object) -> str | None:
    """An id or a name from a response; None for any other value, and for a text that is too long for one."""
    return value if isinstance(value, str) and 0 < len(value) <= _LONGEST_ID else None


_IDS = ("id", "responseId")
_MODELS = ("model", "modelVersion")
"""The second name is Gemini's."""
_PARTS = ("message", "response")
"""Parts of a stream's first event that have the id and the model: of Anthropic, and of OpenAI's Responses API."""
_BEGINNING = 2**16
"""How many bytes of a stream are searched."""
_GZIP_OR_ZLIB = 47
"""The argument of zlib for a format that it finds out itself."""


class ResponseNames:
    """The ids and the model of a response, read from its bytes while a client of another library reads it.

    That client may replace them: litellm has an id of its own for responses of Anthropic, and none for streams.

    Args:
        request_id: The provider's id of the request.
        stream_encoding: The encoding of a streamed response, such as ``gzip``; empty for none. None for a response that
            is no stream.

    Attributes:
        response_id, response_model: As the response reports them; None if it does not, or if they have not arrived.
        has_read: Whether a part of the response could be read.
        is_complete: Whether no further bytes of a stream are needed.
    """

    def __init__(self, request_id: str | None = None, stream_encoding: str | None = None) -> None:
        self.request_id = request_id
        self.response_id: str | None = None
        self.response_model: str | None = None
        self.has_read = False
        self.is_complete = stream_encoding not in ("", "identity", "gzip", "deflate")
        self._decoder: Any = None
        if stream_encoding in ("gzip", "deflate"):
            self._decoder = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._rest = b""
        self._size = 0

    @property
    def has_any(self) -> bool:
        """Whether the response has reported its id or its model."""
        return self.response_id is not None or self.response_model is not None

    def read_body(self, raw: bytes) -> None:
        """Read a whole response. One that takes long to read is left out."""
        if len(raw) <= LONG_TEXT:
            self._read_json(raw)

    def add(self, chunk: bytes) -> None:
        """Read the next bytes of a streamed response: JSON in lines, or in server-sent events."""
        self._size += len(chunk)
        text = chunk if self._decoder is None else self._decoded(chunk)
        *lines, self._rest = (self._rest + text).split(b"\n")
        for line in lines:
            self._read_json(line.strip().removeprefix(b"data:"))
        has_both = self.response_id is not None and self.response_model is not None
        self.is_complete = self.is_complete or has_both or max(self._size, len(self._rest)) > _BEGINNING

    def _decoded(self, chunk: bytes) -> bytes:
        try:
            text: bytes = self._decoder.decompress(chunk, _BEGINNING)
        except zlib.error:
            self.is_complete = True
            return b""
        self.is_complete = bool(self._decoder.unconsumed_tail)  # a few bytes may contain very many
        return text

    def _read_json(self, raw: bytes) -> None:
        if not raw.lstrip().startswith(b"{"):
            return
        try:
            body = pydantic_core.from_json(raw)
        except ValueError:
            return
        self.has_read = True
        for part in (body, *(body.get(name) for name in _PARTS)):
            if isinstance(part, Mapping):
                self.response_id = self.response_id or _first_text(part, _IDS)
                self.response_model = self.response_model or _first_text(part, _MODELS)


def _first_text(part: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    for name in names:
        text = short_text(part.get(name))
        if text is not None:
            return text
    return None
