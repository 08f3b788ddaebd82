"""Propagating a scope to plain threads and executors, where Python does not propagate it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextvars import copy_context
from functools import wraps
from typing import ParamSpec, TypeVar

from dspynb.errors import ScopeError

__all__ = ["carry"]

P = ParamSpec("P")
T = TypeVar("T")


def carry(fn: Callable[P, T]) -> Callable[P, T]:
    """``fn`` bound to the context in force here, for ``Thread``, ``executor.submit`` or ``run_in_executor``.

    Each call runs in its own copy of the context, so that calls do not see each other's changes. Raises ScopeError if
    ``fn`` is not callable, and for a coroutine function; use ``current_scope().arun(fn)`` for that.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> with dn.hints("Be brief."), ThreadPoolExecutor() as pool:
    ...     pool.submit(dn.current_hint).result(), pool.submit(dn.carry(dn.current_hint)).result()
    (None, 'Be brief.')
    """
    if not callable(fn):
        raise ScopeError(f"carry takes a function, got {type(fn).__name__}; pass the function itself, not its result")
    if inspect.iscoroutinefunction(fn):
        raise ScopeError("carry takes a sync function; for a coroutine function use `await current_scope().arun(fn)`")
    context = copy_context()

    @wraps(fn)
    def carried(*args: P.args, **kwargs: P.kwargs) -> T:
        return context.copy().run(fn, *args, **kwargs)

    return carried
