"""The record of a run as pandas tables: attempts, calls and rollouts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any, get_type_hints

from dspynb.events import AttemptEnded, AttemptStarted, Event, PredictorCalled, RolloutEnded, plain
from dspynb.redact import redact_known, redact_values
from dspynb.running.record import RunRecord
from dspynb.running.record_rows import DERIVED_COLUMNS, AttemptRow
from dspynb.running.tables.estimates import estimate_of, estimates_in, with_estimates
from dspynb.scope.budget import estimated_tokens

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["attempts_frame", "calls_frame", "encodable", "mapped", "rollouts_frame", "rollouts_of", "with_costs"]


def _columns_of(event: type[Event]) -> tuple[str, ...]:
    """The fields of an event that are columns of ``run.attempts``."""
    return tuple(field.name for field in fields(event) if field.metadata.get("column"))


_START_COLUMNS = _columns_of(AttemptStarted)
_HINT_COLUMNS = ("hint_by", "hint_error")  # only where an attempt has a value for it
_END_COLUMNS = (*_columns_of(AttemptEnded), *DERIVED_COLUMNS)


_FLOATS: dict[Any, Any] = {float: float, float | None: float}
_START_DTYPES: dict[Any, Any] = {**_FLOATS, int: int, bool: bool}
# An attempt that is still running has no value of AttemptEnded: its cell is <NA>, which int and bool cannot hold.
_END_DTYPES: dict[Any, Any] = {**_FLOATS, int: "Int64", int | None: "Int64", bool: "boolean", bool | None: "boolean"}


@cache
def _attempt_dtypes() -> dict[str, Any]:
    """Column of ``run.attempts`` → its dtype, derived from the type of the event's field. Columns of dtype object are
    left out."""
    dtypes: dict[str, Any] = {"cached": bool, "best": bool}
    dtypes |= _event_dtypes(AttemptStarted, _START_DTYPES)
    dtypes |= _event_dtypes(AttemptEnded, _END_DTYPES)
    return dtypes


def _event_dtypes(event: type[Event], dtype_of: Mapping[Any, Any]) -> dict[str, Any]:
    annotations = get_type_hints(event)
    return {name: dtype_of[annotations[name]] for name in _columns_of(event) if annotations[name] in dtype_of}


def attempts_frame(attempts: Iterable[AttemptRow], outputs: Iterable[str] = ()) -> pd.DataFrame:
    """One row per attempt. Columns: attempt, wave, hint, one per output, score, feedback, error, seconds, waited,
    tokens, usd, cached, best; and estimated, how many of the tokens are, if any.

    ``wave``: the number of the group of attempts that ran at the same time. Two columns follow ``hint`` if any attempt
    has a value for them. ``hint_by``: ``person`` if somebody suggested the hint during the run, else empty.
    ``hint_error``: why the attempt has no hint, if the advisor that should have written one failed. An output with the
    name of one of these columns gets the prefix ``predicted_``.
    """
    rows = list(attempts)
    hint_columns = [name for name in _HINT_COLUMNS if any(getattr(row, name) for row in rows)]
    reserved = (*_START_COLUMNS, *_HINT_COLUMNS, *_END_COLUMNS)
    cells: dict[str, list[Any]] = {}
    for name in (*_START_COLUMNS, *hint_columns):
        cells[name] = [row.cell(name) for row in rows]
    for name in _names_in([outputs, *(row.outputs or {} for row in rows)]):
        column = f"predicted_{name}" if name in reserved else encodable(name)
        cells[column] = [(row.outputs or {}).get(name) for row in rows]
    for name in _END_COLUMNS:
        cells[name] = [row.cell(name) for row in rows]
    dtypes = {name: dtype for name, dtype in _attempt_dtypes().items() if name in cells}
    frame = with_costs(_object_frame(cells).astype(dtypes))
    return with_estimates(frame, [estimate_of(row.calls) for row in rows])


def _object_frame(cells: Mapping[str, Sequence[Any]], index: pd.Index | None = None) -> pd.DataFrame:
    """A frame whose columns all have dtype object: pandas' own type for texts does not accept every text."""
    import pandas as pd

    return pd.DataFrame({name: pd.Series(values, index, dtype=object) for name, values in cells.items()}, index=index)


def with_costs(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with numeric costs: ``tokens`` as whole numbers, with ``<NA>`` where some are unknown; ``usd`` as
    floats, with NaN."""
    unknown = frame["tokens"].isna().any()
    return frame.astype({"tokens": "Int64" if unknown else "int64", "usd": float})


def calls_frame(record: RunRecord) -> pd.DataFrame:
    """One row per model call. ``run.calls`` has a description of the columns."""
    import pandas as pd

    attempt_of = {}
    for row in record.attempts.values():
        for call in row.calls:
            attempt_of[id(call)] = row.attempt
    calls = record.calls
    # pandas shows the first and last ten columns of a wide table, so that the costs are among the first ten.
    cells: dict[str, list[Any]] = {
        "predictor": [call.predictor for call in calls],
        "attempt": [attempt_of.get(id(call)) for call in calls],
        "hint": [call.hint for call in calls],
        "messages": [list(call.messages) for call in calls],
        "reply": [call.reply for call in calls],
        "error": [call.error for call in calls],
        "seconds": [call.seconds for call in calls],
        "waited": [call.waited for call in calls],
        "tokens": [call.usage.tokens for call in calls],
        "usd": [call.usage.usd for call in calls],
        "cached": [call.cached for call in calls],
        "truncated": [call.truncated for call in calls],
        "finish": [call.finish for call in calls],
        "reasoning": [call.reasoning for call in calls],
        "reasoning_tokens": [call.usage.reasoning_tokens for call in calls],
        "tool_calls": [list(call.tool_calls) for call in calls],
        "first_token": [call.first_token for call in calls],
        "rollout": [call.rollout for call in calls],
        "repair": [call.repair for call in calls],
        "role": [call.role or None for call in calls],
        "model": [call.model for call in calls],
        "requested": [dict(call.requested) for call in calls],
        "sent": [dict(_sent(call)) for call in calls],
        "tools": [list(call.tools) for call in calls],
        "response_format": [call.response_format for call in calls],
        "estimated": [call.estimated or estimated_tokens(call) for call in calls],
        "price_source": [call.price_source for call in calls],
        "request_id": [call.request_id for call in calls],
    }
    columns = {}
    for name, values in cells.items():
        # pandas' own type for texts refuses halves of surrogate pairs, which models may write.
        columns[name] = pd.Series(values, dtype=object if name in _TEXTS_OF_CALLS else None)
    return with_costs(pd.DataFrame(columns))


_TEXTS_OF_CALLS = frozenset(
    {
        "predictor",
        "hint",
        "messages",
        "reasoning",
        "reply",
        "tool_calls",
        "finish",
        "error",
        "model",
        "requested",
        "sent",
    }
    | {"tools", "response_format", "request_id", "role", "price_source"}
)


def _sent(call: PredictorCalled) -> Mapping[str, Any]:
    """The settings of a call as they were sent: as requested, unless the model does not take them so."""
    return call.requested if call.sent is None else call.sent


def encodable(text: str) -> str:
    """The text with halves of surrogate pairs, which UTF-8 and the index of a table cannot hold, as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


_ROLLOUT_COLUMNS = (
    *("row", "repeat", "score", "feedback", "error"),
    *("attempts", "tokens", "usd", "seconds", "waited", "cached"),
)


def rollouts_of(record: RunRecord) -> pd.DataFrame:
    """The rollouts of a run's evaluations, by row: see ``rollouts_frame``. Of a rollout that was run again, the last
    one counts. Where programs were compared, the column ``program`` names them; the run of an optimizer has
    ``candidate`` and ``split`` instead."""
    latest = {}
    for rollout in record.rollouts:
        latest[rollout.parent, rollout.split or "", rollout.repeat, rollout.row] = rollout
    rollouts = [latest[key] for key in sorted(latest)]
    inputs: list[Mapping[str, Any]] = []
    programs: list[str | None] = []
    for rollout in rollouts:
        span = record.spans.get(rollout.span)
        inputs.append(span.inputs if span else {})
        parent = record.spans.get(rollout.parent)
        programs.append(parent.name if parent is not None and parent.kind == "evaluation" else None)
    first_columns: dict[str, list[Any]] = {}
    if any(programs):
        first_columns["program"] = programs
    if any(rollout.candidate is not None for rollout in rollouts):
        names = record.candidate_names
        first_columns["candidate"] = [names.get(rollout.candidate or "", rollout.candidate) for rollout in rollouts]
        first_columns["split"] = [rollout.split for rollout in rollouts]
    frame = rollouts_frame(rollouts, inputs, first_columns=first_columns)
    return with_estimates(frame, estimates_in(record, [rollout.span for rollout in rollouts]))


def rollouts_frame(
    rollouts: Sequence[RolloutEnded],
    inputs: Sequence[Mapping[str, Any]],
    *,
    other_metrics: Sequence[str] | None = None,
    first_columns: Mapping[str, list[Any]] | None = None,
) -> pd.DataFrame:
    """One row per rollout: ``first_columns``, row, repeat, inputs and labels, outputs, parts of the score, the metrics
    after the first, score (NaN where the rollout failed), feedback, error, attempts, tokens, usd, seconds, waited,
    cached.

    ``inputs``: the inputs and labels of each rollout. ``other_metrics``: the names of the metrics after the first
    (default: as the rollouts have them). A label and an output of the same name become ``expected_…`` and
    ``predicted_…``; so do those named like another column. Parts and metrics that clash become ``part_…`` and
    ``metric_…``. Cells hold what a run file holds, without secrets.
    """
    outputs = [rollout.outputs or {} for rollout in rollouts]
    parts = [rollout.parts for rollout in rollouts]
    metrics = [rollout.metrics for rollout in rollouts]
    input_names = _names_in(inputs)
    output_names = _names_in(outputs)
    if other_metrics is None:
        other_metrics = _names_in(list(scores)[1:] for scores in metrics)

    cells: dict[str, list[Any]] = dict(first_columns or {})
    cells["row"] = [rollout.row for rollout in rollouts]
    cells["repeat"] = [rollout.repeat for rollout in rollouts]
    reserved = {*cells, *_ROLLOUT_COLUMNS}
    taken = set(reserved)
    groups: tuple[tuple[str, Sequence[str], set[str], Sequence[Mapping[str, Any]]], ...] = (
        ("expected_", input_names, {*reserved, *output_names}, inputs),
        ("predicted_", output_names, {*reserved, *input_names}, outputs),
        ("part_", _names_in(parts), set(), parts),
        ("metric_", other_metrics, set(), metrics),
    )
    for prefix, names, clashing, rows in groups:
        for name, column in _column_names(names, prefix, clashing, taken).items():
            cells[column] = [redact_values(plain(row.get(name))) for row in rows]
    cells["score"] = [None if rollout.error is not None else rollout.score for rollout in rollouts]
    cells["feedback"] = [redact_values(rollout.feedback) for rollout in rollouts]
    cells["error"] = [rollout.error for rollout in rollouts]
    cells["attempts"] = [rollout.attempts for rollout in rollouts]
    cells["tokens"] = [rollout.usage.tokens for rollout in rollouts]
    cells["usd"] = [rollout.usage.usd for rollout in rollouts]
    cells["seconds"] = [rollout.seconds for rollout in rollouts]
    cells["waited"] = [rollout.waited for rollout in rollouts]
    cells["cached"] = [rollout.cached for rollout in rollouts]
    numbers = {"row": int, "repeat": int, "score": float, "attempts": int}
    return with_costs(_object_frame(cells).astype({**numbers, "seconds": float, "waited": float, "cached": bool}))


def mapped(frame: pd.DataFrame, change: Callable[[Any], Any]) -> pd.DataFrame:
    """The frame with ``change`` applied to every cell, all of dtype object: pandas' ``map`` gives texts a type that
    does not accept every text."""
    cells = {}
    for name in frame.columns:
        cells[name] = [change(value) for value in frame[name]]
    return _object_frame(cells, frame.index)


def _names_in(rows: Iterable[Iterable[str]]) -> list[str]:
    """All names in the rows, each once, in the order in which they first appear."""
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row))
    return list(names)


def _column_names(names: Sequence[str], prefix: str, clashing: Set[str], taken: set[str]) -> dict[str, str]:
    """Name → its column, which is added to ``taken``: the name itself, or with the prefix where the name is among
    ``clashing`` or its column is taken."""
    columns: dict[str, str] = {}
    for name in sorted(names, key=clashing.__contains__):
        column = encodable(redact_known(f"{prefix}{name}" if name in clashing else name))
        while column in taken:
            column = f"{prefix}{column}"
        taken.add(column)
        columns[name] = column
    return {name: columns[name] for name in names}
