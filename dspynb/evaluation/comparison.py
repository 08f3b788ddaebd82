"""Comparing programs on the same rows with the same rollouts, and grids of settings."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dspynb.errors import ConfigurationError, Halted, InputError, nearest
from dspynb.evaluation.evaluation import Evaluation
from dspynb.evaluation.evaluator import Evaluate, EvaluateWork, Table, table_of
from dspynb.evaluation.statistics import PairedDifference, paired_difference
from dspynb.events import SpanEnded, SpanStarted, new_span
from dspynb.modules import Module
from dspynb.running import Run
from dspynb.running.display import plots
from dspynb.scope import Layer, Meter, current_scope

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Comparison", "Grid", "compare", "grid"]


class Comparison:
    """Programs on the same rows. ``table``: one row a program; ``evaluations``: by name; the first is the base."""

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
        return pd.DataFrame(records, index=pd.Index(list(self.evaluations), name="program"))

    def _record(self, name: str) -> dict[str, Any]:
        evaluation, usage = self.evaluations[name], self.evaluations[name].usage
        score = evaluation.score
        record: dict[str, Any] = {"score": score.mean, "low": score.low, "high": score.high}
        paired = None if name == self.base else self.difference(name)
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
        """How much higher a program scored than another (the base), on the rows that both have. Raises InputError."""
        first, second = self._means(self.base if base is None else base), self._means(name)
        both = [row for row in first if row in second]
        return paired_difference([first[row] for row in both], [second[row] for row in both])

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
        first, second = self._means(base), self._means(name)
        rows = [row for row in first if row in second and first[row] != second[row]]
        rows.sort(key=lambda row: -abs(second[row] - first[row]))
        before, after = self.evaluations[base], self.evaluations[name]
        records = [
            {
                **before.rows[row].to_dict(),
                **_of(before, row, base, first[row]),
                **_of(after, row, name, second[row]),
                "change": second[row] - first[row],
            }
            for row in rows
        ]
        return pd.DataFrame(records, index=pd.Index([before._index[row] for row in rows]))

    def __repr__(self) -> str:
        return f"<Comparison of {', '.join(self.evaluations)}>\n{self.table.to_string()}"

    def _repr_html_(self) -> str:
        return self.table.to_html(escape=True, na_rep="")

    def plot(self, ax: Any = None) -> Any:
        """The programs' scores with their intervals. Draws into ``ax``, or a new figure; returns the Axes."""
        scores = {name: evaluation.score for name, evaluation in self.evaluations.items()}
        return plots().intervals({name: (s.mean, s.low, s.high) for name, s in scores.items()}, ax)


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
    record = evaluation._done[row, 0].ended
    outputs = {f"{name}: {field}": value for field, value in (record.outputs or {}).items()}
    return {**outputs, f"{name}: score": score, f"{name}: feedback": record.error or record.feedback}


class Grid(Comparison):
    """An ablation: one program for each combination of settings. ``table`` has a column for each setting."""

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
        budget = self.plan.budget
        try:
            with Layer(None, funds=None if budget is None else Meter(budget)):
                for name, work in self.works.items():
                    await _as_span(name, work)
        except Halted:
            if not self.partial():
                raise
        return self.partial()

    def partial(self) -> dict[str, Evaluation]:
        """What there is so far."""
        return {name: work.partial() for name, work in self.works.items() if work.done}


async def _as_span(name: str, work: EvaluateWork) -> None:
    scope, span = current_scope(), new_span()
    scope.emit(SpanStarted(span=span, parent=scope.open_span, kind="evaluation", name=name))
    with Layer(f"the evaluation of {name}", span=span):
        await work.pool
    scope.emit(SpanEnded(span=span, parent=scope.open_span))


async def _evaluations(plan: Evaluate, programs: Mapping[str, Module], rows: Any, kind: str) -> tuple[Any, Any]:
    work = _CompareWork(plan, programs, table_of(rows))
    if current_scope().open_run is not None:
        return await work(), work.run
    paths = {p.uid: f"{name}.{path}" for name, m in programs.items() for path, p in m.named_predictors()}
    steps = len(work.table.rows) * plan.repeats * len(programs)
    run = Run(
        kind,
        ", ".join(programs),
        {"rows": steps},
        paths,
        {"data": work.table.fingerprint, "failure_score": plan.failure_score},
    )
    return await run.watched(work), run


async def compare(programs: Mapping[str, Module], rows: Any, metric: Any, **settings: Any) -> Comparison:
    """Evaluate programs on the same rows: ``await compare({"base": a, "refined": b}, rows, metric)``.

    The first is the base of the differences. ``settings``: those of Evaluate; a budget is for all of them together.
    When it is spent, or the run is stopped, what was done so far is compared. Raises ConfigurationError for less than
    one program.
    """
    if not isinstance(programs, Mapping) or not programs:
        raise ConfigurationError('compare takes a dict of programs, as in {"base": a, "refined": b}')
    named = {str(name): program for name, program in programs.items()}
    found, run = await _evaluations(Evaluate(metric, **settings), named, rows, "compare")
    return Comparison(found, len(named), run)


async def grid(
    make: Callable[..., Module], parameters: Mapping[str, Sequence[Any]], rows: Any, metric: Any, **settings: Any
) -> Grid:
    """Evaluate ``make(**combination)`` for every combination: ``await grid(make, {"n": [1, 3, 5]}, rows, metric)``.

    The first combination is the base. ``settings``: those of Evaluate; one budget and one Stop for all. Raises
    ConfigurationError for a parameter without values.
    """
    if not isinstance(parameters, Mapping) or not parameters or not all(parameters.values()):
        raise ConfigurationError('grid takes a dict of lists, as in {"n": [1, 3, 5]}; each needs at least one value')
    combinations = [dict(zip(parameters, values, strict=True)) for values in itertools.product(*parameters.values())]
    programs = {", ".join(f"{n}={v!r}" for n, v in c.items()): make(**c) for c in combinations}
    found, run = await _evaluations(Evaluate(metric, **settings), programs, rows, "grid")
    return Grid(combinations, found, len(programs), run)
