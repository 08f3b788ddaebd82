"""The Scope: everything that differs from attempt to attempt, as one immutable value in one ContextVar.

A scope is a chain of layers, innermost first. Each layer that a block opened holds a Lease, closed when the block
ends. Code that outlives the block may still hold the chain, but a closed layer lends out nothing: no hint, candidate,
trace or span. Settings are not leased: an orphan keeps its model.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from types import CodeType, MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Protocol, TypeVar

from dspynb.errors import ScopeClosedWarning

if TYPE_CHECKING:
    from dspynb.events import Event, Sink

__all__ = ["Attempt", "HintLayer", "Layer", "Lease", "RunPort", "Scope", "current_attempt", "current_scope"]

P = ParamSpec("P")
T = TypeVar("T")
HintAs = Literal["instruction", "field"]
_EMPTY: Mapping[str, Any] = MappingProxyType({})


def _nothing() -> Mapping[str, Any]:
    return _EMPTY


class RunPort(Protocol):
    """What a scope needs to know of a run."""

    def emit(self, event: Event) -> None: ...

    def admit(self) -> None:
        """Called before each model call; raises when the run takes no more (stopped, budget spent)."""


class Lease:
    """Whether the block that opened a layer is still running, and where it was opened."""

    __slots__ = ("closed", "code", "line", "name", "warned")

    def __init__(self, name: str, depth: int = 2) -> None:
        frame = sys._getframe(depth)
        self.name = name
        self.code: CodeType = frame.f_code
        self.line = frame.f_lineno
        self.closed = self.warned = False

    def warn(self) -> None:
        """Issue one ScopeClosedWarning, however often an orphan comes back."""
        if not self.warned:
            self.warned = True
            warnings.warn(
                f"code that outlived {self.name} (opened at {self.code.co_filename}:{self.line}) made a call; "
                "its hints, candidate and trace no longer apply. Await it inside the block, or cancel it.",
                ScopeClosedWarning,
                stacklevel=3,
            )


@dataclass(frozen=True, slots=True)
class HintLayer:
    """Hints of one layer: for every predictor (``text``), or by predictor uid (``by_uid``)."""

    text: str | None = None
    by_uid: Mapping[str, str] = field(default_factory=_nothing)
    hint_as: HintAs = "instruction"

    def get(self, uid: str | None) -> str | None:
        """The hint for a predictor, or the untargeted text alone when ``uid`` is None."""
        return self.text if uid is None else self.by_uid.get(uid, self.text)


@dataclass(frozen=True, slots=True)
class Attempt:
    """Which attempt of a search the code is in; numbers count from 1."""

    number: int
    wave: int


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """One layer on top of its parent. Read through ``current_scope()``; made by ``with`` blocks."""

    parent: Scope | None = None
    lease: Lease | None = None
    settings: Mapping[str, Any] = field(default_factory=_nothing)  # merged with the parents'
    hints: HintLayer | None = None
    candidate: Mapping[str, Any] | None = None  # predictor uid -> (instruction, demos)
    masks: bool = False  # hides the hints, candidates and traces of the layers below
    trace: Sink | None = None  # hears the program's events; those under a mask are not the program's
    port: RunPort | None = None  # the run this layer belongs to; hears everything
    span: int = 0
    attempt: Attempt | None = None

    def chain(self) -> Iterator[Scope]:
        """The layers, innermost first."""
        layer: Scope | None = self
        while layer is not None:
            yield layer
            layer = layer.parent

    def open_layers(self) -> Iterator[Scope]:
        """The layers whose block is still running."""
        return (layer for layer in self.chain() if layer.lease is None or not layer.lease.closed)

    def visible(self) -> Iterator[Scope]:
        """The open layers down to the first mask."""
        for layer in self.chain():
            if layer.lease is None or not layer.lease.closed:
                yield layer
            if layer.masks:
                return

    def composed_hint(self, uid: str | None, hint_as: HintAs | None = None) -> str | None:
        """The hints in force for a predictor, outermost first, a line each; None when there are none."""
        texts = [
            text
            for layer in self.visible()
            if layer.hints and hint_as in (None, layer.hints.hint_as) and (text := layer.hints.get(uid))
        ]
        return "\n".join(reversed(texts)) if texts else None

    def candidate_for(self, uid: str) -> Any:
        """The innermost scoped candidate's entry for a predictor, or None."""
        for layer in self.visible():
            if layer.candidate is not None and uid in layer.candidate:
                return layer.candidate[uid]
        return None

    def warn_if_orphan(self) -> None:
        """Issue each closed layer's ScopeClosedWarning, once a layer."""
        for layer in self.chain():
            if layer.lease is not None and layer.lease.closed:
                layer.lease.warn()

    def emit(self, event: Event) -> None:
        """Hand an event to every open run and trace of the chain; a mask keeps it from the traces below."""
        masked = False
        for layer in self.chain():
            if layer.lease is None or not layer.lease.closed:
                if layer.port is not None:
                    layer.port.emit(event)
                if layer.trace is not None and not masked:
                    layer.trace.emit(event)
            masked = masked or layer.masks

    def admit(self) -> None:
        """Ask every run of the chain, open or ended, whether one more model call may start."""
        for layer in self.chain():
            if layer.port is not None:
                layer.port.admit()

    @property
    def open_run(self) -> RunPort | None:
        """The nearest run that has not ended."""
        return next((layer.port for layer in self.open_layers() if layer.port is not None), None)

    @property
    def open_span(self) -> int:
        """The nearest span that has not ended, 0 for none."""
        return next((layer.span for layer in self.open_layers() if layer.span), 0)

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
    """The scope in force here."""
    return _current.get()


def current_attempt() -> Attempt | None:
    """The number and wave of the attempt this code runs in, or None outside of one."""
    return next((layer.attempt for layer in current_scope().open_layers() if layer.attempt), None)


class Layer:
    """``with Layer(name, hints=...) as scope``: one more layer for the block, and a lease that ends with it."""

    __slots__ = ("_changes", "_lease", "_token", "scope")
    _token: Token[Scope] | None
    scope: Scope

    def __init__(self, name: str | None, *, depth: int = 3, **changes: Any) -> None:
        self._lease = None if name is None else Lease(name, depth)
        self._changes = changes

    def __enter__(self) -> Scope:
        below = _current.get()
        settings = self._changes.pop("settings", None)
        merged = below.settings if not settings else {**below.settings, **settings}
        self.scope = Scope(parent=below, lease=self._lease, settings=merged, **self._changes)
        self._token = _current.set(self.scope)
        return self.scope

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._lease is not None:
            self._lease.closed = True  # before the reset: no moment in which an ended block still lends
        leave(self._token)


def leave(token: Token[Scope] | None) -> None:
    """Undo a ``set``. A block that is left in another context (a generator's finalizer, a later cell) has nothing to
    undo there: its lease is closed, which is what ends it."""
    if token is None:
        return
    try:
        _current.reset(token)
    except ValueError:
        return
