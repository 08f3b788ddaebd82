"""Numbers of rollouts: which sample of an otherwise equal request a call asks for."""

from __future__ import annotations

from dspynb.scope.core import Scope

__all__ = ["nested_rollout", "rollout_of"]

_BASE = 1 << 20
"""Rollouts of searches inside searches are digits in this base, counted from one."""


def rollout_of(scope: Scope) -> int:
    """The rollout in force in a scope."""
    return int(scope.settings.get("rollout", 0))


def nested_rollout(scope: Scope, number: int) -> int:
    """The rollout of sample ``number`` (from 0) of a search or sampling that is itself inside a rollout: one that no
    other attempt, sample or repeat has, nor the calls around it."""
    return (rollout_of(scope) + 1) * _BASE + number
