"""Replies from a cache: looked up once a call, before a budget is asked. A cached reply takes no call."""

from __future__ import annotations

from typing import Protocol, cast

from dspynb.lm.cache import default_cache
from dspynb.lm.interceptors.chain import ModelCall, Proceed
from dspynb.lm.protocol import LMReply, LMRequest, check_reply
from dspynb.scope.call_context import Place

__all__ = ["CACHE", "OWN_CACHE", "CacheInterceptor", "OwnCacheInterceptor"]


class _Cached(Protocol):
    """A model whose replies are in the reply cache."""

    def cache_key(self, request: LMRequest) -> str | None:
        """The key of a request; None where the cache is switched off."""


class CacheInterceptor:
    """Looks into the reply cache. Replies are added to it by ``LM`` where they arrive: they are in the cache even where
    the caller who sent the request was cancelled."""

    place = Place.CACHE

    async def __call__(self, call: ModelCall, proceed: Proceed) -> LMReply:
        """The cached reply, else the model's."""
        call.key = cast("_Cached", call.lm).cache_key(call.request)
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


CACHE = CacheInterceptor()
OWN_CACHE = OwnCacheInterceptor()
