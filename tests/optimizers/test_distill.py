"""DistillHints: hints that worked become the instruction; candidates are judged without retries, and accepted only
where they are clearly better."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import dspynb as dn
from dspynb.errors import ConfigurationError, InputError
from dspynb.events import PredictorCalled, ProposalEnded, RolloutEnded
from dspynb.optimizers.distill.distill import DistillInstruction
from tests.helpers import Caption, chat, field, prompt
from tests.optimizers.worlds import events, lines

run = asyncio.run
OWN = "Write one sentence about the subject."


def rows(first, last):
    return [{"subject": str(i)} for i in range(first, last)]


TRAIN, VAL = rows(0, 6), rows(10, 22)


def saying(*words, writes=None, but=()):
    """A model that says the words that its prompt names, except for the subjects in ``but``. Where the prompt is for an
    instruction, it writes ``writes``."""

    def answer(request):
        text = prompt(request)
        if "[[ ## new_instruction ## ]]" in text:
            return chat(new_instruction=writes) if writes else "mumble"
        if "[[ ## advice ## ]]" in text:
            return chat(advice='{"self": "say blue"}')
        said = [word for word in words if f"say {word}" in text]
        return chat(sentence=" ".join(said) if said and field(request, "subject") not in but else "nothing")

    return dn.FunctionLM(answer)


def wants(*words, feedback=True):
    """A reward: the share of the words that are said; its feedback names a missing one."""

    def reward(row, prediction):
        missing = [word for word in words if word not in prediction.sentence]
        return dn.Score(1 - len(missing) / len(words), f"say {missing[0]}" if missing and feedback else None)

    return reward


def refined(lm, reward, n=3, **settings):
    return dn.Refine(dn.Predict(Caption, lm=lm), reward, n=n, temperature=None, **{"hints": "feedback", **settings})


async def distilled(program, *, train=TRAIN, val=VAL, test=None, metric=None, **settings):
    """The run of DistillHints that has ended."""
    handle = dn.DistillHints(metric, **{"rewrite": False, **settings}).start(program, train, val, test=test)
    await handle
    return handle


def origins(done):
    return done.candidates.origin.tolist()


def instruction(done, path="self"):
    return done.candidates[done.candidates.best].instructions.iloc[0][path]


# ── candidates ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_hint_that_worked_becomes_the_instruction_in_the_words_of_a_retry():
    refine = refined(saying("blue"), wants("blue"))
    done = run(distilled(refine))
    better = done.best
    assert isinstance(better, dn.Refine)
    assert better.module.instruction == f"{OWN}\n\nHint: say blue"
    hinted = next(call for call in events(done, PredictorCalled) if call.hint)
    alone = run(better.module(subject=hinted.inputs["subject"]))
    assert alone.sentence == "blue"
    assert alone.calls[0].messages == hinted.messages
    assert len(run(better(subject="new")).run.attempts) == 1
    assert refine.module.instruction is None


def test_candidates_are_judged_by_their_first_attempt_only_also_on_test_rows():
    done = run(distilled(refined(saying("blue"), wants("blue")), test=rows(30, 33)))
    rollouts = events(done, RolloutEnded)
    assert {(e.split, e.attempts) for e in rollouts} == {("train", 2), ("val", 1), ("test", 1)}
    start = next(iter(done.record.candidates))
    assert {e.score for e in rollouts if (e.candidate, e.split) == (start, "val")} == {0}
    assert {call.hint for call in events(done, PredictorCalled)} == {None, "say blue"}
    assert sum(call.hint is not None for call in events(done, PredictorCalled)) == len(TRAIN)


def test_hints_that_are_needed_together_are_tried_together():
    done = run(distilled(refined(saying("blue", "red"), wants("blue", "red"), hints=both)))
    assert origins(done) == ["start", "hint 1", "hint 2", "best 2 together"]
    assert instruction(done) == f"{OWN}\n\nHint: say blue\nsay red"


def both(attempts, program, inputs):
    """One hint in the second attempt, another in the third."""
    return "say blue" if len(attempts) == 1 else "say red"


def test_max_hints_is_how_many_are_tried():
    done = run(distilled(refined(saying("blue", "red"), wants("blue", "red"), hints=both), max_hints=1))
    assert origins(done) == ["start", "hint 1"]


def test_a_hint_that_raised_no_score_is_not_tried():
    def hints(attempts, program, inputs):
        return "say red" if len(attempts) == 1 else "say blue"

    done = run(distilled(refined(saying("blue", "red"), wants("blue"), hints=hints)))
    assert sorted(done.hints.hint) == ["say blue", "say red"]
    assert origins(done) == ["start", "hint 1"]
    assert instruction(done) == f"{OWN}\n\nHint: say blue"
    assert "Of 2 hints, 1 raised scores on the training rows." in done.summary


class Two(dn.Module):
    def __init__(self, lm):
        self.first = dn.Predict(Caption, lm=lm)
        self.second = dn.Predict(Caption, lm=lm)

    async def forward(self, subject):
        said = [await part(subject=subject) for part in (self.first, self.second)]
        return {"sentence": " ".join(part.sentence for part in said)}


def test_each_predictor_gets_its_own_hints():
    hints = {"first": "say blue", "second": "say red"}
    program = dn.Refine(Two(saying("blue", "red")), wants("blue", "red"), hints=lambda *_: hints, temperature=None)
    done = run(distilled(program))
    assert instruction(done, "first") == f"{OWN}\n\nHint: say blue"
    assert instruction(done, "second") == f"{OWN}\n\nHint: say red"


class Inside(dn.Module):
    """A program with a Refine, an advisor, and a predictor without hints."""

    def __init__(self, lm, reward, **settings):
        self.think = dn.Predict("subject -> sentence", lm=lm)
        self.write = refined(lm, reward, hints="auto", **settings)

    async def forward(self, subject):
        await self.think(subject=subject)
        return await self.write(subject=subject)


def test_a_refine_inside_a_program_is_distilled_under_the_paths_of_the_program():
    done = run(distilled(Inside(saying("blue"), wants("blue")), metric=wants("blue")))
    changed = done.candidates["diff"].iloc[1]
    assert list(changed) == ["write"]
    assert done.best.write.module.instruction == f"{OWN}\n\nHint: say blue"
    assert done.best.think.instruction is None
    assert {(e.split, e.attempts) for e in events(done, RolloutEnded)} == {("train", 2), ("val", 1)}


# ── the test ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_candidate_that_is_better_on_a_few_rows_only_is_rejected_and_the_summary_says_so():
    few = [str(i) for i in range(13, 22)]  # of 12 validation rows it helps on 3
    refine = refined(saying("blue", but=few), wants("blue"))
    done = run(distilled(refine))
    assert done.candidates.score.tolist() == [0, 0.25]
    assert done.candidates.best.tolist() == [True, False]
    assert done.best.module.instruction is None
    assert done.summary.startswith("The program stays as it is. Of 2 candidates")
    assert "(hint 1) scored highest. On 12 validation rows it scores 0.25" in done.summary
    assert "That is not enough to prefer it." in done.summary


def test_the_level_is_shared_among_the_candidates():
    six = [str(i) for i in range(16, 22)]  # it helps on 6 rows: p = 0.031

    def taken(**settings):
        hints = both if settings.pop("two", False) else "feedback"
        reward = wants("blue", "red") if hints is both else wants("blue")
        done = run(distilled(refined(saying("blue", but=six), reward, hints=hints), **settings))
        return len(origins(done)) - 1, done.best.module.instruction is not None

    assert taken() == (1, True)
    assert taken(level=0.98) == (1, False)
    words = wants("blue")

    def hints(attempts, program, inputs):
        return f"say blue{'!' * len(attempts)}" if int(inputs.subject) % 2 else "say blue"

    done = run(distilled(refined(saying("blue", but=six), words, hints=hints)))
    assert (len(origins(done)) - 1, done.best.module.instruction) == (3, None)


def test_a_gain_of_the_same_size_on_two_rows_proves_nothing():
    done = run(distilled(refined(saying("blue"), wants("blue", "never")), val=VAL[:2]))
    assert done.candidates.score.tolist() == [0, 0.5]
    assert done.best.module.instruction is None


def test_a_winner_passes_the_paired_test_before_it_is_recorded_as_the_best():
    few = [str(i) for i in range(13, 22)]
    done = run(distilled(refined(saying("blue", but=few), wants("blue")), test=rows(30, 32)))
    assert set(done.history.best) == {done.candidates.id[0]}
    assert "test rows" in done.summary


# ── written by a model ────────────────────────────────────────────────────────────────────────────────────────────────
def test_an_instruction_that_a_model_writes_is_tried_too():
    refine = refined(saying("blue"), wants("blue"))
    done = run(distilled(refine, rewrite=True, prompt_lm=saying(writes="Say blue of the subject.")))
    assert origins(done) == ["start", "hint 1", "rewritten"]
    assert [e.key for e in events(done, ProposalEnded)] == ["distil, self"]
    call = next(call for call in events(done, PredictorCalled) if call.predictor == "distill.write")
    assert call.inputs == {"current_instruction": OWN, "hints": ["say blue"]}
    assert done.candidates.instructions[2]["self"] == "Say blue of the subject."


def test_the_writer_sees_the_hints():
    assert set(DistillInstruction.input_fields) == {"current_instruction", "hints"}
    assert "without hints" in DistillInstruction.instruction


def test_a_writer_that_fails_costs_its_candidate_only_however_often():
    program = dn.Refine(Two(saying("blue", "red")), wants("blue"), hints="feedback", temperature=None)
    done = run(distilled(program, rewrite=True, patience=1))
    assert done.status == "finished"
    assert origins(done) == ["start", "hint 1"]
    assert "2 of 2 proposals failed." in done.summary
    assert instruction(done, "first") == f"{OWN}\n\nHint: say blue"


# ── an earlier run ────────────────────────────────────────────────────────────────────────────────────────────────────
async def earlier(refine):
    await refine.batch(TRAIN)
    return dn.last_run()


def test_the_hints_of_a_run_are_distilled_without_a_rollout_on_training_rows():
    async def main():
        refine = refined(saying("blue"), wants("blue"))
        before = await earlier(refine)
        stored = [await distilled(refine, run=of, train=VAL, val=None) for of in (before, before.id, before.path)]
        for done in stored:
            assert {e.split for e in events(done, RolloutEnded)} == {"val"}
            assert done.best.module.instruction == f"{OWN}\n\nHint: say blue"
            assert "It distils 1 hint of an earlier run." in done.summary

    run(main())


def test_the_hints_of_a_comparison_fit_the_refine_that_was_compared_and_the_program_inside():
    async def main():
        refine = refined(saying("blue"), wants("blue"))
        comparison = await dn.compare({"plain": refine.module, "refined": refine}, TRAIN, wants("blue"))
        for program, metric in ((refine, None), (refine.module, wants("blue"))):
            done = await distilled(program, run=comparison.run, metric=metric)
            assert instruction(done) == f"{OWN}\n\nHint: say blue"

    run(main())


def test_a_run_without_hints_to_distil_is_refused_by_the_constructor():
    async def main():
        passing = refined(saying("blue"), wants("blue"))
        passing.module.instruction = "say blue"
        with pytest.raises(InputError, match="no hints to distil: none of its attempts had one"):
            dn.DistillHints(run=await earlier(passing))
        with pytest.raises(InputError, match=r"no hint of the run raised a score \(it had 1, see run.hints\)"):
            dn.DistillHints(run=await earlier(refined(saying("red"), wants("blue"))))
        with pytest.raises(InputError, match="give a Trace, a Run, or the path"):
            dn.DistillHints(run=3)

    run(main())


def test_hints_for_predictors_that_the_program_lacks_are_refused_before_any_call():
    async def main():
        before = await earlier(refined(saying("blue"), wants("blue")))
        requests = []
        program = dn.Refine(Two(dn.FunctionLM(requests.append)), wants("blue"))
        with pytest.raises(InputError, match=r"for other predictors \(self\); here there are first, second$"):
            await distilled(program, run=before)
        assert requests == []

    run(main())


def test_a_run_is_not_resumed_with_other_hints():
    async def main():
        lm = saying("blue", "red")
        blue, red = [await earlier(refined(lm, wants(word))) for word in ("blue", "red")]
        refine = refined(lm, wants("blue"))
        done = await distilled(refine, run=blue)
        with pytest.raises(ConfigurationError, match="these settings changed: hints"):
            dn.DistillHints(run=red, rewrite=False).resume(done.path, refine, TRAIN, VAL)

    run(main())


# ── nothing to distil ─────────────────────────────────────────────────────────────────────────────────────────────────
def test_without_a_failed_first_attempt_the_program_is_unchanged_and_the_summary_says_why():
    refine = refined(saying("blue"), wants("blue"))
    refine.module.instruction = "say blue"
    done = run(distilled(refine))
    assert done.status == "finished"
    assert origins(done) == ["start"]
    assert done.best.module.instruction == "say blue"
    assert "No first attempt on the training rows was tried again, so there was nothing to distil." in done.summary


def test_without_any_hint_the_summary_says_so_and_that_feedback_would_help():
    done = run(distilled(refined(saying("blue"), wants("blue", feedback=False))))
    assert origins(done) == ["start"]
    assert "6 first attempts fell short, but no hint was written." in done.summary
    assert "The reward gives no feedback; dn.Score(value, feedback=…) would help." in done.summary


def test_where_the_advisor_failed_the_summary_has_its_error():
    broken = dn.FunctionLM(lambda request: "mumble")
    done = run(distilled(refined(saying("blue"), wants("blue", feedback=False), hints="auto", advisor_lm=broken)))
    assert "no hint was written. The advisor failed: ParseError" in done.summary


def test_a_reward_without_feedback_is_distilled_from_the_advisors_hints():
    lm = saying("blue")
    done = run(distilled(refined(lm, wants("blue", feedback=False), hints="auto", advisor_lm=lm)))
    assert instruction(done) == f"{OWN}\n\nHint: say blue"
    assert "The reward gives no feedback" in done.summary
    assert "self" in done.candidates["diff"][1]
    assert "advisor" not in done.candidates["diff"][1]


# ── bad input ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    "program",
    [
        lambda lm: dn.Predict(Caption, lm=lm),
        lambda lm: dn.BestOfN(dn.Predict(Caption, lm=lm), wants("blue")),
        lambda lm: refined(lm, wants("blue"), n=1),
        lambda lm: refined(lm, wants("blue"), n=3, width=3),
    ],
    ids=["no search", "BestOfN", "one attempt", "one wave"],
)
def test_a_program_that_never_retries_with_a_hint_is_refused_before_any_call(program):
    requests = []
    with pytest.raises(InputError, match="has no Refine that tries again after a hint.*or a run of one"):
        run(distilled(program(dn.FunctionLM(requests.append)), metric=wants("blue")))
    assert requests == []


@pytest.mark.parametrize("metric", [None, wants("blue")], ids=["no metric", "a metric"])
def test_a_program_without_retries_is_refused_for_that_and_not_for_a_missing_metric(metric):
    for program in (
        dn.Predict(Caption, lm=saying("blue")),
        dn.BestOfN(dn.Predict(Caption, lm=saying("blue")), wants("blue")),
    ):
        with pytest.raises(InputError, match=r"has no Refine that tries again.*give dn.Refine\(program, reward\)"):
            run(distilled(program, metric=metric))


def test_a_program_that_is_no_refine_needs_a_metric():
    with pytest.raises(InputError, match="Inside is no Refine, so it has no reward to judge it by: give a metric"):
        run(distilled(Inside(saying("blue"), wants("blue"))))


def test_settings_out_of_range_are_refused_by_the_constructor():
    for settings, says in (
        ({"max_hints": 0}, "max_hints must be a whole number of at least 1"),
        ({"level": 1}, "level must be a number above 0 and below 1, got 1"),
        ({"level": "high"}, "level must be a number above 0 and below 1, got 'high'"),
        ({"rewrite": 1}, "rewrite must be True or False, got 1"),
    ):
        with pytest.raises(ConfigurationError, match=says):
            dn.DistillHints(**settings)


# ── other searches in the program ─────────────────────────────────────────────────────────────────────────────────────
def test_a_judge_may_retry_where_the_program_may_not_and_its_hints_are_left_out():
    verdicts = []

    def answer(request):
        return chat(sentence="yes" if "Hint: decide" in prompt(request) else "perhaps")

    judge = dn.Refine(
        dn.Predict(Caption, lm=dn.FunctionLM(answer)),
        lambda row, p: dn.Score(float(p.sentence == "yes"), "decide"),
        n=2,
        hints="feedback",
    )

    async def judged(row, prediction):
        verdicts.append((await judge(subject=row.subject)).sentence)
        return wants("blue")(row, prediction)

    done = run(distilled(refined(saying("blue"), judged)))
    assert set(verdicts) == {"yes"}
    assert len(verdicts) > len(events(done, RolloutEnded))
    assert origins(done) == ["start", "hint 1"]
    assert instruction(done) == f"{OWN}\n\nHint: say blue"


def test_samples_of_a_best_of_n_inside_stay_as_many():
    inner = dn.BestOfN(dn.Predict(Caption, lm=saying("blue")), wants("blue"), n=2, temperature=None)
    done = run(distilled(dn.Refine(inner, wants("blue"), n=2, hints="feedback", temperature=None)))
    start, hinted = (
        {e.attempts for e in events(done, RolloutEnded) if e.candidate == c} for c in done.record.candidates
    )
    assert start == {3, 5}  # two samples and their attempt; on training rows one more attempt and sample
    assert hinted == {2}
    assert instruction(done) == f"{OWN}\n\nHint: say blue"


# ── budgets and resuming ──────────────────────────────────────────────────────────────────────────────────────────────
def test_under_a_budget_as_many_training_rows_are_run_as_leave_room_for_a_candidate():
    done = run(distilled(refined(saying("blue"), wants("blue")), budget=dn.Budget(metric_calls=26)))
    counts = done.rollouts.split.value_counts().to_dict()
    assert counts == {"val": 24, "train": 2}
    assert done.status == "finished"
    assert instruction(done) == f"{OWN}\n\nHint: say blue"


def test_a_budget_under_which_no_candidate_could_be_judged_is_refused():
    program = refined(saying("blue"), wants("blue"))
    with pytest.raises(ConfigurationError, match="its first step takes 25"):  # 12 rows twice, and one to learn from
        run(distilled(program, budget=dn.Budget(metric_calls=24)))
    assert len(run(distilled(program, budget=dn.Budget(metric_calls=25))).rollouts) == 25


def test_a_resumed_run_has_the_same_hints_and_counts_none_twice():
    refine = refined(saying("blue", "red", writes="Please say blue."), wants("blue", "red"), hints=both)
    optimizer = dn.DistillHints(concurrency=2, seed=1)

    async def gone_on(path):
        handle = optimizer.resume(path, refine, TRAIN, VAL)
        await handle
        return handle

    straight = run(distilled(refine, rewrite=True, concurrency=2, seed=1))
    text, wanted = lines(straight), straight.hints.to_numpy().tolist()
    assert [row[2] for row in wanted] == [6, 6]
    for cut in range(2, len(text), 5):
        Path(straight.path).write_bytes(b"".join(text[:cut]))
        again = run(gone_on(straight.path))
        lines(again)
        assert again.hints.to_numpy().tolist() == wanted, cut
        assert again.best.dump_state() == straight.best.dump_state()
