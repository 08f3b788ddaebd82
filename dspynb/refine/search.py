"""Searches: attempts in waves. The result is the lowest-numbered attempt that is good enough, else the best.

Timing decides nothing. An attempt that meets the threshold cancels all attempts with higher numbers, which do not count
even if they have finished. Attempts with lower numbers are awaited.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dspynb.data import Prediction
from dspynb.errors import AllAttemptsFailed, BudgetExhausted, ConfigurationError, TooManyFailures
from dspynb.events import AttemptChosen, Hint, SpanEnded, SpanStarted, new_span
from dspynb.keywords import recorded_settings, settings_repr
from dspynb.modules.forward import recorded_outputs
from dspynb.modules.module import Module, ModuleWork
from dspynb.modules.price_check import check_prices
from dspynb.modules.scorer import Scorer
from dspynb.redact import error_text, redact_values
from dspynb.refine.attempt import AttemptPlan, AttemptResult, cancelled_attempt, make_attempt
from dspynb.running.aio.tasks import end_tasks
from dspynb.running.call_history import Calls
from dspynb.running.control import AcceptedRequests
from dspynb.running.reader import RunReader
from dspynb.running.record import RunRecord
from dspynb.running.user_code import guarded
from dspynb.scope.allowances import Allowance, Allowances
from dspynb.scope.core import HintLayer, Layer, RunPort, current_scope
from dspynb.signatures.fields import Field

__all__ = ["SEARCH_OF_DSPY", "Search", "SearchModule", "SearchPlan", "WaveHint"]


@dataclass(frozen=True, slots=True)
class WaveHint:
    """The hint of one wave: as a layer, as tables show it, and ``person`` if a person suggested it."""

    layer: HintLayer | None = None
    displayed: Hint = None
    given_by: str = ""


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
    """One call of a BestOfN or Refine: makes the attempts and chooses one of them.

    ``hint_for_wave``: a function of the attempts so far and the number of the next wave.
    """

    def __init__(
        self,
        program: Module,
        inputs: Mapping[str, Any],
        plan: SearchPlan,
        hint_for_wave: Callable[[Sequence[AttemptResult], int], Awaitable[WaveHint]] | None = None,
    ) -> None:
        self.program = program
        self.inputs = inputs
        self.plan = plan
        self.hint_for_wave = hint_for_wave
        self.finished: dict[int, AttemptResult] = {}
        self.span = new_span()
        self.run: RunPort | None = None
        self.budget_error: BudgetExhausted | None = None
        self.last_wave = False  # whether the last wave has begun

    async def __call__(self) -> Prediction:
        """The winner's prediction. Raises AllAttemptsFailed, TooManyFailures or BudgetExhausted."""
        self.run = current_scope().open_run
        attempts: list[AttemptResult] = []
        failures: list[Exception] = []
        for wave, numbers in enumerate(self._waves(), start=1):
            hint = WaveHint()
            if wave > 1 and self.hint_for_wave is not None:
                hint = await self.hint_for_wave(attempts, wave)
            self.last_wave = numbers[-1] == self.plan.n
            results = await self._run_wave([self._attempt_plan(number, wave, hint) for number in numbers])
            attempts += results
            winner = self._first_final(results)  # earlier waves have none
            if winner is not None and winner.mistake and winner.error is not None:
                raise winner.error
            failures += [result.error for result in results if result is not winner and result.error is not None]
            self._check_failures(failures, len(attempts))
            if winner is not None:
                return self._choose(winner)
        return self._choose(self._best(attempts))

    def _waves(self) -> Iterator[range]:
        for first in range(1, self.plan.n + 1, self.plan.width):
            yield range(first, min(first + self.plan.width, self.plan.n + 1))

    def _attempt_plan(self, number: int, wave: int, hint: WaveHint) -> AttemptPlan:
        return AttemptPlan(
            number=number,
            wave=wave,
            hint=hint.layer,
            displayed_hint=hint.displayed,
            temperature=self.plan.temperature,
            hint_by=hint.given_by,
        )

    async def _run_wave(self, plans: Sequence[AttemptPlan]) -> list[AttemptResult]:
        """The results of one wave that count, in order of number."""
        if len(plans) == 1:
            return [await self._attempt(plans[0])]
        allowances = Allowances(self.program.most_calls())
        numbers: dict[asyncio.Task[AttemptResult], int] = {}
        for plan in plans:
            task = asyncio.create_task(guarded("the program", self._attempt_in_turn, plan, allowances))
            numbers[task] = plan.number
        last = plans[-1].number  # attempts after it do not count
        try:
            pending = set(numbers)
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                counting = [task for task in done if numbers[task] <= last]
                last = min([last, *(self._last_number(task, numbers[task]) for task in counting)])
                for task in [task for task in pending if numbers[task] > last]:
                    task.cancel()
                    pending.discard(task)
        finally:
            await end_tasks(numbers)
        self._drop_after(last, plans)
        results = [self.finished[number] for number in numbers.values() if number <= last]
        if self.budget_error is not None and self._first_final(results) is None:
            raise self.budget_error
        return results

    async def _attempt_in_turn(self, plan: AttemptPlan, allowances: Allowances) -> AttemptResult:
        if not allowances.limited:
            return await self._attempt(plan)
        async with allowances.step() as funds:
            return await self._attempt(plan, funds)

    def _last_number(self, task: asyncio.Task[AttemptResult], number: int) -> int:
        """The number of the last attempt that counts, judged by one finished attempt alone. If the budget refused the
        attempt, it does not count itself."""
        error = task.exception()
        if isinstance(error, BudgetExhausted):
            if self.budget_error is None:
                self.budget_error = error
            return number - 1
        return number if self._is_final(task.result()) else self.plan.n

    def _is_final(self, result: AttemptResult) -> bool:
        """Whether no attempt after this one counts."""
        return result.mistake or result.meets(self.plan.threshold)

    def _first_final(self, results: Sequence[AttemptResult]) -> AttemptResult | None:
        return next(filter(self._is_final, results), None)

    def _drop_after(self, last: int, plans: Sequence[AttemptPlan]) -> None:
        """Record the attempts after the last that counts as cancelled, whether they have finished or refuse to end."""
        for plan in plans:
            if plan.number > last:
                dropped = self.finished.pop(plan.number, None)
                seconds = 0.0 if dropped is None else dropped.seconds
                current_scope().emit(cancelled_attempt(plan.span, self.span, seconds))

    async def _attempt(self, plan: AttemptPlan, funds: Allowance | None = None) -> AttemptResult:
        search_plan = self.plan
        result = await make_attempt(
            self.program, self.inputs, search_plan.reward, plan, threshold=search_plan.threshold, funds=funds
        )
        self.finished[plan.number] = result
        return result

    def _check_failures(self, failures: Sequence[Exception], attempts: int) -> None:
        """Raise if more attempts failed than ``max_failures``. Attempts after the winner do not count."""
        allowed = self.plan.max_failures
        if allowed is None or len(failures) <= allowed:
            return
        if len(failures) == attempts:
            raise _all_failed(failures)
        message = (
            f"{len(failures)} attempts failed, max_failures={allowed}; raise it, or see .exceptions. The first: "
            f"{failures[0]}"
        )
        raise TooManyFailures(message, failures)

    def _best(self, attempts: Sequence[AttemptResult]) -> AttemptResult:
        """The attempt with the highest score; ties go to the lower number. Raises AllAttemptsFailed."""
        scored = [attempt for attempt in attempts if attempt.score is not None]
        if not scored:
            raise _all_failed([attempt.error for attempt in attempts if attempt.error is not None])
        return max(scored, key=lambda attempt: (float(attempt.score or 0.0), -attempt.number))

    def _choose(self, winner: AttemptResult) -> Prediction:
        scope = current_scope()
        scope.emit(AttemptChosen(span=self.span, parent=scope.open_span, attempt=winner.number))
        return self._prediction(winner)

    def _prediction(self, winner: AttemptResult) -> Prediction:
        if not isinstance(winner.prediction, Prediction):
            return winner.prediction  # type: ignore[return-value]  # a program may return any value
        part: RunReader | None = None
        record = RunRecord()
        if isinstance(self.run, RunReader):
            part = self.run.part(self.span)
            record = self.run.record
        usage = record.usage_in(self.span)  # of all attempts, advisors and rewards
        calls = Calls(winner.calls)
        return winner.prediction.with_meta(score=winner.score, usage=usage, calls=calls, run=part)

    def partial(self) -> Prediction | None:
        """The best of the attempts that have finished, or None."""
        attempts = [self.finished[number] for number in sorted(self.finished)]
        for attempt in attempts:
            if attempt.meets(self.plan.threshold):
                return self._prediction(attempt)
        if all(attempt.score is None for attempt in attempts):
            return None
        return self._prediction(self._best(attempts))


def _all_failed(errors: Sequence[Exception]) -> AllAttemptsFailed:
    failed = AllAttemptsFailed(f"all {len(errors)} attempts failed; the last: {errors[-1]}", errors)
    failed.add_note(
        "Its .exceptions are the errors of all attempts; run.attempts of dn.last_run() has them as a table."
    )
    return failed


class SearchWork(ModuleWork):
    """A search as the work of a run. If the run is stopped, its result is the best attempt so far."""

    def __init__(self, module: SearchModule, inputs: Mapping[str, Any]) -> None:
        super().__init__(module, inputs)
        self.search = module.search(inputs)

    async def _call(self) -> Prediction:
        check_prices(self.module)
        return await under_span(self.search, self.module._title())

    def partial(self) -> Prediction | None:
        return self.search.partial()

    def accepted_requests(self) -> AcceptedRequests:
        """The requests that the search accepts: hints, until the last wave has begun."""
        return AcceptedRequests() if self.search.last_wave else super().accepted_requests()


async def under_span(search: Search, title: str) -> Prediction:
    """Run a search as a span of the open run."""
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
    scope.emit(SpanEnded(span=search.span, parent=parent, outputs=redact_values(recorded_outputs(prediction))))
    return prediction


class SearchModule(Module):
    """Base of BestOfN and Refine, which wrap a program. The predictors keep the paths that they have in the program."""

    module: Module
    plan: SearchPlan

    def __repr__(self) -> str:
        return settings_repr(self, repr(self.module), self.plan.reward.name, parts=(self.plan,))

    def search(self, inputs: Mapping[str, Any]) -> Search:
        """The search of one call."""
        return Search(self.module, inputs, self.plan)

    async def forward(self, **inputs: Any) -> Prediction:
        """Make attempts and return the best."""
        if current_scope().open_run is None:  # a search needs a run, from which its usage is read
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
        """The inputs of the program inside."""
        return self.module.input_names()

    def _run_settings(self) -> dict[str, Any]:
        return {"reward": self.plan.reward.name, **recorded_settings(self, self.plan)}

    def submodules(self) -> Iterator[tuple[str, Any]]:
        yield "", self.module

    def most_calls(self) -> int:
        """The calls of the program in all attempts."""
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
"""Names of DSPy's arguments, with the name or the replacement of each at BestOfN and Refine."""


def __getattr__(name: str) -> Any:
    from dspynb._moved import moved_name  # BestOfN was in this module

    return moved_name("refine.search", name)
