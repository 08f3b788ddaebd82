"""Demo sets: labels from the training rows, and traces of a teacher that a metric has accepted.

Source: Khattab et al. 2023, "DSPy: Compiling Declarative Language Model Calls", section 4 (BootstrapFewShot). Examples
are tried concurrently and accepted in order: at a time as many as are still wanted, so that no more are tried than one
after the other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dspynb.data import Example
from dspynb.errors import OptimizerError, StateError, shorten
from dspynb.evaluation.rollouts import Rollout
from dspynb.events import plain
from dspynb.modules.predict import Predict
from dspynb.optimizers.core.candidate import Candidate, demo_of
from dspynb.optimizers.core.diagnostics import at_fault
from dspynb.optimizers.core.engine import Engine
from dspynb.optimizers.core.task import Teacher
from dspynb.scope.candidates import Part
from dspynb.state.demos import dump_demos, load_demo

__all__ = ["Bootstrapping", "DemoSet", "bootstrapped", "demos_of", "labeled", "traced"]

Demo = Mapping[str, Any]


@dataclass(frozen=True)
class Bootstrapping:
    """How demos are made. ``threshold``: the score that a trace needs (None: above 0). ``rounds``: tries an example,
    those after the first sampled anew. ``labeled``: demos from labels at most, traces included."""

    threshold: float | None = None
    rounds: int = 1
    labeled: int = 16
    teacher: Teacher | None = None

    def accepts(self, engine: Engine, rollout: Rollout) -> bool:
        """Whether the trace of a rollout may serve."""
        score = engine.score(rollout)
        return rollout.ended.error is None and (score > 0 if self.threshold is None else score >= self.threshold)


@dataclass
class DemoSet:
    """A set that is being made: ``order`` of the training rows, at most ``traces`` traces."""

    name: str
    order: Sequence[int]
    traces: int
    taken: dict[int, Rollout] = field(default_factory=dict)
    tried: list[Rollout] = field(default_factory=list)
    _next: int = 0

    def wave(self) -> list[int]:
        """The next rows to try: as many as are wanted still."""
        rows = list(self.order[self._next : self._next + self.traces - len(self.taken)])
        self._next += len(rows)
        return rows

    def check_alive(self) -> None:
        """Raise OptimizerError where the teacher has failed on every row."""
        errors = [rollout.ended.error for rollout in self.tried if rollout.ended.error is not None]
        if errors and len(errors) == len(self.tried):
            raise OptimizerError(
                f"the {at_fault(errors, 'teacher')} failed on all {len(errors)} rows, so no demo was made. The first "
                f"error: {shorten(errors[0], 500)}"
            )


async def bootstrapped(engine: Engine, how: Bootstrapping, sets: Sequence[DemoSet]) -> list[dict[str, list[Demo]]]:
    """Path → demos of each set: accepted traces, then labels of rows that gave none."""
    teacher = _Teaching(engine, how)
    while waves := [(made, row) for made in sets for row in made.wave()]:
        for repeat in range(how.rounds):
            asked = [(made, row, teacher.rollout(row, repeat)) for made, row in waves if row not in made.taken]
            for made, row, future in asked:
                rollout = await future
                made.tried.append(rollout)
                if how.accepts(engine, rollout):
                    made.taken[row] = rollout
    return [_complete(engine, how, made) for made in sets]


def _complete(engine: Engine, how: Bootstrapping, made: DemoSet) -> dict[str, list[Demo]]:
    accepted = [row for row in made.order if row in made.taken]
    rest = [engine.train[row] for row in made.order if row not in made.taken]
    demos: dict[str, list[Demo]] = {}
    for path, predictor in engine.program.named_predictors():
        chosen = [d for row in accepted if (d := traced(engine, path, predictor, row, made.taken[row])) is not None]
        chosen = chosen[: made.traces]
        more = labeled(predictor, rest, how.labeled - len(chosen), engine.random("labels", made.name, path))
        demos[path] = [*chosen, *more]
    return demos


def traced(engine: Engine, path: str, predictor: Predict, row: int, rollout: Rollout) -> Demo | None:
    """What a predictor got and gave in a rollout; of several calls one by chance, since the order in which calls that
    ran side by side have ended must decide nothing. A record only tells of an image or file: it is the row's."""
    calls = [call for call in rollout.calls if call.predictor == path and call.outputs is not None]
    demos = sorted((demo_of(call.inputs, call.outputs or {}) for call in calls), key=_text)
    if not demos:
        return None
    demo, given = engine.random("trace", path, row).choice(demos), predictor.signature.by_name(engine.train[row])
    same = {name: given[name] for name, value in demo.items() if name in given and plain(given[name]) == value}
    return _dumped(predictor, {**demo, **same})


def demos_of(engine: Engine, candidate: Candidate, path: str) -> list[Demo]:
    """The demos that a predictor has under a candidate, as JSON-able values."""
    shown = candidate.part(path).demos
    predictor = dict(engine.program.named_predictors())[path]
    return list(dump_demos(predictor.signature, predictor.demos) if shown is None else shown)


def labeled(predictor: Predict, rows: Sequence[Example], most: int, chance: Any) -> list[Demo]:
    """At most so many demos from rows that have an output of the predictor and an input, drawn at random."""
    usable = [demo for row in rows if (demo := _label(predictor, row)) is not None]
    return chance.sample(usable, max(0, min(most, len(usable))))  # type: ignore[no-any-return]


def _label(predictor: Predict, row: Example) -> Demo | None:
    inputs, outputs = predictor.signature.input_fields, predictor.signature.output_fields
    values = predictor.signature.by_name(row)
    given = {n: values[n] for n in (*inputs, *outputs) if not _is_missing(values.get(n))}
    return _dumped(predictor, given) if given.keys() & outputs.keys() and given.keys() & inputs.keys() else None


def _is_missing(value: Any) -> bool:
    """None, or what a table has in an empty cell."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float) and math.isnan(value)


def _dumped(predictor: Predict, demo: Demo) -> Demo | None:
    """The demo as saved programs hold it; None for one that they cannot hold, or not read back."""
    try:
        dumped = dict(dump_demos(predictor.signature, [demo])[0])
        load_demo(predictor.signature, dumped)
        return dumped
    except StateError:
        return None


class _Teaching:
    """The teacher: by default the program as it is; with labeled demos, of which the row that is tried is hidden."""

    def __init__(self, engine: Engine, how: Bootstrapping) -> None:
        self._engine, self._teacher = engine, how.teacher or Teacher(engine.program)
        program = self._teacher.program
        self._parts: dict[str, Part] = {}
        self._predictors = dict(program.named_predictors())
        for path, predictor in self._predictors.items():
            if how.labeled and not predictor.demos:
                demos = labeled(predictor, engine.train, how.labeled, engine.random("teacher", path))
                self._parts[path] = Part(demos=tuple(demos)) if demos else Part()

    def rollout(self, row: int, repeat: int) -> Any:
        """Ask for the teacher's rollout of a training row."""
        tried = self._engine.train[row]
        shown = {path: _without(part, _label(self._predictors[path], tried)) for path, part in self._parts.items()}
        candidate = Candidate({path: part for path, part in shown.items() if part != Part()}, origin="teacher")
        return self._engine.rollout(candidate, row, repeat=repeat, teacher=self._teacher)


def _without(part: Part, demo: Demo | None) -> Part:
    """The part without a demo."""
    if not part.demos or demo is None:
        return part
    return replace(part, demos=tuple(shown for shown in part.demos if shown != demo))


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=repr)
