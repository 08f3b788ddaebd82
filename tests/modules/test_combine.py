"""Programs made of programs: then and map."""

from __future__ import annotations

import asyncio

import pytest

import dspynb as dn
from dspynb.errors import ConfigurationError, InputError, SignatureError
from tests.helpers import chat, field


def predict(signature, **reply):
    return dn.Predict(signature, lm=dn.FunctionLM(lambda r: chat(**reply)))


class Shout(dn.Module):
    async def forward(self, answer, marks=1):
        return {"text": answer.upper() + "!" * marks}


ASK = ("question -> answer", {"answer": "yes"})


def test_the_next_program_takes_the_outputs_it_has_inputs_for():
    def check(request):
        assert field(request, "answer") == "yes"
        assert "because" not in request.messages[-1]["content"]
        return chat(verdict="right")

    first = predict("question -> reasoning, answer", reasoning="because", answer="yes")
    both = first.then(dn.Predict("answer -> verdict", lm=dn.FunctionLM(check)))
    assert both.run_sync(question="q").to_dict() == {"verdict": "right"}


def test_functions_may_stand_anywhere_after_the_first_program():
    async def wrap(prediction):
        return {"answer": f"<{prediction.answer}>", "marks": 2}

    program = predict(ASK[0], **ASK[1]).then(wrap).then(Shout()).then(lambda p: {"length": len(p.text)})
    assert program.run_sync(question="q").length == len("<YES>!!")


def test_predictors_of_a_chain_have_paths_that_do_not_depend_on_how_it_was_built():
    a, b, c = predict(ASK[0], answer="1"), dn.ChainOfThought("answer -> x"), predict("x -> y", y="2")
    for chain in (a.then(b).then(c), a.then(b.then(c))):
        assert [path for path, _ in chain.named_predictors()] == ["steps[0]", "steps[1].predict", "steps[2]"]
        assert chain.named_predictors()[0][1] is a


def test_map_changes_the_prediction_and_keeps_the_paths():
    mapped = dn.ChainOfThought("question -> answer").map(lambda p: {"answer": p.answer.upper()})
    assert [path for path, _ in mapped.named_predictors()] == ["predict"]
    with dn.context(lm=dn.ScriptedLM([chat(reasoning="r", answer="yes")])):
        prediction = mapped.run_sync(question="q")
    assert (prediction.to_dict(), len(prediction.calls)) == ({"answer": "YES"}, 1)


def test_refine_over_a_chain_gives_each_predictor_its_hint():
    hints_seen = []

    def answer(request):
        text = request.messages[0]["content"]
        hints_seen.append(text.split("Hint: ")[1] if "Hint: " in text else None)
        return chat(answer="a", x="x")

    chain = dn.Predict(ASK[0]).then(dn.Predict("answer -> x").map(dict))
    hints = {"steps[0]": "one", "steps[1]": "two"}
    with dn.context(lm=dn.FunctionLM(answer)):
        dn.Refine(chain, lambda r, p: 0.0, n=2, hints=lambda *_: hints).run_sync(question="q")
    assert hints_seen == [None, None, "one", "two"]


def test_a_chain_runs_its_rows_concurrently():
    chain = predict(ASK[0], **ASK[1]).then(Shout())
    results = asyncio.run(chain.batch([{"question": "a"}, {"wrong": "b"}]))
    assert results[0].text == "YES!"
    assert isinstance(results[1], InputError)


@pytest.mark.parametrize(
    ("second", "says"),
    [
        ("answer, context -> x", "needs 'context', but .* gives answer"),
        ("answer: list[str] -> x", "'answer' is str in .* and list.str. in"),
        (dn.BestOfN(dn.Predict("answr -> x"), lambda r, p: 1), "needs 'answr'"),
    ],
)
def test_programs_that_do_not_fit_raise_when_they_are_combined(second, says):
    step = dn.Predict(second) if isinstance(second, str) else second
    with pytest.raises(SignatureError, match=says):
        dn.Predict(ASK[0]).then(step)


@pytest.mark.parametrize(
    "types",
    [
        ("int", "float"),
        ("bool", "int"),
        ("list[int]", "list[float]"),
        ("str", "Optional[str]"),
        ("Literal['a']", "str"),
        ("dict", "dict[str, int]"),
        ("datetime", "date"),
    ],
)
def test_types_that_may_fit_are_left_to_the_call(types):
    dn.Predict(f"q -> a: {types[0]}").then(dn.Predict(f"a: {types[1]} -> b"))


@pytest.mark.parametrize("types", [("str", "int"), ("list[str]", "list[int]"), ("list", "str"), ("float", "int")])
def test_types_that_differ_raise_an_error(types):
    with pytest.raises(SignatureError, match="converts it"):
        dn.Predict(f"q -> a: {types[0]}").then(dn.Predict(f"a: {types[1]} -> b"))


def test_values_that_cannot_be_combined_raise_an_error():
    program = predict(ASK[0], **ASK[1])
    with pytest.raises(ConfigurationError, match="then takes a program or a function"):
        program.then("answer -> x")
    with pytest.raises(ConfigurationError, match="then takes a program or a function"):
        program.then(dn.Predict)
    with pytest.raises(ConfigurationError, match=r"for a program use then"):
        program.map(dn.Predict("answer -> x"))

    def shout(prediction):
        return prediction.answer

    with pytest.raises(InputError, match="shout returned str; return a Prediction or a dict"):
        program.map(shout).run_sync(question="q")
