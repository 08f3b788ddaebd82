"""OpenTelemetry's API and the tracer provider of the process."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import dspynb
from dspynb.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer, TracerProvider

__all__ = ["NO_PROVIDER", "SET_ONE", "load_api", "process_provider", "tracer_of"]

NO_PROVIDER = "no OpenTelemetry tracer provider is set, so the spans would go nowhere"
SET_ONE = "set one with opentelemetry.trace.set_tracer_provider"


def load_api(user: str) -> None:
    """Check that OpenTelemetry is installed. Raises ConfigurationError, which names ``user``, if it is not."""
    try:
        import opentelemetry.trace  # noqa: F401
    except ImportError:
        raise ConfigurationError(f'{user} needs OpenTelemetry: pip install "dspynb[otel]"') from None


def process_provider() -> TracerProvider | None:
    """The process-wide tracer provider; None if none is set."""
    from opentelemetry import trace

    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return None
    return provider


@lru_cache(maxsize=1)  # to make a tracer takes as long as a span
def tracer_of(provider: TracerProvider) -> Tracer:
    """The tracer of this package."""
    return provider.get_tracer("dspynb", dspynb.__version__)
