"""Proposals whose prompt is too long for the model that writes them are made again with a shorter one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import dspynb as dn
from dspynb import errors
from dspynb.events import PredictorCalled, ProposalEnded
from tests.helpers import chat, prompt
from tests.lm.server import Server, error
from tests.optimizers.worlds import TRAIN, VAL, World, events, fitted, lines, outcome, small

WRITING = [dn.COPRO, dn.GEPA, dn.MIPROv2, dn.SIMBA, dn.DistillHints]
MOST = 4000
LONG = "\n\n".join(f"Rule {number}: " + "think of it, " * 20 for number in range(30))
"""An instruction of 30 paragraphs, 8,000 characters in all, which every proposal shows to the model."""

writing = pytest.mark.parametrize("kind", WRITING, ids=lambda kind: kind.__name__)


class Writer:
    """The model that writes proposals. It refuses prompts of more than ``most`` characters."""

    def __init__(self, world, most=MOST):
        self.world = world
        self.most = most
        self.refused = 0
        self.sent = []
        self.lm = dn.FunctionLM(self._answer, name="writer")

    async def _answer(self, request):
        text = prompt(request)
        if len(text) > self.most:
            self.refused += 1
            raise errors.ContextTooLong(f"prompt is too long: {len(text)} characters > {self.most} maximum")
        self.sent.append(text)
        return await self.world._answer(request)


def program(world):
    return dn.Predict("question -> answer", lm=world.lm, instruction=LONG)


async def optimized(kind, writer, **settings):
    optimizer = small(kind, prompt_lm=writer.lm, **settings)
    run = optimizer.start(fitted(kind, program(writer.world)), TRAIN, VAL)
    await run
    return run


def prompts_of(run):
    """The prompts of a run's calls of the writer, with their errors."""
    return sorted((str(call.messages), call.error) for call in events(run, PredictorCalled) if call.model == "writer")


@writing
def test_every_proposal_is_shortened_until_the_model_takes_it(kind):
    writer = Writer(World())
    run = asyncio.run(optimized(kind, writer))
    assert writer.refused
    assert any("characters] …" in text for text in writer.sent)
    assert all(ended.error is None for ended in events(run, ProposalEnded))


@writing
def test_two_runs_send_the_same_shortened_prompts_whatever_the_latencies(kind):
    async def main():
        runs = [await optimized(kind, Writer(World(latency))) for latency in (None, 1)]
        return [(outcome(run), prompts_of(run)) for run in runs]

    straight, slower = asyncio.run(main())
    assert slower == straight


@writing
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99], ids=["first", "middle", "last"])
def test_a_run_that_was_killed_after_a_refusal_resumes_with_the_same_prompts_and_budget(kind, share):
    budget = dn.Budget(calls=150)
    writer = Writer(World())
    straight = asyncio.run(optimized(kind, writer, budget=budget))
    complete = lines(straight)
    refusals = [number for number, line in enumerate(complete) if b'"ContextTooLong' in line]
    cut = refusals[int(share * len(refusals))] + 1
    Path(straight.path).write_bytes(b"".join(complete[:cut]))
    again = Writer(World())
    optimizer = small(kind, prompt_lm=again.lm, budget=budget)
    dn.run_sync(lambda: optimizer.resume(straight.id, fitted(kind, program(again.world)), TRAIN, VAL))
    resumed = dn.last_run()
    assert outcome(resumed) == outcome(straight)
    assert resumed.meter.spent["calls"] == straight.meter.spent["calls"]
    assert set(again.sent) <= set(writer.sent)


@writing
def test_a_refused_request_is_no_call_of_a_budget(kind):
    writer = Writer(World())
    run = asyncio.run(optimized(kind, writer, budget=dn.Budget(calls=10_000)))
    assert run.meter.spent["calls"] == len(writer.world.requests) == run.usage.calls
    assert len(prompts_of(run)) == len(writer.sent) + writer.refused


@pytest.mark.parametrize("kind", [dn.COPRO, dn.GEPA])
def test_a_request_that_never_fits_fails_with_the_error_of_the_model(kind):
    writer = Writer(World(), most=100)
    with pytest.raises(errors.OptimizerError, match="ContextTooLong: prompt is too long"):
        asyncio.run(optimized(kind, writer))
    assert not writer.sent


def test_the_refusal_of_a_server_shortens_a_reflection_and_costs_nothing():
    def serve(body, number):
        characters = sum(len(message["content"]) for message in body["messages"])
        if characters > MOST:
            return error(400, f"This model's maximum context length is 1000 tokens, not {characters}")
        return chat(new_instruction="Answer with steps.")

    with Server(serve) as server:
        writer = dn.LM("openai/m", api_base=server.base, api_key="sk-of-the-long-prompts-0123")
        budget = dn.Budget(calls=500)
        small(dn.GEPA, prompt_lm=writer, budget=budget).compile_sync(program(World()), TRAIN, val=VAL)
    run = dn.last_run()
    proposed = [ended.outputs["new_instruction"] for ended in events(run, ProposalEnded)]
    assert set(proposed) == {"Answer with steps."}
    answered = [call for call in events(run, PredictorCalled) if call.reply is not None]
    assert run.meter.spent["calls"] == len(answered) < len(events(run, PredictorCalled))
