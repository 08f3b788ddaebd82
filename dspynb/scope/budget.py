"""Budgets: what may be spent, taken before a call is made and counted down all nested runs.

A ``Budget`` is a value; a ``Meter`` counts what is spent of it and sits in a layer of the scope. Steps that run side by
side (rows, attempts) get an ``Allowance`` each, in their order, so that timing does not move the cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
import warnings
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from dspynb.data import Usage
from dspynb.errors import BudgetExhausted, ConfigurationError, UsageUnknownWarning
from dspynb.keywords import configurable
from dspynb.media.describe import content_text
from dspynb.options import NOT_RECORDED, Instance, Number, PositiveInt
from dspynb.scope.core import Block, Layer, Scope, current_scope

if TYPE_CHECKING:
    from dspynb.events import PredictorCalled

__all__ = [
    "Allowance",
    "Budget",
    "BudgetOption",
    "Free",
    "Meter",
    "Reserve",
    "about_tokens",
    "estimated_tokens",
    "missing_tokens",
]


def about_tokens(messages: Iterable[Mapping[str, Any]], reply: str = "") -> int:
    """About how many tokens messages and a reply are: four characters a token. Of an image or file counts what is told
    of it, since its tokens have little to do with its bytes."""
    letters = sum(len(content_text(message.get("content", ""))) for message in messages)
    return -(-(letters + len(reply)) // 4)


def missing_tokens(usage: Usage, messages: Iterable[Mapping[str, Any]], reply: str = "") -> int:
    """The estimate that stands for the tokens of a call whose usage lacks them; 0 for one that has them."""
    return 0 if usage.tokens is not None else about_tokens(messages, reply)


def estimated_tokens(call: PredictorCalled) -> int:
    """The estimate for a recorded call. Its prompt, which may stand in a file, is read only where it is needed."""
    return 0 if call.usage.tokens is not None else about_tokens(call.messages, call.reply or "")


_OTHER_NAMES = {
    **dict.fromkeys(("max_calls", "requests", "max_requests", "n_calls"), "calls"),
    **dict.fromkeys(("max_metric_calls", "rollouts", "max_rollouts", "evaluations"), "metric_calls"),
    **dict.fromkeys(("max_tokens", "total_tokens"), "tokens"),
    **dict.fromkeys(("dollars", "cost", "max_cost", "max_usd", "price"), "usd"),
    **dict.fromkeys(("time", "timeout", "max_seconds", "duration", "deadline"), "seconds"),
    "minutes": "seconds",
}


Amount: TypeAlias = Annotated[float, Number(above=0, finite=False)]


@dataclass(frozen=True)
class Budget(Block):
    """What may be spent; None is no limit. ``with Budget(calls=100) as meter: …`` holds it over a block.

    ``calls``: calls of providers, retries and repairs too, cache hits not. ``metric_calls``: rollouts scored. Both are
    taken before anything is sent and never exceeded. ``tokens``, ``usd`` and ``seconds`` are known only afterwards:
    once they are reached, no further call starts. Where a provider does not report the tokens of a reply, about one
    for four characters is counted, and a UsageUnknownWarning says so once. ``meter.spent`` and ``meter.left`` tell how
    it stands, ``meter.estimated`` how many of the tokens are such an estimate.

    A call that is refused raises BudgetExhausted, which is no failure of a row or an attempt: the run ends with the
    best so far. Raises ConfigurationError for a limit that is no number above 0 or has another name, or where
    there is no limit.

    >>> ask = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
    >>> with dn.Budget(calls=2) as meter:
    ...     ask.run_sync(question="2+2?").answer
    ...     meter.left
    '4'
    {'calls': 1}
    """

    calls: PositiveInt | None = None
    metric_calls: PositiveInt | None = None
    tokens: PositiveInt | None = None
    usd: Amount | None = None
    seconds: Amount | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "_open", [])
        if not self.limits():
            names = ", ".join(f"{f.name}=" for f in fields(self))
            raise ConfigurationError(f"a Budget needs at least one limit: {names}")

    def limits(self) -> dict[str, int | float]:
        """The limits that are set, by name."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}

    def _layer(self) -> Layer:
        return Layer(None, funds=Meter(self))  # not leased: a run started inside goes on counting

    def __enter__(self) -> Meter:
        meter: Meter = super().__enter__().funds
        return meter

    def __reduce__(self) -> tuple[Any, ...]:
        return Budget, tuple(getattr(self, f.name) for f in fields(self))


BudgetOption: TypeAlias = Annotated[Budget, Instance("a dn.Budget"), NOT_RECORDED]
"""A budget, as a setting."""
Budget.__init__ = configurable(renamed=_OTHER_NAMES)(Budget.__init__)  # type: ignore[method-assign]


class Meter:
    """Counts what is spent of a budget. From any thread."""

    covers = False

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.estimated = 0  # of the tokens, those that no provider reported
        self._lock = threading.Lock()
        self._calls = self._metric_calls = self._tokens = 0
        self._usd: float | None = 0.0
        self._began = time.monotonic()
        self._held: float | None = None  # since when time does not count

    @property
    def spent(self) -> dict[str, float | None]:
        """By name: calls, metric_calls, tokens, usd (None once a price was not known), seconds."""
        return {
            "calls": self._calls,
            "metric_calls": self._metric_calls,
            "tokens": self._tokens,
            "usd": self._usd,
            "seconds": self._seconds,
        }

    @property
    def _seconds(self) -> float:
        return (time.monotonic() if self._held is None else self._held) - self._began

    def limit(self, limits: Mapping[str, float]) -> None:
        """Set new limits, by name; those that are not named stay."""
        self.budget = Budget(**{**self.budget.limits(), **limits})  # type: ignore[arg-type]

    def __repr__(self) -> str:
        spent = self.spent
        parts = []
        for name, limit in self.budget.limits().items():
            used = spent[name]
            parts.append(f"{name} {'unknown' if used is None else format(used, 'g')} of {limit:g}")
        if self.estimated:
            parts.append(f"{self.estimated} of the tokens are estimated")
        return f"<Meter: {', '.join(parts)}>"

    def count(
        self, usage: Usage, *, calls: int = 0, metric_calls: int = 0, seconds: float = 0.0, estimate: int = 0
    ) -> None:
        """Add what was spent before there was a budget."""
        self.add(usage, estimate)
        with self._lock:
            self._calls += calls
            self._metric_calls += metric_calls
            self._began -= seconds

    def hold(self) -> None:
        """Let time not count, until ``go_on``."""
        with self._lock:
            self._held = time.monotonic() if self._held is None else self._held

    def go_on(self) -> None:
        """Let time count again."""
        with self._lock:
            if self._held is not None:
                self._began += time.monotonic() - self._held
                self._held = None

    @property
    def left(self) -> dict[str, float]:
        """What is left under each limit that is set; 0 where a cost is not known."""
        spent = self.spent
        return {
            name: 0.0 if (used := spent[name]) is None else max(0, limit - used)
            for name, limit in self.budget.limits().items()
        }

    @property
    def exhausted(self) -> bool:
        """Whether no further call can start."""
        return any(name != "metric_calls" and not left for name, left in self.left.items())

    def take(self, calls: int = 0, metric_calls: int = 0) -> None:
        """Take calls before they are made: all of them or none. Raises BudgetExhausted."""
        with self._lock:
            self._check_afterwards()
            for name, wanted in (("calls", calls), ("metric_calls", metric_calls)):
                limit = getattr(self.budget, name)
                if limit is not None and getattr(self, f"_{name}") + wanted > limit:
                    unit = name.replace("_", " ")
                    raise BudgetExhausted(
                        f"the budget of {limit} {unit} is spent; give a larger dn.Budget({name}=…) to go on"
                    )
            self._calls += calls
            self._metric_calls += metric_calls

    def _check_afterwards(self) -> None:
        """Raise once a limit that is only known afterwards was reached."""
        budget = self.budget
        if budget.tokens is not None and self._tokens >= budget.tokens:
            raise BudgetExhausted(
                f"the budget of {budget.tokens} tokens is spent ({self._tokens}); "
                "give a larger dn.Budget(tokens=…) to go on"
            )
        if budget.usd is not None and self._usd is None:
            raise BudgetExhausted(
                "the price of a call is not known, so the budget in USD cannot be kept; give calls= or tokens= instead"
            )
        if budget.usd is not None and self._usd is not None and self._usd >= budget.usd:
            raise BudgetExhausted(
                f"the budget of {budget.usd:g} USD is spent ({self._usd:.4g}); give a larger dn.Budget(usd=…) to go on"
            )
        if budget.seconds is not None and self._seconds >= budget.seconds:
            raise BudgetExhausted(
                f"the budget of {budget.seconds:g} seconds is over; give a larger dn.Budget(seconds=…) to go on"
            )

    def give_back(self, calls: int, metric_calls: int = 0) -> None:
        """What was taken and not used, such as a call that a cache answered."""
        with self._lock:
            self._calls -= calls
            self._metric_calls -= metric_calls

    def add(self, usage: Usage, estimate: int = 0) -> None:
        """Count what calls turned out to cost, and ``estimate`` tokens for those whose usage does not have them. Warns
        of the first estimate that a budget of tokens needs."""
        with self._lock:
            unwarned = not self.estimated
            self.estimated += estimate
            self._tokens += (usage.tokens or 0) + estimate
            self._usd = None if self._usd is None or usage.usd is None else self._usd + usage.usd
        if unwarned and self.estimated and self.budget.tokens is not None:
            warnings.warn(
                f"a reply did not report its tokens, so the budget of {self.budget.tokens} tokens counts an estimate "
                "for it and its like: one token for four characters of prompt and reply. "
                "For an exact limit give calls=",
                UsageUnknownWarning,
                stacklevel=2,
            )

    def available(self) -> float:
        """How many calls could be taken now."""
        limit = self.budget.calls
        return math.inf if limit is None else limit - self._calls

    def metric_calls_left(self) -> float:
        """How many metric calls could be taken now."""
        limit = self.budget.metric_calls
        return math.inf if limit is None else limit - self._metric_calls


class Allowance:
    """Calls that were taken for one step ahead of time. What it does not use goes back when it is closed."""

    covers = True  # the meters above it were charged when it was made

    def __init__(self, scope: Scope, calls: int) -> None:
        self._scope, self._lock = scope, threading.Lock()
        self.left = calls

    def take(self, calls: int = 0, metric_calls: int = 0) -> None:
        """Take calls from it; more than it has come from where it was taken."""
        with self._lock:
            own = min(calls, self.left)
            self.left -= own
        try:
            self._scope.take(calls - own, metric_calls)  # with nothing to take, still asks whether time is left
        except BudgetExhausted:
            self.give_back(own)
            raise

    def give_back(self, calls: int, metric_calls: int = 0) -> None:
        """What was not used. Calls stay with the step, which may use them again."""
        with self._lock:
            self.left += calls
        if metric_calls:
            self._scope.give_back(0, metric_calls)

    def add(self, usage: Usage, estimate: int = 0) -> None:
        """Nothing: the meters above count it."""

    def available(self) -> float:
        """How many calls the step could take now."""
        return self.left + self._scope.available()

    def metric_calls_left(self) -> float:
        """How many metric calls it could take now."""
        return self._scope.metric_calls_left()

    def close(self) -> None:
        """Give back what the step did not use."""
        with self._lock:
            rest, self.left = self.left, 0
        self._scope.give_back(rest)


class Free:
    """Funds of work that costs nothing: the budgets above it are neither asked nor charged."""

    covers = True

    def take(self, calls: int = 0, metric_calls: int = 0) -> None:
        """Nothing is taken."""

    def give_back(self, calls: int, metric_calls: int = 0) -> None:
        """Nothing was taken."""

    def add(self, usage: Usage, estimate: int = 0) -> None:
        """Nothing was spent."""

    def available(self) -> float:
        """Any number of calls."""
        return math.inf

    def metric_calls_left(self) -> float:
        """Any number of metric calls."""
        return math.inf


class Reserve:
    """Gives the steps of one piece of work their allowances, in the order in which they ask.

    ``calls``: about how many calls a step makes at most. While less than that is left, a step waits until those before
    it have ended, and then has what is left: what a step gets depends on the steps before it and not on timing.
    """

    def __init__(self, calls: int) -> None:
        self.scope, self.calls = current_scope(), calls
        self.limited = self.scope.available() < math.inf
        self._turn, self._open, self._ended = asyncio.Lock(), 0, asyncio.Event()

    @contextlib.asynccontextmanager
    async def step(self, calls: int | None = None) -> AsyncIterator[Allowance | None]:
        """One step's allowance, for a layer of its own; None where calls are not limited. ``calls``: where this step
        makes others than most do. Raises BudgetExhausted."""
        if not self.limited:
            yield None
            return
        allowance = await self._next(self.calls if calls is None else calls)
        try:
            yield allowance
        finally:
            allowance.close()
            self._open -= 1
            self._ended.set()

    async def _next(self, calls: int) -> Allowance:
        async with self._turn:
            while self._open and self.scope.available() < calls:
                self._ended.clear()
                await self._ended.wait()
            calls = int(max(1, min(calls, self.scope.available())))
            self.scope.take(calls)
            self._open += 1
            return Allowance(self.scope, calls)
