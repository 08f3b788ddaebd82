"""COPRO: rounds of instructions, each proposed from the best of the rounds before."""

from __future__ import annotations

import asyncio

import pytest

import dspynb as dn
from dspynb.errors import ConfigurationError
from dspynb.events import CandidateProposed, CandidateScored, PredictorCalled, ProposalEnded, RolloutEnded
from tests.helpers import chat
from tests.optimizers.worlds import TRAIN, VAL, World, events, optimized, right, rows, three

run = asyncio.run


def test_a_round_proposes_breadth_instructions_for_a_predictor_one_less_in_the_first():
    done = run(optimized(dn.COPRO, World(1), program=three, breadth=3, depth=2))
    keys = [e.key for e in events(done, ProposalEnded)]
    assert sorted(keys) == sorted(
        f"round {d}, {path}, {i}"
        for d, count in ((1, 2), (2, 3))
        for path in ("plan", "steps[0]", "answer")
        for i in range(1, count + 1)
    )


def test_later_rounds_see_earlier_instructions_with_scores_the_best_last():
    done = run(optimized(dn.COPRO, World(1), breadth=3, depth=2))
    calls = [c for c in events(done, PredictorCalled) if c.predictor == "copro.next"]
    lines = calls[0].inputs["attempted_instructions"]
    scores = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("Resulting Score")]
    assert scores == sorted(scores)
    assert len(scores) >= 2
    assert lines[0].startswith("Instruction #1: ")


def test_a_proposal_is_sampled_at_the_temperature_with_a_number_of_its_own():
    samples = []
    world = World()
    answer = world.lm.fn

    async def noting(request):
        samples.append((request.settings.get("temperature"), request.rollout))
        return await answer(request)

    world.lm.fn = noting
    run(optimized(dn.COPRO, world, breadth=4, depth=1, init_temperature=0.9))
    assert sorted(rollout for temperature, rollout in samples if temperature == 0.9) == [0, 1, 2]


def test_equal_and_empty_proposals_cost_nothing():
    def same(request):
        return chat(proposed_instruction='```text\n"Be brief."\n```' if request.rollout else '""')

    done = run(optimized(dn.COPRO, World(), prompt_lm=dn.FunctionLM(same), breadth=5, depth=2))
    candidates = events(done, CandidateProposed)
    assert [e.origin for e in candidates] == ["start", "round 1"]
    assert candidates[1].parts["self"]["instruction"] == "Be brief."
    assert len(events(done, RolloutEnded)) == 2 * len(VAL)


def test_later_predictors_build_on_the_best_of_earlier_ones():
    done = run(optimized(dn.COPRO, World(1), program=three, breadth=3, depth=1))
    best = [e for e in events(done, CandidateScored) if e.full]
    assert best[-1].score == max(e.score for e in best) or best[-1].best != best[-1].candidate
    parents = {e.id: e.parents for e in events(done, CandidateProposed)}
    assert all(len(ids) == 1 for id_, ids in parents.items() if ids or id_ != events(done, CandidateProposed)[0].id)


def test_a_small_budget_still_tries_something_new():
    done = run(optimized(dn.COPRO, World(), budget=dn.Budget(metric_calls=2 * len(VAL)), breadth=3, depth=2))
    assert len({e.candidate for e in events(done, CandidateScored) if e.full}) == 2


def test_under_a_small_budget_the_best_of_all_rounds_are_evaluated_on_all_rows_at_the_end():
    val = rows(10, 30)
    done = run(optimized(dn.COPRO, World(), val=val, budget=dn.Budget(metric_calls=150), breadth=6, depth=3))
    scored = events(done, CandidateScored)
    full = [i for i, e in enumerate(scored) if e.full]
    few = [i for i, e in enumerate(scored) if not e.full]
    assert len({scored[i].rows for i in few}) == 1  # the same rows for all, so that they are compared in pairs
    assert full[1:]
    assert min(full[1:]) > max(few)
    finalists = {scored[i].candidate for i in full[1:]}
    tried = {e.candidate: e.score for e in scored if not e.full}
    assert min(tried[c] for c in finalists) >= max(score for c, score in tried.items() if c not in finalists)
    assert len(events(done, RolloutEnded)) <= 150


def test_prefixes_are_proposed_where_the_adapter_begins_the_turn():
    prompts = []

    def proposes(request):
        prompts.append(str(request.messages))
        return chat(proposed_instruction="Answer briefly.", proposed_prefix_for_output_field="The answer is")

    prefill = dn.FunctionLM(lambda request: "4", adapter="prefill")

    async def main():
        optimizer = dn.COPRO(right, breadth=2, depth=1, prompt_lm=dn.FunctionLM(proposes), concurrency=2)
        handle = optimizer.start(dn.Predict("question -> answer", lm=prefill), TRAIN, VAL)
        await handle
        return handle

    candidates = events(run(main()), CandidateProposed)
    assert any("proposed_prefix_for_output_field" in text for text in prompts)
    assert candidates[-1].parts["self"]["prefix"] == "The answer is"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"breadth": 1}, "breadth must be a whole number of at least 2, got 1"),
        ({"depth": 0}, "depth must be a whole number of at least 1"),
        ({"init_temperature": -1}, "init_temperature must be a finite number of at least 0"),
        ({"init_temperature": True}, "init_temperature must be a finite number"),
    ],
)
def test_settings_out_of_range_are_refused(settings, says):
    with pytest.raises(ConfigurationError, match=says):
        dn.COPRO(right, **settings)
