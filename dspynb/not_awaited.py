"""What an async function of dspynb returns: a coroutine that explains itself where its ``await`` was forgotten."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable, Coroutine, Generator
from functools import wraps
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast

__all__ = ["NotAwaited", "explains_await"]

P = ParamSpec("P")
T = TypeVar("T")


class NotAwaited(Coroutine[Any, Any, T]):
    """A coroutine whose repr and missing attributes say that ``await`` is needed, and name the line of the call.

    ``await``, ``asyncio.run``, ``gather``, ``create_task`` and ``TaskGroup`` accept it like any coroutine.
    """

    __slots__ = ("_code", "_coroutine", "_line")

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        caller = sys._getframe(2)  # the frame that called the function, of which only its place is stored
        self._coroutine = coroutine
        self._code = caller.f_code
        self._line = caller.f_lineno

    def __await__(self) -> Generator[Any, Any, T]:
        return self._coroutine.__await__()

    def send(self, value: Any) -> Any:
        """Continue the coroutine; see ``collections.abc.Coroutine``."""
        return self._coroutine.send(value)

    def throw(
        self,
        kind: type[BaseException] | BaseException,
        value: BaseException | object = None,
        trace: TracebackType | None = None,
    ) -> Any:
        """Raise an exception inside the coroutine; see ``collections.abc.Coroutine``."""
        if isinstance(kind, BaseException):
            return self._coroutine.throw(kind)
        return self._coroutine.throw(kind, value, trace)

    def close(self) -> None:
        """End the coroutine; see ``collections.abc.Coroutine``."""
        self._coroutine.close()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("cr_") or name in ("__name__", "__qualname__"):  # as asyncio and debuggers read them
            return getattr(self._coroutine, name)
        if name.startswith("__"):
            raise AttributeError(name)
        message = f"there is no {name!r} yet: {self._call()} was not awaited. {self._advice()}"
        raise AttributeError(message, name=name, obj=None)

    def __repr__(self) -> str:
        if self._has_begun():
            return f"<coroutine {self.__qualname__}>"
        return f"<{self._call()} was not awaited, so it has not begun. {self._advice()}>"

    def _has_begun(self) -> bool:
        return inspect.getcoroutinestate(cast("Any", self._coroutine)) != inspect.CORO_CREATED

    def _call(self) -> str:
        owner, _, name = self.__qualname__.rpartition(".")
        frame = self.cr_frame
        if owner and frame is not None and "self" in frame.f_locals:
            owner = type(frame.f_locals["self"]).__name__
        called = owner if name == "__call__" else name
        return f"the call of {called}"

    def _advice(self) -> str:
        return f"Write `await` before it, in {self._place()}."

    def _place(self) -> str:
        """The line of the call, as a notebook numbers its cells."""
        file = self._code.co_filename
        ipython = sys.modules.get("IPython")
        shell = None if ipython is None else ipython.get_ipython()
        cell = None if shell is None else shell.compile.format_code_name(file)
        return f"line {self._line} of {f'{cell[0]} {cell[1]}' if cell else file}"


def explains_await(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Decorator for a public async function: what it returns explains itself where ``await`` was forgotten."""

    @wraps(function)
    def call(*args: P.args, **keywords: P.kwargs) -> Coroutine[Any, Any, T]:
        return NotAwaited(function(*args, **keywords))

    if sys.version_info >= (3, 12):
        return inspect.markcoroutinefunction(call)
    call._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]
    return call
