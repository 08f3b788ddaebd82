"""Interventions: requests of a person to a running search, to propose, drop or pin candidates, or to change the budget.

Requests take effect where a strategy begins a logical step (``Engine.step``), in the order in which they were made, and
are recorded with that step's number. So a resumed run reads from its file which requests took effect at which step, and
applies them again there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dspynb.errors import OptimizerError
from dspynb.optimizers.core.candidate import Candidate
from dspynb.running.control import Request
from dspynb.running.run import Run

if TYPE_CHECKING:
    from dspynb.optimizers.core.engine import Engine

__all__ = ["ACTIONS", "Interventions"]

ACTIONS = frozenset({"propose", "drop", "pin", "budget"})
"""What a person can request of a search."""
_EFFECTS = ACTIONS | {"unpin"}
_EFFECTS_ON_RESULT = _EFFECTS - {"propose", "budget"}


class Interventions:
    """Applies the requests of a person to an engine.

    ``run``: the run that is steered; None where the search is part of another run. ``set_limits``: sets new limits of
    the budget.
    """

    def __init__(
        self, run: Run | None = None, set_limits: Callable[[Mapping[str, float]], Awaitable[None]] | None = None
    ) -> None:
        self.step = -1  # the number of the last step that began
        self.run = run
        self._set_limits = set_limits
        self._last_step_in_file = -1 if run is None else run.record.last_step

    async def begin(self, engine: Engine, step: int, *, last: bool = False) -> list[Candidate]:
        """Apply what is due at this step. Returns the candidates that a person proposed or pinned, evaluated.

        ``last``: close the run to further requests if there are none now. Raises BudgetExhausted for a budget below
        what is spent, OptimizerError for a step whose number is not above the previous one's.
        """
        if step <= self.step:
            raise OptimizerError(f"a strategy's steps have rising numbers: step {step} cannot come after {self.step}")
        self.step = step
        if self.run is None or not (last or self.run.steering.pending or self.run.steering.applied):
            return []
        due = self._due(step, last)
        candidates = []
        for request, recorded in due:
            if request.action != "budget":
                candidates.append(self._apply(engine, request, recorded, step))
        await self._change_budget([entry for entry in due if entry[0].action == "budget"], step)
        return await self._evaluate(engine, [c for c in dict.fromkeys(candidates) if c is not None], step)

    async def follow_up(self, engine: Engine) -> None:
        """At the end of the search: apply the requests made meanwhile, until there are none."""
        while self.run is not None and not self.run.steering.closed:
            await self.begin(engine, self.step + 1, last=True)

    def finish(self, engine: Engine) -> None:
        """After the search has ended, for whatever reason: candidates are still dropped and pinned, but no more are
        proposed."""
        if self.run is None:
            return
        for event in self.run.steering.take_applied(lambda event: event.action in _EFFECTS_ON_RESULT):
            self._apply(engine, Request(event.action, event.values), True, event.step)
        for request in self.run.steering.take_pending(lambda request: request.action in _EFFECTS_ON_RESULT):
            self._apply(engine, request, False, self.step + 1)
        self.run.steering.closed = True

    def _due(self, step: int, last: bool) -> list[tuple[Request, bool]]:
        """The requests that take effect at this step, each with whether the run's file has it.

        While a resumed run repeats the steps in its file, only requests in the file are due. A new budget is an
        exception: it is due together with one in the file, which may be what ended the run.
        """
        assert self.run is not None  # noqa: S101
        steering = self.run.steering
        past_the_file = step > self._last_step_in_file
        events = steering.take_applied(lambda event: event.action in _EFFECTS and event.step <= step)
        due = [(Request(event.action, event.values), True) for event in events]
        if past_the_file:
            actions: frozenset[str] = _EFFECTS
        else:
            actions = frozenset(event.action for event in events if event.action == "budget")
        close = last and not due and past_the_file
        new = steering.take_pending(lambda request: request.action in actions, close=close)
        return due + [(request, False) for request in new]

    def _apply(self, engine: Engine, request: Request, recorded: bool, step: int) -> Candidate | None:
        """Apply a request; returns the candidate to evaluate for it, if there is one. ``recorded``: the run's file has
        the request."""
        values = dict(request.values)
        leaderboard = engine.leaderboard
        to_evaluate = None
        if request.action == "propose":
            return self._propose(engine, values, recorded, step)
        if request.action == "unpin":
            leaderboard.pinned = None
        else:
            candidate = engine.candidates.get(values["candidate"])
            if candidate is None:
                return None  # the run was resumed with another budget, and has other candidates now
            if request.action == "drop":
                leaderboard.dropped.add(candidate)
                if leaderboard.pinned == candidate:
                    leaderboard.pinned = None
            else:
                leaderboard.dropped.discard(candidate)
                leaderboard.pinned = candidate
                to_evaluate = candidate
        self._record(request.action, {**values, "best": engine.best.id}, recorded, step)
        return to_evaluate

    def _propose(self, engine: Engine, values: Mapping[str, Any], recorded: bool, step: int) -> Candidate:
        """Register a person's candidate. The request is recorded first: a run that is lost in between has it too."""
        parent = engine.candidates.get(values["parent"] or "", engine.best)
        parts = dict(parent.parts)
        for path, text in values["instructions"].items():
            parts[path] = replace(parent.part(path), instruction=text)
        candidate = Candidate.of(parts, engine.program, origin="person", step=step, parents=(parent.id,))
        self._record("propose", {**values, "candidate": candidate.id, "parent": parent.id}, recorded, step)
        engine.leaderboard.dropped.discard(candidate)
        return engine.register(candidate)

    def _record(self, action: str, values: Mapping[str, Any], recorded: bool, step: int) -> None:
        """Record a request that took effect, unless the run's file has it."""
        if not recorded and self.run is not None:
            self.run.record_intervention(action, step=step, values=values)

    async def _change_budget(self, due: Sequence[tuple[Request, bool]], step: int) -> None:
        """Set the limits of all requested budgets at once; of two limits with one name the later counts."""
        limits: dict[str, float] = {}
        for request, recorded in due:
            self._record("budget", request.values, recorded, step)
            limits.update(request.values)
        if due and self._set_limits is not None:
            await self._set_limits(limits)

    async def _evaluate(self, engine: Engine, candidates: list[Candidate], step: int) -> list[Candidate]:
        """Run candidates on all validation rows, as far as the budget has room. Returns those that have a mean score
        and are not dropped."""
        if not engine.val:
            return []
        tasks = []
        for candidate in candidates:
            missing = len(engine.val) - len(engine.scores(candidate))
            if missing <= engine.metric_calls_left():
                tasks.append(engine.evaluate(candidate, step=step))
        for task in tasks:
            await task
        return [c for c in candidates if engine.mean(c) is not None and c not in engine.leaderboard.dropped]
