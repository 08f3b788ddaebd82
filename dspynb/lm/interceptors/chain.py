"""The chain of a model call: interceptors around the function that asks the model, as httpx transports are.

An interceptor answers a call itself, or awaits ``proceed(call)`` for the reply of the rest of the chain. Interceptors
are internal: users write models (anything with ``async complete(request)``), which need none. To add one, give it a
place in ``Place`` (scope/call_context.py), and put it around calls either for a block, with
``CallContext.with_interceptor``, or for one kind of model, as ``LM`` does with its links.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import Any, Protocol

from dspynb.lm.protocol import LMProtocol, LMReply, LMRequest, PieceCallback
from dspynb.scope.call_context import Place
from dspynb.scope.core import Scope

__all__ = ["Interceptor", "Links", "ModelCall", "Proceed", "chain"]


@dataclass(slots=True)
class ModelCall:
    """One request on its way through the chain.

    ``path`` and ``inputs``: of the predictor that calls; empty where the model is called directly. ``listener``: gets
    the pieces of the reply's text while it arrives, None for a call that is not streamed. ``key``: of the request in
    the reply cache, set where the model uses it. ``admitted``: whether the runs and budgets around it let it start.
    ``streamed``: whether the listener has the text of the reply.
    """

    lm: LMProtocol
    request: LMRequest
    scope: Scope
    path: str = ""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    listener: PieceCallback | None = None
    key: str | None = None
    admitted: bool = False
    streamed: bool = False

    @property
    def model(self) -> str:
        """The model's name."""
        return str(getattr(self.lm, "name", type(self.lm).__name__))

    def stream_rest(self, reply: LMReply) -> None:
        """Give the listener, if there is one, the text of a reply that arrived at once: an interceptor's."""
        if self.listener is not None and not self.streamed:
            self.streamed = True
            self.listener(reply.text)


Proceed = Callable[[ModelCall], Coroutine[Any, Any, LMReply]]
"""The rest of the chain, down to the model."""


class Interceptor(Protocol):
    """A link of the chain."""

    @property
    def place(self) -> Place:
        """Where it stands in the chain."""

    async def __call__(self, call: ModelCall, proceed: Proceed) -> LMReply:
        """The reply: its own, or that of ``proceed(call)``."""
        ...


Links = tuple[tuple[Interceptor, ...], Proceed]
"""What a model contributes to the chain of its calls: interceptors, and the end, which asks the provider."""
_by_place = attrgetter("place")


def chain(interceptors: Iterable[Interceptor], send: Proceed) -> Proceed:
    """``send``, with the interceptors around it in the order of their places."""
    proceed = send
    for interceptor in sorted(interceptors, key=_by_place, reverse=True):
        proceed = partial(interceptor, proceed=proceed)
    return proceed
