"""The doors: models at servers, to each of which the ten checks of ``dspynb.contrib.doctor`` are applied.

A module in ``tests/doors/providers`` registers its doors:

    register(Door(name="Anthropic, claude-haiku-4-5", model="anthropic/claude-haiku-4-5", server=AnthropicServer))
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import dspynb as dn
from tests.doors import providers

__all__ = ["MANY_SETTINGS", "Door", "all_doors", "register"]

MANY_SETTINGS: Mapping[str, Any] = {
    "temperature": 0.7,
    "top_p": 0.9,
    "max_tokens": 5000,
    "seed": 1,
    "stop": ["###"],
    "effort": "low",
}
"""The settings of dspynb's vocabulary of which models refuse some."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Door:
    """A model at a server.

    Args:
        name: The row of the table in docs/models.md.
        model: The name for ``dn.LM``.
        server: Starts the server; ``with server() as running`` gives an object with the address ``base``. A
            ``FakeServer`` in most doors.
        adapted: The settings that are changed for this model in the ten checks, as the warnings name them.
        many_adapted: The settings that are changed in a request with ``MANY_SETTINGS``.
        settings: Arguments of ``dn.LM``, beside the model's name and the address.
        adapter: The adapter of programs that name none.
        outcomes: What a check may end with.
        slow: Whether the checks need more than a few seconds.
    """

    name: str
    model: str
    server: Callable[[], AbstractContextManager[Any]]
    adapted: tuple[str, ...] = ()
    many_adapted: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    adapter: str | None = None
    outcomes: tuple[str, ...] = ("works",)
    slow: bool = False

    def lm(self, server: Any) -> dn.LM:
        """The model at the running server."""
        return dn.LM(self.model, api_base=server.base, cache=False, **self.settings)


_DOORS: dict[str, Door] = {}


def register(door: Door) -> Door:
    """Add a door to the suite and to the table. Raises ValueError for a second door with the same name."""
    if door.name in _DOORS:
        raise ValueError(f"there are two doors with the name {door.name!r}")
    _DOORS[door.name] = door
    return door


def all_doors() -> list[Door]:
    """The doors of all modules in ``tests/doors/providers``, in the order of the modules' names."""
    for module in pkgutil.iter_modules(providers.__path__):
        importlib.import_module(f"{providers.__name__}.{module.name}")
    return list(_DOORS.values())
