"""Demo sets: labels from the training rows, and traces of a teacher that a metric has accepted.

Source: Khattab et al. 2023, "DSPy: Compiling Declarative Language Model Calls", section 4 (BootstrapFewShot). Rows are
tried in waves and accepted in order. A wave has as many rows as the set lacks traces, so that no more rows are tried
than one after the other.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dspynb.data import Example
from dspynb.errors import OptimizerError, StateError, shorten
from dspynb.evaluation.rollouts import Rollout
from dspynb.events import plain
from dspynb.modules.predict import Predict
from dspynb.optimizers.core.candidate import Candidate, demo_of
from dspynb.optimizers.core.diagnostics import failed_part
from dspynb.optimizers.core.engine import Engine
from dspynb.optimizers.core.problem import Teacher
from dspynb.scope.candidates import Part
from dspynb.state.demos import dump_demos, load_demo

__all__ = ["Bootstrapping", "DemoSet", "bootstrap_demos", "demos_of", "labeled_demos", "traced_demo"]

Demo = Mapping[str, Any]


@dataclass(frozen=True)
class Bootstrapping:
    """How demos are bootstrapped.

    ``threshold``: the score that a trace needs (None: above 0). ``rounds``: how often a row is tried; rounds after the
    first are sampled. ``max_labeled``: demos of a predictor at most, traces included, when labels are added.
    """

    threshold: float | None = None
    rounds: int = 1
    max_labeled: int = 16
    teacher: Teacher | None = None

    def accepts(self, engine: Engine, rollout: Rollout) -> bool:
        """Whether the trace of a rollout may become demos."""
        if rollout.ended.error is not None:
            return False
        score = engine.score(rollout)
        if self.threshold is None:
            return score > 0
        return score >= self.threshold


@dataclass
class DemoSet:
    """A demo set under construction.

    ``order``: numbers of the training rows in the order in which they are tried. ``max_traces``: traces at most.
    ``accepted``: row → rollout whose trace is in the set. ``rollouts``: all that were tried.
    """

    name: str
    order: Sequence[int]
    max_traces: int
    accepted: dict[int, Rollout] = field(default_factory=dict)
    rollouts: list[Rollout] = field(default_factory=list)
    _next: int = 0

    def next_wave(self) -> list[int]:
        """The next rows to try: as many as the set lacks traces."""
        rows = list(self.order[self._next : self._next + self.max_traces - len(self.accepted)])
        self._next += len(rows)
        return rows

    def raise_if_all_failed(self) -> None:
        """Raise OptimizerError where the teacher has failed on every row."""
        errors = [rollout.ended.error for rollout in self.rollouts if rollout.ended.error is not None]
        if errors and len(errors) == len(self.rollouts):
            raise OptimizerError(
                f"the {failed_part(errors, 'teacher')} failed on all {len(errors)} rows, so no demo was made. The "
                f"first error: {shorten(errors[0], 500)}"
            )


async def bootstrap_demos(
    engine: Engine, bootstrapping: Bootstrapping, sets: Sequence[DemoSet]
) -> list[dict[str, list[Demo]]]:
    """For each set: path → demos, accepted traces first, then labels of rows without an accepted trace."""
    teacher = _TeacherRollouts(engine, bootstrapping)
    while True:
        wave = []
        for demo_set in sets:
            wave += [(demo_set, row) for row in demo_set.next_wave()]
        if not wave:
            break
        for repeat in range(bootstrapping.rounds):
            submitted = []
            for demo_set, row in wave:
                if row not in demo_set.accepted:
                    submitted.append((demo_set, row, teacher.submit(row, repeat)))
            for demo_set, row, future in submitted:
                rollout = await future
                demo_set.rollouts.append(rollout)
                if bootstrapping.accepts(engine, rollout):
                    demo_set.accepted[row] = rollout
    return [_demos_by_path(engine, bootstrapping, demo_set) for demo_set in sets]


def _demos_by_path(engine: Engine, bootstrapping: Bootstrapping, demo_set: DemoSet) -> dict[str, list[Demo]]:
    accepted = [row for row in demo_set.order if row in demo_set.accepted]
    other_rows = [engine.train[row] for row in demo_set.order if row not in demo_set.accepted]
    demos: dict[str, list[Demo]] = {}
    for path, predictor in engine.program.named_predictors():
        traces = []
        for row in accepted:
            demo = traced_demo(engine, path, predictor, row, demo_set.accepted[row])
            if demo is not None:
                traces.append(demo)
        traces = traces[: demo_set.max_traces]
        room = bootstrapping.max_labeled - len(traces)
        labels = labeled_demos(predictor, other_rows, room, engine.random("labels", demo_set.name, path))
        demos[path] = [*traces, *labels]
    return demos


def traced_demo(engine: Engine, path: str, predictor: Predict, row: int, rollout: Rollout) -> Demo | None:
    """A demo with the inputs and outputs of the predictor's call in a rollout; None where it has no usable call.

    One of several calls is drawn at random, since the order in which calls that ran side by side have ended must decide
    nothing. A record only describes an image or file; the demo gets the value of the row.
    """
    calls = [call for call in rollout.calls if call.predictor == path and not call.truncated]
    demos = sorted((demo_of(call.inputs, call.outputs) for call in calls if call.outputs is not None), key=_text)
    if not demos:
        return None
    demo = engine.random("trace", path, row).choice(demos)
    row_values = predictor.signature.by_name(engine.train[row])
    originals = {}
    for name, value in demo.items():
        if name in row_values and plain(row_values[name]) == value:
            originals[name] = row_values[name]
    return _dumped_demo(predictor, {**demo, **originals})


def demos_of(engine: Engine, candidate: Candidate, path: str) -> list[Demo]:
    """The demos of a predictor under a candidate, as JSON-able values."""
    demos = candidate.part(path).demos
    if demos is not None:
        return list(demos)
    predictor = dict(engine.program.named_predictors())[path]
    return list(dump_demos(predictor.signature, predictor.demos))


def labeled_demos(predictor: Predict, rows: Sequence[Example], count: int, rng: random.Random) -> list[Demo]:
    """At most ``count`` demos from rows that have an input and an output of the predictor, drawn at random."""
    usable = []
    for row in rows:
        demo = _labeled_demo(predictor, row)
        if demo is not None:
            usable.append(demo)
    return rng.sample(usable, max(0, min(count, len(usable))))


def _labeled_demo(predictor: Predict, row: Example) -> Demo | None:
    inputs = predictor.signature.input_fields
    outputs = predictor.signature.output_fields
    row_values = predictor.signature.by_name(row)
    values = {name: row_values[name] for name in (*inputs, *outputs) if not _is_missing(row_values.get(name))}
    if not values.keys() & outputs.keys() or not values.keys() & inputs.keys():
        return None
    return _dumped_demo(predictor, values)


def _is_missing(value: object) -> bool:
    """None, or the value of an empty cell in a table."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float) and math.isnan(value)


def _dumped_demo(predictor: Predict, demo: Demo) -> Demo | None:
    """The demo as saved programs hold it; None for one that they cannot hold or cannot read back."""
    try:
        dumped = dict(dump_demos(predictor.signature, [demo])[0])
        load_demo(predictor.signature, dumped)
        return dumped
    except StateError:
        return None


class _TeacherRollouts:
    """Submits rollouts of the teacher, which is the program itself by default.

    Its predictors without demos get labeled demos. The label of the row that is tried is hidden from it.
    """

    def __init__(self, engine: Engine, bootstrapping: Bootstrapping) -> None:
        self._engine = engine
        self._teacher = bootstrapping.teacher or Teacher(engine.program)
        self._predictors = dict(self._teacher.program.named_predictors())
        self._parts: dict[str, Part] = {}
        for path, predictor in self._predictors.items():
            if bootstrapping.max_labeled and not predictor.demos:
                rng = engine.random("teacher", path)
                demos = labeled_demos(predictor, engine.train, bootstrapping.max_labeled, rng)
                self._parts[path] = Part(demos=tuple(demos) or None)

    def submit(self, row: int, repeat: int) -> asyncio.Future[Rollout]:
        """Submit the teacher's rollout of a training row."""
        example = self._engine.train[row]
        parts = {}
        for path, part in self._parts.items():
            part_for_row = _without_demo(part, _labeled_demo(self._predictors[path], example))
            if part_for_row != Part():
                parts[path] = part_for_row
        candidate = Candidate(parts, origin="teacher")
        return self._engine.rollout(candidate, row, repeat=repeat, teacher=self._teacher)


def _without_demo(part: Part, demo: Demo | None) -> Part:
    if not part.demos or demo is None:
        return part
    return replace(part, demos=tuple(other for other in part.demos if other != demo))


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=repr)
