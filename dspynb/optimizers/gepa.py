"""GEPA: reflective mutation of instructions, parents drawn from the Pareto front over validation rows.

Source: Agrawal et al. 2025, "GEPA: Reflective Prompt Evolution Can Outperform Reinforcement Learning", algorithm 1 (the
loop), algorithm 2 (Pareto-based selection) and appendix on merging. With ``in_flight=1``, ``confirm=0`` and
``racing=False`` it is that algorithm, step by step.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Unpack

from dspynb.data import Example
from dspynb.errors import ConfigurationError
from dspynb.evaluation.rollouts import Rollout
from dspynb.modules import Predict
from dspynb.optimizers.candidate import Candidate
from dspynb.optimizers.engine import Engine
from dspynb.optimizers.lanes import Lane, lanes_of
from dspynb.optimizers.merging import MERGE_ROWS, Merge, merge_of
from dspynb.optimizers.optimizer import Common, Optimizer, checked_whole
from dspynb.optimizers.pareto import pareto_choice
from dspynb.optimizers.reflecting import Reflection, perfect, warn_without_feedback
from dspynb.optimizers.task import Evaluated, Task
from dspynb.optimizers.validating import Validation
from dspynb.running import end_tasks

__all__ = ["GEPA"]

_AUTO = {"light": 6, "medium": 12, "heavy": 18}
_EPOCHS = 2
"""Times that the training rows are gone through without anything new before the search ends."""
_RECALL = 30
"""Further rows that reflection sees, at most, where nothing else was said."""
_FEWEST = 3
"""Rows of a minibatch, at least, where what is left of the budget makes it smaller."""
_WANTED_LEAD = 2
"""Rows on which a child has to be better than its parent, less those where it is worse, to be taken without asking for
more rows."""


_EVALUATING, _HEARING, _REFLECTING = 1.0, 0.1, 2.0
"""What a step's evaluations and its reflection take, about, beside each other: the order in which lanes act."""


@dataclass
class _Step:
    """One mutation under way, in a lane. ``val``: the rollouts kept for validation."""

    number: int
    parent: Candidate
    path: str
    rows: list[int]


@dataclass
class _State:
    """What steps have left so far. ``pool``: the accepted candidates, the start first, with their scores by validation
    row. ``ran``: what candidates did on training rows."""

    pool: dict[Candidate, Mapping[int, float]]
    limit: float
    ran: dict[Candidate, dict[int, Rollout]] = field(default_factory=dict)
    steps: int = 0
    turn: dict[Candidate, int] = field(default_factory=dict)
    merges: int = 0
    merged: set[tuple[str, str]] = field(default_factory=set)
    idle: int = 0  # rows gone through since something was learned

    def hear(self, done: Evaluated) -> bool:
        """Take note of what a candidate did on training rows; whether any of it is new."""
        known = self.ran.setdefault(done.candidate, {})
        new = any(row not in known for row in done.rows)
        known.update(zip(done.rows, done.rollouts, strict=True))
        return new


class GEPA(Optimizer):
    """Evolves instructions: a parent from the Pareto front runs on a few training rows, a model reflects on what it did
    and on the feedback, and the child is kept if it does better on these rows; then it runs on the validation rows.

    The metric's ``Score.feedback`` is what is learned from; a metric with a ``predictor=`` parameter is asked for
    feedback on each predictor. ``auto``: ``light``, ``medium``, ``heavy``, how many rollouts are made where no budget
    of metric calls is given; ``max_steps``: mutations at most. ``minibatch_size``: training rows a step.
    ``components``: ``round_robin`` (one predictor a step) or ``all``. ``max_merges``: how often two lineages with a
    common ancestor are merged. ``perfect_score``: rows that have it teach nothing.

    Beyond the paper: ``in_flight`` mutations are made at the same time, each from what was known when it began: more of
    them take less time, and learn less from each other. ``confirm``: further rows, at most, that a child is tried on
    while it is ahead by a single row; if it still is, it is not kept. ``recall``: other training rows, at most, on
    which the parent is known to fall short and which reflection sees too, at no further rollout (default: 30; 0 with
    ``confirm=0``). ``racing``: validation of a child ends early once it is clear that it is worse than its parent. The
    last minibatch is smaller where the budget has no room for a whole one, and of candidates that are equal on the
    validation rows the one that did better on training rows wins.

    Without validation rows, the training rows serve as both.
    """

    kind: ClassVar[str] = "gepa"

    def __init__(
        self,
        metric: Any,
        *,
        auto: str = "light",
        max_steps: int | None = None,
        minibatch_size: int = 3,
        components: str = "round_robin",
        max_merges: int = 5,
        perfect_score: float = 1.0,
        temperature: float | None = 1.0,
        in_flight: int = 2,
        confirm: int = 9,
        recall: int | None = None,
        racing: bool = True,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(metric, **common)
        if auto not in _AUTO:
            raise ConfigurationError(f"auto must be one of {', '.join(_AUTO)}; got {auto!r}")
        if components not in ("round_robin", "all"):
            raise ConfigurationError(f"components must be 'round_robin' or 'all', got {components!r}")
        checked_whole("minibatch_size", minibatch_size)
        if max_steps is not None:
            checked_whole("max_steps", max_steps)
        self.max_steps = max_steps
        checked_whole("in_flight", in_flight)
        recall = (_RECALL if confirm else 0) if recall is None else recall
        for name, value in (("max_merges", max_merges), ("confirm", confirm), ("recall", recall)):
            checked_whole(name, value, least=0)
        self.auto, self.minibatch_size, self.components, self.max_merges = auto, minibatch_size, components, max_merges
        self.perfect_score, self.in_flight, self.confirm, self.racing = perfect_score, in_flight, confirm, racing
        self.recall = recall
        self._reflection = Reflection(self.prompt_lm, temperature)

    def described(self) -> dict[str, Any]:
        names = ["auto", "max_steps", "minibatch_size", "components", "max_merges", "perfect_score", "in_flight"]
        names += ["confirm", "recall", "racing"]
        return {**{name: getattr(self, name) for name in names}, "temperature": self._reflection.temperature}

    def proposers(self) -> Mapping[str, Predict]:
        return {"gepa.reflect": self._reflection.predict}

    def first_step(self, task: Task) -> int:
        return len(task.rows["val"]) + 2 * min(self.minibatch_size, len(task.rows["train"]))

    def parted(self, train: Sequence[Example], val: Sequence[Example]) -> tuple[Sequence[Example], Sequence[Example]]:
        return train, val or train

    # ── the loop ──────────────────────────────────────────────────────────────────────────────────────────────────
    async def search(self, engine: Engine) -> None:
        engine.prefers = lambda c: _mean(engine.scores(c, "train").values())
        start = await engine.evaluate(engine.start)
        warn_without_feedback(engine, start)
        state = _State({start.candidate: dict(zip(start.rows, start.scores, strict=True))}, self._limit(engine))
        tasks = [asyncio.create_task(self._work(engine, state, lane)) for lane in lanes_of(self.in_flight)]
        try:
            for done in asyncio.as_completed(tasks):
                await done
        finally:
            await end_tasks(tasks)
        await engine.all_told()

    def _limit(self, engine: Engine) -> float:
        """Rollouts in all: as many as the budget allows, else as ``auto`` says (DSPy's formula)."""
        if math.isfinite(engine.metric_calls_left()):
            return math.inf
        n, rows = _AUTO[self.auto], len(engine.val)
        trials = int(max(2 * (len(engine.paths) * 2) * math.log2(n), 1.5 * n))
        return rows + n * 5 + trials * 35 + (trials // 5 + 1) * rows

    async def _work(self, engine: Engine, state: _State, lane: Lane) -> None:
        """One step after the other, until there is no room for another."""
        await lane.turn(0)
        while True:
            if merge := self._merge(engine, state, lane):
                await self._merged(engine, state, lane, merge)
            elif step := self._step(engine, state, lane):
                await self._mutate(engine, state, lane, step)
            elif not any(other.reserved for other in lane.others):
                return lane.leave()
            else:
                await lane.turn(_EVALUATING)  # what others give back may be room for another
            lane.reserved = 0

    def _room(self, engine: Engine, state: _State, lane: Lane) -> float:
        """Rollouts that no other lane may need for what it has begun."""
        left = min(state.limit - engine.asked, engine.metric_calls_left())
        return left - sum(other.reserved for other in lane.others)

    def _step(self, engine: Engine, state: _State, lane: Lane) -> _Step | None:
        """The next mutation, if there is room for two minibatches and the validation. Where there is not, and nothing
        else is under way, the minibatch is smaller."""
        if state.idle >= _EPOCHS * len(engine.train) or state.steps == self.max_steps:
            return None
        size, room = min(self.minibatch_size, len(engine.train)), self._room(engine, state, lane) - len(engine.val)
        if room < 2 * size:
            if any(other.reserved for other in lane.others) or room < 2 * min(_FEWEST, size):
                return None
            size = int(room // 2)
        lane.reserved = 2 * size + len(engine.val)
        state.steps += 1
        number = state.steps
        parent = pareto_choice(state.pool, engine.random("parent", number))
        turn = state.turn.get(parent, 0)
        state.turn[parent] = turn + 1
        return _Step(number, parent, engine.paths[turn % len(engine.paths)], self._rows(engine, number)[:size])

    def _rows(self, engine: Engine, number: int) -> list[int]:
        """The step's minibatch: the training rows in an order that is shuffled anew each time all have been seen."""
        size = min(self.minibatch_size, len(engine.train))
        found: list[int] = []
        for place in range((number - 1) * size, number * size):
            epoch, at = divmod(place, len(engine.train))
            order = list(range(len(engine.train)))
            engine.random("epoch", epoch).shuffle(order)
            found.append(order[at])
        return list(dict.fromkeys(found))

    async def _mutate(self, engine: Engine, state: _State, lane: Lane, step: _Step) -> None:
        """The parent on the minibatch, reflection, the child on the minibatch; validation of one that is better."""
        asked = engine.evaluate(step.parent, step.rows, split="train", step=step.number, soon=True)
        lane.reserved -= len(step.rows)
        (before,) = await lane.turn(_EVALUATING, asked)
        new = state.hear(before)
        await lane.turn(_HEARING)  # what others ran at the same time is known too
        child = await self._reflected(engine, state, lane, step, before)
        state.idle = 0 if new or child else state.idle + len(step.rows)
        if child is None:
            return
        asked = engine.evaluate(child, step.rows, split="train", step=step.number, soon=True)
        lane.reserved -= len(step.rows)
        (after,) = await lane.turn(_EVALUATING, asked)
        state.hear(after)
        if sum(after.scores) > sum(before.scores) and await self._clear(engine, state, lane, step, child):
            await self._validate(engine, state, lane, child, step.parent)

    async def _reflected(
        self, engine: Engine, state: _State, lane: Lane, step: _Step, before: Evaluated
    ) -> Candidate | None:
        """The child that reflection comes to; None where there is nothing to learn, or nothing new came of it."""
        seen = self._seen(engine, state, before)
        if perfect(seen.scores, self.perfect_score):
            return None
        paths, n = engine.paths if self.components == "all" else [step.path], step.number
        asked = [self._reflection.ask(engine, seen, path, key=f"step {n}, {path}", number=n) for path in paths]
        texts = map(self._reflection.read, await lane.turn(_REFLECTING, *asked))
        parts = dict(step.parent.parts)
        for path, text in zip(paths, texts, strict=True):
            if text:
                parts[path] = replace(step.parent.part(path), instruction=text)
        known = set(engine.candidates)
        child = engine.candidate(parts, origin="reflection", step=n, parents=[step.parent])
        return None if child.id in known else child  # one that was tried before is not tried again

    def _seen(self, engine: Engine, state: _State, before: Evaluated) -> Evaluated:
        """What reflection sees: the minibatch, and what else the parent is known to do wrong, the latest first."""
        ran = state.ran[before.candidate]
        scores = {row: engine.score(rollout) for row, rollout in reversed(ran.items()) if row not in before.rows}
        more = [row for row, score in scores.items() if score < self.perfect_score][: self.recall]
        rollouts = [*before.rollouts, *(ran[row] for row in more)]
        return Evaluated(
            before.candidate, [*before.rows, *more], rollouts, [*before.scores, *(scores[row] for row in more)]
        )

    async def _clear(self, engine: Engine, state: _State, lane: Lane, step: _Step, child: Candidate) -> bool:
        """Whether a child that is better on the minibatch is clearly so; while it is ahead by less than
        ``_WANTED_LEAD`` rows, both run on more of them, ``confirm`` at most."""
        if not self.confirm:
            return True
        rest = [row for row in range(len(engine.train)) if row not in step.rows]
        engine.random("confirm", step.number).shuffle(rest)
        more = rest[: self.confirm]
        while 0 < (lead := self._lead(engine, state, step, child)) < _WANTED_LEAD and more:
            batch, more = more[: self.minibatch_size], more[self.minibatch_size :]
            if self._room(engine, state, lane) < lane.reserved + 2 * len(batch):
                break
            step.rows += batch
            pair = [engine.evaluate(c, batch, split="train", step=step.number, soon=True) for c in (step.parent, child)]
            for done in await lane.turn(_EVALUATING, *pair):
                state.hear(done)
        return lead >= (_WANTED_LEAD if len(step.rows) < len(engine.train) else 1)

    def _lead(self, engine: Engine, state: _State, step: _Step, child: Candidate) -> int:
        """Rows on which the child is better than its parent, less those where it is worse."""
        before, after = state.ran[step.parent], state.ran[child]
        differences = [engine.score(after[row]) - engine.score(before[row]) for row in step.rows]
        return sum(d > 0 for d in differences) - sum(d < 0 for d in differences)

    async def _validate(self, engine: Engine, state: _State, lane: Lane, child: Candidate, against: Candidate) -> None:
        """Run a new candidate on the validation rows; one that comes through joins the pool."""
        validation, over = Validation(engine, child, state.pool[against], racing=self.racing), False
        while not over:
            asked = validation.ask()
            lane.reserved = validation.outstanding
            (done,) = await lane.turn(_EVALUATING, asked)
            over = validation.hear(done)
        if validation.passed:
            state.pool.setdefault(child, validation.scores)

    def _merge(self, engine: Engine, state: _State, lane: Lane) -> Merge | None:
        """Now and then, two lineages become one."""
        if len(engine.paths) < 2 or state.merges >= self.max_merges:
            return None
        most = MERGE_ROWS + len(engine.val)
        if self._room(engine, state, lane) < most:
            return None
        made = merge_of(engine, state.pool, state.merged, state.steps)
        if made is not None:
            state.merges += 1
            lane.reserved = most
        return made

    async def _merged(self, engine: Engine, state: _State, lane: Lane, merge: Merge) -> None:
        """Run a merged candidate on a few rows; validation, if it does well enough there."""
        (done,) = await lane.turn(_EVALUATING, engine.evaluate(merge.child, merge.rows, step=state.steps, soon=True))
        if sum(done.scores) >= merge.wanted:
            await self._validate(engine, state, lane, merge.child, merge.better)


def _mean(scores: Collection[float]) -> float:
    return sum(scores) / len(scores) if scores else 0.0
