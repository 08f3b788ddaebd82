"""The chain of a model call: interceptors around the function that calls the model, similar to httpx transports.

An interceptor returns a reply of its own, or awaits ``proceed(call)`` for the reply of the rest of the chain.
Interceptors are internal. Users write models (any object with ``async complete(request)``), which need none. To add an
interceptor, give it a place in ``Place`` (scope/call_context.py). Apply it to a block with
``CallContext.with_interceptor``, or to one kind of model as ``LM`` does in ``_links``.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import Any, Protocol

from dspynb.data import Usage
from dspynb.lm.protocol import LMProtocol, LMReply, LMRequest, PieceCallback, sent_settings
from dspynb.running.streamed_calls import StreamedCall
from dspynb.scope.call_context import Place
from dspynb.scope.core import Scope
from dspynb.scope.reservation import Reservation

__all__ = ["Interceptor", "Links", "ModelCall", "Pending", "Proceed", "chain", "links_of"]


class Flights(Protocol):
    """The pending requests of a model."""

    def is_pending(self, key: str) -> bool:
        """Whether a request with this key is pending in the current event loop."""


class Pending(Protocol):
    """A request that is waiting or being sent."""

    def reply_so_far(self) -> LMReply:
        """The times and the ids of the call as they are known now, as those of a reply without a text."""
        ...


@dataclass(slots=True)
class ModelCall:
    """One request, as it passes through the chain.

    ``path``, ``inputs``: the path and inputs of the calling predictor; empty if the model is called directly.
    ``listener``: called with each new piece of the reply's text; None for a call that is not streamed. ``key``: the key
    of the request in the reply cache; None if the cache is not used. ``settings``: those of the request merged with
    those of the model; None until they are merged. ``sent``: the settings as they were sent last, where they were
    adapted to the model; else None. ``progress``: the part of a streamed reply that views show; None for a call that is
    not streamed. ``pending``: what is known of the call while it is sent; None before, and for models other than
    ``LM``. ``admitted``: whether the runs and budgets around the call have admitted it.
    ``streamed``: whether the listener has received the text of the reply. ``may_nest``: whether the model may call
    other models; not so for ``LM``.

    ``reservation``: what budgets of tokens and USD have reserved for the call; None where none are in force.
    ``billed``: what tries cost whose replies could not be used. ``estimated_usage``: what tries may have cost that were
    stopped or timed out. Both are None without such a try. ``is_sent``: whether the last try has been sent; True for
    models other than ``LM``. ``flights``: the pending requests of the model, if an equal one may reply to this one.
    """

    lm: LMProtocol
    request: LMRequest
    scope: Scope
    path: str = ""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    listener: PieceCallback | None = None
    key: str | None = None
    settings: Mapping[str, Any] | None = None
    sent: Mapping[str, Any] | None = None
    progress: StreamedCall | None = None
    pending: Pending | None = None
    admitted: bool = False
    streamed: bool = False
    reservation: Reservation | None = None
    estimated_usage: Usage | None = None
    billed: Usage | None = None
    is_sent: bool = True
    flights: Flights | None = None
    may_nest: bool = True

    @property
    def is_shared(self) -> bool:
        """Whether an equal request is pending, to whose reply this call will wait."""
        return self.key is not None and self.flights is not None and self.flights.is_pending(self.key)

    def whole_usage(self, usage: Usage) -> Usage:
        """The usage of the call with that of its earlier tries. ``usage``: that of the last try."""
        if self.billed is not None:
            usage = usage + self.billed
        return usage if self.estimated_usage is None else usage + self.estimated_usage

    @property
    def model(self) -> str:
        """The model's name."""
        return str(getattr(self.lm, "name", type(self.lm).__name__))

    def requested(self) -> Mapping[str, Any]:
        """The settings of the request, merged with those that the model declares."""
        if self.settings is None:
            self.settings = sent_settings(self.lm, self.request)
        return self.settings

    def pass_on(self, piece: str) -> None:
        """Pass a piece of the reply's text to the views and to the listener."""
        if self.progress is not None:
            self.progress.add_text(piece)
        if self.listener is not None:
            self.listener(piece)

    def stream_rest(self, reply: LMReply) -> None:
        """Call the listener with the whole text of a reply that was not streamed, such as a cached one."""
        if self.listener is not None and not self.streamed:
            self.streamed = True
            self.listener(reply.text)


Proceed = Callable[[ModelCall], Coroutine[Any, Any, LMReply]]
"""The rest of the chain, down to the model."""


class Interceptor(Protocol):
    """A link of the chain."""

    @property
    def place(self) -> Place:
        """The position in the chain."""

    async def __call__(self, call: ModelCall, proceed: Proceed) -> LMReply:
        """Return a reply to the call: its own, or that of ``proceed(call)``."""
        ...


Links = tuple[tuple[Interceptor, ...], Proceed]
"""The interceptors that a model adds to the chain of its calls, and the end of the chain, which calls the provider."""
_by_place = attrgetter("place")


def chain(interceptors: Iterable[Interceptor], send: Proceed) -> Proceed:
    """Wrap ``send`` in the interceptors, in the order of their places."""
    proceed = send
    for interceptor in sorted(interceptors, key=_by_place, reverse=True):
        proceed = partial(interceptor, proceed=proceed)
    return proceed


def links_of(lm: LMProtocol) -> Links | None:
    """The links that a model adds to the chain of its calls; None for a model that is called through its methods."""
    own_links = getattr(type(lm), "call_links", None)
    return None if own_links is None else own_links(lm)
