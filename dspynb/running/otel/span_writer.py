"""Events of a run → OpenTelemetry spans. The same class writes the spans of a live run and those of a finished one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dspynb.events import (
    AttemptEnded,
    AttemptStarted,
    Event,
    PredictorCalled,
    ProposalEnded,
    RolloutEnded,
    RunEnded,
    RunStarted,
    SpanEnded,
    SpanStarted,
)
from dspynb.running.otel.attributes import (
    AGENTS,
    Attributes,
    call_attributes,
    call_content,
    clean,
    evaluations,
    start_attributes,
)
from dspynb.running.otel.messages import as_json, tool_call_ids, tool_descriptions
from dspynb.running.otel.names import error_class, model_of, provider_of, span_name, without_surrogates

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

__all__ = ["SpanWriter"]

_EVALUATION = "gen_ai.evaluation.result"
_EXCEPTION = "gen_ai.client.operation.exception"


@dataclass(slots=True)
class _Open:
    """A span that has started and not ended, or a call that failed, whose repair is inside it."""

    otel: Span
    kind: str
    parent: int
    last_at: float  # when the span itself started or the last span inside it ended, in unix seconds
    metric: str | None = None  # the name of the metric of rows inside
    model: str | None = None  # of the first call inside
    response_id: str | None = None  # of the last call inside
    tool_calls: list[tuple[str, str]] = field(default_factory=list)  # (name, id) that the last call inside requested
    tools: Mapping[str, str] = field(default_factory=dict)  # name → description, of the last call inside
    failed_calls: list[int] = field(default_factory=list)  # the calls directly inside that failed
    context: Context | None = None  # the context for spans inside, made when the first of them starts


class SpanWriter:
    """A listener that writes a span for each run, module, search, attempt, row, tool and model call.

    Spans have the times of their events. The span of a model call is written when the call ends. ``root``: the context
    of the outermost spans; None begins a new trace with each. ``capture_content``: whether to send contents.
    """

    def __init__(self, tracer: Tracer, *, capture_content: bool, root: Context | None = None) -> None:
        from opentelemetry.context import Context

        self._tracer = tracer
        self._capture_content = capture_content
        self._root = Context() if root is None else root
        self._open: dict[int, _Open] = {}
        self._failed_calls: dict[int, _Open] = {}
        self._run: int | None = None  # the span of the outermost run
        self._lock = threading.RLock()  # a run inside the run emits without the lock of the run
        self.count = 0

    def emit(self, event: Event) -> None:
        """Write what the event says. Events of other types are ignored."""
        handler = _HANDLERS.get(type(event))
        if handler is not None:
            with self._lock:
                handler(self, event)

    def close(self) -> None:
        """End all spans that have not ended, inner ones first, each with the last span inside it."""
        with self._lock:
            for number in reversed(list(self._open)):
                self._end_unfinished(number, 0.0)
            self._failed_calls.clear()

    # ── starts ────────────────────────────────────────────────────────────────────────────────────────────────────
    def _run_started(self, event: RunStarted) -> None:
        if self._run is None:
            self._run = event.span
        elif self._run == event.span:  # a file of a run that was resumed: its spans before that are over
            self.close()
        self._start("run", event, event.name, event.inputs)

    def _span_started(self, event: SpanStarted) -> None:
        self._start(event.kind, event, event.name, event.inputs)

    def _attempt_started(self, event: AttemptStarted) -> None:
        attributes = {}
        if self._capture_content and event.hint:
            hint = event.hint if isinstance(event.hint, str) else as_json(event.hint)
            attributes["dspynb.hint"] = without_surrogates(hint)
        self._start("attempt", event, f"attempt {event.attempt}", {}, attributes)

    def _start(
        self,
        kind: str,
        event: RunStarted | SpanStarted | AttemptStarted,
        name: str,
        inputs: Mapping[str, Any],
        further: Mapping[str, Any] | None = None,
    ) -> None:
        if event.span in self._open:  # a damaged file
            self._end(event.span, event.at, {"dspynb.unfinished": True})
        attributes = {**clean(start_attributes(kind, event, name)), **(further or {})}
        if kind == "tool":
            attributes.update(clean(self._facts_of_tool(event.parent, name)))
        if self._capture_content and inputs:
            attributes["gen_ai.tool.call.arguments" if kind == "tool" else "dspynb.inputs"] = as_json(inputs)
        otel = self._start_span(span_name(kind, name), event.parent, event.at, attributes)
        self._open[event.span] = _Open(otel, kind, event.parent, event.at, self._metric_in(event))

    def _metric_in(self, event: RunStarted | SpanStarted | AttemptStarted) -> str | None:
        """The name of the metric that the run around a span has. Rows inside a row have a metric of their own."""
        if isinstance(event, RunStarted):
            metric = event.settings.get("metric")
            return metric if isinstance(metric, str) and metric else None
        outer = self._open.get(event.parent)
        return None if outer is None or outer.kind == "row" else outer.metric

    def _facts_of_tool(self, agent: int, name: str) -> Attributes:
        """Yield the description of a tool, and the id of its call: those of the last model call inside the agent. Tools
        of one name start in the order in which the model requested them."""
        outer = self._open.get(agent)
        if outer is None:
            return
        if self._capture_content and outer.tools.get(name):
            yield "gen_ai.tool.description", outer.tools[name]
        for call in outer.tool_calls:
            if call[0] == name:
                outer.tool_calls.remove(call)
                yield "gen_ai.tool.call.id", call[1]
                return

    def _start_span(self, name: str, parent: int, at: float, attributes: Mapping[str, Any], kind: Any = None) -> Span:
        from opentelemetry.trace import SpanKind

        self.count += 1
        return self._tracer.start_span(
            name,
            context=self._context_in(parent),
            kind=SpanKind.INTERNAL if kind is None else kind,
            attributes=attributes,
            start_time=_nanoseconds(at),
        )

    def _context_in(self, number: int) -> Context:
        """The context of spans directly inside a span; that of the run if the span is unknown. It is made when the
        first of them starts."""
        from opentelemetry.trace import set_span_in_context

        outer = self._open.get(number) or self._failed_calls.get(number)
        if outer is None and self._run is not None:
            outer = self._open.get(self._run)
        if outer is None:
            return self._root
        if outer.context is None:
            outer.context = set_span_in_context(outer.otel, self._root)
        return outer.context

    # ── calls ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _called(self, call: PredictorCalled) -> None:
        from opentelemetry.trace import SpanKind

        attributes = clean(call_attributes(call))
        if self._capture_content:
            attributes.update(clean(call_content(call)))
        name = span_name("call", model_of(call.model)) if call.model else "chat"
        otel = self._start_span(name, call.parent, call.started, attributes, SpanKind.CLIENT)
        span = _Open(otel, "call", call.parent, call.at, None, call.model, attributes.get("gen_ai.response.id"))
        if call.error is not None:
            self._set_error(otel, call.error)
            self._write_exception(otel, call.error, call.at)
            self._remember_failed(call.span, span)
        otel.end(end_time=_nanoseconds(max(call.at, call.started)))
        self._add_to_outer(span)
        outer = self._open.get(call.parent)
        if outer is not None and (call.tools or outer.tools):
            outer.tools = tool_descriptions(call)
            outer.tool_calls = tool_call_ids(call)

    def _remember_failed(self, number: int, span: _Open) -> None:
        """Remember a call that failed until the span around it ends, since its repair would be inside it."""
        outer = self._open.get(span.parent)
        if outer is not None:
            outer.failed_calls.append(number)
        self._failed_calls[number] = span

    def _write_exception(self, otel: Span, error: str, at: float) -> None:
        attributes = {"exception.type": error_class(error)}
        if self._capture_content:
            attributes["exception.message"] = without_surrogates(error)
        otel.add_event(_EXCEPTION, attributes, timestamp=_nanoseconds(at))

    # ── ends ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def _run_ended(self, event: RunEnded) -> None:
        for number in reversed(list(self._open)):
            if number != event.span and (event.span == self._run or self._is_inside(number, event.span)):
                self._end_unfinished(number, event.at)
        error = event.error
        if error is None and event.status != "finished":
            error = event.status
        self._end(event.span, event.at, {"dspynb.run.status": event.status}, error)

    def _span_ended(self, event: SpanEnded | ProposalEnded) -> None:
        self._end(event.span, event.at, self._outputs(event.span, event.outputs), event.error)

    def _rollout_ended(self, event: RolloutEnded) -> None:
        attributes = self._outputs(event.span, event.outputs)
        for name in ("candidate", "split"):
            value = getattr(event, name)
            if value is not None:
                attributes[f"dspynb.{name}"] = without_surrogates(value)
        self._scored(event, attributes)

    def _attempt_ended(self, event: AttemptEnded) -> None:
        attributes = self._outputs(event.span, event.outputs)
        attributes["dspynb.attempt.state"] = event.state
        self._scored(event, attributes)

    def _scored(self, event: RolloutEnded | AttemptEnded, attributes: dict[str, Any]) -> None:
        span = self._open.get(event.span)
        if span is None:  # an attempt that was cancelled and refused to end
            return
        error = event.error
        if isinstance(event, AttemptEnded) and event.state == "cancelled":
            error = "cancelled"
        if event.score is not None:
            attributes["dspynb.score"] = float(event.score)
        metric = span.metric or "score"
        for result in evaluations(event, metric, capture_content=self._capture_content):
            if span.response_id is not None:
                result["gen_ai.response.id"] = span.response_id
            span.otel.add_event(_EVALUATION, result, timestamp=_nanoseconds(event.at))
        self._end(event.span, event.at, attributes, error)

    def _outputs(self, number: int, outputs: Mapping[str, Any] | None) -> dict[str, Any]:
        if outputs is None or not self._capture_content:
            return {}
        span = self._open.get(number)
        is_tool = span is not None and span.kind == "tool"
        return {"gen_ai.tool.call.result" if is_tool else "dspynb.outputs": as_json(outputs)}

    def _end(self, number: int, at: float, attributes: Mapping[str, Any], error: str | None = None) -> None:
        """End a span, no earlier than the last span inside it."""
        span = self._open.pop(number, None)
        if span is None:
            return
        for call in span.failed_calls:
            self._failed_calls.pop(call, None)
        span.otel.set_attributes({**_provider_inside(span), **attributes})
        if error is not None:
            self._set_error(span.otel, error)
        span.last_at = max(span.last_at, at)
        span.otel.end(end_time=_nanoseconds(span.last_at))
        self._add_to_outer(span)

    def _end_unfinished(self, number: int, at: float) -> None:
        """End a span that has no end of its own. Candidates never have one, and count as finished."""
        is_candidate = self._open[number].kind == "candidate"
        self._end(number, at, {} if is_candidate else {"dspynb.unfinished": True})

    def _is_inside(self, number: int, outer: int) -> bool:
        span = self._open.get(number)
        while span is not None:
            if span.parent == outer:
                return True
            span = self._open.get(span.parent)
        return False

    def _set_error(self, otel: Span, error: str) -> None:
        from opentelemetry.trace import Status, StatusCode

        otel.set_attribute("error.type", error_class(error))
        description = without_surrogates(error) if self._capture_content else None
        otel.set_status(Status(StatusCode.ERROR, description))

    def _add_to_outer(self, span: _Open) -> None:
        """Add the model, the response id and the end of a span to the span around it."""
        outer = self._open.get(span.parent)
        if outer is None:
            return
        outer.last_at = max(outer.last_at, span.last_at)
        if outer.model is None:
            outer.model = span.model
        outer.response_id = span.response_id or outer.response_id


def _provider_inside(span: _Open) -> dict[str, Any]:
    """The provider of the first model that a module or search has called."""
    if span.kind not in AGENTS or span.model is None:
        return {}
    return {"gen_ai.provider.name": without_surrogates(provider_of(span.model))}


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


_HANDLERS: Mapping[type[Event], Callable[[SpanWriter, Any], None]] = {
    PredictorCalled: SpanWriter._called,
    SpanStarted: SpanWriter._span_started,
    SpanEnded: SpanWriter._span_ended,
    RolloutEnded: SpanWriter._rollout_ended,
    AttemptStarted: SpanWriter._attempt_started,
    AttemptEnded: SpanWriter._attempt_ended,
    ProposalEnded: SpanWriter._span_ended,
    RunStarted: SpanWriter._run_started,
    RunEnded: SpanWriter._run_ended,
}
