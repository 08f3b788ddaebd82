"""A server on loopback that speaks OpenAI's Responses format, and the bodies of its responses."""

from __future__ import annotations

import json

from aiohttp import web
from openai.types.responses import Response

import dspynb as dn
from tests.doors.validation import check_reply
from tests.lm.server import Server, error

RESPONSES = {"wire_format": "openai_responses"}
USER = {"role": "user", "content": "2+2?"}
TOOL = {
    "type": "function",
    "function": {"name": "population", "description": "People in a city", "parameters": {"type": "object"}},
}
USAGE = {
    "input_tokens": 1000,
    "input_tokens_details": {"cached_tokens": 400, "cache_write_tokens": 0},
    "output_tokens": 100,
    "output_tokens_details": {"reasoning_tokens": 60},
    "total_tokens": 1100,
}


def text_item(text, **fields):
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part], **fields}


def reasoning_item(*summaries, **fields):
    summary = [{"type": "summary_text", "text": text} for text in summaries]
    return {"type": "reasoning", "id": "rs_1", "summary": summary, **fields}


def call_item(arguments='{"city": "Oslo"}', **fields):
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "population", "arguments": arguments}
    return {**call, "status": "completed", **fields}


def response(*output, **fields):
    """The body of a response, which must be one of the official SDK."""
    body = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1.0,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "model": "m",
        "output": list(output),
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": USAGE,
        **fields,
    }
    check_reply(Response, body)
    return body


class ResponsesServer(Server):
    """Answers requests to /v1/responses. ``answer``: as for ``Server``; a dict is the body of a response."""

    def add_routes(self, app):
        app.router.add_post("/v1/responses", self._handle)
        app.router.add_post("/v1/chat/completions", self._chat)

    async def _chat(self, request):
        return error(404, "This is not /v1/responses")


def model(server, name="openai/m", **settings):
    return dn.LM(name, api_base=server.base, api_key="none", cache=False, retries=0, profile=RESPONSES, **settings)


def ask(body, **settings):
    """The reply to a request that a server answers with this body."""
    with ResponsesServer(lambda _, number: body) as server:
        return model(server, **settings).run_sync("2+2?")


def stream_of(*events, end=True):
    """A streamed answer with these events."""

    async def answer(request):
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for event in events:
            name = event.get("type", "message") if isinstance(event, dict) else "message"
            data = json.dumps(event) if isinstance(event, dict) else event
            await answer.write(f"event: {name}\ndata: {data}\n\n".encode())
        if not end:
            request.transport.close()
        return answer

    return answer


def delta(text, kind="output_text", index=0, **fields):
    return {"type": f"response.{kind}.delta", "output_index": index, "item_id": "x", "delta": text, **fields}


def completed(*output, kind="completed", **fields):
    return {"type": f"response.{kind}", "response": response(*output, status=kind, **fields)}


def openai_error(status, message, **fields):
    return web.json_response({"error": {"message": message, "type": "invalid_request_error", **fields}}, status=status)


def chat_model(server, **settings):
    return dn.LM("openai/m", api_base=server.base, cache=False, retries=0, **settings)
