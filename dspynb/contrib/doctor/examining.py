"""All checks, one after the other."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

from dspynb.contrib.doctor import abilities, installed, places
from dspynb.contrib.doctor.report import WRONG, Finding, Report
from dspynb.redact import error_text

__all__ = ["examine", "run_doctor"]


def run_doctor(
    lm: str | None = None, api_base: str | None = None, dask: str | None = None, *, as_json: bool = False
) -> int:
    """What ``dspynb doctor`` does; returns the process's exit status: 1 where something is wrong."""
    report = examine(lm, api_base, dask)
    sys.stdout.write(report.json() if as_json else report.text())
    return 0 if report.fine else 1


def examine(lm: str | None = None, api_base: str | None = None, dask: str | None = None) -> Report:
    """The report. ``lm``, at ``api_base``, is sent one short request; the cluster of the scheduler ``dask`` is asked
    for its versions."""
    checks: dict[str, Callable[[], Iterable[Finding]]] = {
        "installation": installed.installation,
        "dependencies": installed.dependencies,
        "model": places.embedded_model,
        "reply cache": places.reply_cache,
        "runs": places.runs,
        "keys": places.keys,
        "Stop": abilities.stop,
        "live view": abilities.live_view,
        "code": abilities.generated_code,
    }
    if lm is not None:
        checks["lm"] = lambda: abilities.provider(lm, api_base)
    if dask is not None:
        checks["dask"] = lambda: abilities.cluster(dask)
    return Report.of(installed.head(), [finding for name, check in checks.items() for finding in _found(name, check)])


def _found(name: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    try:
        return list(check())
    except Exception as error:  # in a broken installation anything may fail; the other checks are wanted then
        return [Finding(name, WRONG, f"could not be examined: {error_text(error, 300)}")]
