"""Interventions of a person in a search, as a strategy sees them: steps, candidates, and the budget for these."""

from __future__ import annotations

import asyncio

import pytest

import dspynb as dn
from dspynb.errors import OptimizerError
from dspynb.events import CandidateProposed, CandidateScored, RolloutEnded, Steered
from tests.optimizers.worlds import TRAIN, VAL, Plan, World, events, one, planned, right, three


def guided(search, ask, *, program=one, **common):
    """The run of a search with requests (made by ``ask``) before its first step."""

    async def main():
        handle = Plan(search, right, **{"concurrency": 4, **common}).start(program(World(1)), TRAIN, VAL)
        ask(handle)
        await handle
        return handle

    return asyncio.run(main())


def test_a_step_returns_each_proposed_candidate_once_and_evaluated():
    returned = []

    async def search(engine):
        await engine.evaluate(engine.start)
        returned.append(await engine.step(1))
        returned.append(await engine.step(2))
        assert engine.mean(returned[0][0]) is not None

    run = guided(search, lambda handle: handle.propose("Be careful."))
    assert [[c.origin for c in candidates] for candidates in returned] == [["person"], []]
    assert len(events(run, Steered)) == 1


def test_steps_have_rising_numbers():
    async def search(engine):
        await engine.step(2)
        with pytest.raises(OptimizerError, match="step 2 cannot come after 2"):
            await engine.step(2)
        await engine.evaluate(engine.start)

    assert planned(search).status == "finished"


def test_a_candidate_without_room_in_the_budget_is_in_the_table_and_costs_nothing():
    async def search(engine):
        await engine.evaluate(engine.start)
        assert await engine.step(1) == []

    run = guided(search, lambda h: h.propose("Be careful."), budget=dn.Budget(metric_calls=len(VAL) + 3))
    assert run.status == "finished"
    assert run.candidates[["origin", "n"]].values.tolist() == [["start", len(VAL)], ["person", 0]]
    assert len(events(run, RolloutEnded)) == len(VAL)


def test_as_many_proposed_candidates_are_evaluated_as_the_budget_has_room_for():
    async def search(engine):
        await engine.evaluate(engine.start)
        assert len(await engine.step(1)) == 1

    def ask(handle):
        handle.propose("Be careful.")
        handle.propose("Be short.")

    run = guided(search, ask, budget=dn.Budget(metric_calls=2 * len(VAL) + 3))
    assert run.candidates.full.tolist() == [True, True, False]


def test_a_dropped_candidate_that_is_proposed_or_pinned_later_is_active_again():
    async def search(engine):
        await engine.evaluate(engine.start)
        (candidate,) = await engine.step(1)
        run = dn.last_run()
        run.drop(candidate.id)
        assert await engine.step(2) == []
        assert engine.active([engine.start, candidate, candidate]) == [engine.start]
        run.propose("Answer with steps and careful and short and check and units.")
        assert await engine.step(3) == [candidate]
        run.drop(candidate.id)
        run.pin(candidate.id)
        await engine.step(4)
        assert engine.best == candidate
        run.drop(candidate.id)  # the later request counts
        await engine.step(5)
        assert engine.best == engine.start

    words = "Answer with steps and careful and short and check and units."
    run = guided(search, lambda handle: handle.propose(words))
    assert [e.action for e in events(run, Steered)] == ["propose", "drop", "propose", "drop", "pin", "drop"]
    assert run.candidates[run.candidates.best].origin.item() == "start"


def test_a_persons_candidate_changes_only_the_predictors_that_it_names():
    async def search(engine):
        await engine.evaluate(engine.start)
        first = engine.candidate(
            engine.start.changed("plan", instruction="Plan."), origin="mine", step=1, parents=[engine.start]
        )
        dn.last_run().propose({"answer": "Be careful."}, parent=first.id)
        (candidate,) = await engine.step(1)
        assert candidate.parents == (first.id,)
        assert {path: part.instruction for path, part in candidate.parts.items()} == {
            "plan": "Plan.",
            "answer": "Be careful.",
        }

    assert planned(search, program=three).status == "finished"


def test_a_request_is_recorded_before_its_candidate_so_that_a_lost_run_has_it():
    async def search(engine):
        await engine.evaluate(engine.start)
        await engine.step(1)

    run = guided(search, lambda handle: handle.propose("Be careful."))
    kinds = [type(e) for e in run.record.events if isinstance(e, Steered | CandidateProposed | CandidateScored)]
    assert kinds == [CandidateProposed, CandidateScored, Steered, CandidateProposed, CandidateScored]


def test_without_validation_rows_a_pinned_candidate_is_the_result():
    async def main():
        run = dn.BootstrapFewShot(right, max_bootstrapped_demos=2).start(one(World(1)), TRAIN)
        run.propose("Be careful.")

        class Pin:
            def emit(self, event):
                if isinstance(event, CandidateProposed) and event.origin == "person":
                    run.pin(event.id)

        run.listen(Pin())
        return await run, run

    better, run = asyncio.run(main())
    assert better.instruction == "Be careful."
    assert [e.action for e in run.record.steered] == ["propose", "pin"]


def test_the_summary_says_what_was_pinned():
    async def search(engine):
        await engine.evaluate(engine.start)
        dn.last_run().pin(0)
        await engine.step(1)

    words = "Answer with steps and careful and short and check and units."
    run = guided(search, lambda handle: handle.propose(words))
    assert run.summary.startswith("The program stays as it is. There were 2 candidates")
    assert run.summary.endswith("A person pinned it.")
