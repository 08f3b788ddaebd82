"""One program with predictors in a list, a dict and a nested module: every part of the house knows them by one path."""

from __future__ import annotations

import asyncio

import pytest

import dspynb as dn
from tests.helpers import Caption, chat, prompt

PATHS = ["draft", "steps[0]", "by['x']", "inner.predict"]


class Four(dn.Module):
    """Four predictors, each marked by its demo."""

    def __init__(self, *demos):
        predictors = [dn.Predict(Caption, demos=[demo] if demo else []) for demo in (demos or [None] * 4)]
        self.draft = predictors[0]
        self.steps = [predictors[1]]
        self.by = {"x": predictors[2]}
        self.inner = Inner(predictors[3])

    async def forward(self, subject):
        draft = (await self.draft(subject=subject)).sentence
        both = await asyncio.gather(self.steps[0](subject=draft), self.by["x"](subject=draft))
        return await self.inner(subject=" ".join(p.sentence for p in both))


class Inner(dn.Module):
    def __init__(self, predict):
        self.predict = predict

    async def forward(self, subject):
        return await self.predict(subject=subject)


def marked():
    """The program with the demo ``mark 0`` for the first predictor, and so on."""
    return Four(*({"subject": f"mark {i}", "sentence": f"mark {i}"} for i in range(4)))


def answer(request):
    """What a request was marked with, and its hint."""
    text = prompt(request)
    mark = next(i for i in range(4) if f"mark {i}" in text)
    hint = text.split("Hint: ")[1].split("\n")[0] if "Hint: " in text else "none"
    return chat(sentence=f"{mark}: {hint}")


@pytest.fixture
def recorded():
    """The marked program refined once, with a hint for every path: (trace, prediction)."""
    advice = {path: f"for {path}" for path in PATHS}

    async def main():
        with dn.trace() as t, dn.context(lm=dn.FunctionLM(answer)):
            refine = dn.Refine(marked(), lambda row, p: 0.5, n=2, hints=lambda attempts, program, inputs: advice)
            return t, await refine(subject="sea")

    return asyncio.run(main())


def test_discovery_state_candidates_hints_traces_and_replay_agree_on_the_paths(recorded):
    trace, prediction = recorded
    assert [path for path, _ in Four().named_predictors()] == PATHS
    state = marked().dump_state()
    assert list(state["predictors"]) == PATHS
    hinted = {call.predictor: call for call in trace.calls if call.hint}
    assert set(hinted) == set(PATHS)
    for i, path in enumerate(PATHS):
        assert hinted[path].hint == f"for {path}"
        assert hinted[path].outputs["sentence"] == f"{i}: for {path}"
    assert prediction.run.attempts.hint[1] == {path: f"for {path}" for path in PATHS}


def test_a_loaded_state_replays_the_recorded_run_exactly(recorded, tmp_path):
    trace, prediction = recorded
    marked().save(tmp_path / "four.json")
    program = Four()
    program.load(tmp_path / "four.json")
    advice = {path: f"for {path}" for path in PATHS}
    refine = dn.Refine(program, lambda row, p: 0.5, n=2, hints=lambda attempts, program, inputs: advice)
    replayed = asyncio.run(dn.replay(trace, refine))
    assert replayed.exact
    assert replayed.prediction == prediction


@pytest.mark.parametrize("path", PATHS)
def test_a_candidate_for_a_path_reaches_that_predictor_alone(path):
    async def main():
        program = marked()
        with dn.trace() as t, dn.context(lm=dn.FunctionLM(answer)), dn.candidate({path: "Shout."}, of=program):
            await program(subject="sea")
        return t

    assert [c.predictor for c in asyncio.run(main()).calls if "Shout." in str(c.messages)] == [path]
