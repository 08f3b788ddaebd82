"""Candidates: what an optimizer tries, as data. To try one, its parts become a layer of the scope; the program is never
changed."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

from dspynb.errors import InputError, shorten
from dspynb.events import plain
from dspynb.modules.module import Module
from dspynb.modules.predict import Predict
from dspynb.scope.candidates import Part, resolve
from dspynb.state.demos import dump_demos, load_demo

__all__ = ["Candidate", "demo_of", "program_to_json"]

M = TypeVar("M", bound=Module)


@dataclass(frozen=True, eq=False)
class Candidate:
    """Texts and demos to try in place of a program's own.

    ``parts``: predictor path → Part (instruction, demos as JSON-able dicts, prefix); a predictor without a part keeps
    its own. ``parents``: ids of the candidates it was made from. ``origin`` and ``step``: how and when it was proposed.
    Two candidates with the same parts are equal.
    """

    parts: Mapping[str, Part] = field(default_factory=dict)
    parents: tuple[str, ...] = ()
    origin: str = "start"
    step: int = 0

    @cached_property
    def id(self) -> str:
        """A hash of the parts, 12 hex digits, the same in every process."""
        text = "\n".join(f"{path} {self.parts[path].id}" for path in sorted(self.parts))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Candidate) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    @classmethod
    def of(
        cls,
        parts: Mapping[str, Part],
        program: Module,
        *,
        origin: str = "start",
        step: int = 0,
        parents: tuple[str, ...] = (),
    ) -> Candidate:
        """A candidate with these parts, without texts and demos that are equal to the program's own. Raises StateError
        for demos that JSON cannot hold."""
        predictors = dict(program.named_predictors())
        changed = {}
        for path, part in parts.items():
            difference = _without_own(part, predictors[path])
            if difference != Part():
                changed[path] = difference
        return cls(changed, parents=parents, origin=origin, step=step)

    def part(self, path: str) -> Part:
        """The part for a predictor; an empty Part where the predictor keeps its own."""
        return self.parts.get(path, Part())

    def changed(self, path: str, **changes: Any) -> dict[str, Part]:
        """The parts with changes for one predictor: ``instruction``, ``demos``, ``prefix``."""
        return {**self.parts, path: replace(self.part(path), **changes)}

    def resolved(self, program: Module) -> Mapping[str, Part]:
        """Predictor uid → Part, as a layer of the scope takes it."""
        return resolve(self._typed_parts(program), program)

    def applied(self, program: M) -> M:
        """A copy of the program whose own texts and demos are those of the candidate. Raises InputError for a program
        that cannot be copied."""
        try:
            new = copy.deepcopy(program)
        except Exception as error:
            raise InputError(f"{type(program).__name__} cannot be copied ({shorten(error, 200)})") from error
        predictors = dict(new.named_predictors())
        for path, part in self._typed_parts(new).items():
            predictor = predictors[path]
            if part.instruction is not None:
                predictor.instruction = part.instruction
            if part.demos is not None:
                predictor.demos = [dict(demo) for demo in part.demos]
            if part.prefix is not None:
                predictor.prefix = part.prefix
        return new

    def _typed_parts(self, program: Module) -> dict[str, Part]:
        """The parts, with values of demos converted to the types of the fields."""
        signatures = {path: predictor.signature for path, predictor in program.named_predictors()}
        typed = {}
        for path, part in self.parts.items():
            if part.demos is not None:
                demos = tuple(load_demo(signatures[path], dict(demo)) for demo in part.demos)
                typed[path] = replace(part, demos=demos)
            else:
                typed[path] = part
        return typed

    def to_json(self) -> dict[str, Any]:
        """The parts as run files hold them."""
        return {path: _part_to_json(part) for path, part in self.parts.items()}


def _part_to_json(part: Part) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if part.instruction is not None:
        values["instruction"] = part.instruction
    if part.demos is not None:
        values["demos"] = [dict(demo) for demo in part.demos]
    if part.prefix is not None:
        values["prefix"] = part.prefix
    return values


def program_to_json(program: Module) -> dict[str, Any]:
    """The program's own texts and demos by predictor path, as run files hold them."""
    parts = {}
    for path, predictor in program.named_predictors():
        demos = tuple(_dumped_demos(predictor)) or None
        parts[path] = _part_to_json(Part(predictor.instruction_under(), demos, predictor.prefix))
    return parts


def _without_own(part: Part, predictor: Predict) -> Part:
    """The part without what is equal to the predictor's own."""
    instruction = part.instruction
    if instruction == predictor.instruction_under():
        instruction = None
    demos = None
    if part.demos is not None:
        dumped = dump_demos(predictor.signature, part.demos)
        if dumped != _dumped_demos(predictor):
            demos = tuple(dumped)
    prefix = part.prefix
    if prefix == predictor.prefix:
        prefix = None
    return Part(instruction, demos, prefix)


def _dumped_demos(predictor: Predict) -> list[Any]:
    return dump_demos(predictor.signature, predictor.demos) if predictor.demos else []


def demo_of(inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> dict[str, Any]:
    """A demo with the inputs and outputs of a call: JSON-able, so that one read from a run file is the same."""
    demo: dict[str, Any] = plain({**inputs, **outputs})
    return demo
