"""Which predictors a program has, under which paths, and what happens with those that cannot be found."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import time
import warnings

import pytest

import dspynb as dn
from dspynb.errors import ConfigurationError, HiddenPredictorWarning, HintError, InputError
from tests.helpers import Caption, chat, prompt
from tests.modules.programs import PATHS, Program, hints_seen, model


def paths(program):
    return [path for path, _ in program.named_predictors()]


class Ask(dn.Module):
    def __init__(self):
        self.ask = dn.Predict(Caption)

    async def forward(self, subject):
        return await self.ask(subject=subject)


class Held(dn.Module):
    """Holds what it is given."""

    def __init__(self, **parts):
        vars(self).update(parts)


def test_predictors_are_found_in_attributes_lists_dicts_and_nested_modules_in_order():
    assert paths(Program()) == PATHS
    assert paths(dn.Predict("a -> b")) == ["self"]


def test_predictors_are_found_in_dataclasses_tuples_and_slots():
    @dataclasses.dataclass
    class Tools:
        name: str
        search: dn.Predict
        more: tuple = ()

    class Slotted(dn.Module):
        __slots__ = ("inner",)

        def __init__(self):
            self.tools = Tools("t", dn.Predict("a -> b"), (dn.Predict("a -> b"),))
            self.inner = dn.Predict("a -> b")

    assert paths(Slotted()) == ["tools.search", "tools.more[0]", "inner"]


def test_classes_and_other_objects_are_no_place_for_predictors():
    class Other:
        submodules = "not ours"

    assert paths(Held(cls=dn.Predict, ask=Ask, other=Other(), text="x", rows=[{"a": 1}], cot=dn.ChainOfThought)) == []


def test_a_cycle_ends_and_a_shared_predictor_stands_once_under_its_first_path():
    shared = dn.Predict("a -> b")
    program = Held(first=[shared], second={"x": shared}, third=Held(inner=shared))
    program.me = program
    program.first.append(program.first)
    assert paths(program) == ["first[0]"]


def test_every_way_to_a_shared_predictor_is_an_alias_of_its_path():
    shared = dn.Predict(Caption)
    program = Held(first=[shared], second={"x": shared}, third=Held(inner=shared))
    program.me = program
    for alias in ("first[0]", "second['x']", "third.inner", "me.first[0]", "me.me.third.inner"):
        assert program.resolve_path(alias) == "first[0]"
    for wrong in ("second", "second['y']", "third.inner.x", "first[0].", "", "self"):
        assert program.resolve_path(wrong) is None
    assert dn.Refine(Ask(), reward=lambda r, p: 1).resolve_path("ask") == "ask"
    assert dn.Refine(dn.Predict("a -> b"), reward=lambda r, p: 1).resolve_path("self") == "self"


def test_hints_and_candidates_take_aliases_but_not_two_for_one_predictor():
    shared = dn.Predict(Caption, lm=dn.ScriptedLM([chat(sentence="x")] * 2))
    program = Held(first=shared, second=shared)
    with dn.hints({"second": "Be blue."}, of=program), dn.candidate({"second": "Sing."}, of=program):
        text = prompt(shared.run_sync(subject="x").calls[0])
    assert "Sing.\n\nHint: Be blue." in text
    with pytest.raises(HintError, match="for one predictor"):
        dn.hints({"first": "a", "second": "b"}, of=program)
    with pytest.raises(InputError, match="'first' twice"):
        dn.candidate({"first": "a", "second": "b"}, of=program)
    with pytest.raises(HintError, match="no predictor 'third'"):
        dn.hints({"third": "a"}, of=program)


def test_discovery_hints_and_refine_agree_on_the_paths():
    lm, program = model(), Program()
    advice = {path: f"hint for {path}" for path in PATHS}
    refine = dn.Refine(program, reward=lambda r, p: 0.0, n=2, hints=lambda *_: advice)
    with dn.context(lm=lm):
        run = refine.run_sync(question="why?").run
    assert run.attempts.hint[1] == advice
    assert hints_seen(lm) == [None] * 5 + [f"hint for {path}" for path in PATHS]
    assert list(run.calls.predictor) == PATHS * 2
    lm.requests.clear()
    with dn.context(lm=lm), dn.hints(advice, of=program):
        program.run_sync(question="why?")
    assert hints_seen(lm) == [f"hint for {path}" for path in PATHS]


# ── predictors that are not found ─────────────────────────────────────────────────────────────────────────────────────


class PerCall(dn.Module):
    async def forward(self, subject):
        return await dn.Predict(Caption)(subject=subject)


ELSEWHERE = dn.Predict(Caption)


class Global(dn.Module):
    async def forward(self, subject):
        return await ELSEWHERE(subject=subject)


def closure():
    predict = dn.Predict(Caption)

    class Closure(dn.Module):
        def __init__(self):
            self.say = lambda subject: predict(subject=subject)

        async def forward(self, subject):
            return await self.say(subject=subject)

    return Closure


@pytest.mark.parametrize("make", [lambda: PerCall, lambda: Global, closure], ids=["per call", "global", "closure"])
def test_a_hidden_predictor_is_warned_of_once_a_type(make):
    kind = make()
    with dn.context(lm=dn.FunctionLM(lambda r: chat(sentence="x"))):
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            asyncio.run(kind().batch([{"subject": "a"}, {"subject": "b"}]))
            kind().run_sync(subject="x")
    assert [w.category for w in warned] == [HiddenPredictorWarning]
    text = str(warned[0].message)
    assert kind.__name__ in text
    assert "Predict(subject: str -> sentence: str)" in text
    assert "assign it to an attribute" in text
    assert warned[0].filename == __file__


def test_a_judge_in_a_reward_is_no_part_of_the_program():
    judge = dn.Predict("text -> grade: float", lm=dn.FunctionLM(lambda r: chat(grade="0.5")))

    async def reward(row, prediction):
        return (await judge(text=prediction.sentence)).grade

    refine = dn.Refine(Ask(), reward, n=2, hints="feedback")
    with dn.context(lm=dn.FunctionLM(lambda r: chat(sentence="x"))), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert refine.run_sync(subject="x").score.value == 0.5


def test_predictors_called_by_other_work_than_a_programs_are_not_reported():
    with dn.context(lm=dn.FunctionLM(lambda r: chat(sentence="x"))), warnings.catch_warnings():
        warnings.simplefilter("error")
        dn.Predict(Caption).run_sync(subject="x")
        Ask().run_sync(subject="x")


# ── forward ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_forward_without_async_raises_when_the_class_is_defined():
    with pytest.raises(ConfigurationError, match="Plain.forward is a plain function; write `async def forward`"):

        class Plain(dn.Module):
            def forward(self, subject):
                return {"a": subject}

    with pytest.raises(ConfigurationError, match=r"Yields.forward has a `yield`"):

        class Yields(dn.Module):
            async def forward(self, subject):
                yield subject


def test_a_decorated_forward_that_gives_something_to_await_is_good():
    def logged(fn):
        @functools.wraps(fn)
        def call(*args, **kwargs):
            return fn(*args, **kwargs)

        return call

    class Decorated(dn.Module):
        @logged
        async def forward(self, subject):
            return {"a": subject}

    class Wrong(dn.Module):
        forward = lambda self, subject: {"a": subject}  # noqa: E731

    assert Decorated().run_sync(subject="x").a == "x"
    with pytest.raises(ConfigurationError, match="Wrong.forward returned dict, which cannot be awaited"):
        Wrong().run_sync(subject="x")


# ── cost ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Fifty(dn.Module):
    def __init__(self, **more):
        self.steps = [dn.Predict("a -> a_next") for _ in range(50)]
        vars(self).update(more)

    async def forward(self, a):
        for step in self.steps:
            a = (await step(a=a)).a_next
        return {"a": a}


def test_finding_the_predictors_costs_little_beside_calling_them():
    program = Fifty(corpus=["text"] * 10_000)
    with dn.context(lm=dn.FunctionLM(lambda r: chat(a_next="x"))):
        program.run_sync(a="x")
        began = time.perf_counter()
        program.run_sync(a="x")
        called = time.perf_counter() - began
    began = time.perf_counter()
    assert len(program.named_predictors()) == 50
    assert time.perf_counter() - began < called


def test_a_modules_usage_counts_all_its_calls():
    with dn.context(lm=dn.FunctionLM(lambda r: chat(a_next="x"))):
        assert len(Fifty().run_sync(a="x").calls) == 50
