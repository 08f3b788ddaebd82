"""What a run cost, by what its calls were for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dspynb.events import PredictorCalled
from dspynb.running.record import RunRecord
from dspynb.running.record_rows import role_of, usage_of
from dspynb.running.tables.estimates import estimate_of, with_estimates
from dspynb.running.tables.frames import with_costs

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["costs_frame", "usd_text"]

_UNKNOWN = "unknown"
"""The role of calls in files of earlier versions, which do not say what a call was for."""


def costs_frame(record: RunRecord) -> pd.DataFrame:
    """One row per role and model, in the order of their first calls. ``run.costs`` has a description of the columns."""
    import pandas as pd

    groups: dict[tuple[str, str], list[PredictorCalled]] = {}
    for call in record.calls:
        groups.setdefault((role_of(call) or _UNKNOWN, call.model), []).append(call)
    columns = ["role", "model", "calls", "tokens", "cached_tokens", "usd", "seconds"]
    rows = [(role, model, *_costs(calls)) for (role, model), calls in groups.items()]
    frame = with_costs(pd.DataFrame(rows, columns=columns))
    return with_estimates(frame, [estimate_of(calls) for calls in groups.values()])


def usd_text(record: RunRecord) -> str:
    """What a run has cost in US dollars, with the cost of each role in brackets where there are several; "about" where
    a part is estimated. Empty where the calls cost nothing, or all have an unknown price."""
    usages = record.usage_by_role()
    usd = sum(usage.usd or 0.0 for usage in usages.values())
    if not usd:
        return ""
    total = f"{usd:.4f} USD"
    if record.usage.usd is None:
        total = f"at least {total}"
    elif record.estimated:
        total = f"about {total}"
    if len(usages) == 1:
        return total
    by_role = []
    for role, usage in usages.items():
        amount = "unknown" if usage.usd is None else f"{usage.usd:.4f}"
        by_role.append(f"{role or _UNKNOWN} {amount}")
    return f"{total} ({', '.join(by_role)})"


def _costs(calls: Sequence[PredictorCalled]) -> tuple[int, int | None, int | None, float | None, float]:
    usage = usage_of(calls)
    return usage.calls, usage.tokens, usage.cached_tokens, usage.usd, sum(call.seconds for call in calls)
