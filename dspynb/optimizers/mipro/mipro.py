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
from dspynb.optimizers.bootstrap import labels_only, shuffled_set
from dspynb.optimizers.core.candidate import Candidate
from dspynb.optimizers.core.demos import Bootstrapping, DemoSet, bootstrap_demos
from dspynb.optimizers.core.engine import Engine
from dspynb.optimizers.core.instructions import instruction_of
from dspynb.optimizers.core.optimizer import Optimizer
from dspynb.optimizers.core.problem import CandidateEvaluation, Problem, Teacher
from dspynb.optimizers.core.settings import ModelOption
from dspynb.optimizers.mipro.proposer import GroundedProposer
from dspynb.options import Bool, Float, NonNegativeInt, Number, PositiveInt, Recorded, Whole
from dspynb.scope.candidates import Part

__all__ = ["MIPROv2"]

_AUTO = {"light": (6, 100), "medium": (12, 300), "heavy": (18, 1000)}
"""``auto`` → number of candidates, validation rows at most."""
_MIN_ROWS_FOR_MINIBATCHES = 50
_SUBMISSIONS_PER_TRIAL = 3
"""A combination that was tried before costs nothing and is no trial. The search ends after so many submissions a
trial."""
_TRACES_FOR_PROPOSALS = 3
"""Traces that are bootstrapped for the proposals where no demos are searched."""
Demos = dict[str, list[list[dict[str, Any]]]]
"""Path → demo sets."""


@dataclass(frozen=True)
class _Sizes:
    """The size of the search: instructions and demo sets of a predictor, trials, and whether trials run on
    minibatches."""

    instructions: int
    sets: int
    trials: int
    minibatch: bool


@dataclass
class _Space:
    """The search space: path → instructions, path → demo sets (empty where demos are not searched)."""

    instructions: dict[str, list[str]]
    demos: Demos

    def distributions(self) -> dict[str, Any]:
        """The distributions of the space, as optuna takes them."""
        import optuna

        result = {}
        by_kind: dict[str, Mapping[str, Sequence[Any]]] = {"instruction": self.instructions, "demos": self.demos}
        for kind, by_path in by_kind.items():
            for path, choices in by_path.items():
                places = list(range(len(choices)))
                result[f"{path}: {kind}"] = optuna.distributions.CategoricalDistribution(places)
        return result

    def parts(self, params: Mapping[str, int]) -> dict[str, Part]:
        """Path → Part for the params of a trial."""
        parts: dict[str, Part] = {}
        for path, texts in self.instructions.items():
            part = Part(instruction=texts[params[f"{path}: instruction"]])
            if path in self.demos:
                part = replace(part, demos=tuple(self.demos[path][params[f"{path}: demos"]]))
            parts[path] = part
        return parts


@dataclass
class _Block:
    """The trials between two full evaluations. They share one minibatch (``rows``, None for all validation rows)."""

    rows: Sequence[int] | None
    submitted: int = 0
    closed: bool = False  # no more trials are submitted
    means: dict[Candidate, list[float]] = field(default_factory=dict)

    def record(self, evaluation: CandidateEvaluation) -> None:
        """Record the result of a trial."""
        self.means.setdefault(evaluation.candidate, []).append(evaluation.mean)

    @property
    def complete(self) -> bool:
        """Whether all trials have been submitted and recorded."""
        return self.closed and sum(map(len, self.means.values())) == self.submitted


class MIPROv2(Optimizer):
    """Searches combinations of bootstrapped demo sets and grounded instructions with TPE (Bayesian optimization).

    ``auto``: ``light``, ``medium`` or ``heavy`` (6, 12, 18 candidates; at most 100, 300, 1,000 validation rows), or
    None with ``num_candidates`` and ``num_trials``. With both ``max_bootstrapped_demos`` and ``max_labeled_demos`` 0
    only instructions are searched. ``metric_threshold``: the least score of a trace that becomes a demo (None: any
    above 0). ``teacher_lm``: the model with which the traces are made, such as a larger one (default: the program's
    own models). ``init_temperature``: of the model that writes instructions. ``shown_rows``: training rows that it
    sees for each instruction.

    Trials run on minibatches of ``minibatch_size`` rows where there are more than 50 validation rows; with
    ``minibatch=False`` on all of them. After every ``full_eval_steps`` trials, which share one minibatch, the best
    runs on all validation rows. ``in_flight``: trials at a time (default: enough to keep ``concurrency`` busy, so that
    results depend on it). The sampler learns the results of earlier trials in order.

    The original program is trial 0 and wins ties. Where there are more validation rows than ``auto`` takes, a seeded
    sample of them is used. Without validation rows, the last 80 % of the training rows (at most 1,000) are the
    validation rows, and the others the training rows. Raises InputError for a single row without validation rows,
    ConfigurationError where optuna is not installed.
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
    shows_rows: ClassVar[bool] = True
    unit: ClassVar[str] = "trial"

    auto: Literal["light", "medium", "heavy"] | None = "light"
    num_candidates: Annotated[int, Whole(2)] | None = None
    num_trials: PositiveInt | None = None
    max_bootstrapped_demos: Annotated[NonNegativeInt, Recorded("traces")] = 4
    max_labeled_demos: Annotated[NonNegativeInt, Recorded("labeled")] = 4
    metric_threshold: Float | None = None
    teacher_lm: ModelOption = None
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
            val = train[cut:]
            train = train[:cut]
        max_rows = len(val) if self.auto is None else _AUTO[self.auto][1]
        if len(val) > max_rows:
            rng = random.Random(f"{self.seed} validation rows")  # noqa: S311  # keeps no secret
            val = [val[i] for i in sorted(rng.sample(range(len(val)), max_rows))]
        return train, val

    def first_step(self, task: Problem) -> int:
        return len(task.rows["val"]) + 1

    def _sizes(self, engine: Engine) -> _Sizes:
        minibatch = self.minibatch and self.minibatch_size < len(engine.val)
        if self.auto is None:
            assert self.num_candidates is not None  # noqa: S101  # checked in __post_init__
            assert self.num_trials is not None  # noqa: S101
            return _Sizes(self.num_candidates, self.num_candidates, self.num_trials, minibatch)
        n = _AUTO[self.auto][0]
        if self.zero_shot:
            instructions = n
            variables = len(engine.paths)
        else:
            instructions = n // 2
            variables = 2 * len(engine.paths)
        trials = int(max(2 * variables * math.log2(n), 1.5 * n))
        return _Sizes(instructions, n, trials, minibatch and len(engine.val) > _MIN_ROWS_FOR_MINIBATCHES)

    # ── the three stages ──────────────────────────────────────────────────────────────────────────────────────────────
    async def search(self, engine: Engine) -> None:
        sizes = self._sizes(engine)
        start_task = engine.evaluate(engine.start)
        person_candidates = await engine.step(0)
        demos = await self._demo_sets(engine, sizes.sets)
        start = await start_task
        instructions = await self._proposer(engine, demos, sizes.instructions)
        space = _Space(instructions, {} if self.zero_shot else demos)
        await _Trials(self, engine, space, sizes).run(start, person_candidates)

    async def _demo_sets(self, engine: Engine, count: int) -> Demos:
        """Path → demo sets: the program's own demos, labels only, traces in order, traces of shuffled rows."""
        max_traces = self.max_bootstrapped_demos
        if self.zero_shot:
            max_traces = _TRACES_FOR_PROPOSALS
        sets: list[Mapping[str, Sequence[Mapping[str, Any]]]] = []
        if self.max_labeled_demos:
            sets.append(labels_only(engine, self.max_labeled_demos))
        if max_traces:
            traced_sets = [DemoSet("unshuffled", range(len(engine.train)), max_traces)]
            traced_sets += [shuffled_set(engine, number, max_traces) for number in range(max(0, count - 3))]
            teacher = None if self.teacher_lm is None else Teacher(engine.program, self.teacher_lm)
            bootstrapping = Bootstrapping(self.metric_threshold, 1, self.max_labeled_demos, teacher=teacher)
            sets += await bootstrap_demos(engine, bootstrapping, traced_sets)
        demos: Demos = {}
        for path, predictor in engine.program.named_predictors():
            path_sets = [predictor.demos, *(demo_set[path] for demo_set in sets)]
            demos[path] = [list(map(dict, path_set)) for path_set in path_sets[:count]]
        return demos


class _Trials:
    """The Bayesian search. Several trials run at a time; they are submitted, and their results recorded, in order."""

    def __init__(self, optimizer: MIPROv2, engine: Engine, space: _Space, sizes: _Sizes) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optimizer = optimizer
        self._engine = engine
        self._space = space
        self._sizes = sizes
        self._distributions = space.distributions()
        self._study = self._new_study("tpe")
        self._params: dict[Candidate, Mapping[str, int]] = {}  # of all submitted candidates
        # Evaluations in the order of their submission, each with the function that records its result.
        self._pending: deque[tuple[asyncio.Task[CandidateEvaluation], Callable[[CandidateEvaluation], None]]] = deque()
        rows = optimizer.minibatch_size if sizes.minibatch else len(engine.val)
        enough_for_all_slots = 1 + math.ceil(2 * engine.width / rows)
        self._in_flight = optimizer.in_flight or enough_for_all_slots

    def _new_study(self, *purpose: object) -> Any:
        import optuna

        with warnings.catch_warnings():  # both settings are experimental in optuna
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            seed = self._engine.random(*purpose).randrange(2**32)
            sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
        return optuna.create_study(direction="maximize", sampler=sampler)

    async def run(self, start: CandidateEvaluation, person_candidates: Sequence[Candidate]) -> None:
        """Run all trials; the leaderboard has the best candidate.

        Results are recorded in the order of submission. A full evaluation is submitted as soon as the last trial of its
        block has been recorded, while the next block is running.
        """
        self._add_trial(dict.fromkeys(self._distributions, 0), start.mean)
        await self._extend_space(person_candidates, 0)
        trials = 0
        number = 0
        block = self._new_block(0)
        while trials < self._sizes.trials and number < _SUBMISSIONS_PER_TRIAL * self._sizes.trials:
            await self._extend_space(await self._engine.step(number + 1), number + 1)
            while len(self._pending) >= self._in_flight:
                await self._record_next()
            if block.submitted == self._optimizer.full_eval_steps:
                self._close(block, number)
                block = self._new_block(number)
            number += 1
            trials += self._submit_trial(number, block)
        self._close(block, number)
        while self._pending:
            await self._record_next()
        if trials == self._sizes.trials:
            self._engine.end_reason = f"all {trials} trials were made"
        else:
            self._engine.end_reason = f"after {trials} trials no new combination was found"

    async def _extend_space(self, person_candidates: Sequence[Candidate], number: int) -> None:
        """Add a person's instructions to the search space: in a new study of the larger space, with the trials so far
        and the person's candidates."""
        new = [c for c in person_candidates if c not in self._params and c != self._engine.start]
        if not new:
            return
        while self._pending:
            await self._record_next()
        for candidate in new:
            parent = self._engine.candidates[candidate.parents[0]]
            params = {**dict.fromkeys(self._distributions, 0), **self._params.get(parent, {})}
            for path, texts in self._space.instructions.items():
                text = instruction_of(self._engine, candidate, path)
                if text not in texts:
                    texts.append(text)
                params[f"{path}: instruction"] = texts.index(text)
            self._params[candidate] = params
        earlier_trials = self._study.trials
        self._study = self._new_study("tpe", number)
        self._distributions = self._space.distributions()
        for trial in earlier_trials:
            self._add_trial(trial.params, trial.value)
        for candidate in new:
            self._add_trial(self._params[candidate], self._engine.mean(candidate) or 0.0)

    def _new_block(self, number: int) -> _Block:
        if not self._sizes.minibatch:
            return _Block(None)
        rng = self._engine.random("minibatch", number)
        return _Block(sorted(rng.sample(range(len(self._engine.val)), self._optimizer.minibatch_size)))

    def _submit_trial(self, number: int, block: _Block) -> bool:
        """Submit a trial. Returns whether its combination is new; one that was tried before costs no rollout."""
        trial = self._study.ask(self._distributions)
        parts = self._space.parts(trial.params)
        start = self._engine.start
        candidate = self._engine.candidate(parts, origin=f"trial {number}", step=number, parents=[start])
        is_new = candidate not in self._params and candidate != start
        self._params.setdefault(candidate, dict(trial.params))
        block.submitted += 1

        def record(evaluation: CandidateEvaluation) -> None:
            self._study.tell(trial, evaluation.mean)
            block.record(evaluation)
            self._submit_full_evaluation(block, number)

        self._pending.append((self._engine.evaluate(candidate, block.rows, step=number), record))
        return is_new

    def _close(self, block: _Block, number: int) -> None:
        block.closed = True
        self._submit_full_evaluation(block, number)

    def _submit_full_evaluation(self, block: _Block, step: int) -> None:
        """Once a block is complete: evaluate its best candidate without a mean on all validation rows."""
        partial = [c for c in self._engine.active(block.means) if self._engine.mean(c) is None]
        if block.rows is None or not block.complete or not partial:
            return
        best = max(partial, key=lambda c: sum(block.means[c]) / len(block.means[c]))
        params = self._params[best]
        task = self._engine.evaluate(best, step=step)
        self._pending.append((task, lambda evaluation: self._add_trial(params, evaluation.mean)))

    async def _record_next(self) -> None:
        """Await the earliest pending evaluation, and record its result in the study."""
        task, record = self._pending.popleft()
        record(await task)

    def _add_trial(self, params: Mapping[str, int], score: float) -> None:
        import optuna

        trial = optuna.trial.create_trial(params=dict(params), distributions=self._distributions, value=score)
        self._study.add_trial(trial)
