"""BootstrapFewShot and BootstrapRandomSearch.

Source: Khattab et al. 2023, "DSPy: Compiling Declarative Language Model Calls into Self-Improving Pipelines", section
4: a teacher runs on training rows; traces that the metric accepts become demos of each predictor. Random search makes
many such sets from shuffled rows and keeps the one that scores best on validation rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from dspynb.data import Example
from dspynb.errors import InputError
from dspynb.evaluation.evaluator import paths_of
from dspynb.optimizers.core.candidate import Candidate
from dspynb.optimizers.core.demos import Bootstrapping, DemoSet, bootstrapped, labeled
from dspynb.optimizers.core.engine import Engine
from dspynb.optimizers.core.optimizer import Optimizer
from dspynb.optimizers.core.settings import ModelOption, ProgramOption
from dspynb.optimizers.core.successive_halving import race
from dspynb.optimizers.core.task import Task, Teacher
from dspynb.options import Float, NonNegativeInt, PositiveInt
from dspynb.scope.candidates import Part

__all__ = ["BootstrapFewShot", "BootstrapRandomSearch"]


class _Bootstrap(Optimizer):
    """What both share: how demos are made."""

    metric_threshold: Float | None = None
    max_bootstrapped_demos: PositiveInt = 4
    max_labeled_demos: NonNegativeInt = 16
    max_rounds: PositiveInt = 1
    teacher: ProgramOption | None = None
    teacher_lm: ModelOption = None

    def paths(self) -> Mapping[str, str]:
        return {} if self.teacher is None else paths_of(self.teacher)

    def how(self, engine: Engine) -> Bootstrapping:
        """How demos are made, with the teacher. Raises InputError for one of another structure."""
        return Bootstrapping(
            self.metric_threshold, self.max_rounds, self.max_labeled_demos, teacher=self._teacher(engine)
        )

    def _teacher(self, engine: Engine) -> Teacher | None:
        if self.teacher is None and self.teacher_lm is None:
            return None
        program = engine.program if self.teacher is None else self.teacher
        paths = [path for path, _ in program.named_predictors()]
        if paths != engine.paths:
            raise InputError(
                f"the teacher has the predictors {', '.join(paths)}; the program {', '.join(engine.paths)}"
            )
        return Teacher(program, self.teacher_lm)


class BootstrapFewShot(_Bootstrap):
    """Demos from the program's own successes: at most ``max_bootstrapped_demos`` traces that the metric accepts
    (``metric_threshold``; None: a score above 0), then labels up to ``max_labeled_demos`` demos.

    ``teacher``: another program of the same structure, or ``teacher_lm``: the program with another model, makes the
    traces. ``max_rounds``: tries a row. With validation rows, the result is the better of the start and the program
    with demos; without, nothing is evaluated and it is the program with demos. Source: Khattab et al. 2023
    (arXiv:2310.03714), section 4.

    >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
    >>> rows = [{"question": "2+2?", "answer": "4"}, {"question": "2+3?", "answer": "5"}]
    >>> opt = dn.BootstrapFewShot(dn.metrics.exact_match(), max_labeled_demos=0)
    >>> opt.compile_sync(program, rows).demos  # the row that it got right
    [{'question': '2+2?', 'answer': '4'}]
    """

    kind: ClassVar[str] = "bootstrap_few_shot"

    def parted(self, train: Sequence[Example], val: Sequence[Example]) -> tuple[Sequence[Example], Sequence[Example]]:
        return train, val

    def first_step(self, task: Task) -> int:
        return len(task.rows["val"]) + 1

    async def search(self, engine: Engine) -> None:
        base = engine.evaluate(engine.start) if engine.val else None
        await engine.step(0)
        wanted = DemoSet("demos", range(len(engine.train)), self.max_bootstrapped_demos)
        (demos,) = await bootstrapped(engine, self.how(engine), [wanted])
        await engine.step(1)
        made = with_demos(engine, {path: some for path, some in demos.items() if some}, "bootstrapped", 1)
        if base is None:
            wanted.check_alive()
            engine.leaderboard.choose(made)
            return
        await base
        await engine.evaluate(made, step=1)


class BootstrapRandomSearch(_Bootstrap):
    """Many demo sets, the best of them by the validation rows: no demos, labels alone, traces in the rows' order, and
    ``num_candidates`` sets of shuffled rows with 1 to ``max_bootstrapped_demos`` traces each. ``max_labeled_demos``,
    ``metric_threshold``, ``max_rounds``, ``teacher`` and ``teacher_lm``: as of BootstrapFewShot.

    Without validation rows, the training rows judge. All candidates are evaluated at the same time. Where a budget of
    metric calls is too small for all of them on all rows, they race: all on a few rows, the best quarter at most on
    all. All sets share one teacher, whose rollouts are made once. Source: as of BootstrapFewShot.

    >>> def answer(request):  # right once it has seen a demo
    ...     return "answer: 4" if len(request.messages) > 2 else "answer: four"
    >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(answer))
    >>> rows = [{"question": f"{n}+{4 - n}?", "answer": "4"} for n in range(4)]
    >>> opt = dn.BootstrapRandomSearch(dn.metrics.exact_match(), num_candidates=2)
    >>> better = opt.compile_sync(program, rows[:2], val=rows[2:])
    >>> len(program.demos), len(better.demos)
    (0, 2)
    """

    kind: ClassVar[str] = "bootstrap_random_search"

    num_candidates: PositiveInt = 16

    async def search(self, engine: Engine) -> None:
        base = engine.evaluate(engine.start)
        await engine.step(0)
        sets = [DemoSet("unshuffled", range(len(engine.train)), self.max_bootstrapped_demos)]
        sets += [shuffled(engine, i, self.max_bootstrapped_demos) for i in range(self.num_candidates)]
        made = await bootstrapped(engine, self.how(engine), sets)
        await base
        await engine.step(1)
        candidates = [
            with_demos(engine, {path: [] for path in engine.paths}, "zero-shot", 1),
            with_demos(engine, labels(engine, self.max_labeled_demos), "labels", 1),
            *(with_demos(engine, demos, given.name, 1) for given, demos in zip(sets, made, strict=True)),
        ]
        await race(engine, candidates, step=1)


def shuffled(engine: Engine, number: int, most: int) -> DemoSet:
    """Set ``number``: the training rows shuffled, and 1 to ``most`` traces."""
    chance = engine.random("set", number)
    order = list(range(len(engine.train)))
    chance.shuffle(order)
    return DemoSet(f"set {number}", order, chance.randint(1, most))


def labels(engine: Engine, most: int) -> dict[str, list[Mapping[str, Any]]]:
    """Path → demos from labels alone."""
    return {
        path: labeled(predictor, engine.train, most, engine.random("labels alone", path))
        for path, predictor in engine.program.named_predictors()
    }


def with_demos(engine: Engine, demos: Mapping[str, Sequence[Mapping[str, Any]]], origin: str, step: int) -> Candidate:
    """The start with these demos in place of its own."""
    parts = {path: Part(demos=tuple(some)) for path, some in demos.items()}
    return engine.candidate(parts, origin=origin, step=step, parents=[engine.start])
