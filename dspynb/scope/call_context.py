"""The call context: what the blocks around a predictor say about its calls, as typed values.

Each field declares in its metadata how it enters a snapshot: unchanged, by a function, or not at all. Snapshots read
these declarations and have no list of names of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any, Protocol, Self

from dspynb.dataclass_init import fast_init

__all__ = [
    "UNSET",
    "CallContext",
    "Place",
    "RolloutId",
    "Sampling",
    "ScopedInterceptor",
    "Settings",
    "SnapshotRule",
    "Unset",
    "snapshot_rule",
]


class Unset(Enum):
    """The type of UNSET: a setting that no block has set. The process-wide value holds."""

    UNSET = "unset"

    def __repr__(self) -> str:
        return "UNSET"


UNSET = Unset.UNSET

# ── fields in snapshots ───────────────────────────────────────────────────────────────────────────────────────────────
SnapshotRule = Callable[[Any], Any]
"""From the value of a field to its value in another process. Raises ScopeError where it must stay in this one."""
_RULE = "snapshot"


def unchanged(value: Any) -> Any:
    """The rule of fields that have the same value in another process."""
    return value


def unless_none(value: Any) -> Any:
    """The rule of models and adapters: where none is chosen, the other process has its own default."""
    return UNSET if value is None else value


def snapshot_by(rule: SnapshotRule) -> dict[str, SnapshotRule]:
    """The metadata of a field with this rule."""
    return {_RULE: rule}


def snapshot_rule(declared: Field[Any]) -> SnapshotRule:
    """The rule that a field declares. Raises KeyError for a field without one."""
    rule: SnapshotRule = declared.metadata[_RULE]
    return rule


def as_snapshot(value: Settings | CallContext) -> dict[str, Any]:
    """The fields as data for another process, each by its own rule; without those that have their default. Raises
    ScopeError where a field refuses."""
    data: dict[str, Any] = {}
    for declared in fields(value):
        there = snapshot_rule(declared)(getattr(value, declared.name))
        if there is not declared.default:
            data[declared.name] = there
    return data


# ── what users set ────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of ``configure`` and ``context``. In a scope, UNSET is what no block has set."""

    lm: Any = field(default=UNSET, metadata=snapshot_by(unless_none))
    """The model of predictors without their own: a model, its name, or None."""
    adapter: Any = field(default=UNSET, metadata=snapshot_by(unless_none))
    """The adapter of predictors without their own: an adapter, its name, or None."""
    cache: bool | Unset = field(default=UNSET, metadata=snapshot_by(unchanged))
    """Whether models look for replies in the reply cache and add theirs to it."""
    concurrency: int | Unset = field(default=UNSET, metadata=snapshot_by(unchanged))
    """How many rows run at the same time."""
    view: str | Unset = field(default=UNSET, metadata=snapshot_by(unchanged))
    """How runs are shown: auto, widget, html, text or off."""
    runs_dir: str | Path | Unset | None = field(default=UNSET, metadata=snapshot_by(unchanged))
    """The folder of run files; None writes none."""
    history: int | Unset = field(default=UNSET, metadata=snapshot_by(unchanged))
    """How many model calls ``dn.history`` remembers."""


# ── what searches, evaluations and optimizers set ─────────────────────────────────────────────────────────────────────
_BASE = 1 << 20
"""Rollouts of searches inside searches are digits in this base, counted from one."""


@fast_init
@dataclass(frozen=True, slots=True)
class RolloutId:
    """Which sample of an otherwise equal request a call asks for. The number is part of the cache key and of records,
    so the numbers of ``child`` must never change."""

    number: int = 0

    def child(self, n: int) -> RolloutId:
        """Sample ``n`` (from 0) of a search or sampling inside this rollout: a number that no other attempt, sample or
        repeat has, nor the calls around it."""
        return RolloutId((self.number + 1) * _BASE + n)


@fast_init
@dataclass(frozen=True, slots=True)
class Sampling:
    """How calls are sampled. ``rollout``: which sample. ``settings``: such as the temperature; they win over those of
    predictors and models."""

    rollout: RolloutId = RolloutId()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def with_temperature(self, temperature: float | None) -> Sampling:
        """The same at a temperature; None changes nothing."""
        if temperature is None:
            return self
        return Sampling(self.rollout, {**self.settings, "temperature": temperature})

    def with_rollout(self, rollout: RolloutId) -> Sampling:
        """The same for another rollout."""
        return Sampling(rollout, self.settings)


class Place(IntEnum):
    """The order of the interceptors of a call, outermost first. One of each kind is in force."""

    REPLAY = 1
    RESUME_LOG = 2
    CACHE = 3
    BUDGET = 4
    SINGLE_FLIGHT = 5


class ScopedInterceptor(Protocol):
    """What a scope needs to know of an interceptor that a block puts around calls (``lm/interceptors/chain.py`` has the
    types of its call)."""

    @property
    def place(self) -> Place:
        """Where it stands in the chain."""

    async def __call__(self, call: Any, proceed: Any) -> Any:
        """The reply to a call."""

    def for_snapshot(self) -> ScopedInterceptor | None:
        """What stands for it in another process; None where nothing has to. Raises ScopeError where it must stay."""


def _snapshot_interceptors(interceptors: tuple[ScopedInterceptor, ...]) -> tuple[ScopedInterceptor, ...]:
    there = [interceptor.for_snapshot() for interceptor in interceptors]
    return tuple(interceptor for interceptor in there if interceptor is not None)


@fast_init
@dataclass(frozen=True, slots=True)
class CallContext:
    """What the blocks around a call say about it, besides settings and hints. A block replaces fields; the innermost
    one wins. Like settings, it is not leased: code that outlives the block keeps it."""

    lm: Any = field(default=None, metadata=snapshot_by(unchanged))
    """A model in place of every predictor's own, such as a teacher's; None leaves each its own."""
    sampling: Sampling = field(default=Sampling(), metadata=snapshot_by(unchanged))
    """Rollout and sampling settings."""
    outside_attempt: Sampling | None = field(default=None, metadata=snapshot_by(unchanged))
    """The sampling around the innermost attempt, for rewards and advisors; None outside of attempts."""
    retries: bool = field(default=True, metadata=snapshot_by(unchanged))
    """Whether a Refine may make more than its first attempt."""
    interceptors: tuple[ScopedInterceptor, ...] = field(default=(), metadata=snapshot_by(_snapshot_interceptors))
    """Links around every call: a replay, the log of a run that is resumed. In the order of their places."""

    def masked(self) -> CallContext:
        """For rewards and advisors: sampled as outside the attempt, and with retries."""
        if self.outside_attempt is None and self.retries:
            return self
        sampling = self.outside_attempt or self.sampling
        return CallContext(self.lm, sampling, self.outside_attempt, True, self.interceptors)

    def in_attempt(self, sampling: Sampling) -> CallContext:
        """For the calls of an attempt, which are sampled in a way of their own."""
        return CallContext(self.lm, sampling, self.sampling, self.retries, self.interceptors)

    def interceptor(self, place: Place) -> Any:
        """The interceptor in force at a place, or None."""
        for interceptor in self.interceptors:
            if interceptor.place is place:
                return interceptor
        return None

    def with_interceptor(self, new: ScopedInterceptor) -> Self:
        """The same with another interceptor, in place of the one of its kind."""
        others = [interceptor for interceptor in self.interceptors if interceptor.place is not new.place]
        ordered = sorted([*others, new], key=lambda interceptor: interceptor.place)
        return replace(self, interceptors=tuple(ordered))


NO_SETTINGS: Settings = Settings()
NO_CONTEXT: CallContext = CallContext()
