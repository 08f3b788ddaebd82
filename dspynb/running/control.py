"""Steering: requests of a person to a run while it runs, such as a hint, a candidate or a budget.

A request can be submitted from any thread at any time. The work of the run looks for pending requests when a logical
step begins, applies them, and records each with a ``Steered`` event. A run that is resumed reads these events from its
file and applies the same requests at the same steps. A pause does not wait for a step: all model calls pass one gate.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any, TypeGuard, TypeVar

from dspynb.data import Usage
from dspynb.errors import HintError, InputError, SteeringError, nearest
from dspynb.events import Event, Steered, new_span
from dspynb.redact import redact_values
from dspynb.running.reader import RunReader
from dspynb.scope.budget import Budget, Meter, estimated_tokens
from dspynb.scope.core import current_scope
from dspynb.scope.gate import GATE

__all__ = ["AcceptedRequests", "Request", "Steerable", "Steering"]

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """A request of a person: an ``action``, as in ``Steered``, and its ``values``."""

    action: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AcceptedRequests:
    """The requests that the work of a run accepts now.

    ``actions``: as in ``Request``. ``paths``: the predictors for which a hint or an instruction can be. ``open_row``:
    whether a row can still get a hint; None where the work has no rows.
    """

    actions: frozenset[str] = frozenset()
    paths: Sequence[str] = ()
    open_row: Callable[[int], bool] | None = None


class Steering:
    """The ``pending`` requests of a run, and those already ``applied`` in the run file that is being resumed.

    ``closed``: whether no further request is accepted.
    """

    __slots__ = ("_lock", "applied", "closed", "pending")

    def __init__(self) -> None:
        self.pending: Sequence[Request] = ()  # a plain attribute, since every step reads it
        self.applied: Sequence[Steered] = ()
        self.closed = False
        self._lock = threading.Lock()

    def submit(self, request: Request, *, replaces: Callable[[Request], bool] | None = None) -> bool:
        """Add a request in place of the pending ones for which ``replaces`` is true. Returns False where none is
        accepted any more."""
        with self._lock:
            if self.closed:
                return False
            others = self.pending
            if replaces is not None:
                _, others = _split(others, replaces)
            self.pending = [*others, request]
            return True

    def take_pending(self, matches: Callable[[Request], bool], *, close: bool = False) -> list[Request]:
        """Remove the pending requests that match, and return them in order. ``close``: accept no further request where
        none matches."""
        with self._lock:
            requests, self.pending = _split(self.pending, matches)
            self.closed = self.closed or (close and not requests)
            return requests

    def take_applied(self, matches: Callable[[Steered], bool]) -> list[Steered]:
        """Remove the events of the resumed run file that match, and return them in order."""
        with self._lock:
            events, self.applied = _split(self.applied, matches)
            return events


def _split(items: Iterable[T], matches: Callable[[T], bool]) -> tuple[list[T], list[T]]:
    """The items that match, and the others."""
    matching: list[T] = []
    others: list[T] = []
    for item in items:
        if matches(item):
            matching.append(item)
        else:
            others.append(item)
    return matching, others


class Steerable(RunReader):
    """A run that can be steered while it runs, from any thread.

    A request takes effect at the next step of the run and is recorded as an event, so a run that is resumed applies it
    at the same step.

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
    """Counts what is spent of the run's own budget; None where the run has no budget."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.steering = Steering()
        self.work: Any = None  # set when the run starts

    @property
    def done(self) -> bool:
        """Whether the run has ended."""
        raise NotImplementedError

    def emit(self, event: Event) -> None:
        """Add an event to the run."""
        raise NotImplementedError

    # ── accepted requests ─────────────────────────────────────────────────────────────────────────────────────────
    @property
    def steerable(self) -> frozenset[str]:
        """The requests that the run accepts now, of hint, propose, drop, pin, pause and budget. Empty once it has
        ended."""
        if self.done:
            return frozenset()
        return self._accepted_requests().actions | {"pause"}

    def record_intervention(self, action: str, *, step: int = 0, values: Mapping[str, Any] | None = None) -> None:
        """Emit the ``Steered`` event of a request. The work calls this when it has applied the request."""
        public_values = redact_values(dict(values or {}))
        parent = current_scope().open_span
        self.emit(Steered(span=new_span(), parent=parent, action=action, step=step, values=public_values))

    def _accepted_requests(self) -> AcceptedRequests:
        of_work: Callable[[], AcceptedRequests] | None = getattr(self.work, "accepted_requests", None)
        if of_work is None or self.steering.closed:
            return AcceptedRequests()
        return of_work()

    def _require(self, action: str) -> AcceptedRequests:
        """The accepted requests. Raises SteeringError where this action is not among them."""
        if self.done:
            raise SteeringError(f"the run has ended ({self.status}), so it cannot be steered any more")
        accepted = self._accepted_requests()
        if action not in accepted.actions:
            raise SteeringError(_WHY_NOT[action].format(kind=self.kind))
        return accepted

    def _submit(
        self, action: str, values: Mapping[str, Any], replaces: Callable[[Request], bool] | None = None
    ) -> None:
        if not self.steering.submit(Request(action, values), replaces=replaces):
            raise SteeringError(_WHY_NOT[action].format(kind=self.kind))

    def fund(self, meter: Meter) -> None:
        """Set the meter of the run's own budget."""
        self.meter = meter
        if self.paused:
            meter.pause()

    def new_meter(self, limits: Mapping[str, float]) -> Meter:
        """Give a run that has no budget one with these limits, and return its meter. The meter has counted the time
        since the run began, without pauses, and nothing else."""
        meter = Meter(Budget(**limits))  # type: ignore[arg-type]
        started = self.record.started
        if started is not None:
            now = time.time()
            paused = _paused_seconds(self.record.steered, started.at, now)
            meter.count(Usage(), seconds=now - started.at - paused)
        self.fund(meter)
        return meter

    def spending(self) -> tuple[Usage, int, int]:
        """What was spent since the run was started or resumed last.

        Returns the usage of the calls that no cache answered, the number of scored rollouts, and an estimate of the
        tokens of those calls whose usage does not have them.
        """
        calls, rollouts = self.record.since_start()
        usage = Usage()
        estimate = 0
        for call in calls:
            if call.cached:
                continue
            call_usage = replace(call.usage, calls=1)
            if call_usage.tokens is None:
                call_usage = replace(call_usage, prompt_tokens=0, completion_tokens=0)
                estimate += estimated_tokens(call)
            usage += call_usage
        return usage, len(rollouts), estimate

    # ── hints ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def suggest_hint(self, hint: str | Mapping[str, str], *, row: int | None = None) -> None:
        """Set the hint of the next wave of attempts of a Refine, in place of its own; no advisor is called for it.

        ``hint``: text for every predictor, or predictor path → text. It is used in one wave only; a later suggestion
        for the same row replaces one that has not been used yet. ``row``: in a batch or evaluation, the number of the
        row whose Refine gets the hint (default: the first row that begins a further wave). A Refine in an optimizer's
        rollouts accepts no hint, since it would change the scores of candidates, and neither does one on a worker of a
        DaskExecutor.

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
        accepted = self._require("hint")
        values: dict[str, Any] = {"hint": _checked_hint(hint, accepted.paths)}
        if row is not None:
            self._check_row(row, accepted)
            values["row"] = int(row)
        self._submit("hint", values, lambda other: other.action == "hint" and other.values.get("row") == row)

    def _check_row(self, row: object, accepted: AcceptedRequests) -> None:
        if accepted.open_row is None:
            raise SteeringError("row= is for the rows of a batch or an evaluation; this run has none")
        if not _is_integer(row) or not accepted.open_row(row):
            raise SteeringError(f"row must be the number of a row that has not ended, got {row!r}")

    # ── candidates ────────────────────────────────────────────────────────────────────────────────────────────────
    def propose(self, instruction: str | Mapping[str, str], *, parent: str | int | None = None) -> None:
        """Propose a candidate to an optimizer. It is evaluated on all validation rows at the optimizer's next step,
        within the budget, can become the best, and is developed further like the optimizer's own.

        ``instruction``: text (where the program has one predictor), or predictor path → text. ``parent``: the id or the
        number in ``run.candidates`` of the candidate from which all other parts are taken (default: the best so far).

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

        Raises SteeringError where the run is not an optimizer's or its search is over, InputError for an empty text, an
        unknown path or an unknown parent.
        """
        accepted = self._require("propose")
        instructions = _checked_instructions(instruction, accepted.paths)
        parent_id = None if parent is None else self._candidate_id(parent)
        self._submit("propose", {"instructions": instructions, "parent": parent_id})

    def drop(self, candidate: str | int) -> None:
        """Exclude a candidate (its id, such as ``c1``, or number) from parents and winners, from the next step on. A
        pinned candidate is also unpinned. Raises SteeringError for c0, the start; otherwise as ``propose`` does."""
        self._require("drop")
        candidate_id = self._candidate_id(candidate)
        if candidate_id == next(iter(self.record.candidates), None):
            raise SteeringError("the start, candidate c0, cannot be dropped: other candidates are compared with it")
        self._submit("drop", {"candidate": candidate_id})

    def pin(self, candidate: str | int) -> None:
        """Make the run return a candidate (its id, such as ``c1``, or number) whatever the scores. The candidate is
        evaluated on all validation rows, within the budget. One that was dropped is restored. Raises as ``propose``
        does."""
        self._require("pin")
        self._submit("pin", {"candidate": self._candidate_id(candidate)})

    def unpin(self) -> None:
        """Make the run return the best candidate again. Raises SteeringError as ``propose`` does."""
        self._require("pin")
        self._submit("unpin", {})

    def _candidate_id(self, candidate: object) -> str:
        """The id of a candidate in the record, from its name (c1) or number. Raises InputError."""
        names = self.record.candidate_names
        ids = list(names)
        if isinstance(candidate, str) and candidate in names:
            return candidate
        if isinstance(candidate, str) and candidate in names.values():
            return ids[list(names.values()).index(candidate)]
        if _is_integer(candidate) and 0 <= candidate < len(ids):
            return ids[candidate]
        choices = f"c0 to {names[ids[-1]]}" if ids else "none yet"
        raise InputError(f"the run has no candidate {candidate!r}; there are {choices} (see run.candidates)")

    # ── pausing ───────────────────────────────────────────────────────────────────────────────────────────────────
    @property
    def paused(self) -> bool:
        """Whether the run's model calls wait for ``unpause``."""
        return GATE.holds(self)

    def pause(self) -> None:
        """Let no further model call start until ``unpause``. Calls in progress end normally.

        In a run on a cluster, no further rollout is sent, and those on the workers end. A paused run can be stopped.
        The time does not count against the seconds of the run's own budget. Raises SteeringError once the run has
        ended.
        """
        if self.done:
            self._require("pause")
        if GATE.close(self):
            if self.meter is not None:
                self.meter.pause()
            self.record_intervention("pause")
            if self.done:  # the run has ended meanwhile
                GATE.open(self)

    def unpause(self) -> None:
        """Let model calls start again. Raises SteeringError once the run has ended."""
        if self.done:
            self._require("pause")
        if self._open_gate():
            self.record_intervention("unpause")

    def _open_gate(self) -> bool:
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
        """Raise or lower limits of the run's own budget. Limits that are None stay as they are. A run without a budget
        gets one, which counts what was spent before.

        The limits take effect at the optimizer's next step; in a batch or evaluation, before the next row, once the
        rows in progress have ended. Where more is already spent than they allow, the run ends as exhausted and returns
        the best so far.

        Raises SteeringError for a run that cannot have a budget of its own or has ended, ConfigurationError for a limit
        that is not a number above 0, or where all are None.
        """
        self._require("budget")
        limits = {"calls": calls, "metric_calls": metric_calls, "tokens": tokens, "usd": usd, "seconds": seconds}
        self._submit("budget", Budget(**limits).limits())  # type: ignore[arg-type]


_SEARCH = (
    "only the run of an optimizer accepts this, while it searches; this is a run of kind {kind!r}, or its search is "
    "over"
)
_WHY_NOT = {
    "pause": "the run has ended",
    "hint": "no hint can be suggested: this run has no Refine that can still make a further attempt (those in an "
    "optimizer's rollouts and on workers of a cluster accept none)",
    "propose": f"no candidate can be proposed: {_SEARCH}",
    "drop": f"no candidate can be dropped: {_SEARCH}",
    "pin": f"no candidate can be pinned: {_SEARCH}",
    "unpin": f"no candidate can be pinned: {_SEARCH}",
    "budget": "the run's budget cannot be set: only an optimizer, an evaluation and a batch have one of their own, "
    "while they run; this is a run of kind {kind!r}. Around others put `with dn.Budget(…)`",
}


def _is_integer(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number, including numpy's."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def _paused_seconds(steered: Sequence[Steered], since: float, until: float) -> float:
    """The seconds between two times during which a run was paused."""
    seconds = 0.0
    paused_at = None
    for event in steered:
        if event.at >= since and event.action == "pause":
            paused_at = event.at
        elif event.action == "unpause" and paused_at is not None:
            seconds += event.at - paused_at
            paused_at = None
    if paused_at is not None:
        seconds += until - paused_at
    return seconds


def _checked_hint(hint: object, paths: Sequence[str]) -> str | dict[str, str]:
    """The hint, with checked texts. Raises HintError."""
    if isinstance(hint, str) and hint.strip():
        return hint
    if isinstance(hint, Mapping) and hint:
        return {path: _checked_text(path, text, paths, HintError) for path, text in hint.items()}
    raise HintError(f"a hint is a text, or a mapping of predictor paths to texts; got {hint!r}")


def _checked_instructions(instruction: object, paths: Sequence[str]) -> dict[str, str]:
    """Path → instruction, with checked texts. Raises InputError."""
    if isinstance(instruction, str):
        if len(paths) != 1:
            raise InputError(f"the program has several predictors; say for which: {{path: text}} of {', '.join(paths)}")
        instruction = {paths[0]: instruction}
    if not isinstance(instruction, Mapping) or not instruction:
        raise InputError(f"an instruction is a text, or a mapping of predictor paths to texts; got {instruction!r}")
    return {path: _checked_text(path, text, paths, InputError) for path, text in instruction.items()}


def _checked_text(path: object, text: object, paths: Sequence[str], error: type[HintError] | type[InputError]) -> str:
    if path not in paths:
        raise error(
            f"there is no predictor {path!r} that it could be for.{nearest(str(path), paths)} There are "
            f"{', '.join(paths) or 'none'}"
        )
    if not isinstance(text, str) or not text.strip():
        raise error(f"the text for {path!r} is empty or not a string: {text!r}")
    return text
