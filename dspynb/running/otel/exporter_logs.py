"""A receiver that is down is reported once, and not for each batch of spans."""

from __future__ import annotations

import logging
import threading

__all__ = ["FailureFilter", "report_failures_once"]

_EXPORTERS = ("opentelemetry.exporter.", "opentelemetry.sdk.trace.export", "opentelemetry.sdk._shared_internal")
"""How the names of the loggers begin that report failures of exporters, in new and old versions of OpenTelemetry."""
_RETRYING = "Transient error"  # how the exporters of OpenTelemetry begin the record of a failure that they retry
_lock = threading.Lock()
_filtered: set[str] = set()
_seen = 0  # the number of loggers in the process when they were looked through last


class FailureFilter(logging.Filter):
    """Drops the records of retries, and passes each kind of failure once, with the reason of the last retry."""

    def __init__(self) -> None:
        super().__init__()
        self._reason = ""
        self._reported: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log the record."""
        template = str(record.msg)
        if template.startswith(_RETRYING):
            self._reason = record.getMessage()
            return False
        if record.levelno < logging.ERROR:
            return True
        if template in self._reported:
            return False
        self._reported.add(template)
        text = record.getMessage()
        if self._reason:
            text += f" {self._reason.rstrip('.')}."
        record.msg = f"{text} (The runs continue. This failure is reported once.)"
        record.args = ()
        return True


def report_failures_once() -> None:
    """Put a filter on the logger of each exporter of OpenTelemetry that has none yet."""
    global _seen  # noqa: PLW0603  # so that a run looks through the loggers only if there are new ones
    loggers = logging.root.manager.loggerDict
    if len(loggers) == _seen:
        return
    with _lock:
        _seen = len(loggers)
        for name in tuple(loggers):
            if name.startswith(_EXPORTERS) and name not in _filtered:
                _filtered.add(name)
                logging.getLogger(name).addFilter(FailureFilter())
