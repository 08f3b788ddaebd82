"""``program.with_lm(lm)``: a copy of a program in which every predictor uses another model."""

from __future__ import annotations

import asyncio
import threading

import pytest

import dspynb as dn
from dspynb import errors
from tests.helpers import chat, prompt

EVERYTHING = {"draft": "d", "reasoning": "r", "answer": "4", "advice": '{"answer": "Try again."}'}


def named(name):
    """A model that can answer every predictor of these programs, and the list of its requests."""
    requests = []

    def answer(request):
        requests.append(prompt(request))
        text = prompt(request)
        outputs = text.rpartition("Respond with")[2]
        fields = {field: value for field, value in EVERYTHING.items() if f"[[ ## {field} ## ]]" in outputs}
        if "[[ ## next_thought ## ]]" in outputs:
            tool = "finish" if "Step 1" in text else "look"
            fields = {"next_thought": "t", "next_tool_name": tool, "next_tool_args": '{"question": "2+2?"}'}
        return chat(**fields)

    return dn.FunctionLM(answer, name=name), requests


class Nested(dn.Module):
    """Predictors with and without models of their own, in lists, dicts and other modules, and a lock."""

    def __init__(self, lm):
        self.draft = dn.Predict("question -> draft", lm=lm)
        self.steps = [dn.ChainOfThought("draft -> answer", lm=lm)]
        self.by_name = {"last": dn.Predict("answer -> draft")}
        self.lm = lm
        self.lock = threading.Lock()

    async def forward(self, question):
        draft = (await self.draft(question=question)).draft
        answer = (await self.steps[0](draft=draft)).answer
        await self.by_name["last"](answer=answer)
        return {"answer": answer}


def test_every_predictor_at_every_depth_uses_the_model_and_the_program_stays_as_it_was():
    own, own_requests = named("own")
    other, requests = named("other")
    program = Nested(own)
    changed = program.with_lm(other)
    with dn.context(lm=own):
        assert changed.run_sync(question="2+2?").answer == "4"
    assert (len(requests), own_requests) == (3, [])
    assert [predictor.lm for _, predictor in program.named_predictors()] == [own, own, None]
    assert [path for path, _ in changed.named_predictors()] == [path for path, _ in program.named_predictors()]


def test_the_copy_shares_what_cannot_be_copied_and_the_models_that_are_called_directly():
    own, _ = named("own")
    program = Nested(own)
    changed = program.with_lm(named("other")[0])
    assert changed.lm is own
    assert changed.lock is program.lock
    assert changed.draft is not program.draft
    assert changed.draft.uid != program.draft.uid


def test_the_predictors_of_an_agent_and_of_its_tools_use_the_model():
    own, own_requests = named("own")
    other, requests = named("other")
    look = dn.Predict("question -> answer", instruction="Look it up.", lm=own)
    agent = dn.ReAct("question -> answer", [dn.Tool(look, name="look", description="Looks up a question.")])
    with dn.context(lm=own):
        prediction = agent.with_lm(other).run_sync(question="2+2?")
    assert prediction.trajectory[0]["tool"] == "look"
    assert "4" in prediction.trajectory[0]["observation"]
    assert (len(requests), own_requests) == (4, [])


def test_the_advisor_of_a_refine_uses_the_model():
    own, own_requests = named("own")
    other, requests = named("other")
    inner = dn.Predict("question -> answer", lm=own)
    refine = dn.Refine(inner, reward=lambda row, prediction: 0.0, n=2, hints="advisor", advisor_lm=own)
    changed = refine.with_lm(other)
    changed.run_sync(question="2+2?")
    assert (len(requests), own_requests) == (3, [])
    assert refine.advisor.lm is own


def test_a_name_is_a_model_and_none_leaves_the_choice_to_the_settings():
    own, _ = named("own")
    program = Nested(own)
    assert {p.lm for _, p in program.with_lm("openai/gpt-4.1-mini").named_predictors()} == {"openai/gpt-4.1-mini"}
    other, requests = named("other")
    with dn.context(lm=other):
        program.with_lm(None).run_sync(question="2+2?")
    assert len(requests) == 3


@pytest.mark.parametrize("value", [3, "gpt-4.1-mini", object()])
def test_a_value_that_is_no_model_is_one_clear_error(value):
    with pytest.raises(errors.ConfigurationError):
        Nested(None).with_lm(value)


def test_the_state_is_the_same_and_loads_into_both():
    own, _ = named("own")
    program = Nested(own)
    program.draft.demos = [{"question": "1+1?", "draft": "d"}]
    program.draft.instruction = "Draft."
    changed = program.with_lm(named("other")[0])
    assert changed.dump_state() == program.dump_state()
    loaded = changed.with_state(program.dump_state())
    assert loaded.draft.lm is changed.draft.lm
    changed.draft.instruction = "Otherwise."
    assert program.draft.instruction == "Draft."


def test_a_program_that_cannot_be_copied_is_one_clear_error():
    class Single(dn.Module):
        def __deepcopy__(self, memo):
            raise RuntimeError("there is one only")

        async def forward(self, question):
            return {"answer": "4"}

    with pytest.raises(errors.StateError, match="Single cannot be copied .*there is one only.*give its predictors"):
        Single().with_lm(named("other")[0])


def test_programs_with_different_models_are_compared():
    wrong = dn.FunctionLM(lambda request: chat(answer="5"))
    right = dn.FunctionLM(lambda request: chat(answer="4"))
    program = dn.Predict("question -> answer", lm=wrong)
    rows = [{"question": f"{n}+{4 - n}?", "answer": "4"} for n in range(4)]
    scores = {}
    for name, candidate in {"wrong": program, "right": program.with_lm(right)}.items():
        scores[name] = float(asyncio.run(dn.evaluate(candidate, rows, dn.metrics.exact_match())))
    assert scores == {"wrong": 0.0, "right": 1.0}
