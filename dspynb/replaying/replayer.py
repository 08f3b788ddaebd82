"""Replay: run a program again on recorded replies, up to the first request that was not recorded."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, NoReturn

from dspynb.data import Prediction
from dspynb.errors import DspynbError, ReplayDiverged, RunStopped, ScopeError
from dspynb.events import AttemptEnded, AttemptStarted, Event
from dspynb.lm.interceptors.budget import BUDGET
from dspynb.lm.interceptors.chain import ModelCall, Proceed
from dspynb.lm.protocol import LMProtocol, LMReply, LMRequest, sent_settings
from dspynb.lm.recorded_call import as_recorded
from dspynb.lm.resolve import resolve_lm
from dspynb.modules.function_program import checked_program
from dspynb.modules.module import Module
from dspynb.not_awaited import explains_await
from dspynb.redact import redact_values
from dspynb.replaying.recording import Divergence, Recording, answer, changed_settings, recording_of
from dspynb.running.call_history import Calls
from dspynb.running.reader import RunReader
from dspynb.running.run import Run
from dspynb.running.tracing import Trace, record_of
from dspynb.scope.allowances import Free
from dspynb.scope.call_context import Place
from dspynb.scope.core import Layer, current_scope

__all__ = ["Replay", "replay"]


@dataclass(frozen=True)
class Replay:
    """The result of a replay.

    ``prediction``: the program's result; None where it failed (``error``) or the replay ended first.
    ``complete``: whether the program ran to its end, without a call that was not recorded. ``divergences``: the calls
    that differ from the recorded ones in their prompt, settings, tools or response format, in order. ``calls``: the
    calls of the replay. ``unused``: the recorded calls that it did not need. ``run``: the run of the replay.

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
        """Whether the program made every recorded call and no other."""
        return self.complete and not self.divergences and not self.unused

    def _summary(self) -> str:
        counts = f"{len(self.calls)} calls, {len(self.divergences)} divergences, {len(self.unused)} replies not used"
        end = "came to its end" if self.complete else "ended where nothing was recorded"
        summary = f"Replay: {counts}; the program {end}"
        if self.error:
            summary += f"; it raised {type(self.error).__name__}: {self.error}"
        return summary

    def __repr__(self) -> str:
        return "\n\n".join([f"<{self._summary()}>", *map(repr, self.divergences)])

    def _repr_html_(self) -> str:
        diffs = "".join(divergence._repr_html_() for divergence in self.divergences)
        return f"<div>{escape(self._summary())}</div>{diffs}"


@explains_await
async def replay(
    recorded: Trace | RunReader | str | Path,
    program: Module,
    *,
    inputs: Mapping[str, Any] | None = None,
    span: int | None = None,
    strict: bool = True,
) -> Replay:
    """Run ``program`` again on the replies of ``recorded``: a trace, a run, or the file of one. No model is called.

    ``inputs``: the inputs of the program (default: those of the recorded call). ``span``: the number of the recorded
    program call in ``trace.table()``; needed where there are several outermost ones. It may be the call of a part of
    the program that was traced; ``program`` is then this part. Each request gets the recorded reply for the same
    predictor path and rollout: one with the same prompt in any order, else one with the same inputs, else the next one.

    ``strict=True``: the first request that differs in its prompt, settings, tools or response format, or for which no
    reply is left, ends the replay with ReplayDiverged, whose ``divergence`` says what differs. ``strict=False``: a
    request that differs is answered and listed in ``divergences``, and an error of the program is in ``error``; only a
    request for which no reply is left ends the replay. Settings of a model are compared only where the model is
    available. Files of version 0.1 have no settings.

    Settings, adapter, hints and candidate are those in force now. Tools and rewards run again; recorded errors are
    raised again. Nothing is written to the runs folder, and budgets in force are neither checked nor charged. Raises
    InputError where ``recorded`` has no such program call, or several.

    >>> ask = dn.Predict("question -> answer", lm=dn.ScriptedLM(["answer: 4"]))
    >>> with dn.trace() as recorded:
    ...     first = ask.run_sync(question="2+2?")
    >>> dn.run_sync(lambda: dn.replay(recorded, ask))  # the script has no second reply: no model is called
    <Replay: 1 calls, 0 divergences, 0 replies not used; the program came to its end>
    """
    program = checked_program(program)
    paths = [path for path, _ in program.named_predictors()]
    replaying = Replaying(recording_of(record_of(recorded), span, paths), strict=strict)
    if inputs is None:
        inputs = replaying.recording.root.inputs
    inputs = dict(inputs)
    run = program._new_run(inputs, kind="replay")
    replaying.run = run
    run.listen(replaying)
    prediction = None
    error = None
    scope = current_scope()
    settings = dataclasses.replace(scope.settings, runs_dir=None)
    context = scope.context.with_interceptor(replaying)
    with Layer(None, settings=settings, context=context, funds=Free()):
        try:
            prediction = await run.drive(program._work(inputs))
        except RunStopped:
            if replaying.ended is None:
                raise
        except Exception as caught:
            if strict and replaying.ended is None:
                raise
            error = caught
    return replaying.result(prediction, error)


class Replaying:
    """A replay in progress: an interceptor that answers the requests of predictors, and a listener that follows the
    attempts of the run.

    ``ended``: the divergence that ended the replay; None where there was none.
    """

    place = Place.REPLAY

    def __init__(self, recording: Recording, *, strict: bool) -> None:
        self.recording = recording
        self.strict = strict
        self.divergences: list[Divergence] = []
        self.ended: Divergence | None = None
        self.run: Run | None = None
        self._unrecorded = _UnrecordedRequests()

    def for_snapshot(self) -> NoReturn:
        """Raise ScopeError: a replay cannot be sent to another process."""
        raise ScopeError("a replay stays in its process: in another process, models would be called")

    def model(self, path: str, choice: object) -> LMProtocol:
        """A stand-in for the model of one predictor. ``choice``: the model that the predictor would use. What decides
        the request is taken from it: its name, settings and preferred adapter, and which formats it takes."""
        lm: Any = None
        if choice is not None:
            with contextlib.suppress(DspynbError):  # the model may not be available here
                lm = resolve_lm(choice)
        recording = self.recording
        return _RecordedModel(
            name=getattr(lm, "name", "recorded"),
            adapter=getattr(lm, "adapter", None),
            settings=None if lm is None else sent_settings(lm, _NO_REQUEST),
            constrains=path in recording.constrained if lm is None else getattr(lm, "constrains", False),
            native_tools=getattr(lm, "native_tools", False) or path in recording.native,
            returns_reasoning=path in recording.native_reasoning,
        )

    async def __call__(self, call: ModelCall, proceed: Proceed) -> LMReply:  # noqa: ARG002  # no model is called
        """The recorded reply. Budgets inside the program are charged as for a reply of a model."""
        return await BUDGET(call, self._answer_call)

    async def _answer_call(self, call: ModelCall) -> LMReply:
        return await self.answer(call.path, call.inputs, call.request, getattr(call.lm, "settings", None))

    async def answer(
        self, path: str, inputs: Mapping[str, Any], request: LMRequest, own_settings: Mapping[str, Any] | None = None
    ) -> LMReply:
        """The recorded reply to a request. Raises the recorded error, or ReplayDiverged.

        ``own_settings``: those of the model; None where they are not known.
        """
        if self.ended is not None:
            raise self._diverged(self.ended)
        sent = as_recorded(request.messages)
        call, same_prompt = self.recording.take(path, request.rollout, sent, redact_values(inputs))
        if call is None:
            await self._unrecorded.wait()
        settings = {} if call is None else changed_settings(call, request, own_settings)
        if not same_prompt or settings:
            is_known = path in self.recording.paths
            self._note(Divergence(path, request.rollout, sent, call, settings, is_known))
        await asyncio.sleep(0)  # as a model would, let other tasks run and a stop take effect
        assert call is not None  # noqa: S101  # else _note has raised
        return answer(call)

    def _note(self, divergence: Divergence) -> None:
        """Add a divergence. Raises ReplayDiverged where it ends the replay, or the replay has ended already."""
        if self.ended is None:
            self.divergences.append(divergence)
            if self.strict or divergence.recorded is None:
                self.ended = divergence
                if self.run is not None:
                    self.run.stop()  # ends concurrent work too, and programs that catch every error
        if self.ended is not None:
            raise self._diverged(self.ended)

    def _diverged(self, divergence: Divergence) -> ReplayDiverged:
        text = repr(divergence)
        if len(text) > 4000:
            text = f"{text[:4000]} … (.divergence has all of it)"
        advice = "; with strict=False differences are noted and the replay continues" if self.strict else ""
        return ReplayDiverged(f"the replay diverged{advice}. {text}", divergence, self.run)

    def emit(self, event: Event) -> None:
        """Follow the attempts of the run."""
        self._unrecorded.emit(event)

    def result(self, prediction: Prediction | None, error: Exception | None) -> Replay:
        """The result of the replay. Raises ReplayDiverged where a strict replay was ended by a divergence."""
        if self.strict and self.ended is not None:
            raise self._diverged(self.ended) from None
        calls = () if self.run is None else self.run.record.calls
        return Replay(
            prediction=prediction,
            complete=self.ended is None,
            divergences=tuple(self.divergences),
            calls=Calls(calls),
            unused=Calls(self.recording.unused()),
            error=error if self.ended is None else None,
            run=self.run,
        )


_NO_REQUEST = LMRequest(())


@dataclass(slots=True)
class _RecordedModel:
    """A stand-in for the model of a predictor. It is never called, since the replay answers first."""

    name: str
    adapter: Any
    settings: Mapping[str, Any] | None
    constrains: bool
    native_tools: bool
    returns_reasoning: bool

    async def complete(self, request: LMRequest) -> LMReply:  # noqa: ARG002
        raise ScopeError(f"a replay calls no model, but {self.name} was called")


@dataclass(eq=False, slots=True)
class _WaitingRequest:
    """A request without a recorded reply. ``attempts``: the attempts it is made in, innermost first."""

    attempts: Sequence[int]
    loop: asyncio.AbstractEventLoop
    released: asyncio.Event = field(default_factory=asyncio.Event)


class _UnrecordedRequests:
    """Requests that were not recorded, and that wait in attempts which run concurrently.

    When an attempt passes, its search cancels the attempts with higher numbers. Calls in a cancelled attempt never
    ended, so the recording does not have them. In a replay, such a call waits until it is cancelled again. It is a
    divergence only if no attempt with a lower number can pass any more, because all have ended or wait as well.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._number: dict[int, int] = {}  # span of an attempt → its number within its search, from 1
        self._search: dict[int, int] = {}  # span of an attempt → span of its search
        self._running: dict[int, set[int]] = {}  # span of a search → spans of its attempts that have not ended
        self._first_passed: dict[int, int] = {}  # span of a search → the lowest number of an attempt that passed
        self._requests: list[_WaitingRequest] = []

    def emit(self, event: Event) -> None:
        """Note the start and the end of attempts."""
        with self._lock:
            if isinstance(event, AttemptStarted):
                self._number[event.span] = event.attempt
                self._search[event.span] = event.parent
                self._running.setdefault(event.parent, set()).add(event.span)
            elif isinstance(event, AttemptEnded):
                self._running.get(event.parent, set()).discard(event.span)
                if event.state == "passed":
                    number = self._number.get(event.span, 0)
                    self._first_passed[event.parent] = min(number, self._first_passed.get(event.parent, number))
                self._release()

    async def wait(self) -> None:
        """Wait in the current attempt until no attempt is left that could still cancel it."""
        attempts = [layer.span for layer in current_scope().open_layers() if layer.attempt is not None]
        known_attempts = [span for span in attempts if span in self._search]
        if not known_attempts:
            return
        request = _WaitingRequest(known_attempts, asyncio.get_running_loop())
        with self._lock:
            self._requests.append(request)
            self._release()
        try:
            await request.released.wait()
        finally:
            with self._lock:
                self._requests.remove(request)

    def _release(self) -> None:
        """Release the requests whose attempts will not be cancelled."""
        waiting_attempts: set[int] = set()
        for request in self._requests:
            waiting_attempts.update(request.attempts)
        for request in self._requests:
            if not any(self._may_be_cancelled(attempt, waiting_attempts) for attempt in request.attempts):
                request.loop.call_soon_threadsafe(request.released.set)

    def _may_be_cancelled(self, attempt: int, waiting_attempts: set[int]) -> bool:
        search = self._search[attempt]
        number = self._number[attempt]
        will_be_cancelled = number > self._first_passed.get(search, number)
        lower_running = {span for span in self._running[search] if self._number[span] < number}
        return will_be_cancelled or not lower_running <= waiting_attempts
