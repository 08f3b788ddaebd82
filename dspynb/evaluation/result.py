"""Evaluation: the results of a program on rows, as a table, as scores with intervals, and as plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspynb.data import Prediction, Usage, tokens_text
from dspynb.errors import InputError
from dspynb.running.tables.estimates import estimates_in, with_estimates
from dspynb.running.tables.frames import rollouts_frame
from dspynb.running.tables.pages import frame_html
from dspynb.running.tables.statistics import Interval, mean_interval
from dspynb.running.view_hook import plots

if TYPE_CHECKING:
    import pandas as pd

    from dspynb.evaluation.evaluator import Evaluate, Table
    from dspynb.evaluation.rollouts import Rollout
    from dspynb.running.view_hook import Axes
    from dspynb.scope.core import RunPort

__all__ = ["Evaluation"]

_DISPLAYED_ROWS = 10


class Evaluation:
    """The results of a program on rows. ``table`` has one row per rollout; ``score`` is the mean and its 95 % interval.

    ``float(evaluation)`` and ``float(evaluation.score)`` are the mean. ``predictions`` and ``exceptions`` have one item
    per row, which may be None. Rows that failed count as ``failure_score`` in the mean, and ``errors`` lists them.

    >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
    >>> rows = [{"question": "2+2?", "answer": "4"}, {"question": "2+3?", "answer": "5"}]
    >>> dn.run_sync(lambda: dn.evaluate(program, rows, dn.metrics.exact_match()))
    <Evaluation: exact_match 0.5 [0.0945, 0.905], 2 rows, 2 calls>
    """

    def __init__(
        self,
        table: Table,
        done: Mapping[tuple[int, int], Rollout],
        plan: Evaluate,
        run: RunPort | None = None,
    ) -> None:
        self.rows = table.rows
        self.run: Any = run
        self.metrics = list(plan.metrics)
        self.failure_score = plan.failure_score
        self.repeats = plan.repeats
        self.total = len(table.rows) * plan.repeats
        self._index = table.index
        self._max_errors = plan.max_errors
        by_repeat_and_row = sorted(done.items(), key=lambda item: (item[0][1], item[0][0]))
        self._done = dict(by_repeat_and_row)

    # ── rows ──────────────────────────────────────────────────────────────────────────────────────────────────────
    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per rollout that has ended, with the index of the rows that were passed.

        Columns: the inputs and labels, the outputs, the parts of the score, the other metrics, then score, feedback,
        error, attempts, tokens, usd, seconds (of work), waited (seconds for a slot of the model, a rate limit or a
        retry), cached; estimated (how many of the tokens are) if any; and repeat if the evaluation has repeats. If a
        label and an output have the same name, their columns are ``expected_<name>`` and ``predicted_<name>``; likewise
        if a name is that of a column above. Cells have the values that the run file has: a pydantic model is a dict, a
        date is text.

        >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
        >>> done = dn.Evaluate(dn.metrics.exact_match()).run_sync(program, [{"question": "2+3?", "answer": "5"}])
        >>> done.table[["question", "expected_answer", "predicted_answer", "feedback"]]
          question expected_answer predicted_answer                      feedback
        0     2+3?               5                4  answer is '4'; expected '5'.
        """
        records = [rollout.ended for rollout in self._done.values()]
        rows = [self.rows[record.row] for record in records]
        frame = rollouts_frame(records, rows, other_metrics=self.metrics[1:])
        record = getattr(self.run, "record", None)
        frame = with_estimates(frame, estimates_in(record, [rollout.span for rollout in records]))
        frame["score"] = [self._score_of(record) for record in records]
        frame.index = self._labels([record.row for record in records])
        dropped = ["row"] if self.repeats > 1 else ["row", "repeat"]
        return frame.drop(columns=dropped)

    def _labels(self, rows: list[int]) -> pd.Index:
        """The index labels of the rows with these numbers."""
        import pandas as pd

        index = pd.RangeIndex(len(self.rows)) if self._index is None else self._index
        return index.take(rows)

    def _score_of(self, record: Any) -> float:
        """The score of a rollout; ``failure_score`` if it failed."""
        if record.error is not None:
            return self.failure_score
        return float(record.score)

    def _first_repeats(self, attribute: str) -> list[Any]:
        """An attribute of the first rollout of each row; None where no rollout has ended."""
        return [getattr(self._done.get((row, 0)), attribute, None) for row in range(len(self.rows))]

    @property
    def predictions(self) -> list[Prediction | None]:
        """The prediction of each row, from its first repeat; None if the row failed or did not run in this process."""
        return self._first_repeats("prediction")

    @property
    def exceptions(self) -> list[Exception | None]:
        """The exception of each row, from its first repeat; None if there was none."""
        return self._first_repeats("error")

    @property
    def errors(self) -> pd.DataFrame:
        """The rows of ``table`` that failed.

        >>> program = dn.Predict("question -> answer", lm=dn.ScriptedLM([dn.errors.ServerError("it is down")]))
        >>> done = dn.Evaluate(dn.metrics.exact_match()).run_sync(program, [{"question": "2+2?", "answer": "4"}])
        >>> done.errors[["question", "error"]]
          question                    error
        0     2+2?  ServerError: it is down
        """
        return self.table[self.table.error.notna()]

    def worst(self, n: int = 5) -> pd.DataFrame:
        """The ``n`` rows of ``table`` with the lowest scores, the lowest first. Raises InputError for ``n`` below 1.

        >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
        >>> rows = [{"question": "2+2?", "answer": "4"}, {"question": "2+3?", "answer": "5"}]
        >>> dn.Evaluate(dn.metrics.exact_match()).run_sync(program, rows).worst(1)[["question", "score"]]
          question  score
        1     2+3?    0.0
        """
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise InputError(f"worst(n) takes a whole number of at least 1, got {n!r}")
        return self.table.sort_values("score", kind="stable").head(n)

    @property
    def by_row(self) -> pd.DataFrame:
        """One row per row that was evaluated, with the columns mean, variance and n.

        They are the mean of the scores of its repeats, their sample variance (NaN for a single repeat) and their
        number.
        """
        import pandas as pd

        scores = self._scores_by_row()
        variance = [_variance(values) for values in scores.values()]
        cells = {
            "mean": [sum(values) / len(values) for values in scores.values()],
            "variance": pd.Series(variance, dtype=float).tolist(),
            "n": [len(values) for values in scores.values()],
        }
        return pd.DataFrame(cells, index=self._labels(list(scores)))

    def _scores_by_row(self, metric: str | None = None) -> dict[int, list[float]]:
        """The scores of the repeats of each row, or the values of another metric. Failures are ``failure_score``."""
        scores: dict[int, list[float]] = {}
        for (row, _), rollout in sorted(self._done.items()):
            record = rollout.ended
            if record.error is not None:
                score = self.failure_score
            elif metric is None:
                score = self._score_of(record)
            else:
                score = record.metrics[metric]
            scores.setdefault(row, []).append(score)
        return scores

    # ── scores ────────────────────────────────────────────────────────────────────────────────────────────────────
    @cached_property
    def score(self) -> Interval:
        """The mean score and its 95 % interval, over rows. A row counts with the mean of its repeats.

        >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
        >>> rows = [{"question": "2+2?", "answer": "4"}, {"question": "2+3?", "answer": "5"}]
        >>> score = dn.Evaluate(dn.metrics.exact_match()).run_sync(program, rows).score
        >>> print(score, score.method)
        0.5 [0.0945, 0.905] wilson
        """
        return self._interval(None)

    @property
    def scores(self) -> dict[str, Interval]:
        """The mean of every metric and its 95 % interval, by the name of the metric."""
        others = {name: self._interval(name) for name in self.metrics[1:]}
        return {self.metrics[0]: self.score, **others}

    def _interval(self, metric: str | None) -> Interval:
        scores = self._scores_by_row(metric)
        return mean_interval([sum(values) / len(values) for values in scores.values()])

    def __float__(self) -> float:
        return float(self.score)

    @property
    def usage(self) -> Usage:
        """What the calls of the program cost."""
        return sum((rollout.ended.usage for rollout in self._done.values()), Usage())

    @property
    def metric_usage(self) -> Usage:
        """What the calls of metrics cost, such as those of a judge. ``usage`` does not include them."""
        return sum((rollout.ended.metric_usage for rollout in self._done.values()), Usage())

    def __len__(self) -> int:
        return len(self._done)

    # ── display and files ─────────────────────────────────────────────────────────────────────────────────────────
    def summary(self) -> str:
        """One line of text: the score, the number of rows and failures, and what the program and the metrics cost."""
        failed = sum(rollout.ended.error is not None for rollout in self._done.values())
        parts = [f"{self.metrics[0]} {self.score}"]
        if len(self) == self.total:
            parts.append(f"{len(self):,} rows")
        else:
            parts.append(f"{len(self):,} of {self.total:,} rows")
        if failed:
            parts.append(f"{failed:,} failed, counted as {self.failure_score:g}")
        parts.append(_cost_text(self.usage))
        if self._max_errors is not None and failed > self._max_errors:
            parts.append(f"ended early by max_errors={self._max_errors}")
        text = ", ".join(parts)
        metric_usage = self.metric_usage
        if metric_usage.calls or metric_usage.tokens != 0:
            text += f"; metrics: {_cost_text(metric_usage)}"
        return text

    def __repr__(self) -> str:
        return f"<Evaluation: {self.summary()}>"

    def _repr_html_(self) -> str:
        html = f"<p>{escape(self.summary())}</p>{frame_html(self.table.head(_DISPLAYED_ROWS))}"
        if len(self) > _DISPLAYED_ROWS:
            html += f"<p>… {len(self) - _DISPLAYED_ROWS:,} more rows in <code>.table</code></p>"
        return html

    def plot(self, ax: Axes | None = None) -> Axes:
        """Plot a histogram of the scores of the rollouts, with their mean and its 95 % interval.

        ``ax``: the Axes to draw into; None makes a new figure. Returns the Axes. Raises ConfigurationError if
        matplotlib is not installed.
        """
        scores: list[float] = []
        for row_scores in self._scores_by_row().values():
            scores.extend(row_scores)
        mean = self.score
        group = (scores, (mean.mean, mean.low, mean.high))
        unit = "rollouts" if self.repeats > 1 else "rows"
        axes: Axes = plots().histogram({"": group}, self.metrics[0], unit, ax)
        return axes

    def save(self, path: str | Path) -> Path:
        """Write ``table`` to a file and return its path.

        ``path``: ends in ``.csv``, ``.jsonl``, ``.json`` or ``.parquet``. Raises InputError for another ending, or if
        the file cannot be written.
        """
        from dspynb.evaluation.data_io.saving import save_table

        return save_table(self.table, Path(path))


def _cost_text(usage: Usage) -> str:
    """The number of calls; tokens and USD if they are known and not 0."""
    parts = [f"{usage.calls:,} calls"]
    tokens = tokens_text(usage.tokens)
    if tokens:
        parts.append(tokens)
    if usage.usd:
        parts.append(f"${usage.usd:.4f}")
    return ", ".join(parts)


def _variance(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return None
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / (len(values) - 1)
