"""``with trace() as t``: record what a program does in a block, as spans that can be saved and loaded."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from dspynb.errors import DamagedFileWarning, InputError
from dspynb.events import Event, PredictorCalled
from dspynb.running.journal import write_journal
from dspynb.running.journal_reader import load_journal
from dspynb.running.reader import RunReader
from dspynb.running.record import RunRecord
from dspynb.running.store import open_run
from dspynb.running.tables.spans import Span, spans_frame, spans_of
from dspynb.running.tables.trees import tree_html, tree_text
from dspynb.scope.core import Block, Layer

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Trace", "record_of", "trace"]

_MAX_LINES = 100


class Trace:
    """The events that a ``trace()`` block recorded.

    ``spans``: predictor calls, modules, attempts, rows and tools, in tree order. ``calls``: the events of the predictor
    calls, in the order in which they ended. Its repr and notebook display show the tree.

    >>> with dn.trace() as t:
    ...     prediction = dn.Predict("question -> answer", lm=dn.ScriptedLM(["answer: 4"])).run_sync(question="2+2?")
    >>> t.save("trace.jsonl")
    >>> dn.Trace.load("trace.jsonl").table()[["kind", "path", "reply"]]
       kind  path      reply
    0  call  self  answer: 4
    """

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.events: list[Event] = []
        self.calls: list[PredictorCalled] = []
        for event in events:
            self.emit(event)

    def emit(self, event: Event) -> None:
        """Add the next event."""
        self.events.append(event)
        if isinstance(event, PredictorCalled):  # without a record, since rollouts and attempts only need the calls
            self.calls.append(event)

    @property
    def record(self) -> RunRecord:
        """A record of the events so far. It is computed at each access."""
        return RunRecord(list(self.events))

    @property
    def spans(self) -> tuple[Span, ...]:
        """The spans so far: each parent before the spans inside it, otherwise by the time at which they started."""
        return spans_of(self.record)

    def table(self) -> pd.DataFrame:
        """One row per span: span, parent, depth, kind, path, inputs, outputs, hint, candidate, score, messages, reply,
        error, tokens, usd, cached, seconds, started, model, rollout.

        >>> program = dn.ChainOfThought("question -> answer", lm=dn.ScriptedLM(["reasoning: Two and two.\\nanswer: 4"]))
        >>> with dn.trace() as t:
        ...     prediction = program.run_sync(question="2+2?")
        >>> t.table()[["depth", "kind", "inputs"]]
           depth    kind                inputs
        0      0  module  {'question': '2+2?'}
        1      1    call  {'question': '2+2?'}
        """
        return spans_frame(self.spans)

    def tree(self) -> str:
        """All spans as text, one indented line per span."""
        return tree_text(self.spans)

    def save(self, path: str | Path) -> None:
        """Write the trace to a file of JSON lines, readable by its owner only. An existing file is replaced.

        Values that JSON does not know are written as text. Raises JournalError where the file cannot be written.
        """
        write_journal(Path(path), {"kind": "trace"}, list(self.events))

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """Load a trace from a file that ``save`` wrote, or from a run file. Its spans equal those that were saved.

        An incomplete last line is dropped, and damaged lines are left out with a DamagedFileWarning. Raises
        JournalError for a file that is no trace or run file, or has a newer format.
        """
        journal = load_journal(path)
        damage = journal.damage()
        if damage:
            warnings.warn(f"{path}: {damage}; left out", DamagedFileWarning, stacklevel=2)
        return cls(journal.events)

    def __len__(self) -> int:
        return len(self.calls)

    def __repr__(self) -> str:
        spans = self.spans
        return f"<Trace: {len(spans)} spans, {len(self.calls)} calls>\n{tree_text(spans, _MAX_LINES)}"

    def _repr_html_(self) -> str:
        return tree_html(self.spans)


class trace(Block):  # noqa: N801  # used as a verb: with dn.trace() as t
    """``with trace() as t``: record the work of the block, including what it awaits and the tasks that it starts.

    Calls of rewards, metrics and advisors are not recorded, since they are not part of the program. Tasks that outlive
    the block add nothing after it.

    >>> with dn.trace() as t:
    ...     prediction = dn.Predict("question -> answer", lm=dn.ScriptedLM(["answer: 4"])).run_sync(question="2+2?")
    >>> t
    <Trace: 1 spans, 1 calls>
    self · ... s · → 'answer: 4'
    """

    def _layer(self) -> Layer:
        return Layer("a trace() block", trace=Trace())

    def __enter__(self) -> Trace:
        trace: Trace = super().__enter__().trace
        return trace


def record_of(recorded: Trace | RunReader | str | Path) -> RunRecord:
    """The record of a trace, of a run, or of the file or id of one.

    Raises InputError for any other object, JournalError for a file that cannot be read.
    """
    if isinstance(recorded, str | Path):
        recorded = open_run(recorded)
    if isinstance(recorded, RunReader):
        return recorded.record
    if isinstance(recorded, Trace):
        return recorded.record
    raise InputError(f"give a Trace, a Run, or the path of a file of one; got {type(recorded).__name__}")
