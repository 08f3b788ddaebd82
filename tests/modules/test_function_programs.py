"""Functions as programs: their predictors, copies, results, and the places that accept them."""

from __future__ import annotations

import asyncio
import functools
import pickle

import pytest

import dspynb as dn
from dspynb.errors import ConfigurationError, InputError
from tests.helpers import chat

RIGHT = dn.metrics.exact_match()
ROWS = [{"question": "2+2?", "answer": "4"}, {"question": "1+3?", "answer": "4"}]

four = dn.FunctionLM(lambda request: chat(answer="4"))
ask_global = dn.Predict("question -> answer", lm=four)
others = {"second": [dn.ChainOfThought("question -> answer", lm=four)]}


async def uses_global(question):
    return await ask_global(question=question)


async def uses_another_function(question):
    return await uses_global(question)


async def uses_a_container(question):
    return await others["second"][0](question=question)


def enclosing(predictor):
    async def inner(question):
        return await predictor(question=question)

    return inner


def waits(question):
    """Blocks until the program has an answer."""
    return ask_global.run_sync(question=question).answer


class Holder:
    """An object whose method is a program."""

    def __init__(self):
        self.ask = dn.ChainOfThought("question -> answer", lm=four)
        self.parts = dn.Predict("question -> answer", lm=four)

    async def answer(self, question):
        return await self.parts(question=question)


class Callable(dn.Module):
    """A program with a method that is passed as a function."""

    def __init__(self):
        self.ask = dn.Predict("question -> answer", lm=four)

    async def shout(self, question):
        return (await self.ask(question=question)).answer + "!"


def paths(fn):
    return [path for path, _ in dn.as_program(fn).named_predictors()]


@pytest.mark.parametrize(
    ("fn", "expected_paths"),
    [
        (uses_global, ["ask_global"]),
        (uses_another_function, ["ask_global"]),
        (uses_a_container, ["others['second'][0].predict"]),
        (enclosing(ask_global), ["predictor"]),
        (functools.partial(enclosing(ask_global)), ["predictor"]),
        (lambda question, ask=ask_global: ask(question=question), ["default"]),
        (Callable().shout, ["self.ask"]),
        (waits, ["ask_global"]),
        (lambda question: question, []),
    ],
)
def test_predictors_in_the_variables_of_a_function_are_parts_of_the_program(fn, expected_paths):
    assert paths(fn) == expected_paths


def test_two_functions_that_call_each_other_are_searched_once():
    async def first(question):
        return await second(question)

    async def second(question):
        return await first(question) if not question else await ask_global(question=question)

    assert paths(first) == ["ask_global"]
    assert dn.as_program(first).with_state(dn.as_program(first).dump_state()).run_sync(question="q").answer == "4"


@pytest.mark.parametrize("fn", [uses_global, uses_another_function, enclosing(ask_global), waits, Callable().shout])
def test_a_state_goes_to_a_copy_of_the_function_and_not_to_the_users_predictor(fn):
    program = dn.as_program(fn)
    state = program.dump_state()
    (path,) = state["predictors"]
    state["predictors"][path]["instruction"] = "Be brief."
    seen = []
    lm = dn.FunctionLM(lambda request: seen.append(request.messages[0]["content"]) or chat(answer="4"))
    better = program.with_state(state).with_lm(lm)
    better.run_sync(question="2+2?")
    assert "Be brief." in seen[0]
    assert ask_global.instruction is None
    program.run_sync(question="2+2?")
    assert len(seen) == 1


def test_an_optimizer_returns_a_program_with_a_better_copy():
    writer = dn.FunctionLM(lambda request: chat(proposed_instruction="Answer 4.", proposed_prefix_for_output_field=""))
    lm = dn.FunctionLM(lambda request: chat(answer="4" if "Answer 4." in str(request.messages) else "5"))
    ask = dn.Predict("question -> answer", lm=lm)
    better = dn.COPRO(RIGHT, depth=1, breadth=2, prompt_lm=writer).compile_sync(enclosing(ask), ROWS)
    assert better.run_sync(question="2+2?").answer == "4"
    assert ask.run_sync(question="2+2?").answer == "5"


@pytest.mark.parametrize("make", [lambda: dn.COPRO(RIGHT), lambda: dn.BootstrapFewShot(RIGHT), lambda: dn.GEPA(RIGHT)])
def test_an_optimizer_says_that_a_function_without_predictors_has_nothing_to_optimize(make):
    with pytest.raises(InputError, match="has no predictors, so there is nothing to optimize"):
        make().compile_sync(lambda question: {"answer": "4"}, ROWS)


@pytest.mark.parametrize(
    "program",
    [uses_global, enclosing(ask_global), waits, functools.partial(uses_global), Callable().shout, Holder().answer],
)
def test_a_function_is_evaluated_and_searched(program):
    done = dn.Evaluate(lambda row, prediction: 1.0).run_sync(program, ROWS)
    assert float(done) == 1
    assert [error for error in done.exceptions if error] == []
    assert dn.BestOfN(program, lambda row, prediction: 1.0, n=2).run_sync(question="2+2?") is not None
    assert len(dn.run_sync(lambda: dn.as_program(program).batch(ROWS))) == 2


def test_calls_of_a_function_are_recorded_under_the_path_of_the_predictor():
    done = dn.Evaluate(RIGHT).run_sync(uses_global, ROWS)
    assert done.run.calls.predictor.tolist() == ["ask_global", "ask_global"]
    assert done.usage.calls == 2


def test_refine_gives_hints_to_the_predictors_of_a_function():
    seen = []
    lm = dn.FunctionLM(lambda request: seen.append(str(request.messages)) or chat(answer="5"))
    program = enclosing(dn.Predict("question -> answer", lm=lm))

    def reward(row, prediction):
        return dn.Score(0.0, feedback="Add again.")

    dn.Refine(program, reward, n=2, hints="feedback", threshold=1.0).run_sync(question="2+2?")
    assert "Add again." in seen[1]


@pytest.mark.parametrize("value", [None, 0, "", [], 7, "text", ["a"], ("a",), {1, 2}])
def test_any_value_is_passed_on_by_batches_searches_evaluations_and_traces(value):
    def fn(question):
        return value

    seen = []

    def metric(row, prediction):
        seen.append(prediction)
        return 1.0

    assert dn.as_program(fn).run_sync(question="q") == value
    assert dn.run_sync(lambda: dn.as_program(fn).batch(ROWS)) == [value, value]
    done = dn.Evaluate(metric).run_sync(fn, ROWS)
    assert done.predictions == [value, value]
    assert len(done.table) == 2
    assert dn.BestOfN(fn, metric, n=1).run_sync(question="q") == value
    assert dn.Refine(fn, metric, n=1).run_sync(question="q") == value
    assert seen == [value] * 4


def test_a_step_after_a_value_without_names_says_what_it_needs():
    with pytest.raises(InputError, match="returned str; return a Prediction or a dict"):
        dn.as_program(lambda question: "4").then(ask_global).run_sync(question="q")


@pytest.mark.parametrize("value", [None, 3, "program", four, dn.Signature, dn.Predict, object()])
def test_a_value_that_is_no_function_is_refused_with_one_error(value):
    with pytest.raises(InputError, match=r"must be a dn\.Module such as dn\.Predict\(\.\.\.\), or a function"):
        dn.Evaluate(RIGHT).run_sync(value, ROWS)


def test_a_generator_function_is_refused():
    def program(question):
        yield question

    with pytest.raises(ConfigurationError, match="yield"):
        dn.as_program(program)


def test_a_function_program_of_a_module_can_be_pickled():
    program = pickle.loads(pickle.dumps(dn.as_program(asyncio.sleep)))
    assert program.fn is asyncio.sleep


def test_a_row_gives_a_function_the_columns_that_it_has_parameters_for():
    def program(question, tone="plain"):
        return f"{question} {tone}"

    rows = [{"question": "a", "tone": "kind", "other": 1}, {"question": "b", "other": 2}]
    assert dn.run_sync(lambda: dn.as_program(program).batch(rows)) == ["a kind", "b plain"]
    with pytest.raises(InputError, match="question"):
        dn.Evaluate(RIGHT).run_sync(program, [{"text": "a"}])


def test_functions_are_compared_with_each_other():
    done = dn.run_sync(lambda: dn.compare({"a": uses_global, "b": lambda question: {"answer": "5"}}, ROWS, RIGHT))
    assert done.table.score.tolist() == [1, 0]
    assert done.run.calls.predictor.tolist() == ["a.ask_global"] * 2
