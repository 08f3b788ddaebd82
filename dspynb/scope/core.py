"""The Scope: everything that differs from attempt to attempt, as one immutable value in one ContextVar.

A scope is a chain of layers, innermost first. A layer that a ``with`` block opened holds a Lease, which is closed when
the block ends. Code that outlives the block may still hold the chain, but a layer with a closed lease provides nothing:
no hint, candidate, trace or span. Settings are not leased: code that outlives its block keeps its model.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import sys
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from types import CodeType, FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, ParamSpec, Protocol, TypeVar

from dspynb.dataclass_init import fast_init
from dspynb.errors import BudgetExhausted, ScopeClosedWarning
from dspynb.scope.amounts import NOTHING, Amounts, Cost
from dspynb.scope.call_context import NO_CONTEXT, NO_SETTINGS, CallContext, Settings
from dspynb.scope.clock import Clock
from dspynb.scope.ledger import Ledger
from dspynb.scope.reservation import RESERVATION, OpenStep, Reservation, next_position
from dspynb.scope.reserving import reserve

if TYPE_CHECKING:
    from dspynb.data import Usage
    from dspynb.events import Event, Sink

__all__ = [
    "Attempt",
    "Funds",
    "HintLayer",
    "Layer",
    "Lease",
    "Reading",
    "RunPort",
    "Scope",
    "current_attempt",
    "current_scope",
]

P = ParamSpec("P")
T = TypeVar("T")
HintAs = Literal["instruction", "field"]
_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep  # noqa: PTH120  # compared with co_filename
_ASYNCIO = os.path.dirname(asyncio.__file__)  # noqa: PTH120


class RunPort(Protocol):
    """The part of a run that a scope uses."""

    def emit(self, event: Event) -> None: ...

    def admit(self) -> None:
        """Called before each model call. Raises when the run is stopped or its budget is spent."""

    def call_began(self, task: asyncio.Task[Any] | None) -> None:
        """A task has begun to wait for a model: a stop may cancel it."""

    def call_ended(self, task: asyncio.Task[Any] | None) -> None:
        """The task has stopped waiting for the model."""

    def stream_began(self, call: Any) -> None:
        """The reply of a call will arrive as a stream: a ``StreamedCall``."""


class SpendingLimits(NamedTuple):
    """The ledgers and clocks of the budgets in force, and the open steps, innermost first."""

    ledgers: Sequence[Ledger]
    clocks: Sequence[Clock]
    steps: Sequence[OpenStep]


class Funds(Protocol):
    """The part of a budget that a scope uses (see ``budget.py``)."""

    covers: bool  # whether the funds of the layers below were already charged when these funds were created
    ledger: Ledger | None  # where tokens and USD are reserved; None where they are not limited
    is_free: bool  # whether the work costs nothing, so that the budgets around it do not matter
    step: OpenStep | None  # the step that these funds belong to; None for those of a budget

    @property
    def clock(self) -> Clock | None:
        """The time of the budget; None where it is not limited."""

    def take(self, calls: int = 0, metric_calls: int = 0) -> None: ...

    def give_back(self, calls: int, metric_calls: int = 0) -> None: ...

    def add(self, usage: Usage, estimate: int = 0, reservation: Reservation | None = None) -> None: ...

    def settle_unknown(self, reservation: Reservation) -> Amounts: ...

    def available(self) -> float: ...

    def metric_calls_left(self) -> float: ...


class Lease:
    """Says whether the block that opened a layer is still running, and where the block was opened."""

    __slots__ = ("closed", "code", "line", "marker", "name", "warned")

    def __init__(self, name: str, outer: Lease | None = None) -> None:
        """``outer``: the lease of a block around this one that was opened by the same line of the user's code. That
        line is then reused, since to look it up takes as long as the rest of a layer."""
        self.name = name
        self.code: CodeType
        self.line: int
        if outer is not None:
            self.code = outer.code
            self.line = outer.line
        else:
            frame = _users_frame(sys._getframe(2))
            self.code = frame.f_code
            self.line = frame.f_lineno
        self.closed = False
        self.warned = False
        self.marker: str | None = None  # a file that a snapshot created; it is removed when the block ends

    def close(self) -> None:
        """Close the lease when its block ends, and remove the marker file of its snapshots."""
        self.closed = True
        if self.marker is not None:
            with contextlib.suppress(OSError):
                os.unlink(self.marker)  # noqa: PTH108  # a Path would cost time in every attempt

    def warn(self) -> None:
        """Issue a ScopeClosedWarning, once for each lease."""
        if not self.warned:
            self.warned = True
            warnings.warn(
                f"{_running_code()} outlived {self.name} (opened at {self.code.co_filename}:{self.line}) and made a "
                "call; its hints, candidate and trace no longer apply. Await it inside the block, or cancel it.",
                ScopeClosedWarning,
                stacklevel=3,
            )


def _users_frame(frame: FrameType) -> FrameType:
    """The nearest frame outside this package; ``frame`` itself in a task that this package has started."""
    outer: FrameType | None = frame
    while outer is not None and outer.f_code.co_filename.startswith(_PACKAGE):
        outer = outer.f_back
    if outer is None or outer.f_code.co_filename.startswith(_ASYNCIO):
        return frame
    return outer


quiet: ContextVar[bool] = ContextVar("dspynb_quiet", default=False)
"""Whether ``warn_user`` issues no warnings: while a forecast tries a search on results that are made up."""


def warn_user(message: str, category: type[Warning]) -> None:
    """Issue a warning at the line of the user's code that called this package."""
    if quiet.get():
        return
    warnings.warn_explicit(message, category, *_users_line())


def _users_line() -> tuple[str, int]:
    """The file and line of the user's code that called this package. In a task that this package has started, the line
    that opened the innermost block around the task: most often the line of the call."""
    frame = _users_frame(sys._getframe(2))
    if not frame.f_code.co_filename.startswith(_PACKAGE):
        return frame.f_code.co_filename, frame.f_lineno
    layer: Scope | None = current_scope()
    while layer is not None:
        lease = layer.lease
        if lease is not None and not lease.code.co_filename.startswith(_PACKAGE):
            return lease.code.co_filename, lease.line
        layer = layer.parent
    return frame.f_code.co_filename, frame.f_lineno


def warn_of(ended: tuple[Lease, ...]) -> None:
    """Warn once of code that outlived several blocks: of the nearest attempt, or else of the nearest block."""
    nearest = ended[0]
    for lease in ended:
        if lease.name.startswith("attempt"):
            nearest = lease
            break
    nearest.warn()
    for lease in ended:
        lease.warned = True


def _running_code() -> str:
    """The running task with the place of its coroutine, or the running thread."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    if task is None:
        return f"code in the thread {threading.current_thread().name}"
    code: CodeType | None = getattr(task.get_coro(), "cr_code", None)
    if code is None:
        return f"the task {task.get_name()}"
    return f"the task {task.get_name()} (`{code.co_qualname}` at {code.co_filename}:{code.co_firstlineno})"


@dataclass(frozen=True, slots=True)
class HintLayer:
    """The hints of one layer: one for all predictors (``text``), or one for each predictor uid (``by_uid``)."""

    text: str | None = None
    by_uid: Mapping[str, str] = field(default_factory=dict)
    hint_as: HintAs = "instruction"

    def get(self, uid: str) -> str | None:
        """The hint for a predictor; the text for all predictors where ``by_uid`` has none."""
        return self.by_uid.get(uid, self.text)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a scope says about one predictor: its hints, outermost first, and the candidate's Part."""

    hints: tuple[tuple[HintAs, str], ...]
    candidate: Any
    ended: tuple[Lease, ...] = ()  # the closed leases in the chain: the running code has outlived their blocks

    def hint(self, hint_as: HintAs | None = None) -> str | None:
        """The composed hint, one line for each hint; ``hint_as`` selects one kind. None when there is no hint."""
        if not self.hints:
            return None
        return "\n".join(text for kind, text in self.hints if hint_as in (None, kind)) or None


_NOTHING = Reading((), None)


@fast_init
@dataclass(frozen=True, slots=True)
class Attempt:
    """The attempt of a search that the code runs in; numbers and waves count from 1."""

    number: int
    wave: int


@fast_init
@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """One layer on top of its parent. ``with`` blocks create scopes; ``current_scope()`` returns the one in force."""

    parent: Scope | None = None
    lease: Lease | None = None
    settings: Settings = NO_SETTINGS  # merged with the parents'
    context: CallContext = NO_CONTEXT  # merged with the parents'
    hints: HintLayer | None = None
    candidate: Mapping[str, Any] | None = None  # predictor uid -> candidates.Part
    masks: bool = False  # hides the hints, candidates and traces of the layers below
    trace: Sink | None = None  # receives the program's events; events under a mask are not the program's
    port: RunPort | None = None  # the run of this layer; receives all events
    funds: Funds | None = None  # the budget that calls are charged to
    funded: bool = False  # whether this layer or one below it has funds
    span: int = 0
    attempt: Attempt | None = None
    row: tuple[int, int] | None = None  # the row of a batch or evaluation: its number, and which repeat

    # The methods below are plain loops, since they run several times in each model call.

    def read(self, uid: str) -> Reading:
        """Collect the hints and the candidate for a predictor. Layers whose block has ended provide nothing."""
        hints: list[tuple[HintAs, str]] = []
        ended: list[Lease] = []
        candidate = None
        masked = False
        layer: Scope | None = self
        while layer is not None:
            if layer.lease is not None and layer.lease.closed:
                ended.append(layer.lease)
            elif not masked:
                if layer.hints is not None and (text := layer.hints.get(uid)):
                    hints.append((layer.hints.hint_as, text))
                if candidate is None and layer.candidate is not None:
                    candidate = layer.candidate.get(uid)
            masked = masked or layer.masks
            layer = layer.parent
        if not hints and candidate is None and not ended:
            return _NOTHING
        hints.reverse()
        return Reading(tuple(hints), candidate, tuple(ended))

    def visible(self) -> Iterator[Scope]:
        """The layers whose block is still running, innermost first, down to the first mask."""
        layer: Scope | None = self
        while layer is not None:
            if layer.lease is None or not layer.lease.closed:
                yield layer
            layer = None if layer.masks else layer.parent

    def untargeted_hint(self) -> str | None:
        """The hints in force here for all predictors, outermost first; None when there is none."""
        return self.read("").hint()

    def emit(self, event: Event) -> None:
        """Pass an event to every open run and trace of the chain, except for traces below a mask."""
        masked = False
        layer: Scope | None = self
        while layer is not None:
            if layer.lease is None or not layer.lease.closed:
                if layer.port is not None:
                    layer.port.emit(event)
                if layer.trace is not None and not masked:
                    layer.trace.emit(event)
            masked = masked or layer.masks
            layer = layer.parent

    def admit(self, calls: int = 1) -> None:
        """Check with every run of the chain, open or ended, that calls may start; then take them from the budgets."""
        layer: Scope | None = self
        while layer is not None:
            if layer.port is not None:
                layer.port.admit()
            layer = layer.parent
        self.take(calls)

    def _funds(self) -> Iterator[Funds]:
        """The funds that a call is charged to: those of open layers, innermost first, down to funds with ``covers``."""
        layer: Scope | None = self
        while layer is not None:
            funds = layer.funds
            if funds is not None:
                if layer.lease is not None and layer.lease.closed:
                    funds.take()  # its block has ended: nothing is charged, but a spent budget still refuses the call
                else:
                    yield funds
                    if funds.covers:
                        return
            layer = layer.parent

    def take(self, calls: int = 0, metric_calls: int = 0) -> None:
        """Take calls from every budget in force, or from none. Raises BudgetExhausted."""
        if not self.funded:
            return
        charged: list[Funds] = []
        layer: Scope | None = self
        try:
            while layer is not None:
                funds = layer.funds
                if funds is not None:
                    if layer.lease is not None and layer.lease.closed:
                        funds.take()  # nothing is charged, but a spent budget still refuses the call
                    else:
                        funds.take(calls, metric_calls)
                        if funds.covers:
                            return
                        charged.append(funds)
                layer = layer.parent
        except BudgetExhausted:
            for funds in charged:
                funds.give_back(calls, metric_calls)
            raise

    def give_back(self, calls: int, metric_calls: int = 0) -> None:
        """Return calls that were taken and not used to every budget in force."""
        for funds in self._funds():
            funds.give_back(calls, metric_calls)

    def _all_funds(self) -> Iterator[Funds]:
        """The funds of all open layers, innermost first, down to those of work that costs nothing."""
        layer: Scope | None = self
        while layer is not None:
            funds = layer.funds
            if funds is not None and (layer.lease is None or not layer.lease.closed):
                yield funds
                if funds.is_free:
                    return
            layer = layer.parent

    def spending_limits(self) -> SpendingLimits:
        """What limits the tokens, USD and seconds of a call here."""
        ledgers: list[Ledger] = []
        clocks: list[Clock] = []
        steps: list[OpenStep] = []
        layer: Scope | None = self
        while layer is not None:
            funds = layer.funds
            if funds is not None and (layer.lease is None or not layer.lease.closed):
                if funds.is_free:
                    break
                if funds.step is not None:
                    steps.append(funds.step)
                elif funds.ledger is not None:
                    ledgers.append(funds.ledger)
                if funds.clock is not None:
                    clocks.append(funds.clock)
            layer = layer.parent
        return SpendingLimits(ledgers, clocks, steps)

    @staticmethod
    def reservation(
        cost: Cost, steps: Sequence[OpenStep], count_prompt: Callable[[], int | None] | None = None
    ) -> Reservation:
        """A reservation for the next request inside these steps, which reserves nothing yet. ``count_prompt``: counts
        the tokens of its prompt exactly, which is done near a limit."""
        outer = RESERVATION.get()
        if outer is not None:
            outer.cancel()  # a model that calls other models costs what they cost
        position = next_position(steps) if outer is None else outer.inner_position()
        return Reservation(position, cost, steps, count_prompt)

    async def reserve(self, reservation: Reservation) -> bool:
        """Reserve what the next try of a request may cost, unless it has ended, in every budget of tokens or USD in
        force, and wait for its turn where it must. Returns whether it had to wait. Raises BudgetExhausted."""
        return not reservation.is_closed and await reserve(self.spending_limits().ledgers, reservation)

    def settle(self, usage: Usage, *, cached: bool, estimate: int = 0, reservation: Reservation | None = None) -> None:
        """Count the cost of a call that has ended, or give the call back if a cache answered it. ``estimate``: the
        tokens to count where the usage has none. ``reservation``: what was reserved for the call."""
        if not self.funded:
            return
        if cached:
            self.give_back(1)
            if reservation is not None:
                reservation.cancel()
            return
        for funds in self._all_funds():
            funds.add(usage, estimate, reservation)
        if reservation is not None and reservation.amounts:
            reservation.cancel()  # in ledgers whose block has ended meanwhile

    def settle_unknown(self, reservation: Reservation) -> Amounts:
        """Count what a request may have cost whose cost nobody knows, since it was stopped, and return it."""
        amounts = NOTHING
        for funds in self._all_funds():
            amounts = amounts.largest(funds.settle_unknown(reservation))
        reservation.cancel()
        return amounts

    def charge(self, calls: int, metric_calls: int, usage: Usage, estimate: int = 0) -> None:
        """Count what was already spent elsewhere under these budgets. Nothing is refused: it was granted there."""
        if not self.funded:
            return
        self.give_back(-calls, -metric_calls)
        for funds in self._all_funds():
            funds.add(usage, estimate)

    def available(self) -> float:
        """The number of calls that the budgets in force have left; infinite without a limit."""
        return min((funds.available() for funds in self._funds()), default=math.inf)

    def metric_calls_left(self) -> float:
        """The number of metric calls that the budgets in force have left; infinite without a limit."""
        return min((funds.metric_calls_left() for funds in self._funds()), default=math.inf)

    async def in_flight(self, call: Awaitable[T]) -> T:
        """Await a model call. Until it ends, each run around it that has not ended can cancel the current task."""
        task = asyncio.current_task()
        runs = self.open_runs()
        for run in runs:
            run.call_began(task)
        try:
            return await call
        finally:
            for run in runs:
                run.call_ended(task)

    def open_runs(self) -> list[RunPort]:
        """The runs around this scope that have not ended, innermost first."""
        runs: list[RunPort] = []
        layer: Scope | None = self
        while layer is not None:
            if layer.port is not None and not (layer.lease and layer.lease.closed):
                runs.append(layer.port)
            layer = layer.parent
        return runs

    @property
    def nearest_lease(self) -> Lease | None:
        """The innermost lease of the chain, or None."""
        layer: Scope | None = self
        while layer is not None:
            if layer.lease is not None:
                return layer.lease
            layer = layer.parent
        return None

    def open_layers(self) -> Iterator[Scope]:
        """The layers whose block is still running, innermost first."""
        layer: Scope | None = self
        while layer is not None:
            if layer.lease is None or not layer.lease.closed:
                yield layer
            layer = layer.parent

    @property
    def open_run(self) -> RunPort | None:
        """The nearest run that has not ended."""
        layer: Scope | None = self
        while layer is not None:
            if layer.port is not None and not (layer.lease and layer.lease.closed):
                return layer.port
            layer = layer.parent
        return None

    @property
    def open_span(self) -> int:
        """The nearest span that has not ended; 0 where there is none."""
        layer: Scope | None = self
        while layer is not None:
            if layer.span and not (layer.lease and layer.lease.closed):
                return layer.span
            layer = layer.parent
        return 0

    @property
    def open_row(self) -> tuple[int, int] | None:
        """The outermost row that has not ended: its number, and which repeat."""
        outermost = None
        for layer in self.open_layers():
            if layer.row is not None:
                outermost = layer.row
        return outermost

    @property
    def open_attempt(self) -> Attempt | None:
        """The nearest attempt that has not ended."""
        layer: Scope | None = self
        while layer is not None:
            if layer.attempt is not None and not (layer.lease and layer.lease.closed):
                return layer.attempt
            layer = layer.parent
        return None

    def run(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``fn`` under this scope (see also ``carry``)."""
        token = _current.set(self)
        try:
            return fn(*args, **kwargs)
        finally:
            _current.reset(token)

    async def arun(self, fn: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Await ``fn(...)`` under this scope."""
        token = _current.set(self)
        try:
            return await fn(*args, **kwargs)
        finally:
            _current.reset(token)


ROOT = Scope()
_current: ContextVar[Scope] = ContextVar("dspynb_scope", default=ROOT)


def current_scope() -> Scope:
    """The scope in force here. Where Python does not propagate it, call ``scope.run(fn, …)`` or ``await
    scope.arun(fn, …)``.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> with dn.hints("Be brief."), ThreadPoolExecutor() as pool:
    ...     scope = dn.current_scope()
    ...     pool.submit(dn.current_hint).result(), pool.submit(scope.run, dn.current_hint).result()
    (None, 'Be brief.')
    """
    return _current.get()


def current_attempt() -> Attempt | None:
    """The number and wave of the attempt this code runs in, or None outside of one.

    >>> lm = dn.FunctionLM(lambda request: f"answer: {dn.current_attempt().number}")
    >>> best = dn.BestOfN(dn.Predict("question -> answer", lm=lm), lambda row, prediction: prediction.answer == "2")
    >>> best.run_sync(question="Which attempt is this?").answer
    '2'
    >>> dn.current_attempt() is None
    True
    """
    return current_scope().open_attempt


class Layer:
    """``with Layer(name, hints=...) as scope``: one more layer for the block, and a lease that ends with the block.

    ``name``: how warnings call the block; None for a layer without a lease. ``outer``: the lease of a block around this
    one that was opened by the same line of the user's code. ``settings``, ``context``: the values in force in the
    block; None leaves those around it in force. ``changes``: further fields of the Scope.
    """

    __slots__ = ("_changes", "_context", "_funds", "_lease", "_settings", "_token", "scope")
    _token: Token[Scope] | None
    scope: Scope

    def __init__(
        self,
        name: str | None,
        *,
        outer: Lease | None = None,
        settings: Settings | None = None,
        context: CallContext | None = None,
        funds: Funds | None = None,
        **changes: Any,
    ) -> None:
        self._lease = None if name is None else Lease(name, outer)
        self._settings = settings
        self._context = context
        self._funds = funds
        self._changes = changes

    def __enter__(self) -> Scope:
        below = _current.get()
        self.scope = Scope(
            parent=None if below is ROOT else below,  # the root provides nothing
            lease=self._lease,
            settings=self._settings or below.settings,
            context=self._context or below.context,
            funds=self._funds,
            funded=below.funded or self._funds is not None,
            **self._changes,
        )
        self._token = _current.set(self.scope)
        return self.scope

    def fund(self, funds: Funds) -> None:
        """Charge calls under this layer to ``funds`` from now on: for a run that gets a budget while it runs.

        This is the only change ever made to a scope in force. Calls under layers that are already open inside this one
        are not charged.
        """
        object.__setattr__(self.scope, "funds", funds)
        object.__setattr__(self.scope, "funded", True)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._lease is not None:
            self._lease.close()  # before the reset, so that an ended block never provides anything
        leave(self._token)


class Block:
    """Base of the public ``with`` blocks. One object may be entered many times, nested or concurrently."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: list[Layer] = []

    def _layer(self) -> Layer:
        raise NotImplementedError

    def __enter__(self) -> Any:
        layer = self._layer()
        scope = layer.__enter__()
        self._open.append(layer)
        return scope

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        layer = self._innermost_here()
        self._open.remove(layer)
        layer.__exit__(kind, error, tb)

    def _innermost_here(self) -> Layer:
        """The innermost layer of this block in the scope in force; the last one opened if none is in force here."""
        open_layers = {id(layer.scope): layer for layer in self._open}
        scope: Scope | None = _current.get()
        while scope is not None:
            if id(scope) in open_layers:
                return open_layers[id(scope)]
            scope = scope.parent
        return self._open[-1]


def leave(token: Token[Scope] | None) -> None:
    """Restore the scope of before a block. Does nothing in another context than that in which the block was entered
    (a generator's finalizer, a later cell): there the block ends because its lease is closed."""
    if token is None:
        return
    try:
        _current.reset(token)
    except ValueError:
        return
