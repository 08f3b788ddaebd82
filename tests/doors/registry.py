"""The doors: models at servers, to each of which the ten checks of ``dspynb.contrib.doctor`` are applied.

A module in ``tests/doors/providers`` registers its doors:

    register(Door(name="Anthropic, claude-haiku-4-5", model="anthropic/claude-haiku-4-5", server=AnthropicServer))
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal

import dspynb as dn
from tests.doors import providers

__all__ = ["MANY_SETTINGS", "Door", "Reports", "all_doors", "register"]

MANY_SETTINGS: Mapping[str, Any] = {
    "temperature": 0.7,
    "top_p": 0.9,
    "max_tokens": 5000,
    "seed": 1,
    "stop": ["###"],
    "effort": "low",
}
"""The settings of dspynb's vocabulary of which models refuse some."""


Condition = Literal["always", "with effort", "in streams", "without a schema", "never"]
"""When a reply has something. ``with effort``: if the request has the setting ``effort``."""


@dataclass(frozen=True, kw_only=True)
class Reports:
    """What a provider reports of a call, from its documentation and SDK.

    Args:
        request_id: The header with the id of the request; empty for a provider without one.
        response_id: Whether a response has an id.
        reasoning: When a reply has the text of the model's thinking.
        reasoning_tokens: When the tokens of the thinking are counted.
        tools: ``native`` if a reply has tool calls, ``refused`` if the server takes no tools, and ``text`` if none are
            sent to it.
        missing: Why fields are missing, by field.
    """

    request_id: str = ""
    response_id: bool = True
    reasoning: Condition = "never"
    reasoning_tokens: Condition = "never"
    tools: Literal["native", "refused", "text"] = "native"
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Door:
    """A model at a server.

    Args:
        name: The row of the table in docs/models.md.
        model: The name for ``dn.LM``.
        server: Starts the server; ``with server() as running`` gives an object with the address ``base``. A
            ``FakeServer`` in most doors.
        reports: What the provider reports of a call.
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
    reports: Reports
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
_MODULES: dict[str, str] = {}
"""The module that has registered each door."""


def register(door: Door) -> Door:
    """Add a door to the suite and to the table. Raises ValueError for a second door with the same name."""
    if door.name in _DOORS:
        raise ValueError(f"there are two doors with the name {door.name!r}")
    _DOORS[door.name] = door
    _MODULES[door.name] = sys._getframe(1).f_globals["__name__"]
    return door


def all_doors() -> list[Door]:
    """The doors of all modules in ``tests/doors/providers``, in the order of the modules' names."""
    for module in pkgutil.iter_modules(providers.__path__):
        importlib.import_module(f"{providers.__name__}.{module.name}")
    return sorted(_DOORS.values(), key=lambda door: _MODULES[door.name])  # other tests import some modules earlier
