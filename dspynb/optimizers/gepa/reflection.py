"""Reflection: a model writes a new instruction for a predictor from its inputs, outputs, and the feedback on them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dspynb.data import Prediction
from dspynb.evaluation.rollouts import Rollout
from dspynb.events import PredictorCalled
from dspynb.lm.protocol import LMProtocol
from dspynb.modules.excerpts import labelled
from dspynb.modules.predict import Predict
from dspynb.optimizers.core.candidate import Candidate
from dspynb.optimizers.core.diagnostics import warn_without_feedback
from dspynb.optimizers.core.engine import Engine
from dspynb.optimizers.core.instructions import instruction_of, strip_quotes
from dspynb.signatures.fields import Input, Output
from dspynb.signatures.signature import Signature

__all__ = [
    "MAX_CHARACTERS",
    "Reflect",
    "Reflection",
    "ReflectionExample",
    "feedback_calls",
    "feedback_on",
    "score_text",
]

MAX_CHARACTERS = 2000
"""A model sees at most so many characters of a value."""
_BY_OTHER = ", answered with another instruction; the current one has not been tried on it"
_CALLS_PER_ROW = 2
"""The model calls that feedback on one predictor takes, about, at most: a judge, and a repair."""


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
class ReflectionExample:
    """A rollout on a training row that reflection sees. ``by_other``: it is another candidate's, since the parent has
    not run on the row."""

    row: int
    rollout: Rollout
    by_other: bool = False


class Reflection:
    """Asks a model for new instructions."""

    def __init__(self, lm: LMProtocol | str | None, temperature: float | None) -> None:
        self.predict = Predict(Reflect, lm=lm)
        self.temperature = temperature

    async def format_examples(self, engine: Engine, examples: Sequence[ReflectionExample], path: str) -> str:
        """The predictor's calls in the rollouts, with the feedback on each; on the predictor, where the metric has
        that."""
        feedback = [await feedback_on(engine, example.row, example.rollout, path) for example in examples]
        if engine.problem.by_predictor:
            warn_without_feedback(engine.problem, feedback, path)
        texts = []
        for number, (example, text) in enumerate(zip(examples, feedback, strict=True), start=1):
            # Sorted, since the order in which calls that ran side by side have ended is chance.
            calls = sorted(_call_text(call) for call in example.rollout.calls if call.predictor == path)
            calls_text = "\n".join(calls) or "The predictor was not called."
            note = _BY_OTHER if example.by_other else ""
            feedback_text = text or score_text(example.rollout)
            texts.append(f"# Example {number}{note}\n{calls_text}\nFeedback: {feedback_text}")
        return "\n\n".join(texts)

    def propose(
        self,
        engine: Engine,
        parent: Candidate,
        examples: Sequence[ReflectionExample],
        path: str,
        *,
        key: str,
        number: int,
    ) -> asyncio.Task[Prediction | None]:
        """Submit a proposal of a new instruction for a predictor of ``parent``; await the task for the reply.

        Feedback on predictors is computed inside the proposal, so that its model calls are recorded with it.
        """

        async def make_inputs() -> Mapping[str, Any]:
            text = await self.format_examples(engine, examples, path)
            return {"current_instruction": instruction_of(engine, parent, path), "examples": text}

        return engine.propose(
            key,
            self.predict,
            make_inputs,
            number=number,
            temperature=self.temperature,
            more_calls=feedback_calls(engine, len(examples)),
        )

    def instruction_from(self, reply: Prediction | None) -> str:
        """The new instruction; empty for a failed proposal."""
        return "" if reply is None else strip_quotes(reply["new_instruction"])


async def feedback_on(engine: Engine, row: int, rollout: Rollout, path: str) -> str | None:
    """The metric's feedback on a rollout of a training row; on the predictor at ``path``, where the metric has that.
    None where there is no feedback."""
    ended = rollout.ended
    problem = engine.problem
    if ended.error is not None:
        return labelled("It failed", ended.error, MAX_CHARACTERS)
    if not problem.by_predictor:
        return ended.feedback
    prediction = rollout.prediction
    if prediction is None:
        prediction = Prediction(ended.outputs or {})
    score = await problem.metric(engine.train[row], prediction, trace=rollout.calls, predictor=path)
    return score.feedback or ended.feedback


def score_text(rollout: Rollout) -> str:
    """A text with the score of a rollout, in place of missing feedback."""
    return f"This got a score of {rollout.ended.score:.4g}."


def feedback_calls(engine: Engine, rollouts: int) -> int:
    """The model calls that feedback on so many rollouts takes, about, at most."""
    return _CALLS_PER_ROW * rollouts if engine.problem.by_predictor else 0


def _call_text(call: PredictorCalled) -> str:
    inputs = _fields_text(call.inputs)
    if call.outputs is None:
        return f"{inputs}\n{labelled('It could not be read', call.error or '', MAX_CHARACTERS)}"
    return f"{inputs}\nAnswered: {_fields_text(call.outputs)}"


def _fields_text(values: Mapping[str, Any]) -> str:
    return "\n".join(labelled(name, value, MAX_CHARACTERS) for name, value in values.items())
