"""The doctor's entry points: they run all checks and make the report."""

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
    """Print the report, for ``dspynb doctor``. Returns the exit status: 1 if something is wrong, else 0."""
    report = examine(lm, api_base, dask)
    sys.stdout.write(report.json() if as_json else report.text())
    return 0 if report.fine else 1


def examine(lm: str | None = None, api_base: str | None = None, dask: str | None = None) -> Report:
    """Run all checks and return the report.

    ``lm``: a model to send a short request to; None sends none. ``api_base``: its address. ``dask``: the address of a
    scheduler whose cluster to check; None checks none.
    """
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
    findings: list[Finding] = []
    for name, check in checks.items():
        findings += _run_check(name, check)
    return Report.of(installed.head(), findings)


def _run_check(name: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    try:
        return list(check())
    except Exception as error:  # in a broken installation anything may fail; the other checks must run all the same
        return [Finding(name, WRONG, f"could not be examined: {error_text(error, 300)}")]
