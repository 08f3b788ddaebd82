"""Candidates: instructions and demos that replace predictors' own for the length of a block."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from dspynb.errors import InputError, nearest
from dspynb.scope.core import Block, Layer

__all__ = ["Part", "candidate", "canonical", "parts_of", "resolve"]


@dataclass(frozen=True)
class Part:
    """What a candidate says of one predictor; None leaves the predictor's own. ``prefix``: how the model's turn begins,
    for adapters that begin it. ``id``: a hash of the content, 12 hex digits, the same in every process."""

    instruction: str | None = None
    demos: tuple[Mapping[str, Any], ...] | None = None
    prefix: str | None = None

    @cached_property
    def id(self) -> str:
        """Made when it is first asked for, once a Part: demos may be long."""
        demos = None if self.demos is None else [dict(demo) for demo in self.demos]
        said = [self.instruction, demos] if self.prefix is None else [self.instruction, demos, self.prefix]
        text = json.dumps(said, default=repr)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def parts_of(parts: Mapping[str, Any]) -> dict[str, Part]:
    """Path → Part, from an instruction, a mapping with ``instruction`` and ``demos``, or a Part. Raises InputError."""
    if not isinstance(parts, Mapping):
        raise InputError(f"a candidate maps predictor paths to instructions, got {type(parts).__name__}")
    return {path: _part(path, value) for path, value in parts.items()}


def _part(path: Any, value: Any) -> Part:
    if not isinstance(path, str):
        raise InputError(f"a candidate is keyed by dotted paths, not by {type(path).__name__}")
    if isinstance(value, Part):
        return value
    if isinstance(value, str):
        return Part(value)
    if isinstance(value, Mapping) and set(value) <= {"instruction", "demos", "prefix"}:
        instruction, demos, prefix = value.get("instruction"), value.get("demos"), value.get("prefix")
        texts = isinstance(instruction, str | None) and isinstance(prefix, str | None)
        if texts and isinstance(demos, Sequence | None) and not isinstance(demos, str):
            return Part(instruction, None if demos is None else tuple(demos), prefix)
    raise InputError(f"the candidate for {path!r} must be an instruction or {{'instruction': …, 'demos': […]}}")


def resolve(parts: Mapping[str, Part], program: Any) -> dict[str, Part]:
    """Predictor uid → Part. Raises InputError for a path that the program lacks, or one predictor named twice."""
    paths = dict(program.named_predictors())
    found: dict[str, Part] = {}
    for given, part in parts.items():
        path = canonical(given, paths, program)
        if path is None:
            known = ", ".join(paths) or "none"
            raise InputError(f"the program has no predictor {given!r}.{nearest(given, paths)} It has: {known}")
        if paths[path].uid in found:
            raise InputError(f"the candidate names the predictor {path!r} twice, by two of its paths")
        found[paths[path].uid] = _by_name(part, paths[path])
    return found


def _by_name(part: Part, predictor: Any) -> Part:
    """The part with its demos' aliases replaced by the names of the predictor's fields."""
    by_name = getattr(getattr(predictor, "signature", None), "by_name", None)
    if by_name is None or not part.demos:
        return part
    demos = tuple(by_name(demo) for demo in part.demos)
    same = all(a is b for a, b in zip(demos, part.demos, strict=True))
    return part if same else replace(part, demos=demos)


def canonical(path: str, paths: Mapping[str, Any], program: Any) -> str | None:
    """The path under which the program lists a predictor, from any path that leads to it; None if there is none."""
    if path in paths or not hasattr(program, "resolve_path"):
        return path if path in paths else None
    found: str | None = program.resolve_path(path)
    return found


class candidate(Block):  # noqa: N801  # used as a verb: with dn.candidate(...)
    """``with candidate({"answer": "Be brief."}, of=program)``: try other instructions and demos, without writing them.

    Keys are dotted paths of the program; values an instruction, or a mapping with ``instruction`` and ``demos``. The
    innermost candidate that names a predictor holds; hints are composed onto it. Raises InputError when it is made.

    >>> lm = dn.ScriptedLM(["answer: 4"])
    >>> program = dn.Predict("question -> answer", lm=lm)
    >>> with dn.candidate({"self": "Answer with a number."}, of=program):
    ...     program.run_sync(question="2+2?").answer
    '4'
    >>> "Answer with a number." in lm.requests[0].messages[0]["content"], program.instruction
    (True, None)
    """

    __slots__ = ("_parts",)

    def __init__(self, parts: Mapping[str, Any], *, of: Any) -> None:
        super().__init__()
        self._parts = resolve(parts_of(parts), of)

    def _layer(self) -> Layer:
        return Layer("a candidate(...) block", candidate=self._parts)
