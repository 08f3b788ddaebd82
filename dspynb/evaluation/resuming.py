"""Whether a run may be resumed: its settings are those that it began with."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from dspynb.errors import ConfigurationError
from dspynb.events import plain

__all__ = ["check_same", "defaults_of"]


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], absent: Mapping[str, Any]) -> None:
    """Raise ConfigurationError, naming what differs, where a run's settings are not those of now.

    ``absent``: the value that a setting counts as in a file that lacks it; None where it is not among them.
    """
    then = {name: before.get(name, plain(absent.get(name))) for name in now}
    differs = [f"{name} ({then[name]!r} then, {now[name]!r} now)" for name in now if then[name] != now[name]]
    if differs:
        raise ConfigurationError(
            f"cannot resume this run: these settings changed: {', '.join(differs)}. Start a new run instead"
        )


def defaults_of(cls: type) -> dict[str, Any]:
    """The defaults of the parameters of a class's constructor and of those of its bases, by name."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        parameters = inspect.signature(vars(base)["__init__"]).parameters if "__init__" in vars(base) else {}
        found |= {name: p.default for name, p in parameters.items() if p.default is not p.empty}
    return found
