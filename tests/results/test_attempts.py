"""The columns of ``run.attempts``: their types while an attempt is running, and that no attribute hides one."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field

import pandas as pd

from dspynb.events import COLUMN, AttemptEnded, AttemptStarted
from dspynb.running.record import RunRecord
from dspynb.running.record_rows import DERIVED_COLUMNS, AttemptRow
from dspynb.running.tables import frames

SAME_VALUE = {"attempt", "wave", "hint", "score", "feedback", "error", "seconds"}
"""Columns for which an AttemptRow has an attribute of the same name, with the value of the event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LongerEnd(AttemptEnded):
    repairs: int = field(default=0, metadata=COLUMN)
    refused: bool = field(default=False, metadata=COLUMN)


def test_int_and_bool_columns_of_the_end_are_na_while_an_attempt_is_running(monkeypatch):
    monkeypatch.setattr(frames, "AttemptEnded", LongerEnd)
    monkeypatch.setattr(frames, "_END_COLUMNS", ("repairs", "refused", *frames._END_COLUMNS))
    monkeypatch.setattr(frames, "_attempt_dtypes", frames._attempt_dtypes.__wrapped__)
    record = RunRecord()
    record.apply(AttemptStarted(span=2, parent=1, attempt=1, wave=1))
    record.apply(AttemptStarted(span=3, parent=1, attempt=2, wave=1))
    record.apply(AttemptEnded(span=2, parent=1, state="passed", score=1.0))
    record.attempts[2].end = LongerEnd(span=2, parent=1, state="passed", repairs=2, refused=True)
    frame = frames.attempts_frame(record.attempts.values())
    assert (frame.repairs.dtype, frame.refused.dtype) == (pd.Int64Dtype(), pd.BooleanDtype())
    assert (frame.repairs[0], frame.refused[0]) == (2, True)
    assert frame.repairs[1] is pd.NA
    assert frame.refused[1] is pd.NA


def test_columns_keep_their_types():
    dtypes = {
        "attempt": int,
        "wave": int,
        "score": float,
        "seconds": float,
        "waited": float,
        "cached": bool,
        "best": bool,
    }
    assert frames._attempt_dtypes() == dtypes


def test_no_column_is_hidden_by_another_attribute_of_the_row():
    """``AttemptRow.cell`` reads the row's attribute before the event's."""
    attributes = {name for name, _ in inspect.getmembers(AttemptRow) if not name.startswith("_")}
    columns = {*frames._columns_of(AttemptStarted), *frames._columns_of(AttemptEnded)}
    assert columns & attributes <= SAME_VALUE
    assert not columns & set(DERIVED_COLUMNS)
