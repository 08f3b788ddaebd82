"""LM: a provider's model by name, with limits and retries, over one of two clients."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Awaitable, Mapping
from typing import Annotated, Any, Literal, TypeVar, Unpack

from dspynb.errors import (
    ModelError,
    ModelTimeout,
    TruncatedReplyWarning,
)
from dspynb.keywords import configurable
from dspynb.lm.adaptation import Adaptation
from dspynb.lm.cache import default_cache
from dspynb.lm.direct_call import DirectCalls
from dspynb.lm.engines import (
    check_address,
    check_key,
    fields_of_engine,
    make_endpoint,
    make_engine,
    own_price,
    prices_in_profile,
)
from dspynb.lm.interceptors.cache import OLD_CACHED_REPLY, CacheInterceptor
from dspynb.lm.interceptors.chain import Links, ModelCall, chain
from dspynb.lm.interceptors.single_flight import SingleFlight
from dspynb.lm.limits import Limits, with_retries
from dspynb.lm.pending_request import PendingRequest
from dspynb.lm.profiles import ModelProfile, checked_changes, overridden, profile_at
from dspynb.lm.protocol import (
    LMReply,
    LMRequest,
    PieceCallback,
    check_reply,
    describe_cut,
    is_complete,
    is_truncated,
    refuse_in_a_replay,
    request_key,
)
from dspynb.lm.providers.addresses import base_in_environment, host_and_port
from dspynb.lm.providers.engine import Engine
from dspynb.lm.providers.openai_http import DirectEngine
from dspynb.lm.providers.prices import REPORTING_PROVIDERS, price_of, supports
from dspynb.lm.providers.wire_formats import format_of, is_direct
from dspynb.lm.settings import (
    LM_ADVICE,
    OTHERWISE,
    RequestSettings,
    check_call,
    check_settings,
    key_settings,
    merge_settings,
)
from dspynb.options import Bool, Check, NonNegativeInt, PositiveFloat, PositiveInt
from dspynb.pricing.price import Price
from dspynb.pricing.price_list import as_price
from dspynb.processes import after_fork_in_child
from dspynb.redact import is_secret_name, without_password, without_secrets
from dspynb.scope.core import current_scope, warn_user
from dspynb.scope.settings import model_name, setting

__all__ = ["LM"]

T = TypeVar("T")


def _own_price(value: object) -> Price | None:
    return None if value is None else as_price(value)


class LM(DirectCalls):
    """A model of a provider: ``LM("openai/gpt-4.1-mini")``.

    ``openai/…`` models, and servers at ``api_base`` (or ``base_url``, another name of it) that speak OpenAI's format,
    are called directly over HTTP. All other models are called through litellm, which is imported then: those without an
    ``api_base``, and those of providers with a format of their own, such as ``anthropic/…`` and ``gemini/…``, also at
    an ``api_base``. For a server that speaks OpenAI's format for such a model, as gateways do, use ``engine="direct"``
    or ``profile={"wire_format": "openai_chat"}``; ``engine="litellm"`` does the reverse. With an ``api_base``, the
    provider before the first slash of the name is not sent, if it is a known one; any other name is sent whole, such as
    ``Qwen/Qwen3-8B`` or ``my-model``.

    The key is ``api_key``, or the value of the provider's environment variable. A key from the environment is sent only
    to the provider's own host, or to the host in its ``*_BASE_URL`` or ``*_API_BASE`` variable; for any other address
    pass ``api_key``. A call without a key to a provider's own host fails before it is sent. Redirects are not followed.

    ``timeout``: seconds per try (default 120). ``retries``: further tries after a temporary error (default 4).
    ``deadline``: seconds for the whole call, including the wait for a slot and all retries; None for no limit.
    ``concurrency``: calls at a time (default 256); halved when the provider reports a rate limit, then growing back.
    ``rpm``, ``tpm``: requests and tokens per minute. ``cache``: whether replies are cached (see also the setting
    ``cache``); equal requests that are pending at the same time are sent once. ``streaming``: whether the replies to
    plain calls are streamed too (default False). The view of a run then shows the thinking and the text while they are
    written. Some providers return thinking only in streams. Where a server refuses a request because it is not
    streamed, it is sent again as a stream, and so are all later ones. ``native_tools``: whether the model takes
    descriptions of tools and replies with tool calls; by default True for a direct client until its server refuses
    them, and for litellm what its model map says.

    A setting that the model does not take is renamed, moved into the range that it takes, or left out, with one
    ModelAdaptedWarning; ``strict=True`` raises UnsupportedParameter instead. ``profile``: what the model takes, where
    this differs from what is known (see docs/models.md); ``lm.profile`` has all of it.

    ``price``: what the model costs, in US dollars for a million tokens, as a dict such as ``{"input": 2.5, "output":
    10}`` or a ``dn.Price``. By default the price in the setting ``prices``, or in litellm's map; ``lm.price`` has it.

    ``truncated``: what becomes of a reply that was cut at the limit of tokens. ``error`` raises ReplyTruncated;
    ``accept`` uses the text that arrived, and says so once (TruncatedReplyWarning). The prediction then has None for
    outputs that the text does not reach, and ``prediction.truncated`` is true. Such a reply is never cached, and never
    becomes a demo or a proposal of an optimizer.

    Other settings (``temperature``, ``max_tokens``, … of OpenAI's chat completions and of ``litellm.completion``) are
    sent with every request, unless a call overrides them. ``extra_body``: a dict of further fields of the request's
    body, for fields that only one provider or server knows. ``extra_headers``: a dict of HTTP headers. Those of a call
    are added.

    ``await lm("text or messages")``, or ``lm.run_sync(…)`` in scripts, calls the model without a signature.

    Raises ConfigurationError for a name without provider, a limit below 1, an unknown setting (with the nearest known
    one), a value that is not JSON, or a price that is negative or no number. A call raises ModelError.

    >>> lm = dn.LM("openai/gpt-4.1-mini", temperature=0, max_tokens=500, concurrency=16)
    >>> lm, lm.settings
    (LM('openai/gpt-4.1-mini'), {'temperature': 0, 'max_tokens': 500})
    >>> own = dn.LM("Qwen/Qwen3-8B", api_base="http://127.0.0.1:8000/v1")  # a server of your own, such as vLLM
    """

    adapter: str | None = None
    constrains = True
    _engine: Engine

    @configurable(passes_to=RequestSettings, renamed=LM_ADVICE, otherwise=OTHERWISE)
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
        streaming: Bool = False,
        native_tools: Bool | None = None,
        profile: Mapping[str, Any] | None = None,
        price: Annotated[
            Any, Check(_own_price, "a dict of US dollars for a million tokens, a dn.Price, or None")
        ] = None,
        strict: Bool = False,
        truncated: Literal["error", "accept"] = "error",
        **settings: Unpack[RequestSettings],
    ) -> None:
        address = check_address(api_base, base_url)
        model_name(model, has_address=address is not None)
        check_settings("LM", settings)
        self.name = model
        self.settings = dict(settings)
        self._endpoint_settings = {
            "api_base": address,
            "api_key": check_key(api_key),
            "timeout": timeout,
        }
        self._retries = retries
        self._deadline = deadline
        self._limit_settings = (concurrency, rpm, tpm)
        self._cache = cache
        self._streaming = streaming
        self._native_tools = native_tools
        self._strict = strict
        changes = checked_changes({} if profile is None else profile)
        self._own_price = own_price(price, changes)
        self._profile_changes = {
            **changes,
            **prices_in_profile(self._own_price),
            **fields_of_engine(engine, model, address, changes),
        }
        self._adaptation: Adaptation | None = None
        self.truncated = truncated
        self._warned_of_truncation = False
        self._connect()

    @property
    def native_tools(self) -> bool:
        """Whether the model takes descriptions of tools and replies with tool calls."""
        if self._adaptation is not None and self._adaptation.refuses_tools:
            return False
        if self._native_tools is not None:
            return self._native_tools
        if "native_tools" in self._profile_changes or self.profile.native_tools is False:
            return bool(self.profile.native_tools)
        return isinstance(self._engine, DirectEngine) or supports(self.name, "function_calling")

    @property
    def streaming(self) -> bool:
        """Whether the replies to plain calls are streamed. True also after the server has refused any other request."""
        return self._streaming or (self._adaptation is not None and self._adaptation.needs_stream)

    def returns_reasoning(self, settings: Mapping[str, Any]) -> bool:
        """Whether the reply to a request with these settings has the text of the model's reasoning, as far as is
        known."""
        return self.profile.has_reasoning(merge_settings(self.settings, settings))

    def warn_of_text_tools(self) -> None:
        """Warn once that an agent describes its tools in the prompt, if the server has refused them."""
        if self._adaptation is not None:
            self._adaptation.warn_of_text_tools()

    @property
    def takes_media(self) -> bool:
        """Whether images and files are sent. False if the ``profile`` of this LM has no kinds of media."""
        return "media" not in self._profile_changes or bool(self._profile_changes["media"])

    @property
    def profile(self) -> ModelProfile:
        """What the model takes, and its limits and prices, as far as they are known."""
        return self._adapt().profile

    @property
    def price(self) -> Price | None:
        """What the model costs, in US dollars for a million tokens: the price of this LM, of the price file, or of
        litellm's map. None if it is unknown."""
        return price_of(self._engine.endpoint.listed_as or self.name, self._own_price).price

    @property
    def reports_usd(self) -> bool:
        """Whether the provider is known to report the cost of a reply with it."""
        return self.name.partition("/")[0] in REPORTING_PROVIDERS

    def _adapt(self) -> Adaptation:
        """The profile and what refusals have taught, made when it is first used, since it reads litellm's map."""
        adaptation = self._adaptation
        if adaptation is None:
            with _new_adaptation_lock:  # threads may make their first calls at the same time, and must share one
                adaptation = self._adaptation or self._new_adaptation()
                self._adaptation = adaptation
        recorded = current_scope().context.learned_profiles
        if recorded and not self._strict and adaptation.key in recorded:
            adaptation.apply_recorded(recorded[adaptation.key])
        return adaptation

    def _new_adaptation(self) -> Adaptation:
        api_base: Any = self._endpoint_settings["api_base"]
        profile = profile_at(self.name, api_base, self._profile_changes)
        if is_direct(profile.wire_format) != isinstance(self._engine, DirectEngine):
            self._engine = make_engine(self._engine.endpoint, profile.wire_format, self.settings)
        self._engine.fit(profile)
        return Adaptation(self.name, profile, strict=self._strict, key=self._profile_key())

    def _profile_key(self) -> str:
        """A hash of what the model knew of its profile when it was created. Changes that a run file has for another
        key, such as that of another address or another ``profile``, do not apply."""
        address = without_password(self._base())
        profile = overridden(ModelProfile(), self._profile_changes).facts()
        parts = (self.name, address, profile, self._native_tools)
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def _connect(self) -> None:
        """Make the client, the limits and the single flight, which are not pickled."""
        endpoint = make_endpoint(
            self.name, self._endpoint_settings, self.settings, self._profile_changes, self._own_price
        )
        if self._adaptation is not None:
            wire_format = self._adaptation.profile.wire_format
        else:  # without reading litellm's map
            wire_format = self._profile_changes.get("wire_format") or format_of(self.name, endpoint.api_base)
        self._engine = make_engine(endpoint, wire_format, self.settings)
        self.limits = Limits(*self._limit_settings)
        self._single_flight = SingleFlight()

    async def complete(self, request: LMRequest) -> LMReply:
        """Send a request and return the reply. Raises ModelError, which names the model and never contains the key."""
        refuse_in_a_replay(self.name)
        return await chain(*self._links())(ModelCall(self, request, current_scope()))

    async def stream(self, request: LMRequest, on_piece: PieceCallback) -> LMReply:
        """Send a request, call ``on_piece`` with each new piece of the text, and return the reply.

        The pieces include thinking that the model writes into its text; ``reply.text`` does not. The call is retried
        only before the first piece. It does not share the reply of an equal pending request. Raises ModelError.
        """
        refuse_in_a_replay(self.name)
        call = ModelCall(self, request, current_scope(), listener=on_piece)
        reply = await chain(*self._links())(call)
        call.stream_rest(reply)
        return reply

    async def cached_reply(self, request: LMRequest) -> LMReply | None:
        """The cached reply to an equal request; None for a miss."""
        key = self._cache_key(ModelCall(self, request, current_scope()))
        if key is None:
            return None
        return await default_cache().get(key)

    def call_links(self) -> Links | None:
        """The links that this model adds to the chain of its calls.

        None if the model is called through its methods, because ``complete``, ``stream`` or ``cached_reply`` of this
        object is overridden or replaced.
        """
        own_class = type(self)
        own_attributes = vars(self)
        for name, method in _METHODS:
            if getattr(own_class, name) is not method or name in own_attributes:
                return None
        if hasattr(self, OLD_CACHED_REPLY):  # of a subclass that was written for 0.1
            return None
        return self._links()

    @property
    def _dspynb_server(self) -> str | None:
        """The host and port to which the last request was sent; None if they are not known. See ``SERVER``."""
        return host_and_port(self._engine.address)

    def _links(self) -> Links:
        """The links that this model adds to the chain of a call."""
        return (CacheInterceptor(self._cache_key, self._single_flight), self._single_flight), self._send_call

    def _cache_key(self, call: ModelCall) -> str | None:
        """The key of a call's request in the reply cache; None if the cache is off, for this model or by the setting
        ``cache``. Merges the settings of the call. Raises ConfigurationError for an unknown setting in the request."""
        settings = self._merged_settings(call.request)
        call.settings = settings
        if not self._cache or not setting("cache"):
            return None
        return self._key(call.request, settings)

    async def _send_call(self, call: ModelCall) -> LMReply:
        """The end of the chain: call the provider, and add the reply to the cache."""
        settings = self._merged_settings(call.request) if call.settings is None else call.settings
        reply = await self._send(call, settings)
        call.streamed = True
        if call.key is not None and is_complete(reply):
            default_cache().put(call.key, reply)
        return reply

    def _merged_settings(self, request: LMRequest) -> dict[str, Any]:
        check_call(self.name, request.settings)
        return merge_settings(self.settings, request.settings)

    def _key(self, request: LMRequest, settings: Mapping[str, Any]) -> str:
        """A hash of everything that can change a reply. The client, the API key, limits and retries cannot."""
        return request_key(request, {**key_settings(settings), "model": self.name, "api_base": self._base()})

    def _base(self) -> object:
        """The address in the settings or in the environment; None for the provider's own."""
        return self._endpoint_settings["api_base"] or base_in_environment(self.name.partition("/")[0])

    async def _send(self, call: ModelCall, settings: Mapping[str, Any]) -> LMReply:
        adaptation = self._adapt()  # may change the engine, and reads litellm's map at first, which is no waiting
        pending = PendingRequest(
            call,
            settings,
            limits=self.limits,
            engine=self._engine,
            adaptation=adaptation,
            check=self._checked,
            streams=call.listener is not None or self._streaming,
        )
        tries = with_retries(pending.attempt, self._retries, self._deadline, pending.before_retry)
        try:
            if self._deadline is None:
                reply, failures = await tries
            else:
                reply, failures = await self._within(self._deadline, tries)
        except ModelError as error:
            pending.note_facts(error)
            call.pending = None
            raise
        call.pending = None  # a cancelled call keeps it, to be recorded with what is known
        worked, waited = pending.times()
        return reply.timed(worked, failures, waited=waited, first_token=pending.first_token)

    def _checked(self, reply: LMReply, settings: Mapping[str, Any]) -> LMReply:
        """Return the reply if it is complete, or truncated where that is accepted. Raises ModelError."""
        accept_truncated = self.truncated == "accept"
        reply = check_reply(reply, settings, self.name, accept_truncated=accept_truncated)
        if accept_truncated and not self._warned_of_truncation and is_truncated(reply):
            self._warned_of_truncation = True
            problem = f"{self.name}: {describe_cut(settings)}; it is used as it is, since truncated='accept'"
            warn_user(problem, TruncatedReplyWarning)
        return reply

    async def _within(self, deadline: float, tries: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(deadline) as timer:
                return await tries
        except TimeoutError:
            if not timer.expired():
                raise
            problem = f"no reply within its deadline of {deadline:g} s, including waiting and retries"
            raise ModelTimeout(problem, model=self.name) from None

    def __copy__(self) -> LM:
        new = type(self).__new__(type(self))  # not by __getstate__, which drops the API key
        vars(new).update(vars(self), settings=dict(self.settings))
        return new

    def __deepcopy__(self, memo: dict[int, Any]) -> LM:
        return self  # a copy would have limits of its own

    def __getstate__(self) -> dict[str, Any]:
        # Secrets are not pickled: the other process reads its own key from its environment.
        unpickled = {"_engine", "_single_flight", "limits"}
        state = {name: value for name, value in vars(self).items() if name not in unpickled}
        settings = {name: value for name, value in self.settings.items() if not is_secret_name(name)}
        state["settings"] = without_secrets(settings)
        adaptation = self._adaptation
        if adaptation is not None and not (adaptation.has_learned or adaptation.needs_stream):
            state["_adaptation"] = None  # it is made anew when it is used
        state["_endpoint_settings"] = {
            **self._endpoint_settings,
            "api_key": None,
            "api_base": without_password(self._endpoint_settings["api_base"]),
        }
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._connect()

    def __repr__(self) -> str:
        return f"LM({self.name!r})"


_METHODS = (("complete", LM.complete), ("stream", LM.stream), ("cached_reply", LM.cached_reply))
_new_adaptation_lock = threading.Lock()


def _reset_lock() -> None:
    global _new_adaptation_lock  # noqa: PLW0603  # another thread of the parent may have held it during the fork
    _new_adaptation_lock = threading.Lock()


after_fork_in_child(_reset_lock)
