"""Models for tests and tutorials: replies from a list, or from a function. Never cached, never a provider."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Awaitable, Callable, Iterable

from dspynb.data import Usage
from dspynb.errors import ConfigurationError, ModelError, ScriptExhausted
from dspynb.lm.protocol import LMReply, LMRequest

__all__ = ["FunctionLM", "ScriptedLM"]

_FREE = Usage(calls=1)


class FunctionLM:
    """A model that answers with ``fn(request) -> str | LMReply``, sync or async, for tests and tutorials.

    ``request`` is an LMRequest. ``name``: as tables show it; ``adapter``: the one it prefers (``chat``, ``json`` or
    ``prefill``). What ``fn`` raises is raised by the call. Raises ConfigurationError for what is no function.

    >>> lm = dn.FunctionLM(lambda request: f"[[ ## answer ## ]]\\n{len(request.messages)}")  # or f"answer: …"
    >>> dn.Predict("question -> answer", lm=lm).run_sync(question="How many messages?").answer
    '2'
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
    """A model that gives the replies of a list (texts or LMReply), in order; ``requests`` keeps what it was asked.

    A reply that is an exception is raised. ``name`` and ``adapter`` as in FunctionLM. A call raises ScriptExhausted
    when there are no more.

    >>> lm = dn.ScriptedLM(["answer: 4", dn.errors.RateLimited("come back later")])
    >>> ask = dn.Predict("question -> answer", lm=lm)
    >>> ask.run_sync(question="2+2?").answer
    '4'
    >>> "2+2?" in lm.requests[0].messages[-1]["content"]
    True
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
            raise ScriptExhausted(
                f"{self.name} has {len(self._replies)} replies and was asked for another; add replies, or use "
                "dn.FunctionLM, which answers any number of requests"
            )
        reply = self._replies[turn]
        if isinstance(reply, Exception):
            raise reply
        return reply if isinstance(reply, LMReply) else LMReply(reply, usage=_FREE)
