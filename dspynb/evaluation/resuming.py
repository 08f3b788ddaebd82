"""The check that the settings of a run did not change before it is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dspynb.errors import ConfigurationError
from dspynb.events import plain

__all__ = ["check_same_settings"]


def check_same_settings(recorded: Mapping[str, Any], current: Mapping[str, Any], absent: Mapping[str, Any]) -> None:
    """Raise ConfigurationError, and name what changed, if the current settings are not those that a run recorded.

    ``absent``: for each setting, the value that it has in a run file that lacks it. A setting that is not in ``absent``
    counts as None there.
    """
    changes = []
    for name, value in current.items():
        recorded_value = recorded.get(name, plain(absent.get(name)))
        if recorded_value != value:
            changes.append(f"{name} ({recorded_value!r} then, {value!r} now)")
    if changes:
        raise ConfigurationError(
            f"cannot resume this run: these settings changed: {', '.join(changes)}. Start a new run instead"
        )
