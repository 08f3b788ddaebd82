"""The one small interface: an executor turns an async function into one that runs where the executor runs things."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Protocol, TypeAlias, TypeVar, runtime_checkable

from dspynb.errors import ConfigurationError
from dspynb.options import NOT_RECORDED, Check

__all__ = ["Executor", "ExecutorOption", "check_executor", "elsewhere"]

F = TypeVar("F", bound=Callable[..., Awaitable[Any]])


@runtime_checkable
class Executor(Protocol):
    """Where rollouts run."""

    def carry(self, fn: F, once: tuple[str, ...] = ()) -> F:
        """``fn``, an async function, as one that takes the same arguments, runs elsewhere, and comes to the same: its
        result or error, its events in the scope of whoever awaits it, its calls charged there.

        ``once``: names of parameters whose values are large and many calls share: they travel once. A parameter
        ``funds``, an Allowance or None, stays here: its calls are granted and what is not used comes back. A parameter
        ``opened``, a span whose beginning was told here, is told there by a number of that process.
        """
        ...


def elsewhere(executor: Executor | None, fn: F, once: tuple[str, ...] = ()) -> F:
    """``fn`` as the executor runs it; ``fn`` itself for None. Raises ConfigurationError for what is no executor.

    >>> from dspynb.running.executor import elsewhere
    >>> async def work(x):
    ...     return 2 * x
    >>> elsewhere(None, work) is work
    True
    """
    check_executor(executor)
    return fn if executor is None else executor.carry(fn, once)


def check_executor(executor: Any) -> Any:
    """The same object. Raises ConfigurationError for what is no executor; None is this process."""
    if executor is None:
        return None
    if isinstance(executor, type) or not callable(getattr(executor, "carry", None)):
        raise ConfigurationError(
            "executor must be a dn.DaskExecutor(client or address), or None for this process; got "
            f"{executor.__name__ if isinstance(executor, type) else type(executor).__name__}"
        )
    return executor


ExecutorOption: TypeAlias = Annotated[
    Executor | None, Check(check_executor, "a dn.DaskExecutor, or None"), NOT_RECORDED
]
"""Where rollouts run, as a setting: an executor, or None for this process."""
