"""OpenAI's own models in the chat format: a plain one, one of the o-series, and one like gpt-5.

The errors are those of public reports: max_tokens in github.com/ServiceNow/AgentLab/issues/251, a temperature of the
o-series in github.com/appatalks/eva-agent/issues/83.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from aiohttp import web

from tests.doors.openai_server import OpenAIFormatServer, openai_error
from tests.doors.registry import Door, Reports, register


class PlainServer(OpenAIFormatServer):
    """gpt-4.1-mini: takes all sampling settings, and no effort."""

    model = "gpt-4.1-mini"
    request_id_header = "x-request-id"

    def whole(self, kind: str, choices: Any, usage: Any) -> dict[str, Any]:
        return {**super().whole(kind, choices, usage), "service_tier": "default", "system_fingerprint": "fp_1"}

    def refusal(self, body: Mapping[str, Any]) -> web.Response | None:
        if body.get("reasoning_effort") is not None:
            return unrecognized("reasoning_effort")
        if (body.get("temperature") or 0) > 2:
            message = (
                "Invalid 'temperature': decimal above maximum value. Expected a value <= 2, but got "
                f"{body['temperature']} instead."
            )
            return openai_error(400, message, param="temperature", code="decimal_above_max_value")
        return super().refusal(body)


def unrecognized(name: str) -> web.Response:
    """The error for a parameter that the model does not have."""
    return openai_error(400, f"Unrecognized request argument supplied: {name}")


def unsupported(name: str, advice: str = "") -> web.Response:
    """The error for a parameter that the model refuses."""
    message = f"Unsupported parameter: '{name}' is not supported with this model.{advice}"
    return openai_error(400, message, param=name, code="unsupported_parameter")


def unsupported_value(name: str, value: Any, default: Any) -> web.Response:
    """The error for a parameter that has one value only."""
    message = (
        f"Unsupported value: '{name}' does not support {value} with this model. Only the default ({default}) value is "
        "supported."
    )
    return openai_error(400, message, param=name, code="unsupported_value")


class ReasoningServer(PlainServer):
    """A reasoning model, which counts the tokens of its thinking and does not show it."""

    refused: ClassVar[tuple[str, ...]] = (
        "top_p",
        "presence_penalty",
        "frequency_penalty",
        "logprobs",
        "top_logprobs",
        "logit_bias",
        "stop",
    )
    thinks = True

    def refusal(self, body: Mapping[str, Any]) -> web.Response | None:
        if body.get("max_tokens") is not None:
            return unsupported("max_tokens", " Use 'max_completion_tokens' instead.")
        for name in self.refused:
            if body.get(name) is not None:
                return unsupported(name)
        if body.get("temperature", 1) != 1:
            return unsupported_value("temperature", body["temperature"], 1)
        return OpenAIFormatServer.refusal(self, body)


class OSeriesServer(ReasoningServer):
    """o4-mini."""

    model = "o4-mini"


class GPT5Server(ReasoningServer):
    """gpt-5-mini."""

    model = "gpt-5-mini"


MANY_ADAPTED = ("max_tokens", "stop", "temperature", "top_p")
HIDDEN = Reports(
    request_id="x-request-id",
    reasoning_tokens="always",
    missing={"reasoning": "chat completions of OpenAI do not have it"},
)
register(
    Door(
        name="OpenAI, gpt-4.1-mini",
        model="openai/gpt-4.1-mini",
        server=PlainServer,
        reports=Reports(request_id="x-request-id", missing={"reasoning": "the model does not think"}),
        many_adapted=("effort",),
    )
)
register(
    Door(
        name="OpenAI, o4-mini",
        model="openai/o4-mini",
        server=OSeriesServer,
        reports=HIDDEN,
        adapted=("temperature",),
        many_adapted=MANY_ADAPTED,
    )
)
register(
    Door(
        name="OpenAI, gpt-5-mini",
        model="openai/gpt-5-mini",
        server=GPT5Server,
        reports=HIDDEN,
        adapted=("temperature",),
        many_adapted=MANY_ADAPTED,
    )
)
