"""Replies from a cache: looked up once a call, before a budget is asked. A cached reply takes no call."""

from __future__ import annotations

from collections.abc import Callable

from dspynb.lm.cache import default_cache
from dspynb.lm.interceptors.chain import ModelCall, Proceed
from dspynb.lm.protocol import LMReply, LMRequest, check_reply
from dspynb.scope.call_context import Place

__all__ = ["OWN_CACHE", "CacheInterceptor", "OwnCacheInterceptor"]


class CacheInterceptor:
    """Looks into the reply cache. ``key_of``: gives the key of a request, None where the cache is switched off.

    ``LM`` adds replies to the cache where they arrive, so that they are there even where the caller who sent the
    request was cancelled.
    """

    place = Place.CACHE

    def __init__(self, key_of: Callable[[LMRequest], str | None]) -> None:
        self._key_of = key_of

    async def __call__(self, call: ModelCall, proceed: Proceed) -> LMReply:
        """The cached reply, else the model's."""
        call.key = self._key_of(call.request)
        if call.key is None:
            return await proceed(call)
        reply = await call.scope.in_flight(default_cache().get(call.key))
        return await proceed(call) if reply is None else reply


class OwnCacheInterceptor:
    """Under a budget, looks into the cache of a model that has its own (``async kept(request) -> reply | None``).

    Without a budget the model's ``complete`` looks there itself, and so does ``stream``.
    """

    place = Place.CACHE

    async def __call__(self, call: ModelCall, proceed: Proceed) -> LMReply:
        """The reply that the model has from before, else a new one."""
        look_up = getattr(call.lm, "kept", None)
        if look_up is None or call.listener is not None or not call.scope.funded:
            return await proceed(call)
        reply: LMReply | None = await call.scope.in_flight(look_up(call.request))
        if reply is None:
            return await proceed(call)
        return check_reply(reply, call.request.settings, call.model)


OWN_CACHE = OwnCacheInterceptor()
