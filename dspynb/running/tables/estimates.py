"""The column ``estimated`` of tables with costs: how many tokens were estimated, since no provider reported them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from dspynb.events import PredictorCalled
from dspynb.running.record import RunRecord
from dspynb.scope.budget import estimated_tokens

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["estimate_of", "estimates_in", "with_estimates"]


def estimate_of(calls: Iterable[PredictorCalled]) -> int:
    """How many tokens of calls are estimated: of replies without a usage, and of requests that were stopped."""
    return sum(call.estimated or estimated_tokens(call) for call in calls if not call.cached)


def estimates_in(record: RunRecord | None, spans: Iterable[int]) -> list[int]:
    """How many tokens of the calls in each of these spans are estimated. Empty for a record without estimates."""
    if record is None or not any(call.estimated or call.usage.tokens is None for call in record.calls):
        return []
    return [estimate_of(record.calls_in(span)) for span in spans]


def with_estimates(frame: pd.DataFrame, estimates: Sequence[int]) -> pd.DataFrame:
    """The frame with the column ``estimated`` after ``usd``, if any tokens are estimated."""
    if any(estimates):
        frame.insert(list(frame.columns).index("usd") + 1, "estimated", list(estimates))
    return frame
