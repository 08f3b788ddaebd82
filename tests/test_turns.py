"""History: past turns of a conversation as an input."""

from __future__ import annotations

import pickle

import pytest

import dspynb as dn
from dspynb.errors import InputError
from tests.helpers import journal


class Talk(dn.Signature):
    """Answer the question."""

    history: dn.History | None = dn.Input(default=None)
    question: str = dn.Input()
    answer: int = dn.Output()


past = dn.History().append(question="2+2?", answer=4).append({"question": "3+3?"}, dn.Prediction(answer=6))
each_adapter = pytest.mark.parametrize("adapter", [dn.ChatAdapter(), dn.JSONAdapter(), dn.PrefillAdapter()], ids=repr)


def test_append_returns_a_new_history():
    longer = past.append(question="x", answer=1)
    assert (len(past), len(longer)) == (2, 3)
    assert [turn.answer for turn in longer] == [4, 6, 1]
    assert longer[:2] == past
    assert pickle.loads(pickle.dumps(past)) == past
    assert repr(past) == "History(2 turns)"
    with pytest.raises(AttributeError, match="append"):
        past.turns = []


@each_adapter
def test_past_turns_stand_between_the_demos_and_the_inputs(adapter):
    demo = {"question": "1+1?", "answer": 2}
    messages = adapter.format(Talk, {"history": past, "question": "5+5?"}, demos=[demo])
    turns = [m for m in messages if m["role"] != "system"]
    assert [m["role"] for m in turns[:7]] == ["user", "assistant"] * 3 + ["user"]
    for message, text in zip(turns[::2], ["1+1?", "2+2?", "3+3?", "5+5?"], strict=False):
        assert text in message["content"]
    assert [adapter.parse(Talk, m["content"])["answer"] for m in turns[1:6:2]] == [2, 4, 6]


@each_adapter
def test_a_history_is_not_listed_among_the_fields_nor_in_the_instruction(adapter):
    messages = adapter.format(Talk, {"history": past, "question": "5+5?"})
    assert "history" not in str(messages).lower()
    bare = type("Bare", (Talk,), {"__annotations__": {"mood": str}, "mood": dn.Output()})
    assert "history" not in bare.instruction
    assert "history" not in dn.Predict("history: History, q -> a").signature.instruction


def test_a_prediction_continues_the_conversation():
    lm = dn.FunctionLM(lambda r: f"[[ ## answer ## ]]\n{len(r.messages)}\n[[ ## completed ## ]]")
    predict, history = dn.Predict(Talk, lm=lm), dn.History()
    for count in (2, 4, 6):
        prediction = predict.run_sync(history=history, question="how many?")
        assert prediction.answer == count
        history = history.append(prediction, question="how many?")


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([{"question": "a", "answer": 1}, {"user": "zoe"}], "turn 1: there is no field 'user'"),
        ([{"question": "a", "anwser": 2}], "turn 0: there is no field 'anwser'. Did you mean 'answer'"),
        ([{"question": "a", "answer": "many"}], "turn 0: 'answer': Input should be a valid integer"),
        ([{"question": 5, "answer": 1}], "turn 0: 'question': Input should be a valid string"),
        ([{"question": "a", "answer": 1}, "hello"], "turn 1: a turn is a mapping of values, got str"),
        ([{}], "turn 0: the turn is empty"),
        ([{1: 2}], "turn 0: a field's name is a text, got 1"),
        ("hello", "takes a list of turns"),
    ],
)
def test_a_bad_turn_is_named_before_anything_is_sent(turns, message):
    lm = dn.ScriptedLM([])
    with pytest.raises(InputError, match=message):
        dn.Predict(Talk, lm=lm).run_sync(history=turns, question="x")
    assert lm.requests == []


def test_a_journal_keeps_the_turns_as_values():
    lm = dn.ScriptedLM(["[[ ## answer ## ]]\n1"])
    program = dn.Refine(dn.Predict(Talk, lm=lm), reward=lambda row, p: 1.0, n=1)
    text = journal(program.run_sync(history=past, question="x").run)
    assert '"history":[{"question":"2+2?","answer":4},{"question":"3+3?","answer":6}]' in text
