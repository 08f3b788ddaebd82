"""Export of traces and runs as OpenTelemetry spans, in the semantic conventions for generative AI.

Conventions: open-telemetry/semantic-conventions-genai v0.1.0 (attributes ``gen_ai.*``; status: development).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspynb.errors import ConfigurationError
from dspynb.events import plain
from dspynb.running.reader import RunReader
from dspynb.running.tables.spans import Span, spans_of
from dspynb.running.tracing import Trace, record_of

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

__all__ = ["export_otel"]

_OPERATIONS = {
    "call": "chat",
    "module": "invoke_agent",
    "search": "invoke_agent",
    "run": "invoke_workflow",
    "tool": "execute_tool",
}
_PROVIDERS = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
"""litellm's name of a provider → its name in the conventions, where they differ."""


def export_otel(
    recorded: Trace | RunReader | str | Path,
    tracer_provider: TracerProvider | None = None,
    *,
    capture_content: bool = False,
) -> int:
    """Send a finished trace or run, or the file of one, to OpenTelemetry. Returns the number of spans sent.

    Calls become ``chat {model}``, modules and searches ``invoke_agent {name}``, tools ``execute_tool {name}``, runs
    ``invoke_workflow {name}``, with their times and parents; attempts and rows keep their names. Each outermost span
    begins a new trace. ``tracer_provider``: default is the process-wide one; it is not flushed here.

    ``capture_content``: whether to send prompts, replies, inputs, outputs, hints and error texts. By default only
    names, times, counts and error classes are sent. Raises ConfigurationError without the extra ``otel`` or without a
    tracer provider.

    >>> from opentelemetry.sdk.trace import TracerProvider
    >>> from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    >>> from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    >>> provider, sent = TracerProvider(), InMemorySpanExporter()
    >>> provider.add_span_processor(SimpleSpanProcessor(sent))
    >>> with dn.trace() as t:
    ...     prediction = dn.Predict("question -> answer", lm=dn.ScriptedLM(["answer: 4"])).run_sync(question="2+2?")
    >>> dn.export_otel(t, provider), sent.get_finished_spans()[0].name
    (1, 'chat scripted')
    """
    tracer = _tracer(tracer_provider)
    spans = spans_of(record_of(recorded))
    ends = _end_times(spans)
    otel_spans: dict[int, Any] = {}
    for span in spans:  # each parent comes before its children
        otel_spans[span.span] = _start(tracer, span, otel_spans.get(span.parent), capture_content)
    for span in reversed(spans):
        otel_spans[span.span].end(end_time=_nanoseconds(ends[span.span]))
    return len(spans)


def _tracer(provider: TracerProvider | None) -> Any:
    try:
        from opentelemetry import trace
    except ImportError:
        raise ConfigurationError('export_otel needs OpenTelemetry: pip install "dspynb[otel]"') from None
    if provider is None:
        provider = trace.get_tracer_provider()
        if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
            raise ConfigurationError(
                "no OpenTelemetry tracer provider is set, so the spans would go nowhere: "
                "pass tracer_provider=, or set one with opentelemetry.trace.set_tracer_provider"
            )
    return provider.get_tracer("dspynb")


def _start(tracer: Any, span: Span, parent: Any, capture_content: bool) -> Any:
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

    context = Context()
    if parent is not None:
        context = set_span_in_context(parent, context)
    otel_span = tracer.start_span(
        _without_surrogates(_name(span)),
        context=context,
        kind=SpanKind.CLIENT if span.kind == "call" else SpanKind.INTERNAL,
        attributes=_attributes(span, capture_content),
        start_time=_nanoseconds(span.started),
    )
    if span.error is not None:
        description = _without_surrogates(span.error) if capture_content else None
        otel_span.set_status(Status(StatusCode.ERROR, description))
    return otel_span


def _name(span: Span) -> str:
    operation = _OPERATIONS.get(span.kind)
    if operation is None:
        return span.path
    if span.kind == "call":
        return f"{operation} {_model(span)}"
    return f"{operation} {span.path}"


def _model(span: Span) -> str:
    """The name of the model without its provider."""
    return span.model.partition("/")[2] or span.model


def _attributes(span: Span, capture_content: bool) -> dict[str, Any]:
    attributes = dict(_metadata(span))
    if capture_content:
        attributes.update(_content(span))
    for name, value in attributes.items():
        if isinstance(value, str):
            attributes[name] = _without_surrogates(value)
    return attributes


def _metadata(span: Span) -> Iterator[tuple[str, Any]]:
    """Yield the attributes that hold no content."""
    yield "dspynb.span.kind", span.kind
    operation = _OPERATIONS.get(span.kind)
    if operation:
        yield "gen_ai.operation.name", operation
    if span.kind == "call":
        yield from _call_metadata(span)
    elif span.kind == "tool":
        yield "gen_ai.tool.name", span.path
        yield "gen_ai.tool.type", "function"
    elif span.kind in _OPERATIONS:
        yield "gen_ai.agent.name", span.path
    if span.score is not None:
        yield "dspynb.score", span.score
    if span.candidate is not None:
        yield "dspynb.candidate", span.candidate
    if span.error is not None:
        yield "error.type", _error_class(span.error)
    if span.seconds is None:
        yield "dspynb.unfinished", True


def _call_metadata(span: Span) -> Iterator[tuple[str, Any]]:
    provider = span.model.partition("/")[0] or "dspynb"
    yield "gen_ai.provider.name", _PROVIDERS.get(provider, provider)
    yield "gen_ai.request.model", _model(span)
    if span.reply is not None and span.usage.prompt_tokens is not None:
        yield "gen_ai.usage.input_tokens", span.usage.prompt_tokens
    if span.reply is not None and span.usage.completion_tokens is not None:
        yield "gen_ai.usage.output_tokens", span.usage.completion_tokens
    if span.usage.cached_tokens:
        yield "gen_ai.usage.cache_read.input_tokens", span.usage.cached_tokens
    yield "dspynb.predictor", span.path
    yield "dspynb.cached", span.cached
    yield "dspynb.rollout", span.rollout


def _content(span: Span) -> Iterator[tuple[str, Any]]:
    """Yield the attributes that hold hints, prompts, replies, inputs and outputs."""
    if span.hint:
        yield "dspynb.hint", span.hint if isinstance(span.hint, str) else _json(span.hint)
    if span.kind == "call":
        messages = [_message(message.get("role"), message.get("content")) for message in span.messages]
        yield "gen_ai.input.messages", _json(messages)
        if span.reply is not None:
            reply = {**_message("assistant", span.reply), "finish_reason": "stop"}
            yield "gen_ai.output.messages", _json([reply])
        return
    is_tool = span.kind == "tool"
    yield "gen_ai.tool.call.arguments" if is_tool else "dspynb.inputs", _json(span.inputs)
    if span.outputs is not None:
        yield "gen_ai.tool.call.result" if is_tool else "dspynb.outputs", _json(span.outputs)


def _message(role: object, content: object) -> Mapping[str, Any]:
    parts = content if isinstance(content, list | tuple) else [{"type": "text", "content": content}]
    return {"role": role, "parts": parts}


def _json(value: object) -> str:
    return json.dumps(plain(value), default=repr)


def _error_class(error: str) -> str:
    """The class of an error, which spans hold as ``Class: text``. The text is content: a model may have written it."""
    name = error.partition(":")[0]
    if name.isidentifier():
        return name
    return "_OTHER"


def _end_times(spans: tuple[Span, ...]) -> dict[int, float]:
    """Span → its end, in unix seconds. A span that did not end gets the latest end of the spans inside it."""
    ends = {span.span: span.started + (span.seconds or 0.0) for span in spans}
    for span in reversed(spans):
        parent = ends.get(span.parent)
        if parent is not None:
            ends[span.parent] = max(parent, ends[span.span])
    return ends


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def _without_surrogates(text: str) -> str:
    """The text with lone surrogates replaced, since they cannot be sent."""
    return text.encode("utf-8", "replace").decode()
