"""Copies of programs. What cannot be copied, such as a lock or an open connection, is shared with the original."""

from __future__ import annotations

import copy
import copyreg
import dataclasses
import gc
from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from dspynb.exits import is_exit

__all__ = ["copied", "copied_instance"]

T = TypeVar("T")


def copied(value: T, memo: dict[int, Any]) -> T:
    """A deep copy of ``value``; the parts of it that cannot be copied, and models, are shared.

    ``memo``: that of ``copy.deepcopy``. Containers in which predictors are looked for (lists, tuples, mappings,
    dataclasses) are always copied, so that no predictor is shared because of its neighbour. Raises what the copy
    protocol of a module raises.
    """
    if id(value) in memo:
        known: T = memo[id(value)]
        return known
    if _is_model(value):
        return value
    if type(value) in _BUILTIN:
        memo.setdefault(id(memo), []).append(value)
        return _filled_builtin(value, memo)  # type: ignore[no-any-return]
    before = len(memo)
    try:
        return copy.deepcopy(value, memo)
    except BaseException as error:
        if not isinstance(error, Exception) and not is_exit(error):
            raise
        while len(memo) > before:  # a copy that failed half-way must leave nothing behind
            memo.popitem()
        if hasattr(type(value), "submodules"):  # shared, its predictors would be the original's
            raise
        return _copied_by_parts(value, memo)  # type: ignore[no-any-return]


def copied_instance(value: T, memo: dict[int, Any]) -> T:
    """A new instance as pickle's protocol makes one, each attribute ``copied``; for ``__deepcopy__``."""
    reduced = value.__reduce_ex__(4)
    if isinstance(reduced, str):
        return value
    make, args, state, items, pairs = (*reduced, None, None, None)[:5]
    new: T = _made(type(value), make, copied(args, memo))
    memo[id(value)] = new
    if state is not None:
        _set_state(new, copied(state, memo))
    for item in items or ():
        new.append(copied(item, memo))  # type: ignore[attr-defined]
    for key, item in pairs or ():
        new[copied(key, memo)] = copied(item, memo)  # type: ignore[index]
    return new


def _made(kind: type, make: Any, args: tuple[Any, ...]) -> Any:
    try:
        return make(*args)
    except TypeError:
        if make is not copyreg.__newobj__:  # type: ignore[attr-defined]
            raise
        return object.__new__(kind)  # its __new__ takes arguments, which are attributes by now


def _set_state(new: Any, state: Any) -> None:
    if hasattr(new, "__setstate__"):
        new.__setstate__(state)
        return
    in_dict, in_slots = state if isinstance(state, tuple) else (state, None)
    for name, attribute in {**(in_dict or {}), **(in_slots or {})}.items():
        object.__setattr__(new, name, attribute)


def _is_model(value: Any) -> bool:
    """Whether it is a language model: it holds connections and limits, and two copies would each have their own."""
    return callable(getattr(type(value), "complete", None)) and not hasattr(type(value), "named_predictors")


_BUILTIN: frozenset[Any] = frozenset({list, tuple, dict})


def _filled_builtin(value: Any, memo: dict[int, Any]) -> Any:
    """A copy of a list, dict or tuple. Two frames for each level, as deepcopy has, so that nesting may be as deep."""
    if isinstance(value, dict):
        memo[id(value)] = by_key = dict[Any, Any]()  # before its items, which may hold it
        for key, item in value.items():
            by_key[copied(key, memo)] = copied(item, memo)
        return by_key
    items: list[Any] = []
    if isinstance(value, list):
        memo[id(value)] = items
    for item in value:
        items.append(copied(item, memo))  # noqa: PERF401  # a comprehension is a frame more
    if isinstance(value, list):
        return items
    return memo.setdefault(id(value), value if all(map(_same, items, value)) else tuple(items))


def _copied_by_parts(value: Any, memo: dict[int, Any]) -> Any:
    """A copy of a container with each item ``copied``; anything else is shared."""
    memo.setdefault(id(memo), []).append(value)  # as deepcopy does: an id must not be used again meanwhile
    if isinstance(value, tuple | set | frozenset | MappingProxyType):
        return _rebuilt(value, memo)
    if isinstance(value, dict | list | deque):
        return _filled(value, memo)
    if isinstance(value, Mapping) or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        return copied_instance(value, memo)  # its items may be anywhere: a shallow copy could write to ours
    return value


def _filled(value: Any, memo: dict[int, Any]) -> Any:
    """A copy of a container that can be changed."""
    memo[id(value)] = new = _shallow(value)
    if isinstance(value, dict):
        for key, item in value.items():
            dict.__setitem__(new, key, copied(item, memo))  # its own may refuse
    elif isinstance(value, list):
        list.__setitem__(new, slice(None), [copied(item, memo) for item in value])
    else:
        for number, item in enumerate(value):
            new[number] = copied(item, memo)
    return new


def _shallow(value: Any) -> Any:
    try:
        return copy.copy(value)
    except Exception:  # its class does not let itself be filled
        kind: Any = type(value)
        new = kind.__new__(kind)
        getattr(new, "__dict__", {}).update(getattr(value, "__dict__", {}))
        fill: Any = next(base for base in (dict, list, deque) if isinstance(value, base))
        (fill.update if fill is dict else fill.extend)(new, value)
        return new


def _rebuilt(value: Any, memo: dict[int, Any]) -> Any:
    """A copy of a container that cannot be changed, or has no places: made when its items are."""
    if isinstance(value, MappingProxyType):
        new: Any = MappingProxyType(copied(gc.get_referents(value)[0], memo))  # of the copy of what it is a view of
    else:
        items = [copied(item, memo) for item in value]
        if id(value) in memo:  # one of the items holds it
            return memo[id(value)]
        new = tuple.__new__(type(value), items) if isinstance(value, tuple) else type(value)(items)
    return memo.setdefault(id(value), new)


def _same(one: object, other: object) -> bool:
    return one is other
