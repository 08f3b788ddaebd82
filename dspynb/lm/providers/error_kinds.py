"""The kind of an error response: a table of the codes and words of providers, with the source of each wording.

``litellm`` is litellm's file litellm_core_utils/exception_mapping_utils.py, ``issue`` a public report on GitHub.
``parameter_wordings`` is the table of refused parameters.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Any

from dspynb.errors import (
    AuthenticationError,
    BadRequestError,
    ContentFiltered,
    ContextTooLong,
    ModelError,
    ModelNotFound,
    ModelTimeout,
    QuotaExceeded,
    RateLimited,
    ServerError,
    UnsupportedParameter,
)
from dspynb.lm.providers.error_report import ErrorReport
from dspynb.lm.providers.refused_parameters import excessive_output, refused_parameter
from dspynb.redact import redact

__all__ = ["KINDS", "KindRule", "error_kind", "provider_error"]


@dataclass(frozen=True, slots=True)
class KindRule:
    """A row of the table: responses of one kind of error.

    A response matches if it has one of ``codes`` (a code, type or status of the body, in lower case), or if its text
    contains ``words``; with neither, if its HTTP status is one of ``statuses``. Codes and words count with these
    statuses only: ``statuses`` has None for an error without a status.
    """

    kind: type[ModelError]
    source: str
    codes: frozenset[str] = frozenset()
    words: re.Pattern[str] | None = None
    statuses: Container[int | None] | None = None

    def matches(self, report: ErrorReport) -> bool:
        """Whether a response is of this kind."""
        if self.statuses is not None and report.status not in self.statuses:
            return False
        if not self.codes and self.words is None:
            return True
        if not self.codes.isdisjoint(report.codes):
            return True
        return self.words is not None and self.words.search(report.text) is not None


def _rule(
    kind: type[ModelError],
    source: str,
    *words: str,
    codes: Iterable[str] = (),
    statuses: Container[int | None] | None = None,
) -> KindRule:
    pattern = re.compile("|".join(words), re.IGNORECASE) if words else None
    return KindRule(kind, source, frozenset(codes), pattern, statuses)


_REFUSALS = (None, 400, 404, 405, 409, 410, 413, 422, 424, 451, 500, 501, 503)
"""Statuses of requests that are refused for what they contain. Some servers answer with 500 or 503."""
_CLIENT = (None, *range(400, 429), *range(430, 500))
_IN_STREAM = (None, 200)
_IMAGE_CODES = (
    *("invalid_image", "invalid_image_format", "invalid_base64_image", "invalid_image_url", "invalid_image_mode"),
    *("image_too_large", "image_too_small", "image_parse_error", "image_file_too_large", "empty_image_file"),
    *("unsupported_image_media_type", "failed_to_download_image", "image_file_not_found"),
)
"""Codes of failed responses of OpenAI's Responses API (openai.types.responses.ResponseError)."""

KINDS: tuple[KindRule, ...] = (
    # Limits that are no context, in spite of similar words.
    _rule(
        ContextTooLong,
        "OpenAI: Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 342389 (issue: "
        "vanna-ai/vanna-flask#11); Groq, with 413 (issue: continuedev/continue#10218). It cannot succeed later.",
        r"request too large for .{0,300}tokens per",
    ),
    _rule(
        RateLimited,
        "Bedrock: Too many tokens, please wait before trying again. (issue: RooCodeInc/Roo-Code#5050); Too many tokens "
        "per day, … (issue: minorun365/agent-book#29)",
        r"too many tokens(?: per day)?,? please wait",
    ),
    _rule(
        UnsupportedParameter,
        "vLLM: 'max_tokens' or 'max_completion_tokens' is too large (vllm/entrypoints/openai/serving_engine.py); Groq: "
        "`max_tokens` must be less than or equal to `16384`, … the `context_window` (issue: RooCodeInc/Roo-Code#5729); "
        "Bedrock: The maximum tokens you requested exceeds the model limit; Cohere: max tokens must be less than …; "
        "Anthropic: max_tokens: 100000 > 64000, which is the maximum allowed number of output tokens",
        r"(?<!\+ `)max_\w{0,20}tokens['\"`]? (?:or '\w{1,40}' )?(?:is too large|must be)",
        r"max_\w{0,20}tokens=\d{1,12} ?cannot be greater",
        r"(?<!and `)max_\w{0,20}tokens['\"`]?(?: value)?[ =(:]{0,3}\d{0,12}\)? "
        r"(?:exceeds|is (?:greater|higher|larger|above|more))",
        r"maximum tokens you requested exceeds?",
        r"max tokens must be less",
        r"number of output tokens",
    ),
    _rule(
        UnsupportedParameter,
        "OpenAI: Invalid 'user': string too long. Expected a string with maximum length 64 (litellm)",
        r"invalid '(?!messages|input|prompt)[^']{1,80}': (?:string|array) too long",
    ),
    # A prompt that is too long.
    _rule(
        ContextTooLong,
        "OpenAI, Groq; llama.cpp (tools/server/utils.hpp); Anthropic; GitHub; Copilot",
        codes={
            *("context_length_exceeded", "exceed_context_size_error", "request_too_large", "tokens_limit_reached"),
            *("model_max_prompt_tokens_exceeded", "context_window_exceeded"),
        },
    ),
    _rule(
        ContextTooLong,
        "litellm, is_error_str_context_window_exceeded",
        r"exceed context limit",
        r"requested token count exceeds",
        r"string too long\. expected a string with maximum length",
        r"maximum context limit",
        r"input tokens exceed the configured limit",
        r"`inputs` tokens \+ `max_new_tokens` must be",
        r"exceeds the maximum number of tokens allowed",
        r"prompt is too long",
        r"current length is .{0,40}while limit is",
        r"maximum input length is .{0,40}tokens",
        r"input too long: .{0,80}limit is",
        r"contextwindowexceedederror",
        statuses=_REFUSALS,
    ),
    _rule(
        ContextTooLong,
        "OpenAI, vLLM, SGLang, Mistral, DeepSeek, llama.cpp, LM Studio, Ollama: context length, size or window "
        "(tests/cases/refusals.py; issue: QwenLM/Qwen3#1321); vLLM: model length; xAI: prompt length",
        r"context[ _](?:length|size|window)",
        r"maximum (?:model|prompt) length",
        statuses=_REFUSALS,
    ),
    _rule(
        ContextTooLong,
        "litellm, Bedrock: Input is too long. Too many input tokens. expected maxLength; Cohere: too many tokens; "
        "TGI: `inputs` must have less than 4096 tokens (router/src/validation.rs)",
        r"input is too long",
        r"too many (?:input )?tokens",
        r"expected maxlength: ",
        r"prompt: length",
        r"`inputs` must have (?:less|fewer) than",
        statuses=_REFUSALS,
    ),
    _rule(
        ContextTooLong,
        "Gemini: The input token count (3475108) exceeds the maximum number of tokens allowed (1048576). (issue: "
        "google-gemini/gemini-cli#4231); Vertex AI: the input token count is 1251952 but model only supports up to "
        "1048576 (issue: google-gemini/gemini-cli#19727); Request payload size exceeds the limit (litellm)",
        r"input token count .{0,80}(?:exceeds|supports up to)",
        r"request payload size exceeds",
        statuses=_REFUSALS,
    ),
    _rule(
        ContextTooLong,
        "DashScope: Range of input length should be [1, 30720] (issue: QwenLM/Qwen-Agent#615); Copilot: prompt token "
        "count exceeds the limit; GitHub: Request body too large; SGLang: Input length (160062 tokens) exceeds the "
        "maximum allowed length (issue: sgl-project/sglang#4048); Zhipu: Prompt exceeds max length; Moonshot: "
        "Your request exceeded model token limit: 8192; Volcengine: exceed max message tokens; watsonx: number of "
        "input tokens 5021 cannot exceed the total tokens limit",
        r"range of input length",
        r"(?:prompt|input)(?: token count| length)?\b.{0,40} (?:exceed(?:s|ed)?|is longer than) (?:the )?"
        r"(?:model's )?(?:limit|max)",
        r"exceed(?:s|ed)? (?:the )?(?:model(?:'s)? )?(?:token limit|max message tokens)",
        r"prompt 超长",
        r"(?:request|prompt|input) (?:body |is )?too (?:large|long)\b",
        r"input tokens .{0,40}cannot exceed",
        r"(?:reduce|shorten) (?:the )?(?:length of )?(?:your |the )?(?:prompt|messages|input)\b",
        statuses=_REFUSALS,
    ),
    # A content filter.
    _rule(
        ContentFiltered,
        "litellm, is_azure_content_policy_violation_error, and its code for OpenAI, Anthropic and Vertex AI",
        r"content[ _]?policy",
        r"content[ _]?filter",
        r"content management policy",
        r"safety system",
        r"produced invalid content",
        r"violating our usage policy",
        r"the response was blocked",
        r"responsibleaipolicyviolation",
        codes={"cyber_policy", "invalid_prompt", "content_filter", "content_policy_violation"},
        statuses=_CLIENT,
    ),
    _rule(
        ContentFiltered,
        "xAI: Content violates usage guidelines. (issue: UKGovernmentBEIS/inspect_ai#2267); DeepSeek: Content Exists "
        "Risk; Moonshot: considered high risk; DashScope: inappropriate content; OpenRouter: your input was flagged; "
        "Bedrock and litellm's proxy: guardrails",
        r"violates (?:our |xai's )?(?:usage|content|safety) (?:guidelines|polic)",
        r"content exists risk",
        r"considered high risk",
        r"inappropriate content",
        r"(?:input|prompt|request|content|output|response) (?:was|is|has been) (?:flagged|blocked)",
        r"blocked by .{0,40}(?:filter|guardrail|safety)",
        r"violated .{0,20}(?:guardrail|content|safety)",
        codes={"data_inspection_failed", "datainspectionfailed", "prohibited_content"},
        statuses=_CLIENT,
    ),
    # The account.
    _rule(
        RateLimited,
        "Gemini: Resource has been exhausted (e.g. check quota). Its limits per minute have OpenAI's words about a "
        "quota. (issue: google-gemini/gemini-cli#1905)",
        r"resource[ _](?:has been )?exhausted",
        codes={"resource_exhausted"},
        statuses=(429, *_IN_STREAM),
    ),
    _rule(
        QuotaExceeded,
        "OpenAI, Anthropic, DeepSeek, Moonshot, OpenRouter, Cerebras (litellm); xAI (issue: "
        "continuedev/continue#12670 and #10373); litellm's proxy",
        r"exceeded your current quota",
        r"credit balance is too low",
        r"insufficient[ _](?:balance|credits?|quota|funds)",
        r"(?:doesn't|does not|don't) have (?:any|enough) (?:credits|balance|funds)",
        r"(?:out of|requires more|used all available) credits",
        r"spending limit",
        r"budget has been exceeded",
        r"account is (?:not active|in arrears|overdue)",
        r"token_quota_reached",
        codes={
            *("insufficient_quota", "exceeded_current_quota_error", "billing_not_active", "budget_exceeded"),
            *("billing_hard_limit_reached", "insufficient_balance", "billing_error", "arrearage"),
        },
        statuses=(*_CLIENT, 429),
    ),
    _rule(QuotaExceeded, "HTTP: payment required (DeepSeek, OpenRouter)", statuses=(402,)),
    _rule(AuthenticationError, "HTTP: unauthorized, forbidden", statuses=(401, 403)),
    _rule(
        AuthenticationError,
        "litellm: Gemini and xAI answer 400 for a wrong key; Cohere, Bedrock and Hugging Face. litellm's proxy without "
        "a database, where it would look for a key other than its master key (tests/lm/test_proxy.py)",
        r"^no connected db\.",
        r"api key (?:not valid|expired|not found|is invalid)",
        r"(?:incorrect|invalid|missing|no) (?:\w+ )?(?:api[ _-]?key|api token|auth\w* token|bearer token)",
        r"security token included in the request is (?:invalid|expired)",
        r"unable to locate credentials",
        r"accessdeniedexception",
        codes={
            *("invalid_api_key", "authentication_error", "permission_error", "api_key_invalid", "unauthenticated"),
            *("permission_denied", "key_model_access_denied", "auth_error", "invalid_authentication_error"),
            "no_db_connection",
        },
        statuses=_REFUSALS,
    ),
    # The name of the model.
    _rule(
        ModelNotFound,
        "OpenAI, vLLM, Groq, xAI: The model `x` does not exist; DeepSeek: Model Not Exist; Ollama: model x not found; "
        "Gemini: models/x is not found for API version v1beta; Groq: The model `x` has been decommissioned; Hugging "
        "Face: The requested model 'x' is not supported by any provider",
        r"\bmodels?(?:[ :=/]{1,2}[`'\"\\]{0,3}[\w./:@+-]{1,120}[`'\"\\]{0,3})?,? "
        r"(?:do(?:es)? not exist|not exist|(?:is |was )?not found|"
        r"could not be found|is not available|is no longer available|has been (?:decommissioned|deprecated|retired))",
        r"\bmodel [`'\"\\]{0,3}[\w.:@+]{0,60}[/\d-][\w./:@+-]{0,120}[`'\"\\]{0,3} is not supported",
        r"is not a valid model",
        r"no such model",
        r"(?:unknown|invalid|unsupported|unrecognized) model\b:? [`'\"\\]{0,3}[\w-]",
        codes={
            *("model_not_found", "deploymentnotfound", "invalid_model", "model_decommissioned"),
            *("model_not_available", "model_not_supported", "modelnotfound", "unknown_model", "model_deprecated"),
        },
        statuses=_REFUSALS,
    ),
    _rule(
        ModelNotFound,
        "litellm's proxy: Invalid model name passed in model=x (issue: BerriAI/litellm#9663); Bedrock: The provided "
        "model identifier is invalid (litellm); OpenRouter: No endpoints found for x/y; Azure: The API deployment for "
        "this resource does not exist; Together: Unable to access model x; Anthropic: model: x; litellm: LLM Provider "
        "NOT provided (litellm_core_utils/get_llm_provider_logic.py)",
        r"llm provider not provided",
        r"model identifier is invalid",
        r"with on-demand throughput isn.t supported",
        r"no endpoints found for",
        r"deployment .{0,80}does not exist",
        r"unable to access model",
        r"(?m:^model: [\w./:@-]{1,120}$)",
        r"not supported by any provider",
        statuses=_REFUSALS,
    ),
)
_AFTER_PARAMETERS: tuple[KindRule, ...] = (
    _rule(
        RateLimited,
        "litellm, is_error_str_rate_limit; Bedrock: ThrottlingException; Mistral: Service tier capacity exceeded",
        r"rate[\s_-]{0,2}limit(?:ed|error|s? (?:exceeded|reached|error))",
        r"too many requests",
        r"throttl(?:ing|ed)",
        r"service tier capacity exceeded",
        codes={
            *("rate_limit_exceeded", "rate_limit_error", "throttlingexception", "too_many_requests", "rate_limited"),
            *("rate_limit_reached_error", "429"),
        },
        statuses=(*_IN_STREAM, 400, 424, 429),
    ),
    _rule(
        ServerError,
        "litellm, Anthropic: Overloaded; TGI: Model is overloaded; Gemini: The model is overloaded; Moonshot",
        r"overloaded",
        r"temporarily unavailable",
        r"server is busy",
        codes={"overloaded_error", "engine_overloaded_error", "unavailable", "serviceunavailableexception"},
        statuses=(*_IN_STREAM, 400, 424),
    ),
    _rule(
        ModelTimeout,
        "Anthropic, Gemini, Bedrock, OpenAI",
        codes={"timeout_error", "deadline_exceeded", "modeltimeoutexception", "request_timeout"},
        statuses=_IN_STREAM,
    ),
    _rule(
        BadRequestError,
        "OpenAI, Anthropic, Gemini, vLLM, in a stream",
        codes={"invalid_request_error", "invalid_argument", "badrequesterror", "validationexception", *_IMAGE_CODES},
        statuses=_IN_STREAM,
    ),
)
_BY_STATUS: tuple[KindRule, ...] = (
    _rule(ContextTooLong, "HTTP: content too large", statuses=(413,)),
    _rule(RateLimited, "HTTP: too many requests", statuses=(429,)),
    _rule(ModelTimeout, "HTTP: request timeout, gateway timeout", statuses=(408, 504)),
    _rule(BadRequestError, "HTTP: the request is refused", statuses=range(400, 500)),
    _rule(ServerError, "HTTP: the server failed; Anthropic's 529 is an overload", statuses=range(500, 600)),
)


_NOT_SUPPORTED = re.compile(r"(?:not|n't) support|unsupported|requires? --|not (?:been )?implemented", re.IGNORECASE)
"""Ollama and llama.cpp refuse parameters with the status 500, in these words. Other texts of a 500 name a parameter by
chance."""


def error_kind(report: ErrorReport, client_kind: type[ModelError] | None = None) -> type[ModelError]:
    """The class of an error response: by the table of codes and words, else by its HTTP status.

    ``client_kind``: the class that a client such as litellm chose, for a response that the table does not know. An
    error without a status is a ServerError if nothing else is known, so that it is retried.
    """
    kind = _first_match(KINDS, report)
    is_server_failure = report.status is not None and report.status >= 500
    if kind is ModelNotFound and is_server_failure:  # it is loading, or not on this replica, and may be there later
        kind = ServerError
    if kind is ContextTooLong and excessive_output(report.text) is not None:
        kind = UnsupportedParameter
    may_refuse = not is_server_failure or _NOT_SUPPORTED.search(report.text) is not None
    if kind is None and may_refuse and refused_parameter(report) is not None:
        kind = UnsupportedParameter
    if kind is None:
        kind = _first_match(_AFTER_PARAMETERS, report)
    if kind is None:
        kind = client_kind or _first_match(_BY_STATUS, report)
    return kind or ServerError


def _first_match(rules: tuple[KindRule, ...], report: ErrorReport) -> type[ModelError] | None:
    for rule in rules:
        if rule.matches(report):
            return rule.kind
    return None


def provider_error(
    report: ErrorReport, problem: str, *, client_kind: type[ModelError] | None = None, **details: Any
) -> ModelError:
    """The error for an error response. Its kind comes from ``error_kind``.

    ``problem``: the message for users, without secrets. ``details``: arguments of ModelError, such as ``model`` and
    ``status``; without ``advice``, the error has the remedy of its class.
    """
    kind = error_kind(report, client_kind)
    if client_kind is UnsupportedParameter and issubclass(UnsupportedParameter, kind):
        kind = UnsupportedParameter  # the client refuses the parameter itself, in words of its own
    if kind is UnsupportedParameter:
        refused = refused_parameter(report)
        if refused is not None:
            details.setdefault("advice", kind.remedy)
            return kind(problem, parameter=redact(refused.name), allowed=refused.allowed, **details)
        if client_kind is UnsupportedParameter:
            return kind(problem, **details)
        kind = BadRequestError
    details.setdefault("advice", kind.remedy)
    return kind(problem, **details)
