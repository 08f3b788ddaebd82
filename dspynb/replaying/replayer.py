"""Replay: a program run again on the replies that were recorded, up to where it would have asked something else."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, NoReturn

from dspynb.data import Prediction
from dspynb.errors import DspynbError, InputError, ReplayDiverged, RunStopped, ScopeError
from dspynb.events import AttemptEnded, AttemptStarted, Event
from dspynb.lm.interceptors.budget import BUDGET
from dspynb.lm.interceptors.chain import ModelCall, Proceed
from dspynb.lm.protocol import LMProtocol, LMReply, LMRequest
from dspynb.lm.resolve import resolve_lm
from dspynb.modules.module import Module
from dspynb.modules.predictor_call import as_recorded
from dspynb.redact import redact_values
from dspynb.replaying.recording import Divergence, Recording, answer, recording_of
from dspynb.running.call_history import Calls
from dspynb.running.reader import RunReader
from dspynb.running.run import Run
from dspynb.running.tracing import Trace, record_of
from dspynb.scope.budget import Free
from dspynb.scope.call_context import Place
from dspynb.scope.core import Layer, current_scope

__all__ = ["Replay", "replay"]


@dataclass(frozen=True)
class Replay:
    """What a replay came to.

    ``prediction``: of the program; None if it failed (``error``) or came to nothing before it was cut short.
    ``complete``: whether it came to its end, and not to a call that was never recorded. ``divergences``: the calls
    whose prompt was not the recorded one, in order. ``calls``: those of the replay. ``unused``: recorded ones that it
    did not ask for.

    >>> ask = dn.Predict("question -> answer", lm=dn.ScriptedLM(["answer: 4"]))
    >>> with dn.trace() as recorded:
    ...     first = ask.run_sync(question="2+2?")
    >>> ask.instruction = "Be brief."
    >>> again = dn.run_sync(lambda: dn.replay(recorded, ask, strict=False))
    >>> again.prediction.answer, again.exact, again.divergences[0].describe()
    ('4', False, 'self: message 1 of the prompt is not the recorded one')
    """

    prediction: Prediction | None
    complete: bool
    divergences: tuple[Divergence, ...]
    calls: Calls
    unused: Calls
    error: Exception | None = None
    run: Any = field(default=None, repr=False)

    @property
    def exact(self) -> bool:
        """Whether the program did what was recorded: every recorded call, and no other."""
        return self.complete and not self.divergences and not self.unused

    def _summary(self) -> str:
        end = "came to its end" if self.complete else "ended where nothing was recorded"
        told = f"; it raised {type(self.error).__name__}: {self.error}" if self.error else ""
        counts = f"{len(self.calls)} calls, {len(self.divergences)} divergences, {len(self.unused)} replies not used"
        return f"Replay: {counts}; the program {end}{told}"

    def __repr__(self) -> str:
        return "\n\n".join([f"<{self._summary()}>", *map(repr, self.divergences)])

    def _repr_html_(self) -> str:
        diffs = "".join(divergence._repr_html_() for divergence in self.divergences)
        return f"<div>{escape(self._summary())}</div>{diffs}"


async def replay(
    recorded: Trace | RunReader | str | Path,
    program: Module,
    *,
    inputs: Mapping[str, Any] | None = None,
    span: int | None = None,
    strict: bool = True,
) -> Replay:
    """Run ``program`` again on the replies of a trace, a run, or a file of one. No model is asked.

    It gets the inputs of the recorded outermost call, or ``inputs``; where several calls were recorded, ``span`` says
    which (the number in ``trace.table()``). Each request is answered by what was recorded for the same predictor path
    and rollout: with the same prompt, whatever the order; else with the same inputs; else the next one.

    ``strict=True``: the first request whose prompt differs, or for which nothing is left, ends the replay with
    ReplayDiverged, whose ``divergence`` is the prompt diff. ``strict=False``: a differing prompt is answered all the
    same and noted, and an error of the program is in ``.error``; only a call that was not recorded ends it.

    Settings, adapter, hints and candidate are those in force here; tools and rewards run again; recorded errors are
    raised again. Nothing is written to the runs folder, and no budget in force is asked or charged. Raises InputError
    where the recorded call is not clear.

    >>> ask = dn.Predict("question -> answer", lm=dn.ScriptedLM(["answer: 4"]))
    >>> with dn.trace() as recorded:
    ...     first = ask.run_sync(question="2+2?")
    >>> dn.run_sync(lambda: dn.replay(recorded, ask))  # the script has no second reply: no model is asked
    <Replay: 1 calls, 0 divergences, 0 replies not used; the program came to its end>
    """
    if not isinstance(program, Module):
        raise InputError(f"replay takes the program to run again, a dn.Module; got {type(program).__name__}")
    replaying = Replaying(recording_of(record_of(recorded), span), strict=strict)
    given = dict(replaying.recording.root.inputs if inputs is None else inputs)
    run = replaying.run = program._new_run(given, kind="replay")
    run.listen(replaying)
    prediction, error = None, None
    scope = current_scope()
    settings = dataclasses.replace(scope.settings, runs_dir=None)
    context = scope.context.with_interceptor(replaying)
    with Layer(None, settings=settings, context=context, funds=Free()):
        try:
            prediction = await run.drive(program._work(given))
        except RunStopped:
            if replaying.ended is None:
                raise
        except Exception as caught:
            if strict and replaying.ended is None:
                raise
            error = caught
    return replaying.result(prediction, error)


class Replaying:
    """A replay under way: an interceptor that answers the predictors' requests, and listens to the run for how its
    attempts stand."""

    place = Place.REPLAY

    def __init__(self, recording: Recording, *, strict: bool) -> None:
        self.recording, self.strict = recording, strict
        self.divergences: list[Divergence] = []
        self.ended: Divergence | None = None
        self.run: Run | None = None
        self._waiting = _Waiting()

    def for_snapshot(self) -> NoReturn:
        """Refused. Raises ScopeError."""
        raise ScopeError("a replay stays in its process: in another one, models would be asked")

    def model(self, path: str, choice: Any) -> LMProtocol:
        """What stands for the model of one predictor. ``choice``: the model it would have, for the adapter that this
        one prefers."""
        try:
            asked = None if choice is None else resolve_lm(choice)
        except DspynbError:  # of a model that is not to be had here
            asked = None
        native = getattr(asked, "native_tools", False) or path in self.recording.native
        return _Recorded(getattr(asked, "name", "recorded"), getattr(asked, "adapter", None), native)

    async def __call__(self, call: ModelCall, proceed: Proceed) -> LMReply:  # noqa: ARG002  # no model is asked
        """The recorded reply. Budgets inside the program are charged as for a model's."""
        return await BUDGET(call, self._recorded)

    async def _recorded(self, call: ModelCall) -> LMReply:
        return await self.answer(call.path, call.inputs, call.request)

    async def answer(self, path: str, inputs: Mapping[str, Any], request: LMRequest) -> LMReply:
        """The recorded reply. Raises the recorded error, or ReplayDiverged."""
        if self.ended is not None:
            raise self._diverged(self.ended)
        sent = as_recorded(request.messages)
        call, same = self.recording.take(path, request.rollout, sent, redact_values(inputs))
        known = path in self.recording.paths
        divergence = None if same else Divergence(path, request.rollout, sent, call, known)
        if call is None:
            await self._waiting.until_nothing_else_goes_on()
        if divergence is not None:
            self._note(divergence)
        await asyncio.sleep(0)  # a model is awaited: others come to their turn, and a stop comes through
        assert call is not None  # noqa: S101  # else _note has raised
        return answer(call)

    def _note(self, divergence: Divergence) -> None:
        if self.ended is None:
            self.divergences.append(divergence)
            if self.strict or divergence.recorded is None:
                self.ended = divergence
                if self.run is not None:
                    self.run.stop()  # also what else is under way; a program that catches everything ends too
        if self.ended is not None:
            raise self._diverged(self.ended)

    def _diverged(self, divergence: Divergence) -> ReplayDiverged:
        shown = repr(divergence)
        shown = shown if len(shown) <= 4000 else f"{shown[:4000]} … (.divergence has all of it)"
        advice = "; with strict=False differences are noted and the replay goes on" if self.strict else ""
        return ReplayDiverged(f"the replay diverged{advice}. {shown}", divergence, self.run)

    def emit(self, event: Event) -> None:
        """How the attempts of the run stand."""
        self._waiting.emit(event)

    def result(self, prediction: Prediction | None, error: Exception | None) -> Replay:
        """What it came to. Raises ReplayDiverged where a strict one was ended."""
        if self.strict and self.ended is not None:
            raise self._diverged(self.ended) from None
        calls = () if self.run is None else self.run.record.calls
        return Replay(
            prediction,
            self.ended is None,
            tuple(self.divergences),
            Calls(calls),
            Calls(self.recording.unused()),
            error if self.ended is None else None,
            self.run,
        )


@dataclass(slots=True)
class _Recorded:
    """What stands for the model of a predictor."""

    name: str
    adapter: Any
    native_tools: bool

    async def complete(self, request: LMRequest) -> LMReply:  # noqa: ARG002
        """Never reached: the replay answers before."""
        raise ScopeError(f"a replay asks no model, and {self.name} was asked")


@dataclass(eq=False, slots=True)
class _Waiter:
    """A request without a recorded reply, in these attempts (innermost first)."""

    attempts: Sequence[int]
    loop: asyncio.AbstractEventLoop
    released: asyncio.Event = field(default_factory=asyncio.Event)


class _Waiting:
    """Requests that were not recorded, made in attempts that run side by side.

    An attempt that was cancelled, since a lower-numbered one passed, has calls that never ended and so are not in the
    recording. In the replay they wait to be cancelled again, and are a divergence only if all attempts beside them
    have ended, or wait as well, without one that passed.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._number: dict[int, int] = {}
        self._search: dict[int, int] = {}
        self._open: dict[int, set[int]] = {}
        self._cut: dict[int, int] = {}
        self._waiters: list[_Waiter] = []

    def emit(self, event: Event) -> None:
        """Take note of attempts that begin and end."""
        with self._lock:
            if isinstance(event, AttemptStarted):
                self._number[event.span], self._search[event.span] = event.attempt, event.parent
                self._open.setdefault(event.parent, set()).add(event.span)
            elif isinstance(event, AttemptEnded):
                self._open.get(event.parent, set()).discard(event.span)
                if event.state == "passed":
                    number = self._number.get(event.span, 0)
                    self._cut[event.parent] = min(number, self._cut.get(event.parent, number))
                self._release()

    async def until_nothing_else_goes_on(self) -> None:
        """Returns when no attempt is left that could cancel this one."""
        attempts = [layer.span for layer in current_scope().open_layers() if layer.attempt is not None]
        waiter = _Waiter([span for span in attempts if span in self._search], asyncio.get_running_loop())
        if not waiter.attempts:
            return
        with self._lock:
            self._waiters.append(waiter)
            self._release()
        try:
            await waiter.released.wait()
        finally:
            with self._lock:
                self._waiters.remove(waiter)

    def _release(self) -> None:
        stuck = {span for waiter in self._waiters for span in waiter.attempts}
        for waiter in self._waiters:
            if all(self._hopeless(span, stuck) for span in waiter.attempts):
                waiter.loop.call_soon_threadsafe(waiter.released.set)

    def _hopeless(self, attempt: int, stuck: set[int]) -> bool:
        search = self._search[attempt]
        will_be_cancelled = self._number[attempt] > self._cut.get(search, self._number[attempt])
        beside = {span for span in self._open[search] if self._number[span] < self._number[attempt]}
        return not will_be_cancelled and beside <= stuck
