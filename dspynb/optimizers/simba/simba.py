"""SIMBA: stochastic introspective mini-batch ascent.

Source: the optimizer of that name in DSPy (Opsahl-Ong and Khattab 2025, "Stochastic Introspective Mini-Batch Ascent").
With ``combine=False`` its steps are those, but for this: a candidate's score is the mean of all its rollouts on
training rows (there the start counts 0, and trajectories nothing), a row that teaches nothing makes room for the next,
and a row on which all trajectories were poor may teach a rule. There is no teacher model.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from dspynb.data import Prediction
from dspynb.evaluation.rollouts import Rollout
from dspynb.modules.predict import Predict
from dspynb.optimizers.core.candidate import Candidate
from dspynb.optimizers.core.diagnostics import warn_of_no_feedback
from dspynb.optimizers.core.engine import Engine
from dspynb.optimizers.core.optimizer import Optimizer
from dspynb.optimizers.core.successive_halving import race
from dspynb.optimizers.core.task import Evaluated, Task
from dspynb.optimizers.simba.mutations import Addition, Source, made
from dspynb.optimizers.simba.rules import Advising
from dspynb.optimizers.simba.trajectories import Bucket, Minibatches, Pool, Spread, Trajectory, buckets
from dspynb.options import Bool, NonNegativeInt, PositiveFloat, PositiveInt, Whole

__all__ = ["SIMBA"]

_FEWEST = 4
"""Rows of a minibatch, at least, where a budget makes it smaller."""
_KEPT = 1 / 3
"""Of a budget that is too small for everything, what is kept for the final evaluation."""
_Asked = tuple[int, list[tuple[Candidate, int, asyncio.Future[Rollout]]]]
_Draft = tuple[Source, Addition | asyncio.Task[Prediction | None]]


@dataclass
class _State:
    """What steps have left so far. ``winners``: the start, then the best child of each step that had children."""

    pool: Pool
    batches: Minibatches
    winners: list[Candidate]
    whole: bool  # whether the budget allows everything
    kept: float  # of the budget, for the winners on validation rows
    due: set[int] = field(default_factory=set)  # places of winners to be evaluated while the next step is under way
    steps: int = 0


class SIMBA(Optimizer):
    """Learns from rows on which the program does now well and now badly: what it did well becomes demos, or a model
    that sees the better and the worse run writes rules, which are added to the instructions.

    In each of ``max_steps`` steps, ``num_candidates`` trajectories are sampled on every row of a minibatch of
    ``minibatch_size`` training rows, by the best candidates so far, drawn by the softmax of their mean scores over
    ``temperature_for_sampling``. From each of the rows whose trajectories differ most, up to ``num_candidates``, comes
    a new candidate: of one that is drawn likewise (``temperature_for_candidates``), demos are dropped at random, so
    that no predictor gets more than ``max_demos``, and one of two things is added: the calls of the best trajectory as
    demos, or rules (only these, where ``max_demos`` is 0). The new candidates run on the same minibatch; the best of
    them is the step's winner. Winners, picked evenly over the steps, are evaluated on all validation rows.

    Beyond the reference: with ``combine``, one more candidate of a step has what all of them add. A candidate whose
    content is known is not evaluated. Where a budget of metric calls is too small for all this, minibatches are
    smaller and steps fewer, and if even the winners do not fit, they race (see BootstrapRandomSearch). Else a winner is
    evaluated while the next step is under way, so that a run that is stopped has a result.

    A minibatch on which all trajectories score the same teaches nothing. Without validation rows, the training rows
    serve as both (as in DSPy). Source: DSPy's SIMBA (Opsahl-Ong and Khattab 2025).

    >>> def answer(request):  # right in every other sample, and once it has a rule
    ...     return "answer: 4" if request.rollout % 2 or "digits" in request.messages[0]["content"] else "answer: four"
    >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(answer))
    >>> writer = dn.FunctionLM(lambda request: 'discussion: Digits are right.\\nadvice: {"self": "Answer in digits."}')
    >>> rows = [{"question": f"{n}+{4 - n}?", "answer": "4"} for n in range(4)]
    >>> opt = dn.SIMBA(dn.metrics.exact_match(), minibatch_size=4, max_steps=1, max_demos=0, prompt_lm=writer)
    >>> print(opt.compile_sync(program, rows).instruction)
    Given the fields `question`, produce the fields `answer`.
    <BLANKLINE>
    Answer in digits.
    """

    kind: ClassVar[str] = "simba"

    minibatch_size: PositiveInt = 32
    num_candidates: Annotated[int, Whole(2)] = 6
    max_steps: PositiveInt = 8
    max_demos: NonNegativeInt = 4
    temperature_for_sampling: PositiveFloat = 0.2
    temperature_for_candidates: PositiveFloat = 0.2
    combine: Bool = True

    def __post_init__(self) -> None:
        self._advising = Advising(self.prompt_lm)

    def proposers(self) -> Mapping[str, Predict]:
        return {"simba.advise": self._advising.predict}

    def first_step(self, task: Task) -> int:
        return len(task.rows["val"]) + self._row_costs()

    def _row_costs(self) -> int:
        """Metric calls that a row of a minibatch takes at most: the trajectories, and the new candidates."""
        return 2 * self.num_candidates + self.combine

    # ── the loop ──────────────────────────────────────────────────────────────────────────────────────────────────
    async def search(self, engine: Engine) -> None:
        evaluated = [engine.evaluate(engine.start)]
        state = self._begin(engine)
        while True:
            self._steer(engine, state, await engine.step(state.steps + 1))
            if not (size := self._size(engine, state)):
                break
            state.steps += 1
            rows = state.batches.take(size)
            asked = self._sample(engine, state, rows)
            evaluated += self._judge(engine, state)
            start = await evaluated[0]  # it says whether the program works at all
            if state.steps == 1:
                warn_of_no_feedback(start, engine.task)
            found = await self._buckets(engine, state, asked)
            children = await self._children(engine, state, found)
            await self._compare(engine, state, rows, children)
        for task in [*evaluated, *self._judge(engine, state)]:
            await task
        picked = [state.winners[i] for i in _picked(len(state.winners) - 1, self.num_candidates)]
        await race(engine, [c for c in picked if engine.mean(c) is None], step=state.steps + 1)

    def _steer(self, engine: Engine, state: _State, given: Sequence[Candidate]) -> None:
        """Take a person's candidates into the pool, with their scores on validation rows; forget what was dropped."""
        for candidate in given:
            state.pool.take(candidate, engine.scores(candidate))
        state.pool.keep(engine.kept)
        state.winners = engine.kept(state.winners)

    def _begin(self, engine: Engine) -> _State:
        """The state before the first step, with how much of the budget steps may take."""
        left, judging = engine.metric_calls_left(), min(self.num_candidates, self.max_steps) * len(engine.val)
        size = min(self.minibatch_size, len(engine.train))
        whole = left >= self.max_steps * size * self._row_costs() + judging
        kept = judging if whole else min(judging, max(len(engine.val), left * _KEPT))
        state = _State(Pool(engine.start), Minibatches(engine), [engine.start], whole, kept)
        if kept == judging:
            state.due = {*_picked(self._steps(engine, state), self.num_candidates)} - {0}
        return state

    def _size(self, engine: Engine, state: _State) -> int:
        """Rows of the next minibatch; 0 where there is no further step. What the budget allows is spread over as many
        steps as can have enough rows, or is one step."""
        size, steps = min(self.minibatch_size, len(engine.train)), self._steps(engine, state)
        if state.whole or not steps:
            return size if steps else 0
        return min(size, self._affordable(engine, state) // steps)

    def _steps(self, engine: Engine, state: _State) -> int:
        """How many further steps there are."""
        size, steps = min(self.minibatch_size, len(engine.train)), self.max_steps - state.steps
        enough = self._affordable(engine, state) // min(_FEWEST, size)
        return steps if state.whole else min(steps, max(enough, int(not state.steps)))

    def _affordable(self, engine: Engine, state: _State) -> int:
        """Rows of minibatches that the budget has room for."""
        left = 0 if state.whole else max(0.0, engine.metric_calls_left() - state.kept)
        return int(left // self._row_costs())

    # ── one step ──────────────────────────────────────────────────────────────────────────────────────────────────
    def _sample(self, engine: Engine, state: _State, rows: Sequence[int]) -> list[_Asked]:
        """Ask for the trajectories of each row. What a candidate does on a row for the first time is the plain call;
        what it does again are repeats."""
        chance = engine.random("trajectories", state.steps)
        weights = state.pool.weights(self.num_candidates, self.temperature_for_sampling)
        asked = []
        for row in rows:
            drawn = chance.choices(list(weights), list(weights.values()), k=self.num_candidates)
            numbered = [(candidate, drawn[:i].count(candidate)) for i, candidate in enumerate(drawn)]
            asked.append((row, [(c, repeat, engine.rollout(c, row, repeat=repeat)) for c, repeat in numbered]))
        return asked

    def _judge(self, engine: Engine, state: _State) -> list[asyncio.Task[Evaluated]]:
        """Have the latest winner evaluated on all validation rows, in slots that the trajectories leave: a run that is
        stopped has a result."""
        place = len(state.winners) - 1
        if place not in state.due or len(engine.val) > engine.metric_calls_left():
            return []
        state.due.remove(place)
        state.kept = max(0, state.kept - len(engine.val))
        return [engine.evaluate(state.winners[-1], step=state.winners[-1].step)]

    async def _buckets(self, engine: Engine, state: _State, asked: Sequence[_Asked]) -> list[Bucket]:
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
        """New candidates: one from each of the first buckets that teach something, and one that has it all."""
        spread, step = Spread.of(found), state.steps
        drafts: list[_Draft] = []
        for place, bucket in enumerate(found):
            if len(drafts) < self.num_candidates:
                drafts += self._drafted(engine, state, spread, bucket, engine.random("variant", step, place))
        additions, children = [], []
        for source, adds in drafts:
            if not isinstance(adds, Addition):
                adds = Addition(rules=self._advising.read(engine, await adds))  # noqa: PLW2901  # what it came to
            additions += [adds] if adds else []
            children += made(engine, source, [adds], "demo" if adds.demos else "rule", step)
        if self.combine and len(additions) > 1:
            source = self._source(engine, state, engine.random("combined", step))
            children += made(engine, source, source.fitting(additions, self.max_demos), "combined", step)
        return children

    def _drafted(
        self, engine: Engine, state: _State, spread: Spread, bucket: Bucket, chance: random.Random
    ) -> list[_Draft]:
        """A source and what a bucket adds to it; nothing where it teaches nothing. Rules are not waited for."""
        ways = ["demo"] if self.max_demos and spread.shows(bucket) else []
        ways += ["rule"] if spread.tells(bucket) else []
        if not ways:
            return []
        source, number = self._source(engine, state, chance), state.steps
        if chance.choice(ways) == "rule":
            key = f"step {number}, row {bucket.row}"
            return [(source, self._advising.ask(engine, source.candidate, bucket, key=key, number=number))]
        shown = Addition.of_best(engine, bucket)
        return [(source, shown)] if source.with_all(engine, [shown]) else []

    def _source(self, engine: Engine, state: _State, chance: random.Random) -> Source:
        """A candidate to add to, less some of its demos."""
        weights = state.pool.weights(self.num_candidates, self.temperature_for_candidates)
        (drawn,) = chance.choices(list(weights), list(weights.values()))
        return Source.thinned(engine, drawn, self.max_demos, chance)

    async def _compare(self, engine: Engine, state: _State, rows: Sequence[int], children: Sequence[Candidate]) -> None:
        """Run the new candidates on the minibatch; all join the pool, the best is the step's winner."""
        asked = [engine.evaluate(child, rows, split="train", step=state.steps) for child in children]
        means = {}
        for child, task in zip(children, asked, strict=True):
            done = await task
            means[child] = done.mean
            for row, score in zip(rows, done.scores, strict=True):
                state.pool.add(child, row, 0, score)
        if means:
            state.winners.append(max(means, key=lambda c: means[c]))


def _picked(last: int, count: int) -> list[int]:
    """Numbers from 0 to ``last``, ``count + 1`` of them at most, evenly."""
    return list(dict.fromkeys(round(i * last / count) for i in range(count + 1)))
