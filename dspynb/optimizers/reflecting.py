"""Reflection: a new instruction for a predictor from what it got, gave, and what was said of it."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dspynb.data import Prediction
from dspynb.errors import NoFeedbackWarning, shorten
from dspynb.evaluation.rollouts import Rollout
from dspynb.events import PredictorCalled
from dspynb.modules import Predict
from dspynb.modules.scoring import Scorer
from dspynb.optimizers.candidate import Candidate
from dspynb.optimizers.engine import Engine
from dspynb.optimizers.task import Evaluated
from dspynb.optimizers.texts import cleaned, instruction_of
from dspynb.signatures import Input, Output, Signature

__all__ = [
    "MOST_CHARACTERS",
    "Reflect",
    "Reflection",
    "Shown",
    "feedback_calls",
    "feedback_on",
    "warn_without_feedback",
]

MOST_CHARACTERS = 2000
"""Of a value that a model is shown."""
_OTHER = ", answered with another instruction; the current one has not been tried on it"
_CALLS_A_ROW = 2
"""Model calls that a metric with feedback on predictors makes at most, about: a judge, and a repair."""


class Reflect(Signature):
    """An assistant was given the current instruction to perform a task. You see inputs that it got, what it answered,
    and feedback on how good that was. Write a new instruction for the assistant.

    Read the inputs and infer the task and its format in detail. Read all answers and the feedback on them. Put into the
    instruction whatever facts about the task the feedback tells, since the assistant may not have them later, and
    strategies that generalize. Keep what is right in the current instruction."""

    current_instruction: str = Input()
    examples: str = Input(desc="inputs, answers and feedback")
    new_instruction: str = Output(desc="the whole new instruction, ready to use")


@dataclass(frozen=True, slots=True)
class Shown:
    """A rollout on a training row that reflection sees. ``other``: of another candidate, since the one that is to be
    changed has not run on the row."""

    row: int
    rollout: Rollout
    other: bool = False


class Reflection:
    """Asks a model for a new instruction."""

    def __init__(self, lm: Any, temperature: float | None) -> None:
        self.predict, self.temperature = Predict(Reflect, lm=lm), temperature

    async def examples(self, engine: Engine, shown: Sequence[Shown], path: str) -> str:
        """What the predictor did on the rows, and the feedback: the metric's for this predictor, where it takes one."""
        lines = []
        for number, one in enumerate(shown, start=1):
            feedback = await feedback_on(engine, one.row, one.rollout, path)
            calls = [call for call in one.rollout.calls if call.predictor == path]
            told = "\n".join(map(_call_text, calls)) or "The predictor was not called."
            lines.append(f"# Example {number}{_OTHER if one.other else ''}\n{told}\nFeedback: {feedback}")
        return "\n\n".join(lines)

    def ask(
        self, engine: Engine, parent: Candidate, shown: Sequence[Shown], path: str, *, key: str, number: int
    ) -> asyncio.Task[Prediction | None]:
        """Ask for a new instruction; the task that is returned has it. Feedback that the metric is asked for belongs to
        the proposal: its calls too."""

        async def given() -> Mapping[str, Any]:
            told = await self.examples(engine, shown, path)
            return {"current_instruction": instruction_of(engine, parent, path), "examples": told}

        more = feedback_calls(engine, len(shown))
        return engine.propose(key, self.predict, given, number=number, temperature=self.temperature, more_calls=more)

    def read(self, made: Prediction | None) -> str:
        """The new instruction; empty where none came."""
        return "" if made is None else cleaned(made["new_instruction"])


async def feedback_on(engine: Engine, row: int, rollout: Rollout, path: str) -> str:
    """What the metric says of a rollout on a training row; for the predictor, where it takes one."""
    ended = rollout.ended
    if ended.error is not None:
        return f"It failed: {shorten(ended.error, MOST_CHARACTERS)}"
    said, score = ended.feedback, ended.score
    if scorer := _by_predictor(engine):
        prediction = rollout.prediction or Prediction(ended.outputs or {})
        told = await scorer(engine.train[row], prediction, trace=rollout.calls, predictor=path)
        said = told.feedback or said
    return said or f"This got a score of {score:.4g}."


def feedback_calls(engine: Engine, rollouts: int) -> int:
    """How many model calls the feedback on so many rollouts makes at most, about."""
    return _CALLS_A_ROW * rollouts if _by_predictor(engine) else 0


def _by_predictor(engine: Engine) -> Scorer | None:
    """The metric, where it has feedback on each predictor."""
    scorer = next(iter(engine.task.metrics.values()))
    return scorer if "predictor" in scorer.extras else None


def warn_without_feedback(engine: Engine, done: Evaluated) -> None:
    """Warn where no row has feedback and the metric has none for predictors."""
    if _by_predictor(engine) is None and not any(rollout.ended.feedback for rollout in done.rollouts):
        name = next(iter(engine.task.metrics))
        warnings.warn(
            f"the metric {name} gives scores without feedback, so that a model has to guess what was wrong. Let it "
            "return dn.Score(value, feedback='what was wrong, in words')",
            NoFeedbackWarning,
            stacklevel=2,
        )


def _call_text(call: PredictorCalled) -> str:
    given = _fields(call.inputs)
    if call.outputs is None:
        return f"{given}\nIt could not be read: {shorten(call.error or '', MOST_CHARACTERS)}"
    return f"{given}\nAnswered: {_fields(call.outputs)}"


def _fields(values: Mapping[str, Any]) -> str:
    return "\n".join(f"{name}: {shorten(value, MOST_CHARACTERS)}" for name, value in values.items())
