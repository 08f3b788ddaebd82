"""Comparing programs on the same rows with the same rollouts, and grids of settings."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Unpack

from dspynb.aliases import Metrics, Rows
from dspynb.errors import ConfigurationError, InputError, nearest
from dspynb.evaluation.evaluator import (
    Evaluate,
    EvaluateWork,
    Table,
    run_inside,
    table_of,
)
from dspynb.evaluation.result import Evaluation
from dspynb.evaluation.settings import SETTINGS_OF_EVALUATE, EvaluateSettings
from dspynb.events import SpanEnded, SpanStarted, new_span, plain
from dspynb.keywords import configurable
from dspynb.modules.module import Module
from dspynb.redact import redact_values
from dspynb.running.run import Run
from dspynb.running.tables.frames import encodable, with_costs
from dspynb.running.tables.pages import frame_html
from dspynb.running.tables.statistics import PairedDifference, paired_difference
from dspynb.running.view_hook import plots
from dspynb.scope.budget import Meter
from dspynb.scope.core import Layer, current_scope

if TYPE_CHECKING:
    import pandas as pd

    from dspynb.running.view_hook import Axes

__all__ = ["Comparison", "Grid", "compare", "grid"]

_OF_DSPY = {**SETTINGS_OF_EVALUATE, "devset": "rows", "dataset": "rows"}


class Comparison:
    """Programs on the same rows. ``table``: one row a program; ``evaluations``: by name; the first is the base.

    >>> a, b = (dn.Predict("n -> answer", lm=dn.FunctionLM(lambda request, n=n: f"answer: {n}")) for n in (1, 2))
    >>> rows = [{"n": "one", "answer": 1}, {"n": "two", "answer": 2}, {"n": "deux", "answer": 2}]
    >>> done = dn.run_sync(lambda: dn.compare({"base": a, "new": b}, rows, dn.metrics.exact_match()))
    >>> done.changed("new")[["n", "change"]]
          n change
    0   one   -1.0
    1   two    1.0
    2  deux    1.0
    """

    def __init__(self, evaluations: Mapping[str, Evaluation], programs: int, run: Any = None) -> None:
        self.evaluations, self.programs, self.run = dict(evaluations), programs, run
        self.base = next(iter(self.evaluations))

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a program: score, low and high (95 % interval), difference to the base with diff_low and diff_high,
        p_value (exact McNemar test for scores of 0 and 1, else paired bootstrap), wins, ties, losses, rows, errors,
        tokens, usd, seconds. Only rows that both have are paired."""
        import pandas as pd

        records = [self._record(name) for name in self.evaluations]
        return with_costs(pd.DataFrame(records, index=pd.Index(list(map(encodable, self.evaluations)), name="program")))

    def _record(self, name: str) -> dict[str, Any]:
        evaluation, usage = self.evaluations[name], self.evaluations[name].usage
        score = evaluation.score
        record: dict[str, Any] = {"score": score.mean, "low": score.low, "high": score.high}
        paired = None if name == self.base or not self._pairs(name) else self.difference(name)
        for column, attribute in _PAIRED.items():
            record[column] = None if paired is None else getattr(paired, attribute)
        seconds = float(evaluation.table.seconds.sum())
        return {
            **record,
            "rows": len(evaluation),
            "errors": len(evaluation.errors),
            "tokens": usage.tokens,
            "usd": usage.usd,
            "seconds": seconds,
        }

    def difference(self, name: str, base: str | None = None) -> PairedDifference:
        """How much higher a program scored than another (the base), on the rows that both have. Raises InputError for
        an unknown name, or where there is no such row.

        >>> a, b = (dn.Predict("n -> answer", lm=dn.FunctionLM(lambda request, n=n: f"answer: {n}")) for n in (1, 2))
        >>> rows = [{"n": "one", "answer": 1}, {"n": "two", "answer": 2}, {"n": "deux", "answer": 2}]
        >>> done = dn.run_sync(lambda: dn.compare({"base": a, "new": b}, rows, dn.metrics.exact_match()))
        >>> gain = done.difference("new")
        >>> round(gain.difference, 2), gain.wins, gain.losses, gain.p_value
        (0.33, 2, 1, 1.0)
        """
        pairs = self._pairs(name, base)
        return paired_difference([before for before, _ in pairs.values()], [after for _, after in pairs.values()])

    def _pairs(self, name: str, base: str | None = None) -> dict[int, tuple[float, float]]:
        """Of each row that both have, the base's mean and the other's."""
        first, second = self._means(self.base if base is None else base), self._means(name)
        return {row: (first[row], second[row]) for row in first if row in second}

    def _means(self, name: str) -> dict[int, float]:
        if name not in self.evaluations:
            raise InputError(f"there is no program {name!r}.{nearest(name, self.evaluations)}")
        scores = self.evaluations[name]._scores_by_row()
        return {row: sum(values) / len(values) for row, values in scores.items()}

    def changed(self, name: str, base: str | None = None) -> pd.DataFrame:
        """The rows on which a program scored otherwise than another (the base), the largest changes first: the row's
        columns, then each one's outputs, score and feedback under its name."""
        import pandas as pd

        base = self.base if base is None else base
        pairs = self._pairs(name, base)
        change = {row: second - first for row, (first, second) in pairs.items()}
        rows = sorted((row for row in change if abs(change[row]) > _NOISE), key=lambda row: -abs(change[row]))
        before, after = self.evaluations[base], self.evaluations[name]
        records = [
            {
                **before.rows[row].to_dict(),
                **_of(before, row, base, pairs[row][0]),
                **_of(after, row, name, pairs[row][1]),
                "change": change[row],
            }
            for row in rows
        ]
        clean = [redact_values(plain(record)) for record in records]
        return pd.DataFrame(clean, index=before._labels(rows), dtype=object)

    def __repr__(self) -> str:
        return f"<Comparison of {', '.join(self.evaluations)}>\n{self.table.to_string()}"

    def _repr_html_(self) -> str:
        return frame_html(self.table)

    def plot(self, ax: Axes | None = None) -> Axes:
        """The programs' mean scores with their 95 % intervals. Draws into ``ax``, or a new figure; returns the Axes.
        Raises ConfigurationError without matplotlib."""
        scores = {name: evaluation.score for name, evaluation in self.evaluations.items()}
        metric = self.evaluations[self.base].metrics[0]
        means = {name: (s.mean, s.low, s.high) for name, s in scores.items()}
        axes: Axes = plots().intervals(means, metric, ax)
        return axes


_NOISE = 1e-12  # of rounding: what the paired statistics take for a tie
_PAIRED = {
    "difference": "difference",
    "diff_low": "low",
    "diff_high": "high",
    "p_value": "p_value",
    "wins": "wins",
    "ties": "ties",
    "losses": "losses",
}


def _of(evaluation: Evaluation, row: int, name: str, score: float) -> dict[str, Any]:
    record = next(rollout.ended for (number, _), rollout in evaluation._done.items() if number == row)
    outputs = {f"{name}: {field}": value for field, value in (record.outputs or {}).items()}
    return {**outputs, f"{name}: score": score, f"{name}: feedback": record.error or record.feedback}


def _combinations(parameters: Any) -> list[dict[str, Any]]:
    listed = dict(parameters) if isinstance(parameters, Mapping) else {}
    if not listed or not all(_is_list(values) for values in listed.values()):
        raise ConfigurationError('grid takes a dict of lists, as in {"n": [1, 3, 5]}; each needs at least one value')
    return [dict(zip(listed, values, strict=True)) for values in itertools.product(*listed.values())]


def _is_list(values: Any) -> bool:
    return not isinstance(values, str) and hasattr(values, "__len__") and len(values) > 0


class Grid(Comparison):
    """An ablation: one program for each combination of settings. ``table`` has a column for each setting.

    >>> def make(temperature):
    ...     lm = dn.FunctionLM(lambda request: f"answer: {request.settings['temperature']}")
    ...     return dn.Predict("question -> answer", lm=lm, temperature=temperature)
    >>> rows, metric = [{"question": "How warm is it?", "answer": 1}], dn.metrics.exact_match()
    >>> done = dn.run_sync(lambda: dn.grid(make, {"temperature": [0, 1]}, rows, metric))
    >>> {name: float(evaluation) for name, evaluation in done.evaluations.items()}
    {'temperature=0': 0.0, 'temperature=1': 1.0}
    """

    def __init__(
        self, settings: Sequence[Mapping[str, Any]], evaluations: Mapping[str, Evaluation], programs: int, run: Any
    ) -> None:
        super().__init__(evaluations, programs, run)
        self.settings = dict(zip(evaluations, settings, strict=False))

    @cached_property
    def table(self) -> pd.DataFrame:
        """As that of Comparison, with the settings as columns before the score."""
        import pandas as pd

        scores = super().table.reset_index(drop=True)
        return pd.concat([pd.DataFrame(list(self.settings.values())), scores], axis=1)


class _CompareWork:
    """Evaluations one after the other, as the work of one run: the same rows, the same rollouts, one budget."""

    def __init__(self, plan: Evaluate, programs: Mapping[str, Module], table: Table) -> None:
        self.plan, self.table = plan, table
        self.works = {name: EvaluateWork(plan, program, table) for name, program in programs.items()}
        self.run: Any = None

    async def __call__(self) -> dict[str, Evaluation]:
        """The evaluations by name; those that the end of the budget left without a row are not among them."""
        self.run = current_scope().open_run
        for work in self.works.values():
            work.run = self.run
        budget = self.plan.budget
        with Layer(None, funds=None if budget is None else Meter(budget)):
            for name, work in self.works.items():
                await _as_span(name, work)
        return self._evaluations()

    def partial(self) -> dict[str, Evaluation] | None:
        """What there is so far; None where there is nothing."""
        return self._evaluations() or None

    def _evaluations(self) -> dict[str, Evaluation]:
        parts = {name: work.partial() for name, work in self.works.items()}
        return {name: part for name, part in parts.items() if part is not None}


async def _as_span(name: str, work: EvaluateWork) -> None:
    scope, span = current_scope(), new_span()
    scope.emit(SpanStarted(span=span, parent=scope.open_span, kind="evaluation", name=name))
    try:
        with Layer(f"the evaluation of {name}", span=span):
            await work.pool
    finally:
        scope.emit(SpanEnded(span=span, parent=scope.open_span))


async def _evaluations(plan: Evaluate, programs: Mapping[str, Module], rows: Rows, kind: str) -> tuple[Any, Any]:
    work = _CompareWork(plan, programs, table_of(rows))
    if current_scope().open_run is not None:
        return await run_inside(work, plan.budget), work.run
    paths = {p.uid: f"{name}.{path}" for name, m in programs.items() for path, p in m.named_predictors()}
    steps = len(work.table.rows) * plan.repeats * len(programs)
    settings = {
        "metric": ", ".join(plan.metrics), "data": work.table.fingerprint, "failure_score": plan.failure_score,
    }  # fmt: skip
    run = Run(kind, ", ".join(programs), {"rows": steps}, paths, settings)
    return await run.watched(work), run


@configurable(passes_to=Evaluate.__init__, renamed=_OF_DSPY)
async def compare(
    programs: Mapping[str, Module], rows: Rows, metric: Metrics, **settings: Unpack[EvaluateSettings]
) -> Comparison:
    """Evaluate programs on the same rows: ``await compare({"base": a, "refined": b}, rows, metric)``.

    The first is the base of the differences. ``settings``: those of Evaluate; a budget is for all of them together.
    When it is spent, or the run is stopped, what was done so far is compared. Raises ConfigurationError for less than
    one program.

    >>> a, b = (dn.Predict("n -> answer", lm=dn.FunctionLM(lambda request, n=n: f"answer: {n}")) for n in (1, 2))
    >>> rows = [{"n": "one", "answer": 1}, {"n": "two", "answer": 2}, {"n": "deux", "answer": 2}]
    >>> done = dn.run_sync(lambda: dn.compare({"base": a, "new": b}, rows, dn.metrics.exact_match()))
    >>> done.table[["score", "difference", "wins", "losses"]].round(2)
             score  difference  wins  losses
    program
    base      0.33         NaN   NaN     NaN
    new       0.67        0.33   2.0     1.0
    """
    if not isinstance(programs, Mapping) or not programs:
        raise ConfigurationError('compare takes a dict of programs, as in {"base": a, "refined": b}')
    named = {str(name): program for name, program in programs.items()}
    if len(named) < len(programs):
        raise ConfigurationError("compare: two programs have the same name as text")
    found, run = await _evaluations(Evaluate(metric, **settings), named, rows, "compare")
    return Comparison(found, len(named), run)


@configurable(passes_to=Evaluate.__init__, renamed=_OF_DSPY)
async def grid(
    make: Callable[..., Module],
    parameters: Mapping[str, Sequence[Any]],
    rows: Rows,
    metric: Metrics,
    **settings: Unpack[EvaluateSettings],
) -> Grid:
    """Evaluate ``make(**combination)`` for every combination: ``await grid(make, {"n": [1, 3, 5]}, rows, metric)``.

    ``make``: a function that returns a program. ``parameters``: the values of each of its arguments. The first
    combination is the base. ``settings``: those of Evaluate; one budget and one Stop for all. Raises ConfigurationError
    for a parameter without values.

    >>> lm = dn.FunctionLM(lambda request: f"answer: {request.rollout}")  # another one in every sample
    >>> def make(n):
    ...     ask = dn.Predict("question -> answer", lm=lm)
    ...     return dn.BestOfN(ask, reward=lambda row, prediction: prediction.answer == "2", n=n)
    >>> rows = [{"question": "1+1?", "answer": "2"}]
    >>> dn.run_sync(lambda: dn.grid(make, {"n": [1, 3]}, rows, dn.metrics.exact_match())).table[["n", "score"]]
       n  score
    0  1    0.0
    1  3    1.0
    """
    combinations = _combinations(parameters)
    programs = {", ".join(f"{n}={v!r}" for n, v in c.items()): make(**c) for c in combinations}
    if len(programs) < len(combinations):
        raise ConfigurationError("grid: two values of a parameter look the same; give each once")
    found, run = await _evaluations(Evaluate(metric, **settings), programs, rows, "grid")
    return Grid(combinations, found, len(programs), run)
