"""The data that a coordinator sends to a worker, and that the worker sends back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dspynb.data import Usage
from dspynb.scope.allowances import Allowance
from dspynb.scope.core import Scope
from dspynb.scope.snapshot import Snapshot

__all__ = ["Grant", "Header", "Job", "Ref", "Reply"]


@dataclass(frozen=True, slots=True)
class Ref:
    """A reference to a shared value, which is sent to each worker once."""

    key: str
    """The hash of the pickled value."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a job may spend. None is no limit."""

    calls: int | None = None
    """Calls that the job may make without asking the coordinator."""
    metric_calls: int | None = None
    """Metric calls that the job may make without asking the coordinator."""
    remaining_calls: float = math.inf
    """Calls that the budgets of the coordinator had left when the job was sent."""
    remaining_metric_calls: float = math.inf
    """Metric calls that the budgets of the coordinator had left when the job was sent."""
    tokens: float | None = None
    """Tokens that the budgets had left; likewise ``usd`` and ``seconds``."""
    usd: float | None = None
    seconds: float | None = None

    def without_calls(self) -> Grant:
        """The grant of a job whose calls may have been used before. It asks the coordinator for every limited call."""
        return replace(self, calls=None if self.calls is None else 0)

    @classmethod
    def of(cls, scope: Scope, funds: Allowance | None) -> Grant:
        """The grant of a job that is sent from a scope. It takes all calls of ``funds``, the allowance of the job."""
        remaining_calls = scope.available()
        calls = None
        if remaining_calls < math.inf:
            calls = 0
        if funds is not None:
            calls = funds.left
            funds.take(calls)
        remaining_metric_calls = scope.metric_calls_left()
        metric_calls = None
        if remaining_metric_calls < math.inf:
            metric_calls = 0
        return cls(calls, metric_calls, remaining_calls, remaining_metric_calls, **_measured_limits(scope))


def _measured_limits(scope: Scope) -> dict[str, float]:
    """The tokens, USD and seconds that the budgets have left. What a call takes of these is known after the call."""
    limits: dict[str, float] = {}
    for layer in scope.open_layers():
        if not hasattr(layer.funds, "budget"):
            continue
        for name, value in getattr(layer.funds, "left", {}).items():
            if name in ("tokens", "usd", "seconds"):
                limits[name] = min(value, limits.get(name, math.inf))
    return limits


@dataclass(frozen=True, slots=True)
class Header:
    """What a worker reads before it unpickles a job."""

    version: str
    """The dspynb version of the coordinator."""
    topic: str
    """The Dask topic for questions to the coordinator."""
    key: str
    """The key of the Dask task."""
    worker: str
    """The address of the worker that the job was sent to; empty for any worker."""
    once: tuple[str, ...]
    """The keys of the shared values of the job."""


@dataclass(frozen=True, slots=True)
class Job:
    """One call of a function on a worker."""

    id: str
    fn: Any
    arguments: Mapping[str, Any]
    snapshot: Snapshot
    paths: Mapping[str, str]
    """The paths of the predictors by their uid, from the run."""
    name: str
    """The name of the run."""
    grant: Grant


@dataclass(frozen=True, slots=True)
class Reply:
    """The result of a job."""

    worker: str
    """The address of the worker."""
    payload: bytes = b""
    """The events and the result, pickled (see serialization)."""
    raised: bool = False
    """Whether the result is an error that the function raised."""
    refused: str | None = None
    """Why the worker did not run the job; None if it did."""
    opened: int | None = None
    """The number of the job's span on the worker."""
    masked: frozenset[int] = frozenset()
    """The indices of the events that were emitted under a mask. They are not the program's own."""
    unused: tuple[int, int] = (0, 0)
    """Calls and metric calls of the grant that were not used."""
    used: tuple[int, int] = (0, 0)
    """Calls and metric calls that were used, where the grant sets no limit."""
    usage: Usage = field(default_factory=Usage)
    estimate: int = 0
    """An estimate of the tokens of calls whose usage does not have them."""
