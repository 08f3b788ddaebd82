"""The Scope: everything that differs from attempt to attempt, as one immutable value in one ContextVar.

A scope is a chain of layers, innermost first. Each layer that a block opened holds a Lease, closed when the block
ends. Code that outlives the block may still hold the chain, but a closed layer lends out nothing: no hint, candidate,
trace or span. Settings are not leased: an orphan keeps its model.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import sys
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from types import CodeType, FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Protocol, TypeVar

from dspynb.dataclass_init import fast_init
from dspynb.errors import BudgetExhausted, ScopeClosedWarning
from dspynb.scope.call_context import NO_CONTEXT, NO_SETTINGS, CallContext, Settings

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
    """What a scope needs to know of a run."""

    def emit(self, event: Event) -> None: ...

    def admit(self) -> None:
        """Called before each model call; raises when the run takes no more (stopped, budget spent)."""

    def call_began(self, task: asyncio.Task[Any] | None) -> None:
        """A task waits for a model: a stop may cancel it."""

    def call_ended(self, task: asyncio.Task[Any] | None) -> None:
        """It waits no longer."""


class Funds(Protocol):
    """What a scope needs to know of a budget (see ``budget.py``)."""

    covers: bool  # the funds of the layers below were charged when these were made

    def take(self, calls: int = 0, metric_calls: int = 0) -> None: ...

    def give_back(self, calls: int, metric_calls: int = 0) -> None: ...

    def add(self, usage: Usage, estimate: int = 0) -> None: ...

    def available(self) -> float: ...

    def metric_calls_left(self) -> float: ...


class Lease:
    """Whether the block that opened a layer is still running, and where it was opened."""

    __slots__ = ("closed", "code", "line", "marker", "name", "warned")

    def __init__(self, name: str, outer: Lease | None = None) -> None:
        """``outer``: of a block around it that the same line of the user's led to. To look for a line takes as long as
        the rest of a layer."""
        self.name = name
        self.code: CodeType
        self.line: int
        if outer is not None:
            self.code, self.line = outer.code, outer.line
        else:
            frame = _users_frame(sys._getframe(2))
            self.code, self.line = frame.f_code, frame.f_lineno
        self.closed = self.warned = False
        self.marker: str | None = None  # a file that a snapshot made, removed when the block ends

    def close(self) -> None:
        """The block has ended."""
        self.closed = True
        if self.marker is not None:
            with contextlib.suppress(OSError):
                os.unlink(self.marker)  # noqa: PTH108  # no Path on the way of every attempt

    def warn(self) -> None:
        """Issue one ScopeClosedWarning, however often an orphan comes back."""
        if not self.warned:
            self.warned = True
            warnings.warn(
                f"{_who()} outlived {self.name} (opened at {self.code.co_filename}:{self.line}) and made a call; "
                "its hints, candidate and trace no longer apply. Await it inside the block, or cancel it.",
                ScopeClosedWarning,
                stacklevel=3,
            )


def _users_frame(frame: FrameType) -> FrameType:
    """The nearest frame that is not ours; the first one where a task begins with our own code."""
    outer: FrameType | None = frame
    while outer is not None and outer.f_code.co_filename.startswith(_PACKAGE):
        outer = outer.f_back
    return frame if outer is None or outer.f_code.co_filename.startswith(_ASYNCIO) else outer


def users_line() -> tuple[str, int]:
    """File and line of the user's code that is running."""
    frame = _users_frame(sys._getframe(1))
    return frame.f_code.co_filename, frame.f_lineno


def warn_of(ended: tuple[Lease, ...]) -> None:
    """One warning for code that outlived several blocks at once: for the nearest attempt, else the nearest block."""
    attempts = [lease for lease in ended if lease.name.startswith("attempt")]
    (attempts or list(ended))[0].warn()
    for lease in ended:
        lease.warned = True


def _who() -> str:
    """The orphan: its task and where its coroutine is written, or its thread."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    if task is None:
        return f"code in the thread {threading.current_thread().name}"
    code: CodeType | None = getattr(task.get_coro(), "cr_code", None)
    where = f" (`{code.co_qualname}` at {code.co_filename}:{code.co_firstlineno})" if code else ""
    return f"the task {task.get_name()}{where}"


@dataclass(frozen=True, slots=True)
class HintLayer:
    """Hints of one layer: for every predictor (``text``), or by predictor uid (``by_uid``)."""

    text: str | None = None
    by_uid: Mapping[str, str] = field(default_factory=dict)
    hint_as: HintAs = "instruction"

    def get(self, uid: str) -> str | None:
        """The hint for a predictor; for a uid that no predictor has, the untargeted text alone."""
        return self.by_uid.get(uid, self.text)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a scope says about one predictor: its hints, outermost first, and the candidate's Part."""

    hints: tuple[tuple[HintAs, str], ...]
    candidate: Any
    ended: tuple[Lease, ...] = ()  # of blocks that the code has outlived

    def hint(self, hint_as: HintAs | None = None) -> str | None:
        """The composed hint, a line each; of one kind, or all. None when there is none."""
        if not self.hints:
            return None
        return "\n".join(text for kind, text in self.hints if hint_as in (None, kind)) or None


_NOTHING = Reading((), None)


@dataclass(frozen=True, slots=True)
class Attempt:
    """Which attempt of a search the code is in; numbers count from 1."""

    number: int
    wave: int


@fast_init
@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """One layer on top of its parent. Read through ``current_scope()``; made by ``with`` blocks."""

    parent: Scope | None = None
    lease: Lease | None = None
    settings: Settings = NO_SETTINGS  # merged with the parents'
    context: CallContext = NO_CONTEXT  # merged with the parents'
    hints: HintLayer | None = None
    candidate: Mapping[str, Any] | None = None  # predictor uid -> candidates.Part
    masks: bool = False  # hides the hints, candidates and traces of the layers below
    trace: Sink | None = None  # hears the program's events; those under a mask are not the program's
    port: RunPort | None = None  # the run this layer belongs to; hears everything
    funds: Funds | None = None  # what calls are charged to
    funded: bool = False  # whether this layer or one below it has funds
    span: int = 0
    attempt: Attempt | None = None
    row: tuple[int, int] | None = None  # of a batch or evaluation: its number, and which repeat

    # The readers below are plain loops: they run several times a model call.

    def read(self, uid: str) -> Reading:
        """All that the layers say about a predictor. Layers whose block has ended lend nothing."""
        hints: list[tuple[HintAs, str]] = []
        ended: list[Lease] = []
        candidate, masked = None, False
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
        """The hints in force here that are addressed to no one in particular, outermost first."""
        return self.read("").hint()

    def emit(self, event: Event) -> None:
        """Hand an event to every open run and trace of the chain; a mask keeps it from the traces below."""
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
        """Ask every run of the chain, open or ended, whether model calls may start, and take them from the budgets."""
        layer: Scope | None = self
        while layer is not None:
            if layer.port is not None:
                layer.port.admit()
            layer = layer.parent
        self.take(calls)

    def _funds(self) -> Iterator[Funds]:
        """What a call is charged to: the open layers' funds, innermost first, down to those that cover the rest."""
        layer: Scope | None = self
        while layer is not None:
            funds = layer.funds
            if funds is not None:
                if layer.lease is not None and layer.lease.closed:
                    funds.take()  # of a block that has ended: charged no more, but refused once it was spent
                else:
                    yield funds
                    if funds.covers:
                        return
            layer = layer.parent

    def take(self, calls: int = 0, metric_calls: int = 0) -> None:
        """Take calls from every budget in force, or from none. Raises BudgetExhausted."""
        if not self.funded:
            return
        taken: list[Funds] = []
        try:
            for funds in self._funds():
                funds.take(calls, metric_calls)
                taken.append(funds)
        except BudgetExhausted:
            for funds in taken:
                funds.give_back(calls, metric_calls)
            raise

    def give_back(self, calls: int, metric_calls: int = 0) -> None:
        """What was taken and not used."""
        for funds in self._funds():
            funds.give_back(calls, metric_calls)

    def settle(self, usage: Usage, *, cached: bool, estimate: int = 0) -> None:
        """A call that was taken has ended: count what it cost, or give it back where a cache answered. ``estimate``:
        the tokens to count where the usage does not have them."""
        if not self.funded:
            return
        if cached:
            self.give_back(1)
            return
        for layer in self.open_layers():
            if layer.funds is not None:
                layer.funds.add(usage, estimate)

    def charge(self, calls: int, metric_calls: int, usage: Usage, estimate: int = 0) -> None:
        """Count what was spent elsewhere under these budgets: it was granted, and is not refused any more."""
        if not self.funded:
            return
        self.give_back(-calls, -metric_calls)
        for layer in self.open_layers():
            if layer.funds is not None:
                layer.funds.add(usage, estimate)

    def available(self) -> float:
        """How many calls the budgets in force have left; infinite without a limit."""
        return min((funds.available() for funds in self._funds()), default=math.inf)

    def metric_calls_left(self) -> float:
        """How many metric calls they have left; infinite without a limit."""
        return min((funds.metric_calls_left() for funds in self._funds()), default=math.inf)

    async def in_flight(self, call: Awaitable[T]) -> T:
        """Await a model; while it lasts, the running task is one that every open run of the chain may cancel."""
        task = asyncio.current_task()
        ports: list[RunPort] = []
        layer: Scope | None = self
        while layer is not None:
            if layer.port is not None and not (layer.lease and layer.lease.closed):
                ports.append(layer.port)
            layer = layer.parent
        for port in ports:
            port.call_began(task)
        try:
            return await call
        finally:
            for port in ports:
                port.call_ended(task)

    @property
    def nearest_lease(self) -> Lease | None:
        """That of the innermost layer that has one."""
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
        """The nearest span that has not ended, 0 for none."""
        layer: Scope | None = self
        while layer is not None:
            if layer.span and not (layer.lease and layer.lease.closed):
                return layer.span
            layer = layer.parent
        return 0

    @property
    def open_row(self) -> tuple[int, int] | None:
        """The outermost row that has not ended: its number, and which repeat."""
        return next((layer.row for layer in reversed([*self.open_layers()]) if layer.row is not None), None)

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
    """The scope in force here, to be passed by hand where Python does not take it: ``scope.run(fn, …)``, or
    ``await scope.arun(fn, …)``.

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
    """``with Layer(name, hints=...) as scope``: one more layer for the block, and a lease that ends with it.

    ``outer``: a lease around it, where the same line of the user's led to both. ``settings``, ``context``: those in
    force in the block, made from those around it with ``dataclasses.replace``; None leaves them as they are.
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
            parent=None if below is ROOT else below,  # which has nothing to lend
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
        """Charge the calls of all tasks under this layer to funds from now on: of a run that gets a budget while it
        runs. The one thing that is set in a scope in force; calls under layers opened in it before go uncharged."""
        object.__setattr__(self.scope, "funds", funds)
        object.__setattr__(self.scope, "funded", True)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._lease is not None:
            self._lease.close()  # before the reset: no moment in which an ended block still lends
        leave(self._token)


class Block:
    """Base of the ``with`` blocks that users write. One object may be entered many times, nested or concurrently."""

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
        """The layer of ours that is in force here; where none is (left in another context), the last one opened."""
        mine = {id(layer.scope): layer for layer in self._open}
        scope: Scope | None = _current.get()
        while scope is not None:
            if id(scope) in mine:
                return mine[id(scope)]
            scope = scope.parent
        return self._open[-1]


def leave(token: Token[Scope] | None) -> None:
    """Undo a ``set``. A block that is left in another context (a generator's finalizer, a later cell) has nothing to
    undo there: its lease is closed, which is what ends it."""
    if token is None:
        return
    try:
        _current.reset(token)
    except ValueError:
        return
