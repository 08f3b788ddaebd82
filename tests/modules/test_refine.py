"""Refine and BestOfN: what the spike asked for, and what timing must not decide."""

from __future__ import annotations

import asyncio
import math
import random
import warnings

import pytest

import dspynb as dn
from dspynb.errors import (
    AllAttemptsFailed,
    ConfigurationError,
    HintError,
    InputError,
    ModelError,
    NoModelError,
    TooManyFailures,
)
from dspynb.scope import CallContext, Layer
from tests.helpers import Caption, chat, echo_hint, field, prompt, scores


def blue(row, prediction):
    return dn.Score(float("blue" in prediction.sentence), feedback="say blue")


def run(coro):
    return asyncio.run(coro)


def test_the_next_attempt_gets_the_feedback_as_its_hint_and_the_first_gets_none():
    refine = dn.Refine(dn.Predict(Caption, lm=echo_hint()), blue, n=3)
    prediction = run(refine(subject="the sea"))
    assert prediction.sentence == "say blue"
    table = prediction.run.attempts
    assert table.hint.tolist() == [None, "say blue"]
    assert table.score.tolist() == [0.0, 1.0]
    assert table.best.tolist() == [False, True]
    names = "attempt wave hint sentence score feedback error seconds waited tokens usd cached best"
    assert list(table.columns) == names.split()


def test_the_feedback_of_a_wave_stands_in_the_order_of_its_attempts_and_that_of_earlier_waves_is_gone():
    lm = dn.FunctionLM(lambda request: chat(sentence=f"s{request.rollout}"))
    refine = dn.Refine(
        dn.Predict(Caption, lm=lm), lambda row, p: dn.Score(0.0, feedback=f"not {p.sentence}"), n=6, width=2
    )
    hints = run(refine(subject="x")).run.attempts.hint.tolist()
    assert hints == [None, None, *["not s0\nnot s1"] * 2, *["not s2\nnot s3"] * 2]


def test_a_nested_module_sees_the_hint_only_inside_the_attempt():
    class Outer(dn.Module):
        def __init__(self):
            self.inner = dn.Predict(Caption, lm=echo_hint())

        async def forward(self, subject):
            return await self.inner(subject=subject)

    program = Outer()
    refine = dn.Refine(program, blue, n=2)

    async def main():
        assert (await refine(subject="x")).sentence == "say blue"
        return (await program(subject="x")).sentence

    assert run(main()) == "none"


def test_concurrent_refines_on_one_instance_do_not_leak_into_each_other():
    async def answer(request):
        await asyncio.sleep(0.001 * (len(prompt(request)) % 7))
        subject = field(request, "subject")
        hints = [line for line in prompt(request).splitlines() if line.startswith("Hint: ")]
        assert hints in ([], [f"Hint: for {subject}"])
        return chat(sentence=hints[0] if hints else "none")

    def reward(row, prediction):
        return dn.Score(float(row.subject in prediction.sentence), feedback=f"for {row.subject}")

    refine = dn.Refine(dn.Predict(Caption, lm=dn.FunctionLM(answer)), reward, n=3)

    async def main():
        return await asyncio.gather(*(refine(subject=f"s{i}-") for i in range(50)))

    assert [p.sentence for p in run(main())] == [f"Hint: for s{i}-" for i in range(50)]


def test_reward_and_hints_function_run_with_hints_masked():
    predict = dn.Predict(Caption, lm=echo_hint())
    judge = dn.Predict(Caption, lm=echo_hint())
    results = []

    async def reward(row, prediction):
        results.append((dn.current_hint(predict), (await judge(subject="j")).sentence))
        return dn.Score(0.0, feedback="f")

    with dn.hints("outer"):
        run(dn.Refine(predict, reward, n=2)(subject="x"))
    assert results == [(None, "none")] * 2


def test_two_predictors_of_one_signature_class_get_different_hints():
    class Two(dn.Module):
        def __init__(self):
            self.first = dn.Predict(Caption, lm=echo_hint())
            self.second = dn.Predict(Caption, lm=echo_hint())

        async def forward(self, subject):
            a, b = await asyncio.gather(self.first(subject=subject), self.second(subject=subject))
            return {"a": a.sentence, "b": b.sentence}

    def hints(attempts, program, inputs):
        return {"first": f"one of {inputs.subject}", program.second: "two"}

    prediction = run(dn.Refine(Two(), scores(0, 1), n=2, hints=hints)(subject="x"))
    assert prediction.to_dict() == {"a": "one of x", "b": "two"}
    assert prediction.run.attempts.hint[1] == {"first": "one of x", "second": "two"}


@pytest.mark.parametrize("width", [1, 2])
def test_the_advisor_sees_every_earlier_attempt(width):
    class Two(dn.Module):
        def __init__(self):
            self.first = dn.Predict(Caption, lm=echo_hint())
            self.second = dn.Predict(Caption, lm=echo_hint())

        async def forward(self, subject):
            return {
                "a": (await self.first(subject=subject)).sentence,
                "b": (await self.second(subject=subject)).sentence,
            }

    prompts = []

    def advise(request):
        prompts.append(prompt(request))
        return chat(advice=f'{{"first": "A{len(prompts)}", "second": "B{len(prompts)}", "nobody": "C"}}')

    def reward(row, prediction):
        return 0.25

    refine = dn.Refine(Two(), reward, n=6, width=width, hints="advisor", advisor_lm=dn.FunctionLM(advise))
    prediction = run(refine(subject="x"))
    assert len(prompts) == 6 / width - 1
    for wave, text in enumerate(prompts, start=1):
        attempts = wave * width
        assert all(f"Attempt {i}\n" in text for i in range(1, attempts + 1))
        assert f"Attempt {attempts + 1}\n" not in text
        assert all(f"first = A{i}; second = B{i}" in text for i in range(1, wave))
        assert "score: 0.25" in text
        assert "first got subject = x" in text
        assert "second gave sentence = " in text
        assert "subject: str -> sentence: str" in text
    assert prediction.run.attempts.hint[width] == {"first": "A1", "second": "B1"}


def test_an_advisor_that_fails_costs_the_hint_and_nothing_else():
    advisor = dn.ScriptedLM(["nonsense"])
    refine = dn.Refine(dn.Predict(Caption, lm=echo_hint()), scores(0.1, 0.2), n=2, hints="advisor", advisor_lm=advisor)
    with pytest.warns(dn.AdvisorFailedWarning, match="wave 2 of Refine.* had no new hint: .*ParseError.*advisor_lm="):
        prediction = run(refine(subject="x"))
    attempts = prediction.run.attempts
    assert attempts.hint.tolist() == [None, None]
    assert attempts.hint_error.isna().tolist() == [True, False]
    assert "ParseError" in attempts.hint_error[1]
    assert dn.open_run(prediction.run.path).attempts.hint_error[1] == attempts.hint_error[1]


def test_a_failing_advisor_is_warned_of_once_a_run_however_many_rows_and_waves_it_fails_in():
    advisor = dn.FunctionLM(lambda request: "nonsense")
    refine = dn.Refine(
        dn.Predict(Caption, lm=echo_hint()), lambda row, p: 0.0, n=3, hints="advisor", advisor_lm=advisor
    )
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        run(refine.batch([{"subject": str(i)} for i in range(5)]))
    assert [warning.category for warning in warned] == [dn.AdvisorFailedWarning]
    assert sum(row.hint_error is not None for row in dn.last_run().record.attempts.values()) == 10
    with pytest.warns(dn.AdvisorFailedWarning):
        run(refine(subject="x"))  # another run


@pytest.mark.parametrize("hints", ["auto", "advisor"])
def test_an_advisor_without_a_model_takes_the_programs_where_none_is_configured(hints):
    prompts = []

    def answer(request):
        prompts.append(request)
        return chat(advice='{"self": "say blue"}') if "advice" in prompt(request) else chat(sentence="grey")

    refine = dn.Refine(dn.Predict(Caption, lm=dn.FunctionLM(answer)), lambda row, p: 0.0, n=2, hints=hints)
    prediction = run(refine(subject="x"))
    assert prediction.run.attempts.hint.tolist() == [None, "say blue"]
    assert len(prompts) == 3
    configured = dn.FunctionLM(lambda request: chat(advice='{"self": "say red"}'))
    with dn.context(lm=configured):
        assert run(refine(subject="x")).run.attempts.hint.tolist() == [None, "say red"]


def test_a_candidate_reaches_the_advisor_and_no_hint_does():
    prompts = []

    def advise(request):
        prompts.append(prompt(request))
        return chat(advice='{"self": "from the advisor"}')

    refine = dn.Refine(dn.Predict(Caption, lm=echo_hint()), scores(*[0] * 4), n=2, advisor_lm=dn.FunctionLM(advise))
    with dn.hints("for all"), dn.candidate({"advisor": "Advise in one word.", "self": "Be short."}, of=refine):
        run(refine(subject="x"))
    run(refine(subject="x"))
    assert ["Advise in one word." in text for text in prompts] == [True, False]
    assert not any("Hint: " in text for text in prompts)


def test_the_advisor_sees_the_instruction_that_is_tried():
    prompts = []

    def advise(request):
        prompts.append(prompt(request))
        return chat(advice='{"self": "from the advisor"}')

    refine = dn.Refine(dn.Predict(Caption, lm=echo_hint()), scores(*[0] * 4), n=2, advisor_lm=dn.FunctionLM(advise))
    with dn.candidate({"self": "Be short."}, of=refine):
        run(refine(subject="x"))
    run(refine(subject="x"))
    assert ["instruction: Be short." in text for text in prompts] == [True, False]


def test_the_advisor_sees_an_empty_instruction_as_what_it_is():
    texts = []

    def advise(request):
        texts.append(prompt(request))
        return chat(advice='{"self": "from the advisor"}')

    program = dn.Predict(Caption, instruction="", lm=echo_hint())
    run(dn.Refine(program, lambda row, prediction: 0.0, n=2, advisor_lm=dn.FunctionLM(advise))(subject="x"))
    assert Caption.__doc__ not in texts[0]


def test_what_the_advisor_sees_of_calls_side_by_side_does_not_depend_on_which_ended_first():
    class Parts(dn.Module):
        def __init__(self, lm):
            self.ask = dn.Predict(Caption, lm=lm)

        async def forward(self, subject):
            predictions = await asyncio.gather(*(self.ask(subject=f"{subject} {n}") for n in range(4)))
            return {"sentence": predictions[0].sentence}

    def advisor_prompts(seed):
        wait, texts = random.Random(seed), []

        async def answer(request):
            if "advice" in request.messages[0]["content"]:
                texts.append(prompt(request))
                return chat(advice='{"ask": "mind it"}')
            await asyncio.sleep(wait.random() * 0.01)
            return chat(sentence="red")

        lm = dn.FunctionLM(answer)
        run(dn.Refine(Parts(lm), lambda row, prediction: 0.0, n=2, advisor_lm=lm)(subject="x"))
        return texts

    (text,) = advisor_prompts(1)
    assert advisor_prompts(2) == [text]
    assert "code:\nasync def forward(self, subject):\n    predictions = await" in text  # as it is indented


@pytest.mark.parametrize("model", [5, "gpt-5"])
def test_an_advisors_model_that_is_none_is_refused_when_the_refine_is_made(model):
    with pytest.raises(ConfigurationError, match="a model is"):
        dn.Refine(dn.Predict(Caption), scores(0), advisor_lm=model)


def test_auto_asks_the_advisor_only_where_there_is_no_feedback():
    advisor = dn.ScriptedLM([chat(advice='{"self": "from the advisor"}')])
    refine = dn.Refine(dn.Predict(Caption, lm=echo_hint()), scores(0, 1), n=2, advisor_lm=advisor)
    assert run(refine(subject="x")).sentence == "from the advisor"
    refine = dn.Refine(
        dn.Predict(Caption, lm=echo_hint()), scores(0, 1, feedback="from the reward"), n=2, advisor_lm=advisor
    )
    assert run(refine(subject="x")).sentence == "from the reward"


def test_hint_as_field_leaves_the_system_message_as_it_was():
    lm = dn.ScriptedLM([chat(sentence="red"), chat(sentence="blue")])
    run(dn.Refine(dn.Predict(Caption, lm=lm), blue, n=2, hint_as="field")(subject="x"))
    first, second = (r.messages for r in lm.requests)
    assert first[:-1] == second[:-1]
    assert "say blue" in second[-1]["content"]
    assert "say blue" not in first[-1]["content"]


def test_attempt_i_samples_with_rollout_i_minus_1_and_nested_ones_never_share_a_rollout():
    requests = []

    def answer(request):
        requests.append(request)
        return chat(sentence="red")

    inner = dn.BestOfN(dn.Predict(Caption, lm=dn.FunctionLM(answer)), blue, n=3, temperature=0.5)
    run(inner(subject="x"))
    assert [r.rollout for r in requests] == [0, 1, 2]
    assert {r.settings["temperature"] for r in requests} == {0.5}
    requests.clear()
    run(dn.Refine(inner, blue, n=2, temperature=None)(subject="x"))
    assert len({r.rollout for r in requests}) == 6


def test_best_of_n_gives_no_hints():
    prediction = run(dn.BestOfN(dn.Predict(Caption, lm=echo_hint()), blue, n=3)(subject="x"))
    assert prediction.sentence == "none"
    assert prediction.run.attempts.hint.tolist() == [None] * 3


def test_without_a_pass_the_best_wins_and_the_first_of_equals():
    prediction = run(dn.BestOfN(dn.Predict(Caption, lm=echo_hint()), scores(0.1, 0.7, 0.7, 0.2), n=4)(subject="x"))
    assert prediction.run.attempts.best.tolist() == [False, True, False, False]
    assert prediction.score.value == 0.7


@pytest.mark.parametrize("delays", [(30, 5, 1), (1, 5, 30), (5, 1, 30), (30, 1, 5)])
def test_the_lowest_attempt_that_passes_wins_whatever_the_timing(delays):
    async def answer(request):
        await asyncio.sleep(delays[request.rollout] / 1000)
        return chat(sentence=f"{'red' if request.rollout == 0 else 'blue'} {request.rollout}")

    prediction = run(dn.BestOfN(dn.Predict(Caption, lm=dn.FunctionLM(answer)), blue, n=3, width=3)(subject="x"))
    table = prediction.run.attempts
    assert prediction.sentence == "blue 1"
    assert table.sentence.tolist() == ["red 0", "blue 1", None]
    assert table.error.tolist() == [None, None, "cancelled"]
    assert table.score.isna().tolist() == [False, False, True]


def test_an_attempt_that_raises_is_an_attempt_with_an_error():
    lm = dn.ScriptedLM([RuntimeError("boom"), chat(sentence="blue")])
    prediction = run(dn.Refine(dn.Predict(Caption, lm=lm), blue, n=2, hints="feedback")(subject="x"))
    assert prediction.sentence == "blue"
    assert prediction.run.attempts.error.tolist() == ["RuntimeError: boom", None]


def test_a_reply_that_cannot_be_parsed_becomes_the_hint():
    lm = dn.ScriptedLM(["no markers", "nor here", chat(sentence="blue")])  # the second was asked for as a repair
    prediction = run(dn.Refine(dn.Predict(Caption, lm=lm), blue, n=2)(subject="x"))
    assert "no `[[ ## sentence ## ]]`" in prediction.run.attempts.hint[1]


def test_failures_are_counted_for_one_call_only():
    lm = dn.FunctionLM(lambda r: (_ for _ in ()).throw(RuntimeError("x")) if r.rollout == 0 else chat(sentence="blue"))
    refine = dn.Refine(dn.Predict(Caption, lm=lm), blue, n=2, max_failures=1, hints="feedback")

    async def main():
        return await asyncio.gather(*(refine(subject=str(i)) for i in range(20)))

    assert {p.sentence for p in run(main())} == {"blue"}


def test_max_failures_zero_means_that_the_first_failure_ends_the_call():
    lm = dn.ScriptedLM([chat(sentence="red"), RuntimeError("boom"), chat(sentence="blue")])
    with pytest.raises(TooManyFailures, match="max_failures=0.*boom") as raised:
        run(dn.Refine(dn.Predict(Caption, lm=lm), blue, n=3, max_failures=0)(subject="x"))
    assert len(raised.value.exceptions) == 1
    assert dn.last_run().attempts.sentence.tolist() == ["red", None]


def test_when_all_attempts_fail_each_error_is_in_the_group():
    lm = dn.ScriptedLM([RuntimeError("a"), ValueError("b")])
    with pytest.raises(AllAttemptsFailed, match="all 2 attempts failed; the last: b") as raised:
        run(dn.Refine(dn.Predict(Caption, lm=lm), blue, n=2, hints="feedback")(subject="x"))
    assert [type(e) for e in raised.value.exceptions] == [RuntimeError, ValueError]
    assert isinstance(raised.value, dn.DspynbError)


@pytest.mark.parametrize(
    ("returned", "says"),
    [(None, "returned None"), (math.nan, "nan"), ("good", "text 'good'"), (object(), "object"), ([1], "list")],
)
def test_a_reward_that_returns_no_score_is_a_recorded_failed_attempt(returned, says):
    refine = dn.Refine(dn.Predict(Caption, lm=echo_hint()), lambda row, p: returned, n=1)
    with pytest.raises(AllAttemptsFailed, match=says):
        run(refine(subject="x"))
    table = dn.last_run().attempts
    assert table.sentence.tolist() == ["none"]
    assert table.error[0].startswith("RewardError")


def test_a_reward_that_raises_on_one_attempt_loses_nothing_else():
    calls = []

    def reward(row, prediction):
        calls.append(1)
        if len(calls) == 1:
            raise KeyError("oops")
        return True

    prediction = run(dn.Refine(dn.Predict(Caption, lm=echo_hint()), reward, n=2, hints="feedback")(subject="x"))
    assert prediction.score.value == 1.0
    assert "the reward reward raised KeyError" in prediction.run.attempts.error[0]


def test_a_reward_may_ask_for_the_trace_by_name():
    def reward(row, prediction, trace):
        return len(trace)

    assert run(dn.BestOfN(dn.Predict(Caption, lm=echo_hint()), reward, n=1)(subject="x")).score.value == 1.0
    default = lambda row, p, e=5: e  # noqa: E731
    assert run(dn.BestOfN(dn.Predict(Caption, lm=echo_hint()), default, n=1)(subject="x")).score.value == 5.0


def test_an_inner_refine_adds_its_hint_after_the_outer_one():
    inner = dn.Refine(dn.Predict(Caption, lm=echo_hint()), lambda r, p: dn.Score(0, "inner"), n=2)
    outer = dn.Refine(inner, lambda r, p: dn.Score(0, "outer"), n=2)
    run(outer(subject="x"))
    hints = [c.hint for c in dn.last_run().record.calls]
    assert hints == [None, "inner", "outer", "outer\ninner"]


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"n": 0}, "n must be a whole number of at least 1, got 0"),
        ({"n": 2, "width": 3}, r"from 1 to n \(2\), got 3"),
        ({"n": 2, "width": 0}, "width"),
        ({"n": 1.5}, "whole number"),
        ({"max_failures": -1}, "max_failures"),
        ({"threshold": "high"}, "threshold must be a number"),
        ({"hints": "feedbak"}, "hints must be one of"),
        ({"hint_as": "system"}, "hint_as"),
        ({"reward": 5}, "reward must be a function"),
    ],
)
def test_a_wrong_setting_raises_when_the_refine_is_created(kwargs, says):
    with pytest.raises(ConfigurationError, match=says):
        dn.Refine(dn.Predict(Caption), kwargs.pop("reward", blue), **kwargs)


def test_a_program_that_is_no_module_raises_an_error():
    with pytest.raises(InputError, match=r"must be a dn\.Module"):
        dn.Refine("question -> answer", blue)


@pytest.mark.parametrize("hint", [5, {"nobody": "x"}, {"self": 3}])
def test_a_wrong_hint_of_a_function_raises_and_the_attempts_stay_recorded(hint):
    refine = dn.Refine(dn.Predict(Caption, lm=echo_hint()), scores(0, 0), n=2, hints=lambda a, p, i: hint)
    with pytest.raises(HintError):
        run(refine(subject="x"))
    assert len(dn.last_run().attempts) == 1


def test_wrong_inputs_and_a_missing_model_raise_after_the_first_attempt():
    refine = dn.Refine(dn.Predict(Caption, lm=echo_hint()), blue, n=5)
    with pytest.raises(InputError, match="'subject' is missing"):
        run(refine())
    assert len(dn.last_run().attempts) == 1
    with pytest.raises(NoModelError, match=r"dn\.LocalLM"):
        run(dn.Refine(dn.Predict(Caption), blue, n=5)(subject="x"))


def test_an_empty_subject_is_an_input_like_any_other():
    assert run(dn.Refine(dn.Predict(Caption, lm=echo_hint()), blue, n=2)(subject="")).sentence == "say blue"


def test_sync_use_works_without_a_loop():
    assert dn.Refine(dn.Predict(Caption, lm=echo_hint()), blue, n=2).run_sync(subject="x").sentence == "say blue"


def test_an_inner_refines_hint_never_reaches_the_outer_attempts_other_calls():
    shared = dn.Predict(Caption, lm=echo_hint())

    class Program(dn.Module):
        def __init__(self):
            self.inner = dn.Refine(shared, lambda r, p: dn.Score(0, "inner"), n=2)
            self.shared = shared

        async def forward(self, subject):
            inner = await self.inner(subject=subject)
            after = await self.shared(subject=subject)
            return {"inner": inner.sentence, "after": after.sentence}

    assert run(Program()(subject="x"))["after"] == "none"
    outer = dn.Refine(Program(), lambda r, p: dn.Score(0, "outer"), n=2)
    last = [c.hint for c in run(outer(subject="x")).run.record.calls]
    assert last == [None, "inner", None, "outer", "outer\ninner", "outer"]


def test_refine_in_a_batch_keeps_each_rows_hints_to_the_row():
    reward = lambda row, p: dn.Score(0.0, feedback=f"for {row.subject}")  # noqa: E731
    refine = dn.Refine(dn.Predict(Caption, lm=echo_hint()), reward, n=2)
    results = run(refine.batch([{"subject": f"s{i}"} for i in range(20)], concurrency=7))
    assert [r.run.attempts.sentence[1] for r in results] == [f"for s{i}" for i in range(20)]
    assert dn.last_run().kind == "batch"


def test_attempts_wide_at_once_take_the_time_of_their_waves():
    async def answer(request):
        await asyncio.sleep(0.1)
        return chat(sentence="red")

    refine = dn.Refine(dn.Predict(Caption, lm=dn.FunctionLM(answer)), blue, n=8, width=4)
    prediction = run(refine(subject="x"))
    assert prediction.run.attempts.wave.tolist() == [1] * 4 + [2] * 4
    assert prediction.run.attempts.hint.tolist() == [None] * 4 + ["say blue"] * 4


def test_a_judge_in_the_reward_is_sampled_as_it_was_made_not_as_the_attempt_is():
    requests = []

    def answer(request):
        requests.append(request)
        return chat(sentence="s")

    judge = dn.Predict(Caption, lm=dn.FunctionLM(answer), temperature=0.0)

    async def reward(row, prediction):
        await judge(subject="judge this")
        return 0.0

    run(dn.Refine(dn.Predict(Caption, lm=echo_hint()), reward, n=2, hints=lambda a, p, i: "h")(subject="x"))
    assert [(r.rollout, r.settings["temperature"]) for r in requests] == [(0, 0.0)] * 2


def test_no_two_calls_of_nested_attempts_share_a_rollout():
    requests = []

    def answer(request):
        requests.append(request.rollout)
        return chat(sentence="s")

    predict = dn.Predict(Caption, lm=dn.FunctionLM(answer))

    class Program(dn.Module):
        def __init__(self):
            self.inner, self.predict = dn.BestOfN(predict, lambda r, p: 0.0, n=2), predict

        async def forward(self, subject):
            await self.inner(subject=subject)
            return await self.predict(subject=subject)

    run(dn.BestOfN(Program(), lambda r, p: 0.0, n=2)(subject="x"))
    assert len(requests) == len(set(requests)) == 6


@pytest.mark.parametrize("delay", [0.0, 0.05])
def test_a_callers_mistake_counts_in_the_order_of_attempts_not_of_time(delay):
    class Program(dn.Module):
        async def forward(self, subject):
            if dn.current_attempt().number == 2:
                raise InputError("the caller's mistake")
            await asyncio.sleep(delay)
            return {"sentence": "blue"}

    assert run(dn.BestOfN(Program(), blue, n=2, width=2)(subject="x")).sentence == "blue"


def test_an_attempt_that_refuses_to_be_cancelled_is_recorded_as_cancelled_and_stays_so():
    async def stubborn():
        ends = asyncio.get_running_loop().time() + 0.7
        while asyncio.get_running_loop().time() < ends:
            try:
                await asyncio.sleep(0.1)
            except asyncio.CancelledError:
                continue

    class Program(dn.Module):
        async def forward(self, subject):
            if dn.current_attempt().number == 2:
                await stubborn()
            return {"sentence": "blue"}

    class Twice(dn.Module):
        def __init__(self):
            self.search = dn.BestOfN(Program(), blue, n=2, width=2)

        async def forward(self, subject):
            prediction = await self.search(subject=subject)
            await asyncio.sleep(0.5)
            return prediction

    prediction = run(Twice()(subject="x"))
    assert prediction.run.attempts.error.tolist() == [None, "cancelled"]


def test_a_model_that_returns_no_reply_raises_an_error():
    class Wrong:
        async def complete(self, request):
            return "text"

    with pytest.raises(ModelError, match="returned str; a model returns an LMReply"):
        run(dn.Predict(Caption, lm=Wrong())(subject="x"))


def test_a_program_may_have_a_predictor_named_advisor():
    class Program(dn.Module):
        def __init__(self):
            self.advisor = dn.Predict(Caption)

    assert [path for path, _ in dn.Refine(Program(), blue).named_predictors()] == ["advisor", "refine_advisor"]


def test_rows_with_labels_fit_a_refine_of_a_module_as_they_fit_the_module():
    class Outer(dn.Module):
        def __init__(self):
            self.inner = dn.Predict(Caption, lm=echo_hint())

        async def forward(self, subject):
            return await self.inner(subject=subject)

    rows = [{"subject": "x", "label": "blue"}]
    for program in (Outer(), dn.Refine(Outer(), blue, n=2), dn.BestOfN(Outer(), blue, n=2)):
        assert program.input_names() == {"subject": True}
        (prediction,) = run(program.batch(rows))
        assert isinstance(prediction, dn.Prediction)


def test_retries_switched_off_leave_the_first_attempt_alone_in_a_snapshot_too():
    refine = dn.Refine(dn.Predict(Caption, lm=echo_hint()), blue, n=3, width=2)
    calls = refine.most_calls()
    with Layer(None, context=CallContext(retries=False)):
        assert refine.most_calls() == refine.module.most_calls() < calls
        assert len(run(refine(subject="x")).run.attempts) == 1
        snapshot = dn.snapshot()
    assert len(run(refine(subject="x")).run.attempts) == 3
    with snapshot.enter():
        assert len(run(refine(subject="x")).run.attempts) == 1


@pytest.mark.parametrize("fn", [lambda prediction: 1.0, lambda row, prediction, strict: 1.0, lambda: 1.0])
def test_a_reward_that_cannot_be_called_with_row_and_prediction_is_refused_before_any_call(fn):
    message = r"is called with \(row, prediction\), which does not fit <lambda>\("
    for make in (lambda: dn.Refine(dn.Predict(Caption), fn), lambda: dn.Evaluate(fn)):
        with pytest.raises(dn.errors.ConfigurationError, match=message):
            make()
