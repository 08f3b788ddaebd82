"""SIMBA: trajectories, demos and rules learned from them, and candidates that are skipped."""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
from collections import Counter
from types import SimpleNamespace

import pytest

import dspynb as dn
from dspynb.errors import ConfigurationError
from dspynb.events import CandidateProposed, CandidateScored, PredictorCalled, RolloutEnded
from dspynb.optimizers.core.candidate import Candidate
from dspynb.optimizers.simba.mutations import dropped_places
from dspynb.optimizers.simba.simba import SIMBA
from dspynb.optimizers.simba.trajectories import Bucket, Minibatches, Pool, Spread, Trajectory, make_buckets, softmax
from dspynb.scope import Part
from tests.helpers import chat, field, prompt
from tests.optimizers.worlds import World, chance, events, optimized, outcome, right, rows, three

run = asyncio.run
ADVISED = "[[ ## module_names ## ]]"


class Model:
    """A model that writes rules. It is right by chance, which differs by sample, and more often with more rules."""

    def __init__(self, advice=None, skill=0.4, gain=0.05):
        self.requests, self.advice, self.skill, self.gain = [], advice, skill, gain
        self.lm = dn.FunctionLM(self.answer)

    def answer(self, request):
        text = prompt(request)
        self.requests.append((request.rollout, request.settings.get("temperature"), text))
        if ADVISED in text:
            number = sum(ADVISED in earlier for _, _, earlier in self.requests)
            names = json.loads(field(request, "module_names"))
            advice = self.advice(number) if self.advice else dict.fromkeys(names, f"Rule {number}.")
            return chat(discussion="It went wrong.", advice=json.dumps(advice))
        question = field(request, "question")
        skill = self.skill + self.gain * request.messages[0]["content"].count("Rule")
        good = chance(question, request.rollout) < skill
        return chat(answer=str(2 * int(question)) if good else f"no{request.rollout}")


def simba_run(model, metric=right, *, train=None, val=None, program=None, **settings):
    """A run of SIMBA on a program of one predictor."""
    settings = {"minibatch_size": 4, "num_candidates": 3, "max_steps": 4, **settings}
    return run(
        optimized(
            SIMBA,
            model,
            program=program or (lambda world: dn.Predict("question -> answer", lm=world.lm)),
            train=train or rows(0, 12),
            val=val or rows(20, 26),
            metric=metric,
            **settings,
        )
    )


def children(done, origin):
    """The candidates of an origin."""
    return [e for e in events(done, CandidateProposed) if e.origin == origin]


def trained(done):
    """The rollouts on training rows."""
    return [e for e in events(done, RolloutEnded) if e.split == "train"]


def advised(done):
    """The calls for rules."""
    return [e for e in events(done, PredictorCalled) if e.predictor == "simba.advise"]


# ── sampling ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_every_row_of_the_first_minibatch_gets_plain_and_sampled_rollouts_of_the_start():
    model = Model(skill=0)  # nothing is ever learned
    done = simba_run(model, max_steps=1, combine=False)
    by_row = {}
    for event in trained(done):
        by_row.setdefault(event.row, []).append(event.repeat)
    assert sorted(map(sorted, by_row.values())) == [[0, 1, 2]] * 4
    temperatures = {rollout: {t for r, t, _ in model.requests if r == rollout} for rollout in (0, 1, 2)}
    assert temperatures == {0: {None}, 1: {1.0}, 2: {1.0}}


def test_minibatches_use_all_rows_in_each_epoch_in_another_order():
    engine = SimpleNamespace(train=range(10), random=lambda *purpose: random.Random(str(purpose)))
    batches = Minibatches(engine)
    minibatches = [batches.draw(4) for _ in range(5)]
    drawn = [row for batch in minibatches for row in batch]
    assert sorted(drawn[:10]) == list(range(10))
    assert sorted(drawn[10:]) == list(range(10))
    assert drawn[:10] != drawn[10:]
    assert all(len(set(batch)) == 4 for batch in minibatches)
    assert sorted(Minibatches(engine).draw(10)) == list(range(10))


def test_a_minibatch_over_the_end_of_an_epoch_has_no_row_twice():
    engine = SimpleNamespace(train=range(5), random=lambda *purpose: random.Random(str(purpose)))
    batches = Minibatches(engine)
    assert all(len(set(batches.draw(4))) == 4 for _ in range(30))


def test_a_row_in_a_second_minibatch_is_not_sampled_again_by_the_same_candidate():
    done = simba_run(Model(skill=0), train=rows(0, 4), max_steps=5)
    assert Counter((e.candidate, e.row, e.repeat) for e in trained(done)).most_common(1)[0][1] == 1
    assert len(trained(done)) == 4 * 3  # only the start, which is the same in all steps


def test_softmax_weights_are_exponential_in_the_score_and_overflow_nothing():
    a, b, c = (Candidate({"self": Part(str(i))}) for i in range(3))
    weights = softmax({a: 0.2, b: 0.4, c: 0.2}, 0.2)
    assert weights[a] == weights[c]
    assert weights[b] / weights[a] == pytest.approx(2.718281828, rel=1e-6)
    assert softmax({a: 1e6, b: 0.0}, 0.01) == {a: 1.0, b: 0.0}


def test_the_top_of_the_pool_always_has_the_start():
    start, *others = (Candidate({"self": Part(str(i))}) for i in range(5))
    pool = Pool(start)
    for i, candidate in enumerate(others):
        pool.add(candidate, 0, 0, i / 4)
        pool.add(candidate, 0, 0, i / 4)  # known: counts once
        pool.add(candidate, 1, 0, 0.5)
    assert pool.mean(others[2]) == pytest.approx((0.5 + 0.5) / 2)
    assert pool.top(3) == [others[3], others[2], start]
    pool.add(start, 0, 0, 1.0)
    assert pool.top(2) == [start, others[3]]


def trajectory(score, error=None, candidate=None):
    ended = SimpleNamespace(error=error, score=score, outputs={"answer": str(score)}, feedback=f"got {score}")
    return Trajectory(candidate, SimpleNamespace(ended=ended, calls=[], prediction=None), score)


def bucket(row, *scores):
    return Bucket(row, sorted(map(trajectory, scores), key=lambda t: -t.score))


def test_rows_with_the_largest_gap_come_first_then_the_best_score_then_the_lead_over_the_mean():
    by_row = {0: (0.5, 0.5), 1: (1, 0, 1), 2: (0.2, 0.9), 3: (1, 0, 0), 4: (0, 0)}
    buckets = make_buckets([(row, [trajectory(s) for s in scores]) for row, scores in by_row.items()])
    assert [b.row for b in buckets] == [3, 1, 2, 0, 4]
    assert [t.score for t in buckets[1].trajectories] == [1, 1, 0]


def test_a_demo_needs_a_best_trajectory_above_the_10th_percentile_that_did_not_fail():
    some = [bucket(0, 1, 0), bucket(1, 0, 0), bucket(2, 1, 1)]
    spread = Spread.of(some)
    assert [spread.has_demo(b) for b in some] == [True, False, True]
    assert not spread.has_demo(Bucket(3, [trajectory(1, error="it broke"), trajectory(0)]))
    same = [bucket(0, 1, 1), bucket(1, 1, 1)]
    assert not any(Spread.of(same).has_demo(b) or Spread.of(same).has_rule(b) for b in same)


def test_a_rule_needs_a_worst_trajectory_that_others_scored_higher_than():
    some = [bucket(0, 1, 0), bucket(1, 0, 0), bucket(2, 1, 1), bucket(3, 1, 1)]
    assert [Spread.of(some).has_rule(b) for b in some] == [True, True, False, False]
    rare = [bucket(0, 1, 0), *(bucket(i, 0, 0) for i in range(1, 9))]  # nearly all are low
    assert [Spread.of(rare).has_rule(b) for b in rare] == [True, *[False] * 8]


# ── demos and rules ───────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_demo_has_the_calls_of_the_best_trajectory_of_a_row():
    done = simba_run(Model(), num_candidates=4, combine=False)
    known = {e.id: e for e in events(done, CandidateProposed)}
    rollouts_by_question, demo_candidates = {}, 0
    for event in done.record.events:
        if isinstance(event, RolloutEnded) and event.split == "train":
            rollouts_by_question.setdefault(str(event.row), []).append(event)
        if isinstance(event, CandidateProposed) and event.origin == "demo":
            demo_candidates += 1
            before = known[event.parents[0]].parts.get("self", {}).get("demos", [])
            new = [demo for demo in event.parts["self"]["demos"] if demo not in before]
            assert len(new) == 1
            rollouts = rollouts_by_question[new[0]["question"]]
            assert new[0]["answer"] in {e.outputs["answer"] for e in rollouts if e.score == 1}
            assert min(e.score for e in rollouts) <= 1
    assert demo_candidates >= 3


def test_a_rule_is_proposed_from_the_better_and_the_worse_trajectory_and_the_feedback():
    done = simba_run(Model(), max_demos=0)
    calls = advised(done)
    assert len(calls) >= 3
    for call in calls:
        inputs = call.inputs
        question = inputs["program_inputs"].removeprefix("question: ")
        assert inputs["labels"] == f"answer: {2 * int(question)}"
        assert inputs["worse_score"] == "0"
        assert "answer: no" in inputs["worse_outputs"]
        assert f"question: {question}" in inputs["worse_trajectory"]
        assert inputs["worse_feedback"] == f"expected {2 * int(question)}"
        assert "question: str -> answer: str" in inputs["modules"]
        if inputs["better_score"] != "Not available":
            assert inputs["better_score"] == "1"
            assert f"It gave\nanswer: {2 * int(question)}" in inputs["better_trajectory"]
    assert any(call.inputs["better_score"] == "1" for call in calls)


def test_where_all_trajectories_score_the_same_only_the_worse_is_shown_and_such_rows_are_last():
    settings = {"max_demos": 0, "minibatch_size": 12, "num_candidates": 6, "max_steps": 1, "concurrency": 1}
    shown = [call.inputs["better_trajectory"] for call in advised(simba_run(Model(skill=0.1), **settings))]
    alone = [text == "Not available" for text in shown]
    assert len(shown) == 6
    assert alone == sorted(alone)
    assert set(alone) == {False, True}


def test_rules_are_added_to_the_instruction_of_each_module_that_got_one():
    model = Model(lambda number: {"self": f"Rule {number}.", "nobody": "Ignore me.", "other": ""})
    done = simba_run(model, max_demos=0, combine=False)
    texts = [e.parts["self"]["instruction"] for e in children(done, "rule")]
    own = "Given the fields `question`, produce the fields `answer`."
    assert len(texts) >= 3
    assert all(text.startswith(f"{own}\n\nRule ") for text in texts)
    assert "Ignore me" not in "".join(text for _, _, text in model.requests if ADVISED not in text)
    grown = [text for text in texts if text.count("Rule") > 1]  # rules of earlier steps stay
    assert grown
    known = {e.id: e.parts["self"]["instruction"] for e in events(done, CandidateProposed)}
    for event in children(done, "rule"):
        assert event.parts["self"]["instruction"].startswith(known[event.parents[0]] + "\n\n")


def test_only_modules_that_the_advice_names_change():
    class Writes(World):
        def _proposal(self, request, text):
            return chat(discussion="x", advice=json.dumps({"plan": f"Be careful {request.rollout}."}))

    done = run(optimized(SIMBA, Writes(), program=three, max_demos=0, minibatch_size=6, num_candidates=3))
    assert children(done, "rule")
    assert {path for e in children(done, "rule") for path in e.parts} == {"plan"}


def test_the_combined_candidate_of_a_step_has_the_additions_of_all_others():
    done = simba_run(Model(), max_demos=0, max_steps=2)
    by_step = {}
    for event in events(done, CandidateProposed)[1:]:
        by_step.setdefault(event.step, {}).setdefault(event.origin, []).append(event)
    joined = [by_origin["combined"][0] for by_origin in by_step.values() if "combined" in by_origin]
    assert joined
    for event in joined:
        said = event.parts["self"]["instruction"]
        rules = [e.parts["self"]["instruction"].split("\n\n")[-1] for e in by_step[event.step]["rule"]]
        assert all(rule in said for rule in rules)
    assert not children(simba_run(Model(), combine=False), "combined")


def test_no_predictor_gets_more_demos_than_it_may():
    done = simba_run(Model(), max_demos=2, max_steps=8, num_candidates=4, minibatch_size=6)
    counts = [len(part.get("demos", [])) for e in events(done, CandidateProposed) for part in e.parts.values()]
    assert max(counts) == 2
    assert not children(simba_run(Model(), max_demos=0), "demo")


def test_demos_are_dropped_at_random_and_one_at_least_where_there_is_no_room():
    drawn = [dropped_places(2, 4, random.Random(i)) for i in range(2000)]
    assert 0.35 < statistics.mean(map(len, drawn)) < 0.5  # Poisson with mean .5, at most 2, which may be the same
    assert any(not gone for gone in drawn)
    assert all(dropped_places(4, 4, random.Random(i)) for i in range(200))
    assert all(
        gone < set(range(4)) or gone == set(range(4))
        for gone in (dropped_places(4, 1, random.Random(i)) for i in range(99))
    )
    assert dropped_places(0, 4, random.Random(1)) == set()
    assert all(
        dropped_places(3, 0, random.Random(i)) for i in range(50)
    )  # rules only: the program's own demos go as well


def test_children_have_the_programs_own_demos_until_these_are_dropped():
    own = {"question": "100", "answer": "200"}

    def program(world):
        predict = dn.Predict("question -> answer", lm=world.lm)
        predict.demos = [own]
        return predict

    done = simba_run(Model(), program=program, combine=False, num_candidates=4, max_steps=6)
    shown = [e.parts["self"]["demos"] for e in children(done, "demo")]
    assert any(own in demos for demos in shown)


# ── skipped candidates ────────────────────────────────────────────────────────────────────────────────────────────────
def test_advice_that_is_empty_or_in_the_instruction_is_not_evaluated():
    for advice in ({}, {"self": "  "}, {"nobody": "x"}, {"self": "produce the fields `answer`."}):
        done = simba_run(Model(lambda number, advice=advice: advice), max_demos=0)
        assert len(advised(done)) >= 3
        assert [e.origin for e in events(done, CandidateProposed)] == ["start"]
        assert {e.candidate for e in events(done, RolloutEnded)} == {Candidate().id}


def test_equal_advice_makes_one_candidate():
    done = simba_run(Model(lambda number: {"self": "Be brief."}), max_demos=0)
    assert len(advised(done)) >= 3
    assert [e.origin for e in events(done, CandidateProposed)] == ["start", "rule"]
    scored = [e for e in events(done, CandidateScored) if e.split == "train"]
    assert len(scored) == 1


def test_where_all_trajectories_score_the_same_nothing_is_learned():
    for value in (0.0, 1.0):
        model = Model()
        done = simba_run(model, lambda row, prediction, value=value: dn.Score(value, "as ever"))
        assert advised(done) == []
        assert len(events(done, CandidateProposed)) == 1
        assert done.status == "finished"


# ── winners ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_winner_of_a_step_is_the_best_of_its_new_candidates_on_the_minibatch():
    done = simba_run(Model(), max_steps=3, num_candidates=3)
    scored = [e for e in events(done, CandidateScored) if e.split == "train"]
    wanted = []
    for step in (1, 2, 3):
        some = [e for e in scored if e.step == step]
        wanted += [max(some, key=lambda e: e.score).candidate] if some else []
    judged = [e.candidate for e in events(done, CandidateScored) if e.split == "val"]
    assert len(wanted) == 3
    assert judged == [Candidate().id, *wanted]


def test_finalists_are_picked_evenly_over_the_steps():
    done = simba_run(Model(), num_candidates=2, max_steps=6, minibatch_size=12)
    steps = [e.step for e in events(done, CandidateScored) if e.split == "val"]
    won = {e.step for e in events(done, CandidateScored) if e.split == "train"}
    assert won == set(range(1, 7))
    assert steps == [0, 3, 6]


def test_without_a_limit_a_run_that_is_stopped_in_its_last_step_has_a_winner_of_an_earlier_one():
    class Stops(Model):
        """Presses stop in the last step."""

        def answer(self, request):
            if len(self.requests) == self.last:
                self.handle.stop()
            return super().answer(request)

    async def main(last, status):
        model = Stops(skill=0.1, gain=0.2)
        model.last = last
        program = dn.Predict("question -> answer", lm=model.lm)
        optimizer = SIMBA(right, max_steps=4, num_candidates=4, minibatch_size=8, concurrency=4)
        model.handle = optimizer.start(program, rows(0, 12), rows(20, 26))
        better = await model.handle
        assert model.handle.status == status
        return model, better

    model, _ = run(main(None, "finished"))
    judged = [e for e in events(model.handle, CandidateScored) if e.split == "val"]
    assert max(e.score for e in judged if e.step in (1, 2)) > judged[0].score
    _, better = run(main(len(model.requests) - 10, "stopped"))
    assert "Rule" in better.instruction or better.demos


def test_under_a_budget_with_room_for_all_winners_they_are_evaluated_while_later_steps_run():
    done = simba_run(Model(), max_steps=8, minibatch_size=12, budget=dn.Budget(metric_calls=120))  # for three steps
    scored = dict.fromkeys((e.split, e.step) for e in events(done, CandidateScored))
    assert list(scored) == [("val", 0), *((split, step) for step in (1, 2, 3) for split in ("train", "val"))]
    assert done.status == "finished"


def test_the_result_is_better_where_rules_help():
    done = simba_run(Model(skill=0.1, gain=0.2), max_steps=8, num_candidates=4, minibatch_size=8)
    table = done.candidates
    assert table.score.max() > table.score.iloc[0]
    assert "Rule" in str(done.best.instruction)


# ── budgets ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_budget_that_is_too_small_for_everything_is_used_for_smaller_minibatches_and_fewer_steps():
    for limit in (150, 400, 800):
        done = simba_run(
            Model(),
            train=rows(0, 60),
            val=rows(100, 160),
            minibatch_size=32,
            num_candidates=6,
            max_steps=8,
            budget=dn.Budget(metric_calls=limit),
        )
        spent = len(events(done, RolloutEnded))
        scored = events(done, CandidateScored)
        assert 0.8 * limit <= spent <= limit
        assert done.status == "finished"
        assert sum(e.full and e.split == "val" for e in scored) >= 2  # the start, and a winner at least
        assert all(e.rows >= (2 if limit == 150 else 4) for e in scored if e.split == "train")
        assert len({e.step for e in scored if e.split == "train"}) >= (1 if limit == 150 else 3)


def test_a_budget_that_is_enough_changes_nothing():
    free = outcome(simba_run(Model()))
    enough = outcome(simba_run(Model(), budget=dn.Budget(metric_calls=4 * 4 * 7 + 4 * 6)))
    assert enough == free


def test_with_room_for_the_start_only_the_start_is_the_result():
    done = simba_run(Model(), num_candidates=2, minibatch_size=1, budget=dn.Budget(metric_calls=6 + 5 + 5))
    assert [e.origin for e in events(done, CandidateProposed)] == ["start"]
    assert done.status == "finished"


# ── concurrency and determinism ───────────────────────────────────────────────────────────────────────────────────────
def test_trajectories_proposals_and_new_candidates_of_a_step_run_concurrently():
    class Slow(Model):
        """A model that answers once no more requests come."""

        def __init__(self):
            super().__init__()
            self.lm, self.under_way, self.waves = dn.FunctionLM(self.slowly), 0, []

        async def slowly(self, request):
            self.under_way += 1
            count = self.under_way
            await asyncio.sleep(0.02)
            if count == self.under_way:
                self.waves.append((count, ADVISED in prompt(request)))
                self.under_way = 0
            return self.answer(request)

    model = Slow()
    simba_run(model, train=rows(0, 12), minibatch_size=12, num_candidates=6, max_steps=1, max_demos=0, concurrency=1000)
    start = 6 + 12 * 6  # the validation rows and the trajectories
    assert model.waves == [(start, False), (6, True), (12 * 7, False), (6, False)]


class Branches(dn.Module):
    """Two calls of one predictor and one of another, side by side."""

    def __init__(self, lm):
        self.part, self.other = dn.Predict("question, side -> answer", lm=lm), dn.Predict("question -> answer", lm=lm)

    async def forward(self, question):
        sides = [self.part(question=question, side=side) for side in ("left", "right")]
        left, second, last = await asyncio.gather(*sides, self.other(question=question))
        return last if left.answer == second.answer else left


def test_the_order_in_which_concurrent_calls_end_changes_nothing():
    async def main():
        results = []
        for latency in (1, 2, 3):
            world = World(latency, slowest=0.004)
            results.append(outcome(await optimized(SIMBA, world, program=lambda w: Branches(w.lm), minibatch_size=6)))
        assert results[0]["candidates"] == results[1]["candidates"] == results[2]["candidates"]
        assert len(results[0]["candidates"]) > 5
        assert results[0] == results[1] == results[2]

    run(main())


# ── programs and metrics of all kinds ─────────────────────────────────────────────────────────────────────────────────
def test_a_predictor_that_is_not_called_is_shown_as_such_and_gets_no_demo():
    class Either(dn.Module):
        def __init__(self, lm):
            self.used, self.idle = (dn.Predict("question -> answer", lm=lm) for _ in range(2))

        async def forward(self, question):
            return await self.used(question=question)

    done = simba_run(Model(), program=lambda world: Either(world.lm), num_candidates=4)
    demos = children(done, "demo")
    assert demos
    assert all("idle" not in e.parts or "demos" not in e.parts["idle"] for e in demos)
    assert all("# used" in call.inputs["worse_trajectory"] for call in advised(done))
    assert all("# idle" not in call.inputs["worse_trajectory"] for call in advised(done))


def test_the_advisor_of_a_search_inside_the_program_is_a_predictor_like_others():
    def refine(world):
        inner = dn.Predict("question -> answer", lm=world.lm)
        advice = dn.FunctionLM(lambda request: chat(advice=json.dumps({"self": "Try more steps."})))
        return dn.Refine(inner, lambda row, p: float(not p.answer.startswith("no")), n=2, advisor_lm=advice)

    done = simba_run(Model(skill=0.2), program=refine, num_candidates=4)
    assert done.status == "finished"
    assert [path for path, _ in done.best.named_predictors()] == ["self", "advisor"]
    assert children(done, "demo")
    assert children(done, "rule")


def test_a_failed_trajectory_is_shown_with_its_error_and_never_becomes_a_demo():
    class Falls(Model):
        def answer(self, request):
            if ADVISED not in prompt(request) and request.rollout == 1:
                raise dn.errors.ServerError("the provider fell over")
            return super().answer(request)

    done = simba_run(Falls(skill=0.6), failure_score=-1.0)
    all_inputs = [call.inputs for call in advised(done)]
    failed = [inputs for inputs in all_inputs if inputs["worse_score"] == "-1"]
    assert failed
    assert all("fell over" in inputs["worse_feedback"] for inputs in failed)
    assert all(inputs["worse_outputs"] == "None: it failed." for inputs in failed)
    with pytest.warns(dn.ScoreRangeWarning, match="below failure_score=5"):
        high = simba_run(Falls(skill=0.6), failure_score=5.0)  # a failure that counts more than a success
    assert not children(high, "demo")


def test_a_metric_without_feedback_works_and_warns_that_feedback_would_help():
    def bare(row, prediction):
        return row.answer == prediction.answer

    with pytest.warns(dn.NoFeedbackWarning, match="bare gives scores without feedback"):
        done = simba_run(Model(), bare, max_demos=0)
    assert children(done, "rule")


def test_the_inputs_of_a_rule_do_not_depend_on_timing():
    def look(number: str) -> str:
        """Look a number up."""
        time.sleep(0.001)
        return f"found {number}"

    class Looks(Model):
        def answer(self, request):
            text = prompt(request)
            if ADVISED in text or "next_tool_name" not in text:
                return super().answer(request)
            looked = "found" in text
            args = "{}" if looked else '{"number": "1"}'
            return chat(next_thought="hm", next_tool_name="finish" if looked else "look", next_tool_args=args)

    def program(world):
        act = dn.ReAct("question -> answer", tools=[look])
        for _, predictor in act.named_predictors():
            predictor.lm = world.lm
        return act

    prompts = [
        [call.inputs for call in advised(simba_run(Looks(), max_demos=0, max_steps=2, program=program))]
        for _ in range(2)
    ]
    assert prompts[0] == prompts[1]
    assert "Observation: found 1" in prompts[0][0]["worse_outputs"]


def test_an_empty_list_is_shown_as_an_empty_list():
    done = simba_run(Model(), train=[{**row, "banned": []} for row in rows(0, 12)], max_demos=0, max_steps=1)
    assert {"banned: []" in call.inputs["labels"] for call in advised(done)} == {True}


def test_a_metric_with_a_predictor_parameter_gives_feedback_on_each_predictor():
    def for_predictor(row, prediction, predictor=None):
        return dn.Score(float(row.answer == prediction.answer), f"said of {predictor}")

    done = simba_run(Model(), for_predictor, max_demos=0)
    assert {call.inputs["worse_feedback"] for call in advised(done)} == {"self: said of self"}


def test_the_feedback_on_other_low_trajectories_is_shown_too():
    def metric(row, prediction):
        return dn.Score(float(row.answer == prediction.answer), f"{prediction.answer} is wrong")

    done = simba_run(Model(skill=0.3), metric, max_demos=0, num_candidates=4)
    feedback = [call.inputs["worse_feedback"].splitlines() for call in advised(done)]
    assert max(map(len, feedback)) > 1
    for call in advised(done):
        first = call.inputs["worse_feedback"].splitlines()[0]
        assert first == f"{call.inputs['worse_outputs'].removeprefix('answer: ')} is wrong"


def test_settings_out_of_range_are_refused_with_the_value_received():
    for settings, says in (
        ({"minibatch_size": 0}, "minibatch_size must be a whole number of at least 1, got 0"),
        ({"num_candidates": 1}, "num_candidates must be a whole number of at least 2, got 1"),
        ({"max_steps": 1.5}, "max_steps must be a whole number of at least 1, got 1.5"),
        ({"max_demos": -1}, "max_demos must be a whole number of at least 0, got -1"),
        ({"temperature_for_sampling": 0}, "temperature_for_sampling must be a number above 0, got 0"),
        ({"temperature_for_candidates": "hot"}, "temperature_for_candidates must be a number above 0, got 'hot'"),
    ):
        with pytest.raises(ConfigurationError, match=says):
            SIMBA(right, **settings)
