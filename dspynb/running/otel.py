"""Finished traces and runs as OpenTelemetry spans, by the semantic conventions for generative AI.

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
"""litellm's names of providers, where the conventions have another."""


def export_otel(
    recorded: Trace | RunReader | str | Path,
    tracer_provider: TracerProvider | None = None,
    *,
    capture_content: bool = False,
) -> int:
    """Send a finished trace or run, or a file of one, to OpenTelemetry; returns how many spans were sent.

    Calls become ``chat {model}``, modules and searches ``invoke_agent {name}``, tools ``execute_tool {name}``, runs
    ``invoke_workflow {name}``, with their times and parents; attempts and rows keep their names. Outermost spans are
    traces of their own. ``tracer_provider``: the process-wide one, if none is given; it is not flushed here.

    ``capture_content``: prompts, replies, inputs, outputs, hints and the texts of errors go along; without it none of
    them leaves the process, only names, times, counts and the class of an error. Raises ConfigurationError without the
    extra ``otel`` or without a tracer provider.

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
    ends = _ends(spans)
    sent: dict[int, Any] = {}
    for span in spans:  # parents come first
        sent[span.span] = _start(tracer, span, sent.get(span.parent), capture_content)
    for span in reversed(spans):
        sent[span.span].end(end_time=_ns(ends[span.span]))
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


def _start(tracer: Any, span: Span, parent: Any, content: bool) -> Any:
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

    started = tracer.start_span(
        _clean(_name(span)),
        context=Context() if parent is None else set_span_in_context(parent, Context()),
        kind=SpanKind.CLIENT if span.kind == "call" else SpanKind.INTERNAL,
        attributes=_attributes(span, content),
        start_time=_ns(span.started),
    )
    if span.error is not None:
        started.set_status(Status(StatusCode.ERROR, _clean(span.error) if content else None))
    return started


def _name(span: Span) -> str:
    operation = _OPERATIONS.get(span.kind)
    return span.path if operation is None else f"{operation} {_model(span) if span.kind == 'call' else span.path}"


def _model(span: Span) -> str:
    return span.model.partition("/")[2] or span.model


def _attributes(span: Span, content: bool) -> dict[str, Any]:
    told = {**dict(_facts(span)), **(dict(_content(span)) if content else {})}
    return {name: _clean(value) if isinstance(value, str) else value for name, value in told.items()}


def _facts(span: Span) -> Iterator[tuple[str, Any]]:
    yield "dspynb.span.kind", span.kind
    if operation := _OPERATIONS.get(span.kind):
        yield "gen_ai.operation.name", operation
    if span.kind == "call":
        yield from _call(span)
    elif span.kind == "tool":
        yield from (("gen_ai.tool.name", span.path), ("gen_ai.tool.type", "function"))
    elif span.kind in _OPERATIONS:
        yield "gen_ai.agent.name", span.path
    if span.score is not None:
        yield "dspynb.score", span.score
    if span.candidate is not None:
        yield "dspynb.candidate", span.candidate
    if span.error is not None:
        yield "error.type", _class_of(span.error)
    if span.seconds is None:
        yield "dspynb.unfinished", True


def _call(span: Span) -> Iterator[tuple[str, Any]]:
    provider = span.model.partition("/")[0] or "dspynb"
    yield "gen_ai.provider.name", _PROVIDERS.get(provider, provider)
    yield "gen_ai.request.model", _model(span)
    if span.reply is not None and span.usage.prompt_tokens is not None:
        yield "gen_ai.usage.input_tokens", span.usage.prompt_tokens
    if span.reply is not None and span.usage.completion_tokens is not None:
        yield "gen_ai.usage.output_tokens", span.usage.completion_tokens
    if span.usage.cached_tokens:
        yield "gen_ai.usage.cache_read.input_tokens", span.usage.cached_tokens
    yield from (("dspynb.predictor", span.path), ("dspynb.cached", span.cached), ("dspynb.rollout", span.rollout))


def _content(span: Span) -> Iterator[tuple[str, Any]]:
    if span.hint:
        yield "dspynb.hint", span.hint if isinstance(span.hint, str) else _json(span.hint)
    if span.kind == "call":
        yield "gen_ai.input.messages", _json([_message(m.get("role"), m.get("content")) for m in span.messages])
        if span.reply is not None:
            reply = {**_message("assistant", span.reply), "finish_reason": "stop"}
            yield "gen_ai.output.messages", _json([reply])
        return
    names = ("gen_ai.tool.call.arguments", "gen_ai.tool.call.result")
    inputs, outputs = names if span.kind == "tool" else ("dspynb.inputs", "dspynb.outputs")
    yield inputs, _json(span.inputs)
    if span.outputs is not None:
        yield outputs, _json(span.outputs)


def _message(role: Any, content: Any) -> Mapping[str, Any]:
    parts = content if isinstance(content, list | tuple) else [{"type": "text", "content": content}]
    return {"role": role, "parts": parts}


def _json(value: Any) -> str:
    return json.dumps(plain(value), default=repr)


def _class_of(error: str) -> str:
    """Errors are told as ``Class: text``; the text may hold what a model wrote."""
    name = error.partition(":")[0]
    return name if name.isidentifier() else "_OTHER"


def _ends(spans: tuple[Span, ...]) -> dict[int, float]:
    """When each span ended; one that did not, with the last of what happened in it."""
    ends = {span.span: span.started + (span.seconds or 0.0) for span in spans}
    for span in reversed(spans):
        parent = ends.get(span.parent)
        if parent is not None:
            ends[span.parent] = max(parent, ends[span.span])
    return ends


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)


def _clean(text: str) -> str:
    """Without lone surrogates, which cannot be sent."""
    return text.encode("utf-8", "replace").decode()
