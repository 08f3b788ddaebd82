"""Replies from a cache. They are looked up before the budget, so that a cached reply takes nothing from it."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable

from dspynb.lm.cache import default_cache
from dspynb.lm.interceptors.chain import ModelCall, Proceed
from dspynb.lm.interceptors.single_flight import SingleFlight
from dspynb.lm.protocol import LMProtocol, LMReply, LMRequest, check_reply
from dspynb.scope.call_context import Place

__all__ = ["OLD_CACHED_REPLY", "OWN_CACHE", "CacheInterceptor", "OwnCacheInterceptor", "has_own_cache"]

OLD_CACHED_REPLY = "kept"
"""The name of ``cached_reply`` in 0.1. Deprecated."""

LookUp = Callable[[LMRequest], Awaitable[LMReply | None]]


class CacheInterceptor:
    """Looks requests up in the reply cache.

    ``cache_key``: returns the key of a call's request, or None if the cache is off. ``flights``: the pending requests
    of the model. ``LM`` itself adds replies to the cache when they arrive, so that the reply to a request whose caller
    was cancelled is cached too.
    """

    place = Place.CACHE

    def __init__(self, cache_key: Callable[[ModelCall], str | None], flights: SingleFlight) -> None:
        self._cache_key = cache_key
        self._flights = flights

    async def __call__(self, call: ModelCall, proceed: Proceed) -> LMReply:
        """Return the cached reply, or for a miss the model's."""
        call.key = self._cache_key(call)
        if call.key is None:
            return await proceed(call)
        reply = await call.scope.in_flight(default_cache().get(call.key))
        if reply is not None:
            return reply
        if call.listener is None:
            call.flights = self._flights
        return await proceed(call)


def has_own_cache(lm: LMProtocol) -> bool:
    """Whether a model has a method that looks requests up in its own cache."""
    return hasattr(lm, "cached_reply") or hasattr(lm, OLD_CACHED_REPLY)


def _own_cache(lm: LMProtocol) -> LookUp | None:
    look_up: LookUp | None = getattr(lm, OLD_CACHED_REPLY, None)
    if look_up is None:
        look_up = getattr(lm, "cached_reply", None)
    else:
        message = f"{type(lm).__name__}.{OLD_CACHED_REPLY} is now cached_reply; the next release ignores the old name"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
    return look_up


class OwnCacheInterceptor:
    """Looks requests up in a model's own cache (``async cached_reply(request) -> reply | None``), under a budget only.

    Without a budget this is unnecessary: the model's ``complete`` and ``stream`` use its cache themselves.
    """

    place = Place.CACHE

    async def __call__(self, call: ModelCall, proceed: Proceed) -> LMReply:
        """Return the reply in the model's cache, or for a miss a new one."""
        look_up = _own_cache(call.lm)
        if look_up is None or call.listener is not None or not call.scope.funded:
            return await proceed(call)
        reply = await call.scope.in_flight(look_up(call.request))
        if reply is None:
            return await proceed(call)
        return check_reply(reply, call.request.settings, call.model)


OWN_CACHE = OwnCacheInterceptor()
