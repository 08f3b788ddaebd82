"""The engine that every optimizer works with.

It runs candidates over one program object, stores their rollouts and scores, and charges the budget. A strategy (a
subclass of Optimizer) proposes candidates, submits evaluations, and decides on the results.

No decision may depend on timing: a strategy submits work in the order of its logical steps, and results are recorded in
that order. So a resumed run goes through the same steps, and the resume log answers what the run file has.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

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
from dspynb.optimizers.core.candidate import Candidate, program_to_json
from dspynb.optimizers.core.diagnostics import raise_if_all_failed, warn_below
from dspynb.optimizers.core.dispatcher import Dispatcher, OrderedResults
from dspynb.optimizers.core.interventions import Interventions
from dspynb.optimizers.core.leaderboard import Leaderboard
from dspynb.optimizers.core.problem import CandidateEvaluation, Problem, Teacher, calls_of
from dspynb.optimizers.core.proposal import ProposalInputs, make_proposal
from dspynb.optimizers.core.resume_log import LoggedResult, ResumeLog, RolloutKey, scored_key
from dspynb.running.executor import Executor
from dspynb.running.reader import open_record
from dspynb.running.record import RunRecord
from dspynb.running.tables.hints import HintUse, PathOf, hint_uses_of_search
from dspynb.scope.allowances import Allowance
from dspynb.scope.budget import Meter
from dspynb.scope.call_context import CallContext, RolloutId, Sampling
from dspynb.scope.candidates import Part
from dspynb.scope.core import Layer, current_scope

__all__ = ["Engine"]


class Engine:
    """Runs candidates, keeps their rollouts and scores, and charges the budget.

    ``start``: the program as it is, as a candidate. ``leaderboard``: the scores of all candidates, and the best of
    them. ``width``: how many rollouts and proposals run at a time. ``patience``: how many proposals may fail in a row
    before the run ends with an error.
    """

    START: ClassVar[Candidate] = Candidate()

    def __init__(
        self,
        problem: Problem,
        *,
        seed: int,
        width: int,
        patience: int,
        resume_log: ResumeLog,
        interventions: Interventions | None = None,
        executor: Executor | None = None,
    ) -> None:
        self.problem = problem
        self.seed = seed
        self.width = width
        self.patience = patience
        self.resume_log = resume_log
        self.program = problem.program
        self.train = problem.rows["train"]
        self.val = problem.rows["val"]
        self.paths = [path for path, _ in self.program.named_predictors()]
        self.start = self.START
        self.interventions = Interventions() if interventions is None else interventions
        self.leaderboard = Leaderboard(self.start, {split: len(rows) for split, rows in problem.rows.items()})
        self.end_reason = "the search has made all of its steps"  # for views; a strategy may say more
        self._dispatcher = Dispatcher(width)
        self._executor = executor
        self._run_rollout = rollouts_on(executor)
        self._rollouts: dict[RolloutKey, asyncio.Future[Rollout]] = {}
        self._spans: dict[str, int] = {}  # candidate id, with the teacher's name for a teacher → span of its rollouts
        self._resolved_parts: dict[tuple[str, int], Mapping[str, Part]] = {}
        self._results = OrderedResults()
        self._proposal_keys: set[str] = set()  # of all submitted proposals
        self._failures_in_a_row = 0
        self._lm = _first_model(self.program)  # for proposals without a model of their own
        self.register(self.start)

    # ── randomness and candidates ─────────────────────────────────────────────────────────────────────────────────────
    def random(self, *purpose: object) -> random.Random:
        """A random generator for one purpose, such as ``("minibatch", step)``, seeded with it and the run's seed."""
        text = repr((self.seed, *purpose)).encode()
        return random.Random(int.from_bytes(hashlib.sha256(text).digest()[:8]))  # noqa: S311  # keeps no secret

    def register(self, candidate: Candidate) -> Candidate:
        """Add a candidate to the leaderboard and emit CandidateProposed. Returns the candidate that was registered
        earlier with the same content, if there is one."""
        registered = self.leaderboard.add(candidate)
        if registered is candidate and candidate.id not in self.resume_log.proposed_ids:
            self.resume_log.proposed_ids.add(candidate.id)
            scope = current_scope()
            scope.emit(
                CandidateProposed(
                    span=new_span(),
                    parent=scope.open_span,
                    id=candidate.id,
                    origin=candidate.origin,
                    step=candidate.step,
                    parents=candidate.parents,
                    parts=candidate.to_json() if candidate.parts else program_to_json(self.program),
                )
            )
        return registered

    def candidate(
        self, parts: Mapping[str, Part], *, origin: str, step: int = 0, parents: Iterable[Candidate] = ()
    ) -> Candidate:
        """Create a candidate from ``parts`` (predictor path → Part) and register it."""
        parent_ids = tuple(parent.id for parent in parents)
        return self.register(Candidate.of(parts, self.program, origin=origin, step=step, parents=parent_ids))

    def metric_calls_left(self) -> float:
        """How many more rollouts the budgets in force allow; infinite without a limit."""
        return current_scope().metric_calls_left()

    @property
    def submitted_rollouts(self) -> int:
        """How many rollouts have been submitted."""
        return len(self._rollouts)

    @property
    def candidates(self) -> Mapping[str, Candidate]:
        """Id → candidate, in the order in which they were registered."""
        return self.leaderboard.candidates

    @property
    def best(self) -> Candidate:
        """The best candidate so far (see Leaderboard); the start, before any has run on all validation rows."""
        return self.leaderboard.best

    def mean(self, candidate: Candidate, split: str = "val") -> float | None:
        """The mean score on all rows of the split; None where a row is missing."""
        return self.leaderboard.mean(candidate, split)

    def scores(self, candidate: Candidate, split: str = "val") -> dict[int, float]:
        """Row → score, from the evaluations recorded so far: a row of the matrix candidates × examples.

        An evaluation that has ended before one that was submitted earlier is not in it yet, so that timing has no
        effect.
        """
        return self.leaderboard.scores(candidate, split)

    def score(self, rollout: Rollout) -> float:
        """The score of a rollout; ``failure_score`` for one that failed."""
        ended = rollout.ended
        if ended.error is not None or ended.score is None:
            return self.problem.failure_score
        return float(ended.score)

    # ── requests of a person ──────────────────────────────────────────────────────────────────────────────────────────
    async def step(self, number: int) -> list[Candidate]:
        """Begin a logical step; pending requests of a person take effect now. Step numbers must rise.

        Returns the candidates that a person proposed or pinned, evaluated on all validation rows: a strategy takes them
        into its pool. Mostly there are none. Raises BudgetExhausted.
        """
        return await self.interventions.begin(self, number)

    def active(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """The candidates that a person has not dropped, without duplicates."""
        return [c for c in dict.fromkeys(candidates) if c not in self.leaderboard.dropped]

    async def wait_idle(self) -> None:
        """Wait until all submitted work has ended."""
        while True:
            unfinished = [future for future in self._rollouts.values() if not future.done()]
            pending = [*self._results.tasks, *unfinished]
            if not pending:
                return
            await asyncio.wait(pending)

    def renew_budget(self) -> None:
        """Use the changed budget from now on. Must be called while nothing is running (see ``wait_idle``)."""
        self._dispatcher.renew_budget()

    def charge(self, meter: Meter, record: RunRecord) -> None:
        """Charge a new meter with the work submitted before it existed, from the run's record. Must be called while
        nothing is running."""
        ResumeLog.from_record(record).charge(meter, self._rollouts, self._proposal_keys)

    # ── evaluating ────────────────────────────────────────────────────────────────────────────────────────────────────
    def evaluate(
        self,
        candidate: Candidate,
        rows: Sequence[int] | None = None,
        *,
        split: str = "val",
        step: int = 0,
        repeat: int = 0,
        in_order: bool = True,
    ) -> asyncio.Task[CandidateEvaluation]:
        """Submit the evaluation of a candidate; await the task for its scores.

        ``rows``: numbers of the rows of the split, all for None. Rollouts submitted before are not run again. The
        metric calls of the new ones are taken from the budget at once; an evaluation that does not fit is refused
        whole. Results are recorded in the order of submission. The task ends when its result has been recorded; with
        ``in_order=False``, as soon as its rollouts have ended.
        """
        numbers = range(len(self.problem.rows[split])) if rows is None else rows
        keys = [(candidate.id, split, row, repeat) for row in numbers]
        self._take_metric_calls([key for key in dict.fromkeys(keys) if key not in self._rollouts])
        futures = [self._submit_rollout(candidate, key) for key in keys]

        async def run_rollouts() -> CandidateEvaluation:
            rollouts = [await future for future in futures]
            return CandidateEvaluation(candidate, list(numbers), rollouts, [self.score(r) for r in rollouts])

        def record(evaluation: CandidateEvaluation) -> CandidateEvaluation:
            return self._record(evaluation, split, step, repeat)

        if in_order:
            return self._results.submit(run_rollouts, record)
        task = self._results.task(run_rollouts)
        self._results.submit(lambda: task, record)
        return task

    def _record(self, evaluation: CandidateEvaluation, split: str, step: int, repeat: int) -> CandidateEvaluation:
        """Enter an evaluation in the leaderboard, emit its event, and warn of what its user should know."""
        candidate = evaluation.candidate
        if not repeat:
            succeeded = any(rollout.ended.error is None for rollout in evaluation.rollouts)
            scores = dict(zip(evaluation.rows, evaluation.scores, strict=True))
            self.leaderboard.record(candidate, split, scores, succeeded=succeeded)
        if candidate.id == self.start.id and split == "val" and len(evaluation.rows) == len(self.val):
            raise_if_all_failed(evaluation)
        self._emit_scored(evaluation, split, step)
        warn_below(evaluation, self.problem)
        return evaluation

    def _emit_scored(self, evaluation: CandidateEvaluation, split: str, step: int) -> None:
        scope = current_scope()
        event = CandidateScored(
            span=new_span(),
            parent=scope.open_span,
            candidate=evaluation.candidate.id,
            split=split,
            rows=len(evaluation.rows),
            score=evaluation.mean,
            full=len(evaluation.rows) == len(self.problem.rows[split]),
            step=step,
            best=self.best.id,
        )
        if scored_key(event) not in self.resume_log.scored_keys:
            self.resume_log.scored_keys.add(scored_key(event))
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
        """Submit a single rollout; its trace is in ``calls``. A ``teacher`` runs in place of the program, if there is
        one. A ``repeat`` above 0 is sampled at temperature 1."""
        name = candidate.id if teacher is None else f"{teacher.name} {candidate.id}"
        key = (name, split, row, repeat)
        if key not in self._rollouts:
            self._take_metric_calls([key])
        return self._submit_rollout(candidate, key, teacher)

    def _take_metric_calls(self, new_keys: Sequence[RolloutKey]) -> None:
        """Take the metric calls of new rollouts from the budget, all or none. Where they do not fit, the dispatcher
        refuses all further work."""
        if not new_keys or self._dispatcher.spent is not None:
            return
        unpaid = [key for key in new_keys if key not in self.resume_log.paid]
        try:
            current_scope().take(metric_calls=len(unpaid))
        except BudgetExhausted as error:
            self._dispatcher.cut(error)

    def _submit_rollout(
        self, candidate: Candidate, key: RolloutKey, teacher: Teacher | None = None
    ) -> asyncio.Future[Rollout]:
        """Submit the rollout unless it was submitted before."""
        if key not in self._rollouts:
            program = self.program if teacher is None else teacher.program

            async def job(funds: Allowance | None) -> Rollout:
                logged = self.resume_log.rollouts.get(key)
                if logged is not None:
                    with Layer(None, funds=funds):
                        logged.charge()
                    return self._logged_rollout(logged, program)
                with Layer(None, context=self._context_of(key, teacher)):
                    return await self.run_rollout(candidate, key, program, funds)

            with Layer(None, context=self._context_of(key, teacher)):
                calls = program.most_calls()
            self._rollouts[key] = self._dispatcher.submit(job, calls)
        return self._rollouts[key]

    def _context_of(self, key: RolloutKey, teacher: Teacher | None) -> CallContext:
        """The call context of a rollout. Repeats above 0 are sampled at temperature 1."""
        _, split, _, repeat = key
        context = current_scope().context
        if not self.problem.retries.get(split, True):
            context = replace(context, retries=False)
        if teacher is not None:
            teacher_lm = context.lm if teacher.lm is None else teacher.lm
            context = replace(context, lm=teacher_lm, role="teacher")
        if repeat:
            sampling = Sampling(context.sampling.rollout, {"temperature": 1.0})
            context = replace(context, sampling=sampling)
        return context

    async def run_rollout(
        self, candidate: Candidate, key: RolloutKey, program: Module, funds: Allowance | None
    ) -> Rollout:
        """Run a rollout that the resume log does not have."""
        name, split, row, repeat = key
        example = self.problem.rows[split][row]
        record = open_record()
        parts = self._parts_by_uid(candidate, program)
        with Layer(f"candidate {name}", span=self._candidate_span(name), candidate=parts):
            rollout = await self._run_rollout(
                program,
                example,
                inputs_of(program, example, self.problem.names),
                self.problem.metrics,
                number=row,
                repeat=repeat,
                funds=funds,
                candidate=name,
                split=split,
            )
        paths = {predictor.uid: path for path, predictor in program.named_predictors()}
        calls = record.calls_in(rollout.ended.span)
        return self._with_calls(rollout, record, calls, lambda call: paths.get(call.uid))

    def _logged_rollout(self, logged: LoggedResult, program: Module) -> Rollout:
        """A rollout from the resume log, with the calls of the program's predictors."""
        paths = {path: path for path, _ in program.named_predictors()}
        rollout = Rollout(logged.event)
        return self._with_calls(rollout, self.resume_log.record, logged.calls, lambda call: paths.get(call.predictor))

    def _with_calls(
        self, rollout: Rollout, record: RunRecord, calls: Sequence[PredictorCalled], path_of: PathOf
    ) -> Rollout:
        """Set the calls of the rollout that count, and the outcomes of the hints in it."""
        rollout.calls = calls_of(record, calls, path_of)
        uses: list[HintUse] = []
        for search in record.searches_in(rollout.ended.span):
            uses += hint_uses_of_search(record, search, self.problem.failure_score, path_of)
        rollout.hints = uses
        return rollout

    def _parts_by_uid(self, candidate: Candidate, program: Module) -> Mapping[str, Part]:
        key = (candidate.id, id(program))
        if key not in self._resolved_parts:
            self._resolved_parts[key] = candidate.resolved(program)
        return self._resolved_parts[key]

    def _candidate_span(self, name: str) -> int:
        """The span of a candidate's rollouts, opened with the first of them."""
        if name not in self._spans:
            scope = current_scope()
            self._spans[name] = new_span()
            scope.emit(SpanStarted(span=self._spans[name], parent=scope.open_span, kind="candidate", name=name))
        return self._spans[name]

    # ── proposing ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def propose(
        self,
        key: str,
        predict: Predict,
        inputs: ProposalInputs,
        *,
        number: int = 0,
        temperature: float | None = None,
        more_calls: int = 0,
    ) -> asyncio.Task[Prediction | None]:
        """Submit a proposal to a model; await the task for its outputs, or None where it failed.

        ``key``: names the proposal; unique in a run. ``inputs``: a mapping, or an async function that returns it and
        makes about ``more_calls`` model calls at most. ``number``: of the sample, where several proposals have equal
        inputs. ``temperature``: None leaves the model's own. After ``patience`` failures in a row, in the order of
        submission, the task raises OptimizerError with the last error.
        """
        self._proposal_keys.add(key)
        sampling = Sampling(RolloutId(number)).with_temperature(temperature)

        async def job(funds: Allowance | None) -> ProposalEnded:
            logged = self.resume_log.proposals.get(key)
            if logged is not None:
                with Layer(None, funds=funds):
                    logged.charge()
                return logged.event  # type: ignore[no-any-return]
            return await self.run_proposal(key, predict, inputs, sampling, funds)

        future = self._dispatcher.submit(job, predict.most_calls() + more_calls)

        async def wait() -> ProposalEnded:
            ended: ProposalEnded = await future
            return ended

        return self._results.submit(wait, self._reply_of)

    async def run_proposal(
        self, key: str, predict: Predict, inputs: ProposalInputs, sampling: Sampling, funds: Allowance | None
    ) -> ProposalEnded:
        """Make a proposal that the resume log does not have."""
        return await make_proposal(key, predict, inputs, sampling=sampling, lm=self._lm, funds=funds)

    def _reply_of(self, ended: ProposalEnded) -> Prediction | None:
        """The outputs of a proposal, None for a failed one. Raises OptimizerError after too many failures in a row."""
        if ended.outputs is not None:
            self._failures_in_a_row = 0
            return Prediction(ended.outputs)
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= self.patience:
            raise OptimizerError(
                f"{self._failures_in_a_row} proposals in a row failed, so the run ends before it spends more; the best "
                f"so far is dn.last_run().best. The last: {ended.error}"
            )
        return None

    # ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────────
    async def wait_recorded(self) -> None:
        """Wait until all results submitted so far have been recorded."""
        await self._results.wait_recorded()

    def with_new_dispatcher(self, width: int) -> Engine:
        """An engine with the same leaderboard and rollouts that accepts work again, for the test rows after the search
        has spent its share of the budget."""
        new = self._another(width)
        new.leaderboard = self.leaderboard
        new._rollouts = self._rollouts
        new._spans = self._spans
        return new

    def _another(self, width: int) -> Engine:
        """An engine for the same problem."""
        return Engine(
            self.problem,
            seed=self.seed,
            width=width,
            patience=self.patience,
            resume_log=self.resume_log,
            interventions=self.interventions,
            executor=self._executor,
        )

    async def settle(self) -> None:
        """Once the budget is spent: wait until all work submitted before the cut has been recorded."""
        if self._dispatcher.spent is not None:
            await self._results.wait_ended()

    async def close(self) -> None:
        """Cancel all running work."""
        await self._results.close()
        await self._dispatcher.close()


def _first_model(program: Module) -> Any:
    """The model of the first predictor that has one of its own; None if none has."""
    for _, predictor in program.named_predictors():
        lm = getattr(predictor, "lm", None)
        if lm is not None:
            return lm
    return None
