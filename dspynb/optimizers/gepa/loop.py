"""The loop of GEPA, in lanes: what is known, the next mutation, its child, and whether that is kept.

Source: see gepa.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dspynb.data import Prediction
from dspynb.evaluation.rollouts import Rollout
from dspynb.optimizers.core.candidate import Candidate
from dspynb.optimizers.core.diagnostics import warn_above, warn_of_no_feedback
from dspynb.optimizers.core.engine import Engine
from dspynb.optimizers.core.task import Evaluated
from dspynb.optimizers.gepa.merge import MERGE_ROWS, Merge, merge_of
from dspynb.optimizers.gepa.parent_selection import pareto_choice
from dspynb.optimizers.gepa.reflection import Shown
from dspynb.optimizers.gepa.validation import Validation
from dspynb.optimizers.gepa.virtual_time import Lane, lanes_of
from dspynb.running.aio.tasks import end_tasks
from dspynb.running.user_code import guarded

if TYPE_CHECKING:
    from dspynb.optimizers.gepa.gepa import GEPA

__all__ = ["GEPALoop"]

_EPOCHS = 2
"""Times that the training rows are gone through without anything new before the search ends."""
_WANTED_LEAD = 2
"""Rows on which a child has to be better than its parent, less those where it is worse, to be clearly better."""
_EVALUATING, _REFLECTING, _STEP = 1.0, 2.0, 5.0
"""What a step's parts and a step take, about, beside each other: the order in which lanes act. They begin spread over a
step, so that some run programs while others reflect."""


@dataclass
class _Step:
    """One mutation: a parent, the predictor to be told anew, and the minibatch."""

    number: int
    parent: Candidate
    scores: dict[int, float]  # the parent's, by validation row
    path: str
    rows: list[int]


class GEPALoop:
    """``await GEPALoop(gepa, engine, limit).run()``. ``limit``: rollouts at most, beside the budget.

    What is asked for is read as soon as it is there, in the lane's turn, and never from the engine's scores: those tell
    of what other lanes happened to have finished.
    """

    def __init__(self, gepa: GEPA, engine: Engine, limit: float) -> None:
        self.gepa, self.engine, self.limit = gepa, engine, limit
        self.size = min(gepa.minibatch_size, len(engine.train))
        self.pool: dict[Candidate, dict[int, float]] = {engine.start: {}}  # those kept, with scores by validation row
        self.ran: dict[Candidate, dict[int, Rollout]] = {}  # what candidates did on training rows
        self.wrong: dict[int, Rollout] = {}  # by training row, the latest that fell short, whoever's
        self.steps = self.begun = self.merges = 0
        self.idle = 0  # rows gone through since something was learned
        self.turns: dict[Candidate, int] = {}  # how often each has been a parent
        self.merged: set[tuple[str, str]] = set()
        if gepa.confirm:
            engine.leaderboard.prefers = lambda c: _mean(engine.scores(c, "train").values())

    async def run(self) -> None:
        """All of it."""
        count = self.gepa.in_flight
        self.started = asyncio.create_task(
            guarded("the optimizer", self._started, self.engine.evaluate(self.engine.start))
        )
        tasks = [
            asyncio.create_task(guarded("the optimizer", self._work, lane))
            for lane in lanes_of(count, apart=_STEP / count)
        ]
        try:
            for done in asyncio.as_completed(tasks):
                await done
            await self.started
        finally:
            await end_tasks([*tasks, self.started])
        await self.engine.all_told()

    async def _started(self, asked: asyncio.Task[Evaluated]) -> None:
        start = await asked  # it says whether the program works at all
        warn_above(start, self.engine.task, self.gepa.perfect_score)
        warn_of_no_feedback(start, self.engine.task)
        self.pool[start.candidate].update(zip(start.rows, start.scores, strict=True))

    async def _work(self, lane: Lane) -> None:
        """One step after the other, until there is no room for another."""
        await lane.turn(0)
        while True:
            await self._steered()
            if merge := self._merge(lane):
                await self._merged(lane, merge)
            elif step := self._step(lane):
                await self._mutate(lane, step)
            elif not lane.others_reserved:
                return lane.leave()
            else:
                await lane.turn(_EVALUATING)  # what others give back may be room for another
            lane.reserved = 0

    async def _steered(self) -> None:
        """Before each step, once: what a person asked for takes effect. It is this lane's turn all the while."""
        if self.begun > self.steps:
            return
        self.begun = self.steps + 1
        for candidate in await self.engine.step(self.begun):
            self.pool.setdefault(candidate, self.engine.scores(candidate))
        self.pool = {candidate: self.pool[candidate] for candidate in self.engine.kept(self.pool)}

    # ── the next step ─────────────────────────────────────────────────────────────────────────────────────────────
    def _room(self, lane: Lane) -> float:
        """Rollouts that no other lane may need for what it has begun."""
        return min(self.limit - self.engine.asked, self.engine.metric_calls_left()) - lane.others_reserved

    def _step(self, lane: Lane) -> _Step | None:
        """The next mutation, if there is room for it."""
        size = self._affordable(lane)
        if not size or self.idle >= _EPOCHS * len(self.engine.train) or self.steps == self.gepa.max_steps:
            return None
        lane.reserved = 2 * size + len(self.engine.val)
        self.steps += 1
        parent = self._parent()
        turn = self.turns.get(parent, 0)
        self.turns[parent] = turn + 1
        path = self.engine.paths[turn % len(self.engine.paths)]
        return _Step(self.steps, parent, self.pool[parent], path, self._rows()[:size])

    def _affordable(self, lane: Lane) -> int:
        """Rows of the next minibatch: as many as can be had twice, with the validation; 0 where those are too few."""
        room = max(0, self._room(lane) - len(self.engine.val)) // 2
        return int(min(self.size, room)) if room >= self.gepa.fewest(self.size) else 0

    def _parent(self) -> Candidate:
        if len(self.pool) == 1:
            return self.engine.start  # perhaps before it has any scores
        return pareto_choice(self.pool, self.engine.random("parent", self.steps))

    def _rows(self) -> list[int]:
        """The step's minibatch: the training rows in an order that is shuffled anew each time all have been seen."""
        found: list[int] = []
        for place in range((self.steps - 1) * self.size, self.steps * self.size):
            epoch, at = divmod(place, len(self.engine.train))
            order = list(range(len(self.engine.train)))
            self.engine.random("epoch", epoch).shuffle(order)
            found.append(order[at])
        return list(dict.fromkeys(found))

    # ── one mutation ──────────────────────────────────────────────────────────────────────────────────────────────
    async def _mutate(self, lane: Lane, step: _Step) -> None:
        """The parent on the minibatch, reflection, the child on the minibatch; validation of one that is better."""
        asked = self._train(step.parent, step.rows, step)
        lane.reserved -= len(step.rows)
        before, _ = await lane.turn(_EVALUATING, asked, self.started)
        new = self._hear(before)
        made = await self._reflections(lane, step, before)
        child = self._child(step, made)
        if not made or any(made.values()):  # of failures in a row the engine ends the run
            self.idle = 0 if new or child else self.idle + len(step.rows)
        if child is None:
            return
        asked = self._train(child, step.rows, step)
        lane.reserved -= len(step.rows)
        (after,) = await lane.turn(_EVALUATING, asked)
        self._hear(after)
        if sum(after.scores) > sum(before.scores) and await self._clear(lane, step, child):
            await self._validate(lane, child, step.scores)

    def _train(self, candidate: Candidate, rows: Sequence[int], step: _Step) -> asyncio.Task[Evaluated]:
        return self.engine.evaluate(candidate, rows, split="train", step=step.number, soon=True)

    def _hear(self, done: Evaluated) -> bool:
        """Take note of what a candidate did on training rows; whether any of it is new."""
        rollouts = dict(zip(done.rows, done.rollouts, strict=True))
        known = self.ran.setdefault(done.candidate, {})
        new = not rollouts.keys() <= known.keys()
        known.update(rollouts)
        for row, rollout in rollouts.items():
            if self._fell_short(rollout):
                self.wrong.pop(row, None)  # the latest last
                self.wrong[row] = rollout
        return new

    def _fell_short(self, rollout: Rollout) -> bool:
        return self.engine.score(rollout) < self.gepa.perfect_score

    async def _reflections(self, lane: Lane, step: _Step, before: Evaluated) -> dict[str, Prediction | None]:
        """What reflection comes to, by predictor; None where it failed, empty where there is nothing to learn."""
        shown, reflection = self._shown(before), self.gepa.reflection
        if not any(self._fell_short(one.rollout) for one in shown if not one.other):
            return {}
        paths, n = self.engine.paths if self.gepa.components == "all" else [step.path], step.number
        asked = [
            reflection.ask(self.engine, step.parent, shown, path, key=f"step {n}, {path}", number=n) for path in paths
        ]
        return dict(zip(paths, await lane.turn(_REFLECTING, *asked), strict=True))

    def _child(self, step: _Step, made: Mapping[str, Prediction | None]) -> Candidate | None:
        """The parent with what reflection came to; None where that is nothing, or was tried before."""
        told = {path: text for path, one in made.items() if (text := self.gepa.reflection.read(one))}
        new = {path: replace(step.parent.part(path), instruction=text) for path, text in told.items()}
        known, parts = set(self.engine.candidates), {**step.parent.parts, **new}
        child = self.engine.candidate(parts, origin="reflection", step=step.number, parents=[step.parent])
        return None if child.id in known else child

    def _shown(self, before: Evaluated) -> list[Shown]:
        """What reflection sees: the minibatch, what else the parent is known to do wrong, the latest first, and what
        others did wrong on rows that the parent has not run on."""
        ran = self.ran[before.candidate]
        own = ((row, rollout) for row, rollout in reversed(ran.items()) if self._fell_short(rollout))
        more = [Shown(row, rollout) for row, rollout in own if row not in before.rows]
        more += [Shown(row, rollout, other=True) for row, rollout in reversed(self.wrong.items()) if row not in ran]
        return [*map(Shown, before.rows, before.rollouts), *more[: self.gepa.recall]]

    # ── whether it is kept ────────────────────────────────────────────────────────────────────────────────────────
    async def _clear(self, lane: Lane, step: _Step, child: Candidate) -> bool:
        """Whether a child that is better on the minibatch is clearly so; while it is ahead by less than
        ``_WANTED_LEAD`` rows, both run on more of them, ``confirm`` at most."""
        if not self.gepa.confirm:
            return True
        more = [row for row in range(len(self.engine.train)) if row not in step.rows]
        self.engine.random("confirm", step.number).shuffle(more)
        more, rows = more[: self.gepa.confirm], list(step.rows)
        while 0 < (lead := self._lead(step.parent, child, rows)) < _WANTED_LEAD and more:
            batch = more[: int(min(self.size, (self._room(lane) - lane.reserved) // 2))]
            if not batch:
                break
            more, rows = more[len(batch) :], rows + batch
            for done in await lane.turn(_EVALUATING, *(self._train(c, batch, step) for c in (step.parent, child))):
                self._hear(done)
        return lead >= (_WANTED_LEAD if len(rows) < len(self.engine.train) else 1)

    def _lead(self, parent: Candidate, child: Candidate, rows: Sequence[int]) -> int:
        """Rows on which the child is better than its parent, less those where it is worse."""
        before, after = self.ran[parent], self.ran[child]
        differences = [self.engine.score(after[row]) - self.engine.score(before[row]) for row in rows]
        return sum(d > 0 for d in differences) - sum(d < 0 for d in differences)

    async def _validate(self, lane: Lane, child: Candidate, against: Mapping[int, float]) -> None:
        """Run a new candidate on the validation rows; one that comes through joins the pool."""
        validation, over = Validation(self.engine, child, against, racing=self.gepa.racing), False
        while not over:
            asked = validation.ask()
            lane.reserved = validation.outstanding
            (done,) = await lane.turn(_EVALUATING, asked)
            over = validation.hear(done)
        if validation.passed:
            self.pool.setdefault(child, validation.scores)

    # ── merging ───────────────────────────────────────────────────────────────────────────────────────────────────
    def _merge(self, lane: Lane) -> Merge | None:
        """Now and then, two lineages become one."""
        most = MERGE_ROWS + len(self.engine.val)
        if len(self.pool) < 3 or self.merges >= self.gepa.max_merges or self._room(lane) < most:
            return None
        made = merge_of(self.engine, self.pool, self.merged, self.steps) if len(self.engine.paths) > 1 else None
        if made is not None:
            self.merges += 1
            lane.reserved = most
        return made

    async def _merged(self, lane: Lane, merge: Merge) -> None:
        """Run a merged candidate on a few rows; validation, if it does well enough there."""
        against = self.pool[merge.better]
        (done,) = await lane.turn(
            _EVALUATING, self.engine.evaluate(merge.child, merge.rows, step=self.steps, soon=True)
        )
        if sum(done.scores) >= merge.wanted:
            await self._validate(lane, merge.child, against)


def _mean(scores: Collection[float]) -> float:
    return sum(scores) / len(scores) if scores else 0.0
