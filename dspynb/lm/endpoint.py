"""Where a model is asked, and what must not be told about it."""

from __future__ import annotations

from dataclasses import dataclass

from dspynb.lm.redact import redact

__all__ = ["Endpoint"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What both engines need of a model: ``provider/model``, address, key, seconds a try may take, other secrets."""

    model: str
    api_base: str | None = None
    api_key: str | None = None
    timeout: float = 120.0
    secrets: tuple[str, ...] = ()

    def redact(self, text: str) -> str:
        """The text without this endpoint's secrets, or any in the environment."""
        return redact(text, self.api_key, *self.secrets)

    def __repr__(self) -> str:
        return f"Endpoint({self.model!r})"
