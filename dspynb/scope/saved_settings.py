"""``dn.settings``: the settings in force, to read, to save in a file and to load from it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from dspynb.errors import ConfigurationError, nearest, shorten
from dspynb.scope.call_context import Settings
from dspynb.scope.core import current_scope
from dspynb.scope.settings import setting

__all__ = ["SettingsInForce", "settings"]

_NAMES = tuple(declared.name for declared in fields(Settings))


class SettingsInForce(Mapping[str, Any]):
    """The settings in force where they are read: those of ``context`` blocks, else those of ``configure``.

    >>> with dn.context(concurrency=4):
    ...     dn.settings.concurrency, dn.settings["concurrency"]
    (4, 4)
    >>> dn.settings.save("settings.json")
    >>> dn.configure(**dn.settings.load("settings.json"))
    """

    def __getattr__(self, name: str) -> Any:
        if name not in _NAMES:
            raise AttributeError(f"there is no setting {name!r}.{nearest(name, _NAMES)} Settings: {', '.join(_NAMES)}")
        return setting(name, current_scope())

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"settings are set with dn.configure({name}=…), or for a block with dn.context({name}=…)")

    def __getitem__(self, name: str) -> Any:
        if name not in _NAMES:
            raise KeyError(name)
        return setting(name, current_scope())

    def __iter__(self) -> Iterator[str]:
        return iter(_NAMES)

    def __len__(self) -> int:
        return len(_NAMES)

    def __repr__(self) -> str:
        return f"settings({', '.join(f'{name}={value!r}' for name, value in self.items())})"

    def __dir__(self) -> list[str]:
        return [*_NAMES, *super().__dir__()]

    def save(self, path: str | Path, exclude: Iterable[str] = ()) -> None:
        """Write the settings in force to a JSON file. ``exclude``: names to leave out.

        A model or adapter is written as its name; its other settings and its key are not. A model or adapter without a
        name, and prices, are left out. Raises ConfigurationError if the file cannot be written.
        """
        saved = {}
        for name, value in self.items():
            if name in ("lm", "adapter") and value is not None:
                value = value if isinstance(value, str) else getattr(value, "name", None)  # noqa: PLW2901
                if not isinstance(value, str):
                    continue
            if name not in ("prices", *exclude):
                saved[name] = value if value is None else _plain(value)
        try:
            Path(path).write_text(json.dumps({"dspynb_settings": 1, **saved}, indent=1) + "\n")
        except OSError as error:
            raise ConfigurationError(f"cannot write {path}: {error.strerror or error}") from error

    def load(self, path: str | Path) -> dict[str, Any]:
        """Read settings that ``save`` has written, as a dict: ``dn.configure(**dn.settings.load(path))``.

        Raises ConfigurationError for a file that is no such file. DSPy's files are pickles, which are not read.
        """
        try:
            values = json.loads(Path(path).read_bytes())
        except OSError as error:
            raise ConfigurationError(f"cannot read {path}: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:
            raise ConfigurationError(
                f"{path} has no settings of dspynb ({shorten(error, 100)}). A file of DSPy is a pickle, which runs "
                "code when it is read: write the settings anew with dn.configure"
            ) from None
        if not isinstance(values, dict) or values.pop("dspynb_settings", None) != 1:
            raise ConfigurationError(f"{path} has no settings of dspynb: dn.settings.save(path) writes such a file")
        return values


def _plain(value: object) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)


settings = SettingsInForce()
