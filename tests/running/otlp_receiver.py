"""A receiver of OpenTelemetry spans on loopback: OTLP over HTTP, read with ``opentelemetry-proto``."""

from __future__ import annotations

import gzip
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class ReceivedEvent:
    """An event of a span."""

    name: str
    attributes: dict


@dataclass
class ReceivedSpan:
    """A span as it arrived. ``types``: the types of the attributes in the protocol."""

    name: str
    kind: str
    span_id: bytes
    parent_id: bytes
    trace_id: bytes
    start: int
    end: int
    is_error: bool
    description: str
    attributes: dict
    types: dict
    events: list = field(default_factory=list)

    def results(self):
        """The evaluation results: name → score."""
        name, value = "gen_ai.evaluation.name", "gen_ai.evaluation.score.value"
        events = [event.attributes for event in self.events if event.name == "gen_ai.evaluation.result"]
        return {event[name]: event[value] for event in events}


class OTLPReceiver:
    """``with OTLPReceiver() as receiver``: the spans that arrive are in ``receiver.spans``, in order."""

    def __init__(self):
        self.spans = []
        self.raw = b""
        self.arrived = threading.Condition()

    def __enter__(self):
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                receiver.receive(body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()

    @property
    def url(self):
        """The address for the exporter."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1/traces"

    def receive(self, body):
        """Add the spans of a request."""
        request = ExportTraceServiceRequest.FromString(body)
        with self.arrived:
            self.raw += body
            for resource_spans in request.resource_spans:
                for scope_spans in resource_spans.scope_spans:
                    self.spans += [_read(span) for span in scope_spans.spans]
            self.arrived.notify_all()

    def wait_for(self, name):
        """Wait until a span of this name has arrived, and return it."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: self.named(name), timeout=30), f"no span {name} arrived"
            return self.named(name)[0]

    def named(self, name):
        """The spans of this name."""
        return [span for span in self.spans if span.name == name]

    def parent(self, span):
        """The span around a span, or None."""
        return next((outer for outer in self.spans if outer.span_id == span.parent_id), None)

    def path(self, span):
        """The names of the spans around a span, from the outermost to itself."""
        names = [span.name]
        outer = self.parent(span)
        while outer is not None:
            names.insert(0, outer.name)
            outer = self.parent(outer)
        return names


_TYPES = {"string_value": "string", "bool_value": "boolean", "int_value": "int", "double_value": "double"}


def _read(span):
    attributes = {}
    types = {}
    for pair in span.attributes:
        attributes[pair.key], types[pair.key] = _value(pair.value)
    events = []
    for event in span.events:
        events.append(ReceivedEvent(event.name, {pair.key: _value(pair.value)[0] for pair in event.attributes}))
        types.update({f"{event.name}/{pair.key}": _value(pair.value)[1] for pair in event.attributes})
    kind = Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_")
    return ReceivedSpan(
        span.name,
        kind,
        span.span_id,
        span.parent_span_id,
        span.trace_id,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        span.status.code == 2,
        span.status.message,
        attributes,
        types,
        events,
    )


def _value(value):
    """The value and its type."""
    kind = value.WhichOneof("value")
    if kind != "array_value":
        return getattr(value, kind), _TYPES[kind]
    values = [_value(item) for item in value.array_value.values]
    (item_type,) = {item_type for _, item_type in values}
    return [item for item, _ in values], f"{item_type}[]"
