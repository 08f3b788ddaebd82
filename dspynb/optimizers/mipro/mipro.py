"""MIPROv2: instructions and demo sets together, by Bayesian search over their combinations.

Source: Opsahl-Ong et al. 2024, "Optimizing Instructions and Demonstrations for Multi-Stage Language Model Programs",
section 4 (grounding, bootstrapped demos, the surrogate model) and DSPy's MIPROv2 for its settings.
"""

from __future__ import annotations

import asyncio
import importlib.util
import math
import random
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

from dspynb.data import Example
from dspynb.errors import ConfigurationError, InputError
from dspynb.modules.ordered_pool import pool_width
from dspynb.modules.predict import Predict
from dspynb.optimizers.bootstrap import labels, shuffled
from dspynb.optimizers.core.candidate import Candidate
from dspynb.optimizers.core.demos import Bootstrapping, DemoSet, bootstrapped
from dspynb.optimizers.core.engine import Engine
from dspynb.optimizers.core.instructions import instruction_of
from dspynb.optimizers.core.optimizer import Optimizer
from dspynb.optimizers.core.task import Evaluated, Task
from dspynb.optimizers.mipro.proposer import GroundedProposer
from dspynb.options import Bool, Float, NonNegativeInt, Number, PositiveInt, Recorded, Whole
from dspynb.scope.candidates import Part

__all__ = ["MIPROv2"]

_AUTO = {"light": (6, 100), "medium": (12, 300), "heavy": (18, 1000)}
_LEAST_FOR_MINIBATCHES = 50
_ASKS_A_TRIAL = 3  # a combination that was tried before costs nothing and does not count, up to this
_SHOWN_ONLY = 3  # traces that a zero-shot run makes for its proposals
Demos = dict[str, list[list[dict[str, Any]]]]


@dataclass(frozen=True)
class _Sizes:
    """How much is done: instructions and demo sets a predictor, trials, and whether on minibatches."""

    instructions: int
    sets: int
    trials: int
    minibatch: bool


@dataclass
class _Space:
    """What trials choose from: path → instructions, path → demo sets (empty where demos are not searched)."""

    instructions: dict[str, list[str]]
    demos: Demos

    def distributions(self) -> dict[str, Any]:
        """As optuna takes them."""
        import optuna

        kinds: dict[str, Mapping[str, Sequence[Any]]] = {"instruction": self.instructions, "demos": self.demos}
        return {
            f"{path}: {what}": optuna.distributions.CategoricalDistribution(list(range(len(listed))))
            for what, by_path in kinds.items()
            for path, listed in by_path.items()
        }

    def parts(self, chosen: Mapping[str, int]) -> dict[str, Part]:
        """Path → Part of a choice."""
        found: dict[str, Part] = {}
        for path, texts in self.instructions.items():
            part = Part(instruction=texts[chosen[f"{path}: instruction"]])
            if path in self.demos:
                part = replace(part, demos=tuple(self.demos[path][chosen[f"{path}: demos"]]))
            found[path] = part
        return found


@dataclass
class _Block:
    """The trials between two full evaluations: one minibatch, so that they are compared on the same rows."""

    rows: Sequence[int] | None
    asked: int = 0
    closed: bool = False  # no more trials are asked for in it
    means: dict[Candidate, list[float]] = field(default_factory=dict)

    def take(self, done: Evaluated) -> None:
        """Note a trial's result."""
        self.means.setdefault(done.candidate, []).append(done.mean)

    @property
    def over(self) -> bool:
        """Whether all results are there."""
        return self.closed and sum(map(len, self.means.values())) == self.asked


class MIPROv2(Optimizer):
    """Bootstrapped demo sets × grounded instructions, searched with TPE.

    ``auto``: ``light``, ``medium`` or ``heavy`` (6, 12, 18 candidates; at most 100, 300, 1,000 validation rows), or
    None with ``num_candidates`` and ``num_trials``. With both ``max_bootstrapped_demos`` and ``max_labeled_demos`` 0
    only instructions are searched. ``metric_threshold``: the score from which on a trace becomes a demo (None: any
    above 0). ``init_temperature``: of the model that writes instructions; ``shown_rows``: training rows that it sees
    for each. ``minibatch``: False runs every trial on all validation rows. Trials run on minibatches of
    ``minibatch_size`` rows (above 50 validation rows), the same for all trials between two full evaluations, which come
    every ``full_eval_steps`` trials. ``in_flight``: trials at a time (default: enough to keep ``concurrency`` busy, so
    that results depend on it); the sampler knows the results of those before, in order.

    The original program is trial 0 and wins ties. Of more validation rows than ``auto`` takes, a seeded sample judges.
    Without validation rows, the last 80 % of the training rows (at most 1,000) judge, and the others are learned from.
    Raises InputError for a single row without validation rows, ConfigurationError where optuna is not installed.
    Source: Opsahl-Ong et al. 2024 (arXiv:2406.11695), section 4; settings are those of DSPy's MIPROv2.

    >>> def answer(request):  # right once it is told to use digits
    ...     return "answer: 4" if "digits" in request.messages[0]["content"] else "answer: four"
    >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(answer))
    >>> writer = dn.FunctionLM(lambda request: "proposed_instruction: Answer in digits.")
    >>> rows = [{"question": f"{n}+{4 - n}?", "answer": "4"} for n in range(4)]
    >>> opt = dn.MIPROv2(dn.metrics.exact_match(), auto=None, num_candidates=2, num_trials=2, prompt_lm=writer)
    >>> opt.compile_sync(program, rows[:2], val=rows[2:]).instruction
    'Answer in digits.'
    """

    kind: ClassVar[str] = "mipro_v2"

    auto: Literal["light", "medium", "heavy"] | None = "light"
    num_candidates: Annotated[int, Whole(2)] | None = None
    num_trials: PositiveInt | None = None
    max_bootstrapped_demos: Annotated[NonNegativeInt, Recorded("traces")] = 4
    max_labeled_demos: Annotated[NonNegativeInt, Recorded("labeled")] = 4
    metric_threshold: Float | None = None
    init_temperature: Annotated[float, Number(0)] = 1.0
    minibatch: Bool = True
    minibatch_size: PositiveInt = 35
    full_eval_steps: PositiveInt = 5
    in_flight: PositiveInt | None = None
    shown_rows: NonNegativeInt = 0

    def __post_init__(self) -> None:
        if importlib.util.find_spec("optuna") is None:
            raise ConfigurationError('MIPROv2 needs optuna: pip install "dspynb[optimizers]"')
        own_sizes = [self.num_candidates is not None, self.num_trials is not None]
        if own_sizes != [self.auto is None] * 2:
            raise ConfigurationError("give either auto, or with auto=None both num_candidates and num_trials")
        self._proposer = GroundedProposer(self.prompt_lm, self.init_temperature, self.shown_rows)

    @property
    def zero_shot(self) -> bool:
        """Whether only instructions are searched."""
        return not self.max_bootstrapped_demos and not self.max_labeled_demos

    def described(self) -> dict[str, Any]:
        sampler_width = None
        if self.in_flight is None:
            sampler_width = pool_width(self.concurrency)  # it decides which results the sampler knows
        return {**super().described(), "concurrency": sampler_width}

    def proposers(self) -> Mapping[str, Predict]:
        return self._proposer.predictors()

    def parted(self, train: Sequence[Example], val: Sequence[Example]) -> tuple[Sequence[Example], Sequence[Example]]:
        if not val:
            if len(train) < 2:
                raise InputError("MIPROv2 needs at least 2 training rows where no validation rows are given")
            cut = len(train) - min(1000, max(1, int(len(train) * 0.8)))
            train, val = train[:cut], train[cut:]
        most = len(val) if self.auto is None else _AUTO[self.auto][1]
        if len(val) > most:
            chance = random.Random(f"{self.seed} validation rows")  # noqa: S311  # keeps no secret
            val = [val[i] for i in sorted(chance.sample(range(len(val)), most))]
        return train, val

    def first_step(self, task: Task) -> int:
        return len(task.rows["val"]) + 1

    def _sizes(self, engine: Engine) -> _Sizes:
        if self.auto is None:
            assert self.num_candidates is not None  # noqa: S101  # checked when made
            assert self.num_trials is not None  # noqa: S101
            small = self.minibatch and self.minibatch_size < len(engine.val)
            return _Sizes(self.num_candidates, self.num_candidates, self.num_trials, small)
        n = _AUTO[self.auto][0]
        variables = len(engine.paths) * (1 if self.zero_shot else 2)
        trials = int(max(2 * variables * math.log2(n), 1.5 * n))
        small = self.minibatch and len(engine.val) > _LEAST_FOR_MINIBATCHES
        return _Sizes(n if self.zero_shot else n // 2, n, trials, small and self.minibatch_size < len(engine.val))

    # ── the three steps ───────────────────────────────────────────────────────────────────────────────────────────
    async def search(self, engine: Engine) -> None:
        sizes = self._sizes(engine)
        base = engine.evaluate(engine.start)
        given = await engine.step(0)
        demos = await self._demo_sets(engine, sizes.sets)
        start = await base
        instructions = await self._proposer(engine, demos, sizes.instructions)
        space = _Space(instructions, {} if self.zero_shot else demos)
        await _Trials(self, engine, space, sizes)(start, given)

    async def _demo_sets(self, engine: Engine, count: int) -> Demos:
        """Path → demo sets: the program's own demos first, then labels, traces in order, traces of shuffled rows."""
        how = Bootstrapping(self.metric_threshold, 1, 0 if self.zero_shot else self.max_labeled_demos)
        traces = self.max_bootstrapped_demos or (_SHOWN_ONLY if self.zero_shot else 0)
        sets = [DemoSet("unshuffled", range(len(engine.train)), traces)]
        sets += [shuffled(engine, i, max(1, traces)) for i in range(max(0, count - 3))]
        made = await bootstrapped(engine, how, sets if traces else [])
        found: Demos = {}
        only = [labels(engine, self.max_labeled_demos)] if self.max_labeled_demos else []
        for path, predictor in engine.program.named_predictors():
            listed = [[dict(demo) for demo in predictor.demos], *([dict(d) for d in s[path]] for s in [*only, *made])]
            found[path] = listed[:count]
        return found


class _Trials:
    """The Bayesian search: trials asked for in order, several under way, their results told in that order."""

    def __init__(self, plan: MIPROv2, engine: Engine, space: _Space, sizes: _Sizes) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._plan, self._engine, self._space, self._sizes = plan, engine, space, sizes
        self._distributions = space.distributions()
        self._study = self._new_study("tpe")
        self._chosen: dict[Candidate, Mapping[str, int]] = {}
        self._under_way: deque[tuple[asyncio.Task[Evaluated], Callable[[Evaluated], None]]] = deque()
        rows = plan.minibatch_size if sizes.minibatch else len(engine.val)
        self._in_flight = plan.in_flight or 1 + math.ceil(2 * engine.width / rows)

    def _new_study(self, *purpose: Any) -> Any:
        import optuna

        with warnings.catch_warnings():  # both settings are experimental in optuna
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            seed = self._engine.random(*purpose).randrange(2**32)
            sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
        return optuna.create_study(direction="maximize", sampler=sampler)

    async def __call__(self, start: Evaluated, given: Sequence[Candidate]) -> None:
        """Run all trials; the engine knows the best. What was asked for is told in that order, and a full evaluation is
        asked for as soon as the last trial of its block has been told, while the next block is under way."""
        self._add(dict.fromkeys(self._distributions, 0), start.mean)
        await self._join(given, 0)
        steps, fresh, number, block = self._plan.full_eval_steps, 0, 0, self._block(0)
        while fresh < self._sizes.trials and number < _ASKS_A_TRIAL * self._sizes.trials:
            await self._join(await self._engine.step(number + 1), number + 1)
            while len(self._under_way) >= self._in_flight:
                await self._commit()
            if block.asked == steps:
                self._close(block, number)
                block = self._block(number)
            number += 1
            fresh += self._ask(number, block)
        self._close(block, number)
        while self._under_way:
            await self._commit()

    async def _join(self, given: Sequence[Candidate], number: int) -> None:
        """Search from here on among a person's instructions too: in a study of the larger space, which knows the trials
        so far and theirs."""
        new = [candidate for candidate in given if candidate not in self._chosen and candidate != self._engine.start]
        if not new:
            return
        while self._under_way:
            await self._commit()
        for candidate in new:
            parent = self._engine.candidates[candidate.parents[0]]
            params = {**dict.fromkeys(self._distributions, 0), **self._chosen.get(parent, {})}
            for path, texts in self._space.instructions.items():
                text = instruction_of(self._engine, candidate, path)
                if text not in texts:
                    texts.append(text)
                params[f"{path}: instruction"] = texts.index(text)
            self._chosen[candidate] = params
        before, self._study = self._study.trials, self._new_study("tpe", number)
        self._distributions = self._space.distributions()
        for trial in before:
            self._add(trial.params, trial.value)
        for candidate in new:
            self._add(self._chosen[candidate], self._engine.mean(candidate) or 0.0)

    def _block(self, number: int) -> _Block:
        if not self._sizes.minibatch:
            return _Block(None)
        chance = self._engine.random("minibatch", number)
        return _Block(sorted(chance.sample(range(len(self._engine.val)), self._plan.minibatch_size)))

    def _ask(self, number: int, block: _Block) -> bool:
        """Ask for a trial; whether its combination is a new one (another that was tried costs no rollout)."""
        trial = self._study.ask(self._distributions)
        parts, start = self._space.parts(trial.params), self._engine.start
        candidate = self._engine.candidate(parts, origin=f"trial {number}", step=number, parents=[start])
        fresh = candidate not in self._chosen and candidate != start
        self._chosen.setdefault(candidate, dict(trial.params))
        block.asked += 1

        def tell(done: Evaluated) -> None:
            self._study.tell(trial, done.mean)
            block.take(done)
            self._ask_full(block, number)

        self._under_way.append((self._engine.evaluate(candidate, block.rows, step=number), tell))
        return fresh

    def _close(self, block: _Block, number: int) -> None:
        block.closed = True
        self._ask_full(block, number)

    def _ask_full(self, block: _Block, step: int) -> None:
        """Once a block is over: its best on the minibatch, of those that were not yet, on all rows."""
        fresh = [c for c in self._engine.kept(block.means) if self._engine.mean(c) is None]
        if block.rows is None or not block.over or not fresh:
            return
        best = max(fresh, key=lambda c: sum(block.means[c]) / len(block.means[c]))
        params = self._chosen[best]
        self._under_way.append((self._engine.evaluate(best, step=step), lambda full: self._add(params, full.mean)))

    async def _commit(self) -> None:
        """Wait for what was asked for first, and tell the sampler."""
        task, tell = self._under_way.popleft()
        tell(await task)

    def _add(self, params: Mapping[str, int], score: float) -> None:
        import optuna

        made = optuna.trial.create_trial(params=dict(params), distributions=self._distributions, value=score)
        self._study.add_trial(made)
