"""What a person asks of a search: candidates of their own, candidates dropped or pinned, another budget.

It takes effect where a strategy begins a logical step (``Engine.step``), in the order of asking, and is told of with
that step's number. So a run that is resumed finds in its file what took effect at which step, and does it again.
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
"""What can be asked of a search."""
_EFFECTS = ACTIONS | {"unpin"}
_OF_RESULT = _EFFECTS - {"propose", "budget"}


class Interventions:
    """``run``: the run that is steered; None where the search is part of another. ``refund``: sets new limits."""

    def __init__(
        self, run: Run | None = None, refund: Callable[[Mapping[str, float]], Awaitable[None]] | None = None
    ) -> None:
        self.step = -1  # the number of the last step that began
        self.run, self._refund = run, refund
        self._known = -1 if run is None else run.record.last_step  # the last step in the file

    async def begin(self, engine: Engine, step: int, *, last: bool = False) -> list[Candidate]:
        """Let what was asked for take effect; the candidates that a person proposed or pinned, evaluated.

        ``last``: where nothing was asked for, nothing can be any more. Raises BudgetExhausted for a budget below what
        is spent, OptimizerError for a step whose number is not above that of the one before.
        """
        if step <= self.step:
            raise OptimizerError(f"a strategy's steps have rising numbers: step {step} cannot come after {self.step}")
        self.step = step
        if self.run is None or not (last or self.run.steering.pending or self.run.steering.applied):
            return []
        due = self._due(step, last)
        wanted = [self._follow(engine, ask, told, step) for ask, told in due if ask.action != "budget"]
        await self._set_budget([(ask, told) for ask, told in due if ask.action == "budget"], step)
        return await self._evaluated(engine, [c for c in dict.fromkeys(wanted) if c is not None], step)

    async def follow_up(self, engine: Engine) -> None:
        """The search has come to its end: let what was asked for meanwhile take effect, until nothing is."""
        while self.run is not None and not self.run.steering.closed:
            await self.begin(engine, self.step + 1, last=True)

    def finish(self, engine: Engine) -> None:
        """The search has ended, however: nothing more is proposed, but what was dropped or pinned counts."""
        if self.run is None:
            return
        for event in self.run.steering.take_applied(lambda event: event.action in _OF_RESULT):
            self._follow(engine, Request(event.action, event.values), True, event.step)
        for ask in self.run.steering.take_pending(lambda ask: ask.action in _OF_RESULT):
            self._follow(engine, ask, False, self.step + 1)
        self.run.steering.closed = True

    def _due(self, step: int, last: bool) -> list[tuple[Request, bool]]:
        """What takes effect now, and whether the run's file tells of it. While a run that is resumed goes through the
        steps that its file has, only what is told there does; but a budget comes with one that is told, which may have
        ended the run."""
        assert self.run is not None  # noqa: S101
        steering = self.run.steering
        kept = steering.take_applied(lambda event: event.action in _EFFECTS and event.step <= step)
        due = [(Request(event.action, event.values), True) for event in kept]
        now = _EFFECTS if step > self._known else {e.action for e in kept if e.action == "budget"}
        close = last and not due and step > self._known  # which no event of the file is beyond
        return due + [(ask, False) for ask in steering.take_pending(lambda ask: ask.action in now, close=close)]

    def _follow(self, engine: Engine, ask: Request, told: bool, step: int) -> Candidate | None:
        """Let one thing take effect; the candidate that is to be evaluated for it, if one is."""
        values, candidate, leaderboard = dict(ask.values), None, engine.leaderboard
        if ask.action == "propose":
            return self._propose(engine, values, told, step)
        if ask.action == "unpin":
            leaderboard.pinned = None
        elif (named := engine.candidates.get(values["candidate"])) is None:
            return None  # of a run that was gone on with under another budget and came to others
        elif ask.action == "drop":
            leaderboard.dropped.add(named)
            leaderboard.pinned = None if leaderboard.pinned == named else leaderboard.pinned
        else:
            leaderboard.dropped.discard(named)
            leaderboard.pinned = candidate = named
        self._tell(ask.action, {**values, "best": engine.best.id}, told, step)
        return candidate

    def _propose(self, engine: Engine, values: Mapping[str, Any], told: bool, step: int) -> Candidate:
        """Register a person's candidate; it is told of first, so that a run that is lost in between has it too."""
        parent = engine.candidates.get(values["parent"] or "", engine.best)
        parts = dict(parent.parts)
        for path, text in values["instructions"].items():
            parts[path] = replace(parent.part(path), instruction=text)
        made = Candidate.of(parts, engine.program, origin="person", step=step, parents=(parent.id,))
        self._tell("propose", {**values, "candidate": made.id, "parent": parent.id}, told, step)
        engine.leaderboard.dropped.discard(made)
        return engine.register(made)

    def _tell(self, action: str, values: Mapping[str, Any], told: bool, step: int) -> None:
        if not told and self.run is not None:
            self.run.record_intervention(action, step=step, values=values)

    async def _set_budget(self, asked: Sequence[tuple[Request, bool]], step: int) -> None:
        """Set the limits of all of them at once: the later counts."""
        for ask, told in asked:
            self._tell("budget", ask.values, told, step)
        if asked and self._refund is not None:
            await self._refund({name: limit for ask, _ in asked for name, limit in ask.values.items()})

    async def _evaluated(self, engine: Engine, wanted: list[Candidate], step: int) -> list[Candidate]:
        """Run them on all validation rows, those for which there is room; the ones that have a score."""
        tasks = []
        for candidate in wanted if engine.val else ():
            missing = len(engine.val) - len(engine.scores(candidate))
            if missing <= engine.metric_calls_left():
                tasks.append(engine.evaluate(candidate, step=step))
        for task in tasks:
            await task
        return [c for c in wanted if engine.mean(c) is not None and c not in engine.leaderboard.dropped]
