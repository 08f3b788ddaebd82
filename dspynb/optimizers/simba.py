"""SIMBA: stochastic introspective mini-batch ascent.

Source: the optimizer of that name in DSPy (Opsahl-Ong and Khattab 2025, "Stochastic Introspective Mini-Batch Ascent").
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Unpack

from dspynb.data import Prediction
from dspynb.errors import ConfigurationError
from dspynb.evaluation.rollouts import Rollout
from dspynb.modules import Predict
from dspynb.optimizers.advising import Advising
from dspynb.optimizers.candidate import Candidate
from dspynb.optimizers.engine import Engine
from dspynb.optimizers.optimizer import Common, Optimizer, checked_number, checked_whole
from dspynb.optimizers.racing import race
from dspynb.optimizers.task import Task
from dspynb.optimizers.trajectories import Bucket, Minibatches, Pool, Spread, Trajectory, buckets
from dspynb.optimizers.variants import Variant, new_candidate

__all__ = ["SIMBA"]

_FEWEST = 4
"""Rows of a minibatch, at least, where a budget makes it smaller."""
_KEPT = 1 / 3
"""Of a budget that is too small for everything, what is kept for the final evaluation."""
Asked = tuple[int, list[tuple[Candidate, int, asyncio.Future[Rollout]]]]


@dataclass
class _State:
    """What steps have left so far. ``winners``: the start, then the best child of each step that had children."""

    pool: Pool
    batches: Minibatches
    winners: list[Candidate]
    kept: float  # of the budget, for the final evaluation
    steps: int = 0


class SIMBA(Optimizer):
    """Learns from rows on which the program does now well and now badly: what it did well becomes demos, or a model
    that sees the better and the worse run writes rules, which are added to the instructions.

    In each of ``max_steps`` steps, ``num_candidates`` trajectories are sampled on every row of a minibatch of
    ``minibatch_size`` training rows, by the best candidates so far, drawn by the softmax of their scores over
    ``temperature_for_sampling``. From each of the rows whose trajectories differ most, a candidate is made: of one
    drawn likewise (``temperature_for_candidates``), some demos are dropped at random, so that no predictor has more
    than ``max_demos``, and one of two things is added: the calls of the best trajectory as demos, or rules from the
    best and the worst one (rules only, where ``max_demos`` is 0). The new candidates run on the same minibatch, and the
    best of them is the step's winner. Winners, picked evenly over the steps, are evaluated on all validation rows.

    A candidate whose content is known is not evaluated again, nor is a rollout made twice. Where a budget of metric
    calls is too small, minibatches are smaller and steps fewer, and the winners race (see BootstrapRandomSearch).
    Without such a budget, a winner is evaluated while the next step is under way, so that a run that is stopped early
    has a result. A minibatch whose trajectories all score the same teaches nothing.

    Without validation rows, the training rows serve as both (as in DSPy).
    """

    kind: ClassVar[str] = "simba"

    def __init__(
        self,
        metric: Any,
        *,
        minibatch_size: int = 32,
        num_candidates: int = 6,
        max_steps: int = 8,
        max_demos: int = 4,
        temperature_for_sampling: float = 0.2,
        temperature_for_candidates: float = 0.2,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(metric, **common)
        checked_whole("minibatch_size", minibatch_size)
        checked_whole("num_candidates", num_candidates, least=2)
        checked_whole("max_steps", max_steps)
        checked_whole("max_demos", max_demos, least=0)
        temperatures = {"sampling": temperature_for_sampling, "candidates": temperature_for_candidates}
        for name, value in temperatures.items():
            checked_number(f"temperature_for_{name}", value, least=0)
            if not value:
                raise ConfigurationError(f"temperature_for_{name} must be above 0; 0.01 takes nearly always the best")
        self.minibatch_size, self.num_candidates = minibatch_size, num_candidates
        self.max_steps, self.max_demos = max_steps, max_demos
        self.temperature_for_sampling, self.temperature_for_candidates = map(float, temperatures.values())
        self._advising = Advising(self.prompt_lm)

    def described(self) -> dict[str, Any]:
        names = ["minibatch_size", "num_candidates", "max_steps", "max_demos"]
        names += ["temperature_for_sampling", "temperature_for_candidates"]
        return {name: getattr(self, name) for name in names}

    def proposers(self) -> Mapping[str, Predict]:
        return {"simba.advise": self._advising.predict}

    def first_step(self, task: Task) -> int:
        return len(task.rows["val"]) + self._step_costs(min(_FEWEST, self.minibatch_size, len(task.rows["train"])))

    def _step_costs(self, rows: int) -> int:
        """Metric calls of a step at most: the trajectories, and the new candidates on the minibatch."""
        return 2 * self.num_candidates * rows

    # ── the loop ──────────────────────────────────────────────────────────────────────────────────────────────────
    async def search(self, engine: Engine) -> None:
        start = engine.evaluate(engine.start)
        state = _State(Pool(engine.start), Minibatches(engine), [engine.start], self._kept(engine))
        evaluated = [start]
        while size := self._rows(engine, state):
            state.steps += 1
            rows = state.batches.take(size)
            asked = self._sample(engine, state, rows)
            await start  # it says whether the program works at all
            found = await self._buckets(engine, state, asked)
            children = await self._children(engine, state, found)
            await self._compare(engine, state, rows, children)
            if math.isinf(state.kept) and children and state.steps in _picked(self.max_steps, self.num_candidates):
                evaluated.append(engine.evaluate(state.winners[-1], step=state.steps))
        for task in evaluated:
            await task
        picked = _picked(len(state.winners) - 1, self.num_candidates)
        left = [c for i in picked if engine.mean(c := state.winners[i]) is None]
        await race(engine, left, step=state.steps + 1)

    def _kept(self, engine: Engine) -> float:
        """What steps leave of the budget for the final evaluation; infinite where there is no limit."""
        left, rows, steps = engine.metric_calls_left(), len(engine.val), self.max_steps
        whole = min(self.num_candidates, steps) * rows
        size = min(self.minibatch_size, len(engine.train))
        if math.isinf(left) or left >= steps * self._step_costs(size) + whole:
            return left if math.isinf(left) else whole
        return min(whole, max(rows, left * _KEPT))

    def _rows(self, engine: Engine, state: _State) -> int:
        """How many rows the next minibatch has; 0 where there is no further step."""
        size, left = min(self.minibatch_size, len(engine.train)), engine.metric_calls_left()
        steps = self.max_steps - state.steps
        if math.isinf(left) or not steps:
            return size if steps else 0
        affordable = int((left - state.kept) // self._step_costs(1))
        fewest = min(_FEWEST, size)
        return min(size, max(fewest, affordable // steps)) if affordable >= fewest else 0

    # ── one step ──────────────────────────────────────────────────────────────────────────────────────────────────
    def _sample(self, engine: Engine, state: _State, rows: Sequence[int]) -> list[Asked]:
        """Ask for the trajectories of each row. What a candidate does on a row for the first time is the plain call;
        further trajectories of the same are repeats."""
        chance, most = engine.random("trajectories", state.steps), self.num_candidates
        asked = []
        for row in rows:
            drawn = [state.pool.draw(chance, most, self.temperature_for_sampling) for _ in range(most)]
            repeats = [drawn[:i].count(candidate) for i, candidate in enumerate(drawn)]
            told = [(c, i, engine.rollout(c, row, repeat=i)) for c, i in zip(drawn, repeats, strict=True)]
            asked.append((row, told))
        return asked

    async def _buckets(self, engine: Engine, state: _State, asked: Sequence[Asked]) -> list[Bucket]:
        """The trajectories that were asked for, by row, those first that teach most."""
        by_row = []
        for row, some in asked:
            found = []
            for candidate, repeat, future in some:
                rollout = await future
                found.append(Trajectory(candidate, rollout, engine.score(rollout)))
                state.pool.add(candidate, row, repeat, found[-1].score)
            by_row.append((row, found))
        return buckets(by_row)

    async def _children(self, engine: Engine, state: _State, found: Sequence[Bucket]) -> list[Candidate]:
        """New candidates, one from each of the first buckets that give one; rules are asked for at the same time."""
        spread, step = Spread.of(found), state.steps
        made: dict[int, list[Candidate]] = {}
        rules: list[tuple[int, Variant, asyncio.Task[Prediction | None]]] = []
        for place, bucket in enumerate(found):
            chance = engine.random("variant", step, place)
            ways = [way for way, fits in self._ways(spread) if fits(bucket)]
            if not ways or len(made) + len(rules) == self.num_candidates:
                continue
            source = state.pool.draw(chance, self.num_candidates, self.temperature_for_candidates)
            variant = Variant.of(engine, source, bucket, self.max_demos, chance)
            if chance.choice(ways) == "rule":
                key = f"step {step}, row {bucket.row}"
                rules.append((place, variant, await self._advising.ask(engine, source, bucket, key=key, number=step)))
            elif child := new_candidate(engine, variant, variant.showing(engine), origin="demo", step=step):
                made[place] = child
        for place, variant, task in rules:
            advice = self._advising.read(engine, await task)
            made[place] = new_candidate(engine, variant, variant.told(engine, advice), origin="rule", step=step)
        return [child for place in sorted(made) for child in made[place]]

    def _ways(self, spread: Spread) -> list[tuple[str, Callable[[Bucket], bool]]]:
        return [*([("demo", spread.shows)] if self.max_demos else []), ("rule", spread.tells)]

    async def _compare(self, engine: Engine, state: _State, rows: Sequence[int], children: Sequence[Candidate]) -> None:
        """Run the new candidates on the minibatch; all join the pool, the best is the step's winner."""
        means = {}
        for child, task in [(c, engine.evaluate(c, rows, split="train", step=state.steps)) for c in children]:
            done = await task
            means[child] = done.mean
            for row, score in zip(rows, done.scores, strict=True):
                state.pool.add(child, row, 0, score)
        if means:
            state.winners.append(max(means, key=lambda c: means[c]))


def _picked(last: int, count: int) -> list[int]:
    """Numbers from 0 to ``last``, ``count + 1`` of them at most, evenly."""
    return list(dict.fromkeys(round(i * last / count) for i in range(count + 1)))
