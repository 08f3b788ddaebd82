"""Comparison of programs on the same rows with the same rollouts, and grids of settings."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Unpack

from dspynb.aliases import Metrics, Rows
from dspynb.errors import ConfigurationError, InputError, nearest
from dspynb.evaluation.evaluator import Evaluate, EvaluateWork, Table, run_inside, table_of
from dspynb.evaluation.result import Evaluation
from dspynb.evaluation.settings import RENAMED_SETTINGS, EvaluateSettings
from dspynb.events import RolloutEnded, SpanEnded, SpanStarted, new_span, plain
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
    from dspynb.scope.core import RunPort

__all__ = ["Comparison", "Grid", "compare", "grid"]

_RENAMED = {**RENAMED_SETTINGS, "devset": "rows", "dataset": "rows"}
"""For names that DSPy uses: the parameter of ``compare`` and ``grid``, or a sentence that says what to do."""


class Comparison:
    """The results of several programs on the same rows.

    ``table`` has one row per program. ``evaluations`` has the Evaluation of each program by its name. The first program
    is the base, with which the others are compared.

    >>> a, b = (dn.Predict("n -> answer", lm=dn.FunctionLM(lambda request, n=n: f"answer: {n}")) for n in (1, 2))
    >>> rows = [{"n": "one", "answer": 1}, {"n": "two", "answer": 2}, {"n": "deux", "answer": 2}]
    >>> done = dn.run_sync(lambda: dn.compare({"base": a, "new": b}, rows, dn.metrics.exact_match()))
    >>> done.changed("new")[["n", "change"]]
          n change
    0   one   -1.0
    1   two    1.0
    2  deux    1.0
    """

    def __init__(self, evaluations: Mapping[str, Evaluation], programs: int, run: RunPort | None = None) -> None:
        self.evaluations = dict(evaluations)
        self.programs = programs
        self.run: Any = run
        self.base = next(iter(self.evaluations))

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per program, with its scores and what it cost.

        Columns: score, low and high (the 95 % interval); difference to the base, diff_low and diff_high (its 95 %
        interval), p_value (exact McNemar test if all scores are 0 or 1, else paired bootstrap), wins, ties, losses;
        rows, errors, tokens, usd; seconds of work on all rows, seconds in which rows only waited (waited), and seconds
        from the start of the first row to the end of the last (wall). The difference uses the rows that both programs
        have.
        """
        import pandas as pd

        records = [self._record(name) for name in self.evaluations]
        names = [encodable(name) for name in self.evaluations]
        return with_costs(pd.DataFrame(records, index=pd.Index(names, name="program")))

    def _record(self, name: str) -> dict[str, Any]:
        evaluation = self.evaluations[name]
        score = evaluation.score
        record: dict[str, Any] = {"score": score.mean, "low": score.low, "high": score.high}
        if name == self.base or not self._pairs(name):
            record |= dict.fromkeys(_DIFFERENCE_COLUMNS)
        else:
            difference = self.difference(name)
            record |= {column: getattr(difference, attribute) for column, attribute in _DIFFERENCE_COLUMNS.items()}
        usage = evaluation.usage
        ended_rollouts = [rollout.ended for rollout in evaluation._done.values()]
        return {
            **record,
            "rows": len(evaluation),
            "errors": len(evaluation.errors),
            "tokens": usage.tokens,
            "usd": usage.usd,
            "seconds": math.fsum(ended.seconds for ended in ended_rollouts),
            "waited": math.fsum(ended.waited for ended in ended_rollouts),
            "wall": _wall_seconds(ended_rollouts),
        }

    def difference(self, name: str, base: str | None = None) -> PairedDifference:
        """How much higher program ``name`` scored than program ``base``, on the rows that both have.

        ``base``: by default the base of the comparison. Raises InputError for an unknown name, or if the programs have
        no row in common.

        >>> a, b = (dn.Predict("n -> answer", lm=dn.FunctionLM(lambda request, n=n: f"answer: {n}")) for n in (1, 2))
        >>> rows = [{"n": "one", "answer": 1}, {"n": "two", "answer": 2}, {"n": "deux", "answer": 2}]
        >>> done = dn.run_sync(lambda: dn.compare({"base": a, "new": b}, rows, dn.metrics.exact_match()))
        >>> gain = done.difference("new")
        >>> round(gain.difference, 2), gain.wins, gain.losses, gain.p_value
        (0.33, 2, 1, 1.0)
        """
        pairs = self._pairs(name, base)
        base_scores = [pair[0] for pair in pairs.values()]
        scores = [pair[1] for pair in pairs.values()]
        return paired_difference(base_scores, scores)

    def _pairs(self, name: str, base: str | None = None) -> dict[int, tuple[float, float]]:
        """For each row that both programs have: the mean score of the base, and that of the program ``name``."""
        if base is None:
            base = self.base
        base_means = self._means(base)
        means = self._means(name)
        return {row: (base_means[row], means[row]) for row in base_means if row in means}

    def _means(self, name: str) -> dict[int, float]:
        """The mean score of a program on each row, by the number of the row."""
        if name not in self.evaluations:
            raise InputError(f"there is no program {name!r}.{nearest(name, self.evaluations)}")
        scores = self.evaluations[name]._scores_by_row()
        return {row: sum(values) / len(values) for row, values in scores.items()}

    def changed(self, name: str, base: str | None = None) -> pd.DataFrame:
        """The rows on which program ``name`` and program ``base`` have different scores, the largest changes first.

        ``base``: by default the base of the comparison. Columns: those of the row; the outputs, score and feedback of
        both programs, each as ``<program>: <column>``; and change.
        """
        import pandas as pd

        if base is None:
            base = self.base
        pairs = self._pairs(name, base)
        changes = {row: score - base_score for row, (base_score, score) in pairs.items()}
        changed_rows = [row for row, change in changes.items() if abs(change) > _ROUNDING]
        changed_rows.sort(key=lambda row: -abs(changes[row]))
        base_evaluation = self.evaluations[base]
        evaluation = self.evaluations[name]
        records = []
        for row in changed_rows:
            base_score, score = pairs[row]
            record = {
                **base_evaluation.rows[row].to_dict(),
                **_result_columns(base_evaluation, row, base, base_score),
                **_result_columns(evaluation, row, name, score),
                "change": changes[row],
            }
            records.append(redact_values(plain(record)))
        return pd.DataFrame(records, index=base_evaluation._labels(changed_rows), dtype=object)

    def __repr__(self) -> str:
        return f"<Comparison of {', '.join(self.evaluations)}>\n{self.table.to_string()}"

    def _repr_html_(self) -> str:
        return frame_html(self.table)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Plot the mean score of each program with its 95 % interval.

        ``ax``: the Axes to draw into; None makes a new figure. Returns the Axes. Raises ConfigurationError if
        matplotlib is not installed.
        """
        metric = self.evaluations[self.base].metrics[0]
        intervals = {}
        for name, evaluation in self.evaluations.items():
            score = evaluation.score
            intervals[name] = (score.mean, score.low, score.high)
        axes: Axes = plots().intervals(intervals, metric, ax)
        return axes


_ROUNDING = 1e-12
"""Differences up to this size are rounding errors. The paired statistics count them as ties."""
_DIFFERENCE_COLUMNS = {
    "difference": "difference",
    "diff_low": "low",
    "diff_high": "high",
    "p_value": "p_value",
    "wins": "wins",
    "ties": "ties",
    "losses": "losses",
}
"""For the columns of the table about the difference to the base: the attribute of PairedDifference."""


def _result_columns(evaluation: Evaluation, row: int, name: str, score: float) -> dict[str, Any]:
    """The outputs, score and feedback of a row, of its first repeat, as columns that begin with the program's name."""
    record = next(rollout.ended for (number, _), rollout in evaluation._done.items() if number == row)
    outputs = record.outputs or {}
    columns = {f"{name}: {field}": value for field, value in outputs.items()}
    return {**columns, f"{name}: score": score, f"{name}: feedback": record.error or record.feedback}


def _wall_seconds(rollouts: Sequence[RolloutEnded]) -> float:
    """The seconds from the start of the first rollout to the end of the last; 0 without rollouts."""
    if not rollouts:
        return 0.0
    first = min(ended.at - ended.seconds - ended.waited for ended in rollouts)
    return max(ended.at for ended in rollouts) - first


def _combinations(parameters: object) -> list[dict[str, Any]]:
    values_by_name = dict(parameters) if isinstance(parameters, Mapping) else {}
    if not values_by_name or not all(_is_filled_list(values) for values in values_by_name.values()):
        raise ConfigurationError('grid takes a dict of lists, as in {"n": [1, 3, 5]}; each needs at least one value')
    products = itertools.product(*values_by_name.values())
    return [dict(zip(values_by_name, values, strict=True)) for values in products]


def _is_filled_list(values: object) -> bool:
    return not isinstance(values, str) and hasattr(values, "__len__") and len(values) > 0


class Grid(Comparison):
    """An ablation: one program for each combination of settings. ``table`` has a column for each setting too.

    >>> def make(temperature):
    ...     lm = dn.FunctionLM(lambda request: f"answer: {request.settings['temperature']}")
    ...     return dn.Predict("question -> answer", lm=lm, temperature=temperature)
    >>> rows, metric = [{"question": "How warm is it?", "answer": 1}], dn.metrics.exact_match()
    >>> done = dn.run_sync(lambda: dn.grid(make, {"temperature": [0, 1]}, rows, metric))
    >>> {name: float(evaluation) for name, evaluation in done.evaluations.items()}
    {'temperature=0': 0.0, 'temperature=1': 1.0}
    """

    def __init__(
        self,
        settings: Sequence[Mapping[str, Any]],
        evaluations: Mapping[str, Evaluation],
        programs: int,
        run: RunPort | None,
    ) -> None:
        super().__init__(evaluations, programs, run)
        self.settings = dict(zip(evaluations, settings, strict=False))

    @cached_property
    def table(self) -> pd.DataFrame:
        """The table of a Comparison, with a column for each setting before the score."""
        import pandas as pd

        scores = super().table.reset_index(drop=True)
        return pd.concat([pd.DataFrame(list(self.settings.values())), scores], axis=1)


class _CompareWork:
    """The work of one run that evaluates several programs in turn, on the same rows and within one budget."""

    def __init__(self, plan: Evaluate, programs: Mapping[str, Module], table: Table) -> None:
        self.plan = plan
        self.table = table
        self.works = {name: EvaluateWork(plan, program, table) for name, program in programs.items()}
        self.programs = {name: work.program for name, work in self.works.items()}
        self.run: Any = None

    async def __call__(self) -> dict[str, Evaluation]:
        """Run all evaluations. Returns those that have at least one row, by the name of the program."""
        self.run = current_scope().open_run
        for work in self.works.values():
            work.run = self.run
        budget = self.plan.budget
        with Layer(None, funds=None if budget is None else Meter(budget)):
            for name, work in self.works.items():
                await _run_in_span(name, work)
        return self._evaluations()

    def partial(self) -> dict[str, Evaluation] | None:
        """The evaluations that have at least one row, by the name of the program; None if there are none."""
        return self._evaluations() or None

    def _evaluations(self) -> dict[str, Evaluation]:
        evaluations = {}
        for name, work in self.works.items():
            evaluation = work.partial()
            if evaluation is not None:
                evaluations[name] = evaluation
        return evaluations


async def _run_in_span(name: str, work: EvaluateWork) -> None:
    scope = current_scope()
    span = new_span()
    scope.emit(SpanStarted(span=span, parent=scope.open_span, kind="evaluation", name=name))
    try:
        with Layer(f"the evaluation of {name}", span=span):
            await work.pool
    finally:
        scope.emit(SpanEnded(span=span, parent=scope.open_span))


async def _evaluate_all(plan: Evaluate, programs: Mapping[str, Module], rows: Rows, kind: str) -> tuple[Any, Any]:
    """Evaluate the programs, in a run of that kind if none is open. Returns the evaluations by name, and the run."""
    work = _CompareWork(plan, programs, table_of(rows))
    if current_scope().open_run is not None:
        evaluations = await run_inside(work, plan.budget)
        return evaluations, work.run
    paths = {}
    for name, program in work.programs.items():
        for path, predictor in program.named_predictors():
            paths[predictor.uid] = f"{name}.{path}"
    steps = len(work.table.rows) * plan.repeats * len(programs)
    settings = {
        "metric": ", ".join(plan.metrics),
        "data": work.table.fingerprint,
        "failure_score": plan.failure_score,
    }
    run = Run(kind, ", ".join(programs), {"rows": steps}, paths, settings)
    evaluations = await run.watched(work)
    return evaluations, run


@configurable(passes_to=Evaluate.__init__, renamed=_RENAMED)
async def compare(
    programs: Mapping[str, Module], rows: Rows, metric: Metrics, **settings: Unpack[EvaluateSettings]
) -> Comparison:
    """Evaluate programs on the same rows: ``await compare({"base": a, "refined": b}, rows, metric)``.

    ``programs``: the programs by name; the first is the base of the differences. ``rows`` and ``metric``: as for
    Evaluate. ``settings``: those of Evaluate; a budget is for all programs together. Returns a Comparison. If the
    budget is spent or the run is stopped, it compares the rows that have ended. Raises ConfigurationError if there is
    no program, or if two have the same name.

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
    programs_by_name = {str(name): program for name, program in programs.items()}
    if len(programs_by_name) < len(programs):
        raise ConfigurationError("compare: two programs have the same name as text")
    evaluations, run = await _evaluate_all(Evaluate(metric, **settings), programs_by_name, rows, "compare")
    return Comparison(evaluations, len(programs_by_name), run)


@configurable(passes_to=Evaluate.__init__, renamed=_RENAMED)
async def grid(
    make: Callable[..., Module],
    parameters: Mapping[str, Sequence[Any]],
    rows: Rows,
    metric: Metrics,
    **settings: Unpack[EvaluateSettings],
) -> Grid:
    """Evaluate ``make(**combination)`` for every combination: ``await grid(make, {"n": [1, 3, 5]}, rows, metric)``.

    ``make``: a function that returns a program. ``parameters``: the values to try for each of its arguments. ``rows``
    and ``metric``: as for Evaluate. ``settings``: those of Evaluate; a budget is for all programs together, and one
    Stop ends all. Returns a Grid; the first combination is its base. Raises ConfigurationError for a parameter without
    values.

    >>> lm = dn.FunctionLM(lambda request: f"answer: {request.rollout}")  # each rollout has another answer
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
    programs = {}
    for combination in combinations:
        label = ", ".join(f"{name}={value!r}" for name, value in combination.items())
        programs[label] = make(**combination)
    if len(programs) < len(combinations):
        raise ConfigurationError("grid: two values of a parameter look the same; give each once")
    evaluations, run = await _evaluate_all(Evaluate(metric, **settings), programs, rows, "grid")
    return Grid(combinations, evaluations, len(programs), run)
