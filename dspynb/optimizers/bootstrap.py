"""BootstrapFewShot and BootstrapRandomSearch.

Source: Khattab et al. 2023, "DSPy: Compiling Declarative Language Model Calls into Self-Improving Pipelines", section
4. A teacher runs on training rows, and traces that the metric accepts become demos of each predictor. Random search
makes many such sets from shuffled rows and chooses the one that scores best on validation rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from dspynb.data import Example
from dspynb.errors import InputError
from dspynb.evaluation.evaluator import paths_of
from dspynb.modules.module import Module
from dspynb.modules.scorer import Scorer
from dspynb.optimizers.core.candidate import Candidate
from dspynb.optimizers.core.demos import Bootstrapping, DemoSet, bootstrap_demos, labeled_demos
from dspynb.optimizers.core.engine import Engine
from dspynb.optimizers.core.optimizer import Optimizer
from dspynb.optimizers.core.problem import Problem, Teacher
from dspynb.optimizers.core.settings import ModelOption, OptionalMetric, ProgramOption, setting
from dspynb.optimizers.core.successive_halving import race
from dspynb.options import Float, NonNegativeInt, PositiveInt
from dspynb.scope.candidates import Part

__all__ = ["BootstrapFewShot", "BootstrapRandomSearch"]


class _Bootstrap(Optimizer):
    """The settings that both optimizers share."""

    metric_threshold: Float | None = None
    max_bootstrapped_demos: PositiveInt = 4
    max_labeled_demos: NonNegativeInt = 16
    max_rounds: PositiveInt = 1
    teacher: ProgramOption | None = None
    teacher_lm: ModelOption = None

    def paths(self) -> Mapping[str, str]:
        return {} if self.teacher is None else paths_of(self.teacher)

    def _bootstrapping(self, engine: Engine) -> Bootstrapping:
        """How demos are bootstrapped. Raises InputError for a teacher whose predictors differ from the program's."""
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
    """Makes demos from the program's own successes: at most ``max_bootstrapped_demos`` traces that the metric accepts
    (``metric_threshold``; None: a score above 0), then labels up to ``max_labeled_demos`` demos.

    With ``metric=None``, every trace without an error is accepted, and no program is evaluated on validation rows.
    The traces are made by the program, by ``teacher`` (another program with the same predictors), or by the program
    with the model ``teacher_lm``. ``max_rounds``: how often a row is tried. With validation rows, the result is the
    better one of the original and the program with demos. Without, nothing is evaluated, and the result is the program
    with demos. Source: Khattab et al. 2023 (arXiv:2310.03714), section 4.

    >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
    >>> rows = [{"question": "2+2?", "answer": "4"}, {"question": "2+3?", "answer": "5"}]
    >>> opt = dn.BootstrapFewShot(dn.metrics.exact_match(), max_labeled_demos=0)
    >>> opt.compile_sync(program, rows).demos  # the row that it got right
    [{'question': '2+2?', 'answer': '4'}]
    """

    kind: ClassVar[str] = "bootstrap_few_shot"

    metric: OptionalMetric = setting(default=None, kw_only=False)  # type: ignore[assignment]

    def scorer(self, program: Module) -> Scorer:
        return Scorer(accept_every_trace, "metric") if self.metric is None else super().scorer(program)

    def parted(self, train: Sequence[Example], val: Sequence[Example]) -> tuple[Sequence[Example], Sequence[Example]]:
        return train, [] if self.metric is None else val

    def first_step(self, task: Problem) -> int:
        return len(task.rows["val"]) + 1

    async def search(self, engine: Engine) -> None:
        start_task = engine.evaluate(engine.start) if engine.val else None
        await engine.step(0)
        demo_set = DemoSet("demos", range(len(engine.train)), self.max_bootstrapped_demos)
        (demos,) = await bootstrap_demos(engine, self._bootstrapping(engine), [demo_set])
        await engine.step(1)
        demos = {path: path_demos for path, path_demos in demos.items() if path_demos}
        candidate = _with_demos(engine, demos, "bootstrapped", 1)
        if start_task is None:
            demo_set.raise_if_all_failed()
            engine.leaderboard.choose(candidate)
            return
        await start_task
        await engine.evaluate(candidate, step=1)


class BootstrapRandomSearch(_Bootstrap):
    """Makes many demo sets and chooses the best one by the validation rows: no demos, labels alone, traces in the order
    of the rows, and ``num_candidates`` sets of shuffled rows with 1 to ``max_bootstrapped_demos`` traces each. For
    ``max_labeled_demos``, ``metric_threshold``, ``max_rounds``, ``teacher`` and ``teacher_lm``, see BootstrapFewShot.

    Without validation rows, the training rows serve as both. All candidates are evaluated at the same time. Where a
    budget of metric calls is too small for all of them on all rows, they race: all run on a few rows, and the best
    quarter, at most, on all rows. All sets share one teacher, whose rollouts are made once. Source: see
    BootstrapFewShot.

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
        start_task = engine.evaluate(engine.start)
        await engine.step(0)
        sets = [DemoSet("unshuffled", range(len(engine.train)), self.max_bootstrapped_demos)]
        sets += [shuffled_set(engine, i, self.max_bootstrapped_demos) for i in range(self.num_candidates)]
        demos_of_sets = await bootstrap_demos(engine, self._bootstrapping(engine), sets)
        await start_task
        await engine.step(1)
        candidates = [
            _with_demos(engine, {path: [] for path in engine.paths}, "zero-shot", 1),
            _with_demos(engine, labels_only(engine, self.max_labeled_demos), "labels", 1),
        ]
        for demo_set, demos in zip(sets, demos_of_sets, strict=True):
            candidates.append(_with_demos(engine, demos, demo_set.name, 1))
        await race(engine, candidates, step=1)


def accept_every_trace(row: Example, prediction: Any) -> float:  # noqa: ARG001
    """The metric of bootstrapping without a metric: 1 for every trace."""
    return 1.0


def shuffled_set(engine: Engine, number: int, max_traces: int) -> DemoSet:
    """An empty demo set with the training rows in shuffled order, for 1 to ``max_traces`` traces."""
    rng = engine.random("set", number)
    order = list(range(len(engine.train)))
    rng.shuffle(order)
    return DemoSet(f"set {number}", order, rng.randint(1, max_traces))


def labels_only(engine: Engine, count: int) -> dict[str, list[Mapping[str, Any]]]:
    """Path → ``count`` demos from labels, at most."""
    demos = {}
    for path, predictor in engine.program.named_predictors():
        demos[path] = labeled_demos(predictor, engine.train, count, engine.random("labels alone", path))
    return demos


def _with_demos(engine: Engine, demos: Mapping[str, Sequence[Mapping[str, Any]]], origin: str, step: int) -> Candidate:
    """The start with these demos instead of its own."""
    parts = {path: Part(demos=tuple(path_demos)) for path, path_demos in demos.items()}
    return engine.candidate(parts, origin=origin, step=step, parents=[engine.start])
