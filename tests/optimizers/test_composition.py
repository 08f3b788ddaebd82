"""Refine and optimizers compose: a program with a Refine in it is optimized, and an optimized program is refined."""

from __future__ import annotations

import asyncio

import pytest

import dspynb as dn
from dspynb.events import CandidateProposed, CandidateScored, PredictorCalled
from tests.helpers import chat, field, prompt
from tests.optimizers.worlds import SMALL, TRAIN, VAL, World, events, one, optimized, outcome, right, rows, small

run = asyncio.run
KINDS = [kind for kind in SMALL if kind is not dn.DistillHints]
every = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


class Advises:
    """A model that advises, with better hints where its instruction has the word ``careful``; it keeps its prompts."""

    def __init__(self):
        self.prompts = []
        self.lm = dn.FunctionLM(self._answer, name="advises")

    def _answer(self, request):
        text = prompt(request)
        self.prompts.append(text)
        said = text.split("Your objective is:")[1].split("[[")[0]
        return chat(advice=f'{{"self": "Answer with {"units and steps" if "careful" in said else "check"}."}}')


class Planned(dn.Module):
    """A plan, then an answer with retries and an advisor's hints."""

    def __init__(self, lm, advisor):
        self.plan = dn.Predict("question -> plan", lm=lm)
        answer = dn.Predict("question, plan -> answer", lm=lm)
        self.answer = dn.Refine(answer, doubled, n=2, hints="advisor", advisor_lm=advisor, temperature=None)

    async def forward(self, question):
        plan = await self.plan(question=question)
        return await self.answer(question=question, plan=plan.plan)


def doubled(row, prediction):
    """The reward of the Refine: it sees the inputs, and no labels."""
    return float(prediction.answer == str(2 * int(row.question)))


def planned(advises):
    return lambda world: Planned(world.lm, advises.lm)


@every
def test_a_program_with_a_refine_is_optimized_with_its_advisor_whatever_the_latencies(kind):
    async def main():
        results = []
        for latency in (None, 1, 2):
            advises = Advises()
            done = await optimized(kind, World(latency), program=planned(advises))
            better = done.best
            assert isinstance(better, Planned)
            assert [path for path, _ in better.named_predictors()] == ["plan", "answer", "answer.advisor"]
            assert done.status == "finished"
            assert advises.prompts
            results.append((outcome(done), sorted(advises.prompts)))
        assert results[0] == results[1] == results[2]

    run(main())


@every
def test_the_winner_scores_as_it_did_when_it_was_a_candidate(kind):
    """The candidate in the scope and the returned copy are the same program, with its advisor's texts."""

    async def main():
        done = await optimized(kind, World(1), program=planned(Advises()))
        scored = [e for e in events(done, CandidateScored) if e.full and e.split == "val"]
        expected = next(e.score for e in scored if e.candidate == scored[-1].best)
        evaluation = await dn.evaluate(done.best, VAL, right)
        assert float(evaluation.score) == pytest.approx(expected)

    run(main())


@pytest.mark.parametrize("kind", [dn.COPRO, dn.MIPROv2, dn.GEPA], ids=lambda kind: kind.__name__)
def test_instructions_of_the_advisor_are_tried_in_force(kind):
    advises = Advises()
    more = {"components": "all"} if kind is dn.GEPA else {}
    done = run(optimized(kind, World(), program=planned(advises), **more))
    tried = {
        e.parts["answer.advisor"]["instruction"]
        for e in events(done, CandidateProposed)
        if e.origin != "start" and "instruction" in e.parts.get("answer.advisor", {})
    }
    assert tried
    sent = "\n".join(advises.prompts)
    assert any(text in sent for text in tried)


@every
def test_the_winner_of_an_optimizer_can_be_refined(kind):
    def answer(request):
        able = "Hint: double it" in prompt(request)
        return chat(answer=str(2 * int(field(request, "question"))) if able else "wrong")

    def reward(row, prediction):
        return dn.Score(doubled(row, prediction), feedback="double it")

    async def main():
        done = await optimized(kind, World(1))
        better = done.best
        state = better.dump_state()
        for _, predictor in better.named_predictors():
            predictor.lm = dn.FunctionLM(answer)
        refined = dn.Refine(better, reward, n=2)
        predictions = await refined.batch(rows(40, 44))
        assert [p.answer for p in predictions] == ["80", "82", "84", "86"]
        last = dn.last_run()
        assert last.hints.values.tolist() == [["double it", "self", 4, 4, 1.0]]
        own = better.instruction or better.signature.instruction
        calls = [call for call in events(last, PredictorCalled) if call.hint]
        assert all(own in prompt_of(call) for call in calls)
        assert len(calls[0].messages) == 2 + 2 * len(better.demos)
        assert better.dump_state() == state

    run(main())


def prompt_of(call):
    return "\n".join(str(message["content"]) for message in call.messages)


@pytest.mark.parametrize("kind", [k for k in KINDS if k is not dn.SIMBA], ids=lambda kind: kind.__name__)
def test_a_refined_winner_can_be_distilled(kind):  # that of SIMBA has learned these words already
    async def main():
        world = World()
        better = await small(kind).compile(one(world), TRAIN, VAL)
        hint = "Answer with steps and careful and short and check and units."
        refine = dn.Refine(better, lambda row, p: dn.Score(doubled(row, p), hint), n=2, temperature=None)
        distilled = dn.DistillHints(rewrite=False, level=0.5).start(refine, rows(50, 60), rows(60, 80))
        await distilled
        own = better.instruction or better.signature.instruction
        assert distilled.best.module.instruction == f"{own}\n\nHint: {hint}"
        assert distilled.best.module.demos == better.demos

    run(main())
