"""The contract of every optimizer: seeds, budgets, events, stop, resume, and clear errors, independent of timing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import dspynb as dn
from dspynb.errors import (
    ConfigurationError,
    DataOverlapWarning,
    InputError,
    JournalError,
    OptimizerError,
)
from dspynb.events import CandidateProposed, CandidateScored, PredictorCalled, ProposalEnded, RolloutEnded, Steered
from dspynb.running.journal import flush_journals
from tests.helpers import chat, field
from tests.optimizers.worlds import (
    PROPOSING,
    SMALL,
    TEST,
    TRAIN,
    VAL,
    World,
    events,
    fitted,
    journaled,
    later,
    lines,
    one,
    optimized,
    outcome,
    right,
    small,
    three,
)

run = asyncio.run
LEAST = {dn.GEPA: 18, dn.SIMBA: 12, dn.DistillHints: 15}  # metric calls of its first step
MANY = {
    dn.SIMBA: {"max_demos": 0, "minibatch_size": 6, "num_candidates": 3}
}  # settings with which it asks for many proposals
every = pytest.mark.parametrize("kind", SMALL, ids=lambda kind: kind.__name__)
proposing = pytest.mark.parametrize("kind", PROPOSING, ids=lambda kind: kind.__name__)
programs = pytest.mark.parametrize("program", [one, three], ids=["one predictor", "three predictors"])


# ── seeds ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
@every
@programs
def test_the_same_seed_gives_the_same_run_whatever_the_latencies(kind, program):
    async def main():
        straight = outcome(await optimized(kind, World(), program=program))
        for latency in (1, 2):
            assert outcome(await optimized(kind, World(latency), program=program)) == straight
        return straight

    assert run(main())["status"] == "finished"


@every
def test_concurrency_has_no_effect_on_the_result(kind):
    async def main():
        more = {"in_flight": 2} if kind is dn.MIPROv2 else {}
        straight = outcome(await optimized(kind, World(), **more))
        for concurrency in (1, 32):
            assert outcome(await optimized(kind, World(3), **more, concurrency=concurrency)) == straight

    run(main())


@every
def test_another_seed_may_give_another_run(kind):
    by_seed = [outcome(run(optimized(kind, World(), seed=seed)))["candidates"] for seed in range(5)]
    assert kind in (dn.COPRO, dn.DistillHints) or any(candidates != by_seed[0] for candidates in by_seed)


@every
def test_metrics_may_be_async(kind):
    async def main():
        plain, waiting = [outcome(await optimized(kind, World(1), metric=metric)) for metric in (right, later)]
        assert plain == waiting

    run(main())


# ── budgets ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def spent(limits, kind, world, **more):
    """A run under a budget: its outcome, or its error if it has no result."""

    async def main():
        return await optimized(kind, world, budget=dn.Budget(**limits), **more)

    return run(main())


@every
@programs
def test_metric_calls_are_never_exceeded_and_the_cut_does_not_depend_on_timing(kind, program):
    whole = len(events(run(optimized(kind, World(), program=program)), RolloutEnded))
    for limit in sorted({9, 11, 16, 27, whole - 1, whole, whole + 40} if program is three else range(8, whole + 2, 2)):
        if limit < LEAST.get(kind, 0):
            continue
        results = []
        for latency in (None, limit):
            world = World(latency)
            done = spent({"metric_calls": limit}, kind, world, program=program)
            rollouts = events(done, RolloutEnded)
            assert len(rollouts) <= limit
            assert all(e.error is None for e in rollouts)
            results.append((outcome(done), len(world.requests)))
        assert results[0] == results[1], limit
        if limit >= whole + 40:
            assert results[0][0]["status"] == "finished"


@every
@programs
def test_calls_are_never_exceeded_and_the_cut_does_not_depend_on_timing(kind, program):
    world = World()
    run(optimized(kind, world, program=program))
    whole = len(world.requests)
    for limit in sorted({9, 11, 25, 47, whole - 1, whole + 100} if program is three else range(8, whole, 4)):
        if limit < LEAST.get(kind, 0):
            continue
        results = []
        for latency in (None, limit):
            world = World(latency)
            done = spent({"calls": limit}, kind, world, program=program)
            assert len(world.requests) <= limit
            assert all(e.error is None for e in events(done, RolloutEnded))
            assert all(e.error is None for e in events(done, ProposalEnded))
            results.append((outcome(done), sorted(world.requests)))
        assert results[0] == results[1], limit
        assert results[0][0]["status"] == ("exhausted" if limit < whole else "finished")


@every
def test_the_result_of_a_spent_budget_is_the_best_so_far(kind):
    done = spent({"metric_calls": 25}, kind, World(1), program=three)
    scored = [e for e in events(done, CandidateScored) if e.full and e.split == "val"]
    proposed = {e.id: e for e in events(done, CandidateProposed)}
    best = max(scored, key=lambda e: e.score)
    assert scored[-1].best == best.candidate
    parts = proposed[best.candidate].parts
    for path, predictor in done.best.named_predictors():
        part = parts.get(path, {})
        own = predictor.signature.instruction
        assert (predictor.instruction or own) == part.get("instruction", own)
        assert [dict(demo) for demo in predictor.demos] == part.get("demos", [])


@every
def test_a_budget_around_the_run_holds_too(kind):
    async def main():
        world = World(2)
        with dn.Budget(metric_calls=14, calls=30) as meter:
            better = await small(kind).compile(fitted(kind, one(world)), TRAIN, VAL)
        assert len(world.requests) <= meter.spent["calls"] <= 30
        assert meter.spent["metric_calls"] <= 14
        assert isinstance(better, dn.Predict | dn.Refine)

    run(main())
    # these optimizers begin no step that does not fit into the budget
    assert dn.last_run().status == ("finished" if kind in (dn.GEPA, dn.SIMBA) else "exhausted")


@every
def test_a_budget_of_less_than_the_first_step_is_refused_with_what_is_needed(kind):
    first = LEAST.get(kind, 7 + (kind in (dn.BootstrapFewShot, dn.MIPROv2)))
    for limits in ({"metric_calls": first - 1}, {"calls": first - 1}):
        with pytest.raises(ConfigurationError, match=rf"too small for {kind.__name__}: its first step takes {first}\."):
            spent(limits, kind, World())
    with pytest.raises(ConfigurationError, match="and 6 for the test rows"):
        spent({"metric_calls": first + 5}, kind, World(), test=TEST)
    with pytest.raises(ConfigurationError, match="and 12 for the test rows"):
        spent({"calls": first + 11}, kind, World(), test=TEST)


@every
@pytest.mark.parametrize(
    "limits", [{"tokens": 1}, {"seconds": 1e-9}, {"usd": 1e-9}], ids=lambda limits: next(iter(limits))
)
def test_a_limit_that_is_known_afterwards_ends_the_run_with_a_program(kind, limits):
    world = World()
    answer = world.lm.fn

    async def priced(request):
        return dn.LMReply(await answer(request), usage=dn.Usage(1, 5, 5, usd=0.1))

    world.lm.fn = priced
    done = spent(limits, kind, world, concurrency=1)
    assert done.status == "exhausted"
    assert len(world.requests) <= 1
    assert isinstance(done.best, dn.Predict | dn.Refine)


# ── test rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@every
def test_the_start_and_the_winner_are_tested_also_when_the_budget_is_spent(kind):
    for limits in (None, {"metric_calls": 24}, {"calls": 60}):
        world = World(1)

        async def main(limits=limits, world=world):
            budget = None if limits is None else dn.Budget(**limits)
            return await optimized(kind, world, test=TEST, budget=budget)

        done = run(main())
        tested = [e for e in events(done, CandidateScored) if e.split == "test"]
        assert all(e.full and e.rows == 3 for e in tested)
        start = events(done, CandidateProposed)[0].id
        best = [e for e in events(done, CandidateScored) if e.split == "val"][-1].best
        assert [e.candidate for e in tested] == list(dict.fromkeys([start, best]))
        if limits:
            assert len(events(done, RolloutEnded)) <= limits.get("metric_calls", 1000)
            assert len(world.requests) <= limits.get("calls", 1000)


@every
def test_test_rows_that_all_fail_cost_no_result(kind):
    done = run(optimized(kind, World(), test=[{"question": "bad", "answer": "1"}]))
    assert done.status == "finished"
    assert {e.score for e in events(done, CandidateScored) if e.split == "test"} == {0}


# ── events ────────────────────────────────────────────────────────────────────────────────────────────────────────────
@every
def test_a_candidate_is_recorded_before_its_rollouts_and_those_before_its_score(kind):
    done = run(optimized(kind, World(1), program=three, test=TEST))
    proposed, seen = set(), {}
    for event in done.record.events:
        match event:
            case CandidateProposed():
                assert event.id not in proposed
                proposed.add(event.id)
            case RolloutEnded():
                assert event.split in ("train", "val", "test")
                assert event.candidate in proposed or event.candidate.startswith("teacher ")
                seen.setdefault((event.candidate, event.split), {})[event.row] = event.score
            case CandidateScored():
                rows_seen = seen[event.candidate, event.split]
                assert event.rows <= len(rows_seen)
                assert event.best in proposed
                if event.full:
                    assert event.score == pytest.approx(sum(rows_seen.values()) / len(rows_seen))
    candidates = events(done, CandidateProposed)
    assert candidates[0].origin == "start"
    assert all(set(e.parents) <= proposed for e in candidates)
    scores = [(e.candidate, e.split, e.rows, e.step) for e in events(done, CandidateScored)]
    assert len(scores) == len(set(scores))


@every
def test_rollouts_are_a_table_also_of_a_reopened_file(kind):
    done = run(optimized(kind, World()))
    table = done.rollouts
    assert len(table) == len(events(done, RolloutEnded))
    assert set(table.split) <= {"train", "val"}
    assert {"candidate", "split", "row", "question", "score"} <= set(table.columns)
    flush_journals()
    again = dn.open_run(done.path).rollouts
    assert again.drop(columns="seconds").equals(table.drop(columns="seconds"))


@every
def test_candidates_scores_history_and_proposals_are_tables(kind):
    done = run(optimized(kind, World(1), program=three))
    flush_journals()
    for source in (done, dn.open_run(done.path)):
        candidates, matrix, history = source.candidates, source.matrix, source.history
        assert list(done.record.candidate_names) == [e.id for e in events(done, CandidateProposed)]
        assert candidates.id.tolist() == [f"c{number}" for number in range(len(candidates))]
        assert candidates.best.sum() == 1
        winner = candidates[candidates.best].iloc[0]
        names = done.record.candidate_names
        assert winner.id == names[[e for e in events(done, CandidateScored) if e.split == "val"][-1].best]
        assert winner.score == pytest.approx(matrix.loc[winner.id].mean())
        assert winner.low <= winner.score <= winner.high
        assert list(matrix.columns) == list(range(len(VAL)))
        assert set(matrix.index) <= set(candidates.id)
        for number, row in enumerate(history.itertuples()):
            event = events(done, CandidateScored)[number]
            assert (row.candidate, row.split, row.score, row.full) == (
                names[event.candidate],
                event.split,
                event.score,
                event.full,
            )
        for spent_so_far in ("calls", "metric_calls", "tokens"):
            assert history[spent_so_far].is_monotonic_increasing
        assert history.metric_calls.iloc[-1] <= len(source.rollouts)
        assert source.proposals.key.tolist() == [e.key for e in events(done, ProposalEnded)]


@every
def test_no_candidate_is_evaluated_twice_on_a_row(kind):
    done = run(optimized(kind, World(), program=three))
    keys = [(e.candidate, e.split, e.row, e.repeat) for e in events(done, RolloutEnded)]
    assert len(keys) == len(set(keys))


# ── the program, stop, errors of rows ─────────────────────────────────────────────────────────────────────────────────
@every
@programs
def test_the_program_is_not_changed_and_the_result_is_another_object(kind, program):
    async def main():
        world = World(1)
        original = fitted(kind, program(world))
        for _, predictor in original.named_predictors():
            predictor.demos = (
                [{"question": "7", "answer": "14"}] if "answer" in predictor.signature.output_fields else []
            )
        before = original.dump_state()
        uids = [predictor.uid for _, predictor in original.named_predictors()]
        better = await small(kind).compile(original, TRAIN, VAL)
        assert original.dump_state() == before
        assert [predictor.uid for _, predictor in original.named_predictors()] == uids
        assert better is not original
        assert [path for path, _ in better.named_predictors()] == [path for path, _ in original.named_predictors()]
        assert not {predictor.uid for _, predictor in better.named_predictors()} & set(uids)
        assert (await better(question="3")).answer

    run(main())


@every
def test_stop_gives_the_best_so_far_and_no_call_starts_afterwards(kind):
    async def main():
        for after in (1, 9, 14):
            world = World(after)
            original = fitted(kind, one(world))
            before = original.dump_state()
            handle = small(kind).start(original, TRAIN, VAL)
            await world.wait_for_requests(after)
            handle.stop()
            better = await handle
            count = len(world.requests)
            await asyncio.sleep(0.02)
            assert len(world.requests) == count
            assert handle.status in ("stopped", "finished")
            assert original.dump_state() == before
            assert isinstance(better, type(original))
            assert better is not original

    run(main())


@every
def test_a_cancellation_from_outside_is_raised_and_leaves_no_task_behind(kind):
    async def main():
        world = World(1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await small(kind).compile(fitted(kind, three(world)), TRAIN, VAL)
        count = len(world.requests)
        await asyncio.sleep(0.02)
        assert len(world.requests) == count
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())
    assert dn.last_run().status == "cancelled"


@every
def test_rows_that_fail_count_the_failure_score_and_keep_their_error(kind):
    val = [*VAL[:3], {"question": "bad", "answer": "0"}, *VAL[3:]]
    train = [{"question": "bad", "answer": "1"}, *TRAIN]
    done = run(optimized(kind, World(1), train=train, val=val, failure_score=-1.0))
    failed = [e for e in events(done, RolloutEnded) if e.error is not None]
    assert failed
    assert all("fell over" in e.error and e.score is None for e in failed)
    start = next(e for e in events(done, CandidateScored) if e.full)
    scores = [e.score for e in events(done, RolloutEnded) if (e.candidate, e.split) == (start.candidate, "val")]
    assert start.score == pytest.approx(sum(-1.0 if s is None else s for s in scores) / 8)


@every
def test_a_constant_metric_leaves_the_original(kind):
    async def main():
        world = World()
        original = fitted(kind, three(world))
        constant = small(kind, lambda row, prediction: dn.Score(0.5, "So so."))
        return original, await constant.compile(original, TRAIN, VAL)

    original, better = run(main())
    assert better.dump_state()["predictors"] == original.dump_state()["predictors"]


@every
def test_equal_rows_are_separate_rows(kind):
    done = run(optimized(kind, World(1), train=[TRAIN[0]] * 4, val=[VAL[0]] * 4))
    assert {e.rows for e in events(done, CandidateScored) if e.full} == {4}
    assert done.status == "finished"


@every
def test_a_search_inside_the_program_is_optimized_with_it(kind):
    def longest(row, prediction):
        return dn.Score(float(len(prediction.answer)), feedback="Answer in careful steps.")

    async def main():
        results = []
        for latency in (1, 2):
            world = World(latency)
            refine = dn.Refine(one(world), longest, n=2, threshold=9, hints="feedback")
            handle = small(kind).start(refine, TRAIN, VAL)
            better = await handle
            assert isinstance(better, dn.Refine)
            assert [path for path, _ in better.named_predictors()] == ["self"]
            results.append(outcome(handle))
        assert results[0] == results[1]

    run(main())


@every
def test_it_can_be_part_of_another_run(kind):
    class Learns(dn.Module):
        def __init__(self, world):
            self.world, self.inner = world, fitted(kind, three(world))

        async def forward(self, question):
            better = await small(kind).compile(self.inner, TRAIN, VAL)
            return await better(question=question)

    async def main():
        inside = World(1)
        alone = await optimized(kind, World(), program=three)
        with pytest.warns(dn.HiddenPredictorWarning):  # the new program is no part of the outer one
            await Learns(inside)(question="3")
        outer = dn.last_run()
        expected, ids = outcome(alone), [e.id for e in events(outer, CandidateProposed)]
        assert ids == [c[0] for c in expected["candidates"]]

    run(main())


# ── bad input ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@every
def test_rows_that_do_not_fit_are_refused_before_any_call(kind):
    world = World()
    for train, val, says in (
        ([], VAL, "no training rows"),
        (None, VAL, "no training rows"),
        ([{"text": "1", "answer": "2"}], VAL, "no 'question'"),
        (TRAIN, [{"text": "1", "answer": "2"}], "no 'question'"),
        ("rows.csv", VAL, "rows must be"),
        ([1, 2], VAL, "row 0 is int"),
    ):
        with pytest.raises(InputError, match=says):
            run(optimized(kind, world, train=train, val=val))
    assert world.requests == []


@every
def test_anything_but_a_program_with_predictors_is_refused(kind):
    class Nothing(dn.Module):
        async def forward(self, question):
            return {"answer": question}

    with pytest.raises(InputError, match="Nothing.* has no predictors"):
        run(optimized(kind, World(), program=lambda world: Nothing()))
    with pytest.raises(InputError, match=r"must be a dn\.Module .*, or a function, got int"):
        run(optimized(kind, World(), program=lambda world: 3))


@every
def test_attributes_that_cannot_be_copied_are_shared_with_the_returned_program(kind):
    class Locked(dn.Module):
        def __init__(self, world):
            self.predict, self.file = one(world), sys.stdout

        async def forward(self, question):
            return await self.predict(question=question)

    better = run(optimized(kind, World(), program=Locked)).best
    assert getattr(better, "module", better).file is sys.stdout


@every
def test_a_program_that_refuses_to_be_copied_is_refused_before_any_call(kind):
    class Single(dn.Module):
        def __init__(self, world):
            self.predict = one(world)

        async def forward(self, question):
            return await self.predict(question=question)

        def __deepcopy__(self, memo):
            raise TypeError("there is one only")

    world = World()
    with pytest.raises(InputError, match="cannot be copied"):
        run(optimized(kind, world, program=Single))
    assert world.requests == []


@every
def test_one_row_is_enough_to_learn_from(kind):
    assert run(optimized(kind, World(), train=TRAIN[:1], val=VAL[:1])).status == "finished"


@every
@pytest.mark.parametrize("val", [None, []], ids=["None", "empty"])
def test_without_validation_rows_the_optimizer_chooses_them(kind, val):
    if kind in (dn.MIPROv2, dn.DistillHints):
        with pytest.raises(InputError, match="at least 2 training rows where no validation rows"):
            run(optimized(kind, World(), train=TRAIN[:1], val=val))
    done = run(optimized(kind, World(), val=val))
    judged = {e.row for e in events(done, RolloutEnded) if e.split == "val"}
    assert len(judged) == {dn.BootstrapFewShot: 0, dn.MIPROv2: 4, dn.DistillHints: 3}.get(kind, 6)
    assert done.status == "finished"


@every
@pytest.mark.parametrize("value", [float("nan"), "high", None], ids=str)
def test_a_metric_without_a_score_ends_the_run_with_an_error_that_has_its_value(kind, value):
    with pytest.raises(OptimizerError, match=rf"the metric fails on all 7 rows as it is.*{value or 'None'}"):
        run(optimized(kind, World(1), metric=lambda row, prediction: value))
    assert dn.last_run().status == "failed"


@proposing
def test_a_candidate_that_fails_on_every_row_does_not_win_where_scores_are_below_that_of_a_failure(kind):
    class Breaks(World):  # under every instruction but the first
        def _output(self, request, text):
            system = request.messages[0]["content"]
            return (
                "I cannot do that." if "Answer with" in system or "Mind" in system else super()._output(request, text)
            )

    def loss(row, prediction):
        return dn.Score(-1.0 - (row.answer != prediction.answer), f"expected {row.answer}")

    with pytest.warns(
        dn.ScoreRangeWarning, match="loss gives scores below failure_score=0: a row that fails counts for"
    ):
        done = run(optimized(kind, Breaks(), metric=loss))
    table = done.candidates
    judged = done.rollouts[done.rollouts.split == "val"]
    failed = judged.error.notna().groupby(judged.candidate).all()
    assert table.score.max() == 0.0  # candidates that failed were evaluated
    assert not failed[table.id[table.best].item()]
    assert table.score[table.best].item() < 0


@every
def test_rows_that_are_in_two_splits_are_warned_of(kind):
    for train, val, test, says in (
        (TRAIN, [*VAL, TRAIN[0]], None, "1 of the val rows are among the train rows"),
        (TRAIN, VAL, TRAIN[:2], "2 of the test rows are among the train rows"),
        (TRAIN, VAL, VAL[:1], "1 of the test rows are among the val rows"),
    ):
        with pytest.warns(DataOverlapWarning, match=says):
            run(optimized(kind, World(), train=train, val=val, test=test))


@every
def test_settings_without_sense_are_refused_by_the_constructor(kind):
    for settings, says in (
        ({"budgets": 3}, f"{kind.__name__} has no setting 'budgets'"),
        ({"budget": 3}, rf"{kind.__name__}: budget must be a dn\.Budget, or None, got 3"),
        ({"seed": "x"}, "seed must be a whole number, got 'x'"),
        ({"patience": 0}, "patience must be a whole number of at least 1, got 0"),
        ({"failure_score": float("nan")}, "failure_score must be a finite number"),
        ({"prompt_lm": 3}, "a model is 'provider/model'"),
        ({"prompt_lm": "gpt-5"}, "a model is named 'provider/model'"),
    ):
        with pytest.raises(ConfigurationError, match=says):
            kind(right, **settings)
    with pytest.raises(ConfigurationError, match="metric must be a function"):
        kind("accuracy")
    with pytest.raises(ConfigurationError, match="concurrency must be a whole number"):
        run(optimized(kind, World(), concurrency=0))


# ── proposals ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@proposing
def test_proposals_that_cannot_be_read_end_the_run_early_with_the_last_reply(kind):
    world = World(1, nonsense=True)
    with pytest.raises(OptimizerError, match=r"(?s)5 proposals in a row failed.*mumble \d+ mumble"):
        run(optimized(kind, world, program=three, **MANY.get(kind, {})))
    assert world.proposals <= 2 * (5 + 4)  # each is repaired once; four may be running
    assert dn.last_run().status == "failed"


@proposing
def test_a_model_for_proposals_that_is_down_ends_the_run_early(kind):
    world = World(down=True)
    with pytest.raises(OptimizerError, match="5 proposals in a row failed.*nobody is there"):
        run(optimized(kind, world, program=three, **MANY.get(kind, {})))
    assert world.proposals <= 5 + 4


@proposing
def test_patience_is_how_many_proposals_may_fail(kind):
    world = World(1, nonsense=True)
    many = {"breadth": 12} if kind is dn.COPRO else MANY.get(kind, {})
    with pytest.raises(OptimizerError, match="2 proposals in a row failed"):
        run(optimized(kind, world, program=three, patience=2, concurrency=1, **many))
    assert world.proposals < 2 * 12  # each is repaired once; COPRO submits 33


@proposing
def test_the_prompt_model_makes_the_proposals_and_the_programs_model_the_rollouts(kind):
    program, prompts = World(), World(1)
    done = run(optimized(kind, program, prompt_lm=prompts.lm))
    assert (program.proposals, prompts.programs) == (0, 0)
    assert prompts.proposals == len(events(done, ProposalEnded))
    assert program.programs == len(events(done, RolloutEnded))


# ── requests of a person ──────────────────────────────────────────────────────────────────────────────────────────────
GOLDEN = "Answer with the golden rule."


class Golden(World):
    """A world in which every answer with the instruction GOLDEN is right."""

    def _output(self, request, text):
        if "golden" in text.split("Respond with")[0] and field(request, "question") != "bad":
            return chat(answer=str(2 * int(field(request, "question"))))
        return super()._output(request, text)


def whenever(handle, expected, act):
    """Call ``act`` with the first event that is ``expected``."""
    seen = []

    class Listener:
        def emit(self, event):
            if not seen and expected(event):
                seen.append(event)
                act(event)

    handle.listen(Listener(), replay=True)


async def steered(kind, world, steer, *, program=one, test=None, **settings):
    """A run with requests made from its beginning."""
    handle = small(kind, **settings).start(fitted(kind, program(world)), TRAIN, VAL, test=test)
    steer(handle)
    await handle
    return handle


def instruction(handle):
    """The instruction of the winner's first predictor."""
    predictor = handle.best.named_predictors()[0][1]
    return predictor.instruction


def golden(handle):
    handle.propose(GOLDEN)


@every
def test_a_persons_candidate_that_is_better_wins(kind):
    results = []
    for latency in (None, 1, 2):
        done = run(steered(kind, Golden(latency), golden))
        results.append(outcome(done))
        assert instruction(done) == GOLDEN
        row = done.candidates[done.candidates.best].iloc[0]
        assert (row.origin, row.score, row.full) == ("person", 1.0, True)
        assert row.parents == [done.candidates.id[0]]
    assert results[0] == results[1] == results[2]
    (event,) = done.record.steered
    assert (event.action, event.by, event.step) == ("propose", "person", row.step)
    start, person = (id_of(done, name) for name in (row.parents[0], row.id))
    assert event.values == {"instructions": {"self": GOLDEN}, "parent": start, "candidate": person}


@every
def test_a_persons_candidate_that_is_worse_does_not_win(kind):
    done = run(steered(kind, Golden(1), lambda handle: handle.propose("Guess.", parent=None)))
    candidates = done.candidates
    assert (candidates.origin == "person").sum() == 1
    assert candidates[candidates.best].origin.item() != "person"


@pytest.mark.parametrize("kind", PROPOSING, ids=lambda kind: kind.__name__)
def test_a_search_continues_from_a_persons_candidate(kind):
    done = run(steered(kind, Golden(1), golden, seed=1))
    (person,) = [e for e in events(done, CandidateProposed) if e.origin == "person"]
    if kind in (dn.GEPA, dn.SIMBA):  # it was drawn to run on training rows
        assert any((e.candidate, e.split) == (person.id, "train") for e in events(done, RolloutEnded))
    elif kind is dn.MIPROv2:  # its instruction was tried with other demos
        others = [e for e in events(done, CandidateProposed) if e.origin.startswith("trial")]
        assert any(e.parts.get("self", {}).get("instruction") == GOLDEN for e in others)
    else:  # its instruction is among those that the model saw
        calls = [e for e in events(done, PredictorCalled) if e.predictor == "copro.next"]
        assert any(GOLDEN in str(e.messages) and "Score" in str(e.messages) for e in calls)


def id_of(done, name):
    """The id in the events of the candidate that tables call ``name``."""
    return {shown: candidate for candidate, shown in done.record.candidate_names.items()}[name]


def dropping(which):
    """Drop a candidate as soon as it is proposed."""

    def steer(handle):
        whenever(handle, lambda e: isinstance(e, CandidateProposed) and e.id == which, lambda e: handle.drop(e.id))

    return steer


@every
def test_a_candidate_that_was_dropped_is_neither_winner_nor_parent(kind):
    plain_run = run(optimized(kind, World(), seed=2))
    ids = list(plain_run.record.candidates)
    winner = ids[plain_run.candidates.best.tolist().index(True)]
    if winner == ids[0]:  # drop another one
        winner = ids[1]
    results = []
    for latency in (None, 3):
        done = run(steered(kind, World(latency), dropping(winner), seed=2))
        results.append(outcome(done))
        assert id_of(done, done.candidates[done.candidates.best].id.item()) != winner
        (dropped,) = done.record.steered
        after = [e for e in done.record.events[done.record.events.index(dropped) :] if isinstance(e, CandidateProposed)]
        assert all(winner not in e.parents for e in after)
        assert dropped.values == {"candidate": winner, "best": dropped.values["best"]}
    assert results[0] == results[1]


@every
def test_a_candidate_that_was_pinned_is_what_the_run_returns(kind):
    def pinning(handle):
        golden(handle)
        whenever(handle, lambda e: isinstance(e, CandidateProposed) and e.origin != "start", lambda e: handle.pin(e.id))

    results = []
    for latency in (None, 2):
        done = run(steered(kind, Golden(latency), pinning, test=TEST, seed=3))
        results.append(outcome(done))
        pinned = next(e for e in done.record.steered if e.action == "pin").values["candidate"]
        row = done.candidates[done.candidates.best].iloc[0]
        assert (id_of(done, row.id), row.full) == (pinned, True)
        tested = [e.candidate for e in events(done, CandidateScored) if e.split == "test"]
        assert tested == [next(iter(done.record.candidates)), pinned]
    assert results[0] == results[1]


@every
def test_the_start_can_be_pinned_and_unpinned_again(kind):
    def steer(handle):
        golden(handle)
        whenever(handle, lambda e: isinstance(e, CandidateProposed), lambda e: handle.pin(0))

    def undone(handle):
        steer(handle)
        whenever(handle, lambda e: isinstance(e, Steered) and e.action == "pin", lambda e: handle.unpin())

    assert instruction(run(steered(kind, Golden(1), steer))) is None
    assert instruction(run(steered(kind, Golden(1), undone))) == GOLDEN


def eventful(handle):
    """Make several requests to one run: at its first step, and when its first own candidate is proposed."""
    handle.propose("Answer in short steps.")
    handle.set_budget(metric_calls=1000)
    other = lambda e: isinstance(e, CandidateProposed) and e.origin not in ("start", "person")  # noqa: E731
    whenever(handle, other, lambda e: (handle.drop(e.id), handle.propose("Be careful and short.", parent=0)))
    scored = lambda e: isinstance(e, CandidateScored) and e.full and e.step > 0  # noqa: E731
    whenever(handle, scored, lambda e: handle.pin(e.candidate))


@every
@pytest.mark.parametrize("limit", [None, 45], ids=["whole", "cut"])
def test_a_resumed_run_applies_the_same_requests_and_ends_as_the_straight_one(kind, limit):
    def steer(handle):
        eventful(handle)
        if limit:
            handle.set_budget(calls=limit)

    world = World(5)
    straight = run(steered(kind, world, steer, test=TEST))
    text, expected, path = lines(straight), outcome(straight), Path(straight.path)
    steered_count = len(events(straight, Steered))
    assert steered_count >= (2 if limit else 4)
    first = 1 + max(i for i, line in enumerate(text) if b'"type":"Steered"' in line)
    for k in sorted({first, *range(first, len(text), max(1, (len(text) - first) // 6)), len(text)}):
        path.write_bytes(b"".join(text[:k]))
        recorded, resumed_world = journaled(path), World(k)
        resumed = run(resumed_run(kind, path, resumed_world, test=TEST))
        assert outcome(resumed) == expected, k
        assert sorted([*resumed_world.requests, *recorded]) == sorted(world.requests), k
        assert len(events(resumed, Steered)) == steered_count, k


@every
def test_proposals_made_one_after_the_other_at_the_end_are_repeated_in_a_resumed_run(kind):
    def steer(handle):
        texts = ["Be careful.", "Be short.", "Use units."]

        class Late:
            def emit(self, event):
                last = (
                    isinstance(event, CandidateScored) and handle.record.candidates[event.candidate].origin == "person"
                )
                if last and texts:
                    handle.propose(texts.pop())

        handle.listen(Late())
        handle.propose("Answer in short steps.")

    straight = run(steered(kind, World(5), steer))
    steered_events = events(straight, Steered)
    assert len(steered_events) == 4
    assert len({e.step for e in steered_events}) > 1
    text, expected, path = lines(straight), outcome(straight), Path(straight.path)
    first = 1 + max(i for i, line in enumerate(text) if b'"type":"Steered"' in line)
    for k in (first, len(text)):
        path.write_bytes(b"".join(text[:k]))
        assert outcome(run(resumed_run(kind, path, World(k)))) == expected


@every
def test_a_request_to_a_resumed_run_takes_effect_after_the_steps_in_its_file(kind):
    straight = run(optimized(kind, Golden(1)))
    text, path = lines(straight), Path(straight.path)
    for k in range(2, len(text), max(1, len(text) // 5)):
        path.write_bytes(b"".join(text[:k]))

        async def main(path=path):
            handle = small(kind).resume(path, fitted(kind, one(Golden(2))), TRAIN, VAL)
            golden(handle)
            await handle
            flush_journals()
            return handle

        done = run(main())
        before = [e for e in done.record.events[: k - 1] if isinstance(e, CandidateScored | CandidateProposed)]
        assert instruction(done) == GOLDEN
        assert done.record.steered[0].step > max((e.step for e in before), default=-1)


@every
@pytest.mark.parametrize("limits", [{"metric_calls": 16}, {"calls": 24}], ids=["metric calls", "calls"])
def test_a_budget_that_is_set_while_it_runs_cuts_at_the_same_place_whatever_the_timing(kind, limits):
    (name, limit), results = *limits.items(), []
    for latency in (None, 1, 2):
        world = Golden(latency)
        done = run(steered(kind, world, lambda handle: handle.set_budget(**limits)))
        results.append((outcome(done), sorted(world.requests)))
        (new_budget,) = done.record.steered
        before = done.record.events[: done.record.events.index(new_budget)]
        spent_before = len(
            [e for e in before if isinstance(e, RolloutEnded if name == "metric_calls" else PredictorCalled)]
        )
        spent = len(events(done, RolloutEnded)) if name == "metric_calls" else len(world.requests)
        assert spent <= max(limit, spent_before + 4)  # running ones end
        assert isinstance(done.best, dn.Module)
    assert results[0] == results[1] == results[2]


@every
def test_a_larger_budget_lets_a_run_continue(kind):
    whole = outcome(run(optimized(kind, World())))
    small_budget = dn.Budget(metric_calls=LEAST.get(kind, 8) + 1)
    less = run(optimized(kind, World(1), budget=small_budget))
    more = run(steered(kind, World(2), lambda handle: handle.set_budget(metric_calls=5000), budget=small_budget))
    assert more.record.steered[0].values == {"metric_calls": 5000}
    assert len(events(more, RolloutEnded)) > len(events(less, RolloutEnded)) or less.status == "finished"
    assert whole["status"] == "finished"


@every
def test_a_budget_below_what_is_spent_ends_the_run_with_its_best(kind):
    def steer(handle):
        golden(handle)
        scored = lambda e: isinstance(e, CandidateScored) and e.full and e.score == 1.0  # noqa: E731
        whenever(handle, scored, lambda e: handle.set_budget(metric_calls=1))

    for latency in (None, 4):
        done = run(steered(kind, Golden(latency), steer))
        assert done.status == "exhausted"
        assert instruction(done) == GOLDEN


# ── resuming ──────────────────────────────────────────────────────────────────────────────────────────────────────────
async def resumed_run(kind, path, world, *, program=one, train=TRAIN, val=VAL, test=None, metric=right, **settings):
    handle = small(kind, metric, **settings).resume(path, fitted(kind, program(world)), train, val, test=test)
    await handle
    flush_journals()  # before a test cuts the file
    return handle


def cut_points(kind, program, chance, budget=None, count=20):
    """A straight run, compared with runs resumed from its file, cut after k lines or in the middle of the next."""
    world = World(5)
    straight = run(optimized(kind, world, program=program, test=TEST, budget=budget))
    text = lines(straight)
    expected, path = outcome(straight), Path(straight.path)
    for i in range(count):
        k = 1 + (len(text) - 1) * i // (count - 1)
        torn = text[k][: chance.randrange(1, len(text[k]))] if k < len(text) and i % 2 else b""
        path.write_bytes(b"".join(text[:k]) + torn)
        recorded = journaled(path)
        resumed_world = World(i)
        resumed = run(resumed_run(kind, path, resumed_world, program=program, test=TEST, budget=budget))
        yield k, expected, outcome(resumed), sorted([*resumed_world.requests, *recorded]), sorted(world.requests)


@every
@programs
def test_a_resumed_run_ends_as_the_straight_one_and_makes_only_the_missing_requests(kind, program):
    points = 20 if program is one else 8
    for k, expected, resumed, requests, straight_requests in cut_points(kind, program, random.Random(1), count=points):
        assert resumed == expected, k
        assert requests == straight_requests, k


class SideBySide(dn.Module):
    """Three calls of one predictor at a time."""

    def __init__(self, lm):
        self.ask = dn.Predict("question -> answer", lm=lm)

    async def forward(self, question):
        predictions = await asyncio.gather(*(self.ask(question=str(int(question) + n)) for n in range(3)))
        return {"answer": predictions[0].answer}


@every
def test_a_stop_fails_no_rollout_with_calls_side_by_side_and_the_resumed_run_ends_as_the_straight_one(
    kind,
):
    async def stopped(number):
        world = World(number)
        handle = small(kind).start(fitted(kind, side_by_side(world)), TRAIN, VAL)
        while len(world.requests) < number and not handle.done:  # noqa: ASYNC110  # at any point of the loop
            await asyncio.sleep(0)
        handle.stop()
        with contextlib.suppress(dn.RunStopped):
            await handle
        return handle

    def side_by_side(world):
        return SideBySide(world.lm)

    expected = outcome(run(optimized(kind, World(5), program=side_by_side)))
    for number in (7, 30, 55, 80):
        handle = run(stopped(number))
        assert all(e.error is None for e in events(handle, RolloutEnded))
        flush_journals()
        assert (
            outcome(run(resumed_run(kind, Path(handle.path), World(number + 1), program=side_by_side))) == expected
        ), number


@every
@pytest.mark.parametrize("limits", [{"metric_calls": 28}, {"calls": 90}], ids=["metric calls", "calls"])
def test_a_resumed_run_ends_where_the_budget_of_the_straight_one_did(kind, limits):
    budget = dn.Budget(**limits)
    for k, expected, resumed, requests, straight_requests in cut_points(kind, three, random.Random(2), budget, count=8):
        assert resumed == expected, k
        assert requests == straight_requests, k


@every
def test_a_run_that_is_resumed_twice_ends_as_the_straight_one(kind):
    budget = dn.Budget(calls=60)
    world = World(5)
    straight = run(optimized(kind, world, program=three, budget=budget))
    text, path, expected, chance = lines(straight), Path(straight.path), outcome(straight), random.Random(3)
    for k in range(2, len(text), max(1, len(text) // 8)):
        path.write_bytes(b"".join(text[:k]))
        first = run(resumed_run(kind, path, World(1), program=three, budget=budget))
        later_text = lines(first)
        path.write_bytes(b"".join(later_text[: chance.randint(k, len(later_text))]))
        recorded, resumed_world = journaled(path), World(2)
        second = run(resumed_run(kind, path, resumed_world, program=three, budget=budget))
        assert outcome(second) == expected, k
        assert sorted([*resumed_world.requests, *recorded]) == sorted(world.requests), k


@every
def test_a_larger_budget_lets_a_spent_run_continue_to_its_end(kind):
    straight = run(optimized(kind, World(), program=three))
    spent_run = run(optimized(kind, World(1), program=three, budget=dn.Budget(calls=40)))
    world = World(2)
    resumed = run(resumed_run(kind, spent_run.path, world, program=three))
    assert outcome(resumed) == outcome(straight)
    assert resumed.id == spent_run.id


@every
def test_a_finished_run_is_read_back_without_a_call(kind):
    straight = run(optimized(kind, World()))
    world = World()
    resumed = run(resumed_run(kind, straight.id, world))
    assert world.requests == []
    assert outcome(resumed) == outcome(straight)


@every
def test_a_search_inside_the_program_is_resumed(kind):
    def refine(world):
        inner = dn.Predict("question -> answer", lm=world.lm)
        return dn.Refine(inner, lambda row, p: float(p.answer != "wrong"), n=2, advisor_lm=Advises().lm)

    class Advises:
        def __init__(self):
            self.lm = dn.FunctionLM(lambda request: chat(advice='{"self": "Try more steps."}'))

    straight = run(optimized(kind, World(1), program=refine))
    text, path, expected = lines(straight), Path(straight.path), outcome(straight)
    for k in range(2, len(text), max(1, len(text) // 6)):
        path.write_bytes(b"".join(text[:k]))
        assert outcome(run(resumed_run(kind, path, World(k), program=refine))) == expected, k


@every
def test_the_differences_are_named_when_a_run_cannot_be_resumed(kind):
    done = run(optimized(kind, World(), test=TEST))
    before = lines(done)

    def changed(world):
        return dn.Predict("question -> answer", lm=world.lm, instruction="Answer otherwise.")

    def named(world):
        world.lm.name = "another"
        return one(world)

    settings = {
        dn.COPRO: {"depth": 3},
        dn.MIPROv2: {"num_trials": 6},
        dn.GEPA: {"max_steps": 7},
        dn.SIMBA: {"max_demos": 3},
        dn.DistillHints: {"max_hints": 3},
    }
    own = settings.get(kind, {"max_rounds": 3})
    (name,) = own
    for more, says in (
        ({"program": changed}, "program"),
        ({"program": named}, "models"),
        ({"train": TRAIN[:5]}, "train"),
        ({"val": VAL[:5]}, "val"),
        ({"val": [*VAL[:-1], {"question": "16", "answer": "?"}]}, "val"),
        ({"test": None}, "test"),
        ({"metric": later}, r"metric \('right' then, 'later' now\)"),
        ({"seed": 1}, r"seed \(0 then, 1 now\)"),
        ({"failure_score": 0.5}, "failure_score"),
        ({"prompt_lm": dn.FunctionLM(str, name="writer")}, r"prompt_lm \(None then, 'writer' now\)"),
        (own, name),
    ):
        with pytest.raises(ConfigurationError, match=f"cannot resume this run: these settings changed: {says}"):
            run(resumed_run(kind, done.path, World(), **{"test": TEST, **more}))
    other = dn.COPRO if kind is not dn.COPRO else dn.MIPROv2
    with pytest.raises(JournalError, match=f"not of '{other.kind}'"):
        run(resumed_run(other, done.path, World(), test=TEST))
    assert lines(done) == before


KILLED = """
import asyncio, sys
import dspynb as dn
from tests.optimizers.worlds import SMALL, World, optimized, three
dn.configure(runs_dir=sys.argv[1], cache=False, view="off")
kind = next(kind for kind in SMALL if kind.__name__ == sys.argv[2])
asyncio.run(optimized(kind, World(int(sys.argv[3])), program=three))
"""


@pytest.mark.slow
@every
def test_a_run_that_is_killed_ends_as_the_straight_one(kind, tmp_path):
    world = World()
    straight = run(optimized(kind, world, program=three))
    expected, size = outcome(straight), sum(map(len, lines(straight)))
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    for i in range(3):
        folder = tmp_path / str(i)
        with subprocess.Popen([sys.executable, "-c", KILLED, str(folder), kind.__name__, str(i)], env=env) as process:
            while process.poll() is None and sum(p.stat().st_size for p in folder.glob("*.jsonl")) < size * (i + 1) / 5:
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
        (path,) = folder.glob("*.jsonl")
        recorded, resumed_world = journaled(path), World(i)
        assert outcome(run(resumed_run(kind, path, resumed_world, program=three))) == expected
        assert sorted([*resumed_world.requests, *recorded]) == sorted(world.requests)
