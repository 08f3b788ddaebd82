"""The base class of the engines, which send single requests to providers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Protocol

from dspynb.lm.protocol import LMReply, LMRequest, PieceCallback
from dspynb.lm.providers.endpoint import Endpoint
from dspynb.lm.providers.wire_formats import WireFormat

__all__ = ["Engine", "EngineProfile", "ResponseCallback", "response_callback"]

ResponseCallback = Callable[[str | None], None]
"""A function that is called when the headers of a response have arrived, with the provider's id of the request."""
response_callback: ContextVar[ResponseCallback | None] = ContextVar("callback of the response", default=None)
"""The function for the request that the current task sends; None for none."""


class EngineProfile(Protocol):
    """The fields of a model's profile that concern its client."""

    @property
    def wire_format(self) -> WireFormat | None: ...

    @property
    def refused(self) -> frozenset[str]: ...


class Engine(ABC):
    """Sends single requests to a provider, and raises the errors of dspynb. Retries and limits are applied by LM."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.model = endpoint.model
        self.address = endpoint.api_base
        """The address to which the last request was sent; None if it is not known."""
        self.asks_for_usage = True
        """Whether a stream is asked for its usage. False for a server that has refused this."""
        self.profile: EngineProfile | None = None
        """The profile for which ``fit`` was called last."""

    def fit(self, profile: EngineProfile) -> None:
        """Adapt the client to what is known of the model. Called again when a refusal has changed the profile."""
        self.profile = profile

    @abstractmethod
    async def complete(
        self, request: LMRequest, settings: Mapping[str, Any], on_piece: PieceCallback | None = None
    ) -> LMReply:
        """Send a request and return the reply. Raises ModelError. Calls ``response_callback`` when a response arrives.

        ``on_piece``: streams the reply. It is called with each new piece of the text, and with an empty text for the
        first piece of another kind, such as reasoning.
        """

    def stream_fields(self) -> dict[str, Any]:
        """The fields of a request for a streamed reply."""
        if self.asks_for_usage:
            return {"stream": True, "stream_options": {"include_usage": True}}
        return {"stream": True}
