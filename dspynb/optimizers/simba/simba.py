"""SIMBA: stochastic introspective mini-batch ascent.

Source: the optimizer of that name in DSPy (Opsahl-Ong and Khattab 2025, "Stochastic Introspective Mini-Batch Ascent").
With ``combine=False`` its steps are DSPy's, with these differences. A candidate's score is the mean of all its
rollouts on training rows; in DSPy the start counts 0, and trajectories do not count. A row from which nothing can be
learned is skipped, and the next one is used. A rule may be learned from a row on which all trajectories scored low.
There is no teacher model.
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
from dspynb.optimizers.core.problem import CandidateEvaluation, Problem
from dspynb.optimizers.core.successive_halving import race
from dspynb.optimizers.simba.mutations import Addition, Source, new_candidates
from dspynb.optimizers.simba.rules import RuleWriter
from dspynb.optimizers.simba.trajectories import Bucket, Minibatches, Pool, Spread, Trajectory, make_buckets
from dspynb.options import Bool, NonNegativeInt, PositiveFloat, PositiveInt, Whole

__all__ = ["SIMBA"]

_MIN_MINIBATCH = 4
"""The least size of a minibatch that is made smaller for the budget."""
_FINAL_SHARE = 1 / 3
"""The share of a budget that is reserved for the final evaluation, where the budget is too small for everything."""
_RowRollouts = tuple[int, list[tuple[Candidate, int, asyncio.Future[Rollout]]]]
"""A row, and its submitted rollouts: candidate, repeat, future."""
_Draft = tuple[Source, Addition | asyncio.Task[Prediction | None]]
"""A source and what is added to it: an addition, or the proposal of a rule."""


@dataclass
class _State:
    """The state of the search between steps."""

    pool: Pool
    minibatches: Minibatches
    winners: list[Candidate]  # the start, then the best child of each step that had children
    unrestricted: bool  # whether the budget allows everything
    reserved: float  # metric calls, for winners on validation rows
    due: set[int] = field(default_factory=set)  # places in ``winners`` to evaluate while the next step is running
    steps: int = 0


class SIMBA(Optimizer):
    """Learns from rows on which the program's score varies: the calls of the best run become demos, or a model that
    sees the best and the worst run writes rules, which are appended to the instructions.

    A step draws a minibatch of ``minibatch_size`` training rows. On each row it samples ``num_candidates`` trajectories
    with the best candidates so far, drawn by the softmax of their mean scores over ``temperature_for_sampling``. The
    rows whose trajectories differ most, up to ``num_candidates``, each give a new candidate. Its source is a candidate
    drawn likewise (``temperature_for_candidates``), with demos dropped at random, so that no predictor gets more than
    ``max_demos``. Either the calls of the best trajectory are added as demos, or rules are added (always rules, where
    ``max_demos`` is 0). The new candidates run on the same minibatch; the best of them is the step's winner. After
    ``max_steps`` steps, winners picked evenly over the steps are evaluated on all validation rows.

    Beyond the reference: with ``combine``, one more candidate of each step has the additions of all others. A candidate
    with known content is not evaluated again. Where a budget of metric calls is too small, minibatches are smaller and
    steps fewer; if even the winners do not fit, they race (see BootstrapRandomSearch). Otherwise a winner is evaluated
    while the next step is running, so that a stopped run has a result.

    Nothing is learned from a minibatch on which all trajectories score the same. Without validation rows, the training
    rows serve as both (as in DSPy). Source: DSPy's SIMBA (Opsahl-Ong and Khattab 2025).

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
    shows_rows: ClassVar[bool] = True

    minibatch_size: PositiveInt = 32
    num_candidates: Annotated[int, Whole(2)] = 6
    max_steps: PositiveInt = 8
    max_demos: NonNegativeInt = 4
    temperature_for_sampling: PositiveFloat = 0.2
    temperature_for_candidates: PositiveFloat = 0.2
    combine: Bool = True

    def __post_init__(self) -> None:
        self._rule_writer = RuleWriter(self.prompt_lm)

    def proposers(self) -> Mapping[str, Predict]:
        return {"simba.advise": self._rule_writer.predict}

    def first_step(self, task: Problem) -> int:
        return len(task.rows["val"]) + self._row_costs()

    def _row_costs(self) -> int:
        """The metric calls that a row of a minibatch takes at most: the trajectories, and the new candidates."""
        return 2 * self.num_candidates + self.combine

    # ── the loop ──────────────────────────────────────────────────────────────────────────────────────────────────────
    async def search(self, engine: Engine) -> None:
        tasks = [engine.evaluate(engine.start)]
        state = self._initial_state(engine)
        while True:
            self._apply_interventions(engine, state, await engine.step(state.steps + 1))
            size = self._minibatch_size(engine, state)
            if not size:
                break
            state.steps += 1
            rows = state.minibatches.draw(size)
            submitted = self._submit_trajectories(engine, state, rows)
            tasks += self._submit_due_winner(engine, state)
            start = await tasks[0]  # raises where the program fails on all rows
            if state.steps == 1:
                warn_of_no_feedback(start, engine.problem)
            buckets = await self._collect_buckets(engine, state, submitted)
            children = await self._children(engine, state, buckets)
            await self._compare(engine, state, rows, children)
        for task in [*tasks, *self._submit_due_winner(engine, state)]:
            await task
        finalists = [state.winners[place] for place in _evenly(len(state.winners) - 1, self.num_candidates)]
        await race(engine, [c for c in finalists if engine.mean(c) is None], step=state.steps + 1)

    def _apply_interventions(self, engine: Engine, state: _State, candidates: Sequence[Candidate]) -> None:
        """Add a person's candidates to the pool, with their scores on validation rows, and remove dropped ones."""
        for candidate in candidates:
            state.pool.add_outside(candidate, engine.scores(candidate))
        state.pool.filter(engine.active)
        state.winners = engine.active(state.winners)

    def _initial_state(self, engine: Engine) -> _State:
        """The state before the first step, with the part of the budget that is reserved for winners."""
        left = engine.metric_calls_left()
        final_calls = min(self.num_candidates, self.max_steps) * len(engine.val)
        size = min(self.minibatch_size, len(engine.train))
        unrestricted = left >= self.max_steps * size * self._row_costs() + final_calls
        reserved: float = final_calls
        if not unrestricted:
            reserved = min(final_calls, max(len(engine.val), left * _FINAL_SHARE))
        state = _State(Pool(engine.start), Minibatches(engine), [engine.start], unrestricted, reserved)
        if reserved == final_calls:
            state.due = {*_evenly(self._steps_left(engine, state), self.num_candidates)} - {0}
        return state

    def _minibatch_size(self, engine: Engine, state: _State) -> int:
        """The size of the next minibatch; 0 where there is no further step. The budget is spread evenly over as many
        steps as can have enough rows, or spent on one step."""
        size = min(self.minibatch_size, len(engine.train))
        steps = self._steps_left(engine, state)
        if not steps:
            return 0
        if state.unrestricted:
            return size
        return min(size, self._affordable_rows(engine, state) // steps)

    def _steps_left(self, engine: Engine, state: _State) -> int:
        """The number of further steps."""
        steps = self.max_steps - state.steps
        if state.unrestricted:
            return steps
        size = min(self.minibatch_size, len(engine.train))
        affordable = self._affordable_rows(engine, state) // min(_MIN_MINIBATCH, size)
        is_first = not state.steps
        return min(steps, max(affordable, int(is_first)))

    def _affordable_rows(self, engine: Engine, state: _State) -> int:
        """The number of minibatch rows that a restricted budget has room for."""
        left = max(0.0, engine.metric_calls_left() - state.reserved)
        return int(left // self._row_costs())

    # ── one step ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def _submit_trajectories(self, engine: Engine, state: _State, rows: Sequence[int]) -> list[_RowRollouts]:
        """Submit the trajectories of each row. A candidate's first rollout on a row is the plain call; further ones are
        sampled repeats."""
        rng = engine.random("trajectories", state.steps)
        weights = state.pool.weights(self.num_candidates, self.temperature_for_sampling)
        submitted = []
        for row in rows:
            drawn = rng.choices(list(weights), list(weights.values()), k=self.num_candidates)
            rollouts = []
            for place, candidate in enumerate(drawn):
                repeat = drawn[:place].count(candidate)
                rollouts.append((candidate, repeat, engine.rollout(candidate, row, repeat=repeat)))
            submitted.append((row, rollouts))
        return submitted

    def _submit_due_winner(self, engine: Engine, state: _State) -> list[asyncio.Task[CandidateEvaluation]]:
        """Submit the latest winner for evaluation on all validation rows, if it is due. It runs in slots that the
        trajectories leave free, and gives a stopped run a result."""
        place = len(state.winners) - 1
        if place not in state.due or len(engine.val) > engine.metric_calls_left():
            return []
        state.due.remove(place)
        state.reserved = max(0, state.reserved - len(engine.val))
        return [engine.evaluate(state.winners[-1], step=state.winners[-1].step)]

    async def _collect_buckets(self, engine: Engine, state: _State, submitted: Sequence[_RowRollouts]) -> list[Bucket]:
        """Await the submitted trajectories and put them into buckets, ordered by rank."""
        by_row = []
        for row, rollouts in submitted:
            trajectories = []
            for candidate, repeat, future in rollouts:
                rollout = await future
                score = engine.score(rollout)
                trajectories.append(Trajectory(candidate, rollout, score))
                state.pool.add(candidate, row, repeat, score)
            by_row.append((row, trajectories))
        return make_buckets(by_row)

    async def _children(self, engine: Engine, state: _State, buckets: Sequence[Bucket]) -> list[Candidate]:
        """New candidates: one from each of the first buckets that have something to learn, and a combined one."""
        spread = Spread.of(buckets)
        step = state.steps
        drafts: list[_Draft] = []
        for place, bucket in enumerate(buckets):
            if len(drafts) < self.num_candidates:
                drafts += self._draft(engine, state, spread, bucket, engine.random("variant", step, place))
        additions = []
        children = []
        for source, draft in drafts:
            if isinstance(draft, Addition):
                addition = draft
            else:
                addition = Addition(rules=self._rule_writer.rules_from(engine, await draft))
            if addition:
                additions.append(addition)
            children += new_candidates(engine, source, [addition], "demo" if addition.demos else "rule", step)
        if self.combine and len(additions) > 1:
            source = self._draw_source(engine, state, engine.random("combined", step))
            children += new_candidates(engine, source, source.fitting(additions, self.max_demos), "combined", step)
        return children

    def _draft(self, engine: Engine, state: _State, spread: Spread, bucket: Bucket, rng: random.Random) -> list[_Draft]:
        """A source and what the bucket adds to it; empty where there is nothing to learn from the bucket. A rule is
        submitted as a proposal and not awaited."""
        kinds = []
        if self.max_demos and spread.has_demo(bucket):
            kinds.append("demo")
        if spread.has_rule(bucket):
            kinds.append("rule")
        if not kinds:
            return []
        source = self._draw_source(engine, state, rng)
        if rng.choice(kinds) == "rule":
            key = f"step {state.steps}, row {bucket.row}"
            return [(source, self._rule_writer.propose(engine, source.candidate, bucket, key=key, number=state.steps))]
        addition = Addition.from_best(engine, bucket)
        return [(source, addition)] if source.with_additions(engine, [addition]) else []

    def _draw_source(self, engine: Engine, state: _State, rng: random.Random) -> Source:
        """Draw a candidate to add to, and drop some of its demos."""
        weights = state.pool.weights(self.num_candidates, self.temperature_for_candidates)
        (candidate,) = rng.choices(list(weights), list(weights.values()))
        return Source.thinned(engine, candidate, self.max_demos, rng)

    async def _compare(self, engine: Engine, state: _State, rows: Sequence[int], children: Sequence[Candidate]) -> None:
        """Run the new candidates on the minibatch. All join the pool; the best one is the step's winner."""
        tasks = [engine.evaluate(child, rows, split="train", step=state.steps) for child in children]
        means = {}
        for child, task in zip(children, tasks, strict=True):
            evaluation = await task
            means[child] = evaluation.mean
            for row, score in zip(rows, evaluation.scores, strict=True):
                state.pool.add(child, row, 0, score)
        if means:
            state.winners.append(max(means, key=lambda c: means[c]))


def _evenly(last: int, count: int) -> list[int]:
    """Evenly spaced numbers from 0 to ``last``, ``count + 1`` of them at most."""
    return list(dict.fromkeys(round(i * last / count) for i in range(count + 1)))
