"""DistillHints: hints that worked become part of the instruction: what was paid for in retries is paid once.

Nothing is stored to judge a candidate without retries: the rollouts on validation and test rows run in a scope in which
every Refine makes its first attempt alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from dspynb.data import Example, Prediction
from dspynb.errors import InputError, OptimizerError
from dspynb.modules.discovery import hinted_paths
from dspynb.modules.module import Module, checked_program
from dspynb.modules.predict import Predict, with_hint
from dspynb.modules.scorer import Scorer
from dspynb.optimizers.core.candidate import Candidate
from dspynb.optimizers.core.engine import Engine
from dspynb.optimizers.core.instructions import cleaned, instruction_of
from dspynb.optimizers.core.optimizer import Optimizer
from dspynb.optimizers.core.settings import OptionalMetric, setting
from dspynb.optimizers.core.successive_halving import race
from dspynb.optimizers.core.task import Evaluated, Task
from dspynb.optimizers.distill.hints import by_path, hints_of, taught, worth
from dspynb.options import NOT_RECORDED, Bool, Number, PositiveInt
from dspynb.refine.refine import Refine
from dspynb.running.reader import RunReader
from dspynb.running.tables.hints import HintRow, hint_rows
from dspynb.running.tables.statistics import paired_difference
from dspynb.running.tracing import Trace
from dspynb.scope.candidates import Part
from dspynb.signatures.fields import Input, Output
from dspynb.signatures.signature import Signature

__all__ = ["DistillHints"]

_MOST_SHOWN = 12
"""Hints that the model which writes an instruction sees, for each predictor."""


class DistillInstruction(Signature):
    """An assistant performs a task by its current instruction. Where an answer fell short it was given a hint and tried
    again; with the hints below, the most useful first, its answers got better. Write one instruction by which the
    assistant gives such answers at the first try, without hints. Keep what is right in the current instruction, put in
    what the hints ask for, and leave out what is true of a single input only."""

    current_instruction: str = Input()
    hints: list[str] = Input()
    new_instruction: str = Output(desc="the whole new instruction, ready to use")


class DistillHints(Optimizer):
    """Makes the hints that worked in a Refine a permanent instruction: ``better = await DistillHints().compile(refine,
    train, val)``.

    The program is a Refine, or has some in it; it runs on the training rows, and the hints that raised the reward (see
    ``run.hints``) make candidates: each of the best ``max_hints`` alone, the best ones of each predictor together,
    appended to the instruction in the words in which Refine gives them; and with ``rewrite``, an instruction that a
    model writes from the old one and the hints. ``run``: a run of Refine that has been made (a Run, or a run file's id
    or path); its hints are taken, and nothing is run on training rows.

    Candidates are judged **without retries**: on validation and test rows, every Refine of the program makes its first
    attempt alone. One is taken only where it is better than the start by a paired test on the validation rows: at
    ``level``, shared among all that are tried (Bonferroni), the interval of the difference lies above 0 and the test
    rejects that there is none. Else the result is the program as it is, and ``run.summary`` says so.

    The result is a program like the one given, a Refine whose predictors have the instruction: ``better.module`` is the
    program inside, without retries. ``metric``: None for the reward of the Refine. Without validation rows, the second
    half of the training rows judges; with ``run``, all of them.

    Raises InputError where the program has no Refine that tries again and no ``run`` is given, where ``run`` has no
    hint that raised a score, or none for this program's predictors.

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
        self.given = None if self.run is None else hints_of(self.run)
        if isinstance(self.run, RunReader):
            self.run = self.run.id  # its hints are all that is needed: keep none of its calls
        self._write = Predict(DistillInstruction, lm=self.prompt_lm)

    def described(self) -> dict[str, Any]:
        hints = None
        if self.given is not None:
            hints = [[row.hint, list(row.predictors)] for row in self.given]
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
        if val or self.given is not None:
            return train, val or train
        if len(train) < 2:
            raise InputError("DistillHints needs at least 2 training rows where no validation rows are given")
        half = (len(train) + 1) // 2
        return train[:half], train[half:]

    def first_step(self, task: Task) -> int:
        # the start and a candidate, and a row to get hints from
        return 2 * len(task.rows["val"]) + (self.given is None)

    def _task(self, program: Module, train: Any, val: Any, test: Any) -> Task:
        checked_program(program)
        if self.given is None and hinted_paths(program) is None:
            raise InputError(
                f"{program._title()} has no Refine that tries again after a hint, so there is nothing to distil: give "
                "dn.Refine(program, reward), or a run of one: DistillHints(metric, run=…)"
            )
        task = super()._task(program, train, val, test)
        if self.given is not None:
            paths = taught(program)
            if not worth(self.given, paths):
                named = ", ".join(dict.fromkeys(p for row in self.given for p in row.predictors)) or "none by name"
                raise InputError(
                    f"the run's hints are for other predictors ({named}); here there are {', '.join(paths)}"
                )
        return task

    async def search(self, engine: Engine) -> None:
        base = engine.evaluate(engine.start)
        given = await engine.step(0)
        asked = None if self.given is not None else engine.evaluate(engine.start, _training_rows(engine), split="train")
        await base
        gathered = _gathered(await asked) if asked is not None else self.given or []
        hints = worth(gathered, taught(engine.program))
        made = [*self._appended(engine, hints), *await self._written(engine, hints)]
        given += await engine.step(1)
        tried = [candidate for candidate in dict.fromkeys(made) if candidate != engine.start]
        if judged := {*tried, *given} - {engine.start}:
            engine.leaderboard.accepts = _Better(engine, 1 - (1 - self.level) / len(judged))
            await race(engine, tried, step=1)

    def _appended(self, engine: Engine, hints: Sequence[HintRow]) -> list[Candidate]:
        """The best hints, each alone, then each predictor's best ones together."""
        wanted: list[tuple[str, Mapping[str, Sequence[str]]]] = [
            (f"hint {number}", {path: [row.hint] for path in row.predictors})
            for number, row in enumerate(hints[: self.max_hints], start=1)
        ]
        listed = by_path(hints)
        longest = max(map(len, listed.values()), default=0)
        wanted += [
            (f"best {most} together", {path: texts[:most] for path, texts in listed.items()})
            for most in range(1, min(self.max_hints, longest) + 1)
        ]
        return [
            self._candidate(engine, {path: _composed(engine, path, some) for path, some in texts.items()}, origin)
            for origin, texts in wanted
        ]

    async def _written(self, engine: Engine, hints: Sequence[HintRow]) -> list[Candidate]:
        """Instructions that a model writes, of all predictors that have hints; none where it fails."""
        asked = {}
        for path, some in (by_path(hints) if self.rewrite else {}).items():
            given = {"current_instruction": instruction_of(engine, engine.start, path), "hints": some[:_MOST_SHOWN]}
            asked[path] = engine.propose(f"distil, {path}", self._write, given)
        texts = {path: text for path, task in asked.items() if (text := await _text(task))}
        return [self._candidate(engine, texts, "rewritten")] if texts else []

    def _candidate(self, engine: Engine, texts: Mapping[str, str], origin: str) -> Candidate:
        parts = {path: Part(instruction=text) for path, text in texts.items()}
        return engine.candidate(parts, origin=origin, step=1, parents=[engine.start])


def _training_rows(engine: Engine) -> list[int]:
    """All training rows, or as many as leave room to judge a candidate."""
    rows, left = list(range(len(engine.train))), engine.metric_calls_left() - len(engine.val)
    return rows if left >= len(rows) else sorted(engine.random("training rows").sample(rows, max(1, int(left))))


def _gathered(done: Evaluated) -> list[HintRow]:
    """The hints of the rollouts on training rows."""
    return hint_rows(use for rollout in done.rollouts for use in rollout.hints)


class _Better:
    """Whether a candidate is better than the start, by a paired test on the validation rows."""

    def __init__(self, engine: Engine, level: float) -> None:
        self._engine, self._level = engine, level
        self._known: dict[str, bool] = {}

    def __call__(self, candidate: Candidate) -> bool:
        if candidate.id not in self._known:
            before, after = (self._engine.scores(c) for c in (self._engine.start, candidate))
            found = paired_difference([before[r] for r in after], list(after.values()), level=self._level)
            above = found.low is not None and found.low > 0
            self._known[candidate.id] = above and found.p_value <= 1 - self._level
        return self._known[candidate.id]


def _composed(engine: Engine, path: str, hints: Sequence[str]) -> str:
    """The instruction with hints, as a Refine composes them."""
    return with_hint(instruction_of(engine, engine.start, path), "\n".join(hints))


async def _text(asked: asyncio.Task[Prediction | None]) -> str:
    """A proposed instruction; empty where it failed, however often: what is appended is tried anyway."""
    try:
        made = await asked
    except OptimizerError:
        made = None
    return "" if made is None else cleaned(str(made["new_instruction"]))
