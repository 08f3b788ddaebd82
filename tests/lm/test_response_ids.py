"""The ids of requests and responses: from the headers, and from bodies that another library reads."""

from __future__ import annotations

import asyncio
import gzip
import json

import httpx
import pytest
from aiohttp import web

import dspynb as dn
from dspynb.lm.providers.response_ids import ResponseNames, request_id

pytest.importorskip("anthropic", reason="the fake server checks requests against the types of this client")
pytest.importorskip("google.genai", reason="the fake server checks requests against the types of this client")

from tests.doors.providers.anthropic import HaikuServer
from tests.doors.providers.gemini import FlashServer

BOTH = ("id-1", "model-1")
QUESTION = {"question": "What is the capital of France?"}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"x-request-id": ""}, None),
        ({"X-Request-Id": "req_1"}, "req_1"),
        ({"request-id": "req_1", "cf-ray": "9"}, "req_1"),
        ({"cf-ray": "9", "x-kong-request-id": "k", "mistral-correlation-id": "m"}, "m"),
        ({"x-ds-trace-id": "d"}, "d"),
        ({"x-amzn-RequestId": "a"}, "a"),
        ({"apim-request-id": "apim", "x-ms-request-id": "ms", "x-request-id": "x"}, "x"),
        ({"x-request-id": "x" * 1_000}, None),
    ],
)
def test_the_id_of_a_request_is_in_one_of_several_headers(headers, expected):
    assert request_id(httpx.Headers(headers)) == expected


@pytest.mark.parametrize(
    "body",
    [
        {"id": "id-1", "model": "model-1", "choices": []},
        {"candidates": [], "modelVersion": "model-1", "responseId": "id-1"},
        {"type": "message_start", "message": {"id": "id-1", "model": "model-1"}},
        {"type": "response.created", "response": {"id": "id-1", "model": "model-1"}, "sequence_number": 0},
    ],
)
def test_the_names_of_a_response_are_read_in_the_format_of_each_provider(body):
    raw = json.dumps(body).encode()
    whole = ResponseNames()
    whole.read_body(raw)
    streamed = ResponseNames(None, "")
    event = b"event: x\ndata: " + raw + b"\n\n"
    for position in range(0, len(event), 7):  # pieces end anywhere
        streamed.add(event[position : position + 7])
    for names in (whole, streamed):
        assert (names.response_id, names.response_model, names.has_read) == (*BOTH, True)
    assert streamed.is_complete


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{", b'{"id": 7, "model": ["m"]}', b'{"message": "text"}', b"data: [DONE]", b"\xff\x00"]
)
def test_a_response_in_another_form_has_no_names(raw):
    for names in (ResponseNames(), ResponseNames(None, "")):
        names.read_body(raw)
        names.add(raw + b"\n")
        assert (names.response_id, names.response_model) == (None, None)


def test_a_compressed_stream_is_read_and_one_in_an_unknown_encoding_is_left_out():
    event = b'data: {"id": "id-1", "model": "model-1"}\n\n'
    names = ResponseNames(None, "gzip")
    for byte in gzip.compress(event):
        names.add(bytes([byte]))
    assert (names.response_id, names.response_model) == BOTH
    assert ResponseNames(None, "br").is_complete
    damaged = ResponseNames(None, "gzip")
    damaged.add(event)
    assert damaged.is_complete
    assert damaged.response_id is None


def test_only_the_beginning_of_a_stream_is_searched():
    names = ResponseNames(None, "")
    for _ in range(100):
        names.add(b'data: {"text": "' + b"x" * 1_000 + b'"}\n\n')
    assert names.is_complete
    bomb = ResponseNames(None, "gzip")
    bomb.add(gzip.compress(b"\0" * 10_000_000))
    assert bomb.is_complete


class CompressingServer(HaikuServer):
    """It compresses its streams."""

    async def _stream(self, request, chunks):
        content = gzip.compress(b"".join(map(self.event, chunks)))
        headers = {"Content-Type": self.stream_type, "Content-Encoding": "gzip", **self._headers()}
        return web.Response(body=content, headers=headers)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # raised by litellm itself
def test_the_names_of_a_compressed_stream_are_on_record():
    async def main(program):
        return [part async for part in program.stream(**QUESTION)][-1]

    with CompressingServer() as server:
        lm = dn.LM("anthropic/claude-haiku-4-5", api_base=server.base, cache=False, retries=0)
        prediction = asyncio.run(main(dn.Predict("question -> answer", lm=lm)))
    (call,) = prediction.calls
    assert prediction.answer == "Paris"
    assert (call.request_id, call.response_id, call.response_model) == ("request-1", "msg_1", "claude-haiku-4-5")


class VertexServer(FlashServer):
    """It has a header with the id of a request."""

    request_id_header = "x-goog-request-id"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_the_request_of_an_error_behind_litellm_is_named():
    with VertexServer() as server:
        lm = dn.LM("gemini/gemini-typo", api_base=server.base, cache=False, retries=0)
        with pytest.raises(dn.errors.ModelNotFound, match="request request-1"):
            dn.Predict("question -> answer", lm=lm).run_sync(**QUESTION)
    assert dn.last_run().record.calls[0].request_id == "request-1"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_the_server_that_litellm_chooses_is_on_record(monkeypatch):
    with HaikuServer() as server:
        monkeypatch.setenv("ANTHROPIC_API_BASE", server.base)
        lm = dn.LM("anthropic/claude-haiku-4-5", api_key="a-key", cache=False, retries=0)
        (call,) = dn.Predict("question -> answer", lm=lm).run_sync(**QUESTION).calls
    assert call.server == f"127.0.0.1:{server.port}"
