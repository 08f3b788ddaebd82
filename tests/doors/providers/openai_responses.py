"""OpenAI's models that have the Responses API only: one like gpt-5-codex, and one like o3-pro.

The errors are those of public reports: an unsupported temperature in github.com/appatalks/eva-agent/issues/83, missing
outputs and reasoning in github.com/openai/openai-agents-js/issues/546.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from aiohttp import web

from tests.doors.providers.openai import unsupported
from tests.doors.registry import Door, Reports, register
from tests.doors.responses_server import ResponsesServer

RESPONSES = {"profile": {"wire_format": "openai_responses"}}
"""At OpenAI's own address, litellm's map names the models that have the Responses API only."""


class CodexServer(ResponsesServer):
    """gpt-5-codex."""

    model = "gpt-5-codex"
    refused: ClassVar[tuple[str, ...]] = ("temperature", "top_p", "top_logprobs")

    def refusal(self, body: Mapping[str, Any]) -> web.Response | None:
        for name in self.refused:
            if body.get(name) is not None:
                return unsupported(name)
        return super().refusal(body)

    def has_summary(self, body: Mapping[str, Any]) -> bool:
        return (body.get("reasoning") or {}).get("summary") is not None


class O3ProServer(CodexServer):
    """o3-pro, which has no log probabilities and no penalties either."""

    model = "o3-pro"


REPORTS = Reports(
    request_id="x-request-id",
    reasoning_tokens="always",
    missing={"reasoning": "a summary on request: extra_body={'reasoning': {'summary': 'auto'}}; else it is encrypted"},
)
MANY_ADAPTED = ("seed", "stop", "temperature", "top_p")
for _name, _server in (("gpt-5-codex", CodexServer), ("o3-pro", O3ProServer)):
    register(
        Door(
            name=f"OpenAI Responses, {_name}",
            model=f"openai/{_name}",
            server=_server,
            reports=REPORTS,
            adapted=("temperature",),
            many_adapted=MANY_ADAPTED,
            settings=RESPONSES,
        )
    )
