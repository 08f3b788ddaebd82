"""Models for tests and tutorials, which reply from a list or a function. They are never cached and call no provider."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Awaitable, Callable, Iterable

from dspynb.data import Usage
from dspynb.errors import ConfigurationError, ModelError, ScriptExhausted
from dspynb.lm.direct_call import DirectCalls
from dspynb.lm.protocol import LMReply, LMRequest

__all__ = ["FunctionLM", "ScriptedLM"]

_FREE = Usage(calls=1)


class FunctionLM(DirectCalls):
    """A model that replies with the result of a function, for tests and tutorials.

    ``fn``: a sync or async function ``fn(request) -> str | LMReply`` of an LMRequest. Its exceptions are raised by the
    call. ``name``: the name in tables and run files. ``adapter``: the adapter that the model prefers (``chat``,
    ``json`` or ``prefill``). Raises ConfigurationError if ``fn`` is not callable.

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
        self.fn = fn
        self.name = name
        self.adapter = adapter

    async def complete(self, request: LMRequest) -> LMReply:
        """Return the result of ``fn(request)``. Raises ModelError if it is neither text nor an LMReply."""
        answer = self.fn(request)
        if not isinstance(answer, str) and inspect.isawaitable(answer):
            answer = await answer
        if isinstance(answer, LMReply):
            return answer
        if isinstance(answer, str):
            return LMReply(answer, usage=_FREE)
        raise ModelError(f"{self.name} answered with {type(answer).__name__}; return text or an LMReply")


class ScriptedLM(DirectCalls):
    """A model that returns the replies of a list in order, for tests and tutorials.

    ``replies``: texts, LMReply objects, and exceptions, which are raised. ``name``, ``adapter``: see FunctionLM.
    ``requests``: the list of requests so far. A call raises ScriptExhausted after the last reply.

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
        self.name = name
        self.adapter = adapter
        self.requests: list[LMRequest] = []
        self._lock = threading.Lock()

    async def complete(self, request: LMRequest) -> LMReply:
        """Return or raise the next reply. Raises ScriptExhausted after the last one."""
        with self._lock:
            position = len(self.requests)
            self.requests.append(request)
        if position >= len(self._replies):
            raise ScriptExhausted(
                f"{self.name} has {len(self._replies)} replies, and another request arrived; add replies, or use "
                "dn.FunctionLM, which replies to any number of requests"
            )
        reply = self._replies[position]
        if isinstance(reply, Exception):
            raise reply
        return reply if isinstance(reply, LMReply) else LMReply(reply, usage=_FREE)
