"""Advice: rules for each predictor, from a better and a worse trajectory on the same inputs.

Source: the rules of SIMBA in DSPy (see simba.py).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from dspynb.agents.react import STEP, trajectory_text
from dspynb.data import Prediction
from dspynb.events import PredictorCalled, plain
from dspynb.modules.batch import inputs_of
from dspynb.modules.excerpts import labelled
from dspynb.modules.predict import Predict
from dspynb.modules.scorer import source_of
from dspynb.optimizers.core.candidate import Candidate
from dspynb.optimizers.core.diagnostics import warn_without_feedback
from dspynb.optimizers.core.engine import Engine
from dspynb.optimizers.core.instructions import cleaned, instruction_of
from dspynb.optimizers.gepa.reflection import MOST_CHARACTERS, feedback_calls, feedback_on, scored
from dspynb.optimizers.simba.trajectories import Bucket, Trajectory
from dspynb.signatures.fields import Input, Output
from dspynb.signatures.signature import Signature

__all__ = ["Advising", "OfferAdvice"]


class OfferAdvice(Signature):
    """A program of several modules was run more than once on the same inputs. You see the worst run and the best one;
    where all scored alike, one of them, and nothing in place of the better one. Write advice that lets the modules earn
    better scores on similar inputs in the future.

    A module will not see these runs: all it gets is your advice. So be concrete, and general enough for other inputs.
    Contrast the worse run with the better one, if there is one, and use what the feedback tells of the task. Leave out
    boilerplate: give advice that changes what a module does. What you tell a module must be about its own part of the
    task."""

    program_code: str = Input()
    modules: str = Input(desc="each module: its fields and what it is told now")
    program_inputs: str = Input()
    labels: str = Input(desc="what else is known of these inputs; the modules do not see it")
    worse_trajectory: str = Input(desc="what each module got and gave")
    worse_outputs: str = Input()
    worse_score: str = Input()
    worse_feedback: str = Input(desc="what was said of this run, and of others that were not the best")
    better_trajectory: str = Input(desc="what each module got and gave")
    better_outputs: str = Input()
    better_score: str = Input()
    better_feedback: str = Input()
    module_names: list[str] = Input()
    discussion: str = Output(desc="where each module went wrong in the worse run, if it did")
    advice: dict[str, str] = Output(
        desc="module name → advice for it: if it receives inputs of such a kind, what it should do, and what not"
    )


class Advising:
    """Asks a model for rules."""

    def __init__(self, lm: Any) -> None:
        self.predict = Predict(OfferAdvice, lm=lm)

    def ask(
        self, engine: Engine, source: Candidate, bucket: Bucket, *, key: str, number: int
    ) -> asyncio.Task[Prediction | None]:
        """Ask for rules to be added to a candidate; the task that is returned has them. Where all trajectories scored
        the same, only the last is shown. Feedback that the metric is asked for belongs to the proposal."""

        async def given() -> Mapping[str, Any]:
            return await _given(engine, source, bucket)

        more = feedback_calls(engine, len(bucket.trajectories) * len(engine.paths))
        return engine.propose(key, self.predict, given, number=number, more_calls=more)

    def read(self, engine: Engine, made: Prediction | None) -> dict[str, str]:
        """Path → advice, of predictors that there are; empty where none came."""
        advice = {} if made is None else dict(made["advice"])
        return {path: text for path in engine.paths if (text := cleaned(str(advice.get(path) or "")))}


async def _given(engine: Engine, source: Candidate, bucket: Bucket) -> dict[str, Any]:
    row, better, worse = engine.train[bucket.row], bucket.best, bucket.worst
    inputs = inputs_of(engine.program, row, engine.task.names)
    given = {
        "program_code": _code(engine),
        "modules": "\n".join(_module(engine, source, path) for path in engine.paths),
        "program_inputs": _lines(inputs),
        "labels": _lines({name: value for name, value in row.to_dict().items() if name not in inputs}),
        **{f"worse_{name}": text for name, text in _told(engine, worse).items()},
        "worse_feedback": await _said(engine, bucket),
        "module_names": list(engine.paths),
    }
    if better.score > worse.score:
        told = _told(engine, better) | {"feedback": "\n".join(await _feedback(engine, bucket.row, better))}
    else:
        told = dict.fromkeys(("trajectory", "outputs", "score", "feedback"), "Not available")
    return given | {f"better_{name}": text for name, text in told.items()}


async def _said(engine: Engine, bucket: Bucket) -> str:
    """The feedback on the worst trajectory, and what else was said of those that scored below the best."""
    poor = [t for t in bucket.trajectories if t.score < bucket.best.score] or [bucket.worst]
    texts = [text for t in reversed(poor) for text in await _feedback(engine, bucket.row, t)]
    return "\n".join(dict.fromkeys(texts))


async def _feedback(engine: Engine, row: int, trajectory: Trajectory) -> list[str]:
    """The metric's; a text for each module, from a metric that takes a predictor."""
    rollout, task = trajectory.rollout, engine.task
    if not task.by_predictor or rollout.ended.error is not None:
        return [await feedback_on(engine, row, rollout, engine.paths[0]) or scored(rollout)]
    said = {path: await feedback_on(engine, row, rollout, path) for path in engine.paths}
    warn_without_feedback(task, said.values())
    return [f"{path}: {text or scored(rollout)}" for path, text in said.items()]


def _told(engine: Engine, trajectory: Trajectory) -> dict[str, str]:
    ended = trajectory.rollout.ended
    return {
        "trajectory": _calls(engine, trajectory.rollout.calls),
        "outputs": "None: it failed." if ended.outputs is None else _lines(ended.outputs),
        "score": f"{trajectory.score:.4g}",
    }


def _calls(engine: Engine, calls: Sequence[PredictorCalled]) -> str:
    """Module by module, and not in the order in which calls ended: of calls side by side that is chance."""
    texts = {path: sorted(_call(call) for call in calls if call.predictor == path) for path in engine.paths}
    lines = [f"# {path}\n{text}" for path, some in texts.items() for text in some]
    return "\n\n".join(lines) or "No module was called."


def _call(call: PredictorCalled) -> str:
    failed = call.outputs is None
    gave = labelled("Failed", call.error or "", MOST_CHARACTERS) if failed else _lines(call.outputs or {})
    return f"It got\n{_lines(call.inputs)}\nIt gave\n{gave}"


def _lines(values: Mapping[str, Any]) -> str:
    lines = [labelled(name, _text(value), MOST_CHARACTERS) for name, value in values.items()]
    return "\n".join(lines) or "Nothing."


def _text(value: Any) -> str:
    if _is_trajectory(value):
        return trajectory_text(value)  # without the seconds that steps took
    return value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False, default=repr)


def _is_trajectory(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(step, Mapping) and step.keys() >= STEP for step in value)
    )


def _module(engine: Engine, source: Candidate, path: str) -> str:
    predictor = dict(engine.program.named_predictors())[path]
    said = instruction_of(engine, source, path)
    return f"Module {path}\n{predictor.signature.describe()}\nIt is told: {said}\n"


def _code(engine: Engine) -> str:
    """The source of the program's own class, where there is one."""
    program = engine.program
    return (None if isinstance(program, Predict) else source_of(type(program).forward)) or "Not available"
