"""Steering: what a person asks of a run while it runs, kept until the run comes to where it can take effect.

Whoever asks does so from any thread, at any time; the work of the run looks at what was asked where a logical step of
its own begins, and tells of it there with an event (``Steered``). A run that is resumed finds these events in its file
and lets the same take effect at the same step. To pause needs no step: calls of models wait at one gate.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any, TypeGuard

from dspynb.data import Usage
from dspynb.errors import HintError, InputError, SteeringError, nearest
from dspynb.events import Event, Steered, new_span
from dspynb.redact import redact_values
from dspynb.running.reader import RunReader
from dspynb.scope.budget import Budget, Meter, estimated_tokens
from dspynb.scope.core import current_scope
from dspynb.scope.gate import GATE

__all__ = ["Ask", "Steerable", "Steering", "Takes"]


@dataclass(frozen=True)
class Ask:
    """Something that was asked for: an ``action``, as in ``Steered``, and its ``values``."""

    action: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Takes:
    """What the work of a run takes: ``actions``; ``paths``: of the predictors that a hint or instruction can be for;
    ``open_row``: whether a row can still get a hint, where there are rows."""

    actions: frozenset[str] = frozenset()
    paths: Sequence[str] = ()
    open_row: Callable[[int], bool] | None = None


class Steering:
    """What was asked of a run and has not taken effect, and what did in the file that it goes on with (``kept``)."""

    def __init__(self) -> None:
        self.asked: list[Ask] = []  # a plain attribute: looked at where every step begins
        self.kept: list[Steered] = []
        self.closed = False
        self._lock = threading.Lock()

    def ask(self, ask: Ask, *, instead: Callable[[Ask], bool] | None = None) -> bool:
        """Take note of it, in place of those that ``instead`` names; whether it still can take effect."""
        with self._lock:
            if self.closed:
                return False
            self.asked = [*(a for a in self.asked if instead is None or not instead(a)), ask]
            return True

    def take(self, wanted: Callable[[Ask], bool], *, close: bool = False) -> list[Ask]:
        """What was asked for and is wanted, in order; it is taken once. ``close``: where there is nothing, nothing
        more can be asked for."""
        with self._lock:
            found = [ask for ask in self.asked if wanted(ask)]
            self.asked = [ask for ask in self.asked if not wanted(ask)]
            self.closed = self.closed or (close and not found)
            return found

    def replay(self, wanted: Callable[[Steered], bool]) -> list[Steered]:
        """What took effect in the run that is gone on with and is wanted, in order; it is taken once."""
        with self._lock:
            found = [event for event in self.kept if wanted(event)]
            self.kept = [event for event in self.kept if not wanted(event)]
            return found


class Steerable(RunReader):
    """A run that can be steered while it runs, from any thread. What is asked for takes effect at the next step, and is
    an event of the run: a run that is resumed does the same at the same step.

    >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
    >>> async def main():
    ...     run = dn.Evaluate(dn.metrics.exact_match()).start(program, 100 * [{"question": "2+2?", "answer": "4"}])
    ...     run.pause()
    ...     run.set_budget(metric_calls=10)
    ...     run.unpause()
    ...     return len(await run), run.status
    >>> dn.run_sync(main)
    (10, 'exhausted')
    """

    kind: str
    meter: Meter | None = None
    """What is spent of the run's own budget; None where it has none."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.steering = Steering()
        self.work: Any = None  # what the run does, once it is known

    @property
    def done(self) -> bool:
        """Whether the run has ended."""
        raise NotImplementedError

    def emit(self, event: Event) -> None:
        """Take an event."""
        raise NotImplementedError

    # ── what it takes ─────────────────────────────────────────────────────────────────────────────────────────────
    @property
    def steerable(self) -> frozenset[str]:
        """What can be asked of it now, of hint, propose, drop, pin, pause and budget; nothing once it has ended."""
        return frozenset() if self.done else self._takes().actions | {"pause"}

    def tell(self, action: str, *, step: int = 0, values: Mapping[str, Any] | None = None) -> None:
        """Tell that something took effect: called by the work that let it."""
        told = redact_values(dict(values or {}))
        self.emit(Steered(span=new_span(), parent=current_scope().open_span, action=action, step=step, values=told))

    def _takes(self) -> Takes:
        takes = getattr(self.work, "takes", None)
        found: Takes = Takes() if takes is None or self.steering.closed else takes()
        return found

    def _checked(self, action: str) -> Takes:
        """What the work takes. Raises SteeringError where this action is not among it."""
        if self.done:
            raise SteeringError(f"the run has ended ({self.status}), so it cannot be steered any more")
        takes = self._takes()
        if action not in takes.actions:
            raise SteeringError(_WHY_NOT[action].format(kind=self.kind))
        return takes

    def _request(self, action: str, values: Mapping[str, Any], instead: Callable[[Ask], bool] | None = None) -> None:
        if not self.steering.ask(Ask(action, values), instead=instead):
            raise SteeringError(_WHY_NOT[action].format(kind=self.kind))

    def fund(self, meter: Meter) -> None:
        """Take the meter of the run's own budget."""
        self.meter = meter
        if self.paused:
            meter.pause()

    def new_meter(self, limits: Mapping[str, float]) -> Meter:
        """The meter of a budget that a run without one got; it has counted the time, and nothing else."""
        meter, record, now = Meter(Budget(**limits)), self.record, time.time()  # type: ignore[arg-type]
        if record.started is not None:
            meter.count(Usage(), seconds=now - record.started.at - _paused(record.steered, record.started.at, now))
        self.fund(meter)
        return meter

    def spent(self) -> tuple[Usage, int, int]:
        """What the calls of this process cost that no cache answered, how many rollouts were scored, and an estimate of
        the tokens of calls whose usage does not have them. A run that is resumed counts anew."""
        calls, rollouts = self.record.since_start()
        usage, estimate = Usage(), 0
        for call in calls:
            if call.cached:
                continue
            one = replace(call.usage, calls=1)
            if one.tokens is None:
                one = replace(one, prompt_tokens=0, completion_tokens=0)
                estimate += estimated_tokens(call)
            usage += one
        return usage, len(rollouts), estimate

    # ── hints ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def suggest_hint(self, hint: str | Mapping[str, str], *, row: int | None = None) -> None:
        """Say what the next attempt of a Refine is to be told, in place of its own hint; no advisor is asked then.

        ``hint``: text for every predictor, or predictor path → text. It holds for the next wave of attempts, and for no
        other. ``row``: of a batch or evaluation, the row whose Refine it is for; without it, the first that comes to a
        further wave. Asked again before it took effect, the later one counts. A Refine in an optimizer's rollouts takes
        none: the scores of candidates would not be theirs; nor does one on a worker of a DaskExecutor.

        >>> lm = dn.ScriptedLM(["sentence: It is wide.", "sentence: It is blue."])
        >>> ask = dn.Predict("subject -> sentence", lm=lm)
        >>> refine = dn.Refine(ask, reward=lambda row, prediction: "blue" in prediction.sentence, hints="feedback")
        >>> async def main():
        ...     run = refine.start(subject="the ocean")
        ...     run.suggest_hint("Name its colour.")
        ...     await run
        ...     return run.attempts[["hint", "hint_by", "score"]]
        >>> dn.run_sync(main)
                       hint hint_by  score
        0              None            0.0
        1  Name its colour.  person    1.0

        Raises SteeringError where no further attempt can come, HintError for an empty hint or an unknown path.
        """
        takes = self._checked("hint")
        told = _hint(hint, takes.paths)
        if row is not None:
            self._check_row(row, takes)
        values = {"hint": told} if row is None else {"hint": told, "row": int(row)}
        self._request("hint", values, lambda ask: ask.action == "hint" and ask.values.get("row") == row)

    def _check_row(self, row: Any, takes: Takes) -> None:
        if takes.open_row is None:
            raise SteeringError("row= is for the rows of a batch or an evaluation; this run has none")
        if not _is_number(row) or not takes.open_row(row):
            raise SteeringError(f"row must be the number of a row that has not ended, got {row!r}")

    # ── candidates ────────────────────────────────────────────────────────────────────────────────────────────────
    def propose(self, instruction: str | Mapping[str, str], *, parent: str | int | None = None) -> None:
        """Give an optimizer a candidate of your own: at its next step it is evaluated on all validation rows, within
        the budget. It may become the best, and the optimizer goes on from it as from its own.

        ``instruction``: text (where the program has one predictor), or predictor path → text. All else is the
        ``parent``'s: a candidate's id or its number in ``run.candidates``; by default the best so far.

        >>> def answer(request):  # right once it is told to use digits
        ...     return "answer: 4" if "digits" in request.messages[0]["content"] else "answer: four"
        >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(answer))
        >>> writer = dn.FunctionLM(lambda request: "proposed_instruction: Be brief.")
        >>> opt = dn.COPRO(dn.metrics.exact_match(), breadth=2, depth=1, prompt_lm=writer)
        >>> async def main():
        ...     run = opt.start(program, [{"question": "2+2?", "answer": "4"}])
        ...     run.propose("Answer in digits.")
        ...     return (await run).instruction
        >>> dn.run_sync(main)
        'Answer in digits.'

        Raises SteeringError where the run is no optimizer's or its search is over, InputError for an empty text, an
        unknown path or an unknown parent.
        """
        takes = self._checked("propose")
        texts = _instructions(instruction, takes.paths)
        chosen = None if parent is None else self._candidate(parent)
        self._request("propose", {"instructions": texts, "parent": chosen})

    def drop(self, candidate: str | int) -> None:
        """Make a candidate (its id or number) neither parent nor winner, from the next step on. One that was pinned is
        pinned no more. Raises SteeringError for the start, and as ``propose`` does, InputError for an unknown one."""
        self._checked("drop")
        chosen = self._candidate(candidate)
        if chosen == self._start():
            raise SteeringError("the start, candidate 0, cannot be dropped: it is what others are compared with")
        self._request("drop", {"candidate": chosen})

    def pin(self, candidate: str | int) -> None:
        """Make a candidate (its id or number) what the run returns, whatever the scores; it is evaluated on all
        validation rows, within the budget. One that was dropped is taken back. Raises as ``propose`` does."""
        self._checked("pin")
        self._request("pin", {"candidate": self._candidate(candidate)})

    def unpin(self) -> None:
        """Return the best again. Raises SteeringError as ``propose`` does."""
        self._checked("pin")
        self._request("unpin", {})

    def _start(self) -> str | None:
        return next(iter(self.record.candidates), None)

    def _candidate(self, given: Any) -> str:
        """A candidate's id. Raises InputError."""
        known = list(self.record.candidates)
        if isinstance(given, str) and given in known:
            return given
        if _is_number(given) and 0 <= given < len(known):
            return known[given]
        told = f"numbers 0 to {len(known) - 1}, or their ids" if known else "none yet"
        raise InputError(f"the run has no candidate {given!r}; there are {told} (see run.candidates)")

    # ── pausing ───────────────────────────────────────────────────────────────────────────────────────────────────
    @property
    def paused(self) -> bool:
        """Whether its calls wait."""
        return GATE.holds(self)

    def pause(self) -> None:
        """Let no further model call start, until ``unpause``; those under way end. Of a run on a cluster, no further
        rollout is sent; those on its workers end. Stop works all the same. The time is not counted against the seconds
        of the run's own budget. Raises SteeringError once the run has ended."""
        if self.done:
            self._checked("pause")
        if GATE.close(self):
            if self.meter is not None:
                self.meter.pause()
            self.tell("pause")
            if self.done:  # it ended meanwhile
                GATE.open(self)

    def unpause(self) -> None:
        """Go on. Raises SteeringError once the run has ended."""
        if self.done:
            self._checked("pause")
        if self._let_pass():
            self.tell("unpause")

    def _let_pass(self) -> bool:
        if not GATE.open(self):
            return False
        if self.meter is not None:
            self.meter.resume()
        return True

    # ── the budget ────────────────────────────────────────────────────────────────────────────────────────────────
    def set_budget(
        self,
        *,
        calls: int | None = None,
        metric_calls: int | None = None,
        tokens: int | None = None,
        usd: float | None = None,
        seconds: float | None = None,
    ) -> None:
        """Raise or lower the limits of the run's own budget; those not given stay as they are. A run without a budget
        gets one, which counts what was spent before.

        It holds from the optimizer's next step on; in a batch or evaluation from the next row on, once those under way
        have ended. Where more is spent than it allows, the run ends there, exhausted, with its best.

        Raises SteeringError for a run that has no budget of its own or has ended, ConfigurationError for a limit that
        is no number above 0, or when none is given.
        """
        self._checked("budget")
        limits = {"calls": calls, "metric_calls": metric_calls, "tokens": tokens, "usd": usd, "seconds": seconds}
        self._request("budget", Budget(**limits).limits())  # type: ignore[arg-type]


_SEARCH = (
    "only the run of an optimizer takes it, while it searches: this is a run of kind {kind!r}, or its search is over"
)
_WHY_NOT = {
    "pause": "the run has ended",
    "hint": "no hint can be suggested: this run has no Refine of which a further attempt can come (those in an "
    "optimizer's rollouts and on workers of a cluster take none)",
    "propose": f"no candidate can be proposed: {_SEARCH}",
    "drop": f"no candidate can be dropped: {_SEARCH}",
    "pin": f"no candidate can be pinned: {_SEARCH}",
    "unpin": f"no candidate can be pinned: {_SEARCH}",
    "budget": "the run's budget cannot be set: only an optimizer, an evaluation and a batch have one of their own, "
    "while they are at work; this is a run of kind {kind!r}. Around others put `with dn.Budget(…)`",
}


def _is_number(value: Any) -> TypeGuard[int]:
    """Whether it is a whole number, of a table's too."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def _paused(steered: Sequence[Steered], since: float, until: float) -> float:
    """Seconds between these times in which a run was paused."""
    seconds, began = 0.0, None
    for event in steered:
        if event.at >= since and event.action == "pause":
            began = event.at
        elif event.action == "unpause" and began is not None:
            seconds, began = seconds + event.at - began, None
    return seconds if began is None else seconds + until - began


def _hint(hint: Any, paths: Sequence[str]) -> str | dict[str, str]:
    """A hint, checked. Raises HintError."""
    if isinstance(hint, str) and hint.strip():
        return hint
    if isinstance(hint, Mapping) and hint:
        return {path: _text(path, text, paths, HintError) for path, text in hint.items()}
    raise HintError(f"a hint is a text, or a mapping of predictor paths to texts; got {hint!r}")


def _instructions(given: Any, paths: Sequence[str]) -> dict[str, str]:
    """Path → instruction, checked. Raises InputError."""
    if isinstance(given, str):
        if len(paths) != 1:
            raise InputError(f"the program has several predictors; say for which: {{path: text}} of {', '.join(paths)}")
        given = {paths[0]: given}
    if not isinstance(given, Mapping) or not given:
        raise InputError(f"an instruction is a text, or a mapping of predictor paths to texts; got {given!r}")
    return {path: _text(path, text, paths, InputError) for path, text in given.items()}


def _text(path: Any, text: Any, paths: Sequence[str], error: type[HintError] | type[InputError]) -> str:
    if path not in paths:
        raise error(
            f"there is no predictor {path!r} that it could be for.{nearest(str(path), paths)} There are "
            f"{', '.join(paths) or 'none'}"
        )
    if not isinstance(text, str) or not text.strip():
        raise error(f"the text for {path!r} is empty or no text: {text!r}")
    return text
