"""Whether a run may be resumed: its settings are those that it began with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dspynb.errors import ConfigurationError
from dspynb.events import plain

__all__ = ["check_same"]


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
