"""The call context: what the ``with`` blocks around a predictor set for its calls, as typed values.

Each field declares in its metadata how it enters a snapshot: unchanged, by a function, or not at all. Snapshots read
these declarations and have no list of names of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any, Literal, Protocol, Self, TypeAlias

from dspynb.dataclass_init import fast_init
from dspynb.pricing.price_list import PriceList

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
    """The type of UNSET, the value of a setting that no block has set. The process-wide value then applies."""

    UNSET = "unset"

    def __repr__(self) -> str:
        return "UNSET"


UNSET = Unset.UNSET

# ── fields in snapshots ───────────────────────────────────────────────────────────────────────────────────────────────
SnapshotRule = Callable[[Any], Any]
"""Maps the value of a field to its value in another process. Raises ScopeError for a value that must stay here."""
_RULE = "snapshot"


def unchanged(value: object) -> Any:
    """The rule for fields that have the same value in another process."""
    return value


def unless_none(value: object) -> Any:
    """The rule for models and adapters: None becomes UNSET, so that the other process uses its own default."""
    return UNSET if value is None else value


def snapshot_by(rule: SnapshotRule) -> dict[str, SnapshotRule]:
    """The metadata that declares the rule of a field."""
    return {_RULE: rule}


def snapshot_rule(declared: Field[Any]) -> SnapshotRule:
    """The rule that a field declares. Raises KeyError for a field without a rule."""
    rule: SnapshotRule = declared.metadata[_RULE]
    return rule


def as_snapshot(value: Settings | CallContext) -> dict[str, Any]:
    """The fields as data for another process, each by its own rule. Fields that have their default are left out.

    Raises ScopeError for a field whose value must stay in this process.
    """
    data: dict[str, Any] = {}
    for declared in fields(value):
        rule = snapshot_rule(declared)
        remote_value = rule(getattr(value, declared.name))
        if remote_value is not declared.default:
            data[declared.name] = remote_value
    return data


# ── what users set ────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of ``configure`` and ``context``. In a scope, settings that no block has set are UNSET."""

    lm: Any = field(default=UNSET, metadata=snapshot_by(unless_none))
    """The model of predictors without their own: a model, its name, or None."""
    adapter: Any = field(default=UNSET, metadata=snapshot_by(unless_none))
    """The adapter of predictors without their own: an adapter, its name, or None."""
    cache: bool | Unset = field(default=UNSET, metadata=snapshot_by(unchanged))
    """Whether models look up replies in the reply cache and store theirs in it."""
    concurrency: int | Unset = field(default=UNSET, metadata=snapshot_by(unchanged))
    """How many rows run at the same time."""
    view: str | Unset = field(default=UNSET, metadata=snapshot_by(unchanged))
    """How runs are shown: auto, widget, html, text or off."""
    runs_dir: str | Path | Unset | None = field(default=UNSET, metadata=snapshot_by(unchanged))
    """The folder of run files; None writes none."""
    history: int | Unset = field(default=UNSET, metadata=snapshot_by(unchanged))
    """How many model calls ``dn.history`` remembers."""
    track: str | Unset | None = field(default=UNSET, metadata=snapshot_by(unchanged))
    """The system that receives runs while they run: ``otel``, or None."""
    prices: PriceList | Unset | None = field(default=UNSET, metadata=snapshot_by(unchanged))
    """Prices of models by their names, in place of those of litellm's map; None for those."""


# ── what searches, evaluations and optimizers set ─────────────────────────────────────────────────────────────────────
_BASE = 1 << 20
"""Rollouts of searches inside searches are digits in this base, counted from one."""


@fast_init
@dataclass(frozen=True, slots=True)
class RolloutId:
    """Which sample of an otherwise equal request a call asks for. The number is part of the cache key and of run files,
    so the numbers that ``child`` computes must never change."""

    number: int = 0

    def child(self, n: int) -> RolloutId:
        """The id of sample ``n`` (from 0) of a search or sampling inside this rollout. Its number differs from those of
        all other attempts, samples and repeats, and of the calls around it."""
        return RolloutId((self.number + 1) * _BASE + n)


@fast_init
@dataclass(frozen=True, slots=True)
class Sampling:
    """How calls are sampled. ``rollout``: which sample. ``settings``: sampling settings, such as the temperature, which
    take precedence over those of predictors and models."""

    rollout: RolloutId = RolloutId()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def with_temperature(self, temperature: float | None) -> Sampling:
        """A copy with another temperature; None changes nothing."""
        if temperature is None:
            return self
        return Sampling(self.rollout, {**self.settings, "temperature": temperature})

    def with_rollout(self, rollout: RolloutId) -> Sampling:
        """A copy with another rollout."""
        return Sampling(rollout, self.settings)


class Place(IntEnum):
    """The kinds of interceptors, in their order around a call, outermost first. One of each kind is in force."""

    REPLAY = 1
    RESUME_LOG = 2
    CACHE = 3
    BUDGET = 4
    SINGLE_FLIGHT = 5


class ScopedInterceptor(Protocol):
    """The part that a scope uses of an interceptor that a block puts around calls. ``lm/interceptors/chain.py`` has the
    types of ``__call__``."""

    @property
    def place(self) -> Place:
        """The place of the interceptor in the chain."""

    async def __call__(self, call: Any, proceed: Any) -> Any:
        """The reply to a call."""

    def for_snapshot(self) -> ScopedInterceptor | None:
        """The interceptor that replaces this one in another process, or None. Raises ScopeError if it cannot leave this
        process."""


def _snapshot_interceptors(interceptors: tuple[ScopedInterceptor, ...]) -> tuple[ScopedInterceptor, ...]:
    replacements = [interceptor.for_snapshot() for interceptor in interceptors]
    return tuple(replacement for replacement in replacements if replacement is not None)


Role: TypeAlias = Literal["task", "proposal", "judge", "advisor", "teacher"]
"""What a model call is for: the program itself, an optimizer's proposal, a metric or reward, the hint of a Refine, or
the program that makes an optimizer's demos. ``run.costs`` has the costs of each."""


@fast_init
@dataclass(frozen=True, slots=True)
class CallContext:
    """What the blocks around a call set for it, besides settings and hints. A block replaces fields; the innermost one
    wins. Like settings, the context is not leased: code that outlives the block keeps it."""

    lm: Any = field(default=None, metadata=snapshot_by(unchanged))
    """A model that replaces every predictor's own, such as a teacher; None replaces nothing."""
    sampling: Sampling = field(default=Sampling(), metadata=snapshot_by(unchanged))
    """Rollout and sampling settings."""
    outside_attempt: Sampling | None = field(default=None, metadata=snapshot_by(unchanged))
    """The sampling around the innermost attempt, for rewards and advisors; None outside of attempts."""
    retries: bool = field(default=True, metadata=snapshot_by(unchanged))
    """Whether a Refine may make more than its first attempt."""
    interceptors: tuple[ScopedInterceptor, ...] = field(default=(), metadata=snapshot_by(_snapshot_interceptors))
    """Interceptors around every call, in the order of their places: a replay, the log of a resumed run."""
    learned_profiles: Mapping[str, Mapping[str, Any]] | None = field(default=None, metadata=snapshot_by(unchanged))
    """What the file of a resumed run says that refusals of servers have changed in the profiles of models, by the key
    of the model."""
    role: Role = field(default="task", metadata=snapshot_by(unchanged))
    """What the calls are for; the innermost block decides."""

    def masked(self, role: Role) -> CallContext:
        """The context for rewards, advisors and proposals: sampled as outside the attempt, and with retries."""
        sampling = self.outside_attempt or self.sampling
        return CallContext(
            self.lm, sampling, self.outside_attempt, True, self.interceptors, self.learned_profiles, role
        )

    def in_attempt(self, sampling: Sampling) -> CallContext:
        """The context for the calls of an attempt, with the attempt's own sampling."""
        return CallContext(
            self.lm, sampling, self.sampling, self.retries, self.interceptors, self.learned_profiles, self.role
        )

    def interceptor(self, place: Place) -> Any:
        """The interceptor in force at a place, or None."""
        for interceptor in self.interceptors:
            if interceptor.place is place:
                return interceptor
        return None

    def with_interceptor(self, new: ScopedInterceptor) -> Self:
        """A copy with a new interceptor, which replaces the one at its place."""
        others = [interceptor for interceptor in self.interceptors if interceptor.place is not new.place]
        ordered = sorted([*others, new], key=lambda interceptor: interceptor.place)
        return replace(self, interceptors=tuple(ordered))


NO_SETTINGS: Settings = Settings()
NO_CONTEXT: CallContext = CallContext()
