"""LM: a provider's model by name, with limits and retries, over one of two engines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any, Literal, TypeVar, Unpack

from dspynb.errors import ConfigurationError, ModelError, ModelTimeout
from dspynb.keywords import configurable
from dspynb.lm.cache import default_cache
from dspynb.lm.interceptors.cache import CacheInterceptor
from dspynb.lm.interceptors.chain import Links, ModelCall, chain
from dspynb.lm.interceptors.single_flight import SingleFlight
from dspynb.lm.limits import Limits, with_retries
from dspynb.lm.protocol import Heard, LMProtocol, LMReply, LMRequest, check_reply, refuse_in_a_replay, request_key
from dspynb.lm.providers.addresses import base_in_environment, check_base, has_login
from dspynb.lm.providers.endpoint import Endpoint
from dspynb.lm.providers.litellm_engine import LiteLLMEngine
from dspynb.lm.providers.openai_http import DirectEngine
from dspynb.lm.providers.prices import supports
from dspynb.lm.settings import (
    OTHERWISE,
    SETTINGS_OF_LM,
    RequestSettings,
    check_call,
    check_settings,
    key_settings,
    merged,
    refuse_litellm_settings,
)
from dspynb.options import Bool, NonNegativeInt, PositiveFloat, PositiveInt
from dspynb.redact import is_secret_name, secrets_in, without_password, without_secrets
from dspynb.scope.budget import about_tokens
from dspynb.scope.core import current_scope
from dspynb.scope.gate import GATE
from dspynb.scope.settings import model_name, setting

__all__ = ["LM", "links_of"]

T = TypeVar("T")


class LM:
    """A model of a provider: ``LM("openai/gpt-4.1-mini")``.

    ``openai/…`` models, and every server given by ``api_base`` (or ``base_url``, which is the same), are asked directly
    over HTTP; all other providers through litellm (the extra ``providers``); ``engine="litellm"`` or ``"direct"``
    chooses. The key comes from ``api_key`` or the provider's environment variable. A key from the environment is sent
    only to the provider's own host, or to the host in its ``*_BASE_URL`` or ``*_API_BASE`` variable; for any other
    address pass ``api_key``. Redirects are not followed.

    ``timeout``: seconds a try may take. ``retries``: tries after the first, for errors that may pass. ``deadline``:
    seconds in all, waiting for a slot and further tries included, or None. ``concurrency``: calls at a time; halved
    when the provider says that it is too much, and
    growing back. ``rpm``, ``tpm``: requests and tokens a minute. ``cache``: whether replies are kept and served again
    (see also the setting of that name); equal requests under way at the same time are sent once. ``native_tools``:
    whether the model takes descriptions of tools and answers with calls of them; by default yes where it is asked
    directly, and otherwise where litellm's map of models says so. Other settings
    (``temperature``, ``max_tokens``, … of OpenAI's chat completions and of ``litellm.completion``) go with every
    request, unless a call overrides them. ``extra_body``: a dict of further fields of the request's body, for what only
    one provider or server knows; ``extra_headers``: a dict of HTTP headers. A call's own are added to these.

    Raises ConfigurationError for a name without provider, a limit below 1, an unknown setting (with the nearest known
    one) or one that is not JSON; a call raises ModelError.

    >>> lm = dn.LM("openai/gpt-4.1-mini", temperature=0, max_tokens=500, concurrency=16)
    >>> lm, lm.settings
    (LM('openai/gpt-4.1-mini'), {'temperature': 0, 'max_tokens': 500})
    >>> own = dn.LM("openai/my-model", api_base="http://127.0.0.1:8000/v1")  # a server of your own, such as vLLM
    """

    adapter: str | None = None
    constrains = True

    @configurable(passes_to=RequestSettings, renamed=SETTINGS_OF_LM, otherwise=OTHERWISE)
    def __init__(
        self,
        model: str,
        *,
        api_base: str | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        engine: Literal["auto", "direct", "litellm"] = "auto",
        timeout: PositiveFloat = 120.0,
        retries: NonNegativeInt = 4,
        deadline: PositiveFloat | None = None,
        concurrency: PositiveInt = 256,
        rpm: PositiveFloat | None = None,
        tpm: PositiveFloat | None = None,
        cache: Bool = True,
        native_tools: Bool | None = None,
        **settings: Unpack[RequestSettings],
    ) -> None:
        model_name(model)
        check_settings("LM", settings)
        self.name, self.settings = model, dict(settings)
        self._given = {"api_base": _address(api_base, base_url), "api_key": _key(api_key), "timeout": timeout}
        self._engine_name = engine
        self._retries, self._deadline, self._limit = retries, deadline, (concurrency, rpm, tpm)
        self._cache, self._native_tools = cache, native_tools
        self._make()

    @property
    def native_tools(self) -> bool:
        """Whether the model calls tools by itself."""
        if self._native_tools is not None:
            return self._native_tools
        return isinstance(self._engine, DirectEngine) or supports(self.name, "function_calling")

    def _make(self) -> None:
        chosen = self._engine_name
        if chosen == "auto":
            chosen = "direct" if self.name.startswith("openai/") or self._given["api_base"] else "litellm"
        engine = DirectEngine if chosen == "direct" else LiteLLMEngine
        if engine is DirectEngine:
            refuse_litellm_settings(self.name, self.settings)
            _check_address(self._given["api_base"], self._given["api_key"])  # type: ignore[arg-type]
        hidden = [
            text for name, value in self.settings.items() for text in secrets_in(value, inside=is_secret_name(name))
        ]
        self._engine = engine(Endpoint(self.name, **self._given, secrets=tuple(hidden)))  # type: ignore[arg-type]
        self.limits = Limits(*self._limit)
        self._single_flight = SingleFlight()

    async def complete(self, request: LMRequest) -> LMReply:
        """The provider's reply. Raises ModelError naming the model; never shows the key."""
        refuse_in_a_replay(self.name)
        return await chain(*self._links())(ModelCall(self, request, current_scope()))

    async def stream(self, request: LMRequest, heard: Heard) -> LMReply:
        """The same, with each new piece of the text given to ``heard``. It is tried again only while there was none;
        equal requests under way are not joined."""
        refuse_in_a_replay(self.name)
        call = ModelCall(self, request, current_scope(), listener=heard)
        reply = await chain(*self._links())(call)
        call.stream_rest(reply)
        return reply

    async def kept(self, request: LMRequest) -> LMReply | None:
        """The reply to an equal request, if the cache has one."""
        key = self._cache_key(request)
        return None if key is None else await default_cache().get(key)

    def _links(self) -> Links:
        """What it contributes to the chain of a call."""
        return (CacheInterceptor(self._cache_key), self._single_flight), self._send_call

    def _cache_key(self, request: LMRequest) -> str | None:
        """The key of a request in the reply cache; None where the model or the setting ``cache`` uses none. Raises
        ConfigurationError for a setting of the request that this model does not take."""
        settings = self._settings_of(request)
        return self._key(request, settings) if self._cache and setting("cache") else None

    async def _send_call(self, call: ModelCall) -> LMReply:
        """The end of the chain: ask the provider, and add the reply to the cache."""
        reply = await self._send(call.request, self._settings_of(call.request), call.listener)
        call.streamed = True
        if call.key is not None:
            default_cache().put(call.key, reply)
        return reply

    def _settings_of(self, request: LMRequest) -> dict[str, Any]:
        check_call(self.name, request.settings)
        return merged(self.settings, request.settings)

    def _key(self, request: LMRequest, settings: dict[str, Any]) -> str:
        """Everything that can change a reply; not the engine, nor the key, limits or retries."""
        base = self._given["api_base"] or base_in_environment(self.name.partition("/")[0])
        return request_key(request, {**key_settings(settings), "model": self.name, "api_base": base})

    async def _send(self, request: LMRequest, settings: dict[str, Any], heard: Heard | None = None) -> LMReply:
        started = time.perf_counter()
        sending = _Sending(self.limits, self._engine, request, settings, heard)
        tries = with_retries(sending.attempt, self._retries, self._deadline, sending.may_retry)
        try:
            if self._deadline is None:
                reply, failures = await tries
            else:
                reply, failures = await self._in_time(tries, self._deadline)
        except ModelError as error:
            if error.usage is not None:
                error.usage = error.usage.timed(time.perf_counter() - started, error.retries)
            raise
        return reply.with_usage(reply.usage.timed(time.perf_counter() - started, failures))

    async def _in_time(self, tries: Awaitable[T], deadline: float) -> T:
        try:
            async with asyncio.timeout(deadline) as clock:
                return await tries
        except TimeoutError:
            if not clock.expired():
                raise
            said = f"no reply within its deadline of {deadline:g} s, waiting and further tries included"
            raise ModelTimeout(said, model=self.name) from None

    def __copy__(self) -> LM:
        new = type(self).__new__(type(self))  # not by __getstate__, which leaves the key out
        vars(new).update(vars(self), settings=dict(self.settings))
        return new

    def __deepcopy__(self, memo: dict[int, Any]) -> LM:
        return self  # its limits and its key hold for all who use it

    def __getstate__(self) -> dict[str, Any]:
        # A key does not travel, nor does what belongs to a loop; the other side takes its own from the environment.
        hidden = {"_engine", "_single_flight", "limits"}
        state = {name: value for name, value in vars(self).items() if name not in hidden}
        settings = {name: value for name, value in self.settings.items() if not is_secret_name(name)}
        given = {**self._given, "api_key": None, "api_base": without_password(self._given["api_base"])}
        return {**state, "settings": without_secrets(settings), "_given": given}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._make()

    def __repr__(self) -> str:
        return f"LM({self.name!r})"


_METHODS = LM.complete, LM.stream, LM.kept


def links_of(lm: LMProtocol) -> Links | None:
    """The links of a model's calls; None for a model that is asked through its methods: one that is no LM, and an LM
    whose methods a subclass wrote anew or somebody replaced."""
    if not isinstance(lm, LM):
        return None
    for own, of_lm in zip((lm.complete, lm.stream, lm.kept), _METHODS, strict=True):
        if getattr(own, "__func__", None) is not of_lm:
            return None
    return lm._links()


class _Sending:
    """One request on its way: each try waits for its turn; what was heard of a reply cannot be taken back."""

    __slots__ = ("engine", "heard", "limits", "request", "settings", "told")

    def __init__(
        self,
        limits: Limits,
        engine: DirectEngine | LiteLLMEngine,
        request: LMRequest,
        settings: dict[str, Any],
        heard: Heard | None,
    ) -> None:
        self.limits, self.engine, self.request, self.settings = limits, engine, request, settings
        self.heard, self.told = heard, False

    async def attempt(self) -> LMReply:
        """One try. A run that is paused holds no slot."""
        if self.limits.paced:
            await self.limits.pace(_tokens(self.request, self.settings))
        while True:
            if GATE.shut:
                await GATE.passed(current_scope())
            async with self.limits.slots:
                if not (GATE.shut and GATE.holding(current_scope())):
                    heard = self._listen if self.heard else None
                    reply = await self.engine.complete(self.request, self.settings, heard)
                    return check_reply(reply, self.settings, self.engine.model)

    def may_retry(self, error: ModelError) -> None:
        """Called before a further try. Raises the error where a piece was heard, or what a budget or run says."""
        if self.told:
            raise error
        current_scope().admit()

    def _listen(self, text: str) -> None:
        self.told = True
        if self.heard is not None:
            self.heard(text)


def _address(api_base: Any, base_url: Any) -> str | None:
    """The address that was given under one of two names. Raises ConfigurationError for two, or for an empty one."""
    if api_base is not None and base_url is not None and api_base != base_url:
        raise ConfigurationError("api_base and base_url are two names of one setting and differ: give one of them")
    address: Any = base_url if api_base is None else api_base
    if address is not None and not str(address).strip():
        raise ConfigurationError("api_base is empty; leave it out for the provider's own address")
    return None if address is None else str(address)


def _key(api_key: Any) -> str | None:
    """The key without the space around it, which a file or a paste may add; None for an empty one."""
    if api_key is not None and not isinstance(api_key, str):
        raise ConfigurationError(f"api_key must be text, got {type(api_key).__name__}")
    key = (api_key or "").strip()
    if any(ord(letter) < ord(" ") for letter in key):
        raise ConfigurationError("api_key has a line break or another control character in it: give the key alone")
    return key or None


def _check_address(api_base: str | None, api_key: str | None) -> None:
    if api_base is None:
        return
    check_base(api_base)
    if api_key and has_login(api_base):
        raise ConfigurationError("api_base has a user name in it and api_key is given; only one of them can be sent")


def _tokens(request: LMRequest, settings: dict[str, Any]) -> float:
    """About how many tokens a request and its reply take: four characters a token, and all that may be written.

    Of an image or file counts what is told of it, since its tokens have little to do with its bytes.
    """
    return about_tokens(request.messages) + float(settings.get("max_tokens") or 0)
