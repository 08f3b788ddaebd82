"""Metrics and feedback helpers over a table."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
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

_OUTPUT, _LABEL = "predicted_", "expected_"
_OWN = ("score", "feedback", "error")


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
    """Score predictions that stand in a table. Gives a DataFrame with its index: ``score``, ``feedback``, ``error`` and
    one column a part.

    A metric ``(row, prediction)`` gets the columns ``outputs`` as the prediction: by default those that begin with
    ``predicted_``, without that beginning, and where there are none, every column. All other columns are the row,
    those that begin with ``expected_`` without it; ``inputs`` marks which of them are no labels.
    With ``columns`` (parameter → column) the function gets values instead:
    ``score_table(dn.feedback.string_similarity, df, columns={"predicted": "answer", "expected": "gold"})``.

    A row whose metric raises, or gives no score, has NaN and its error. An async metric (a judge) is awaited here, at
    most ``concurrency`` rows at a time (default: the setting). Raises InputError for columns that are not there or are
    double, and ConfigurationError for a metric that does not fit the table.

    >>> import pandas as pd
    >>> table = pd.DataFrame({"expected_answer": ["4", "5"], "predicted_answer": ["4", "6"]})
    >>> dn.score_table(dn.metrics.exact_match(), table)
       score                      feedback error
    0    1.0                      Correct.  None
    1    0.0  answer is '6'; expected '5'.  None
    """
    scorer = Scorer(metric, "metric")
    rows, names = _rows(table)
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]]
    if columns is not None:
        if outputs is not None or inputs is not None:
            raise ConfigurationError(
                "score_table: columns= gives the function its values; leave outputs= and inputs= out"
            )
        _check_columns("columns", columns.values(), names)
        calls = [((), {p: row.get(c) for p, c in columns.items()}) for row in rows]
    else:
        extras: dict[str, Any] = {name: () if name == "trace" else None for name in scorer.extras}
        calls = [(pair, extras) for pair in _pairs(rows, names, outputs, inputs)]
    return _frame(_outcomes(scorer, calls, concurrency), table.index if hasattr(table, "columns") else None)


def _rows(table: Any) -> tuple[list[Example], list[str]]:
    if hasattr(table, "columns"):
        names = list(map(str, table.columns))
        double = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        if double:
            raise InputError(
                f"score_table: the column {double[0]!r} is there {names.count(double[0])} times; rename one"
            )
        return rows_of(table), names
    rows = rows_of(table)
    return rows, list(dict.fromkeys(name for row in rows for name in row))


def _check_columns(what: str, wanted: Any, names: Sequence[str]) -> None:
    for name in wanted:
        if name not in names:
            known = ", ".join(names) or "none"
            raise InputError(f"score_table: {what} names {name!r}.{nearest(str(name), names)} There are: {known}")


def _pairs(
    rows: list[Example], names: list[str], outputs: Sequence[str] | None, inputs: Sequence[str] | None
) -> Iterator[tuple[Example, Prediction]]:
    """Each row as the metric's ``row`` and ``prediction``."""
    told = outputs is not None or any(n.startswith(_OUTPUT) for n in names)
    source = _output_columns(names, outputs)
    taken = set(source.values()) if told else set()
    label = {(n.removeprefix(_LABEL) if n.startswith(_LABEL) else n): n for n in names if n not in taken}
    _check_columns("inputs", inputs or (), list(label))
    for row in rows:
        prediction = Prediction({name: row[c] for name, c in source.items() if c in row})
        example = Example({name: row[c] for name, c in label.items() if c in row})
        if inputs is not None:
            example = example.with_inputs(*(n for n in inputs if n in example))
        yield example, prediction


def _output_columns(names: list[str], outputs: Sequence[str] | None) -> dict[str, str]:
    """Output name → column."""
    if isinstance(outputs, str):
        raise ConfigurationError(f"score_table: outputs must be a list of columns, got the text {outputs!r}")
    if outputs is None:
        found = {n.removeprefix(_OUTPUT): n for n in names if n.startswith(_OUTPUT)}
        return found or {n: n for n in names}
    found = {n: _OUTPUT + n if _OUTPUT + n in names else n for n in outputs}
    _check_columns("outputs", found.values(), names)
    return found


def _outcomes(scorer: Scorer, calls: list[Any], concurrency: int | None) -> list[Score | Exception]:
    """Each row's Score, or the error in its place."""
    values: list[Any] = []
    try:
        with mask():
            values.extend(_called(scorer, args, named) for args, named in calls)
        if any(map(inspect.isawaitable, values)):
            return run_sync(lambda: _awaited(scorer, values, concurrency))
        return [_read(value) for value in values]
    finally:
        for value in values:
            if inspect.iscoroutine(value):
                value.close()  # those that were never begun


def _called(scorer: Scorer, args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    try:
        return scorer.fn(*args, **named)
    except (Halted, ConfigurationError):
        raise
    except BaseException as error:
        return _error(scorer, error)


def _error(scorer: Scorer, error: BaseException) -> Exception:
    """What a row has in place of a score. Raises what must pass: Ctrl-C, a cancellation."""
    exited = as_exception(error, f"the {scorer.what} {scorer.name}")
    if isinstance(exited, Exception):
        return exited
    raise error


def _read(value: Any) -> Score | Exception:
    if isinstance(value, Exception):
        return value
    try:
        return as_score(value)
    except Exception as error:
        return error


async def _awaited(scorer: Scorer, values: list[Any], concurrency: int | None) -> list[Score | Exception]:
    slots = asyncio.Semaphore(pool_width(concurrency))

    async def one(value: Any) -> Score | Exception:
        if not inspect.isawaitable(value):
            return _read(value)
        async with slots:
            try:
                with mask():
                    return _read(await value)
            except (Halted, ConfigurationError):
                raise
            except BaseException as error:
                return _error(scorer, error)

    tasks = [asyncio.create_task(guarded(f"the {scorer.what} {scorer.name}", one, value)) for value in values]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        await end_tasks(tasks)


def _frame(outcomes: list[Score | Exception], index: Any) -> pd.DataFrame:
    import pandas as pd

    scores = [one if isinstance(one, Score) else None for one in outcomes]
    texts = {
        "feedback": [None if s is None else s.feedback for s in scores],
        "error": [error_text(one) if isinstance(one, Exception) else None for one in outcomes],
    }
    table: dict[str, Any] = {"score": pd.Series([math.nan if s is None else s.value for s in scores], dtype=float)}
    # as objects: in a column of texts, None would become NaN
    table |= {name: pd.Series(values, dtype=object) for name, values in texts.items()}
    for part in dict.fromkeys(part for s in scores if s is not None for part in s.parts):
        name = f"part_{part}" if part in _OWN else part
        table[name] = [math.nan if s is None else s.parts.get(part, math.nan) for s in scores]
    frame = pd.DataFrame(table)
    return frame if index is None else frame.set_axis(index)
