"""The address and credentials of a model."""

from __future__ import annotations

from dataclasses import dataclass

from dspynb.lm.providers.addresses import is_own_host, missing_key, provider_of_host
from dspynb.pricing.price import Price
from dspynb.redact import keep_address, keep_secret

__all__ = ["Endpoint"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address and credentials of a model. Its secrets are redacted everywhere from now on.

    ``model``: ``provider/model``. ``timeout``: seconds per try. ``secrets``: secrets other than the key, such as
    headers. ``hosts``: hosts that get the provider's key from the environment, in place of the provider's own. None for
    the known ones. ``needs_key``: whether a call without a key fails before it is sent. None if the host decides.
    ``price``: in place of the listed one; None for that. ``listed_as``: the name under which lists of prices have the
    model; None for its own.
    """

    model: str
    api_base: str | None = None
    api_key: str | None = None
    timeout: float = 120.0
    secrets: tuple[str, ...] = ()
    hosts: tuple[str, ...] | None = None
    needs_key: bool | None = None
    price: Price | None = None
    listed_as: str | None = None

    def __post_init__(self) -> None:
        keep_secret(self.api_key, *self.secrets)
        keep_address(self.api_base)

    def owns(self, provider: str, url: str) -> bool:
        """Whether the provider's key in the environment may be sent to an address."""
        return is_own_host(provider, url, self.hosts)

    def is_key_needed(self, url: str) -> bool:
        """Whether the server at an address is known to need a key."""
        if self.needs_key is None:
            return provider_of_host(url) is not None
        return self.needs_key

    def missing_key(self, provider: str, url: str) -> str | None:
        """The error message for a request without a key to an address that needs one; None if it may need none."""
        if not self.is_key_needed(url):
            return None
        return missing_key(provider, url, self.hosts, needed=bool(self.needs_key))

    def __repr__(self) -> str:
        return f"Endpoint({self.model!r})"
