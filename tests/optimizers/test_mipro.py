"""MIPROv2: demo sets, grounded instructions, and a search over both."""

from __future__ import annotations

import asyncio

import pytest

import dspynb as dn
from dspynb.errors import ConfigurationError
from dspynb.events import CandidateProposed, CandidateScored, PredictorCalled, ProposalEnded, RolloutEnded
from tests.helpers import chat, field
from tests.optimizers.worlds import TRAIN, VAL, World, events, one, optimized, outcome, right, rows, small, three

run = asyncio.run


def test_trials_are_on_one_minibatch_between_two_full_evaluations():
    done = run(optimized(dn.MIPROv2, World(1), num_trials=6))
    scored = [e for e in events(done, CandidateScored) if e.split == "val"]
    assert scored[0].full
    assert scored[0].candidate == events(done, CandidateProposed)[0].id
    assert {e.rows for e in scored if not e.full} <= {3}
    assert len([e for e in scored if e.full]) >= 2


def test_the_result_was_evaluated_on_all_rows():
    done = run(optimized(dn.MIPROv2, World(1), program=three))
    full = {e.candidate: e.score for e in events(done, CandidateScored) if e.full and e.split == "val"}
    last = [e for e in events(done, CandidateScored) if e.split == "val"][-1]
    assert full[last.best] == max(full.values())


def test_without_demos_only_instructions_are_searched():
    done = run(optimized(dn.MIPROv2, World(1), max_bootstrapped_demos=0, max_labeled_demos=0))
    proposed = events(done, CandidateProposed)[1:]
    assert proposed
    assert all(not part.get("demos") for e in proposed for part in e.parts.values())


def test_the_programs_own_instruction_and_demos_are_among_the_choices():
    own = {"question": "90", "answer": "180"}

    def program(world):
        return dn.Predict("question -> answer", lm=world.lm, demos=[own], instruction="Mine.")

    done = run(optimized(dn.MIPROv2, World(1), program=program, num_trials=12))
    parts = [e.parts.get("self", {}) for e in events(done, CandidateProposed)[1:]]
    assert any(part.get("instruction", "Mine.") == "Mine." for part in parts)
    assert any(part.get("demos", [own]) == [own] for part in parts)


def test_instructions_are_grounded_in_data_program_and_a_tip():
    done = run(optimized(dn.MIPROv2, World(1), program=three))
    calls = [c for c in events(done, PredictorCalled) if c.predictor == "proposer.instruction"]
    assert len(calls) == 2 * 3
    for call in calls:
        assert call.inputs["dataset_description"].startswith("summary of ")
        assert call.inputs["program_description"].startswith("program_description of ")
        assert call.inputs["module_description"].startswith("module_description of ")
        assert "steps[0]: Predict(" in call.inputs["program_code"]
    keys = [e.key for e in events(done, ProposalEnded)]
    assert len(keys) == len(set(keys))
    assert keys.count("program") == 1


def test_how_many_trials_are_in_flight_changes_what_the_sampler_knows_but_not_the_order():
    results = [
        outcome(run(optimized(dn.MIPROv2, World(latency), in_flight=3, num_trials=8, minibatch=False)))
        for latency in (1, 2, None)
    ]
    assert results[0] == results[1] == results[2]


def test_concurrency_must_be_equal_on_resume_where_the_sampler_depends_on_it():
    done = run(optimized(dn.MIPROv2, World()))

    async def again(**settings):
        await small(dn.MIPROv2, **settings).resume(done.path, one(World()), TRAIN, VAL)

    with pytest.raises(ConfigurationError, match="these settings changed: concurrency"):
        run(again(concurrency=32))
    run(again())


def test_without_validation_rows_the_last_four_fifths_are_the_validation_rows():
    done = run(optimized(dn.MIPROv2, World(), train=rows(0, 10), val=None))
    judged = {e.row for e in events(done, RolloutEnded) if e.split == "val"}
    learned = {e.row for e in events(done, RolloutEnded) if e.split == "train"}
    assert judged == set(range(8))
    assert learned <= {0, 1}


def test_auto_sets_the_sizes():
    for auto, most in (("light", 100), ("medium", 300), ("heavy", 1000)):
        optimizer = dn.MIPROv2(right, auto=auto)
        train, val = optimizer.parted([], [dn.Example(row) for row in rows(0, 1200)])
        assert (len(train), len(val)) == (0, most)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"auto": "tiny"}, "auto must be one of light, medium, heavy, or None, got 'tiny'"),
        ({"num_trials": 3}, "give either auto, or with auto=None both"),
        ({"auto": None, "num_candidates": 3}, "give either auto, or with auto=None both"),
        ({"auto": None, "num_candidates": 1, "num_trials": 3}, "num_candidates must be a whole number of at least 2"),
        ({"minibatch_size": 0}, "minibatch_size must be a whole number of at least 1"),
        ({"in_flight": 0}, "in_flight must be a whole number"),
        ({"max_labeled_demos": -1}, "max_labeled_demos must be a whole number of at least 0"),
        ({"metric_threshold": "high"}, "metric_threshold must be a finite number"),
        ({"init_temperature": "hot"}, "init_temperature must be a finite number of at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, says):
    with pytest.raises(ConfigurationError, match=says):
        dn.MIPROv2(right, **settings)


# ── a teacher's model ─────────────────────────────────────────────────────────────────────────────────────────────────


def taught(teacher, **settings):
    """An optimizer whose demos come from a teacher's model."""
    return small(dn.MIPROv2, teacher_lm=teacher, **settings)


def knowing(requests):
    """A model that is always right, and the list of its requests."""

    def answer(request):
        requests.append(request)
        return chat(answer=str(2 * int(field(request, "question"))))

    return dn.FunctionLM(answer, name="teacher")


@pytest.mark.parametrize("demos", [2, 0], ids=["with demos", "instructions only"])
def test_demos_are_bootstrapped_with_the_model_of_the_teacher_alone(demos):
    requests = []
    world = World(1)
    settings = {"max_bootstrapped_demos": demos, "max_labeled_demos": 0}
    taught(knowing(requests), prompt_lm=world.lm, **settings).compile_sync(one(world), TRAIN, val=VAL)
    calls = events(dn.last_run(), PredictorCalled)
    assert {field(request, "question") for request in requests} <= {row["question"] for row in TRAIN}
    assert len(requests) >= 2
    assert len(requests) == len([call for call in calls if call.model == "teacher"])
    shown = [call.inputs["task_demos"] for call in calls if call.predictor == "proposer.instruction"]
    assert any("answer: 0" in text for text in shown)


def test_the_model_of_the_teacher_is_a_setting_that_resuming_compares_and_the_repr_shows():
    world = World(1)
    optimizer = taught(knowing([]))
    assert "teacher_lm=" in repr(optimizer)

    async def main():
        handle = optimizer.start(one(world), TRAIN, VAL)
        await handle
        with pytest.raises(ConfigurationError, match="these settings changed: teacher_lm"):
            small(dn.MIPROv2).resume(handle.id, one(world), TRAIN, VAL)
        requests = []
        resumed = await taught(knowing(requests)).resume(handle.id, one(world), TRAIN, VAL)
        assert requests == []
        return (await handle).dump_state() == resumed.dump_state()

    assert run(main())
