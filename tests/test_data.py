"""Rows, predictions, scores and usage."""

from __future__ import annotations

import math
import pickle

import pandas as pd
import pytest

import dspynb as dn
from dspynb.data import as_score, rows_of
from dspynb.errors import InputError, RewardError


def test_an_example_tells_inputs_from_labels():
    row = dn.Example(question="q", answer="a").with_inputs("question")
    assert (row.inputs(), row.labels(), row.answer) == ({"question": "q"}, {"answer": "a"}, "a")
    assert pickle.loads(pickle.dumps(row)).labels() == {"answer": "a"}
    with pytest.raises(InputError, match="no field 'x'"):
        row.with_inputs("x")


def test_a_prediction_reads_as_attributes_and_keys_and_cannot_be_changed():
    prediction = dn.Prediction(answer=4, score="mine")
    assert (prediction.answer, prediction["answer"], prediction.score) == (4, 4, "mine")
    assert prediction.usage == dn.Usage()
    assert {"answer", "usage", "run"} <= set(dir(prediction))
    with pytest.raises(AttributeError, match="no field 'anser'"):
        _ = prediction.anser
    with pytest.raises(AttributeError, match="immutable"):
        prediction.answer = 5


def test_model_text_never_becomes_markup():
    assert "<script>" not in dn.Prediction(a="<script>alert(1)</script>")._repr_html_()


def test_an_unknown_price_stays_unknown():
    assert (dn.Usage(usd=1.0) + dn.Usage(usd=None)).usd is None
    assert (dn.Usage(prompt_tokens=2) + dn.Usage(completion_tokens=3)).tokens == 5


@pytest.mark.parametrize("value", [None, math.inf, math.nan, "1", [1], object()])
def test_a_value_that_is_not_a_number_is_no_score(value):
    with pytest.raises(RewardError):
        as_score(value)
    assert as_score(True).value == 1.0


def test_rows_come_from_frames_dicts_and_examples():
    frame = pd.DataFrame({"a": [1, 2]}, index=[5, 5])
    assert [r.to_dict() for r in rows_of(frame)] == [{"a": 1}, {"a": 2}]
    assert rows_of([{"a": 1}, dn.Example(a=2)])[1].a == 2
    for bad in ("text", 5, {"a": 1}, [3]):
        with pytest.raises(InputError):
            rows_of(bad)


def test_a_prediction_shows_its_score_where_it_has_one():
    scored = dn.Prediction(a=1).with_meta(score=dn.Score(0.123456))
    assert "score 0.1235" in scored._repr_html_()
    assert "score" not in dn.Prediction(a=1)._repr_html_()
