"""Models and servers that the cases share: strict servers that refuse what real providers refuse, in their words."""

from __future__ import annotations

import asyncio
import json

from aiohttp import web

import dspynb as dn
from tests.helpers import chat

KEY = "sk-a-key-of-the-cases-0123456789"


def model(server, name="openai/m", **settings):
    """The model ``name``, asked at the loopback server."""
    return dn.LM(name, api_base=server.base, api_key=KEY, **settings)


def refused(message, *, status=400, code=None, param=None, kind="invalid_request_error"):
    """A refusal in OpenAI's form."""
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return web.json_response(body, status=status)


def plain(body, status=400):
    """An answer with any JSON body: some providers have a form of their own for errors."""
    return web.Response(text=json.dumps(body), status=status, content_type="application/json")


def strict(*rules, answer=None):
    """A server's answer: that of the first rule (``rule(body) -> answer | None``) which objects, else ``answer``.

    The refusals it gave are in its ``refusals``: the bodies that were refused.
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
    """OpenAI's gpt-5 and later: any temperature but 1 is an unsupported value."""
    if body.get("temperature", 1) == 1:
        return None
    told = f"Unsupported value: 'temperature' does not support {body['temperature']:g} with this model. "
    told += "Only the default (1) value is supported."
    return refused(told, code="unsupported_value", param="temperature")


def as_kimi(body):
    """Moonshot's Kimi: as gpt-5, in other words and without a code."""
    if body.get("temperature", 1) == 1:
        return None
    return refused("invalid temperature: only 1 is allowed for this model")


def at_most_one(body):
    """Anthropic: a range."""
    if body.get("temperature", 1) <= 1:
        return None
    told = {"type": "invalid_request_error", "message": "temperature: range: 0..1"}
    return plain({"type": "error", "error": told})


def no_temperature(body):
    """OpenAI's o-series and search models: the parameter is refused, whatever its value."""
    if "temperature" not in body:
        return None
    told = "Unsupported parameter: 'temperature' is not supported with this model."
    return refused(told, code="unsupported_parameter", param="temperature")


def no_max_tokens(body):
    """OpenAI's o-series, gpt-5 and later."""
    if "max_tokens" not in body:
        return None
    told = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    return refused(told, code="unsupported_parameter", param="max_tokens")


def without_waiting(monkeypatch, most=3600.0):
    """Let sleeps of more than a moment take no time. Sleeping ``most`` seconds in all raises TimeoutError at once."""
    slept = []
    sleep = asyncio.sleep

    async def hurried(seconds, result=None):
        if seconds <= 0.05:  # the loopback server's, which lets go of its sockets meanwhile
            return await sleep(seconds, result)
        slept.append(seconds)
        if sum(slept) > most:
            raise TimeoutError(f"it would sleep {sum(slept):g} s")
        return await sleep(0, result)

    monkeypatch.setattr(asyncio, "sleep", hurried)
    return slept
