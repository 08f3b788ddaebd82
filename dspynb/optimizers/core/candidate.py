"""Candidates: what an optimizer tries, as data. A program is never changed to try one; its scope is entered."""

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

__all__ = ["Candidate", "demo_of", "told_of"]

M = TypeVar("M", bound=Module)


@dataclass(frozen=True, eq=False)
class Candidate:
    """Predictor path → Part (instruction, demos as JSON-able dicts, prefix); a path that is missing keeps the program's
    own. ``id``: a hash of the content, 12 hex digits; two with the same texts are equal. ``parents``: ids."""

    parts: Mapping[str, Part] = field(default_factory=dict)
    parents: tuple[str, ...] = ()
    origin: str = "start"
    step: int = 0

    @cached_property
    def id(self) -> str:
        """The same in every process."""
        told = "\n".join(f"{path} {self.parts[path].id}" for path in sorted(self.parts))
        return hashlib.sha256(told.encode()).hexdigest()[:12]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Candidate) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    @classmethod
    def of(cls, parts: Mapping[str, Part], program: Module, **told: Any) -> Candidate:
        """A candidate of these parts, without what is the program's own anyway. Raises StateError for demos that JSON
        cannot hold."""
        predictors = dict(program.named_predictors())
        slim = {path: _without_own(part, predictors[path]) for path, part in parts.items()}
        return cls({path: part for path, part in slim.items() if part != Part()}, **told)

    def part(self, path: str) -> Part:
        """What it says of a predictor; an empty Part where nothing."""
        return self.parts.get(path, Part())

    def changed(self, path: str, **changes: Any) -> dict[str, Part]:
        """Its parts, with some of one predictor's replaced: ``instruction``, ``demos``, ``prefix``."""
        return {**self.parts, path: replace(self.part(path), **changes)}

    def resolved(self, program: Module) -> Mapping[str, Part]:
        """Predictor uid → Part, as a layer of the scope takes it."""
        return resolve(self._typed(program), program)

    def applied(self, program: M) -> M:
        """A copy of the program with the candidate's parts for its own. Raises InputError where it cannot be copied."""
        try:
            new = copy.deepcopy(program)
        except Exception as error:
            raise InputError(f"{type(program).__name__} cannot be copied ({shorten(error, 200)})") from error
        predictors = dict(new.named_predictors())
        for path, part in self._typed(new).items():
            predictor = predictors[path]
            if part.instruction is not None:
                predictor.instruction = part.instruction
            if part.demos is not None:
                predictor.demos = [dict(demo) for demo in part.demos]
            if part.prefix is not None:
                predictor.prefix = part.prefix
        return new

    def _typed(self, program: Module) -> dict[str, Part]:
        """The parts with demos as values of the fields' types."""
        signatures = {path: predictor.signature for path, predictor in program.named_predictors()}
        return {
            path: part
            if part.demos is None
            else replace(part, demos=tuple(load_demo(signatures[path], dict(demo)) for demo in part.demos))
            for path, part in self.parts.items()
        }

    def to_json(self) -> dict[str, Any]:
        """As run files hold it."""
        return {path: told(part) for path, part in self.parts.items()}


def told(part: Part) -> dict[str, Any]:
    """What a part says, as JSON-able values."""
    values = {
        "instruction": part.instruction,
        "demos": None if part.demos is None else [dict(demo) for demo in part.demos],
        "prefix": part.prefix,
    }
    return {name: value for name, value in values.items() if value is not None}


def told_of(program: Module) -> dict[str, Any]:
    """What the program itself says, as run files hold it."""
    parts = {}
    for path, predictor in program.named_predictors():
        parts[path] = told(Part(predictor.instruction_under(), tuple(_dumped(predictor)) or None, predictor.prefix))
    return parts


def _without_own(part: Part, predictor: Predict) -> Part:
    demos = None if part.demos is None else tuple(dump_demos(predictor.signature, part.demos))
    if demos is not None and list(demos) == _dumped(predictor):
        demos = None
    return Part(
        None if part.instruction == predictor.instruction_under() else part.instruction,
        demos,
        None if part.prefix == predictor.prefix else part.prefix,
    )


def _dumped(predictor: Predict) -> list[Any]:
    return dump_demos(predictor.signature, predictor.demos) if predictor.demos else []


def demo_of(inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> dict[str, Any]:
    """A demo from what a predictor got and gave: JSON-able, so that one read back from a run file is the same."""
    demo: dict[str, Any] = plain({**inputs, **outputs})
    return demo
