"""The address and credentials of a model."""

from __future__ import annotations

from dataclasses import dataclass

from dspynb.redact import keep_address, keep_secret

__all__ = ["Endpoint"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address and credentials of a model. Its secrets are redacted everywhere from now on.

    ``model``: ``provider/model``. ``timeout``: seconds per try. ``secrets``: secrets other than the key, such as
    headers.
    """

    model: str
    api_base: str | None = None
    api_key: str | None = None
    timeout: float = 120.0
    secrets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        keep_secret(self.api_key, *self.secrets)
        keep_address(self.api_base)

    def __repr__(self) -> str:
        return f"Endpoint({self.model!r})"
