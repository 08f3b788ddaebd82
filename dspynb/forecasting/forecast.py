"""Forecast: what a run will cost, and what a budget buys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from html import escape
from typing import TYPE_CHECKING, Any

from dspynb.errors import ConfigurationError
from dspynb.running.tables.pages import frame_html
from dspynb.scope.budget import Budget

if TYPE_CHECKING:
    import pandas as pd

    from dspynb.running.run import Run

__all__ = ["Estimate", "Forecast", "Totals", "estimate_of", "with_unit"]

_LOW = 0.1
_HIGH = 0.9


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number that is not known yet. ``point``: the value to expect; the true value is below it as often as above.
    ``low``, ``high``: its 80 % interval. All three are None where nothing is known."""

    point: float | None = None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.point is None or self.low is None or self.high is None:
            return "unknown"
        if _digits(self.low) == _digits(self.high):
            return _digits(self.point)
        return f"{_digits(self.point)} ({_digits(self.low)} to {_digits(self.high)})"


@dataclass(frozen=True, slots=True)
class Totals:
    """What one possible course of a run takes. ``count``: the rows, mutations or trials that it finishes. ``usd``:
    None without a price."""

    rollouts: float
    calls: float
    tokens: float
    usd: float | None
    seconds: float
    count: float

    def scaled(self, share: float) -> Totals:
        """A part of the run."""
        usd = None if self.usd is None else self.usd * share
        return Totals(
            self.rollouts * share,
            self.calls * share,
            self.tokens * share,
            usd,
            self.seconds * share,
            self.count * share,
        )

    def within(self, budget: Budget | None) -> Totals:
        """The part of the run that a budget has room for."""
        if budget is None:
            return self
        share = 1.0
        amounts = {"metric_calls": self.rollouts, "calls": self.calls, "tokens": self.tokens, "usd": self.usd}
        for name, limit in budget.limits().items():
            amount = self.seconds if name == "seconds" else amounts[name]
            if amount:
                share = min(share, limit / amount)
        return self if share == 1 else self.scaled(share)


class Forecast:
    """What a run will cost. ``rollouts``, ``calls``, ``tokens``, ``usd`` and ``minutes`` are Estimates, each with a
    ``point`` and an 80 % interval from ``low`` to ``high``. They are of the whole run, with the probe rows.

    ``buys(budget)``: what a budget has room for. ``table``: the estimates as a DataFrame. ``count``: how many of
    ``unit`` (rows, mutations, trials, candidates) the run finishes. ``sources``: what the forecast rests on. ``notes``:
    what is unknown or only assumed. ``run``: the run of the probe rows, None where nothing was run. The run that is
    started next with the same settings, program and rows goes on with that run, so that no row is paid for twice.

    >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
    >>> rows = [{"question": f"{n}+1?", "answer": "4"} for n in range(50)]
    >>> forecast = dn.run_sync(lambda: dn.Evaluate(dn.metrics.exact_match()).forecast(program, rows, probe=2))
    >>> forecast.rollouts.point, forecast.calls.low <= 50 <= forecast.calls.high
    (50, True)
    >>> forecast.buys(dn.Budget(metric_calls=20)).point
    20
    """

    def __init__(
        self,
        courses: Sequence[Totals],
        *,
        name: str,
        unit: str,
        sources: Sequence[str] = (),
        notes: Sequence[str] = (),
        run: Run | None = None,
        under: Callable[[Budget], Sequence[Totals]] | None = None,
    ) -> None:
        self.name = name
        self.unit = unit
        self.sources = tuple(sources)
        self.notes = tuple(notes)
        self.run = run
        self.rollouts = estimate_of([course.rollouts for course in courses], whole=True)
        self.calls = estimate_of([course.calls for course in courses], whole=True)
        self.tokens = estimate_of([course.tokens for course in courses], whole=True)
        self.usd = estimate_of([course.usd for course in courses])
        self.minutes = estimate_of([course.seconds / 60 for course in courses])
        self.count = estimate_of([course.count for course in courses], whole=True)
        self._courses = courses
        self._under = under

    def buys(self, budget: Budget) -> Estimate:
        """How many of ``unit`` a budget has room for, as an Estimate.

        ``budget``: a Budget with any limits. It is compared with the whole run, the probe rows included; no call is
        made. Raises ConfigurationError for anything else, and for a limit of USD where a price is unknown.

        >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
        >>> rows = [{"question": f"{n}+1?", "answer": "4"} for n in range(50)]
        >>> judge = dn.Evaluate(dn.metrics.exact_match())
        >>> forecast = dn.run_sync(lambda: judge.forecast(program, rows, probe=2))
        >>> forecast.buys(dn.Budget(metric_calls=7)).point, forecast.unit
        (7, 'row')
        """
        if not isinstance(budget, Budget):
            raise ConfigurationError(f"buys takes a Budget, as in forecast.buys(dn.Budget(usd=1)), got {budget!r}")
        if budget.usd is not None and self.usd.point is None:
            raise ConfigurationError(
                "what a budget of USD buys is unknown, since a price is: give LM(price={'input': …, 'output': …}) in "
                "USD per million tokens, or a budget of tokens"
            )
        if self._under is None:
            courses: Sequence[Totals] = [course.within(budget) for course in self._courses]
        else:
            courses = self._under(budget)
        return estimate_of([course.count for course in courses], whole=True)

    @property
    def table(self) -> pd.DataFrame:
        """The estimates, one row each, with the columns point, low and high (NaN where unknown)."""
        import pandas as pd

        estimates = self._estimates()
        rows = [[getattr(estimate, f.name) for f in fields(Estimate)] for estimate in estimates.values()]
        index = pd.Index(list(estimates), name="amount")
        return pd.DataFrame(rows, index, ["point", "low", "high"], dtype=float)

    def summary(self) -> str:
        """The forecast in one line."""
        parts = [f"{with_unit(self.count, self.unit)}"]
        for name, estimate in self._estimates().items():
            if name != "rollouts" or self.unit != "row":
                parts.append(f"{name.upper() if name == 'usd' else name} {estimate}")
        return ", ".join(parts)

    def _estimates(self) -> dict[str, Estimate]:
        return {name: getattr(self, name) for name in ("rollouts", "calls", "tokens", "usd", "minutes")}

    def _remarks(self) -> list[str]:
        return [f"from {', '.join(self.sources)}", *self.notes] if self.sources else list(self.notes)

    def __repr__(self) -> str:
        return f"<Forecast of {self.name}: {self.summary()}; {'; '.join(self._remarks())}>"

    def _repr_html_(self) -> str:
        cells = {}
        for name, estimate in self._estimates().items():
            numbers = (estimate.point, estimate.low, estimate.high)
            cells["USD" if name == "usd" else name] = ["unknown" if n is None else _digits(n) for n in numbers]
        import pandas as pd

        frame = pd.DataFrame.from_dict(cells, orient="index", columns=["estimate", "80 % from", "to"])
        remarks = "".join(f"<li>{escape(remark)}</li>" for remark in self._remarks())
        title = f"Forecast of {self.name}: {with_unit(self.count, self.unit)}"
        return f"<p>{escape(title)}</p>{frame_html(frame)}<ul>{remarks}</ul>"


def with_unit(count: Estimate, unit: str) -> str:
    """``about 11 mutations (8 to 14)``, or ``200 rows`` where the number is certain."""
    if count.point is None:
        return f"an unknown number of {unit}s"
    plural = "" if count.point == 1 else "s"
    if count.low == count.high:
        return f"{count.point:,} {unit}{plural}"
    return f"about {count.point:,} {unit}{plural} ({count.low:,} to {count.high:,})"


def estimate_of(values: Sequence[float | None], *, whole: bool = False) -> Estimate:
    """The median of possible values and their 80 % interval; unknown where one of them is."""
    known = sorted(value for value in values if value is not None)
    if not known or len(known) < len(values):
        return Estimate()
    numbers: list[Any] = [_quantile(known, share) for share in (0.5, _LOW, _HIGH)]
    if whole:
        numbers = [round(number) for number in numbers]
    return Estimate(*numbers)


def _quantile(ordered: Sequence[float], share: float) -> float:
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def _digits(number: float) -> str:
    """A number as people read it: three digits, and whole numbers up to a million in full."""
    if number == int(number) and abs(number) < 1e6:
        return f"{int(number):,}"
    if abs(number) >= 1e6:
        return f"{number / 1e6:,.3g} million"
    if abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.3g}"
