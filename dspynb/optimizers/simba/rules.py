"""Rules: advice of a model for each predictor, from a better and a worse trajectory on the same inputs.

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
from dspynb.lm.protocol import LMProtocol
from dspynb.modules.batch import inputs_of
from dspynb.modules.excerpts import labelled
from dspynb.modules.predict import Predict
from dspynb.modules.scorer import source_of
from dspynb.optimizers.core.candidate import Candidate
from dspynb.optimizers.core.diagnostics import warn_without_feedback
from dspynb.optimizers.core.engine import Engine
from dspynb.optimizers.core.instructions import instruction_of, strip_quotes
from dspynb.optimizers.gepa.reflection import MAX_CHARACTERS, feedback_calls, feedback_on, score_text
from dspynb.optimizers.simba.trajectories import Bucket, Trajectory
from dspynb.signatures.fields import Input, Output
from dspynb.signatures.signature import Signature

__all__ = ["OfferAdvice", "RuleWriter"]


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


class RuleWriter:
    """Asks a model for rules."""

    def __init__(self, lm: LMProtocol | str | None) -> None:
        self.predict = Predict(OfferAdvice, lm=lm)

    def propose(
        self, engine: Engine, source: Candidate, bucket: Bucket, *, key: str, number: int
    ) -> asyncio.Task[Prediction | None]:
        """Submit a proposal of rules to add to a candidate; await the task for the reply.

        Where all trajectories of the bucket scored the same, the model sees only the last. Feedback on predictors is
        computed inside the proposal, so that its model calls are recorded with it.
        """

        async def make_inputs() -> Mapping[str, Any]:
            return await _inputs(engine, source, bucket)

        calls = feedback_calls(engine, len(bucket.trajectories) * len(engine.paths))
        return engine.propose(key, self.predict, make_inputs, number=number, more_calls=calls)

    def rules_from(self, engine: Engine, reply: Prediction | None) -> dict[str, str]:
        """Path → rule, for the program's predictors; empty for a failed proposal."""
        if reply is None:
            return {}
        advice = dict(reply["advice"])
        rules = {}
        for path in engine.paths:
            text = strip_quotes(str(advice.get(path) or ""))
            if text:
                rules[path] = text
        return rules


async def _inputs(engine: Engine, source: Candidate, bucket: Bucket) -> dict[str, Any]:
    row = engine.train[bucket.row]
    better = bucket.best
    worse = bucket.worst
    program_inputs = inputs_of(engine.program, row, engine.problem.names)
    labels = {name: value for name, value in row.to_dict().items() if name not in program_inputs}
    inputs = {
        "program_code": _program_code(engine),
        "modules": "\n".join(_module_text(engine, source, path) for path in engine.paths),
        "program_inputs": _lines(program_inputs),
        "labels": _lines(labels),
        **{f"worse_{name}": text for name, text in _trajectory_texts(engine, worse).items()},
        "worse_feedback": await _feedback_below_best(engine, bucket),
        "module_names": list(engine.paths),
    }
    if better.score > worse.score:
        texts = _trajectory_texts(engine, better)
        texts["feedback"] = "\n".join(await _feedback(engine, bucket.row, better))
    else:
        texts = dict.fromkeys(("trajectory", "outputs", "score", "feedback"), "Not available")
    return inputs | {f"better_{name}": text for name, text in texts.items()}


async def _feedback_below_best(engine: Engine, bucket: Bucket) -> str:
    """The feedback on all trajectories that scored below the best, the worst first, without duplicates."""
    below = [t for t in bucket.trajectories if t.score < bucket.best.score] or [bucket.worst]
    texts: list[str] = []
    for trajectory in reversed(below):
        texts += await _feedback(engine, bucket.row, trajectory)
    return "\n".join(dict.fromkeys(texts))


async def _feedback(engine: Engine, row: int, trajectory: Trajectory) -> list[str]:
    """The metric's feedback; a text for each module, from a metric that has feedback on predictors."""
    rollout = trajectory.rollout
    problem = engine.problem
    if not problem.by_predictor or rollout.ended.error is not None:
        return [await feedback_on(engine, row, rollout, engine.paths[0]) or score_text(rollout)]
    by_path = {path: await feedback_on(engine, row, rollout, path) for path in engine.paths}
    warn_without_feedback(problem, by_path.values())
    return [f"{path}: {text or score_text(rollout)}" for path, text in by_path.items()]


def _trajectory_texts(engine: Engine, trajectory: Trajectory) -> dict[str, str]:
    ended = trajectory.rollout.ended
    return {
        "trajectory": _calls_text(engine, trajectory.rollout.calls),
        "outputs": "None: it failed." if ended.outputs is None else _lines(ended.outputs),
        "score": f"{trajectory.score:.4g}",
    }


def _calls_text(engine: Engine, calls: Sequence[PredictorCalled]) -> str:
    """The calls of each module, sorted: the order in which calls that ran side by side have ended is chance."""
    blocks = []
    for path in engine.paths:
        texts = sorted(_call_text(call) for call in calls if call.predictor == path)
        blocks += [f"# {path}\n{text}" for text in texts]
    return "\n\n".join(blocks) or "No module was called."


def _call_text(call: PredictorCalled) -> str:
    inputs = _lines(call.inputs)
    if call.outputs is None:
        return f"It got\n{inputs}\nIt gave\n{labelled('Failed', call.error or '', MAX_CHARACTERS)}"
    return f"It got\n{inputs}\nIt gave\n{_lines(call.outputs)}"


def _lines(values: Mapping[str, Any]) -> str:
    lines = [labelled(name, _text(value), MAX_CHARACTERS) for name, value in values.items()]
    return "\n".join(lines) or "Nothing."


def _text(value: Any) -> str:
    if _is_trajectory(value):
        return trajectory_text(value)  # without the seconds that steps took
    if isinstance(value, str):
        return value
    return json.dumps(plain(value), ensure_ascii=False, default=repr)


def _is_trajectory(value: object) -> bool:
    """Whether a value is the trajectory of an agent: a list of its steps."""
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(step, Mapping) and step.keys() >= STEP for step in value)


def _module_text(engine: Engine, source: Candidate, path: str) -> str:
    predictor = dict(engine.program.named_predictors())[path]
    instruction = instruction_of(engine, source, path)
    return f"Module {path}\n{predictor.signature.describe()}\nIt is told: {instruction}\n"


def _program_code(engine: Engine) -> str:
    """The source of the program's ``forward``; a text in its place where there is none."""
    program = engine.program
    if isinstance(program, Predict):
        return "Not available"
    return source_of(type(program).forward) or "Not available"
