"""DistillHints: hints that worked become part of the instruction, so that retries are paid for once.

Candidates are judged without retries: rollouts on validation and test rows run in a scope in which every Refine makes
its first attempt only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from dspynb.aliases import Rows
from dspynb.data import Example, Prediction
from dspynb.errors import InputError, OptimizerError
from dspynb.modules.discovery import hinted_paths
from dspynb.modules.module import Module
from dspynb.modules.predict import Predict, with_hint
from dspynb.modules.scorer import Scorer
from dspynb.optimizers.core.candidate import Candidate
from dspynb.optimizers.core.engine import Engine
from dspynb.optimizers.core.instructions import instruction_of, strip_quotes
from dspynb.optimizers.core.optimizer import Optimizer
from dspynb.optimizers.core.problem import CandidateEvaluation, Problem
from dspynb.optimizers.core.settings import OptionalMetric, setting
from dspynb.optimizers.core.successive_halving import race
from dspynb.optimizers.distill.hints import helpful_hints_for, hints_by_path, hints_of_run, paths_without_advisors
from dspynb.options import NOT_RECORDED, Bool, Number, PositiveInt
from dspynb.refine.refine import Refine
from dspynb.running.reader import RunReader
from dspynb.running.tables.hints import HintRow, HintUse, hint_rows
from dspynb.running.tables.statistics import paired_difference
from dspynb.running.tracing import Trace
from dspynb.scope.candidates import Part
from dspynb.signatures.fields import Input, Output
from dspynb.signatures.signature import Signature

__all__ = ["DistillHints"]

_MAX_HINTS_SHOWN = 12
"""The model that writes an instruction sees at most so many hints."""


class DistillInstruction(Signature):
    """An assistant performs a task by its current instruction. Where an answer fell short it was given a hint and tried
    again; with the hints below, the most useful first, its answers got better. Write one instruction by which the
    assistant gives such answers at the first try, without hints. Keep what is right in the current instruction, put in
    what the hints ask for, and leave out what is true of a single input only."""

    current_instruction: str = Input()
    hints: list[str] = Input()
    new_instruction: str = Output(desc="the whole new instruction, ready to use")


class DistillHints(Optimizer):
    """Makes the hints that worked in a Refine part of the instruction: ``better = await DistillHints().compile(refine,
    train, val)``.

    The program is a Refine, or contains some. It runs on the training rows, and the hints that raised the reward (see
    ``run.hints``) make candidates: each of the best ``max_hints`` alone, and the best ones of each predictor together,
    appended to the instruction with the wording of Refine. With ``rewrite``, a model also writes an instruction from
    the old one and the hints. ``run``: an earlier run of Refine (a Run, or a run file's id or path); its hints are
    used, and nothing is run on training rows.

    Candidates are judged **without retries**: on validation and test rows, every Refine of the program makes its first
    attempt only. A candidate is accepted only if it is better than the original by a paired test on the validation
    rows: at ``level``, corrected for the number of candidates (Bonferroni), the confidence interval of the difference
    lies above 0, and the test rejects a difference of 0. Otherwise the result is the original program, and
    ``run.summary`` says so.

    The result is a program like the original: a Refine whose predictors have the instruction. ``better.module`` is the
    program inside, without retries. ``metric``: None for the reward of the Refine. Without validation rows, the second
    half of the training rows serves as validation rows; with ``run``, all of them do.

    Raises InputError where the program has no Refine that retries and there is no ``run``, where ``run`` has no hint
    that raised a score, or none for this program's predictors.

    >>> def blue(row, prediction):
    ...     return dn.Score("blue" in prediction.sentence, feedback="Use the word 'blue'.")
    >>> def write(request):  # right once it is told the word
    ...     return f"sentence: It is {'blue' if 'blue' in request.messages[0]['content'] else 'wide'}."
    >>> refine = dn.Refine(dn.Predict("subject -> sentence", lm=dn.FunctionLM(write)), reward=blue, n=2)
    >>> rows = [{"subject": f"ocean {n}"} for n in range(12)]
    >>> better = dn.DistillHints(rewrite=False).compile_sync(refine, rows[:4], val=rows[4:])
    >>> print(better.module.instruction)
    Given the fields `subject`, produce the fields `sentence`.
    <BLANKLINE>
    Hint: Use the word 'blue'.
    """

    kind: ClassVar[str] = "distill_hints"

    metric: OptionalMetric = setting(default=None, kw_only=False)  # type: ignore[assignment]
    run: Annotated[RunReader | Trace | str | Path | None, NOT_RECORDED] = None  # its hints are recorded
    max_hints: PositiveInt = 3
    rewrite: Bool = True
    level: Annotated[float, Number(above=0, below=1)] = 0.95

    def __post_init__(self) -> None:
        self._run_hints = None if self.run is None else hints_of_run(self.run)
        if isinstance(self.run, RunReader):
            self.run = self.run.id  # only the hints are needed: the id does not hold the run's calls in memory
        self._write = Predict(DistillInstruction, lm=self.prompt_lm)

    def described(self) -> dict[str, Any]:
        hints = None
        if self._run_hints is not None:
            hints = [[row.hint, list(row.predictors)] for row in self._run_hints]
        return {**super().described(), "hints": hints}

    def proposers(self) -> Mapping[str, Predict]:
        return {"distill.write": self._write}

    def retries_on(self, split: str) -> bool:
        return split == "train"

    def scorer(self, program: Module) -> Scorer:
        if self.metric is not None:
            return super().scorer(program)
        if isinstance(program, Refine):
            return program.plan.reward
        raise InputError(
            f"{program._title()} is no Refine, so it has no reward to judge it by: give a metric, as in "
            f"DistillHints(metric)"
        )

    def parted(self, train: Sequence[Example], val: Sequence[Example]) -> tuple[Sequence[Example], Sequence[Example]]:
        if val:
            return train, val
        if self._run_hints is not None:
            return train, train
        if len(train) < 2:
            raise InputError("DistillHints needs at least 2 training rows where no validation rows are given")
        half = (len(train) + 1) // 2
        return train[:half], train[half:]

    def first_step(self, task: Problem) -> int:
        metric_calls = 2 * len(task.rows["val"])  # the start and a candidate
        if self._run_hints is None:
            metric_calls += 1  # a training row to collect hints from
        return metric_calls

    def _problem(self, program: Module, train: Rows, val: Rows | None, test: Rows | None) -> Problem:
        if self._run_hints is None and hinted_paths(program) is None:
            raise InputError(
                f"{program._title()} has no Refine that tries again after a hint, so there is nothing to distil: give "
                "dn.Refine(program, reward), or a run of one: DistillHints(metric, run=…)"
            )
        problem = super()._problem(program, train, val, test)
        if self._run_hints is not None:
            paths = paths_without_advisors(program)
            if not helpful_hints_for(self._run_hints, paths):
                names = ", ".join(hints_by_path(self._run_hints)) or "none by name"
                raise InputError(
                    f"the run's hints are for other predictors ({names}); here there are {', '.join(paths)}"
                )
        return problem

    async def search(self, engine: Engine) -> None:
        """Propose programs with the hints of earlier attempts. One is accepted only if it is clearly better than the
        initial program."""
        start_task = engine.evaluate(engine.start)
        person_candidates = await engine.step(0)
        if self._run_hints is None:
            train_task = engine.evaluate(engine.start, _training_rows(engine), split="train")
            await start_task
            all_hints = _hints_of(await train_task)
        else:
            await start_task
            all_hints = self._run_hints
        hints = helpful_hints_for(all_hints, paths_without_advisors(engine.program))
        proposed = [*self._with_hints_appended(engine, hints), *await self._rewritten(engine, hints)]
        person_candidates += await engine.step(1)
        candidates = [candidate for candidate in dict.fromkeys(proposed) if candidate != engine.start]
        compared = {*candidates, *person_candidates} - {engine.start}
        if compared:
            level = 1 - (1 - self.level) / len(compared)  # Bonferroni's correction for several comparisons
            engine.leaderboard.accepts = _BetterThanStart(engine, level)
            await race(engine, candidates, step=1)

    def _with_hints_appended(self, engine: Engine, hints: Sequence[HintRow]) -> list[Candidate]:
        """Candidates with the best hints, each alone, then candidates with the best ones of each predictor together."""
        candidates = []
        for number, row in enumerate(hints[: self.max_hints], start=1):
            texts = {path: _with_hints(engine, path, [row.hint]) for path in row.predictors}
            candidates.append(self._candidate(engine, texts, f"hint {number}"))
        by_path = hints_by_path(hints)
        longest = max(map(len, by_path.values()), default=0)
        for count in range(1, min(self.max_hints, longest) + 1):
            texts = {path: _with_hints(engine, path, path_hints[:count]) for path, path_hints in by_path.items()}
            candidates.append(self._candidate(engine, texts, f"best {count} together"))
        return candidates

    async def _rewritten(self, engine: Engine, hints: Sequence[HintRow]) -> list[Candidate]:
        """A candidate with the instructions that a model writes for predictors with hints; none where that fails."""
        if not self.rewrite:
            return []
        tasks = {}
        for path, path_hints in hints_by_path(hints).items():
            instruction = instruction_of(engine, engine.start, path)
            inputs = {"current_instruction": instruction, "hints": path_hints[:_MAX_HINTS_SHOWN]}
            tasks[path] = engine.propose(f"distil, {path}", self._write, inputs)
        texts = {}
        for path, task in tasks.items():
            text = await _proposed_instruction(task)
            if text:
                texts[path] = text
        if not texts:
            return []
        return [self._candidate(engine, texts, "rewritten")]

    def _candidate(self, engine: Engine, texts: Mapping[str, str], origin: str) -> Candidate:
        parts = {path: Part(instruction=text) for path, text in texts.items()}
        return engine.candidate(parts, origin=origin, step=1, parents=[engine.start])


def _training_rows(engine: Engine) -> list[int]:
    """All training rows, or a random sample that leaves room in the budget to judge a candidate."""
    rows = list(range(len(engine.train)))
    room = engine.metric_calls_left() - len(engine.val)
    if room >= len(rows):
        return rows
    return sorted(engine.random("training rows").sample(rows, max(1, int(room))))


def _hints_of(evaluation: CandidateEvaluation) -> list[HintRow]:
    """The hints in the rollouts of an evaluation."""
    uses: list[HintUse] = []
    for rollout in evaluation.rollouts:
        uses += rollout.hints
    return hint_rows(uses)


class _BetterThanStart:
    """Whether a candidate is better than the start, by a paired test on the validation rows."""

    def __init__(self, engine: Engine, level: float) -> None:
        self._engine = engine
        self._level = level
        self._results: dict[str, bool] = {}

    def __call__(self, candidate: Candidate) -> bool:
        if candidate.id not in self._results:
            before = self._engine.scores(self._engine.start)
            after = self._engine.scores(candidate)
            difference = paired_difference([before[row] for row in after], list(after.values()), level=self._level)
            is_above = difference.low is not None and difference.low > 0
            self._results[candidate.id] = is_above and difference.p_value <= 1 - self._level
        return self._results[candidate.id]


def _with_hints(engine: Engine, path: str, hints: Sequence[str]) -> str:
    """The predictor's instruction with hints, composed as Refine does it."""
    return with_hint(instruction_of(engine, engine.start, path), "\n".join(hints))


async def _proposed_instruction(task: asyncio.Task[Prediction | None]) -> str:
    """A proposed instruction; empty where the proposal failed. Failures never end the run, since there are candidates
    with hints appended."""
    try:
        reply = await task
    except OptimizerError:
        reply = None
    return "" if reply is None else strip_quotes(str(reply["new_instruction"]))
