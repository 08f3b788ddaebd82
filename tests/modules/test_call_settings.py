"""Settings for one call of a predictor."""

from __future__ import annotations

import pytest

import dspynb as dn
from dspynb.errors import ConfigurationError, InputError
from tests.helpers import chat


@pytest.fixture
def lm():
    return dn.ScriptedLM([chat(answer="own")] * 5)


@pytest.fixture
def other():
    return dn.ScriptedLM([chat(answer="other", reasoning="easy")] * 5)


DEMO = {"question": "1+1?", "answer": "two"}


def test_a_call_may_have_its_own_model_temperature_and_demos(lm, other):
    ask = dn.Predict("question -> answer", lm=lm, temperature=1.0, max_tokens=9)
    settings = {"temperature": 0, "lm": other, "demos": [DEMO], "instruction": "Be brief."}
    assert ask.run_sync(question="2+2?", call=settings).answer == "other"
    (request,) = other.requests
    assert dict(request.settings) == {"temperature": 0, "max_tokens": 9}
    assert "two" in request.messages[2]["content"]
    assert "Be brief." in request.messages[0]["content"]
    assert (ask.demos, ask.lm, ask.settings["temperature"], ask.instruction) == ([], lm, 1.0, None)
    assert ask.run_sync(question="2+2?").answer == "own"


def test_the_keywords_of_dspy_work(lm, other):
    ask = dn.Predict("question -> answer", lm=lm)
    ask.run_sync(question="2+2?", lm=other, config={"temperature": 0}, demos=[DEMO])
    (request,) = other.requests
    assert request.settings["temperature"] == 0
    assert len(request.messages) == 4


def test_none_changes_nothing_and_no_demos_are_no_demos(lm):
    ask = dn.Predict("question -> answer", lm=lm, demos=[DEMO])
    ask.run_sync(question="2+2?", lm=None, config=None, demos=None, call=None)
    ask.run_sync(question="2+2?", demos=[])
    assert [len(request.messages) for request in lm.requests] == [4, 2]


@pytest.mark.parametrize("name", ["call", "config", "lm", "demos"])
def test_an_input_with_such_a_name_wins(lm, name):
    ask = dn.Predict(f"{name} -> answer", lm=lm)
    ask.run_sync(**{name: "Lyon"})
    assert "Lyon" in lm.requests[0].messages[-1]["content"]


def test_an_input_wins_by_its_name_and_other_settings_still_work(lm, other):
    ask = dn.Predict("lm -> answer", lm=lm)
    assert ask.run_sync(lm="gpt", call={"lm": other}).answer == "other"


def test_a_chain_of_thought_passes_them_to_its_predictor(lm, other):
    think = dn.ChainOfThought("question -> answer", lm=lm)
    assert think.run_sync(question="2+2?", call={"lm": other}).answer == "other"


def test_the_call_has_the_path_and_hints_of_the_predictor(lm, other):
    ask = dn.Predict("question -> answer", lm=lm)
    with dn.trace() as recorded, dn.hints("Add."):
        ask.run_sync(question="2+2?", lm=other)
    assert [call.predictor for call in recorded.calls] == ["self"]
    assert "Add." in other.requests[0].messages[0]["content"]


def test_a_stream_takes_them(lm, other):
    ask = dn.Predict("question -> answer", lm=lm)

    async def last():
        return [part async for part in ask.stream(question="2+2?", lm=other)][-1]

    assert dn.run_sync(last).answer == "other"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"call": {"temprature": 0}}, "temperature"),
        ({"call": 3}, "dict of settings"),
        ({"config": ["temperature"]}, "dict of settings"),
        ({"config": {"temperature": float("nan")}}, "temperature"),
    ],
)
def test_a_setting_that_does_not_exist_is_one_clear_error(lm, call, message):
    with pytest.raises(ConfigurationError, match=message):
        dn.Predict("question -> answer", lm=lm).run_sync(question="2+2?", **call)
    assert lm.requests == []


def test_another_unknown_keyword_is_still_an_unknown_input(lm):
    with pytest.raises(InputError, match="there is no input 'temperature'"):
        dn.Predict("question -> answer", lm=lm).run_sync(question="2+2?", temperature=0)
