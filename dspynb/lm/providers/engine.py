"""The base class of the engines, which send single requests to providers."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from dspynb.errors import BadRequestError
from dspynb.lm.protocol import LMReply, LMRequest, PieceCallback
from dspynb.lm.providers.billing import Billing, dollars
from dspynb.lm.providers.endpoint import Endpoint
from dspynb.lm.providers.wire_formats import WireFormat

__all__ = ["COST_HEADER", "Engine", "EngineProfile", "ResponseCallback", "needs_stream"]

COST_HEADER = "x-litellm-response-cost"
"""The header in which litellm's proxy reports the cost of a reply, in US dollars."""
ResponseCallback = Callable[[str | None], None]
"""A function that is called when the headers of a response have arrived, with the provider's id of the request."""
# Sources: DashScope (FoundationAgents/OpenManus#330), OpenAI's Codex (tinyhumansai/openhuman#5165).
_NEEDS_STREAM = re.compile(
    r"\bonly supports? (?:the )?stream|\benable the stream parameter|\bstream must be (?:set to )?'?true"
    r"|\bstreaming is required|\bnon-?stream(?:ing)? (?:requests?|calls?|mode)? ?(?:is|are) not supported",
    re.IGNORECASE,
)


class EngineProfile(Protocol):
    """The fields of a model's profile that concern its client."""

    @property
    def wire_format(self) -> WireFormat | None: ...

    @property
    def refused(self) -> frozenset[str]: ...


def needs_stream(error: BadRequestError) -> bool:
    """Whether a server has refused a request because it takes streamed requests only."""
    return _NEEDS_STREAM.search(error.problem) is not None


class Engine(ABC):
    """Sends single requests to a provider, and raises the errors of dspynb. Retries and limits are applied by LM."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.model = endpoint.model
        self.address = endpoint.api_base
        """The address to which the last request was sent; None if it is not known."""
        self.asks_for_usage = True
        """Whether a stream is asked for its usage. False for a server that has refused this."""
        self._usual_billing = Billing(endpoint.price, listed_as=endpoint.listed_as)
        self.profile: EngineProfile | None = None
        """The profile for which ``fit`` was called last."""

    def fit(self, profile: EngineProfile) -> None:
        """Adapt the client to what is known of the model. Called again when a refusal has changed the profile."""
        self.profile = profile

    @abstractmethod
    async def complete(
        self,
        request: LMRequest,
        settings: Mapping[str, Any],
        on_piece: PieceCallback | None = None,
        on_thinking: PieceCallback | None = None,
        on_response: ResponseCallback | None = None,
    ) -> LMReply:
        """Send a request and return the reply. Raises ModelError.

        ``on_piece``: streams the reply. It is called with each new piece of the text, and with an empty text for the
        first piece of another kind, such as reasoning. ``on_thinking``: called with each piece of the thinking that
        arrives beside the text of a stream. ``on_response``: called once, when a response begins to arrive.
        """

    def billing(self, request_fields: Mapping[str, Any], usd: object = None) -> Billing:
        """What decides the price of a reply beside its usage: the service tier among the fields of the request, and the
        cost in US dollars in a header of the response."""
        if usd is None and "service_tier" not in request_fields and "extra_body" not in request_fields:
            return self._usual_billing
        tier = request_fields.get("service_tier")
        if tier is None and request_fields.get("extra_body"):
            tier = request_fields["extra_body"].get("service_tier")
        return self._usual_billing._replace(service_tier=tier, usd=None if usd is None else dollars(usd))

    def stream_fields(self) -> dict[str, Any]:
        """The fields of a request for a streamed reply."""
        if self.asks_for_usage:
            return {"stream": True, "stream_options": {"include_usage": True}}
        return {"stream": True}
