"""ChainOfThought, MultiChainComparison and majority, on scripted models and on a server."""

from __future__ import annotations

import asyncio

import pytest

import dspynb as dn
from dspynb.errors import ConfigurationError, InputError, ModelError, SignatureError
from tests.helpers import Caption, chat, field, prompt
from tests.lm.server import Server
from tests.modules.programs import Recording

# ── ChainOfThought ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_chain_of_thought_reasons_before_it_answers():
    lm = dn.ScriptedLM([chat(reasoning="Two and two.", answer="4")])
    program = dn.ChainOfThought("question -> answer: int", lm=lm, temperature=0.5)
    prediction = program.run_sync(question="2+2?")
    assert prediction.to_dict() == {"reasoning": "Two and two.", "answer": 4}
    assert lm.requests[0].settings["temperature"] == 0.5
    assert [path for path, _ in program.named_predictors()] == ["predict"]
    assert prompt(lm.requests[0]).index("## reasoning") < prompt(lm.requests[0]).index("## answer")


def test_chain_of_thought_takes_another_augmentation():
    class Steps(dn.Augmentation):
        """Short steps."""

        steps: list[str] = dn.Output(desc="one short line a step")

    program = dn.ChainOfThought(Caption, reasoning=Steps, instruction="Sing.", demos=[{"subject": "x", "steps": ["y"]}])
    with dn.context(lm=dn.ScriptedLM([chat(steps='["a"]', sentence="b")])):
        prediction = program.run_sync(subject="sea")
    assert prediction.steps == ["a"]
    assert "Sing." in prompt(prediction.calls[0])
    assert '["y"]' in prompt(prediction.calls[0])
    with pytest.raises(SignatureError, match="cannot add the output 'reasoning'"):
        dn.ChainOfThought("question, reasoning -> answer")


def test_chain_of_thought_works_against_a_server():
    with Server(lambda body, number: chat(reasoning="r", answer=str(number))) as server:
        lm = dn.LM("openai/m", api_base=server.base, api_key="k")
        rows = [{"question": str(i)} for i in range(3)]
        predictions = asyncio.run(dn.ChainOfThought("question -> answer: int", lm=lm).batch(rows))
    assert sorted(p.answer for p in predictions) == [1, 2, 3]
    assert "[[ ## reasoning ## ]]" in server.bodies[0]["messages"][-1]["content"]


def test_refine_gives_the_predictor_inside_a_chain_of_thought_its_hint():
    lm = dn.ScriptedLM([chat(reasoning="r", sentence="a"), chat(reasoning="r", sentence="b")])
    program = dn.ChainOfThought(Caption, lm=lm)
    refine = dn.Refine(program, lambda r, p: p.sentence == "b", n=2, hints=lambda *_: {"predict": "Say b."})
    assert refine.run_sync(subject="x").sentence == "b"
    assert "Hint: Say b." in prompt(lm.requests[1])


# ── MultiChainComparison ──────────────────────────────────────────────────────────────────────────────────────────────


def compared(request):
    return chat(rationale="All agree.", answer="4")


def test_completions_are_compared_in_dspys_words():
    lm = Recording(compared)
    completions = [
        dn.Prediction(rationale="add them\nslowly", answer="4"),
        {"reasoning": "guess", "answer": 5},
        dn.Example(reasoning="count", answer="4"),
    ]
    compare = dn.MultiChainComparison("question -> answer", lm=lm, sampler=None)
    prediction = compare.run_sync(question="2+2?", completions=completions)
    assert prediction.to_dict() == {"rationale": "All agree.", "answer": "4"}
    request = lm.requests[0]
    assert field(request, "reasoning_attempt_1") == "«I'm trying to add them I'm not sure but my prediction is 4»"
    assert field(request, "reasoning_attempt_2") == "«I'm trying to guess I'm not sure but my prediction is 5»"
    assert request.settings["temperature"] == 0.7
    assert [path for path, _ in compare.named_predictors()] == ["predict"]


def test_without_completions_it_samples_them_each_with_a_rollout_of_its_own():
    def answer(request):
        if "reasoning_attempt_1" in prompt(request):
            return compared(request)
        return chat(reasoning=f"r{request.rollout % 1024}", answer="4")

    lm = Recording(answer)
    compare = dn.MultiChainComparison("question -> answer", m=4, temperature=0.3, lm=lm)
    prediction = compare.run_sync(question="2+2?")
    *samples, last = lm.requests
    assert len({r.rollout for r in samples}) == 4
    assert {r.settings["temperature"] for r in samples} == {0.3}
    assert [f"to r{i}" in field(last, f"reasoning_attempt_{i + 1}") for i in range(4)] == [True] * 4
    assert len(prediction.calls) == 5
    assert [path for path, _ in compare.named_predictors()] == ["predict", "sampler.predict"]


def test_samples_inside_attempts_and_attempts_inside_samples_never_repeat_a_rollout():
    lm = Recording(
        lambda r: compared(r) if "reasoning_attempt_1" in prompt(r) else chat(reasoning="r", answer=str(r.rollout))
    )
    inner = dn.BestOfN(dn.ChainOfThought("question -> answer"), lambda r, p: 0.0, n=2)
    compare = dn.MultiChainComparison("question -> answer", m=2, sampler=inner)
    with dn.context(lm=lm):
        compare.run_sync(question="q")
        dn.BestOfN(compare, lambda r, p: 0.0, n=2).run_sync(question="q")
    rollouts = [r.rollout for r in lm.requests if "reasoning_attempt_1" not in prompt(r)]
    assert len(rollouts) == 4 + 8
    assert len(set(rollouts[4:])) == 8
    assert len(set(rollouts[:4])) == 4


def test_refine_gives_the_sampler_and_the_comparison_a_hint_each():
    lm = Recording(lambda r: compared(r) if "reasoning_attempt_1" in prompt(r) else chat(reasoning="r", answer="4"))
    hints = {"predict": "Compare well.", "sampler.predict": "Think well."}
    with dn.context(lm=lm):
        compare = dn.MultiChainComparison("question -> answer", m=2)
        dn.Refine(compare, lambda r, p: 0.0, n=2, hints=lambda *_: hints).run_sync(question="q")
    differences = (
        ["Hint: Think well." in prompt(r) for r in lm.requests],
        ["Hint: Compare well." in prompt(r) for r in lm.requests],
    )
    assert differences == ([False] * 3 + [True, True, False], [False] * 5 + [True])


def test_a_sample_that_fails_fails_the_comparison():
    with dn.context(lm=dn.ScriptedLM([])), pytest.raises(ModelError):
        dn.MultiChainComparison("question -> answer").run_sync(question="q")


@pytest.mark.parametrize(
    ("completions", "says"),
    [
        ([{"reasoning": "a", "answer": "b"}], "m=3 completions, got 1"),
        ([{"answer": "b"}] * 3, "completion 0 needs 'rationale' or 'reasoning', and 'answer'; it has answer"),
        ([ValueError("x")] * 3, "completion 0 is ValueError"),
    ],
)
def test_completions_that_do_not_fit_raise_an_error(completions, says):
    with pytest.raises(InputError, match=says):
        dn.MultiChainComparison("question -> answer").run_sync(question="q", completions=completions)


def test_a_comparison_without_completions_raises_an_error():
    with pytest.raises(ConfigurationError, match="m must be a whole number from 1 to 1000, got 0"):
        dn.MultiChainComparison("question -> answer", m=0)
    with pytest.raises(InputError, match="has no sampler; give it completions"):
        dn.MultiChainComparison("question -> answer", sampler=None).run_sync(question="q")


# ── majority ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def votes(*answers):
    return [dn.Prediction(reasoning=str(i), answer=a) for i, a in enumerate(answers)]


def test_the_first_prediction_with_the_most_frequent_last_field_wins():
    assert dn.majority(votes("3", "4", "4")).reasoning == "1"
    assert dn.majority(votes("The Sea!", "land", "the sea")).answer == "The Sea!"
    assert dn.majority(votes("a b", "x", "x"), field="reasoning").answer == "a b"


def test_a_tie_goes_to_the_value_that_was_seen_first():
    assert dn.majority(votes("b1", "c1", "c1", "b1")).answer == "b1"


def test_failed_rows_and_empty_answers_do_not_vote():
    assert dn.majority([ValueError("x"), None, None, *votes("", "", "", "x")]).answer == "x"
    assert dn.majority(votes("", "")).reasoning == "0"


def test_values_of_any_type_vote():
    assert dn.majority(votes([1, 2], {"a": 1}, [1, 2])).answer == [1, 2]
    assert dn.majority(votes(([1],), 2.5, ([1],))).answer == ([1],)
    assert dn.majority([{"x": 1}, {"x": 2}, {"x": 2}]) == dn.Prediction(x=2)


def test_a_normalize_function_decides_how_values_are_compared():
    assert dn.majority(votes("12", "15", "31"), normalize=lambda a: a[0]).answer == "12"
    assert dn.majority(votes("a", "b", "b"), normalize=lambda a: None if a == "b" else a).answer == "a"


@pytest.mark.parametrize(
    ("predictions", "field", "says"),
    [
        ([], None, "no predictions"),
        ([ValueError("x")], None, "no predictions"),
        (dn.Prediction(a=1), None, "takes a list of predictions, got Prediction"),
        (["a"], None, "prediction 0 is str"),
        (votes("a"), "anser", "no field 'anser'. Did you mean 'answer'"),
    ],
)
def test_predictions_that_cannot_vote_raise_an_error(predictions, field, says):
    with pytest.raises(InputError, match=says):
        dn.majority(predictions, field)


class Asked(dn.Signature):
    """Answer."""

    question: str = dn.Input(alias="The question")
    answer: str = dn.Output(alias="The answer")


def test_rows_may_name_inputs_by_their_aliases():
    answer = dn.FunctionLM(lambda request: chat(reasoning="r", answer=field(request, "question"), rationale="r"))
    rows = [{"The question": "one", "answer": "one"}, {"question": "two", "The question": "no", "answer": "two"}]
    with dn.context(lm=answer):
        for program in (dn.Predict(Asked), dn.ChainOfThought(Asked), dn.MultiChainComparison(Asked, m=2)):
            assert [p.answer for p in asyncio.run(program.batch(rows))] == ["one", "two"]
            evaluation = asyncio.run(dn.evaluate(program, rows, lambda row, p: row.answer == p.answer))
            assert float(evaluation) == 1.0


def test_a_candidates_demos_may_name_fields_by_their_aliases():
    prompts = []
    lm = dn.FunctionLM(lambda request: prompts.append(prompt(request)) or chat(answer="x"))
    predict = dn.Predict(Asked, lm=lm)
    with dn.candidate({"self": {"demos": [{"The question": "shown q", "The answer": "shown a"}]}}, of=predict):
        asyncio.run(predict(question="q"))
    assert "shown q" in prompts[0]
    assert "shown a" in prompts[0]
