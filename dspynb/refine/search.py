"""Searches: attempts in waves, the lowest-numbered one that is good enough, else the best.

Timing decides nothing. An attempt that meets the threshold cancels higher-numbered ones, which count for nothing even
if they had finished; lower-numbered ones are waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dspynb.data import Prediction
from dspynb.errors import AllAttemptsFailed, BudgetExhausted, ConfigurationError, TooManyFailures
from dspynb.events import AttemptChosen, SpanEnded, SpanStarted, new_span
from dspynb.keywords import recorded_settings, shown
from dspynb.modules.module import Module, ModuleWork
from dspynb.modules.scorer import Scorer
from dspynb.redact import error_text, redact_values
from dspynb.refine.attempt import AttemptPlan, AttemptResult, cancelled_attempt, make_attempt
from dspynb.running.aio.tasks import end_tasks
from dspynb.running.call_history import Calls
from dspynb.running.control import Takes
from dspynb.running.reader import RunReader
from dspynb.running.record import RunRecord
from dspynb.running.user_code import guarded
from dspynb.scope.budget import Reserve
from dspynb.scope.core import Layer, RunPort, current_scope
from dspynb.signatures.fields import Field

__all__ = ["SEARCH_OF_DSPY", "Hinted", "Search", "SearchModule", "SearchPlan"]

Hinted = tuple[Any, Any, str]
"""A hint layer, the hint as tables show it, and who gave it: ``person``, or empty."""


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """The settings of a search. Raises ConfigurationError for a width above ``n``."""

    reward: Scorer
    n: int
    threshold: float | None
    width: int
    temperature: float | None
    max_failures: int | None

    def __post_init__(self) -> None:
        if self.width > self.n:
            raise ConfigurationError(
                f"width, the attempts made at a time, must be from 1 to n ({self.n}), got {self.width}"
            )


class Search:
    """One call of a BestOfN or Refine: makes the attempts, keeps them, and chooses."""

    def __init__(
        self,
        program: Module,
        inputs: Mapping[str, Any],
        plan: SearchPlan,
        advise: Callable[[Sequence[AttemptResult], int], Awaitable[Hinted]] | None = None,
    ) -> None:
        self.program, self.inputs, self.plan, self.advise = program, inputs, plan, advise
        self.finished: dict[int, AttemptResult] = {}
        self.span = new_span()
        self.run: RunPort | None = None
        self.spent: BudgetExhausted | None = None
        self.last_wave = False  # whether the last attempts have begun

    async def __call__(self) -> Prediction:
        """The winner's prediction. Raises AllAttemptsFailed or TooManyFailures."""
        self.run = current_scope().open_run
        committed: list[AttemptResult] = []
        failures: list[Exception] = []
        for wave, numbers in enumerate(self._waves(), start=1):
            layer, shown, by = await self.advise(committed, wave) if self.advise and wave > 1 else (None, None, "")
            self.last_wave = numbers[-1] == self.plan.n
            plans = [AttemptPlan(i, wave, layer, shown, self.plan.temperature, hint_by=by) for i in numbers]
            new = await self._wave(plans)
            committed += new
            winner = next(filter(self._ends, new), None)  # of the waves before, none has one
            if winner is not None and winner.mistake and winner.error is not None:
                raise winner.error
            failures += [a.error for a in new if a is not winner and a.error is not None]
            self._check_failures(failures, len(committed))
            if winner is not None:
                return self._chosen(winner)
        return self._chosen(self._best(committed))

    def _waves(self) -> Iterator[range]:
        for first in range(1, self.plan.n + 1, self.plan.width):
            yield range(first, min(first + self.plan.width, self.plan.n + 1))

    async def _wave(self, plans: Sequence[AttemptPlan]) -> list[AttemptResult]:
        """The results of one wave, in order of number, up to the first that meets the threshold."""
        if len(plans) == 1:
            return [await self._attempt(plans[0])]
        reserve = Reserve(self.program.most_calls())
        tasks = {
            asyncio.create_task(guarded("the program", self._in_turn, plan, reserve)): plan.number for plan in plans
        }
        cut = plans[-1].number
        try:
            pending = set(tasks)
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                cut = min([cut, *(self._last(t, tasks[t]) for t in done if tasks[t] <= cut)])
                for task in [t for t in pending if tasks[t] > cut]:
                    task.cancel()
                    pending.discard(task)
        finally:
            await end_tasks(tasks)
        self._drop_after(cut, plans)
        results = [self.finished[number] for number in tasks.values() if number <= cut]
        if self.spent is not None and not any(map(self._ends, results)):
            raise self.spent
        return results

    async def _in_turn(self, plan: AttemptPlan, reserve: Reserve) -> AttemptResult:
        async with reserve.step() as funds:
            return await self._attempt(replace(plan, funds=funds))

    def _last(self, task: asyncio.Task[AttemptResult], number: int) -> int:
        """The last attempt that counts, as far as this one tells: the one before it, where the budget refused it."""
        if isinstance(spent := task.exception(), BudgetExhausted):
            self.spent = self.spent or spent
            return number - 1
        return number if self._ends(task.result()) else self.plan.n

    def _ends(self, result: AttemptResult) -> bool:
        """Whether no attempt after this one counts."""
        return result.mistake or result.meets(self.plan.threshold)

    def _drop_after(self, cut: int, plans: Sequence[AttemptPlan]) -> None:
        """Record the attempts after the winner as cancelled, whether they had finished or refuse to end."""
        for plan in plans:
            if plan.number > cut:
                late = self.finished.pop(plan.number, None)
                current_scope().emit(cancelled_attempt(plan.span, self.span, late.seconds if late else 0.0))

    async def _attempt(self, plan: AttemptPlan) -> AttemptResult:
        result = await make_attempt(self.program, self.inputs, self.plan.reward, plan, self.plan.threshold)
        self.finished[plan.number] = result
        return result

    def _check_failures(self, failures: Sequence[Exception], attempts: int) -> None:
        """Raise once more attempts before the winner failed than may."""
        allowed = self.plan.max_failures
        if allowed is not None and len(failures) > allowed:
            if len(failures) == attempts:
                raise _all_failed(failures)
            message = (
                f"{len(failures)} attempts failed, max_failures={allowed}; raise it, or see .exceptions. The first: "
                f"{failures[0]}"
            )
            raise TooManyFailures(message, failures)

    def _best(self, attempts: Sequence[AttemptResult]) -> AttemptResult:
        scored = [a for a in attempts if a.score is not None]
        if not scored:
            failures = [a.error for a in attempts if a.error is not None]
            raise _all_failed(failures)
        return max(scored, key=lambda a: (float(a.score or 0.0), -a.number))

    def _chosen(self, winner: AttemptResult) -> Prediction:
        scope = current_scope()
        scope.emit(AttemptChosen(span=self.span, parent=scope.open_span, attempt=winner.number))
        return self._prediction(winner)

    def _prediction(self, winner: AttemptResult) -> Prediction:
        assert winner.prediction is not None  # noqa: S101  # a scored attempt has one
        part = self.run.part(self.span) if isinstance(self.run, RunReader) else None
        record = self.run.record if isinstance(self.run, RunReader) else RunRecord()
        usage = record.usage_in(self.span)  # of all attempts, advisors and rewards
        calls = Calls(winner.calls)
        return winner.prediction.with_meta(score=winner.score, usage=usage, calls=calls, run=part)

    def partial(self) -> Prediction | None:
        """The best of the attempts that have finished, or None."""
        done = [self.finished[number] for number in sorted(self.finished)]
        winner = next((a for a in done if a.meets(self.plan.threshold)), None)
        if winner is None and all(a.score is None for a in done):
            return None
        return self._prediction(winner or self._best(done))


def _all_failed(errors: Sequence[Exception]) -> AllAttemptsFailed:
    failed = AllAttemptsFailed(f"all {len(errors)} attempts failed; the last: {errors[-1]}", errors)
    failed.add_note(
        "Its .exceptions are the errors of all attempts; run.attempts of dn.last_run() has them as a table."
    )
    return failed


class SearchWork(ModuleWork):
    """A search as the work of a run: when stopped, the best attempt so far is its result."""

    def __init__(self, module: SearchModule, inputs: Mapping[str, Any]) -> None:
        super().__init__(module, inputs)
        self.search = module.search(inputs)

    async def _call(self) -> Prediction:
        return await under_span(self.search, self.module._title())

    def partial(self) -> Prediction | None:
        return self.search.partial()

    def takes(self) -> Takes:
        """A hint, while a further wave may come."""
        return Takes() if self.search.last_wave else super().takes()


async def under_span(search: Search, title: str) -> Prediction:
    """Run a search as a span of the run it is in."""
    scope = current_scope()
    parent = scope.open_span
    scope.emit(
        SpanStarted(span=search.span, parent=parent, kind="search", name=title, inputs=redact_values(search.inputs))
    )
    try:
        with Layer(f"the call of {title}", span=search.span):
            prediction = await search()
    except Exception as error:
        scope.emit(SpanEnded(span=search.span, parent=parent, error=error_text(error)))
        raise
    scope.emit(SpanEnded(span=search.span, parent=parent, outputs=redact_values(prediction.to_dict())))
    return prediction


class SearchModule(Module):
    """Base of BestOfN and Refine: a program, wrapped. Its predictors keep the paths they have in the program."""

    module: Module
    plan: SearchPlan

    def __repr__(self) -> str:
        return shown(self, repr(self.module), self.plan.reward.name, parts=(self.plan,))

    def search(self, inputs: Mapping[str, Any]) -> Search:
        """One call's search."""
        return Search(self.module, inputs, self.plan)

    async def forward(self, **inputs: Any) -> Prediction:
        """Make attempts and return the best."""
        if current_scope().open_run is None:  # called by itself: the usage of a search is read from a run
            return await self(**inputs)
        return await self._inside(inputs)

    async def _inside(self, inputs: Mapping[str, Any]) -> Prediction:
        return await under_span(self.search(inputs), self._title())

    def _work(self, inputs: Mapping[str, Any]) -> ModuleWork:
        return SearchWork(self, inputs)

    def _title(self) -> str:
        return f"{type(self).__name__}({self.module._title()})"

    def _fields(self, kind: str) -> Mapping[str, Field] | None:
        return self.module._fields(kind)

    def input_names(self) -> Mapping[str, bool] | None:
        """Those of the program."""
        return self.module.input_names()

    def _run_settings(self) -> dict[str, Any]:
        return {"reward": self.plan.reward.name, **recorded_settings(self, self.plan)}

    def submodules(self) -> Iterator[tuple[str, Any]]:
        yield "", self.module

    def most_calls(self) -> int:
        """Those of the program in every attempt."""
        return self.plan.n * self.module.most_calls()


SEARCH_OF_DSPY = {
    "N": "n",
    "reward_fn": "reward",
    "metric": "reward",
    "fail_count": "max_failures",
    "max_errors": "max_failures",
    "num_threads": "width",
    "concurrency": "width",
    "program": "module",
    "lm": "the program inside has its model: dn.Predict(…, lm=…), or `with dn.context(lm=…)`",
}
"""What the names of DSPy are called at BestOfN and Refine, or what to do in place of them."""


def __getattr__(name: str) -> Any:
    from dspynb._moved import moved_name  # BestOfN was in this module

    return moved_name("refine.search", name)
