"""run.hints: which hints were used, what became of their attempts, and that nothing is counted twice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import dspynb as dn
from dspynb.redact import keep_secret
from dspynb.running.journal import flush_journals
from tests.helpers import Caption, chat, echo_hint, field, prompt, scores

run = asyncio.run
COLUMNS = ["hint", "predictor", "used", "passed", "gain"]


def blue(row, prediction):
    return dn.Score(float("blue" in prediction.sentence), feedback="say blue")


def table(of):
    """The rows of a hints table, as tuples."""
    assert list(of.columns) == COLUMNS
    return [tuple(row) for row in of.itertuples(index=False)]


def subjects(count):
    return [{"subject": f"s{i}"} for i in range(count)]


def hinted(n=2, *, hints="feedback", reward=blue, lm=None, **settings):
    return dn.Refine(dn.Predict(Caption, lm=lm or echo_hint()), reward, n=n, hints=hints, **settings)


def in_turn(*texts):
    """Hints, one per wave."""
    return lambda attempts, program, inputs: texts[attempts[-1].wave - 1]


def test_a_hint_that_turned_a_failure_into_a_pass_is_listed_with_its_gain():
    prediction = run(hinted()(subject="x"))
    assert table(prediction.run.hints) == [("say blue", "self", 1, 1, 1.0)]


def test_a_run_without_hints_has_an_empty_table_of_the_same_columns():
    passes = dn.FunctionLM(lambda request: chat(sentence="blue"))
    for program in (
        hinted(lm=passes),
        dn.Predict(Caption, lm=passes),
        dn.BestOfN(dn.Predict(Caption, lm=passes), blue),
    ):
        run(program(subject="x"))
        frame = dn.last_run().hints
        assert table(frame) == []
        assert [str(kind) for kind in frame.dtypes[2:]] == ["int64", "int64", "float64"]


def test_the_gain_is_relative_to_the_mean_of_attempts_without_a_hint_and_not_to_the_previous_attempt():
    refine = hinted(4, hints=in_turn(None, "a", "b"), reward=scores(0.2, 0.4, 0.9, 0.6), threshold=1.0)
    prediction = run(refine(subject="x"))
    assert prediction.run.attempts.hint.tolist() == [None, None, "a", "b"]
    assert table(prediction.run.hints) == [
        ("a", "self", 1, 0, pytest.approx(0.6)),
        ("b", "self", 1, 0, pytest.approx(0.3)),
    ]


def test_every_attempt_of_a_wave_counts_but_not_a_cancelled_one():
    refine = hinted(4, width=2, reward=scores(0.0, 0.5, 0.0, 0.75), threshold=2.0)
    assert table(run(refine(subject="x")).run.hints) == []  # this reward has no feedback

    async def answer(request):
        number = request.rollout + 1
        await asyncio.sleep(0.02 if number == 4 else 0)
        return chat(sentence="blue" if number == 3 else "grey")

    frame = run(hinted(4, width=2, lm=dn.FunctionLM(answer))(subject="x")).run
    assert frame.attempts.error.tolist()[3] == "cancelled"
    assert table(frame.hints) == [("say blue", "self", 1, 1, 1.0)]


def test_an_attempt_that_failed_counts_as_0_with_and_without_a_hint():
    replies = {0: "no form at all", 1: chat(sentence="blue"), 2: "none"}
    refine = hinted(2, lm=dn.FunctionLM(lambda request: replies[request.rollout]))
    refine.module.adapter = dn.ChatAdapter(repair=False)
    (row,) = table(run(refine(subject="x")).run.hints)
    assert "could not be read" in row[0]
    assert row[1:] == ("self", 1, 1, 1.0)
    replies[0], replies[1] = chat(sentence="grey"), "no form at all"
    assert table(run(refine(subject="x")).run.hints) == [("say blue", "self", 1, 0, 0.0)]


def test_the_hint_with_the_largest_total_gain_comes_first():
    def reward(row, prediction):
        often = int(row.subject[1:]) < 3
        value = {"none": 0.0, "often": 0.5, "once": 1.0, "harm": -1.0}[prediction.sentence]
        return dn.Score(value, feedback="often" if often else {"s3": "once", "s4": "harm"}[row.subject])

    refine = hinted(reward=reward)
    run(refine.batch(subjects(5)))
    assert table(dn.last_run().hints) == [
        ("often", "self", 3, 0, 0.5),
        ("once", "self", 1, 1, 1.0),
        ("harm", "self", 1, 0, -1.0),
    ]


class Two(dn.Module):
    def __init__(self, lm=None):
        self.first = dn.Predict(Caption, lm=lm or echo_hint())
        self.second = dn.Predict(Caption, lm=lm or echo_hint())

    async def forward(self, subject):
        a, b = await asyncio.gather(self.first(subject=subject), self.second(subject=subject))
        return {"sentence": f"{a.sentence} {b.sentence}"}


def test_a_hint_for_one_of_several_predictors_has_its_path_and_one_for_all_has_a_star():
    refine = dn.Refine(Two(), blue, n=2, hints=lambda *_: {"first": "say blue", "second": "say more"})
    assert table(run(refine(subject="x")).run.hints) == [
        ("say blue", "first", 1, 1, 1.0),
        ("say more", "second", 1, 1, 1.0),
    ]
    assert table(run(dn.Refine(Two(), blue, n=2)(subject="x")).run.hints) == [("say blue", "*", 1, 1, 1.0)]


class Outer(dn.Module):
    """Two refined programs, of which one is a predictor and one holds two."""

    def __init__(self):
        self.answer = dn.Refine(Two(), blue, n=2, hints=lambda *_: {"second": "blue for one"})
        self.steps = [dn.Refine(Two(), blue, n=2), hinted()]

    async def forward(self, subject):
        parts = [await part(subject=subject) for part in (self.answer, *self.steps)]
        return {"sentence": " ".join(part.sentence for part in parts)}


def test_refines_inside_a_module_have_the_paths_of_the_whole_program():
    run(Outer()(subject="x"))
    assert table(dn.last_run().hints) == [
        ("blue for one", "answer.second", 1, 1, 1.0),
        ("say blue", "steps[0].*", 1, 1, 1.0),
        ("say blue", "steps[1]", 1, 1, 1.0),
    ]


def test_nested_refines_count_each_their_own_hints():
    def inner(row, prediction):
        return dn.Score(float("inner" in prediction.sentence), feedback="inner")

    def outer(row, prediction):
        return dn.Score(float("outer" in prediction.sentence), feedback="outer")

    nested = dn.Refine(hinted(reward=inner), outer, n=2, hints="feedback")
    frame = run(nested(subject="x")).run
    assert table(frame.hints) == [("outer", "self", 1, 1, 1.0), ("inner", "self", 2, 2, 1.0)][::-1]


def test_the_run_of_one_prediction_has_its_own_hints_and_that_of_the_batch_has_all():
    def reward(row, prediction):
        return dn.Score(float(row.subject in prediction.sentence), feedback=f"say {row.subject}")

    predictions = run(hinted(reward=reward).batch(subjects(3)))
    assert [table(p.run.hints) for p in predictions] == [[(f"say s{i}", "self", 1, 1, 1.0)] for i in range(3)]
    assert sorted(row[0] for row in table(dn.last_run().hints)) == ["say s0", "say s1", "say s2"]


def test_an_evaluation_and_an_optimizers_run_have_their_hints_live_and_reopened():
    async def main():
        evaluation = await dn.evaluate(hinted(), subjects(4), blue)
        optimizer = dn.COPRO(
            blue, breadth=2, depth=1, prompt_lm=dn.FunctionLM(lambda _: chat(proposed_instruction="Be."))
        )
        optimized = optimizer.start(hinted(), subjects(4))
        await optimized
        return evaluation.run, optimized

    evaluated, optimized = run(main())
    flush_journals()
    assert table(evaluated.hints) == [("say blue", "self", 4, 4, 1.0)]
    assert table(optimized.hints) == [("say blue", "self", 8, 8, 1.0)]  # of two candidates
    for done in (evaluated, optimized):
        assert table(dn.open_run(done.path).hints) == table(done.hints)


def test_no_secret_is_in_the_table():
    keep_secret("planted-in-feedback")
    reward = scores(0, 1, feedback="use planted-in-feedback")
    assert table(run(hinted(reward=reward)(subject="x")).run.hints) == [("use ***", "self", 1, 1, 1.0)]


def test_a_resumed_evaluation_counts_no_attempt_twice():
    def answer(request):
        hint = "Hint: " in prompt(request)
        return chat(sentence=f"{field(request, 'subject')} {'blue' if hint else 'grey'}")

    program = hinted(lm=dn.FunctionLM(answer))
    plan = dn.Evaluate(blue, concurrency=1)

    async def uninterrupted():
        return (await plan(program, subjects(3))).run

    full_run = run(uninterrupted())
    flush_journals()
    lines = Path(full_run.path).read_bytes().splitlines(keepends=True)
    hints = table(full_run.hints)
    assert hints == [("say blue", "self", 3, 3, 1.0)]

    async def resumed():
        resumed_run = plan.resume(full_run.path, program, subjects(3))
        await resumed_run
        return resumed_run

    for cut in range(2, len(lines)):
        Path(full_run.path).write_bytes(b"".join(lines[:cut]))
        assert table(run(resumed()).hints) == hints, cut
        flush_journals()
