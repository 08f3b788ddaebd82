"""Random trees of hints, attempts, gathers, threads and orphans over shared predictors: no leak and no loss.

What each call should see is handed down as a plain argument; what it does see is in the prompt that its model gets.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dspynb as dn
from tests.helpers import Caption, chat
from tests.helpers import field as input_field

PREDICTORS = 3


@dataclass(frozen=True)
class Call:
    predictor: int
    delay: int


@dataclass(frozen=True)
class Group:
    how: str  # sequence, gather, tasks, thread, carried, orphan
    children: tuple[Any, ...]


@dataclass(frozen=True)
class Hinted:
    targets: tuple[int, ...]  # none: for all
    children: tuple[Any, ...]


@dataclass(frozen=True)
class Refined:
    n: int
    width: int
    targets: tuple[int, ...]  # none: a text for all of the program's predictors
    fails: tuple[bool, ...]
    asks: bool  # whether the reward makes a call of its own
    children: tuple[Any, ...]


calls = st.builds(Call, st.integers(0, PREDICTORS - 1), st.integers(0, 2))
targets = st.lists(st.integers(0, PREDICTORS - 1), max_size=2, unique=True).map(tuple)


def nodes(children):
    kids = st.lists(children, min_size=1, max_size=3).map(tuple)
    groups = st.sampled_from(["sequence", "gather", "tasks", "thread", "carried", "orphan"])
    sizes = st.integers(1, 3).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n)))
    refined = st.builds(
        lambda size, *rest: Refined(*size, *rest),
        sizes, targets, st.lists(st.booleans(), min_size=3, max_size=3).map(tuple), st.booleans(), kids,
    )  # fmt: skip
    return st.one_of(st.builds(Group, groups, kids), st.builds(Hinted, targets, kids), refined)


trees = st.recursive(calls, nodes, max_leaves=8)


@dataclass
class World:
    """The shared predictors, what each call is to see, and what went wrong."""

    expected: dict[str, list[str]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    calls_made: int = 0
    names: int = 0
    orphans: list[asyncio.Task] = field(default_factory=list)

    def __post_init__(self):
        self.lock = threading.Lock()
        self.predictors = [dn.Predict(Caption, lm=dn.FunctionLM(self.answer)) for _ in range(PREDICTORS)]

    def name(self, kind):
        with self.lock:
            self.names += 1
            return f"{kind}{self.names}"

    async def answer(self, request):
        subject = input_field(request, "subject")
        objective = request.messages[0]["content"].split("Your objective is:\n")[1]
        hints = objective.split("Hint: ")[1].splitlines() if "Hint: " in objective else []
        with self.lock:
            self.calls_made += 1
            if hints != self.expected[subject]:
                self.wrong.append(f"{subject}: saw {hints}, should see {self.expected[subject]}")
        return chat(sentence="s")

    async def call(self, index, delay, live):
        subject = self.name("call")
        self.expected[subject] = [text for text, targets in live if not targets or index in targets]
        await asyncio.sleep(delay / 2000)
        await self.predictors[index](subject=subject)

    async def go(self, node, live):
        match node:
            case Call(index, delay):
                await self.call(index, delay, live)
            case Group(how, children):
                await self.group(how, children, live)
            case Hinted(targets, children):
                text = self.name("hint")
                with dn.hints({self.predictors[i]: text for i in targets} if targets else text):
                    await self.group("sequence", children, [*live, (text, targets)])
            case Refined():
                await self.refine(node, live)

    async def group(self, how, children, live):
        steps = [lambda child=child, live=live: self.go(child, live) for child in children]
        if how == "sequence":
            for step in steps:
                await step()
        elif how == "gather":
            await asyncio.gather(*(step() for step in steps))
        elif how == "tasks":
            async with asyncio.TaskGroup() as tasks:
                for step in steps:
                    tasks.create_task(step())
        elif how == "orphan":
            # An orphan of an orphan could still run inside an open attempt; it is the first one that is of interest.
            first = [child for child in children if "orphan" not in repr(child)]
            self.orphans += [asyncio.create_task(self.orphan(child)) for child in first]
        else:
            await self.thread(children, live if how == "carried" else [], dn.carry if how == "carried" else None)

    async def orphan(self, child):
        await self.closing.wait()
        await self.go(child, [])

    async def thread(self, children, live, carry):
        # A thread has a loop of its own; orphans of it could not be awaited here, so there are none.
        def work():
            asyncio.run(self.group("sequence", [c for c in children if "orphan" not in repr(c)], live))

        await asyncio.get_running_loop().run_in_executor(None, carry(work) if carry else work)

    async def refine(self, node, live):
        world, name, started = self, self.name("refine"), []

        class Program(dn.Module):
            def __init__(self):
                self.predictors = world.predictors

            async def forward(self, subject):
                number = len(started)
                started.append(number)
                wave = number // node.width + 1
                own = [(f"{name}-wave{wave}", node.targets)] if wave > 1 else []
                await world.group("gather", node.children, [*live, *own])
                if node.fails[number]:
                    raise RuntimeError("as planned")
                return {"sentence": "s"}

        def hints(attempts, program, inputs):
            text = f"{name}-wave{attempts[-1].wave + 1}"
            return {world.predictors[i]: text for i in node.targets} if node.targets else text

        async def reward(row, prediction):
            if node.asks:
                await world.call(0, 0, [])
            return 0.0

        search = dn.Refine(Program(), reward, n=node.n, width=node.width, hints=hints)
        try:
            await search(subject=name)
        except dn.AllAttemptsFailed:
            assert all(node.fails[: node.n])

    async def run(self, tree):
        self.closing = asyncio.Event()
        with dn.hints("root"):
            await self.go(tree, [("root", ())])
        self.closing.set()
        while self.orphans:
            await self.orphans.pop()


@pytest.mark.filterwarnings("ignore::dspynb.ScopeClosedWarning")
@settings(
    max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(tree=trees)
def test_every_call_sees_the_hints_of_its_own_live_ancestors_and_no_other(tree):
    dn.configure(runs_dir=None)
    world = World()
    asyncio.run(world.run(tree))
    assert world.wrong == []
    assert world.calls_made == len(world.expected)
