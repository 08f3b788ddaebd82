"""``export_otel``: send a finished trace or run to OpenTelemetry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dspynb.errors import ConfigurationError
from dspynb.running.otel.provider import NO_PROVIDER, SET_ONE, load_api, process_provider, tracer_of
from dspynb.running.otel.span_writer import SpanWriter
from dspynb.running.reader import RunReader
from dspynb.running.tracing import Trace, record_of

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

__all__ = ["export_otel"]


def export_otel(
    recorded: Trace | RunReader | str | Path,
    tracer_provider: TracerProvider | None = None,
    *,
    capture_content: bool = False,
) -> int:
    """Send a finished trace or run, or the file of one, to OpenTelemetry. Returns the number of spans sent.

    ``dn.configure(track="otel")`` sends the same spans while runs run.

    Calls become ``chat {model}``, modules and searches ``invoke_agent {name}``, tools ``execute_tool {name}``, runs
    ``invoke_workflow {name}``, with their times and parents; attempts and rows keep their names. Scores of rows and
    attempts become events ``gen_ai.evaluation.result`` of their spans. Each outermost span begins a new trace.
    ``tracer_provider``: default is the process-wide one; it is not flushed here.

    ``capture_content``: whether to send prompts, replies, reasoning, tool calls, descriptions of tools, inputs,
    outputs, hints, feedback and error texts. By default only names, settings, times, counts, scores and error classes
    are sent. Raises ConfigurationError without the extra ``otel`` or without a tracer provider.

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
    load_api("export_otel")
    provider = process_provider() if tracer_provider is None else tracer_provider
    if provider is None:
        raise ConfigurationError(f"{NO_PROVIDER}: pass tracer_provider=, or {SET_ONE}")
    writer = SpanWriter(tracer_of(provider), capture_content=capture_content)
    for event in list(record_of(recorded).events):
        writer.emit(event)
    writer.close()
    return writer.count
