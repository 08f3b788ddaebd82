"""Copies of programs. Values that cannot be copied, such as locks and open connections, are shared."""

from __future__ import annotations

import copy
import copyreg
import dataclasses
import gc
import operator
from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from dspynb.exits import is_exit

__all__ = ["copy_instance", "copy_value"]

T = TypeVar("T")


def copy_value(value: T, memo: dict[int, Any]) -> T:
    """A deep copy of ``value``. Models, and parts that cannot be copied, are shared with the original.

    ``memo``: that of ``copy.deepcopy``. Containers in which predictors are searched (lists, tuples, mappings,
    dataclasses) are always copied, so that no predictor is shared because something beside it cannot be copied. Raises
    the error of a module that cannot be copied.
    """
    if id(value) in memo:
        earlier_copy: T = memo[id(value)]
        return earlier_copy
    if _is_model(value):
        return value
    if type(value) in _BUILTIN:
        memo.setdefault(id(memo), []).append(value)
        return _copy_builtin(value, memo)  # type: ignore[no-any-return]
    before = len(memo)
    try:
        return copy.deepcopy(value, memo)
    except BaseException as error:
        if not isinstance(error, Exception) and not is_exit(error):
            raise
        while len(memo) > before:  # remove what the failed copy has entered
            memo.popitem()
        if hasattr(type(value), "submodules"):  # a shared module would share its predictors with the original
            raise
        return _copy_by_parts(value, memo)  # type: ignore[no-any-return]


def copy_instance(value: T, memo: dict[int, Any]) -> T:
    """A new instance, built by pickle's protocol, with a copy of each attribute; for ``__deepcopy__``."""
    reduced = value.__reduce_ex__(4)
    if isinstance(reduced, str):
        return value
    make, args, state, items, pairs = (*reduced, None, None, None)[:5]
    new: T = _make_instance(type(value), make, copy_value(args, memo))
    memo[id(value)] = new
    if state is not None:
        _set_state(new, copy_value(state, memo))
    for item in items or ():
        new.append(copy_value(item, memo))  # type: ignore[attr-defined]
    for key, item in pairs or ():
        new[copy_value(key, memo)] = copy_value(item, memo)  # type: ignore[index]
    return new


def _make_instance(kind: type, make: Any, args: tuple[Any, ...]) -> Any:
    try:
        return make(*args)
    except TypeError:
        if make is not copyreg.__newobj__:  # type: ignore[attr-defined]
            raise
        return object.__new__(kind)  # the class's __new__ has parameters, whose values the state restores


def _set_state(new: object, state: object) -> None:
    if hasattr(new, "__setstate__"):
        new.__setstate__(state)
        return
    in_dict, in_slots = state if isinstance(state, tuple) else (state, None)
    for name, attribute in {**(in_dict or {}), **(in_slots or {})}.items():
        object.__setattr__(new, name, attribute)


def _is_model(value: object) -> bool:
    """Whether a value is a language model. Models are shared, since a copy would have connections and limits of its
    own."""
    return callable(getattr(type(value), "complete", None)) and not hasattr(type(value), "named_predictors")


_BUILTIN: frozenset[Any] = frozenset({list, tuple, dict})


def _copy_builtin(value: Any, memo: dict[int, Any]) -> Any:
    """A copy of a list, dict or tuple. Uses two frames for each level, as deepcopy does, so that values may be nested
    as deeply."""
    if isinstance(value, dict):
        new_dict: dict[Any, Any] = {}
        memo[id(value)] = new_dict  # before its items, which may refer to it
        for key, item in value.items():
            new_dict[copy_value(key, memo)] = copy_value(item, memo)
        return new_dict
    items: list[Any] = []
    if isinstance(value, list):
        memo[id(value)] = items
    for item in value:
        items.append(copy_value(item, memo))  # noqa: PERF401  # a comprehension adds a frame
    if isinstance(value, list):
        return items
    unchanged = all(map(operator.is_, items, value))
    return memo.setdefault(id(value), value if unchanged else tuple(items))


def _copy_by_parts(value: object, memo: dict[int, Any]) -> Any:
    """A copy of a container with a copy of each item; any other value itself."""
    memo.setdefault(id(memo), []).append(value)  # keeps the value alive, as deepcopy does, so that its id stays unique
    if isinstance(value, tuple | set | frozenset | MappingProxyType):
        return _copy_immutable(value, memo)
    if isinstance(value, dict | list | deque):
        return _copy_mutable(value, memo)
    if isinstance(value, Mapping) or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        return copy_instance(value, memo)  # a shallow copy could share the storage of the items with the original
    return value


def _copy_mutable(value: Any, memo: dict[int, Any]) -> Any:
    """A copy of a dict, list or deque, or of an instance of a subclass."""
    new = _shallow_copy(value)
    memo[id(value)] = new
    if isinstance(value, dict):
        for key, item in value.items():
            dict.__setitem__(new, key, copy_value(item, memo))  # the subclass's own __setitem__ may raise
    elif isinstance(value, list):
        list.__setitem__(new, slice(None), [copy_value(item, memo) for item in value])
    else:
        for number, item in enumerate(value):
            new[number] = copy_value(item, memo)
    return new


def _shallow_copy(value: Any) -> Any:
    try:
        return copy.copy(value)
    except Exception:  # the class does not allow copies, or no items to be added
        kind: Any = type(value)
        new = kind.__new__(kind)
        getattr(new, "__dict__", {}).update(getattr(value, "__dict__", {}))
        if isinstance(value, dict):
            dict.update(new, value)
        elif isinstance(value, list):
            list.extend(new, value)
        else:
            deque.extend(new, value)
        return new


def _copy_immutable(value: Any, memo: dict[int, Any]) -> Any:
    """A copy of a tuple, set, frozenset or mappingproxy, which is created after its items."""
    if isinstance(value, MappingProxyType):
        viewed_mapping = gc.get_referents(value)[0]
        new: Any = MappingProxyType(copy_value(viewed_mapping, memo))
    else:
        items = [copy_value(item, memo) for item in value]
        if id(value) in memo:  # an item that refers to this container has copied it
            return memo[id(value)]
        new = tuple.__new__(type(value), items) if isinstance(value, tuple) else type(value)(items)
    return memo.setdefault(id(value), new)
