"""The attributes of spans, from the events of a run. Contents are separate: they are sent only if a user asks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dspynb.events import AttemptEnded, AttemptStarted, PredictorCalled, RolloutEnded, RunStarted, SpanStarted
from dspynb.redact import redact_known
from dspynb.running.otel.messages import as_json, finish_text, input_messages, output_messages, tool_definitions
from dspynb.running.otel.names import OWN_PROVIDER, error_class, model_of, operation_of, provider_of, without_surrogates
from dspynb.running.otel.request import output_type, request_attributes

__all__ = [
    "AGENTS",
    "Attributes",
    "call_attributes",
    "call_content",
    "clean",
    "evaluations",
    "start_attributes",
]

Attributes = Iterator[tuple[str, Any]]
_TOO_LARGE = 2**63
"""The protocol has integers of 64 bits, and the rollouts of searches nested three deep are larger."""
_LONGEST_PORT = 5
_FINISH_OF_ERRORS = {"ReplyTruncated": "length", "ContentFiltered": "content_filter"}
AGENTS = ("module", "search")
"""The kinds of spans that are agents in the conventions."""


def clean(attributes: Attributes) -> dict[str, Any]:
    """The attributes as a dict, with texts that can be sent. Values that the protocol does not have are left out."""
    cleaned: dict[str, Any] = {}
    for name, value in attributes:
        if type(value) is str:
            cleaned[name] = value if value.isascii() else without_surrogates(value)
        elif type(value) is tuple:
            cleaned[name] = tuple(without_surrogates(text) for text in value)
        elif type(value) in (bool, float) or (type(value) is int and abs(value) < _TOO_LARGE):
            cleaned[name] = value
    return cleaned


def start_attributes(kind: str, event: RunStarted | SpanStarted | AttemptStarted, name: str) -> Attributes:
    """Yield the attributes that a run, module, search, tool, row or attempt has from its start."""
    operation = operation_of(kind)
    if operation is not None:
        yield "gen_ai.operation.name", operation
    if kind in AGENTS:
        yield "gen_ai.agent.name", name
        yield "gen_ai.provider.name", OWN_PROVIDER  # until a model is called
    elif kind == "tool":
        yield "gen_ai.tool.name", name
        yield "gen_ai.tool.type", "function"
    elif kind == "run":
        yield "gen_ai.workflow.name", name
    yield "dspynb.span.kind", kind
    if isinstance(event, RunStarted):
        yield "dspynb.run.kind", event.kind
    elif isinstance(event, AttemptStarted):
        yield "dspynb.attempt", event.attempt
        yield "dspynb.wave", event.wave
    elif event.row is not None:
        yield "dspynb.row", event.row


def call_attributes(call: PredictorCalled) -> Attributes:
    """Yield the attributes of a model call that are no content."""
    yield "gen_ai.operation.name", "chat"
    yield "gen_ai.provider.name", provider_of(call.model)
    yield from _request_attributes(call)
    yield from _response_attributes(call)
    yield from _usage_attributes(call)
    yield from _own_attributes(call)


def _request_attributes(call: PredictorCalled) -> Attributes:
    settings = call.requested if call.sent is None else call.sent
    if call.model:
        yield "gen_ai.request.model", model_of(call.model)
    yield from request_attributes(settings)
    kind = output_type(settings, call.response_format)
    if kind is not None:
        yield "gen_ai.output.type", kind
    if call.server is not None:
        host, _, port = call.server.rpartition(":")
        if host and port.isdecimal() and len(port) <= _LONGEST_PORT:
            yield "server.address", host.strip("[]")
            yield "server.port", int(port)


def _response_attributes(call: PredictorCalled) -> Attributes:
    if call.first_token is not None:
        yield "gen_ai.request.stream", True
        yield "gen_ai.response.time_to_first_chunk", float(call.first_token)
    if call.response_model:
        yield "gen_ai.response.model", redact_known(call.response_model)
    if call.response_id:
        yield "gen_ai.response.id", redact_known(call.response_id)
    finish = finish_text(call.finish)
    if finish is None and call.reply is None and call.error is not None:
        finish = _FINISH_OF_ERRORS.get(error_class(call.error), "error")
    if finish:
        yield "gen_ai.response.finish_reasons", (finish,)


def _own_attributes(call: PredictorCalled) -> Attributes:
    """Yield the attributes that the conventions do not have."""
    yield "dspynb.span.kind", "call"
    yield "dspynb.predictor", call.predictor
    yield "dspynb.cached", call.cached
    yield "dspynb.rollout", call.rollout
    if call.role:
        yield "dspynb.role", call.role
    if call.candidate is not None:
        yield "dspynb.candidate", call.candidate
    if call.repair:
        yield "dspynb.repair", True
    if call.waited:
        yield "dspynb.waited", float(call.waited)
    if call.request_id is not None:
        yield "dspynb.request_id", call.request_id
    if call.usage.usd:
        yield "dspynb.usd", float(call.usage.usd)
    if call.price_source:
        yield "dspynb.price_source", call.price_source


def _usage_attributes(call: PredictorCalled) -> Attributes:
    """Yield the tokens that are known. A call that failed has some if its error reports them."""
    usage = call.usage
    if call.reply is None and not usage.tokens:
        return
    if usage.prompt_tokens is not None:
        yield "gen_ai.usage.input_tokens", usage.prompt_tokens
    if usage.completion_tokens is not None:
        yield "gen_ai.usage.output_tokens", usage.completion_tokens
    if usage.cached_tokens:
        yield "gen_ai.usage.cache_read.input_tokens", usage.cached_tokens
    if usage.reasoning_tokens:
        yield "gen_ai.usage.reasoning.output_tokens", usage.reasoning_tokens


def call_content(call: PredictorCalled) -> Attributes:
    """Yield the attributes that hold the hint, the messages, the reply, the tools and the schema of a call."""
    if call.hint:
        yield "dspynb.hint", call.hint
    yield "gen_ai.input.messages", as_json(input_messages(call))
    if call.reply is not None:
        yield "gen_ai.output.messages", as_json(output_messages(call))
    if call.tools:
        yield "gen_ai.tool.definitions", as_json(tool_definitions(call))
    if call.response_format is not None:
        yield "dspynb.response_format", as_json(call.response_format)


def evaluations(event: RolloutEnded | AttemptEnded, metric: str, *, capture_content: bool) -> Iterator[dict[str, Any]]:
    """Yield the attributes of an evaluation result for each score of a rollout or attempt.

    A rollout with several metrics has one result for each, with the metric's name. ``metric``: the name of the only
    metric of a rollout. The name of an attempt's score is ``reward``.
    """
    if event.score is None:
        return
    explanation = {}
    if capture_content and event.feedback:
        explanation["gen_ai.evaluation.explanation"] = without_surrogates(event.feedback)
    if isinstance(event, AttemptEnded):
        label = "pass" if event.state == "passed" else "fail"
        result = {"gen_ai.evaluation.score.label": label}
        yield {**_evaluation("reward", event.score), **result, **explanation}
        return
    if not event.metrics:
        yield {**_evaluation(metric, event.score), **explanation}
    for name, score in event.metrics.items():
        yield {**_evaluation(name, score), **explanation}
        explanation = {}  # the feedback is that of the first metric


def _evaluation(name: str, score: float) -> dict[str, Any]:
    return {
        "gen_ai.evaluation.name": without_surrogates(name),
        "gen_ai.evaluation.score.value": float(score),
    }
