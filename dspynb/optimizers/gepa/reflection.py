"""Reflection: a new instruction for a predictor from what it got, gave, and what was said of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dspynb.data import Prediction
from dspynb.evaluation.rollouts import Rollout
from dspynb.events import PredictorCalled
from dspynb.modules.excerpts import labelled
from dspynb.modules.predict import Predict
from dspynb.optimizers.core.candidate import Candidate
from dspynb.optimizers.core.diagnostics import warn_without_feedback
from dspynb.optimizers.core.engine import Engine
from dspynb.optimizers.core.instructions import cleaned, instruction_of
from dspynb.signatures.fields import Input, Output
from dspynb.signatures.signature import Signature

__all__ = [
    "MOST_CHARACTERS",
    "Reflect",
    "Reflection",
    "Shown",
    "feedback_calls",
    "feedback_on",
    "scored",
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
        lines, feedback = [], [await feedback_on(engine, one.row, one.rollout, path) for one in shown]
        if engine.task.by_predictor:
            warn_without_feedback(engine.task, feedback, path)
        for number, (one, said) in enumerate(zip(shown, feedback, strict=True), start=1):
            # Sorted: of calls side by side it is chance which ends first.
            calls = sorted(_call_text(call) for call in one.rollout.calls if call.predictor == path)
            told = "\n".join(calls) or "The predictor was not called."
            lines.append(
                f"# Example {number}{_OTHER if one.other else ''}\n{told}\nFeedback: {said or scored(one.rollout)}"
            )
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


async def feedback_on(engine: Engine, row: int, rollout: Rollout, path: str) -> str | None:
    """What the metric says of a rollout on a training row, if anything; for the predictor, where it takes one."""
    ended, task = rollout.ended, engine.task
    if ended.error is not None:
        return labelled("It failed", ended.error, MOST_CHARACTERS)
    if not task.by_predictor:
        return ended.feedback
    prediction = rollout.prediction or Prediction(ended.outputs or {})
    told = await task.metric(engine.train[row], prediction, trace=rollout.calls, predictor=path)
    return told.feedback or ended.feedback


def scored(rollout: Rollout) -> str:
    """What stands for feedback where there is none."""
    return f"This got a score of {rollout.ended.score:.4g}."


def feedback_calls(engine: Engine, rollouts: int) -> int:
    """How many model calls the feedback on so many rollouts makes at most, about."""
    return _CALLS_A_ROW * rollouts if engine.task.by_predictor else 0


def _call_text(call: PredictorCalled) -> str:
    given = _fields(call.inputs)
    if call.outputs is None:
        return f"{given}\n{labelled('It could not be read', call.error or '', MOST_CHARACTERS)}"
    return f"{given}\nAnswered: {_fields(call.outputs)}"


def _fields(values: Mapping[str, Any]) -> str:
    return "\n".join(labelled(name, value, MOST_CHARACTERS) for name, value in values.items())
