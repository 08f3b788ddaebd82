"""Scoring of predictions that are in a table."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dspynb.data import Example, Prediction, Score, as_score, rows_of
from dspynb.errors import ConfigurationError, Halted, InputError, nearest
from dspynb.keywords import configurable
from dspynb.modules.ordered_pool import pool_width
from dspynb.modules.scorer import Scorer
from dspynb.options import Concurrency
from dspynb.redact import error_text
from dspynb.running.aio.sync import run_sync
from dspynb.running.aio.tasks import end_tasks
from dspynb.running.user_code import as_exception, guarded
from dspynb.scope.hints import mask

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["score_table"]

_OUTPUT_PREFIX = "predicted_"
_LABEL_PREFIX = "expected_"
_RESULT_COLUMNS = ("score", "feedback", "error")

ScorerCall = tuple[tuple[Any, ...], dict[str, Any]]
"""The positional and keyword arguments of one call of a metric."""


@configurable()
def score_table(
    metric: Callable[..., Any],
    table: pd.DataFrame | Sequence[Mapping[str, Any]],
    *,
    outputs: Sequence[str] | None = None,
    inputs: Sequence[str] | None = None,
    columns: Mapping[str, str] | None = None,
    concurrency: Concurrency = None,
) -> pd.DataFrame:
    """Score the predictions in a table. Returns a DataFrame with the index of the table.

    Its columns are ``score``, ``feedback``, ``error`` and one for each part of the score. A row whose metric raises, or
    returns no score, has NaN as score and the error as text.

    ``metric``: a function ``(row, prediction) -> float | bool | Score``, or with ``columns`` any function that returns
    such a score. ``outputs``: the columns of the prediction. By default they are those that begin with ``predicted_``;
    if there are none, all columns. The other columns are the row. The prefixes ``predicted_`` and ``expected_`` are
    removed. ``inputs``: the columns of the row that are inputs, so that they are not taken for labels. ``columns``:
    passes values instead of row and prediction; maps each parameter of the function to a column, as in
    ``score_table(dn.feedback.string_similarity, df, columns={"predicted": "answer", "expected": "gold"})``.
    ``concurrency``: rows at a time for an async metric, such as a judge; by default ``dn.configure(concurrency=…)``.

    Raises InputError for columns that are missing or duplicated, and ConfigurationError for a metric that does not fit
    the table.

    >>> import pandas as pd
    >>> table = pd.DataFrame({"expected_answer": ["4", "5"], "predicted_answer": ["4", "6"]})
    >>> dn.score_table(dn.metrics.exact_match(), table)
       score                      feedback error
    0    1.0                      Correct.  None
    1    0.0  answer is '6'; expected '5'.  None
    """
    scorer = Scorer(metric, "metric")
    is_frame = hasattr(table, "columns")
    if is_frame:
        names = _frame_columns(table)
        rows = rows_of(table)
    else:
        rows = rows_of(table)
        names = _names_in(rows)
    if columns is None:
        calls = _calls_with_predictions(scorer, rows, names, outputs, inputs)
    elif outputs is None and inputs is None:
        _check_columns("columns", columns.values(), names)
        calls = _calls_with_values(rows, columns)
    else:
        raise ConfigurationError("score_table: columns= gives the function its values; leave outputs= and inputs= out")
    results = _results(scorer, calls, concurrency)
    return _results_frame(results, table.index if is_frame else None)


def _frame_columns(frame: Any) -> list[str]:
    names = [str(name) for name in frame.columns]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"score_table: the table has {names.count(name)} columns {name!r}; rename one")
    return names


def _names_in(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    """The keys of all mappings, without duplicates, in the order in which they first appear."""
    names: dict[str, None] = {}
    for mapping in mappings:
        names.update(dict.fromkeys(mapping))
    return list(names)


def _check_columns(parameter: str, columns: Iterable[str], names: Sequence[str]) -> None:
    """Raise InputError if one of the columns, which a parameter of score_table names, is not in the table."""
    for column in columns:
        if column not in names:
            known = ", ".join(names) or "none"
            raise InputError(
                f"score_table: {parameter} names {column!r}.{nearest(str(column), names)} There are: {known}"
            )


def _calls_with_values(rows: list[Example], columns: Mapping[str, str]) -> list[ScorerCall]:
    """For each row, the call of the function with values. ``columns``: the column for each parameter."""
    calls: list[ScorerCall] = []
    for row in rows:
        arguments = {parameter: row.get(column) for parameter, column in columns.items()}
        calls.append(((), arguments))
    return calls


def _calls_with_predictions(
    scorer: Scorer,
    rows: list[Example],
    names: list[str],
    outputs: Sequence[str] | None,
    inputs: Sequence[str] | None,
) -> list[ScorerCall]:
    """For each row, the call ``metric(row, prediction)``; of ``trace`` and ``predictor``, those that the metric has."""
    empty_extras = {"trace": (), "predictor": None}
    extras = {name: empty_extras[name] for name in scorer.extras}
    return [(pair, extras) for pair in _pairs(rows, names, outputs, inputs)]


def _pairs(
    rows: list[Example], names: list[str], outputs: Sequence[str] | None, inputs: Sequence[str] | None
) -> Iterator[tuple[Example, Prediction]]:
    """For each row of the table, the row and the prediction to pass to the metric."""
    output_columns = _output_columns(names, outputs)
    reserved: set[str] = set()
    if outputs is not None or any(name.startswith(_OUTPUT_PREFIX) for name in names):
        reserved = set(output_columns.values())
    row_columns = {name.removeprefix(_LABEL_PREFIX): name for name in names if name not in reserved}
    _check_columns("inputs", inputs or (), list(row_columns))
    for row in rows:
        prediction = Prediction({name: row[column] for name, column in output_columns.items() if column in row})
        example = Example({name: row[column] for name, column in row_columns.items() if column in row})
        if inputs is not None:
            example = example.with_inputs(*(name for name in inputs if name in example))
        yield example, prediction


def _output_columns(names: list[str], outputs: Sequence[str] | None) -> dict[str, str]:
    """The column of each output, by the name of the output."""
    if isinstance(outputs, str):
        raise ConfigurationError(f"score_table: outputs must be a list of columns, got the text {outputs!r}")
    if outputs is None:
        marked = {name.removeprefix(_OUTPUT_PREFIX): name for name in names if name.startswith(_OUTPUT_PREFIX)}
        return marked or {name: name for name in names}
    columns = {}
    for name in outputs:
        prefixed = f"{_OUTPUT_PREFIX}{name}"
        columns[name] = prefixed if prefixed in names else name
    _check_columns("outputs", columns.values(), names)
    return columns


def _results(scorer: Scorer, calls: list[ScorerCall], concurrency: int | None) -> list[Score | Exception]:
    """The Score of each call, or the error in its place."""
    values: list[Any] = []
    try:
        with mask("judge"):
            values.extend(_call(scorer, args, kwargs) for args, kwargs in calls)
        if any(map(inspect.isawaitable, values)):
            return run_sync(lambda: _await_all(scorer, values, concurrency))
        return [_as_result(value) for value in values]
    finally:
        for value in values:
            if inspect.iscoroutine(value):
                value.close()  # without effect on one that was awaited


def _call(scorer: Scorer, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    try:
        return scorer.fn(*args, **kwargs)
    except (Halted, ConfigurationError):
        raise
    except BaseException as error:
        return _as_row_error(scorer, error)


def _as_row_error(scorer: Scorer, error: BaseException) -> Exception:
    """The error to record for a row. Raises the error itself if it is an interrupt or a cancellation."""
    row_error = as_exception(error, f"the {scorer.what} {scorer.name}")
    if isinstance(row_error, Exception):
        return row_error
    raise error


def _as_result(value: object) -> Score | Exception:
    """What a metric returned as a Score; the error where that is impossible."""
    if isinstance(value, Exception):
        return value
    try:
        return as_score(value)
    except Exception as error:
        return error


async def _await_all(scorer: Scorer, values: list[Any], concurrency: int | None) -> list[Score | Exception]:
    slots = asyncio.Semaphore(pool_width(concurrency))

    async def result_of(value: object) -> Score | Exception:
        if not inspect.isawaitable(value):
            return _as_result(value)
        async with slots:
            try:
                with mask("judge"):
                    return _as_result(await value)
            except (Halted, ConfigurationError):
                raise
            except BaseException as error:
                return _as_row_error(scorer, error)

    tasks = [asyncio.create_task(guarded(f"the {scorer.what} {scorer.name}", result_of, value)) for value in values]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        await end_tasks(tasks)


def _results_frame(results: list[Score | Exception], index: Any) -> pd.DataFrame:
    """The table that ``score_table`` returns."""
    import pandas as pd

    values: list[float] = []
    feedbacks: list[str | None] = []
    errors: list[str | None] = []
    parts: list[Mapping[str, float]] = []
    for result in results:
        if isinstance(result, Score):
            values.append(result.value)
            feedbacks.append(result.feedback)
            errors.append(None)
            parts.append(result.parts)
        else:
            values.append(math.nan)
            feedbacks.append(None)
            errors.append(error_text(result))
            parts.append({})
    columns: dict[str, Any] = {
        "score": pd.Series(values, dtype=float),
        # dtype object, since None would become NaN in a column of text
        "feedback": pd.Series(feedbacks, dtype=object),
        "error": pd.Series(errors, dtype=object),
    }
    for part in _names_in(parts):
        name = f"part_{part}" if part in _RESULT_COLUMNS else part
        columns[name] = [row_parts.get(part, math.nan) for row_parts in parts]
    frame = pd.DataFrame(columns)
    return frame if index is None else frame.set_axis(index)
