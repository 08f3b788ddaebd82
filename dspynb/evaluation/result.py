"""Evaluation: what came of a program on rows, as a table, a score with its interval, and the rows to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspynb.data import Prediction, Usage, tokens_text
from dspynb.errors import InputError
from dspynb.running.tables.frames import rollouts_frame
from dspynb.running.tables.pages import frame_html
from dspynb.running.tables.statistics import Interval, mean_interval
from dspynb.running.view_hook import plots

if TYPE_CHECKING:
    import pandas as pd

    from dspynb.evaluation.evaluator import Evaluate, Table
    from dspynb.evaluation.rollouts import Rollout
    from dspynb.running.view_hook import Axes

__all__ = ["Evaluation"]

_SHOWN = 10


class Evaluation:
    """A program's results on rows. ``table``: one row a rollout; ``score``: the mean with its 95 % interval.

    ``float(evaluation)`` and ``float(evaluation.score)`` are the mean. ``predictions`` and ``exceptions`` go by row,
    None where there is none. Rows that failed count as ``failure_score`` in the mean, and are in ``errors``.

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
        run: Any = None,
    ) -> None:
        self.rows, self.run, self.metrics = table.rows, run, list(plan.metrics)
        self.failure_score, self.repeats, self.total = plan.failure_score, plan.repeats, len(table.rows) * plan.repeats
        self._index = table.index
        self._done = dict(sorted(done.items(), key=lambda item: (item[0][1], item[0][0])))

    # ── rows ──────────────────────────────────────────────────────────────────────────────────────────────────────
    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a rollout that has ended, with the index of the rows that were given: inputs and labels, outputs,
        the parts of the score, other metrics, then score, feedback, error, attempts, tokens, usd, seconds, cached.

        A label and an output of one name are ``expected_…`` and ``predicted_…``; so are names of the columns above.
        Cells hold what a run file holds: a pydantic output is a dict, a date its text. ``repeat`` only with repeats.

        >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
        >>> done = dn.Evaluate(dn.metrics.exact_match()).run_sync(program, [{"question": "2+3?", "answer": "5"}])
        >>> done.table[["question", "expected_answer", "predicted_answer", "feedback"]]
          question expected_answer predicted_answer                      feedback
        0     2+3?               5                4  answer is '4'; expected '5'.
        """
        records = [rollout.ended for rollout in self._done.values()]
        frame = rollouts_frame(records, [self.rows[record.row] for record in records], other_metrics=self.metrics[1:])
        frame["score"] = [self._counted(record) for record in records]
        frame.index = self._labels([record.row for record in records])
        return frame.drop(columns=["row"] if self.repeats > 1 else ["row", "repeat"])

    def _labels(self, rows: list[int]) -> pd.Index:
        """What the given index calls these rows."""
        import pandas as pd

        index = pd.RangeIndex(len(self.rows)) if self._index is None else self._index
        return index.take(rows)

    def _counted(self, record: Any) -> float:
        return float(self.failure_score if record.error is not None else record.score)

    def _by_row(self, attribute: str) -> list[Any]:
        return [getattr(self._done.get((i, 0)), attribute, None) for i in range(len(self.rows))]

    @property
    def predictions(self) -> list[Prediction | None]:
        """The prediction of each row (of its first repeat); None where it failed or was not run here."""
        return self._by_row("prediction")

    @property
    def exceptions(self) -> list[Exception | None]:
        """The error of each row (of its first repeat); None where there is none."""
        return self._by_row("error")

    @property
    def errors(self) -> pd.DataFrame:
        """The rows of the table that failed.

        >>> program = dn.Predict("question -> answer", lm=dn.ScriptedLM([dn.errors.ServerError("it is down")]))
        >>> done = dn.Evaluate(dn.metrics.exact_match()).run_sync(program, [{"question": "2+2?", "answer": "4"}])
        >>> done.errors[["question", "error"]]
          question                    error
        0     2+2?  ServerError: it is down
        """
        return self.table[self.table.error.notna()]

    def worst(self, n: int = 5) -> pd.DataFrame:
        """The ``n`` rows that scored lowest, the lowest first. Raises InputError for ``n`` below 1.

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
        """One row for each row given: the mean of its repeats, their variance (sample; None for one) and number."""
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
        found: dict[int, list[float]] = {}
        for (row, _), rollout in sorted(self._done.items()):
            record = rollout.ended
            value = self._counted(record) if metric is None or record.error else record.metrics[metric]
            found.setdefault(row, []).append(value if record.error is None else self.failure_score)
        return found

    # ── scores ────────────────────────────────────────────────────────────────────────────────────────────────────
    @cached_property
    def score(self) -> Interval:
        """The mean score with its 95 % interval: over rows, each with the mean of its repeats.

        >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
        >>> rows = [{"question": "2+2?", "answer": "4"}, {"question": "2+3?", "answer": "5"}]
        >>> score = dn.Evaluate(dn.metrics.exact_match()).run_sync(program, rows).score
        >>> print(score, score.method)
        0.5 [0.0945, 0.905] wilson
        """
        return self._interval(None)

    @property
    def scores(self) -> dict[str, Interval]:
        """The mean of every metric, by its name."""
        return {name: self.score if name == self.metrics[0] else self._interval(name) for name in self.metrics}

    def _interval(self, metric: str | None) -> Interval:
        return mean_interval([sum(values) / len(values) for values in self._scores_by_row(metric).values()])

    def __float__(self) -> float:
        return float(self.score)

    @property
    def usage(self) -> Usage:
        """What the program's calls cost."""
        return sum((rollout.ended.usage for rollout in self._done.values()), Usage())

    @property
    def metric_usage(self) -> Usage:
        """What the calls of metrics cost, such as a judge's. They are not in ``usage``."""
        return sum((rollout.ended.metric_usage for rollout in self._done.values()), Usage())

    def __len__(self) -> int:
        return len(self._done)

    # ── showing and keeping ───────────────────────────────────────────────────────────────────────────────────────
    def summary(self) -> str:
        """In one line: the score, how many rows, how many failed, what the program's calls and the metrics' cost."""
        failed = sum(rollout.ended.error is not None for rollout in self._done.values())
        rows = f"{len(self):,} rows" if len(self) == self.total else f"{len(self):,} of {self.total:,} rows"
        told = [f"{self.metrics[0]} {self.score}", rows]
        if failed:
            told.append(f"{failed:,} failed, counted as {self.failure_score:g}")
        told.append(_cost(self.usage))
        judged = self.metric_usage
        return ", ".join(told) + (f"; metrics: {_cost(judged)}" if judged.calls or judged.tokens != 0 else "")

    def __repr__(self) -> str:
        return f"<Evaluation: {self.summary()}>"

    def _repr_html_(self) -> str:
        more = f"<p>… {len(self) - _SHOWN:,} more rows in <code>.table</code></p>" if len(self) > _SHOWN else ""
        return f"<p>{escape(self.summary())}</p>{frame_html(self.table.head(_SHOWN))}{more}"

    def plot(self, ax: Axes | None = None) -> Axes:
        """A histogram of the rows' scores, with the mean and its interval. Draws into ``ax``, or a new figure; returns
        the Axes. Raises ConfigurationError without matplotlib."""
        scores = [value for values in self._scores_by_row().values() for value in values]
        mean = self.score
        group = scores, (mean.mean, mean.low, mean.high)
        unit = "rollouts" if self.repeats > 1 else "rows"
        axes: Axes = plots().histogram({"": group}, self.metrics[0], unit, ax)
        return axes

    def save(self, path: str | Path) -> Path:
        """Write the table: ``.csv``, ``.jsonl``, ``.json`` or ``.parquet``. Raises InputError for another ending."""
        from dspynb.evaluation.data_io.saving import save_table

        return save_table(self.table, Path(path))


def _cost(usage: Usage) -> str:
    """Calls, tokens and USD, as far as there are any."""
    parts = [f"{usage.calls:,} calls"]
    if tokens := tokens_text(usage.tokens):
        parts.append(tokens)
    if usage.usd:
        parts.append(f"${usage.usd:.4f}")
    return ", ".join(parts)


def _variance(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return None
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / (len(values) - 1)
