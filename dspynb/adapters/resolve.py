"""Resolves the name of an adapter to the adapter."""

from __future__ import annotations

from typing import Any

from dspynb.adapters.base import Adapter
from dspynb.adapters.chat import ChatAdapter
from dspynb.adapters.json import JSONAdapter
from dspynb.adapters.prefill import PrefillAdapter
from dspynb.errors import ConfigurationError, nearest

__all__ = ["resolve_adapter"]


def resolve_adapter(choice: Any) -> Adapter:
    """Return the adapter of a name (chat, json, prefill), ``chat`` for None, or the argument if it is an adapter."""
    if choice is not None and not isinstance(choice, str):
        return choice  # type: ignore[no-any-return]  # an Adapter, or another object with its methods
    name = choice or "chat"
    if name not in _named:
        raise ConfigurationError(f"there is no adapter {name!r}.{nearest(name, _named)} Adapters: {', '.join(_named)}")
    return _named[name]


_named: dict[str, Adapter] = {adapter.name: adapter for adapter in (ChatAdapter(), JSONAdapter(), PrefillAdapter())}
