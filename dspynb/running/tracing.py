"""``with trace() as t``: the calls that were made inside a block."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspynb.events import Event, PredictorCalled
from dspynb.results import Fold, calls_frame
from dspynb.scope import Block, Layer

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Trace", "trace"]


class Trace:
    """The calls made while a trace was open: ``calls`` (events, in the order in which they ended), ``table()``."""

    def __init__(self) -> None:
        self.calls: list[PredictorCalled] = []

    def emit(self, event: Event) -> None:
        """Keep the event if it is a call."""
        if isinstance(event, PredictorCalled):
            self.calls.append(event)

    def table(self) -> pd.DataFrame:
        """One row a call."""
        return calls_frame(Fold(self.calls))

    def __len__(self) -> int:
        return len(self.calls)


class trace(Block):  # noqa: N801  # used as a verb: with dn.trace() as t
    """``with trace() as t``: collects the calls of the block, of what it awaits and of the tasks it spawns.

    Calls of rewards, metrics and advisors are not the program's and are not in it.
    """

    def _layer(self) -> Layer:
        return Layer("a trace() block", trace=Trace())

    def __enter__(self) -> Trace:
        trace: Trace = super().__enter__().trace
        return trace
