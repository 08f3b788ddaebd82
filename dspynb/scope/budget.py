"""Budgets: limits of calls, tokens, cost and time over a block and all runs inside it.

A ``Budget`` is a value. A ``Meter`` counts what is spent of it, and sits in a layer of the scope. Calls are taken from
the meter before they are sent; tokens and USD are reserved in its ledger (``ledger.py``), and its clock counts the time
(``clock.py``). Steps that run concurrently get calls in advance (``allowances.py``).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from dspynb.data import Usage
from dspynb.errors import BudgetExhausted, ConfigurationError, UsageUnknownWarning
from dspynb.keywords import configurable
from dspynb.media.describe import content_text
from dspynb.options import NOT_RECORDED, Instance, Number, PositiveInt
from dspynb.scope.amounts import NOTHING, Amounts
from dspynb.scope.clock import Clock
from dspynb.scope.core import Block, Layer, warn_user
from dspynb.scope.ledger import Ledger
from dspynb.scope.reservation import OpenStep, Reservation

if TYPE_CHECKING:
    from dspynb.events import PredictorCalled

__all__ = [
    "Budget",
    "BudgetOption",
    "Meter",
    "about_tokens",
    "estimated_tokens",
    "limits_of",
    "missing_tokens",
]


def about_tokens(messages: Iterable[Mapping[str, Any]], reply: str = "") -> int:
    """Estimate the tokens of messages and a reply: four characters a token, rounded up. Of an image or file only its
    description counts, since its tokens have little to do with its bytes."""
    characters = len(reply)
    for message in messages:
        characters += len(content_text(message.get("content", "")))
    return math.ceil(characters / 4)


def missing_tokens(usage: Usage, messages: Iterable[Mapping[str, Any]], reply: str = "") -> int:
    """The estimated tokens of a call whose provider reported none; 0 if the usage has tokens."""
    if usage.tokens is not None:
        return 0
    return about_tokens(messages, reply)


def estimated_tokens(call: PredictorCalled) -> int:
    """The estimated tokens of a recorded call whose provider reported none; 0 if the usage has tokens."""
    if call.usage.tokens is not None:
        return 0
    return about_tokens(call.messages, call.reply or "")  # reads messages, which may be in a file, only if needed


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
    """Limits of what may be spent; None is no limit. ``with Budget(calls=100) as meter: …`` applies them to a block.

    ``calls``: calls of providers; retries and repairs count, cache hits do not. ``metric_calls``: scored rollouts.
    ``tokens``: of prompts and replies. ``usd``: US dollars; needs the price of each model, see ``LM(price=…)``. Without
    it a run is refused when it starts, as far as it knows its models then, and else before the model's first request.
    What a request may cost at most is reserved before it is sent, and settled when its reply has arrived. With
    ``max_tokens`` none of these limits is exceeded; an image or file is taken to have 4,096 tokens at most. Without it,
    the length of a reply is estimated from earlier ones, so that a limit of tokens or USD can be exceeded by as much as
    replies are longer. Near such a limit requests wait for earlier ones, so that the same rows are finished whatever
    the timing. On Dask workers each row has what is left when it is sent, so that rows that run at the same time can
    exceed a limit of tokens or USD together.

    ``seconds``: when they are over, calls in progress are cancelled, and no call starts that would end later, going by
    the last calls of its model. Code that does not await anything is not cancelled.

    Everything that is billed counts, also replies that could not be used. A request that was stopped or timed out
    counts what it may have cost at most. Where a provider does not report the tokens of a reply, one token for four
    characters is counted, and a UsageUnknownWarning says so once. ``meter.spent`` is what is spent, ``meter.left`` what
    is left, ``meter.estimated`` how many of the tokens are estimated.

    A call that the budget refuses raises BudgetExhausted, which says what the call may need. It does not count as a
    failure of a row or attempt: the run ends with the best result so far. Raises ConfigurationError for a limit that is
    not a number above 0, for an unknown name, and where no limit is set.

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
        limits: dict[str, int | float] = {}
        for field in fields(self):
            limit = getattr(self, field.name)
            if limit is not None:
                limits[field.name] = limit
        return limits

    def _layer(self) -> Layer:
        return Layer(None, funds=Meter(self))  # not leased: a run that was started inside continues to be counted

    def __enter__(self) -> Meter:
        meter: Meter = super().__enter__().funds
        return meter

    def __reduce__(self) -> tuple[Any, ...]:
        return Budget, tuple(getattr(self, f.name) for f in fields(self))


BudgetOption: TypeAlias = Annotated[Budget, Instance("a dn.Budget"), NOT_RECORDED]
"""A budget, as a setting."""
Budget.__init__ = configurable(renamed=_OTHER_NAMES)(Budget.__init__)  # type: ignore[method-assign]


def limits_of(budget: Budget | None) -> dict[str, int | float]:
    """The limits of a budget by name; empty without a budget."""
    return {} if budget is None else budget.limits()


def _limit_of(budget: Budget) -> Amounts | None:
    """The limits of tokens and USD; None if neither is set."""
    if budget.tokens is None and budget.usd is None:
        return None
    tokens = math.inf if budget.tokens is None else budget.tokens
    return Amounts(tokens, math.inf if budget.usd is None else budget.usd)


def _ledger_of(budget: Budget) -> Ledger | None:
    limit = _limit_of(budget)
    return None if limit is None else Ledger(limit)


def _refusal(name: str, limit: int) -> BudgetExhausted:
    unit = name.replace("_", " ")
    return BudgetExhausted(f"the budget of {limit} {unit} is spent; give a larger dn.Budget({name}=…) to continue")


class Meter:
    """Counts what is spent of a budget. Thread-safe."""

    covers = False
    is_free = False
    step: OpenStep | None = None

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.ledger: Ledger | None = _ledger_of(budget)
        self.estimated = 0  # how many of the tokens are estimated, since no provider reported them
        self._lock = threading.Lock()
        self._calls = 0
        self._metric_calls = 0
        self._tokens = 0
        self._usd: float | None = 0.0
        self._clock = Clock(budget.seconds)

    @property
    def spent(self) -> dict[str, float | None]:
        """What is spent, by name: calls, metric_calls, tokens, usd (None once a price is unknown), seconds."""
        return {
            "calls": self._calls,
            "metric_calls": self._metric_calls,
            "tokens": self._tokens,
            "usd": self._usd,
            "seconds": self._clock.seconds,
        }

    @property
    def clock(self) -> Clock | None:
        """Counts the seconds of the budget; None if they are not limited."""
        return None if self._clock.limit is None else self._clock

    def limit(self, limits: Mapping[str, float]) -> None:
        """Set new limits, by name. Other limits stay as they are."""
        self.budget = Budget(**{**self.budget.limits(), **limits})  # type: ignore[arg-type]
        self._clock.limit = self.budget.seconds
        limit = _limit_of(self.budget)
        if limit is not None and self.ledger is None:
            self.ledger = Ledger(limit)
            self.ledger.spend(Amounts(self._tokens, self._usd or 0.0))
        elif limit is not None and self.ledger is not None:
            self.ledger.set_limit(limit)

    def __repr__(self) -> str:
        spent = self.spent
        parts = []
        for name, limit in self.budget.limits().items():
            used = spent[name]
            amount = "unknown" if used is None else format(used, "g")
            parts.append(f"{name} {amount} of {limit:g}")
        if self.estimated:
            parts.append(f"{self.estimated} of the tokens are estimated")
        return f"<Meter: {', '.join(parts)}>"

    def count(
        self, usage: Usage, *, calls: int = 0, metric_calls: int = 0, seconds: float = 0.0, estimate: int = 0
    ) -> None:
        """Add what was spent before the budget was set."""
        self.add(usage, estimate)
        with self._lock:
            self._calls += calls
            self._metric_calls += metric_calls
        self._clock.add(seconds)

    def pause(self) -> None:
        """Stop counting time until ``resume``."""
        self._clock.pause()

    def resume(self) -> None:
        """Count time again after ``pause``."""
        self._clock.resume()

    @property
    def left(self) -> dict[str, float]:
        """What is left of each limit that is set; 0 where a cost is unknown."""
        spent = self.spent
        amounts: dict[str, float] = {}
        for name, limit in self.budget.limits().items():
            used = spent[name]
            amounts[name] = 0.0 if used is None else max(0, limit - used)
        return amounts

    @property
    def exhausted(self) -> bool:
        """Whether no further call can start."""
        return any(name != "metric_calls" and not amount for name, amount in self.left.items())

    def take(self, calls: int = 0, metric_calls: int = 0) -> None:
        """Take calls before they are made: all of them or none. Raises BudgetExhausted."""
        budget = self.budget
        ledger = self.ledger
        with self._lock:
            if ledger is not None and ledger.is_spent:
                raise ledger.refusal()
            if budget.seconds is not None:
                self._clock.check()
            calls += self._calls
            if budget.calls is not None and calls > budget.calls:
                raise _refusal("calls", budget.calls)
            metric_calls += self._metric_calls
            if budget.metric_calls is not None and metric_calls > budget.metric_calls:
                raise _refusal("metric_calls", budget.metric_calls)
            self._calls = calls
            self._metric_calls = metric_calls

    def give_back(self, calls: int, metric_calls: int = 0) -> None:
        """Return calls that were taken and not used, such as a call that a cache answered."""
        with self._lock:
            self._calls -= calls
            self._metric_calls -= metric_calls

    def add(self, usage: Usage, estimate: int = 0, reservation: Reservation | None = None) -> None:
        """Count the usage of calls that have ended, and ``estimate`` tokens for replies whose usage has none. Issues a
        UsageUnknownWarning for the first estimate under a limit of tokens. ``reservation``: what was reserved for the
        call."""
        usd = usage.usd
        tokens = (usage.tokens or 0) + estimate
        if self.ledger is not None:
            actual = self._settle(self.ledger, usage, tokens, estimate, reservation)
            if reservation is not None and reservation.cost.has_price and self.budget.usd is not None:
                usd = actual.usd
        with self._lock:
            first_estimate = estimate > 0 and not self.estimated
            self.estimated += estimate
            self._tokens += tokens
            self._usd = None if self._usd is None or usd is None else self._usd + usd
        if first_estimate and self.budget.tokens is not None:
            warn_user(
                f"a reply did not report its tokens, so the budget of {self.budget.tokens} tokens counts an estimate "
                "for it and its like: one token for four characters of prompt and reply. "
                "For an exact limit give calls=",
                UsageUnknownWarning,
            )

    def settle_unknown(self, reservation: Reservation) -> Amounts:
        """Count what a request may have cost whose cost nobody knows, since it was stopped, and return it."""
        if self.ledger is None:
            return NOTHING
        amounts = self.ledger.settle_unknown(reservation)
        with self._lock:
            self.estimated += int(amounts.tokens)
            self._tokens += int(amounts.tokens)
            if self._usd is not None:
                self._usd += amounts.usd
        return amounts

    @staticmethod
    def _settle(ledger: Ledger, usage: Usage, tokens: int, estimate: int, reservation: Reservation | None) -> Amounts:
        """Count the tokens and USD of a call, and return them. Where the USD are unknown, they are those that were
        reserved if the model has a price; else 0, and its next call is refused."""
        usd = usage.usd
        if usd is None:
            usd = 0.0
            if reservation is not None:
                if reservation.cost.has_price:
                    usd = reservation.amounts.get(ledger, NOTHING).usd
                ledger.note_without_price(reservation.cost.model)
        actual = Amounts(tokens, usd)
        if reservation is None:
            ledger.spend(actual)
        else:
            reply = estimate if usage.completion_tokens is None else usage.completion_tokens
            ledger.settle(reservation, actual, Amounts(reply, usd))
        return actual

    def available(self) -> float:
        """The number of calls that are left; infinite without a limit."""
        limit = self.budget.calls
        return math.inf if limit is None else limit - self._calls

    def metric_calls_left(self) -> float:
        """The number of metric calls that are left; infinite without a limit."""
        limit = self.budget.metric_calls
        return math.inf if limit is None else limit - self._metric_calls
