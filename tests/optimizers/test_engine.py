"""The engine: candidates, the score matrix, evaluations and proposals, recorded in the order of submission."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import replace

import pytest

import dspynb as dn
from dspynb.errors import BudgetExhausted, ConfigurationError, OptimizerError
from dspynb.events import CandidateProposed, CandidateScored, ProposalEnded, RolloutEnded
from dspynb.optimizers.core.candidate import Candidate
from dspynb.optimizers.core.problem import Teacher
from dspynb.scope import Layer, Part, current_scope
from tests.helpers import chat, field
from tests.optimizers.worlds import TRAIN, VAL, Plan, World, events, one, optimized, planned, rows, three


def instructed(engine, text, **keywords):
    """A candidate with this instruction."""
    return engine.candidate({engine.paths[0]: Part(instruction=text)}, origin="test", **keywords)


def test_candidates_of_equal_content_are_the_same_object():
    async def search(engine):
        first, second = instructed(engine, "Do."), instructed(engine, "Do.", step=3)
        assert first is second
        assert first.step == 0
        own = engine.program.signature.instruction
        assert instructed(engine, own) is engine.start
        assert engine.candidate({"self": Part(demos=())}, origin="test") is engine.start

    run = planned(search)
    assert len(events(run, CandidateProposed)) == 2


def test_ids_depend_on_the_content_only():
    program = dn.Predict("question -> answer")
    one_way = Candidate.of({"self": Part(demos=({"question": "1", "answer": "2"},))}, program)
    other = Candidate.of({"self": Part(demos=({"answer": "2", "question": "1"},))}, program)
    assert one_way.id == other.id
    assert Candidate().id == "e3b0c44298fc"
    assert one_way.id != Candidate.of({"self": Part(instruction="x")}, program).id


def test_an_unregistered_candidate_is_scored_and_never_the_best():
    async def search(engine):
        await engine.evaluate(engine.start)
        passing = Candidate.of({engine.paths[0]: Part(instruction="steps")}, engine.program)
        assert (await engine.evaluate(passing)).mean > engine.mean(engine.start)
        assert engine.best is engine.start
        assert engine.register(passing) is engine.best

    assert planned(search).status == "finished"


def test_only_candidates_with_the_highest_mean_are_rated():
    rated = []

    async def search(engine):
        engine.leaderboard.prefers = lambda c: rated.append(c.origin) or c.step
        for step, text in enumerate(["steps", "steps, too", "steps as well", "Do."], start=1):
            await engine.evaluate(instructed(engine, text, step=step))
        assert engine.mean(engine.candidates[list(engine.candidates)[4]]) < engine.mean(engine.best)
        rated.clear()
        assert engine.best.step == 3
        assert len(rated) == 3

    assert planned(search).status == "finished"


def test_rollouts_run_once_and_in_the_order_of_submission():
    async def search(engine):
        candidate = instructed(engine, "steps")
        on_two_rows = engine.evaluate(candidate, [2, 0])
        on_all_rows = engine.evaluate(candidate)
        assert list((await on_two_rows).rows) == [2, 0]
        assert list((await on_all_rows).rows) == list(range(7))
        assert (await engine.evaluate(candidate, [2, 2])).mean == engine.scores(candidate)[2]

    run = planned(search, budget=dn.Budget(metric_calls=7))
    assert run.status == "finished"
    assert [e.row for e in events(planned(search, World(), concurrency=1), RolloutEnded)][:2] == [2, 0]
    assert len(events(run, RolloutEnded)) == 7


def test_a_repeat_is_sampled_at_temperature_1_also_for_a_teacher():
    samples = []

    def answer(request):
        samples.append((request.rollout, request.settings.get("temperature")))
        return chat(answer="1")

    async def search(engine):
        await engine.evaluate(engine.start, [0])
        await engine.evaluate(engine.start, [0], repeat=1)
        await engine.rollout(engine.start, 0, repeat=2)
        await engine.rollout(engine.start, 0, repeat=3, teacher=Teacher(engine.program))

    planned(search, program=lambda world: dn.Predict("question -> answer", lm=dn.FunctionLM(answer)))
    assert samples == [(0, None), (1, 1.0), (2, 1.0), (3, 1.0)]


def test_an_evaluation_that_does_not_fit_is_refused_whole_and_earlier_ones_are_recorded():
    async def search(engine):
        first = engine.evaluate(instructed(engine, "steps"))
        second = engine.evaluate(instructed(engine, "careful"))
        with pytest.raises(BudgetExhausted, match="13 metric calls is spent"):
            await second
        assert not first.cancelled()
        third = engine.evaluate(instructed(engine, "short"), [0])
        with pytest.raises(BudgetExhausted):
            await third
        await second

    run = planned(search, budget=dn.Budget(metric_calls=13))
    assert run.status == "exhausted"
    assert [(e.rows, e.full) for e in events(run, CandidateScored)] == [(7, True)]
    assert len(events(run, RolloutEnded)) == 7


def test_the_best_is_the_first_of_equal_candidates_that_are_recorded():
    async def search(engine):
        candidates = [instructed(engine, f"{'x' * i}") for i in range(4)]
        tasks = [engine.evaluate(c) for c in candidates]
        assert engine.best is engine.start
        for candidate, task in zip(candidates, tasks, strict=True):
            await task
            assert engine.mean(candidate) == 1.0
            assert engine.best is candidates[0]

    run = planned(search, metric=lambda row, prediction: 1.0)
    assert {e.best for e in events(run, CandidateScored)} == {events(run, CandidateScored)[0].candidate}


def test_evaluations_are_recorded_in_the_order_of_submission_whatever_the_latencies():
    recorded_by_run = []
    for latency in (None, 1, 2, 3):

        async def search(engine):
            candidates = [instructed(engine, text) for text in ("steps", "short", "check", "units")]
            tasks = [engine.evaluate(c, step=i) for i, c in enumerate(candidates)]
            await tasks[-1]
            assert all(task.done() for task in tasks)

        run = planned(search, World(latency))
        recorded_by_run.append([(e.step, e.score, e.best) for e in events(run, CandidateScored)])
    assert all(one_run == recorded_by_run[0] for one_run in recorded_by_run)
    assert [step for step, *_ in recorded_by_run[0]] == [0, 1, 2, 3]


def test_a_program_that_fails_on_all_rows_is_an_error_but_not_on_a_few_rows_or_test_rows():
    bad = [{"question": "bad", "answer": str(i)} for i in range(3)]

    async def search(engine):
        assert (await engine.evaluate(engine.start, [0, 1, 2])).mean == 0
        await engine.evaluate(engine.start)

    done = planned(search, val=[*bad, *VAL])
    assert done.status == "finished"
    assert "(start) failed on 3 of 10 validation rows (counted as 0; see error in run.rollouts)." in done.summary
    assert planned(search, val=[*bad, *VAL], test=[{"question": "bad", "answer": "9"}]).status == "finished"
    with pytest.raises(OptimizerError, match=r"fails on all 3 rows as it is.*the provider fell over"):
        planned(search, val=bad)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("mostly", "(mostly) failed on 1 of 7 validation rows (counted as 0; see error in run.rollouts)."),
        ("never", "None of 2 candidates"),
    ],
)
def test_the_summary_has_the_failures_of_the_winner_which_did_not_fail_on_all_rows(text, says):
    class Falls(World):
        def _output(self, request, text):
            system, is_first_row = request.messages[0]["content"], field(request, "question") == VAL[0]["question"]
            if "never" in system or ("mostly" in system and is_first_row):
                raise dn.errors.ServerError("the provider fell over")
            return super()._output(request, text)

    async def search(engine):
        await engine.evaluate(engine.start)
        await engine.evaluate(engine.candidate({"self": Part(text)}, origin=text))

    with pytest.warns(dn.ScoreRangeWarning):
        assert says in planned(search, Falls(), metric=lambda row, prediction: -1.0).summary


def test_a_failed_proposal_returns_none_and_a_successful_one_resets_the_count():
    replies = []

    class Numbers:
        def __init__(self):
            self.at = 0

        def __call__(self, request):
            self.at += 1
            return chat(said="7") if self.at in (5, 12) else "nothing"

    predict = dn.Predict("ask -> said: int", lm=dn.FunctionLM(Numbers()))

    async def some_fail(engine):
        for i in range(30):
            proposed = await engine.propose(f"p{i}", predict, {"ask": str(i)})
            replies.append(None if proposed is None else proposed["said"])

    with pytest.raises(OptimizerError, match=r"3 proposals in a row failed.*'nothing'"):
        planned(some_fail, patience=3)
    run = dn.last_run()
    ended = events(run, ProposalEnded)
    assert [e.outputs is not None for e in ended] == [False, False, True, False, False, False]
    assert replies == [None, None, 7, None, None]


def test_proposals_see_neither_the_candidate_nor_hints():
    prompts = []

    def answer(request):
        prompts.append(str(request.messages))
        return chat(said="fine")

    async def search(engine):
        with dn.hints("A hint that must not be seen."):
            await engine.propose("p", dn.Predict("ask -> said", lm=dn.FunctionLM(answer)), {"ask": "1"})

    planned(search)
    assert len(prompts) == 1
    assert "must not be seen" not in prompts[0]


def test_a_proposal_that_was_cancelled_from_inside_is_a_failed_one():
    async def gone(request):
        raise asyncio.CancelledError

    async def search(engine):
        assert await engine.propose("p", dn.Predict("ask -> said", lm=dn.FunctionLM(gone)), {"ask": "1"}) is None
        await engine.evaluate(engine.start)

    assert planned(search).status == "finished"


def test_no_exception_is_left_unretrieved():
    loop_errors = []

    async def search(engine):
        engine.evaluate(instructed(engine, "steps"))
        engine.propose("p", dn.Predict("ask -> said: int", lm=dn.FunctionLM(lambda r: "no")), {"ask": "1"})
        engine.rollout(engine.start, 0)
        raise ValueError("the search is broken")

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: loop_errors.append(context["message"]))
        with pytest.raises(ValueError, match="broken"):
            await Plan(search, budget=dn.Budget(metric_calls=7), patience=1).compile(one(World(1)), TRAIN, VAL)
        gc.collect()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    assert loop_errors == []


def test_the_reserve_for_test_rows_is_released_when_the_search_fails():
    async def search(engine):
        raise ValueError("the search is broken")

    async def main():
        with dn.Budget(metric_calls=100, calls=100) as meter, pytest.raises(ValueError, match="broken"):
            await Plan(search).compile(one(World()), TRAIN, VAL, test=rows(30, 33))
        assert meter.left == {"calls": 100, "metric_calls": 100}

    asyncio.run(main())


def test_random_generators_depend_on_the_seed_and_the_purpose_only():
    numbers = {}

    async def search(engine):
        numbers[engine.seed] = [engine.random("a", 1).random(), engine.random("a", 2).random()]
        assert engine.random("a", 1).random() == numbers[engine.seed][0]

    for seed in (0, 0, 1):
        planned(search, seed=seed)
    assert len({*numbers[0], *numbers[1]}) == 4


def test_a_candidate_is_applied_to_a_copy_and_changes_only_what_it_has():
    program = three(World())
    parts = {"steps[0]": Part(instruction="Think.", demos=({"question": "1", "plan": "p", "draft": "d"},))}
    new = Candidate.of(parts, program).applied(program)
    assert new.steps[0].instruction == "Think."
    assert new.steps[0].demos == [{"question": "1", "plan": "p", "draft": "d"}]
    assert (new.plan.instruction, new.plan.demos) == (None, [])
    assert (program.steps[0].instruction, program.steps[0].demos) == (None, [])


def test_a_reopened_run_has_the_parts_of_the_best_candidate():
    done = asyncio.run(optimized(dn.COPRO, World()))
    reopened = dn.open_run(done.id)
    best = reopened.candidates[reopened.candidates.best].iloc[0]
    assert {path: part["instruction"] for path, part in reopened.best_parts.items()} == best.instructions
    assert reopened.best_parts == done.best_parts
    with dn.candidate(reopened.best_parts, of=one(World())):
        pass


def test_the_best_of_a_reopened_run_is_deprecated_for_its_best_parts():
    done = asyncio.run(optimized(dn.COPRO, World()))
    reopened = dn.open_run(done.id)
    with pytest.warns(DeprecationWarning, match=r"use run\.best_parts"):
        assert reopened.best == done.best_parts
    assert isinstance(done.best, dn.Module)


def test_a_run_that_is_no_optimizers_has_no_best_parts():
    ask = dn.Predict("question -> answer", lm=dn.ScriptedLM(["answer: four", "answer: 4"]))
    done = dn.BestOfN(ask, reward=lambda row, prediction: prediction.answer.isdigit()).run_sync(question="2+2?").run
    assert (done.best_parts, dn.open_run(done.id).best_parts, dn.open_run(done.id).best) == (None, None, None)


def test_without_retries_on_test_rows_the_reserve_is_what_they_take_without_retries():
    rows = [{"question": str(number), "answer": "1"} for number in range(8)]
    ask = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 1"))
    program = dn.Refine(ask, lambda row, prediction: 0.5, n=3)
    optimizer = dn.BootstrapFewShot(metric=lambda row, prediction: 1.0, budget=dn.Budget(calls=1))

    async def compiled():
        with Layer(None, context=replace(current_scope().context, retries=False)):
            return await optimizer.compile(program, rows[:4], test=rows[4:])

    with pytest.raises(ConfigurationError, match="and 16 for the test rows"):  # 4 rows twice, each with a repair
        asyncio.run(compiled())
