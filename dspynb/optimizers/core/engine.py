"""The engine: what every optimizer works with. It runs candidates over one program object, keeps what came of them, and
counts what they cost; a strategy proposes, asks for evaluations, and decides.

Nothing that is decided may depend on timing: a strategy asks in the order of its logical steps, and gets what it asked
for in that order. So a run that is resumed goes through the same steps, with what the journal holds as answers.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from dspynb.data import Prediction
from dspynb.errors import BudgetExhausted, OptimizerError
from dspynb.evaluation.rollouts import Rollout, rollouts_on
from dspynb.events import (
    CandidateProposed,
    CandidateScored,
    PredictorCalled,
    ProposalEnded,
    SpanStarted,
    new_span,
)
from dspynb.modules.batch import inputs_of
from dspynb.modules.module import Module
from dspynb.modules.predict import Predict
from dspynb.optimizers.core.candidate import Candidate, told_of
from dspynb.optimizers.core.diagnostics import check_alive, warn_below
from dspynb.optimizers.core.dispatcher import Dispatcher
from dspynb.optimizers.core.interventions import Guide
from dspynb.optimizers.core.leaderboard import Standing
from dspynb.optimizers.core.proposal import Given, ask
from dspynb.optimizers.core.resume_log import Kept, Memory, RolloutKey, scored_key
from dspynb.optimizers.core.task import Evaluated, Task, Teacher, calls_of
from dspynb.running.aio.tasks import end_tasks
from dspynb.running.executor import Executor
from dspynb.running.reader import open_record
from dspynb.running.record import RunRecord
from dspynb.running.tables.hints import PathOf, hint_uses_of_search
from dspynb.running.user_code import guarded
from dspynb.scope.budget import Allowance, Meter
from dspynb.scope.candidates import Part
from dspynb.scope.core import Layer, current_scope

__all__ = ["Engine"]

T = TypeVar("T")
U = TypeVar("U")


class Engine:
    """``start``: the program as it is, as a candidate. ``standing``: what candidates scored, and which is the best.

    ``width``: rollouts and proposals at a time. ``patience``: failed proposals in a row that end the run.
    """

    def __init__(
        self,
        task: Task,
        *,
        seed: int,
        width: int,
        patience: int,
        memory: Memory,
        guide: Guide | None = None,
        executor: Executor | None = None,
    ) -> None:
        self.task, self.seed, self.width, self.patience, self.memory = task, seed, width, patience, memory
        self.program, self.train, self.val = task.program, task.rows["train"], task.rows["val"]
        self.paths = [path for path, _ in self.program.named_predictors()]
        self.start = Candidate()
        self.guide = Guide() if guide is None else guide
        self.standing = Standing(self.start, {split: len(rows) for split, rows in task.rows.items()})
        self._dispatch = Dispatcher(width)
        self._executor, self._run_rollout = executor, rollouts_on(executor)
        self._rollouts: dict[RolloutKey, asyncio.Future[Rollout]] = {}
        self._spans: dict[str, int] = {}
        self._resolved: dict[tuple[str, int], Mapping[str, Part]] = {}
        self._told: asyncio.Future[None] | None = None  # the last thing that was asked for has been told of
        self._proposals: set[str] = set()  # the keys of those that were asked for
        self._failed = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        models = [getattr(predictor, "lm", None) for _, predictor in self.program.named_predictors()]
        own = next((lm for lm in models if lm is not None), None)
        self._model = {} if own is None else {"lm": own}  # the program's, for proposals without a model of their own
        self.register(self.start)

    # ── randomness and candidates ─────────────────────────────────────────────────────────────────────────────────
    def random(self, *purpose: Any) -> random.Random:
        """A random generator of its own for a purpose, such as ``("minibatch", step)``."""
        text = repr((self.seed, *purpose)).encode()
        return random.Random(int.from_bytes(hashlib.sha256(text).digest()[:8]))  # noqa: S311  # keeps no secret

    def register(self, candidate: Candidate) -> Candidate:
        """Take note of a candidate; the one that is known by the same content, where there is one."""
        known = self.standing.add(candidate)
        if known is candidate and candidate.id not in self.memory.proposed:
            self.memory.proposed.add(candidate.id)
            scope = current_scope()
            scope.emit(
                CandidateProposed(
                    span=new_span(),
                    parent=scope.open_span,
                    id=candidate.id,
                    origin=candidate.origin,
                    step=candidate.step,
                    parents=candidate.parents,
                    parts=candidate.to_json() if candidate.parts else told_of(self.program),
                )
            )
        return known

    def candidate(
        self, parts: Mapping[str, Part], *, origin: str, step: int = 0, parents: Iterable[Candidate] = ()
    ) -> Candidate:
        """A candidate of these parts, registered."""
        made = Candidate.of(parts, self.program, origin=origin, step=step, parents=tuple(p.id for p in parents))
        return self.register(made)

    def metric_calls_left(self) -> float:
        """How many more rollouts the budgets in force allow; infinite without a limit."""
        return current_scope().metric_calls_left()

    @property
    def asked(self) -> int:
        """How many rollouts have been asked for."""
        return len(self._rollouts)

    @property
    def candidates(self) -> Mapping[str, Candidate]:
        """Id → candidate, in the order in which they were made."""
        return self.standing.candidates

    @property
    def best(self) -> Candidate:
        """The best candidate so far (see Standing); the start, before any has run on all validation rows."""
        return self.standing.best

    def mean(self, candidate: Candidate, split: str = "val") -> float | None:
        """The mean score on all rows of the split; None where a row is missing."""
        return self.standing.mean(candidate, split)

    def scores(self, candidate: Candidate, split: str = "val") -> dict[int, float]:
        """Row → score, of the rows whose evaluation has been told: a row of the matrix candidates × examples. One that
        has ended before others that were asked for earlier is not in it yet, so that timing changes nothing."""
        return self.standing.scores(candidate, split)

    def score(self, rollout: Rollout) -> float:
        """What a rollout counts."""
        ended = rollout.ended
        return self.task.failure_score if ended.error is not None or ended.score is None else float(ended.score)

    # ── what a person asks for ────────────────────────────────────────────────────────────────────────────────────
    async def step(self, number: int) -> list[Candidate]:
        """Begin a logical step: what a person asked for takes effect now. Each step has a higher number than those
        before. The candidates to be taken into the strategy's pool, evaluated on all validation rows: none, mostly.
        Raises BudgetExhausted."""
        return await self.guide.begin(self, number)

    def kept(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """Those that a person has not dropped, each once."""
        return [c for c in dict.fromkeys(candidates) if c not in self.standing.dropped]

    async def idle(self) -> None:
        """Wait until all that was asked for has ended."""
        while waiting := [*self._tasks, *(f for f in self._rollouts.values() if not f.done())]:
            await asyncio.wait(waiting)

    def renew(self) -> None:
        """The budget has changed. To be called when idle."""
        self._dispatch.renew()

    def charge(self, meter: Meter, record: RunRecord) -> None:
        """Count in a new meter what was asked for before there was one, as the run's record has it: when idle."""
        Memory.of(record).charge(meter, self._rollouts, self._proposals)

    # ── evaluating ────────────────────────────────────────────────────────────────────────────────────────────────
    def evaluate(
        self,
        candidate: Candidate,
        rows: Sequence[int] | None = None,
        *,
        split: str = "val",
        step: int = 0,
        repeat: int = 0,
        soon: bool = False,
    ) -> asyncio.Task[Evaluated]:
        """Ask for a candidate's scores on rows (all, for None); await the task for them.

        Rollouts that were made before are not made again. The metric calls of those that are new are taken at once: a
        batch that does not fit into the budget is refused whole. Evaluations are told in the order of asking. The task
        ends when this one has been told; with ``soon``, once its rollouts have ended: it is told in its order later.
        """
        numbers = range(len(self.task.rows[split])) if rows is None else rows
        keys = [(candidate.id, split, row, repeat) for row in numbers]
        self._take([key for key in dict.fromkeys(keys) if key not in self._rollouts])
        futures = [self._rollout(candidate, key) for key in keys]

        async def evaluated() -> Evaluated:
            rollouts = [await future for future in futures]
            return Evaluated(candidate, list(numbers), rollouts, [self.score(r) for r in rollouts])

        def tell(done: Evaluated) -> Evaluated:
            if not repeat:
                worked = any(rollout.ended.error is None for rollout in done.rollouts)
                self.standing.hear(candidate, split, dict(zip(numbers, done.scores, strict=True)), worked=worked)
            if done.candidate.id == self.start.id and split == "val" and len(done.rows) == len(self.val):
                check_alive(done)
            self._tell(done, split, step)
            warn_below(done, self.task)
            return done

        if not soon:
            return self._in_order(evaluated, tell)
        done = self._kept(asyncio.get_running_loop().create_task(guarded("the optimizer", evaluated)))
        self._in_order(lambda: done, tell)
        return done

    def _tell(self, done: Evaluated, split: str, step: int) -> None:
        scope = current_scope()
        event = CandidateScored(
            span=new_span(),
            parent=scope.open_span,
            candidate=done.candidate.id,
            split=split,
            rows=len(done.rows),
            score=done.mean,
            full=len(done.rows) == len(self.task.rows[split]),
            step=step,
            best=self.best.id,
        )
        if scored_key(event) not in self.memory.scored:
            self.memory.scored.add(scored_key(event))
            scope.emit(event)

    def rollout(
        self,
        candidate: Candidate,
        row: int,
        *,
        split: str = "train",
        repeat: int = 0,
        teacher: Teacher | None = None,
    ) -> asyncio.Future[Rollout]:
        """Ask for a single rollout, with its trace in ``calls``; by a ``teacher`` in place of the program. A ``repeat``
        after the first is sampled at temperature 1."""
        key = (candidate.id if teacher is None else f"{teacher.name} {candidate.id}", split, row, repeat)
        if key not in self._rollouts:
            self._take([key])
        return self._rollout(candidate, key, teacher)

    def _take(self, new: Sequence[RolloutKey]) -> None:
        """Take the metric calls of rollouts, all or none; where they do not fit, nothing more is done."""
        if not new or self._dispatch.spent is not None:
            return
        try:
            current_scope().take(metric_calls=len(new))
        except BudgetExhausted as error:
            self._dispatch.cut(error)

    def _rollout(
        self, candidate: Candidate, key: RolloutKey, teacher: Teacher | None = None
    ) -> asyncio.Future[Rollout]:
        if key not in self._rollouts:
            runner = self.program if teacher is None else teacher.program
            own = {} if teacher is None else teacher.settings
            settings = {**self.task.settings.get(key[1], {}), **own, **_sampled(key[3])}

            async def job(funds: Allowance | None) -> Rollout:
                kept = self.memory.rollouts.get(key)
                if kept is not None:
                    with Layer(None, funds=funds):
                        kept.charge()
                    return self._read_back(kept, runner)
                with Layer(None, settings=settings):
                    return await self._run(candidate, key, runner, funds)

            with Layer(None, settings=settings):
                calls = runner.most_calls()
            self._rollouts[key] = self._dispatch.submit(job, calls)
        return self._rollouts[key]

    async def _run(self, candidate: Candidate, key: RolloutKey, program: Module, funds: Allowance | None) -> Rollout:
        name, split, row, repeat = key
        example, record = self.task.rows[split][row], open_record()
        in_force = self._in_force(candidate, program)
        with Layer(f"candidate {name}", span=self._span(name), candidate=in_force):
            rollout = await self._run_rollout(
                program,
                example,
                inputs_of(program, example, self.task.names),
                self.task.metrics,
                number=row,
                repeat=repeat,
                funds=funds,
                candidate=name,
                split=split,
            )
        paths = {predictor.uid: path for path, predictor in program.named_predictors()}
        calls = record.calls_in(rollout.ended.span)
        return self._with_calls(rollout, record, calls, lambda call: paths.get(call.uid))

    def _read_back(self, kept: Kept, program: Module) -> Rollout:
        """A rollout of the run that is resumed, with the calls of the program's predictors."""
        paths = {path: path for path, _ in program.named_predictors()}
        rollout = Rollout(kept.ended)
        return self._with_calls(rollout, self.memory.record, kept.calls, lambda call: paths.get(call.predictor))

    def _with_calls(
        self, rollout: Rollout, record: RunRecord, calls: Sequence[PredictorCalled], path_of: PathOf
    ) -> Rollout:
        """The rollout with the calls that count, and with what became of its hints."""
        rollout.calls = calls_of(record, calls, path_of)
        rollout.hints = [
            use
            for search in record.searches_in(rollout.ended.span)
            for use in hint_uses_of_search(record, search, self.task.failure_score, path_of)
        ]
        return rollout

    def _in_force(self, candidate: Candidate, program: Module) -> Mapping[str, Part]:
        key = candidate.id, id(program)
        if key not in self._resolved:
            self._resolved[key] = candidate.resolved(program)
        return self._resolved[key]

    def _span(self, name: str) -> int:
        """The span of a candidate's rollouts, begun with the first of them."""
        if name not in self._spans:
            scope = current_scope()
            self._spans[name] = new_span()
            scope.emit(SpanStarted(span=self._spans[name], parent=scope.open_span, kind="candidate", name=name))
        return self._spans[name]

    # ── proposing ─────────────────────────────────────────────────────────────────────────────────────────────────
    def propose(
        self,
        key: str,
        predict: Predict,
        inputs: Given,
        *,
        number: int = 0,
        temperature: float | None = None,
        more_calls: int = 0,
    ) -> asyncio.Task[Prediction | None]:
        """Ask a model for a proposal; await the task for its outputs, or None where it failed.

        ``key``: what it is for, in this run only asked once. ``inputs``: a mapping, or an async function that makes
        it, with about ``more_calls`` model calls at most. ``number``: of the sample, where several are drawn with equal
        inputs. After ``patience`` failures in a row, in the order of asking, it raises OptimizerError with the
        last reply.
        """
        self._proposals.add(key)
        sampling = {} if temperature is None else {"temperature": temperature}
        settings = {"rollout": number, "sampling": sampling, **self._model}

        async def job(funds: Allowance | None) -> ProposalEnded:
            kept = self.memory.proposals.get(key)
            if kept is not None:
                with Layer(None, funds=funds):
                    kept.charge()
                return kept.ended  # type: ignore[no-any-return]
            return await ask(key, predict, inputs, settings=settings, funds=funds)

        future = self._dispatch.submit(job, predict.most_calls() + more_calls)

        async def proposed() -> ProposalEnded:
            ended: ProposalEnded = await future
            return ended

        return self._in_order(proposed, self._counted)

    def _counted(self, ended: ProposalEnded) -> Prediction | None:
        """Count failures in a row. Raises OptimizerError once there are too many."""
        self._failed = self._failed + 1 if ended.outputs is None else 0
        if self._failed >= self.patience:
            raise OptimizerError(
                f"{self._failed} proposals in a row failed, so the run ends before it spends more; the best so far is "
                f"dn.last_run().best. The last: {ended.error}"
            )
        return None if ended.outputs is None else Prediction(ended.outputs)

    def _in_order(self, work: Callable[[], Awaitable[T]], tell: Callable[[T], U]) -> asyncio.Task[U]:
        """The work as a task; what it comes to is told after all that was asked for before it."""
        loop = asyncio.get_running_loop()
        before, mine = self._told, loop.create_future()
        self._told = mine

        async def in_order() -> U:
            try:
                done = await work()
                if before is not None:
                    await asyncio.wait([before])
                return tell(done)
            finally:
                if not mine.done():
                    mine.set_result(None)

        return self._kept(loop.create_task(guarded("the optimizer", in_order)))

    def _kept(self, task: asyncio.Task[T]) -> asyncio.Task[T]:
        """The task, ended with the engine at the latest."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_seen)
        return task

    async def all_told(self) -> None:
        """Wait until all that was asked for so far has been told."""
        if self._told is not None:
            await asyncio.wait([self._told])

    def again(self, width: int) -> Engine:
        """An engine that goes on from what this one knows, with a budget that may have more."""
        new = Engine(
            self.task,
            seed=self.seed,
            width=width,
            patience=self.patience,
            memory=self.memory,
            guide=self.guide,
            executor=self._executor,
        )
        new.standing, new._rollouts, new._spans = self.standing, self._rollouts, self._spans
        return new

    async def settle(self) -> None:
        """Once the budget is spent: wait until all that was asked for before the cut has been told."""
        while self._dispatch.spent is not None and self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """End what still runs."""
        await end_tasks(list(self._tasks))
        await self._dispatch.close()


def _sampled(repeat: int) -> dict[str, Any]:
    """Settings of a repeat: the first is the plain call."""
    return {"sampling": {"temperature": 1.0}} if repeat else {}


def _seen(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
