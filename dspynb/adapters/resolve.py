"""From what users write as an adapter to the adapter itself."""

from __future__ import annotations

from typing import Any

from dspynb.adapters.base import Adapter
from dspynb.adapters.chat import ChatAdapter
from dspynb.adapters.json import JSONAdapter
from dspynb.adapters.prefill import PrefillAdapter
from dspynb.errors import ConfigurationError, nearest

__all__ = ["resolve_adapter"]


def resolve_adapter(choice: Any) -> Adapter:
    """An adapter from its name (chat, json, prefill) or an adapter itself; ``chat`` for None."""
    if choice is not None and not isinstance(choice, str):
        return choice  # type: ignore[no-any-return]  # an Adapter, or a user's own with the same methods
    if (choice or "chat") not in _named:
        raise ConfigurationError(
            f"there is no adapter {choice!r}.{nearest(str(choice), _named)} Adapters: {', '.join(_named)}"
        )
    return _named[choice or "chat"]


_named: dict[str, Adapter] = {adapter.name: adapter for adapter in (ChatAdapter(), JSONAdapter(), PrefillAdapter())}
