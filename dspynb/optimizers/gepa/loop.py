"""The loop of GEPA, in lanes: the pool of candidates, the next mutation, its child, and whether the child is accepted.

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
from dspynb.optimizers.core.problem import CandidateEvaluation
from dspynb.optimizers.gepa.merge import MERGE_ROWS, Merge, next_merge
from dspynb.optimizers.gepa.parent_selection import pareto_choice
from dspynb.optimizers.gepa.reflection import ReflectionExample
from dspynb.optimizers.gepa.validation import Validation
from dspynb.optimizers.gepa.virtual_time import Lane, make_lanes
from dspynb.running.aio.tasks import end_tasks
from dspynb.running.user_code import guarded

if TYPE_CHECKING:
    from dspynb.optimizers.gepa.gepa import GEPA

__all__ = ["GEPALoop"]

_MAX_IDLE_EPOCHS = 2
"""The search ends after so many epochs of training rows in which nothing was learned."""
_REQUIRED_LEAD = 2
"""A child is clearly better than its parent when it is better on so many more rows than it is worse."""
_EVALUATION_TIME = 1.0
_REFLECTION_TIME = 2.0
_STEP_TIME = 5.0
"""The virtual time of an evaluation, a reflection and a whole step. Lanes begin spread over the time of a step, so that
some run programs while others reflect."""


@dataclass
class _Step:
    """One mutation: a parent, the predictor whose instruction is rewritten, and the minibatch."""

    number: int
    parent: Candidate
    scores: dict[int, float]  # validation row → the parent's score
    path: str
    rows: list[int]


class GEPALoop:
    """The search of GEPA: ``await GEPALoop(gepa, engine, limit).run()``. ``limit``: the largest number of rollouts.

    A lane reads the result of its own submissions, in its turn, as soon as they have ended. It never reads the scores
    of the engine, which depend on what other lanes happened to have finished.
    """

    def __init__(self, gepa: GEPA, engine: Engine, limit: float) -> None:
        self.gepa = gepa
        self.engine = engine
        self.limit = limit
        self.minibatch_size = min(gepa.minibatch_size, len(engine.train))
        self.pool: dict[Candidate, dict[int, float]] = {engine.start: {}}  # accepted ones → validation row → score
        self.train_rollouts: dict[Candidate, dict[int, Rollout]] = {}  # candidate → training row → rollout
        self.imperfect: dict[int, Rollout] = {}  # training row → latest imperfect rollout of any candidate
        self.steps = 0
        self.begun_steps = 0  # of which the requests of a person have taken effect
        self.merges = 0
        self.rows_without_progress = 0  # minibatch rows since something was learned
        self.times_chosen: dict[Candidate, int] = {}  # as a parent
        self.merged_pairs: set[tuple[str, str]] = set()
        if gepa.confirm:
            engine.leaderboard.prefers = lambda c: _mean(engine.scores(c, "train").values())

    async def run(self) -> None:
        """Run all lanes to their ends."""
        count = self.gepa.in_flight
        evaluation = self.engine.evaluate(self.engine.start)
        self.start_ready = asyncio.create_task(guarded("the optimizer", self._take_start, evaluation))
        lane_tasks = [
            asyncio.create_task(guarded("the optimizer", self._work, lane))
            for lane in make_lanes(count, apart=_STEP_TIME / count)
        ]
        try:
            for lane_task in asyncio.as_completed(lane_tasks):
                await lane_task
            await self.start_ready
        finally:
            await end_tasks([*lane_tasks, self.start_ready])
        await self.engine.wait_recorded()

    async def _take_start(self, task: asyncio.Task[CandidateEvaluation]) -> None:
        """Enter the scores of the start in the pool. Raises OptimizerError where the program fails on all rows."""
        evaluation = await task
        warn_above(evaluation, self.engine.problem, self.gepa.perfect_score)
        warn_of_no_feedback(evaluation, self.engine.problem)
        self.pool[evaluation.candidate].update(zip(evaluation.rows, evaluation.scores, strict=True))

    async def _work(self, lane: Lane) -> None:
        """Do one step after another until there is no room for the next."""
        await lane.turn(0)
        while True:
            await self._apply_interventions()
            merge = self._next_merge(lane)
            step = None if merge else self._next_step(lane)
            if merge:
                await self._try_merge(lane, merge)
            elif step:
                await self._mutate(lane, step)
            elif not lane.others_reserved:
                return lane.leave()
            else:
                await lane.turn(_EVALUATION_TIME)  # other lanes may release enough of what they have reserved
            lane.reserved = 0

    async def _apply_interventions(self) -> None:
        """Let the requests of a person take effect, once before each step. No other lane acts meanwhile."""
        if self.begun_steps > self.steps:
            return
        self.begun_steps = self.steps + 1
        for candidate in await self.engine.step(self.begun_steps):
            self.pool.setdefault(candidate, self.engine.scores(candidate))
        self.pool = {candidate: self.pool[candidate] for candidate in self.engine.active(self.pool)}

    # ── the next step ─────────────────────────────────────────────────────────────────────────────────────────────────
    def _room(self, lane: Lane) -> float:
        """How many rollouts are left that no other lane has reserved."""
        left = min(self.limit - self.engine.submitted_rollouts, self.engine.metric_calls_left())
        return left - lane.others_reserved

    def _next_step(self, lane: Lane) -> _Step | None:
        """The next mutation; None where there is no room for one, or the search has come to its end."""
        size = self._affordable_size(lane)
        idle = self.rows_without_progress >= _MAX_IDLE_EPOCHS * len(self.engine.train)
        if not size or idle or self.steps == self.gepa.max_steps:
            self.engine.end_reason = self._end_reason(idle=idle)
            return None
        lane.reserved = 2 * size + len(self.engine.val)
        self.steps += 1
        parent = self._parent()
        times_chosen = self.times_chosen.get(parent, 0)
        self.times_chosen[parent] = times_chosen + 1
        path = self.engine.paths[times_chosen % len(self.engine.paths)]
        return _Step(self.steps, parent, self.pool[parent], path, self._minibatch()[:size])

    def _end_reason(self, *, idle: bool) -> str:
        """Why there is no further step."""
        if idle:
            return f"nothing was learned from {self.rows_without_progress} training rows in a row"
        if self.steps == self.gepa.max_steps:
            return f"max_steps={self.gepa.max_steps} mutations were made"
        left = min(self.limit - self.engine.submitted_rollouts, self.engine.metric_calls_left())
        return f"the {max(0, left):g} rollouts that are left are too few for a further mutation and its validation"

    def _affordable_size(self, lane: Lane) -> int:
        """The size of the next minibatch: it runs twice, and validation must fit as well. 0 where that is too small."""
        room = max(0, self._room(lane) - len(self.engine.val)) // 2
        if room < self.gepa.fewest(self.minibatch_size):
            return 0
        return int(min(self.minibatch_size, room))

    def _parent(self) -> Candidate:
        if len(self.pool) == 1:
            return self.engine.start  # it may have no scores yet
        return pareto_choice(self.pool, self.engine.random("parent", self.steps))

    def _minibatch(self) -> list[int]:
        """The rows of the step's minibatch. The training rows are shuffled anew in each epoch."""
        rows: list[int] = []
        for position in range((self.steps - 1) * self.minibatch_size, self.steps * self.minibatch_size):
            epoch, place = divmod(position, len(self.engine.train))
            order = list(range(len(self.engine.train)))
            self.engine.random("epoch", epoch).shuffle(order)
            rows.append(order[place])
        return list(dict.fromkeys(rows))

    # ── one mutation ──────────────────────────────────────────────────────────────────────────────────────────────────
    async def _mutate(self, lane: Lane, step: _Step) -> None:
        """Run the parent on the minibatch, reflect, run the child on the minibatch, and validate a better child."""
        task = self._submit_train(step.parent, step.rows, step)
        lane.reserved -= len(step.rows)
        before, _ = await lane.turn(_EVALUATION_TIME, task, self.start_ready)
        has_new_rows = self._record_train(before)
        replies = await self._reflect(lane, step, before)
        child = self._child(step, replies)
        if not replies or any(replies.values()):  # where all replies failed, the engine counts the failures
            if has_new_rows or child:
                self.rows_without_progress = 0
            else:
                self.rows_without_progress += len(step.rows)
        if child is None:
            return
        task = self._submit_train(child, step.rows, step)
        lane.reserved -= len(step.rows)
        (after,) = await lane.turn(_EVALUATION_TIME, task)
        self._record_train(after)
        if sum(after.scores) > sum(before.scores) and await self._is_clearly_better(lane, step, child):
            await self._validate(lane, child, step.scores)

    def _submit_train(
        self, candidate: Candidate, rows: Sequence[int], step: _Step
    ) -> asyncio.Task[CandidateEvaluation]:
        return self.engine.evaluate(candidate, rows, split="train", step=step.number, in_order=False)

    def _record_train(self, evaluation: CandidateEvaluation) -> bool:
        """Record the rollouts of a candidate on training rows. Returns whether it had not run on one of them before."""
        rollouts = dict(zip(evaluation.rows, evaluation.rollouts, strict=True))
        known = self.train_rollouts.setdefault(evaluation.candidate, {})
        has_new_rows = not rollouts.keys() <= known.keys()
        known.update(rollouts)
        for row, rollout in rollouts.items():
            if self._is_imperfect(rollout):
                self.imperfect.pop(row, None)  # reinserted, so that the latest is last
                self.imperfect[row] = rollout
        return has_new_rows

    def _is_imperfect(self, rollout: Rollout) -> bool:
        return self.engine.score(rollout) < self.gepa.perfect_score

    async def _reflect(self, lane: Lane, step: _Step, before: CandidateEvaluation) -> dict[str, Prediction | None]:
        """Propose instructions: predictor path → reply, None where it failed; empty where all rollouts are perfect."""
        examples = self._examples(before)
        own = [example.rollout for example in examples if not example.by_other]
        if not any(map(self._is_imperfect, own)):
            return {}
        paths = self.engine.paths if self.gepa.components == "all" else [step.path]
        tasks = []
        for path in paths:
            key = f"step {step.number}, {path}"
            tasks.append(
                self.gepa.reflection.propose(self.engine, step.parent, examples, path, key=key, number=step.number)
            )
        return dict(zip(paths, await lane.turn(_REFLECTION_TIME, *tasks), strict=True))

    def _child(self, step: _Step, replies: Mapping[str, Prediction | None]) -> Candidate | None:
        """The parent with the proposed instructions; None where there are none, or such a candidate exists already."""
        parts = dict(step.parent.parts)
        for path, reply in replies.items():
            text = self.gepa.reflection.instruction_from(reply)
            if text:
                parts[path] = replace(step.parent.part(path), instruction=text)
        known = set(self.engine.candidates)
        child = self.engine.candidate(parts, origin="reflection", step=step.number, parents=[step.parent])
        return None if child.id in known else child

    def _examples(self, before: CandidateEvaluation) -> list[ReflectionExample]:
        """The rollouts that reflection sees: the minibatch, then ``recall`` imperfect rollouts on other rows.

        Those of the parent come first, then those of other candidates on rows that the parent has not run on; of each
        the latest first.
        """
        own = self.train_rollouts[before.candidate]
        recalled = []
        for row, rollout in reversed(own.items()):
            if self._is_imperfect(rollout) and row not in before.rows:
                recalled.append(ReflectionExample(row, rollout))
        for row, rollout in reversed(self.imperfect.items()):
            if row not in own:
                recalled.append(ReflectionExample(row, rollout, by_other=True))
        return [*map(ReflectionExample, before.rows, before.rollouts), *recalled[: self.gepa.recall]]

    # ── acceptance ────────────────────────────────────────────────────────────────────────────────────────────────────
    async def _is_clearly_better(self, lane: Lane, step: _Step, child: Candidate) -> bool:
        """Whether a child that is better on the minibatch is clearly better.

        While its lead is below ``_REQUIRED_LEAD``, parent and child run on further training rows, ``confirm`` at most.
        """
        if not self.gepa.confirm:
            return True
        rows = list(step.rows)
        further = [row for row in range(len(self.engine.train)) if row not in step.rows]
        self.engine.random("confirm", step.number).shuffle(further)
        further = further[: self.gepa.confirm]
        lead = self._lead(step.parent, child, rows)
        while 0 < lead < _REQUIRED_LEAD and further:
            room = max(0, (self._room(lane) - lane.reserved) // 2)  # less than 0 once a person has lowered the budget
            batch = further[: int(min(self.minibatch_size, room))]
            if not batch:
                break
            further = further[len(batch) :]
            rows = rows + batch
            tasks = [self._submit_train(candidate, batch, step) for candidate in (step.parent, child)]
            for evaluation in await lane.turn(_EVALUATION_TIME, *tasks):
                self._record_train(evaluation)
            lead = self._lead(step.parent, child, rows)
        if len(rows) == len(self.engine.train):
            return lead > 0
        return lead >= _REQUIRED_LEAD

    def _lead(self, parent: Candidate, child: Candidate, rows: Sequence[int]) -> int:
        """The number of rows on which the child is better than its parent, less those on which it is worse."""
        before = self.train_rollouts[parent]
        after = self.train_rollouts[child]
        differences = [self.engine.score(after[row]) - self.engine.score(before[row]) for row in rows]
        return sum(d > 0 for d in differences) - sum(d < 0 for d in differences)

    async def _validate(self, lane: Lane, child: Candidate, parent_scores: Mapping[int, float]) -> None:
        """Run a child on the validation rows; if it passes, it joins the pool."""
        validation = Validation(self.engine, child, parent_scores, racing=self.gepa.racing)
        ended = False
        while not ended:
            task = validation.submit_stage()
            lane.reserved = validation.unsubmitted_rows
            (evaluation,) = await lane.turn(_EVALUATION_TIME, task)
            ended = validation.record_stage(evaluation)
        if validation.passed:
            self.pool.setdefault(child, validation.scores)

    # ── merging ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def _next_merge(self, lane: Lane) -> Merge | None:
        """A merge of two lineages; None where there is no room or no pair to merge."""
        rollouts = MERGE_ROWS + len(self.engine.val)
        if len(self.pool) < 3 or self.merges >= self.gepa.max_merges or self._room(lane) < rollouts:
            return None
        if len(self.engine.paths) == 1:
            return None
        merge = next_merge(self.engine, self.pool, self.merged_pairs, self.steps)
        if merge is not None:
            self.merges += 1
            lane.reserved = rollouts
        return merge

    async def _try_merge(self, lane: Lane, merge: Merge) -> None:
        """Run a merged candidate on a few validation rows; validate it if it scores well enough there."""
        parent_scores = self.pool[merge.better]
        task = self.engine.evaluate(merge.child, merge.rows, step=self.steps, in_order=False)
        (evaluation,) = await lane.turn(_EVALUATION_TIME, task)
        if sum(evaluation.scores) >= merge.required_score:
            await self._validate(lane, merge.child, parent_scores)


def _mean(scores: Collection[float]) -> float:
    return sum(scores) / len(scores) if scores else 0.0
