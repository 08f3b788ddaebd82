"""What refusals taught is in the run file: a resumed run adapts its first request, also in another process."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dspynb as dn
from dspynb.events import ProfileChanged
from dspynb.lm.learned_profile import learned_changes, with_changes
from dspynb.lm.profiles import ModelProfile
from dspynb.running.journal import flush_journals
from tests.cases.providers import at_most_one, no_max_tokens, no_temperature, refused, strict
from tests.helpers import chat
from tests.lm.server import Server

ROWS = [{"question": f"{number}?", "answer": "1"} for number in range(8)]
CALLS = 12
"""The budget of optimizers, which ends them before their last step."""
VAL = [{"question": f"{number}?", "answer": "1"} for number in range(8, 12)]


def answer(body):
    """A reply that depends on the messages only: a proposal of COPRO, or the answer 0 or 1."""
    text = json.dumps(body["messages"])
    digit = hashlib.sha256(text.encode()).hexdigest()[:4]
    if "proposed_instruction" in text:
        reply = chat(proposed_instruction=f"Answer as {digit}.", proposed_prefix_for_output_field="Answer:")
    else:
        reply = chat(answer=str(int(digit, 16) % 2))
    usage = {"prompt_tokens": 7, "completion_tokens": 3}
    message = {"role": "assistant", "content": reply}
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}


def program(base, **settings):
    settings = {"temperature": 0.7, "max_tokens": 50, **settings}
    lm = dn.LM("openai/m", api_base=base, api_key="k", cache=False, **settings)
    return dn.Predict("question -> answer", lm=lm)


def right(row, prediction):
    return float(prediction.answer == row.answer)


def evaluation():
    return dn.Evaluate(right, concurrency=1)


def optimizer():
    return dn.COPRO(right, breadth=3, depth=2, concurrency=1, budget=dn.Budget(calls=CALLS))


async def optimized(task):
    run = optimizer().start(task, ROWS, VAL)
    return run, await run


class World:
    """A server that refuses what ``rules`` refuse. ``answered`` requests get a reply; the next one waits until its
    client is gone."""

    def __init__(self, *rules, answered=math.inf):
        self.answered = answered
        self.is_held = threading.Event()
        self.serve = strict(*rules, answer=self._answer)
        self.refusals = self.serve.refusals

    async def _answer(self, body):
        if self.answered <= 0:
            self.is_held.set()
            await asyncio.Event().wait()
        self.answered -= 1
        return answer(body)

    def stopped(self, run, answered):
        """The run, stopped when its model has answered so many requests."""

        async def main():
            self.answered = answered
            started = run()
            await asyncio.to_thread(self.is_held.wait, 60)
            started.stop()
            with contextlib.suppress(dn.RunStopped):
                await started
            self.answered = math.inf
            flush_journals()
            return started

        return asyncio.run(main())


def scores(run):
    """The scores of a run, in an order of their own."""
    table = run.rollouts.reset_index()
    names = [name for name in ("candidate", "split", "row", "repeat", "score", "feedback", "error") if name in table]
    return sorted([str(value) for value in row] for row in table[names].to_numpy())


RESUME = """
import asyncio, json, sys, warnings
warnings.simplefilter("ignore")
from tests.lm import test_learned_profile as here

async def main(kind, path, base):
    if kind == "evaluate":
        run = here.evaluation().resume(path, here.program(base), here.ROWS)
        await run
        return here.scores(run), None
    run = here.optimizer().resume(path, here.program(base), here.ROWS, here.VAL)
    compiled = await run
    return here.scores(run), compiled.dump_state()

print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
"""


def resumed_elsewhere(kind, run, base):
    """Resume a run in a new process. Returns its scores and, for an optimizer, its program."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", RESUME, kind, str(run.path), base]
    env = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False, cwd=root)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def resumed(stopped, task):
    async def main():
        return await evaluation().resume(stopped.path, task, ROWS)

    return asyncio.run(main())


@pytest.fixture
def _files(tmp_path):
    dn.configure(runs_dir=tmp_path)


pytestmark = [pytest.mark.usefixtures("_files"), pytest.mark.filterwarnings("ignore::dspynb.ModelAdaptedWarning")]


def test_an_evaluation_that_is_resumed_in_another_process_causes_no_refusal():
    world = World(no_temperature, no_max_tokens)
    with Server(world.serve) as server:
        straight = evaluation().run_sync(program(server.base), ROWS).run
        stopped = world.stopped(lambda: evaluation().start(program(server.base), ROWS), 3)
        assert len(stopped.rollouts) == 3
        assert len(world.refusals) == 4  # two of each model object
        resumed_scores, _ = resumed_elsewhere("evaluate", stopped, server.base)
    assert len(world.refusals) == 4
    assert resumed_scores == scores(straight)
    assert set(map(str, dn.open_run(stopped.path).calls.sent)) == {"{'max_completion_tokens': 50}"}


def test_straight_resumed_and_second_runs_of_an_optimizer_are_equal_at_equal_budgets():
    world = World(no_temperature, no_max_tokens)
    with Server(world.serve) as server:
        task = program(server.base)
        runs = []
        for _ in range(2):
            run, compiled = asyncio.run(optimized(task))
            assert (run.status, run.usage.calls) == ("exhausted", CALLS)
            runs.append((scores(run), json.loads(json.dumps(compiled.dump_state()))))
        stopped = world.stopped(lambda: optimizer().start(program(server.base), ROWS, VAL), 7)
        assert len(world.refusals) == 4
        runs.append(tuple(resumed_elsewhere("copro", stopped, server.base)))
    assert len(world.refusals) == 4
    assert runs[0] == runs[1] == runs[2]


def test_a_profile_that_is_passed_when_a_run_is_resumed_wins_over_the_file():
    world = World(at_most_one)
    with Server(world.serve) as server:
        stopped = world.stopped(lambda: evaluation().start(program(server.base, temperature=1.4), ROWS), 3)
        assert list(stopped.record.learned_profiles.values()) == [{"ranges": {"temperature": [0.0, 1.0]}}]
        count = len(server.bodies)
        resumed(stopped, program(server.base, temperature=1.4, profile={"ranges": {"temperature": (0, 0.2)}}))
        assert [body["temperature"] for body in server.bodies[count:]] == [0.2] * 5


def test_a_strict_model_raises_in_a_resumed_run_what_its_server_refuses():
    world = World(at_most_one)
    with Server(world.serve) as server:
        stopped = world.stopped(lambda: evaluation().start(program(server.base, temperature=1.4), ROWS), 3)
        count = len(server.bodies)
        evaluated = resumed(stopped, program(server.base, temperature=1.4, strict=True))
        assert [body["temperature"] for body in server.bodies[count:]] == [1.4] * 5
    assert evaluated.table.error.str.contains("UnsupportedParameter").sum() == 5


def test_what_a_model_learned_before_a_run_is_in_the_file_of_the_run():
    world = World(no_temperature)
    with Server(world.serve) as server:
        task = program(server.base)
        task.run_sync(question="before the run?")
        stopped = world.stopped(lambda: evaluation().start(task, ROWS), 3)
        assert list(stopped.record.learned_profiles.values()) == [{"refused": ["temperature"]}]
        resumed(stopped, program(server.base))
    assert len(world.refusals) == 1


def test_changes_are_written_once_to_a_file_whose_tables_stay_the_same():
    world = World(no_temperature)
    with Server(world.serve) as server:
        run = evaluation().run_sync(program(server.base), ROWS).run
        plain = evaluation().run_sync(program(server.base, profile={"refused": ["temperature"]}), ROWS).run
    (event,) = [event for event in run.record.events if isinstance(event, ProfileChanged)]
    assert (event.model, event.changes) == ("openai/m", {"refused": ["temperature"]})
    opened = dn.open_run(run.path)
    assert not opened.damaged
    assert opened.record.learned_profiles == run.record.learned_profiles
    assert list(opened.calls.columns) == list(plain.calls.columns)
    assert opened.calls.reply.tolist() == plain.calls.reply.tolist()
    assert scores(opened) == scores(plain)


def test_tools_that_a_server_has_refused_are_not_sent_again_when_a_run_is_resumed():
    def no_tools(body):
        return refused("`tools` is not supported by this model", param="tools") if "tools" in body else None

    def react(base):
        def look_up(name: str) -> str:
            """Look a name up."""
            return name

        lm = dn.LM("openai/m", api_base=base, api_key="k", cache=False)
        return dn.ReAct("question -> answer", [look_up], max_iterations=1).with_lm(lm)

    world = World(no_tools)
    with Server(world.serve) as server:
        first = evaluation().run_sync(react(server.base), ROWS[:1]).run
        assert list(first.record.learned_profiles.values()) == [{"native_tools": False}]
        stopped = world.stopped(lambda: evaluation().start(react(server.base), ROWS), 4)
        count = len(world.refusals)
        resumed(stopped, react(server.base))
    assert count == len(world.refusals) == 2


BOUNDS = st.tuples(st.floats(-5, 0) | st.just(-math.inf), st.floats(0, 5) | st.just(math.inf))


@given(
    refused_names=st.frozensets(st.sampled_from(["temperature", "seed", "stop"])),
    ranges=st.dictionaries(st.sampled_from(["top_p", "max_tokens"]), BOUNDS),
    formats=st.sampled_from([("json_schema", "json_object"), ("json_object",), ()]),
    tools=st.sampled_from([None, False]),
)
def test_changes_survive_json(refused_names, ranges, formats, tools):
    known = ModelProfile(native_tools=None, limit_name="max_tokens")
    learned = ModelProfile(
        refused=refused_names, ranges=ranges, response_formats=formats, native_tools=tools, limit_name="max_tokens"
    )
    changes = json.loads(json.dumps(learned_changes(known, learned), allow_nan=False))
    assert with_changes(known, changes) == learned


@pytest.mark.parametrize(
    "changes",
    [
        {"refused": "temperature"},
        {"refused": [1, None]},
        {"ranges": [["temperature", 0, 1]]},
        {"ranges": {"temperature": [0], "top_p": ["a", "b"], "n": None}},
        {"native_tools": "no", "limit_name": 3},
    ],
)
def test_changes_of_a_wrong_form_are_left_out(changes):
    assert with_changes(ModelProfile(), changes) == ModelProfile()
