"""Models for tests and tutorials: replies from a list, or from a function. Never cached, never a provider."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Awaitable, Callable, Iterable

from dspynb.data import Usage
from dspynb.errors import ConfigurationError, ModelError, ScriptExhausted
from dspynb.lm.base import LMReply, LMRequest

__all__ = ["FunctionLM", "ScriptedLM"]

_FREE = Usage(calls=1)


class FunctionLM:
    """A model that answers with ``fn(request) -> str | LMReply``, sync or async.

    >>> lm = FunctionLM(lambda request: "[[ ## answer ## ]]\\n4")
    """

    def __init__(
        self,
        fn: Callable[[LMRequest], str | LMReply | Awaitable[str | LMReply]],
        *,
        name: str = "function",
        adapter: str | None = None,
    ) -> None:
        if not callable(fn):
            raise ConfigurationError(f"FunctionLM takes a function of a request, got {type(fn).__name__}")
        self.fn, self.name, self.adapter = fn, name, adapter

    async def complete(self, request: LMRequest) -> LMReply:
        """The function's answer. Raises ModelError when it is neither text nor an LMReply."""
        answer = self.fn(request)
        if not isinstance(answer, str) and inspect.isawaitable(answer):
            answer = await answer
        if isinstance(answer, LMReply):
            return answer
        if isinstance(answer, str):
            return LMReply(answer, usage=_FREE)
        raise ModelError(f"{self.name} answered with {type(answer).__name__}; return text or an LMReply")


class ScriptedLM:
    """A model that gives the replies of a list, in order. ``requests`` keeps what it was asked.

    A reply that is an exception is raised. Raises ScriptExhausted when there are no more.
    """

    stays_here = (
        "a ScriptedLM gives its replies in one order, which several processes cannot share: use dn.FunctionLM, whose "
        "reply depends on the request alone"
    )

    def __init__(
        self, replies: Iterable[str | LMReply | Exception], *, name: str = "scripted", adapter: str | None = None
    ) -> None:
        self._replies = list(replies)
        self.name, self.adapter = name, adapter
        self.requests: list[LMRequest] = []
        self._lock = threading.Lock()

    async def complete(self, request: LMRequest) -> LMReply:
        """The next reply."""
        with self._lock:
            turn = len(self.requests)
            self.requests.append(request)
        if turn >= len(self._replies):
            raise ScriptExhausted(f"{self.name} has {len(self._replies)} replies and was asked for another")
        reply = self._replies[turn]
        if isinstance(reply, Exception):
            raise reply
        return reply if isinstance(reply, LMReply) else LMReply(reply, usage=_FREE)
