"""Where rollouts run: this process, or the workers of a Dask cluster (``dask_executor``, loaded when asked for)."""

from dspynb.executors.base import Executor, LocalExecutor, elsewhere

__all__ = ["Executor", "LocalExecutor", "elsewhere"]
