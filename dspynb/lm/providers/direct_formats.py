"""The formats that the direct client speaks: OpenAI's chat completions and its Responses API."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from dspynb.errors import BadRequestError, ModelError, ModelNotFound
from dspynb.lm.protocol import LMReply, LMRequest
from dspynb.lm.providers.addresses import chat_url, responses_url
from dspynb.lm.providers.billing import Billing
from dspynb.lm.providers.error_report import ErrorReport
from dspynb.lm.providers.openai_format import read_reply, request_body
from dspynb.lm.providers.reply_assembler import ReplyAssembler
from dspynb.lm.providers.responses_reply import read_response
from dspynb.lm.providers.responses_request import in_words_of_chat, responses_body
from dspynb.lm.providers.responses_stream import ResponseAssembler
from dspynb.lm.providers.wire_formats import OPENAI_CHAT, OPENAI_RESPONSES, WireFormat

__all__ = ["CHAT", "FORMATS", "DirectFormat", "is_without_path", "needs_responses"]


class Assembler(Protocol):
    """Assembles a streamed reply: ``add`` returns the new text of a piece, ``body`` the whole reply.

    ``has_begun``: whether a piece of the reply has arrived: of its text, its reasoning, a refusal or a tool call.
    """

    has_begun: bool

    @property
    def thinking(self) -> str:
        """The thinking beside the text in the piece that was added last."""

    def add(self, chunk: Mapping[str, Any], error_fields: Mapping[str, Any]) -> str: ...

    def body(self, error_fields: Mapping[str, Any]) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class DirectFormat:
    """A format of requests and replies.

    Args:
        wire_format: The name of the format in profiles.
        url: The URL of requests for the address of a server.
        request_body: The body for a model's name, a request, its settings, and the fields that are left out.
        read_reply: The reply in a body, for the name of the model, arguments of errors, and what decides the price.
        assembler: Makes an assembler for a streamed reply.
        read_report: An error response, with the names of settings that the rules for refusals know.
        other_format: The format to use at a server that does not have this one.
    """

    wire_format: WireFormat
    url: Callable[[str], str]
    request_body: Callable[[str, LMRequest, Mapping[str, Any], frozenset[str]], dict[str, Any]]
    read_reply: Callable[[Any, str, Mapping[str, Any], Billing], LMReply]
    assembler: Callable[[], Assembler]
    read_report: Callable[[ErrorReport], ErrorReport]
    other_format: WireFormat


def _chat_body(
    remote: str,
    request: LMRequest,
    settings: Mapping[str, Any],
    left_out: frozenset[str],  # noqa: ARG001  # a body of chat completions has no fields of its own
) -> dict[str, Any]:
    body = request_body(remote, request, settings)
    body |= body.pop("extra_body", None) or {}
    return body


def _unchanged(report: ErrorReport) -> ErrorReport:
    return report


CHAT = DirectFormat(OPENAI_CHAT, chat_url, _chat_body, read_reply, ReplyAssembler, _unchanged, OPENAI_RESPONSES)
RESPONSES = DirectFormat(
    OPENAI_RESPONSES, responses_url, responses_body, read_response, ResponseAssembler, in_words_of_chat, OPENAI_CHAT
)
FORMATS: Mapping[WireFormat, DirectFormat] = {OPENAI_CHAT: CHAT, OPENAI_RESPONSES: RESPONSES}

_NEEDS_RESPONSES = re.compile(
    r"(?:only (?:supported|available) (?:in|on|with|via|through)|(?:please )?use|requires?|did you mean to use)"
    r"(?: the)? [`'\"]?(?:/?v1/responses|/responses|responses api)\b",
    re.IGNORECASE,
)
"""OpenAI: This model is only supported in v1/responses and not in v1/chat/completions. Function tools with
reasoning_effort are not supported for gpt-5.4 in /v1/chat/completions. Please use /v1/responses instead. (issue:
pipecat-ai/pipecat#4043)"""
_NO_CHAT_MODEL = re.compile(
    r"not a chat model and thus not supported|chatcompletion operation does not work with the specified model|"
    r"not support (?:the )?chat completions api|"
    r"not (?:accessible|available|supported) (?:via|in|on|by|with|at|through)(?: the)? "
    r"[`'\"]?/?(?:v1/)?chat/completions",
    re.IGNORECASE,
)
"""Models without chat completions, which may have the Responses API. OpenAI: This is not a chat model and thus not
supported in the v1/chat/completions endpoint. (issue: micz/ThunderAI#570) Azure: The chatCompletion operation does not
work with the specified model, gpt-5-codex. (issue: vanna-ai/vanna#967) Copilot: model gpt-5.3-codex is not accessible
via the /chat/completions endpoint (issue: caozhiyuan/copilot-api#102) vLLM: The model does not support Chat Completions
API (issue: vllm-project/vllm#16831)"""
_NO_RESPONSES = re.compile(
    r"not support(?:ed)?(?: (?:with|in|by|on))?(?: the)? [`'\"]?(?:responses api|/?v1/responses)", re.IGNORECASE
)
"""OpenAI: The requested model 'gpt-audio' is not supported with the Responses API."""
_MISSING_ITEM = re.compile(r"with id ['\"`]", re.IGNORECASE)
"""OpenAI: Item with id 'rs_1' not found. Items are not persisted when `store` is set to false. (issue:
openai/openai-agents-js#546)"""


def needs_responses(error: ModelError) -> bool:
    """Whether a server refuses a request in the chat format, since the model takes it in the Responses format."""
    if not isinstance(error, BadRequestError):
        return False
    return _NEEDS_RESPONSES.search(error.problem) is not None or _NO_CHAT_MODEL.search(error.problem) is not None


def is_without_path(error: ModelError) -> bool:
    """Whether a server does not have the path of requests in the Responses format, or not for this model."""
    if not isinstance(error, BadRequestError):
        return False
    if _NO_RESPONSES.search(error.problem) is not None:
        return True
    if isinstance(error, ModelNotFound) or _MISSING_ITEM.search(error.problem) is not None:
        return False
    return error.status in (404, 405)
