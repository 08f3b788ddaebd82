"""The columns of ``run.attempts``: their types while an attempt is running, and that none is hidden."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field

import pandas as pd

from dspynb.events import COLUMN, AttemptEnded, AttemptStarted
from dspynb.running.record import RunRecord
from dspynb.running.record_rows import DERIVED_COLUMNS, AttemptRow
from dspynb.running.tables import frames

FOLLOWED = {"attempt", "wave", "hint", "score", "feedback", "error", "seconds"}
"""Columns that an AttemptRow holds under the same name, with the event's own value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LongerEnd(AttemptEnded):
    repairs: int = field(default=0, metadata=COLUMN)
    refused: bool = field(default=False, metadata=COLUMN)


def test_a_number_or_truth_of_the_end_has_no_value_while_its_attempt_is_running(monkeypatch):
    monkeypatch.setattr(frames, "AttemptEnded", LongerEnd)
    monkeypatch.setattr(frames, "_AFTER", ("repairs", "refused", *frames._AFTER))
    monkeypatch.setattr(frames, "_kinds", frames._kinds.__wrapped__)
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
    kinds = {"attempt": int, "wave": int, "score": float, "seconds": float, "cached": bool, "best": bool}
    assert frames._kinds() == kinds


def test_no_column_is_hidden_by_another_attribute_of_the_row():
    """``AttemptRow.cell`` looks at the row before the events."""
    own = {name for name, _ in inspect.getmembers(AttemptRow) if not name.startswith("_")}
    marked = {*frames._marked(AttemptStarted), *frames._marked(AttemptEnded)}
    assert marked & own <= FOLLOWED
    assert not marked & set(DERIVED_COLUMNS)
