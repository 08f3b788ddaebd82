"""Folded runs as pandas tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any, get_type_hints

from dspynb.events import AttemptEnded, AttemptStarted, Event, RolloutEnded, plain
from dspynb.redact import redact_known, redact_values
from dspynb.running.record import RunRecord
from dspynb.running.record_rows import DERIVED_COLUMNS, AttemptRow

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["attempts_frame", "calls_frame", "encodable", "mapped", "rollouts_frame", "rollouts_of", "with_costs"]


def _marked(kind: type[Event]) -> tuple[str, ...]:
    """The fields of an event that are columns of ``run.attempts``."""
    return tuple(field.name for field in fields(kind) if field.metadata.get("column"))


_BEFORE = _marked(AttemptStarted)
_OF_HINTS = ("hint_by", "hint_error")
_AFTER = (*_marked(AttemptEnded), *DERIVED_COLUMNS)


_FLOATS: dict[Any, Any] = {float: float, float | None: float}
_AT_START: dict[Any, Any] = {**_FLOATS, int: int, bool: bool}
# An attempt that is still running has no value of AttemptEnded: its cell is <NA>, which int and bool cannot hold.
_AT_END: dict[Any, Any] = {**_FLOATS, int: "Int64", int | None: "Int64", bool: "boolean", bool | None: "boolean"}


@cache
def _kinds() -> dict[str, Any]:
    """Types of the columns of ``run.attempts`` that are no objects: by the types of the events' fields."""
    kinds: dict[str, Any] = {"cached": bool, "best": bool}
    for event, kind_of in ((AttemptStarted, _AT_START), (AttemptEnded, _AT_END)):
        kinds |= _column_kinds(event, kind_of)
    return kinds


def _column_kinds(event: type[Event], kind_of: Mapping[Any, Any]) -> dict[str, Any]:
    """The types of an event's columns that are no objects."""
    hints = get_type_hints(event)
    return {name: kind_of[hints[name]] for name in _marked(event) if hints[name] in kind_of}


def attempts_frame(attempts: Iterable[AttemptRow], outputs: Iterable[str] = ()) -> pd.DataFrame:
    """One row an attempt: attempt, wave, hint, one column per output, score, feedback, error, seconds, tokens, usd,
    cached, best. An output named like one of these columns gets the prefix ``predicted_``. Where a hint was suggested
    while the run ran, ``hint_by`` after it says so: ``person``, else empty. Where an advisor failed, ``hint_error``
    after it has the error for the attempts that had to do without its hint."""
    import pandas as pd

    rows = list(attempts)
    hints = [name for name in _OF_HINTS if any(getattr(row, name) for row in rows)]
    names = list(dict.fromkeys([*outputs, *(name for row in rows for name in row.outputs or ())]))
    taken = (*_BEFORE, *_OF_HINTS, *_AFTER)
    cells: dict[str, list[Any]] = {name: [row.cell(name) for row in rows] for name in (*_BEFORE, *hints)}
    for name in names:
        column = f"predicted_{name}" if name in taken else encodable(name)
        cells[column] = [(row.outputs or {}).get(name) for row in rows]
    cells |= {name: [row.cell(name) for row in rows] for name in _AFTER}
    frame = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in cells.items()})
    frame = frame.astype({name: kind for name, kind in _kinds().items() if name in cells})
    return with_costs(frame)


def with_costs(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with its costs as numbers: ``tokens`` whole, of pandas' own type with ``<NA>`` where some are unknown;
    ``usd`` with NaN."""
    unknown = frame["tokens"].isna().any()
    return frame.astype({"tokens": "Int64" if unknown else "int64", "usd": float})


def calls_frame(record: RunRecord) -> pd.DataFrame:
    """One row a model call: predictor, attempt, hint, messages, reply, error, seconds, tokens, usd, cached, model."""
    import pandas as pd

    attempt_of = {id(call): row.attempt for row in record.attempts.values() for call in row.calls}
    calls = record.calls
    cells: dict[str, list[Any]] = {
        "predictor": [call.predictor for call in calls],
        "attempt": [attempt_of.get(id(call)) for call in calls],
        "hint": [call.hint for call in calls],
        "messages": [list(call.messages) for call in calls],
        "reply": [call.reply for call in calls],
        "error": [call.error for call in calls],
        "seconds": [call.seconds for call in calls],
        "tokens": [call.usage.tokens for call in calls],
        "usd": [call.usage.usd for call in calls],
        "cached": [call.cached for call in calls],
        "rollout": [call.rollout for call in calls],
        "repair": [call.repair for call in calls],
        "model": [call.model for call in calls],
    }
    # Texts are objects: pandas' own type for texts refuses halves of surrogate pairs, which models may write.
    kinds = {name: object if name in _TEXTS_OF_CALLS else None for name in cells}
    return with_costs(pd.DataFrame({name: pd.Series(cells[name], dtype=kinds[name]) for name in cells}))


_TEXTS_OF_CALLS = frozenset({"predictor", "hint", "messages", "reply", "error", "model"})


def encodable(text: str) -> str:
    """The text with halves of surrogate pairs, which UTF-8 and the index of a table cannot hold, as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


_ROLLOUT = ("row", "repeat", "score", "feedback", "error", "attempts", "tokens", "usd", "seconds", "cached")


def rollouts_of(record: RunRecord) -> pd.DataFrame:
    """The rollouts of a run's evaluations, by row: see ``rollouts_frame``. Of one that was run again, the last counts.
    Where programs were compared, ``program`` names them; of an optimizer, ``candidate`` and ``split``."""
    latest = {(r.parent, r.split or "", r.repeat, r.row): r for r in record.rollouts}
    rollouts = [latest[key] for key in sorted(latest)]
    spans = [record.spans.get(rollout.span) for rollout in rollouts]
    above = [record.spans.get(rollout.parent) for rollout in rollouts]
    names = [span.name if span is not None and span.kind == "evaluation" else None for span in above]
    before: dict[str, list[Any]] = {"program": names} if any(names) else {}
    if any(r.candidate is not None for r in rollouts):
        before |= {"candidate": [r.candidate for r in rollouts], "split": [r.split for r in rollouts]}
    return rollouts_frame(rollouts, [span.inputs if span else {} for span in spans], before=before)


def rollouts_frame(
    rollouts: Sequence[RolloutEnded],
    given: Sequence[Mapping[str, Any]],
    *,
    others: Iterable[str] | None = None,
    before: Mapping[str, list[Any]] | None = None,
) -> pd.DataFrame:
    """One row a rollout: ``before``, row, repeat, what was ``given``, outputs, parts of the score, ``others`` (the
    metrics after the first), score (NaN where it failed), feedback, error, attempts, tokens, usd, seconds, cached.

    A label and an output of one name are ``expected_…`` and ``predicted_…``; so are names of the columns above. Parts
    and metrics that clash are ``part_…`` and ``metric_…``. Cells hold what a run file holds, without secrets.
    """
    import pandas as pd

    metrics = _keys(list(r.metrics)[1:] for r in rollouts) if others is None else list(others)
    inputs, outputs = _keys(given), _keys(r.outputs or {} for r in rollouts)
    cells: dict[str, list[Any]] = {name: [getattr(r, name) for r in rollouts] for name in _ROLLOUT[:2]}
    cells = {**(before or {}), **cells}
    own = {*cells, *_ROLLOUT}
    taken = set(own)
    for prefix, names, clashing, values in (
        ("expected_", inputs, {*own, *outputs}, given),
        ("predicted_", outputs, {*own, *inputs}, [r.outputs or {} for r in rollouts]),
        ("part_", _keys(r.parts for r in rollouts), set[str](), [r.parts for r in rollouts]),
        ("metric_", metrics, set[str](), [r.metrics for r in rollouts]),
    ):
        for name, column in _columns(names, prefix, clashing, taken).items():
            cells[column] = [redact_values(plain(row.get(name))) for row in values]
    cells |= {"score": [None if r.error is not None else r.score for r in rollouts]}
    cells |= {"feedback": [redact_values(r.feedback) for r in rollouts]}
    cells |= {name: [getattr(r, name) for r in rollouts] for name in ("error", "attempts")}
    cells |= {"tokens": [r.usage.tokens for r in rollouts], "usd": [r.usage.usd for r in rollouts]}
    cells |= {"seconds": [r.seconds for r in rollouts], "cached": [r.cached for r in rollouts]}
    frame = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in cells.items()})
    numbers = {"row": int, "repeat": int, "score": float, "attempts": int}
    return with_costs(frame.astype({**numbers, "seconds": float, "cached": bool}))


def mapped(frame: pd.DataFrame, change: Callable[[Any], Any]) -> pd.DataFrame:
    """The frame with every cell changed, as objects: pandas' ``map`` makes texts a type that not every text fits."""
    import pandas as pd

    cells = {name: pd.Series([change(v) for v in frame[name]], frame.index, dtype=object) for name in frame.columns}
    return pd.DataFrame(cells, index=frame.index)


def _keys(rows: Iterable[Iterable[str]]) -> list[str]:
    """All names in the rows, in the order in which they first come."""
    return list(dict.fromkeys(name for row in rows for name in row))


def _columns(names: Sequence[str], prefix: str, clashing: Set[str], taken: set[str]) -> dict[str, str]:
    """A column for each name, added to those ``taken``: itself, with the prefix where it clashes or is taken."""
    found: dict[str, str] = {}
    for name in sorted(names, key=clashing.__contains__):
        column = encodable(redact_known(f"{prefix}{name}" if name in clashing else name))
        while column in taken:
            column = f"{prefix}{column}"
        taken.add(column)
        found[name] = column
    return {name: found[name] for name in names}
