"""Reading a run, live or reopened: its tables, prompt diffs, plots and HTML."""

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
from dspynb.running.tables.costs import costs_frame
from dspynb.running.tables.diffs import PromptDiff, diff_messages
from dspynb.running.tables.frames import attempts_frame, calls_frame, rollouts_of
from dspynb.running.tables.hints import hints_frame
from dspynb.scope.core import current_scope

if TYPE_CHECKING:
    import pandas as pd

    from dspynb.running.view_hook import Axes

__all__ = ["RunReader", "open_reader", "open_record"]

T = TypeVar("T")


_NOTHING: Mapping[Any, Any] = {}  # one for all runs, of which there may be many thousands


class RunReader:
    """The readable side of a run: ``attempts``, ``rollouts``, ``calls``, ``diff``, ``plot``, ``usage``, ``status``. A
    notebook displays it.

    ``damaged``: line number → error, for the lines of a reopened file that could not be read. ``search``: the span
    whose attempts are read, where a run has several searches (such as a Refine inside a module); 0 for the first one.
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
        self.damaged: Mapping[int, str] = damaged or _NOTHING
        self.path = path
        self._search = search
        self._record: RunRecord | None = None  # created when first needed, since most small runs are never read
        self._record_lock = threading.RLock()
        self._events = list(events)  # the events so far, until the record is created

    @property
    def id(self) -> str:
        """The name of the run: the time of its start, and a random part."""
        if self._id is None:  # created when first needed, since most plain calls never need it
            self._id = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(6)}"
        return self._id

    def part(self, search: int) -> RunReader:
        """A reader of the same run, with the attempts of one of its searches."""
        part = RunReader(self.id, path=self.path, search=search, damaged=self.damaged)
        part._record = self.record  # shared, so that it grows with the run
        return part

    @property
    def record(self) -> RunRecord:
        """The state of the run, from which tables and views are made. It grows with the run."""
        if self._record is None:
            with self._record_lock:
                if self._record is None:
                    self._record = RunRecord(self._events, self._record_lock)
                    self._events = []
        return self._record

    @property
    def status(self) -> str:
        """``pending``, ``running``, ``finished``, ``stopped``, ``exhausted`` (the budget is spent), ``max_errors``
        (an evaluation had more errors than that setting allows), ``interrupted``,
        ``cancelled``, ``failed``, or ``unfinished`` (the process died)."""
        return self.record.status

    @property
    def attempts(self) -> pd.DataFrame:
        """One row per attempt, in order. Empty for a run without attempts.

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
        """One row per rollout of an evaluation: row, repeat, inputs and labels, outputs, score, feedback, error,
        attempts, tokens, usd, seconds (of work), waited (seconds for a slot of the model, a rate limit or a retry),
        cached; ``program`` where several programs were compared. A rollout that failed has no score."""
        return self._read(rollouts_of)

    @property
    def hints(self) -> pd.DataFrame:
        """The hints of Refine, one row each, the most useful first: hint, predictor (``*`` for all), used (number of
        attempts), passed (how many of them passed), gain (mean score above the attempts without a hint).

        The run of a prediction has the hints of its own call only. Empty for a run without hints.

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
        """One row per model call, in the order in which the calls ended. Calls that failed or were cancelled are rows
        too. Columns, beside those that their names explain:

        - attempt: the number of the attempt that made the call; rollout: which sample of the prompt it asked for;
          repair: whether it repairs the reply of the call before, which could not be read.
        - reasoning: the model's reasoning; reasoning_tokens: its tokens. finish: why the model stopped, in OpenAI's
          words where they fit (stop, length, tool_calls, content_filter). truncated: whether the reply was cut at the
          limit of tokens, and accepted.
        - seconds: of work. waited: seconds besides in which the call waited for a slot of the model, a rate limit, a
          retry, or the end of a pause. first_token: seconds from sending to the first piece of a streamed reply, which
          may be reasoning.
        - requested, sent: the settings of the request. They differ where the model does not take a setting.
        - tools, response_format: the descriptions of tools and the JSON schema that were sent with the request.
        - role: what the call was for, as in ``run.costs``.
        - estimated: tokens that budgets count by an estimate. The provider reported none, so that the column tokens is
          empty; or the request was stopped or timed out under a budget of tokens or USD, and tokens and usd have what
          it may have cost. price_source: where the price is from.
        - request_id: the provider's id of the request, for its support.

        >>> ask = dn.Predict("question -> answer", lm=dn.ScriptedLM(["answer: 4"]))
        >>> ask.run_sync(question="2+2?").run.calls[["predictor", "reply", "tokens", "model"]]
          predictor      reply  tokens     model
        0      self  answer: 4       0  scripted
        """
        return self._read(calls_frame)

    @property
    def costs(self) -> pd.DataFrame:
        """What the run has cost so far: one row per role and model, with calls, tokens, cached_tokens (of the prompts),
        usd and seconds (of work, added up over calls that ran at the same time).

        The roles: task (the program), repair (of a reply that could not be read), judge (metrics and rewards), advisor
        (hints of a Refine), proposal and teacher (of an optimizer); unknown for calls in files of earlier versions.
        ``tokens`` and ``usd`` are missing where some are not known. ``estimated``: how many tokens are, as in
        ``run.calls``, if any; the tables of attempts, rollouts and candidates have this column too.

        >>> judge = dn.metrics.llm_judge("It is right.", lm=dn.FunctionLM(lambda request: "reasons: Yes.\\nscore: 1"))
        >>> ask = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
        >>> result = dn.run_sync(lambda: dn.evaluate(ask, [{"question": "2+2?"}, {"question": "3+1?"}], judge))
        >>> result.run.costs[["role", "model", "calls", "tokens"]]
            role     model  calls  tokens
        0   task  function      2       0
        1  judge  function      2       0
        """
        return self._read(costs_frame)

    @property
    def candidates(self) -> pd.DataFrame:
        """For an optimizer: one row per candidate: id, parents, origin, step, score with its 95 % interval low and
        high, n (validation rows), full, best, instructions, diff to those of the parent, demos, calls, tokens, usd.

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
        """For an optimizer: the scores, candidates × validation rows."""
        return self._read(matrix_frame)

    @property
    def history(self) -> pd.DataFrame:
        """For an optimizer: one row each time a candidate was scored, with the best candidate so far and what had been
        spent until then: calls, metric_calls, tokens, usd, seconds."""
        return self._read(history_frame)

    @property
    def proposals(self) -> pd.DataFrame:
        """For an optimizer: one row per proposal: key, outputs, error, seconds."""
        return self._read(proposals_frame)

    @property
    def best_parts(self) -> dict[str, dict[str, Any]] | None:
        """For an optimizer, live or reopened: the parts of the best candidate so far, path → instruction and demos.
        ``dn.candidate(run.best_parts, of=program)`` puts them into a program.

        None for other runs, and where no candidate was evaluated on all validation rows.

        >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
        >>> writer = dn.FunctionLM(lambda request: "proposed_instruction: Be brief.")
        >>> opt = dn.COPRO(dn.metrics.exact_match(), breadth=2, depth=1, prompt_lm=writer)
        >>> better = opt.compile_sync(program, [{"question": "2+2?", "answer": "4"}])
        >>> dn.last_run().best_parts  # the start: what the program says already
        {'self': {'instruction': 'Given the fields `question`, produce the fields `answer`.'}}
        """
        record = self.record
        winner = record.candidates.get(winner_of(record) or "")
        if winner is None:
            return None
        return {path: dict(part) for path, part in winner.parts.items()}

    @property
    def best(self) -> Any:
        """The best result so far: a prediction, an evaluation or a program. Only a run of this process has it.

        None for a run that was reopened from its file: use ``best_parts``, ``attempts`` or ``rollouts`` instead.
        Deprecated: for an optimizer's run that was reopened it returns ``best_parts``, with a DeprecationWarning.
        """
        parts = self.best_parts
        if parts is not None:
            message = "run.best of a reopened run is deprecated and will be None: use run.best_parts"
            warnings.warn(message, DeprecationWarning, stacklevel=2)
        return parts

    @property
    def summary(self) -> str:
        """For an optimizer: the scores of the winner and the start in a few sentences, and whether the difference
        between them is significant."""
        return self._read(summary_of)

    @property
    def usage(self) -> Usage:
        """The usage of all calls so far."""
        return self.record.usage

    def diff(self, first: int, second: int) -> PromptDiff:
        """The word-level difference between the prompts of two attempts. Raises InputError for an unknown number.

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
        before = [(call.predictor, call.messages) for call in rows[first].calls]
        after = [(call.predictor, call.messages) for call in rows[second].calls]
        return diff_messages(before, after, f"prompt of attempt {first} → {second}")

    def plot(self, kind: str | None = None, ax: Axes | None = None, *, x: str | None = None) -> Axes:
        """Draw the run so far with matplotlib, and return the Axes. A reopened run looks like a live one.

        ``kind``: ``best`` (best score so far against what was spent, in ``x``), ``pareto`` (score against the cost of a
        row, in ``x``), ``heatmap`` (candidates × validation rows), ``compare`` (programs with 95 % intervals),
        ``scores`` (histogram), ``attempts`` (score by attempt, and the best so far; for several searches their means),
        ``hints`` (gain of each hint). Default: the first of these for which the run has data; attempts where no rows
        were scored. ``x``: ``calls``, ``metric_calls``, ``tokens``, ``usd`` or ``seconds`` (default: calls; for
        ``pareto`` tokens). ``ax``: the Axes to draw into (default: a new figure).

        Raises InputError for an unknown kind, with the kinds that the run has data for; ConfigurationError without
        matplotlib.

        >>> ask = dn.Predict("question -> answer", lm=dn.ScriptedLM(["answer: four", "answer: 4"]))
        >>> run = dn.BestOfN(ask, lambda row, prediction: prediction.answer.isdigit()).run_sync(question="2+2?").run
        >>> run.plot("attempts").get_xlabel()
        'attempt'
        """
        from dspynb.running.view_hook import plot

        return plot(self, kind, x, ax)

    def _read(self, query: Callable[[RunRecord], T]) -> T:
        """The result of a query, during which no other thread changes the record."""
        record = self.record
        with record.lock:
            return query(record)

    def _attempts(self, record: RunRecord) -> Sequence[AttemptRow]:
        search = record.search_of(self._search)
        if search is None:
            return []
        return record.children(search)

    def save_html(self, path: str | Path) -> Path:
        """Write the view of the run to an HTML file that needs no kernel and no network, and return its path.

        Texts of models are escaped, and the page's content security policy prevents that anything else runs or loads.
        Raises OSError where the file cannot be written.

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
            progress = f"{len(record.candidates)} candidates, {len(record.rollouts)} rollouts"
        elif record.rollouts and not self._search:
            progress = f"{len(record.rollouts)} rows"
        else:
            search = record.search_of(self._search)
            attempts = 0 if search is None else record.count_of_attempts(search)
            progress = f"{attempts} attempts"
        return f"<Run {self.id} {name}: {record.status}, {progress}, {record.usage.calls} calls>"

    def _repr_html_(self) -> str:
        from dspynb.running.view_hook import static_html

        return static_html(self)


def open_reader() -> RunReader:
    """The innermost open run in the caller's scope; an empty reader where there is none."""
    run = current_scope().open_run
    if isinstance(run, RunReader):
        return run
    return RunReader(None)


def open_record() -> RunRecord:
    """The record of the innermost open run in the caller's scope; an empty record where there is none."""
    return open_reader().record


def _listed(rows: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(rows))) or "none"
