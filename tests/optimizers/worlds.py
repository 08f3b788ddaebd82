"""A small world for optimizers: a model that gets better with the right words and with demos, and writes instructions.

An answer depends on the text of the prompt and the number of the sample only; its latency on a seed of its own. So two
runs with different latencies must have the same result.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
from collections import Counter
from pathlib import Path

import dspynb as dn
from dspynb.events import CandidateProposed, CandidateScored, PredictorCalled, RolloutEnded
from dspynb.running.journal import flush_journals
from tests.helpers import chat, field, prompt

WORDS = ("steps", "careful", "short", "check", "units")
PROPOSED = (
    "proposed_instruction",
    "new_instruction",
    "observations",
    "summary",
    "program_description",
    "module_description",
    "discussion",
)


def chance(*of):
    """A number in [0, 1) that depends on the arguments only."""
    return int.from_bytes(hashlib.sha256(repr(of).encode()).digest()[:6], "big") / 2**48


class World:
    """A model: ``requests`` has a key of every request, ``programs`` and ``proposals`` count them by kind.

    ``latency``: seed of random latencies, None for none. ``nonsense``: its proposals cannot be parsed. ``down``:
    its provider fails for proposals.
    """

    def __init__(self, latency=None, *, nonsense=False, down=False, slowest=0.0015):
        self.requests = []
        self.programs = self.proposals = 0
        self._random = None if latency is None else random.Random(latency)
        self._nonsense, self._down, self._slowest = nonsense, down, slowest
        self._news = asyncio.Event()
        self.lm = dn.FunctionLM(self._answer)

    async def wait_for_requests(self, times):
        """Wait until the model has had so many requests."""
        while len(self.requests) < times:
            self._news.clear()
            await self._news.wait()

    async def _answer(self, request):
        text = prompt(request)
        self.requests.append(request_key(request))
        self._news.set()
        proposing = f"Respond with `[[ ## {PROPOSED[0]}" in text or "## observations ## ]]" in text
        proposing = proposing or any(f"Respond with `[[ ## {name}" in text for name in PROPOSED)
        self.proposals += proposing
        self.programs += not proposing
        if self._random is not None:
            await asyncio.sleep(self._random.random() * self._slowest)
        return self._proposal(request, text) if proposing else self._output(request, text)

    def _proposal(self, request, text):
        if self._down:
            raise dn.errors.ConnectionFailed("nobody is there")
        if self._nonsense:
            return f"mumble {len(self.requests)} mumble"
        words = [word for word in WORDS if chance(word, text, request.rollout) < 0.4]
        said = {name: f"{name} of {len(text)}" for name in PROPOSED[2:]}
        written = f"Answer with {' and '.join(words) or 'nothing'}."
        modules = json.loads(field(request, "module_names")) if "[[ ## module_names ## ]]" in text else []
        advice = {name: f"Mind {' and '.join(words) or 'nothing'}." for name in modules[: 1 + len(words)]}
        return chat(proposed_instruction=written, new_instruction=written, **said, advice=json.dumps(advice))

    def _output(self, request, text):
        system = text.split("Respond with")[0]
        question = field(request, "question")
        if question == "bad":
            raise dn.errors.ServerError("the provider fell over")
        demos = (len(request.messages) - 2) // 2
        skill = 0.3 + 0.1 * sum(word in system.split("Your objective is:")[1].split("[[")[0] for word in WORDS)
        skill += 0.05 * min(demos, 4) + 0.15 * ("] good" in text.replace("\n", " "))
        (name,) = re.findall(r"Respond with `\[\[ ## (\w+) ## \]\]`", request.messages[-1]["content"])
        able = chance(question, name, request.rollout) < skill
        right = str(2 * int(question)) if name == "answer" else "good"
        return chat(**{name: right if able else "wrong"})


def request_key(request):
    """A short text that identifies a request, so that lists of them can be compared."""
    return _short(request.rollout, request.messages)


def _short(rollout, messages):
    text = "\n".join(str(m["content"]) for m in messages)
    return f"{rollout} {hashlib.sha256(text.encode()).hexdigest()[:10]} {text[-150:-80]!r}"


class Three(dn.Module):
    """Three predictors, one after the other."""

    def __init__(self, lm):
        self.plan = dn.Predict("question -> plan", lm=lm)
        self.steps = [dn.Predict("question, plan -> draft", lm=lm)]
        self.answer = dn.Predict("question, draft -> answer", lm=lm)

    async def forward(self, question):
        plan = (await self.plan(question=question)).plan
        draft = (await self.steps[0](question=question, plan=plan)).draft
        return await self.answer(question=question, draft=draft)


def one(world):
    """A program of one predictor."""
    return dn.Predict("question -> answer", lm=world.lm)


def three(world):
    """A program of three predictors."""
    return Three(world.lm)


def rows(first, last, wrong=()):
    """Questions from first to last - 1, with their doubles as labels."""
    return [{"question": str(i), "answer": "?" if i in wrong else str(2 * i)} for i in range(first, last)]


TRAIN, VAL, TEST = rows(0, 6), rows(10, 17), rows(30, 33)


def right(row, prediction):
    """The metric."""
    return dn.Score(float(row.answer == prediction.answer), f"expected {row.answer}")


async def later(row, prediction):
    """The metric, async."""
    await asyncio.sleep(0)
    return right(row, prediction)


def worded(row, prediction):
    """A reward whose feedback has the words that the model needs: two of them for odd questions, all for even ones."""
    words = WORDS[:2] if int(row.question) % 2 else WORDS
    return dn.Score(float(prediction.answer == str(2 * int(row.question))), f"Answer with {' and '.join(words)}.")


def fitted(kind, program):
    """The program as an optimizer takes it: in a Refine for DistillHints."""
    if kind is not dn.DistillHints or not isinstance(program, dn.Module) or isinstance(program, dn.Refine):
        return program
    return dn.Refine(program, worded, n=2, hints="feedback", temperature=None)


SMALL = {
    dn.BootstrapFewShot: {"max_bootstrapped_demos": 2, "max_labeled_demos": 3, "max_rounds": 2},
    dn.BootstrapRandomSearch: {
        "num_candidates": 3,
        "max_bootstrapped_demos": 2,
        "max_labeled_demos": 3,
        "max_rounds": 2,
    },
    dn.COPRO: {"breadth": 3, "depth": 2},
    dn.MIPROv2: {
        "auto": None,
        "num_candidates": 3,
        "num_trials": 5,
        "minibatch_size": 3,
        "full_eval_steps": 2,
        "max_bootstrapped_demos": 2,
        "max_labeled_demos": 2,
    },
    dn.GEPA: {"minibatch_size": 2, "in_flight": 2, "confirm": 2, "max_steps": 6},
    dn.SIMBA: {"minibatch_size": 2, "num_candidates": 2, "max_steps": 6, "max_demos": 2},
    dn.DistillHints: {"max_hints": 2, "level": 0.05},
}
"""Every optimizer, with settings that keep its runs small."""

PROPOSING = (dn.COPRO, dn.MIPROv2, dn.GEPA, dn.SIMBA)
"""The optimizers whose proposals a model writes."""


def small(kind, metric=right, **settings):
    """An optimizer with small settings."""
    return kind(metric, **{**SMALL[kind], "concurrency": 4, **settings})


async def optimized(kind, world, *, program=one, train=TRAIN, val=VAL, test=None, metric=right, **settings):
    """The run of an optimizer that has ended."""
    run = small(kind, metric, **settings).start(fitted(kind, program(world)), train, val, test=test)
    await run
    return run


class Plan(dn.Optimizer):
    """An optimizer whose search is a function."""

    kind = "plan"

    def __init__(self, search, metric=right, **common):
        super().__init__(metric, **common)
        self._search = search

    async def search(self, engine):
        await self._search(engine)


def planned(search, world=None, *, program=one, val=VAL, test=None, metric=right, **common):
    """The run of such an optimizer."""
    world = world or World(1)

    async def main():
        handle = Plan(search, metric, **{"concurrency": 4, **common}).start(program(world), TRAIN, val, test=test)
        await handle
        return handle

    return asyncio.run(main())


def events(run, kind):
    """The run's events of a type."""
    return [event for event in run.record.events if isinstance(event, kind)]


def outcome(run):
    """Everything in a run that must not depend on timing."""
    return {
        "status": run.status,
        "candidates": [(e.id, e.origin, e.step, e.parents) for e in events(run, CandidateProposed)],
        "scores": sorted(
            {(e.candidate, e.split, e.rows, e.score, e.full, e.step, e.best) for e in events(run, CandidateScored)}
        ),
        "rollouts": Counter(
            (e.candidate, e.split, e.row, e.repeat, e.score, e.error is None) for e in events(run, RolloutEnded)
        ),
        "winner": run.best.dump_state()["predictors"],
    }


def journaled(path):
    """The texts of the requests whose replies a run file holds."""
    flush_journals()
    calls = [e for e in dn.open_run(path).record.events if isinstance(e, PredictorCalled) and not e.cached]
    return [_short(call.rollout, call.messages) for call in calls]


def lines(run):
    """The lines of a run's file."""
    flush_journals()
    return Path(run.path).read_bytes().splitlines(keepends=True)
