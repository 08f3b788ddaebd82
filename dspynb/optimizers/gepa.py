"""GEPA: reflective mutation of instructions, parents drawn from the Pareto front over validation rows.

Source: Agrawal et al. 2025, "GEPA: Reflective Prompt Evolution Can Outperform Reinforcement Learning", algorithm 1 (the
loop), algorithm 2 (Pareto-based selection) and appendix on merging. With ``in_flight=1``, ``confirm=0`` and
``racing=False`` it is that algorithm, step by step.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Unpack

from dspynb.data import Example
from dspynb.errors import ConfigurationError
from dspynb.modules import Predict
from dspynb.optimizers.candidate import Candidate
from dspynb.optimizers.engine import Engine
from dspynb.optimizers.merging import Merge, merge_of
from dspynb.optimizers.optimizer import Common, Optimizer, checked_whole
from dspynb.optimizers.pareto import pareto_choice
from dspynb.optimizers.reflecting import Reflection, perfect, warn_without_feedback
from dspynb.optimizers.task import Evaluated, Task
from dspynb.optimizers.validating import Validation

__all__ = ["GEPA"]

_AUTO = {"light": 6, "medium": 12, "heavy": 18}
_EPOCHS = 2
"""Times that the training rows are gone through without anything new before the search ends."""
_WANTED_LEAD = 2
"""Rows on which a child has to be better than its parent, less those where it is worse, to be taken without asking for
more rows."""


@dataclass
class _Step:
    """One mutation under way."""

    number: int
    parent: Candidate
    path: str
    rows: list[int]
    before: Evaluated | None = None
    child: Candidate | None = None
    more: list[int] | None = None  # rows that the child may still be tried on, once some were asked for


@dataclass
class _State:
    """What steps have left so far. ``pool``: the accepted candidates, the start first."""

    pool: list[Candidate]
    steps: int = 0
    turn: dict[Candidate, int] = field(default_factory=dict)
    merges: int = 0
    merged: set[tuple[str, str]] = field(default_factory=set)
    idle: int = 0  # rows gone through since something was learned


class GEPA(Optimizer):
    """Evolves instructions: a parent from the Pareto front runs on a few training rows, a model reflects on what it did
    and on the feedback, and the child is kept if it does better on these rows; then it runs on the validation rows.

    The metric's ``Score.feedback`` is what is learned from; a metric with a ``predictor=`` parameter is asked for
    feedback on each predictor. ``auto``: ``light``, ``medium``, ``heavy``, how many rollouts are made where no budget
    of metric calls is given; ``max_steps``: mutations at most. ``minibatch_size``: training rows a step.
    ``components``: ``round_robin`` (one predictor a step) or ``all``. ``max_merges``: how often two lineages with a
    common ancestor are merged. ``perfect_score``: rows that have it teach nothing.

    Beyond the paper: ``in_flight`` mutations are made at the same time, each from what was known before them: more of
    them take less time, and learn less from each other. ``confirm``: further rows, at most, that a child is tried on
    while it is not clear that it is better. ``racing``: validation of a child ends early once it is clear that it is
    worse than its parent.

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
        for name, value in (("max_merges", max_merges), ("confirm", confirm)):
            checked_whole(name, value, least=0)
        self.auto, self.minibatch_size, self.components, self.max_merges = auto, minibatch_size, components, max_merges
        self.perfect_score, self.in_flight, self.confirm, self.racing = perfect_score, in_flight, confirm, racing
        self._reflection = Reflection(self.prompt_lm, temperature)

    def described(self) -> dict[str, Any]:
        names = ["auto", "max_steps", "minibatch_size", "components", "max_merges", "perfect_score", "in_flight"]
        names += ["confirm", "racing"]
        return {**{name: getattr(self, name) for name in names}, "temperature": self._reflection.temperature}

    def proposers(self) -> Mapping[str, Predict]:
        return {"gepa.reflect": self._reflection.predict}

    def first_step(self, task: Task) -> int:
        return len(task.rows["val"]) + 2 * min(self.minibatch_size, len(task.rows["train"]))

    def parted(self, train: Sequence[Example], val: Sequence[Example]) -> tuple[Sequence[Example], Sequence[Example]]:
        return train, val or train

    # ── the loop ──────────────────────────────────────────────────────────────────────────────────────────────────
    async def search(self, engine: Engine) -> None:
        start = await engine.evaluate(engine.start)
        warn_without_feedback(engine, start)
        state, limit = _State([start.candidate]), self._limit(engine)
        while state.idle < _EPOCHS * len(engine.train):
            state.pool = engine.kept([*state.pool, *await engine.step(state.steps + 1)])
            if not (wave := self._wave(engine, state, limit)):
                break
            before = engine.asked
            befores = [engine.evaluate(s.parent, s.rows, split="train", step=s.number) for s in wave]
            for step, task in zip(wave, befores, strict=True):
                step.before = await task
            merge = self._merge(engine, state)
            await self._mutate(engine, wave)
            accepted = await self._accepted(engine, wave)
            new = [(step.child, step.parent, step.number) for step in accepted if step.child is not None]
            if merge is not None and sum((await merge[1]).scores) >= merge[0].wanted:
                new.append((merge[0].child, merge[0].better, state.steps))
            await self._validate(engine, state, new)
            learned = engine.asked > before or any(step.child for step in wave)
            state.idle = 0 if learned else state.idle + sum(len(step.rows) for step in wave)

    def _limit(self, engine: Engine) -> float:
        """Rollouts in all: as many as the budget allows, else as ``auto`` says (DSPy's formula)."""
        if math.isfinite(engine.metric_calls_left()):
            return math.inf
        n, rows = _AUTO[self.auto], len(engine.val)
        trials = int(max(2 * (len(engine.paths) * 2) * math.log2(n), 1.5 * n))
        return rows + n * 5 + trials * 35 + (trials // 5 + 1) * rows

    def _wave(self, engine: Engine, state: _State, limit: float) -> list[_Step]:
        """The next mutations, as many as there is room for: each with two minibatches and the validation."""
        size = min(self.minibatch_size, len(engine.train))
        return [self._step(engine, state, size) for _ in range(self._room(engine, state, limit))]

    def _room(self, engine: Engine, state: _State, limit: float) -> int:
        size, left = min(self.minibatch_size, len(engine.train)), min(limit - engine.asked, engine.metric_calls_left())
        count = min(self.in_flight, int(left // (2 * size + len(engine.val))))
        return max(0, count if self.max_steps is None else min(count, self.max_steps - state.steps))

    def _step(self, engine: Engine, state: _State, size: int) -> _Step:
        state.steps += 1
        number = state.steps
        scores = {c: engine.scores(c) for c in state.pool if engine.mean(c) is not None}
        parent = pareto_choice(scores, engine.random("parent", number))
        turn = state.turn.get(parent, 0)
        state.turn[parent] = turn + 1
        return _Step(number, parent, engine.paths[turn % len(engine.paths)], self._rows(engine, number, size))

    def _rows(self, engine: Engine, number: int, size: int) -> list[int]:
        """The step's minibatch: the training rows in an order that is shuffled anew each time all have been seen."""
        found: list[int] = []
        for place in range((number - 1) * size, number * size):
            epoch, at = divmod(place, len(engine.train))
            order = list(range(len(engine.train)))
            engine.random("epoch", epoch).shuffle(order)
            found.append(order[at])
        return list(dict.fromkeys(found))

    async def _mutate(self, engine: Engine, wave: Sequence[_Step]) -> None:
        """Children of the steps; none where there is nothing to learn, or nothing came of it."""
        asked = [self._reflect(engine, step) for step in wave]
        for step, tasks in zip(wave, asked, strict=True):
            texts = {path: self._reflection.read(await task) for path, task in tasks.items()}
            step.child = self._child(engine, step, {path: text for path, text in texts.items() if text})

    def _reflect(self, engine: Engine, step: _Step) -> dict[str, asyncio.Task[Any]]:
        """Ask for new texts, by predictor path; for none where there is nothing to learn."""
        before, n = step.before, step.number
        if before is None or perfect(before.scores, self.perfect_score):
            return {}
        paths = engine.paths if self.components == "all" else [step.path]
        return {p: self._reflection.ask(engine, before, p, key=f"step {n}, {p}", number=n) for p in paths}

    def _child(self, engine: Engine, step: _Step, texts: Mapping[str, str]) -> Candidate | None:
        parts = dict(step.parent.parts)
        for path, instruction in texts.items():
            parts[path] = replace(step.parent.part(path), instruction=instruction)
        known = set(engine.candidates)
        child = engine.candidate(parts, origin="reflection", step=step.number, parents=[step.parent])
        return None if child.id in known else child  # one that was tried before is not tried again

    async def _accepted(self, engine: Engine, wave: Sequence[_Step]) -> list[_Step]:
        """The steps whose child is better than its parent on the minibatch; with ``confirm``, clearly so: while it is
        ahead by less than ``_WANTED_LEAD`` rows, both run on more of them."""
        asked = [(s, engine.evaluate(s.child, s.rows, split="train", step=s.number)) for s in wave if s.child]
        better = [s for s, task in asked if s.before and sum((await task).scores) > sum(s.before.scores)]
        open_ = [s for s in better if self.confirm and 0 < _lead(engine, s) < _WANTED_LEAD]
        while open_:
            tasks = [task for step in open_ for task in self._more(engine, step)]
            for task in tasks:
                await task
            open_ = [s for s in open_ if s.more and 0 < _lead(engine, s) < _WANTED_LEAD and tasks]
        return [s for s in better if not self.confirm or _lead(engine, s) > 0]

    def _more(self, engine: Engine, step: _Step) -> list[Any]:
        """Ask for another minibatch of rows for the child and its parent."""
        if step.more is None:
            rest = [row for row in range(len(engine.train)) if row not in step.rows]
            engine.random("confirm", step.number).shuffle(rest)
            step.more = rest[: self.confirm]
        size = self.minibatch_size
        batch, step.more = step.more[:size], step.more[size:]
        step.rows += batch
        pair = [c for c in (step.parent, step.child) if c is not None]
        return [engine.evaluate(c, batch, split="train", step=step.number) for c in pair] if batch else []

    async def _validate(self, engine: Engine, state: _State, new: Sequence[tuple[Candidate, Candidate, int]]) -> None:
        """Run new candidates on the validation rows; those that come through join the pool."""
        under_way = [Validation(engine, child, against, n, racing=self.racing) for child, against, n in new]
        while under_way:
            for validation in list(under_way):
                if await validation.advance():
                    under_way.remove(validation)
                    if validation.passed and validation.child not in state.pool:
                        state.pool.append(validation.child)

    def _merge(self, engine: Engine, state: _State) -> tuple[Merge, asyncio.Task[Evaluated]] | None:
        """Now and then, two lineages become one: asked for on a few rows."""
        if len(engine.paths) < 2 or state.merges >= self.max_merges or engine.metric_calls_left() < len(engine.val):
            return None
        made = merge_of(engine, state.pool, state.merged, state.steps)
        if made is None:
            return None
        state.merges += 1
        return made, engine.evaluate(made.child, made.rows, step=state.steps)


def _lead(engine: Engine, step: _Step) -> int:
    """Rows on which the child is better than its parent, less those where it is worse."""
    assert step.child is not None  # noqa: S101  # it has run
    before, after = engine.scores(step.parent, "train"), engine.scores(step.child, "train")
    return sum((after[r] > before[r]) - (after[r] < before[r]) for r in step.rows)
