"""Successive halving: the costs of a plan of stages, and the candidates that go on to the second."""

from __future__ import annotations

import asyncio
import itertools
import math

from hypothesis import given, settings
from hypothesis import strategies as st

import dspynb as dn
from dspynb.events import CandidateScored, RolloutEnded
from dspynb.optimizers.core.successive_halving import _MIN_ROWS, plan_stages
from tests.optimizers.worlds import TRAIN, World, events, one, rows, small


def cost(plan):
    """The rollouts of a plan; a candidate runs only once on a row."""
    total, before = 0, 0
    for keep, upto in plan:
        total += keep * (upto - before)
        before = upto
    return total


@settings(max_examples=500, deadline=None)
@given(st.integers(2, 40), st.integers(1, 120), st.integers(0, 3000))
def test_a_plan_stays_within_the_budget_and_ends_on_all_rows(candidates, many, metric_calls):
    plan = plan_stages(candidates, many, metric_calls)
    assert plan[-1][1] == many
    for (keep, upto), (fewer, more) in itertools.pairwise(plan):
        assert fewer <= keep
        assert more > upto
    if metric_calls >= min(2 * many, _MIN_ROWS + many):  # two can race
        assert cost(plan) <= metric_calls
    if cost(plan) > metric_calls:
        assert plan == [(candidates, many)]
    if plan[0][0] < candidates:
        assert metric_calls < candidates * many


@given(st.integers(0, 40), st.integers(1, 100))
def test_without_a_limit_all_are_evaluated_on_all_rows(candidates, many):
    assert plan_stages(candidates, many, math.inf) == ([(candidates, many)] if candidates else [])


@given(st.integers(2, 30), st.integers(4, 60), st.integers(20, 900))
def test_a_larger_budget_never_means_fewer_candidates(candidates, many, metric_calls):
    assert plan_stages(candidates, many, metric_calls + 50)[0][0] >= 2
    assert max(plan_stages(candidates, many, 10_000_000)[0]) >= candidates


def test_the_second_stage_takes_at_most_half_of_what_is_spent():
    assert plan_stages(16, 60, 340) == [(16, 12), (3, 60)]
    assert plan_stages(10, 60, 113) == [(10, 5), (1, 60)]
    assert plan_stages(18, 300, 2000) == [(18, 57), (4, 300)]


def test_a_race_spends_no_more_than_the_budget_and_has_a_winner_on_all_rows():
    for limit in range(36, 90, 9):
        optimizer = small(dn.BootstrapRandomSearch, num_candidates=8, budget=dn.Budget(metric_calls=limit))

        async def main(optimizer=optimizer):
            run = optimizer.start(one(World(1)), TRAIN, rows(10, 20))
            await run
            return run

        run = asyncio.run(main())
        assert len(events(run, RolloutEnded)) <= limit
        full = {e.candidate for e in events(run, CandidateScored) if e.full}
        assert len(full) > 1, limit
