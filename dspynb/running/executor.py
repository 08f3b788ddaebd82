"""The interface of executors: an executor wraps an async function so that it runs in another process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Protocol, TypeAlias, TypeVar, runtime_checkable

from dspynb.errors import ConfigurationError
from dspynb.options import NOT_RECORDED, Check

__all__ = ["Executor", "ExecutorOption", "check_executor", "elsewhere"]

F = TypeVar("F", bound=Callable[..., Awaitable[Any]])


@runtime_checkable
class Executor(Protocol):
    """Runs rollouts in other processes."""

    def carry(self, fn: F, once: tuple[str, ...] = ()) -> F:
        """An async function with the arguments of ``fn`` that runs ``fn`` in another process.

        Its caller gets the result or error, the events in its scope, and the charge for the calls, as if ``fn`` ran
        here. ``once``: names of parameters with large values that many calls share; each value is sent once. A
        parameter ``funds``, an Allowance or None, stays in this process: the other one is granted calls from it, and
        returns those that it did not use. A parameter ``opened``, the number of a span that began in this process, gets
        a number of the other process there.
        """
        ...


def elsewhere(executor: Executor | None, fn: F, once: tuple[str, ...] = ()) -> F:
    """``fn`` as the executor runs it; ``fn`` itself for None. Raises ConfigurationError for any other object.

    >>> from dspynb.running.executor import elsewhere
    >>> async def work(x):
    ...     return 2 * x
    >>> elsewhere(None, work) is work
    True
    """
    check_executor(executor)
    if executor is None:
        return fn
    return executor.carry(fn, once)


def check_executor(executor: Any) -> Any:
    """The executor itself, or None for this process. Raises ConfigurationError for any other object."""
    if executor is None:
        return None
    is_class = isinstance(executor, type)
    if is_class or not callable(getattr(executor, "carry", None)):
        name = executor.__name__ if is_class else type(executor).__name__
        raise ConfigurationError(
            f"executor must be a dn.DaskExecutor(client or address), or None for this process; got {name}"
        )
    return executor


ExecutorOption: TypeAlias = Annotated[
    Executor | None, Check(check_executor, "a dn.DaskExecutor, or None"), NOT_RECORDED
]
"""The setting for where rollouts run: an executor, or None for this process."""
