"""What can be read from a run, live or reopened: tables, diffs, and a view of itself."""

from __future__ import annotations

import secrets
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dspynb.data import Usage
from dspynb.errors import InputError
from dspynb.events import Event
from dspynb.running.record import RunRecord
from dspynb.running.record_rows import AttemptRow
from dspynb.running.tables.candidates import (
    candidates_frame,
    history_frame,
    matrix_frame,
    proposals_frame,
    summary_of,
    winner_of,
)
from dspynb.running.tables.diffs import PromptDiff, diff_messages
from dspynb.running.tables.frames import attempts_frame, calls_frame, rollouts_of
from dspynb.running.tables.hints import hints_frame
from dspynb.scope.core import current_scope

if TYPE_CHECKING:
    import pandas as pd

    from dspynb.running.view_hook import Axes

__all__ = ["RunReader", "open_reader", "open_record"]

T = TypeVar("T")


class RunReader:
    """A run as it can be read: ``attempts``, ``rollouts``, ``calls``, ``diff``, ``plot``, ``usage``, ``status``; shows
    itself in a notebook.

    ``damaged``: of a run that was reopened, the lines of its file that could not be read: line number → what is wrong.
    ``search``: the span whose attempts are meant, where a run holds several searches (a Refine inside a module).
    """

    def __init__(
        self,
        run_id: str | None,
        events: Iterable[Event] = (),
        *,
        path: str | None = None,
        search: int = 0,
        damaged: Mapping[int, str] | None = None,
    ) -> None:
        self._id = run_id
        self.damaged: Mapping[int, str] = damaged or {}
        self.path = path
        self._search = search
        self._record: RunRecord | None = None  # made when it is first read: of most small runs nobody does
        self._record_lock = threading.RLock()
        self._events = list(events)  # those that there were before the record

    @property
    def id(self) -> str:
        """Its name: when it was made, and a random part."""
        if self._id is None:  # made when first asked for: most plain calls never are
            self._id = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(6)}"
        return self._id

    def part(self, search: int) -> RunReader:
        """The same run, with the attempts of one of its searches."""
        part = RunReader(self.id, path=self.path, search=search, damaged=self.damaged)
        part._record = self.record  # shared: it goes on growing with the run
        return part

    @property
    def record(self) -> RunRecord:
        """What the run's events add up to: tables and views are made of it. It grows with the run."""
        if self._record is None:
            with self._record_lock:
                if self._record is None:
                    self._record = RunRecord(self._events, self._record_lock)
                    self._events = []
        return self._record

    @property
    def status(self) -> str:
        """pending, running, finished, stopped, exhausted (the budget is spent), interrupted, cancelled, failed, or
        unfinished (the process died)."""
        status = self.record.status
        return "unfinished" if status == "running" and type(self) is RunReader and not self._search else status

    @property
    def attempts(self) -> pd.DataFrame:
        """One row an attempt, in order. Empty for a run without attempts.

        >>> ask = dn.Predict("question -> answer", lm=dn.ScriptedLM(["answer: four", "answer: 4"]))
        >>> best = dn.BestOfN(ask, reward=lambda row, prediction: prediction.answer.isdigit())
        >>> best.run_sync(question="2+2?").run.attempts[["attempt", "answer", "score", "best"]]
           attempt answer  score   best
        0        1   four    0.0  False
        1        2      4    1.0   True
        """
        return self._read(lambda record: attempts_frame(self._attempts(record)))

    @property
    def rollouts(self) -> pd.DataFrame:
        """One row a rollout of an evaluation: row, repeat, inputs and labels, outputs, score, feedback, error,
        attempts, tokens, usd, seconds, cached; ``program`` where several were compared. A rollout that failed has no
        score."""
        return self._read(rollouts_of)

    @property
    def hints(self) -> pd.DataFrame:
        """What became of Refine's hints, the most useful first: hint, predictor (``*``: all), used (attempts), passed
        (how often it turned failure into a pass), gain (mean, over the attempts without a hint). Of a prediction's
        run, those of its own call. Empty for a run without hints.

        >>> ask = dn.Predict("question -> answer", lm=dn.ScriptedLM(["answer: four", "answer: 4"]))
        >>> def digits(row, prediction):
        ...     return dn.Score(prediction.answer.isdigit(), "Answer in digits.")
        >>> dn.Refine(ask, reward=digits).run_sync(question="2+2?").run.hints[["hint", "used", "passed", "gain"]]
                        hint  used  passed  gain
        0  Answer in digits.     1       1   1.0
        """
        return self._read(lambda record: hints_frame(record, self._search))

    @property
    def calls(self) -> pd.DataFrame:
        """One row a model call, in the order in which they ended.

        >>> ask = dn.Predict("question -> answer", lm=dn.ScriptedLM(["answer: 4"]))
        >>> ask.run_sync(question="2+2?").run.calls[["predictor", "reply", "tokens", "model"]]
          predictor      reply  tokens     model
        0      self  answer: 4       0  scripted
        """
        return self._read(calls_frame)

    @property
    def candidates(self) -> pd.DataFrame:
        """Of an optimizer: one row a candidate: id, parents, origin, step, score with low and high (95 %), n
        (validation rows), full, best, instructions, diff to the parent's, demos, calls, tokens, usd.

        >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
        >>> writer = dn.FunctionLM(lambda request: "proposed_instruction: Be brief.")
        >>> opt = dn.COPRO(dn.metrics.exact_match(), breadth=2, depth=1, prompt_lm=writer)
        >>> better = opt.compile_sync(program, [{"question": "2+2?", "answer": "4"}])
        >>> dn.last_run().candidates[["origin", "score", "best"]]  # the start wins ties
            origin  score   best
        0    start    1.0   True
        1  round 1    1.0  False
        """
        return self._read(candidates_frame)

    @property
    def matrix(self) -> pd.DataFrame:
        """Of an optimizer: candidates × validation rows, the scores."""
        return self._read(matrix_frame)

    @property
    def history(self) -> pd.DataFrame:
        """Of an optimizer: one row each time a candidate was scored, with the best so far and what was spent by then:
        calls, metric_calls, tokens, usd, seconds."""
        return self._read(history_frame)

    @property
    def proposals(self) -> pd.DataFrame:
        """Of an optimizer: one row a proposal: key, outputs, error, seconds."""
        return self._read(proposals_frame)

    @property
    def best_parts(self) -> dict[str, dict[str, Any]] | None:
        """Of an optimizer's run, live or reopened: the parts of the best candidate so far, path → instruction, demos,
        as ``dn.candidate(run.best_parts, of=program)`` takes them. None where no candidate was evaluated on all
        validation rows, and for other runs.

        >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
        >>> writer = dn.FunctionLM(lambda request: "proposed_instruction: Be brief.")
        >>> opt = dn.COPRO(dn.metrics.exact_match(), breadth=2, depth=1, prompt_lm=writer)
        >>> better = opt.compile_sync(program, [{"question": "2+2?", "answer": "4"}])
        >>> dn.last_run().best_parts  # the start: what the program says already
        {'self': {'instruction': 'Given the fields `question`, produce the fields `answer`.'}}
        """
        record = self.record
        winner = record.candidates.get(winner_of(record) or "")
        return None if winner is None else {path: dict(part) for path, part in winner.parts.items()}

    @property
    def best(self) -> Any:
        """The best result so far: a prediction, an evaluation or a program. Only a run of this process has it; None for
        one that was reopened from its file, of which ``best_parts``, ``attempts`` and ``rollouts`` tell.

        Deprecated: for an optimizer's run that was reopened it gives ``best_parts``, with a DeprecationWarning.
        """
        parts = self.best_parts
        if parts is not None:
            told = "run.best of a reopened run is deprecated and will be None: use run.best_parts"
            warnings.warn(told, DeprecationWarning, stacklevel=2)
        return parts

    @property
    def summary(self) -> str:
        """Of an optimizer: the winner beside the start, and whether the difference can be told from none."""
        return self._read(summary_of)

    @property
    def usage(self) -> Usage:
        """What the run's calls cost so far."""
        return self.record.usage

    def diff(self, first: int, second: int) -> PromptDiff:
        """Word-level difference of the prompts that two attempts sent. Raises InputError for an unknown number.

        >>> ask = dn.Predict("question -> answer", lm=dn.ScriptedLM(["answer: four", "answer: 4"]))
        >>> def digits(row, prediction):
        ...     return dn.Score(prediction.answer.isdigit(), "Answer with digits.")
        >>> run = dn.Refine(ask, reward=digits).run_sync(question="2+2?").run
        >>> run.diff(1, 2)
        prompt of attempt 1 → 2
        ...
        Given the fields `question`, produce the fields `answer`.{+
        <BLANKLINE>
        Hint: Answer with digits.+}
        ...
        """
        rows = self._read(lambda record: {row.attempt: row for row in self._attempts(record)})
        for number in (first, second):
            if number not in rows:
                raise InputError(f"the run has no attempt {number}; there are {_listed(rows)}")
        before, after = ([(c.predictor, c.messages) for c in rows[n].calls] for n in (first, second))
        return diff_messages(before, after, f"prompt of attempt {first} → {second}")

    def plot(self, kind: str | None = None, ax: Axes | None = None, *, x: str | None = None) -> Axes:
        """Draw the run with matplotlib, as far as it has come; returns the Axes. Live or reopened, it looks the same.

        ``kind``: ``best`` (best score so far against what was spent, in ``x``), ``pareto`` (score against the cost of a
        row, in ``x``), ``heatmap`` (candidates × validation rows), ``compare`` (programs with 95 % intervals),
        ``scores`` (histogram), ``attempts`` (scores by attempt, and the best so far; of many searches their mean),
        ``hints`` (what each added). Default: what the run has, in this order; attempts where no rows were scored.
        ``x``: ``calls``, ``metric_calls``, ``tokens``, ``usd`` or ``seconds``; default calls, of ``pareto`` tokens.
        ``ax``: the Axes to draw into (default: a new figure). Raises InputError for an unknown kind, naming those that
        the run has something for; ConfigurationError without matplotlib.

        >>> ask = dn.Predict("question -> answer", lm=dn.ScriptedLM(["answer: four", "answer: 4"]))
        >>> run = dn.BestOfN(ask, lambda row, prediction: prediction.answer.isdigit()).run_sync(question="2+2?").run
        >>> run.plot("attempts").get_xlabel()
        'attempt'
        """
        from dspynb.running.view_hook import plot

        return plot(self, kind, x, ax)

    def _read(self, query: Callable[[RunRecord], T]) -> T:
        """What a query of the record gives, while no other thread adds to it."""
        record = self.record
        with record.lock:
            return query(record)

    def _attempts(self, record: RunRecord) -> Sequence[AttemptRow]:
        search = record.search_of(self._search)
        return [] if search is None else record.children(search)

    def save_html(self, path: str | Path) -> Path:
        """Write the run's view as one page that needs no kernel and no network, and give its path. What models wrote is
        text in it; its content policy lets nothing else run or load. Raises OSError where it cannot be written.

        >>> ask = dn.Predict("question -> answer", lm=dn.ScriptedLM(["answer: 4"]))
        >>> ask.run_sync(question="2+2?").run.save_html("run.html").name
        'run.html'
        """
        from dspynb.running.view_hook import page_html

        target = Path(path)
        target.write_text(page_html(self), encoding="utf-8")
        return target

    def __repr__(self) -> str:
        record = self.record
        name = record.started.name if record.started else "?"
        if record.candidates:
            done = f"{len(record.candidates)} candidates, {len(record.rollouts)} rollouts"
        elif record.rollouts and not self._search:
            done = f"{len(record.rollouts)} rows"
        else:
            search = record.search_of(self._search)
            done = f"{0 if search is None else record.count_of_attempts(search)} attempts"
        return f"<Run {self.id} {name}: {record.status}, {done}, {record.usage.calls} calls>"

    def _repr_html_(self) -> str:
        from dspynb.running.view_hook import static_html

        return static_html(self)


def open_reader() -> RunReader:
    """The run that is open where this is called; an empty one where none is."""
    run = current_scope().open_run
    return run if isinstance(run, RunReader) else RunReader(None)


def open_record() -> RunRecord:
    """The record of the run that is open where this is called; an empty one where none is."""
    return open_reader().record


def _listed(rows: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(rows))) or "none"
