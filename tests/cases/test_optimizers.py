"""Optimizers. Times and comparisons with gepa are in the benchmarks (benchmarks/README.md)."""

from __future__ import annotations

import asyncio
import re
import warnings

import pytest

import dspynb as dn
from dspynb.scope import Part
from tests.helpers import chat, field, prompt
from tests.optimizers.worlds import PROPOSING, TRAIN, VAL, Plan, World, one, planned, small


def refused(work):
    """The DspynbError that the work raises; None if it raises none."""
    try:
        work()
    except dn.DspynbError as error:
        return error
    return None


# ── listening ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def listened(start, **settings):
    """The arguments that a listener of a run receives."""
    events = []

    async def main():
        run = start()
        run.listen(events.append, **settings)
        await run

    asyncio.run(main())
    return [type(event).__name__ for event in events]


@pytest.mark.parametrize("replay", [False, True])
def test_a_function_listens_to_a_run(replay):
    program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: chat(answer="4")))
    names = listened(lambda: program.start(question="2+2?"), replay=replay)
    assert names == ["RunStarted", "PredictorCalled", "RunEnded"]


def test_a_function_listens_to_an_optimizer():
    names = listened(lambda: small(dn.GEPA).start(one(World()), TRAIN, VAL))
    assert {"RunStarted", "CandidateProposed", "CandidateScored", "RolloutEnded", "RunEnded"} <= set(names)


# ── an optimizer of one's own ─────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.xfail(
    strict=True, raises=KeyError, reason="part 10: engine.candidate of an unknown path is a bare KeyError"
)
@pytest.mark.parametrize("paths", [["nope"], ["self", "nope"]])
def test_a_candidate_for_a_predictor_that_is_not_there_names_those_that_are(paths):
    async def search(engine):
        engine.candidate({path: Part(instruction="Do.") for path in paths}, origin="mine")

    with pytest.raises(dn.DspynbError, match="nope") as caught:
        planned(search)
    assert "self" in str(caught.value)


@pytest.mark.xfail(strict=True, raises=AssertionError, reason="part 10: a proposal key used twice is not refused")
@pytest.mark.parametrize("after", [False, True], ids=["at once", "one after the other"])
def test_a_proposal_key_that_is_used_twice_is_refused(after):
    ask = dn.Predict("topic -> new_instruction", lm=dn.FunctionLM(lambda request: chat(new_instruction="Do.")))

    async def search(engine):
        first = engine.propose("step 1", ask, {"topic": "a"})
        if after:
            await first
        await engine.propose("step 1", ask, {"topic": "b"})
        await first

    error = refused(lambda: planned(search))
    assert error is not None
    assert "step 1" in str(error)


class Own(Plan):
    """A user-defined optimizer that asks a model for one instruction; the question is a setting."""

    def __init__(self, instruction):
        self.writer = dn.Predict("topic -> new_instruction")
        self.writer.instruction = instruction
        super().__init__(self._once, concurrency=4)

    def proposers(self):
        return {"own.write": self.writer}

    async def _once(self, engine):
        await engine.evaluate(engine.start)
        proposal = await engine.propose("step 1", self.writer, {"topic": "sums"})
        await engine.evaluate(engine.candidate({"self": Part(instruction=proposal.new_instruction)}, origin="own"))


def resumed(make, again):
    """The error of resuming a run with another optimizer; None if the run resumes."""

    async def main():
        run = make().start(one(World()), TRAIN, VAL)
        await run
        await again().resume(run.id, one(World()), TRAIN, VAL)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dn.NoFeedbackWarning)
        return refused(lambda: asyncio.run(main()))


@pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="part 9: a changed reflection prompt is not noticed by resume"
)
@pytest.mark.parametrize("kind", PROPOSING)
def test_a_run_is_not_resumed_with_another_prompt_for_proposals(kind):
    def changed():
        optimizer = small(kind)
        for predictor in optimizer.proposers().values():
            predictor.instruction = "Write something else."
        return optimizer

    assert resumed(lambda: small(kind), lambda: small(kind)) is None  # the same is resumed
    assert resumed(lambda: small(kind), changed) is not None


@pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="part 9: a changed reflection prompt is not noticed by resume"
)
def test_a_run_of_an_own_optimizer_is_not_resumed_with_another_prompt_for_proposals():
    assert resumed(lambda: Own("Write."), lambda: Own("Write.")) is None
    assert resumed(lambda: Own("Write."), lambda: Own("Write something else.")) is not None


# ── what a run says of itself ─────────────────────────────────────────────────────────────────────────────────────────
def answers(request):
    """A metric that is 1 if the instruction names the expected number."""
    number = field(request, "question")
    named = re.findall(r"\[(\d+)\]", request.messages[0]["content"])
    return chat(answer="right" if number in named else "wrong")


def says_right(row, prediction):
    return dn.Score(float(prediction.answer == "right"), f"Mind [{row.question}].")


def numbers(*values):
    return [{"question": str(value)} for value in values]


def writing(*values):
    """A model whose reflections name these numbers."""
    text = "Answer. " + " ".join(f"[{value}]" for value in values)
    return dn.FunctionLM(lambda request: chat(new_instruction=text))


def run_of(optimizer, train, val, program=None):
    async def main():
        run = optimizer.start(program or dn.Predict("question -> answer", lm=dn.FunctionLM(answers)), train, val)
        await run
        return run

    return asyncio.run(main())


@pytest.mark.xfail(strict=True, raises=AssertionError, reason='part 10: one validation row gets "p = 1"')
def test_one_validation_row_gets_no_p_value():
    optimizer = dn.GEPA(says_right, max_steps=1, prompt_lm=writing(1, 2, 3, 10))
    run = run_of(optimizer, numbers(1, 2, 3), numbers(10))
    assert run.candidates.score.max() == 1
    assert "p = " not in run.summary


@pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="part 10: equal trajectories: no candidate, without the reason"
)
@pytest.mark.parametrize("answer", ["right", "wrong"])
def test_simba_says_that_all_trajectories_were_equal(answer):
    program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: chat(answer=answer)))
    optimizer = dn.SIMBA(says_right, minibatch_size=2, num_candidates=2, max_steps=2)
    run = run_of(optimizer, numbers(1, 2), numbers(10, 11), program)
    assert len(run.candidates) == 1
    assert re.search(r"trajector|sample", run.summary)
    assert re.search(r"\b(same|equal|alike|identical|differ\w*)\b", run.summary)


def unreadable(request):
    return "I would rather not."


def failing(request):
    raise dn.errors.ServerError("the provider fell over")


@pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="part 10: fewer refused proposals than patience: without the reason"
)
@pytest.mark.parametrize(
    ("reply", "reason"), [(unreadable, "could not be read|new_instruction"), (failing, "fell over")]
)
def test_gepa_says_why_its_proposals_failed(reply, reason):
    optimizer = dn.GEPA(says_right, max_steps=2, in_flight=1, prompt_lm=dn.FunctionLM(reply))
    run = run_of(optimizer, numbers(1, 2, 3), numbers(10, 11))
    assert run.proposals.error.notna().tolist() == [True, True]
    assert re.search(reason, run.summary)


# ── GEPA ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
class Unused(dn.Module):
    """Two predictors, one of which never runs."""

    def __init__(self):
        self.answer = dn.Predict("question -> answer", lm=dn.FunctionLM(answers))
        self.spare = dn.Predict("question -> remark", lm=dn.FunctionLM(answers))
        self.spare.instruction = "Remark on it."

    async def forward(self, question):
        return await self.answer(question=question)


@pytest.mark.xfail(strict=True, raises=AssertionError, reason="part 10: GEPA reflects on a predictor that never ran")
@pytest.mark.parametrize("components", ["round_robin", "all"])
def test_gepa_does_not_reflect_on_a_predictor_that_never_ran(components):
    prompts = []

    def reflect(request):
        prompts.append(prompt(request))
        return chat(new_instruction=f"No better, {len(prompts)}.")

    optimizer = dn.GEPA(says_right, max_steps=4, components=components, prompt_lm=dn.FunctionLM(reflect))
    run_of(optimizer, numbers(1, 2, 3), numbers(10, 11), Unused())
    assert prompts
    assert not [text for text in prompts if "Remark on it." in text]


@pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="part 10: a child one row ahead is dropped without room to confirm it"
)
@pytest.mark.parametrize("settings", [{}, {"in_flight": 1}])
def test_a_child_one_row_ahead_is_validated_where_there_is_no_room_to_confirm_it(settings):
    budget = dn.Budget(metric_calls=4 + 2 * 1 + 4)  # the start, a minibatch of both, and one further validation
    prompt_lm = writing(1, 2, 3, 10, 11, 12, 13)
    optimizer = dn.GEPA(says_right, minibatch_size=1, prompt_lm=prompt_lm, budget=budget, **settings)
    run = run_of(optimizer, numbers(1, 2, 3), numbers(10, 11, 12, 13))
    assert len(run.rollouts) <= 10
    assert run.candidates.score.max() == 1
    assert "[10]" in run.best.instruction
