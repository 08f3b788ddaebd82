"""``track="otel"``: the spans of a run are sent while it runs."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from dspynb.errors import TrackingWarning
from dspynb.running.otel.exporter_logs import report_failures_once
from dspynb.running.otel.provider import NO_PROVIDER, SET_ONE, process_provider, tracer_of
from dspynb.running.otel.span_writer import SpanWriter
from dspynb.scope.core import warn_user

if TYPE_CHECKING:
    from dspynb.events import Sink

__all__ = ["CAPTURE_VARIABLE", "OtelTracker"]

CAPTURE_VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""The environment variable with which a user asks for contents. Other instrumentations for GenAI read it too."""
_CAPTURING = ("true", "1", "yes", "on", "span_only", "span_and_event")


class OtelTracker:
    """Sends spans to the tracer provider of the process, inside the span that is current where the run begins."""

    def begin(self) -> Sink | None:
        """The listener of a run. None, and one warning in the process, if no tracer provider is set."""
        from opentelemetry.context import get_current

        provider = process_provider()
        if provider is None:
            _warn_once()
            return None
        report_failures_once()
        return SpanWriter(tracer_of(provider), capture_content=captures_content(), root=get_current())


def captures_content() -> bool:
    """Whether the environment asks for contents in spans."""
    return os.environ.get(CAPTURE_VARIABLE, "").strip().lower() in _CAPTURING


_warned = threading.Event()


def _warn_once() -> None:
    if not _warned.is_set():
        _warned.set()
        warn_user(f'track="otel": {NO_PROVIDER}: {SET_ONE}', TrackingWarning)
