"""Where rollouts run: this process, or the workers of a Dask cluster."""

from dspynb.executors.base import Executor, LocalExecutor, elsewhere
from dspynb.executors.dask_executor import DaskExecutor

__all__ = ["DaskExecutor", "Executor", "LocalExecutor", "elsewhere"]
