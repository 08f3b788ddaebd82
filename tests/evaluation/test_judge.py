"""A model as a metric: what it is shown, what becomes of its reply, and that it stays out of the program's way."""

from __future__ import annotations

import asyncio

import pytest

import dspynb as dn
from dspynb import metrics as dm
from dspynb.errors import ConfigurationError, NoModelError, RewardError
from tests.helpers import Caption, chat, prompt

ROW = dn.Example(subject="the sea", gold="The sea is blue.").with_inputs("subject")
GIVEN = dn.Prediction(sentence="Waves.")


def judge_lm(score="0.5", reasons="Too short."):
    return dn.ScriptedLM([chat(reasons=reasons, score=score)] * 3)


def judged(judge, row=ROW, prediction=GIVEN):
    return asyncio.run(judge(row, prediction))


def test_the_judges_score_and_reasons_become_score_and_feedback():
    lm = judge_lm()
    result = judged(dm.llm_judge("Vivid and complete.", lm=lm))
    assert (result.value, result.feedback) == (0.5, "Too short.")
    (request,) = lm.requests
    assert all(text in prompt(request) for text in ("Vivid and complete.", "subject: the sea", "Waves."))
    assert "The sea is blue." not in prompt(request)


def test_a_label_is_shown_to_the_judge_as_a_reference():
    lm = judge_lm()
    judged(dm.llm_judge("Means the same.", lm=lm, label="gold"))
    assert "The sea is blue." in prompt(lm.requests[0])
    with pytest.raises(ConfigurationError, match="no field 'golt'"):
        judged(dm.llm_judge("Means the same.", lm=lm, label="golt"))


def test_one_output_of_several_can_be_judged():
    lm = judge_lm()
    both = dn.Prediction(reasoning="hidden thoughts", sentence="Waves.")
    judged(dm.llm_judge("Good.", lm=lm, field="sentence"), prediction=both)
    judged(dm.llm_judge("Good.", lm=lm), prediction=both)
    assert "hidden thoughts" not in prompt(lm.requests[0])
    assert "reasoning: hidden thoughts" in prompt(lm.requests[1])


@pytest.mark.parametrize("score", ["1.5", "-0.1", "nan", "good", ""])
def test_a_reply_without_a_score_from_0_to_1_is_a_reward_error(score):
    with pytest.raises(RewardError, match="the judge gave no score from 0 to 1"):
        judged(dm.llm_judge("Good.", lm=judge_lm(score)))


def test_a_judge_needs_a_model_and_criteria():
    with pytest.raises(NoModelError):
        judged(dm.llm_judge("Good."))
    with pytest.raises(ConfigurationError, match="criteria"):
        dm.llm_judge(" ")


def test_calls_of_a_judge_are_in_no_trace_and_have_no_hint():
    lm = judge_lm()

    async def program():
        with dn.trace() as trace, dn.hints("Be vivid."):
            await dm.llm_judge("Good.", lm=lm)(ROW, GIVEN)
        return trace

    assert len(asyncio.run(program())) == 0
    assert "Be vivid." not in prompt(lm.requests[0])


def test_the_reasons_of_a_judge_become_hints_of_a_refine():
    lm = dn.ScriptedLM([chat(sentence="Waves."), chat(sentence="The sea glitters.")])
    judge = dn.ScriptedLM([chat(reasons="Name the sea.", score="0.2"), chat(reasons="Fine.", score="1")])
    reward = dm.llm_judge("Names its subject.", lm=judge)
    refine = dn.Refine(dn.Predict(Caption, lm=lm), reward=reward, n=3, threshold=1.0, hints="feedback")
    prediction = asyncio.run(refine(subject="the sea"))
    assert prediction.sentence == "The sea glitters."
    assert "Name the sea." in prompt(lm.requests[1])
    assert "Name the sea." not in prompt(judge.requests[1])


def test_the_settings_of_a_judge_are_sent_with_its_requests():
    lm = judge_lm()
    judged(dm.llm_judge("Good.", lm=lm, temperature=0.0))
    assert lm.requests[0].settings == {"temperature": 0.0}
