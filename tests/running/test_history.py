"""Looking back at what was sent."""

from __future__ import annotations

import pytest

import dspynb as dn
from dspynb.errors import InputError
from tests.helpers import Caption, chat, echo_hint


def test_the_last_calls_show_what_was_sent_and_what_came_back():
    predict = dn.Predict(Caption, lm=echo_hint())
    with dn.hints("be <b>brief</b>"):
        predict.run_sync(subject="the sea")
    (call,) = dn.history()
    assert call.hint == "be <b>brief</b>"
    text = repr(dn.history(1))
    assert "── system" in text
    assert "the sea" in text
    assert "── reply" in text
    assert "<b>" not in dn.history(1)._repr_html_()


def test_a_call_that_failed_is_there_with_its_error():
    predict = dn.Predict(Caption, lm=dn.ScriptedLM(["no markers"]), adapter=dn.ChatAdapter(repair=False))
    with pytest.raises(dn.DspynbError):
        predict.run_sync(subject="x")
    assert "── error\nParseError" in repr(dn.history(1))


def test_the_history_is_limited_and_in_order():
    dn.configure(history=5)
    predict = dn.Predict(Caption, lm=dn.FunctionLM(lambda r: chat(sentence="s")))
    for i in range(12):
        predict.run_sync(subject=str(i))
    assert [c.inputs["subject"] for c in dn.history(100)] == [str(i) for i in range(7, 12)]
    with pytest.raises(InputError, match="at least 1"):
        dn.history(0)


def test_a_prediction_has_its_calls():
    prediction = dn.Refine(dn.Predict(Caption, lm=echo_hint()), lambda r, p: 1.0, n=1).run_sync(subject="x")
    assert "── reply" in repr(prediction.calls)
