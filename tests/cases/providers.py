"""Models and servers for the cases. Strict servers refuse what real providers refuse, with the same messages."""

from __future__ import annotations

import asyncio
import json

from aiohttp import web

import dspynb as dn
from tests.helpers import chat

KEY = "sk-a-key-of-the-cases-0123456789"


def model(server, name="openai/m", **settings):
    """The model ``name`` at the loopback server, which speaks OpenAI's format for models of any provider."""
    return dn.LM(name, api_base=server.base, api_key=KEY, **{"engine": "direct", **settings})


def refused(message, *, status=400, code=None, param=None, kind="invalid_request_error"):
    """An error response in OpenAI's format."""
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return web.json_response(body, status=status)


def plain(body, status=400):
    """A response with any JSON body, for providers with their own format of errors."""
    return web.Response(text=json.dumps(body), status=status, content_type="application/json")


def strict(*rules, answer=None):
    """A server function that checks requests with rules (``rule(body) -> response | None``).

    It returns the response of the first rule that objects, else ``answer``. Its ``refusals`` are the refused bodies.
    """
    if answer is None:
        answer = chat(answer="Paris")

    def serve(body, number):
        for rule in rules:
            objection = rule(body)
            if objection is not None:
                serve.refusals.append(body)
                return objection
        return answer(body) if callable(answer) else answer

    serve.refusals = []
    return serve


def only_temperature_one(body):
    """OpenAI's gpt-5 and later: every temperature except 1 is an unsupported value."""
    if body.get("temperature", 1) == 1:
        return None
    message = f"Unsupported value: 'temperature' does not support {body['temperature']:g} with this model. "
    message += "Only the default (1) value is supported."
    return refused(message, code="unsupported_value", param="temperature")


def as_kimi(body):
    """Moonshot's Kimi: like gpt-5, with another message and without a code."""
    if body.get("temperature", 1) == 1:
        return None
    return refused("invalid temperature: only 1 is allowed for this model")


def at_most_one(body):
    """Anthropic: the temperature must be between 0 and 1."""
    if body.get("temperature", 1) <= 1:
        return None
    error = {"type": "invalid_request_error", "message": "temperature: range: 0..1"}
    return plain({"type": "error", "error": error})


def no_temperature(body):
    """OpenAI's o-series and search models: the parameter is refused for any value."""
    if "temperature" not in body:
        return None
    message = "Unsupported parameter: 'temperature' is not supported with this model."
    return refused(message, code="unsupported_parameter", param="temperature")


def no_max_tokens(body):
    """OpenAI's o-series, gpt-5 and later: ``max_tokens`` is refused."""
    if "max_tokens" not in body:
        return None
    message = (
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    )
    return refused(message, code="unsupported_parameter", param="max_tokens")


def without_waiting(monkeypatch, most=3600.0):
    """Replace ``asyncio.sleep``, so that longer sleeps take no time; returns the list of their seconds.

    Raises TimeoutError once more than ``most`` seconds in total would be slept.
    """
    slept = []
    sleep = asyncio.sleep

    async def sleep_without_waiting(seconds, result=None):
        if seconds <= 0.05:  # of the loopback server, which closes its sockets in this time
            return await sleep(seconds, result)
        slept.append(seconds)
        if sum(slept) > most:
            raise TimeoutError(f"it would sleep {sum(slept):g} s")
        return await sleep(0, result)

    monkeypatch.setattr(asyncio, "sleep", sleep_without_waiting)
    return slept
