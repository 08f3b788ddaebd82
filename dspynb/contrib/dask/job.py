"""A job away from its run: what travels to a worker, and what comes back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dspynb.data import Usage
from dspynb.scope.budget import Allowance
from dspynb.scope.core import Scope
from dspynb.scope.snapshot import Snapshot

__all__ = ["Grant", "Header", "Job", "Ref", "Reply"]


@dataclass(frozen=True, slots=True)
class Ref:
    """A value that travels once, by the hash of its bytes."""

    key: str


@dataclass(frozen=True, slots=True)
class Grant:
    """What a job may spend without asking. ``calls`` and ``metric_calls``: None is no limit; ``more`` and
    ``more_metric_calls``: what was left besides. ``tokens``, ``usd``, ``seconds``: what was left of them, None is no
    limit."""

    calls: int | None = None
    metric_calls: int | None = None
    more: float = math.inf
    more_metric_calls: float = math.inf
    tokens: float | None = None
    usd: float | None = None
    seconds: float | None = None

    def spent(self) -> Grant:
        """What is left of it where it may have been spent already: what is limited is asked for."""
        return replace(self, calls=None if self.calls is None else 0)

    @classmethod
    def of(cls, scope: Scope, funds: Allowance | None) -> Grant:
        """What is left, of what is limited. The calls of ``funds`` are taken from it."""
        limited, more = scope.available() < math.inf, scope.available()
        calls = None if not limited else 0
        if funds is not None:
            calls = funds.left
            funds.take(calls)
        metric_calls = 0 if scope.metric_calls_left() < math.inf else None
        return cls(calls, metric_calls, more, scope.metric_calls_left(), **_afterwards(scope))


def _afterwards(scope: Scope) -> dict[str, float]:
    """The least that is left of what is known only afterwards."""
    left: dict[str, float] = {}
    for layer in scope.open_layers():
        for name, value in getattr(layer.funds, "left", {}).items() if hasattr(layer.funds, "budget") else ():
            if name in ("tokens", "usd", "seconds"):
                left[name] = min(value, left.get(name, math.inf))
    return left


@dataclass(frozen=True, slots=True)
class Header:
    """What a worker reads before it unpacks a job: the ``version`` that sent it, the ``topic`` to ask on, the ``key``
    of its task, the ``worker`` it was sent to (empty for any), and the keys of what travels ``once``."""

    version: str
    topic: str
    key: str
    worker: str
    once: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Job:
    """One call of a function on a worker: all of it as data, but for user code and what travels once."""

    id: str
    fn: Any
    arguments: Mapping[str, Any]
    snapshot: Snapshot
    paths: Mapping[str, str]  # predictor uid → path, of the run
    name: str  # of the run
    grant: Grant


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of a job. ``packed``: events and result (see packing). ``masked``: places of events that are not the
    program's own. ``left``: calls and metric calls of the grant that were not used; ``used``: those that were, where
    they are not limited. ``estimate``: tokens of calls whose usage does not have them."""

    worker: str
    packed: bytes = b""
    raised: bool = False  # the result is an error of the function, to be raised
    refused: str | None = None  # why it was not run
    opened: int | None = None  # the number that the span had there
    masked: frozenset[int] = frozenset()
    left: tuple[int, int] = (0, 0)
    used: tuple[int, int] = (0, 0)
    usage: Usage = field(default_factory=Usage)
    estimate: int = 0
