"""Candidates: instructions and demos that replace those of predictors inside a block."""

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
    """What a candidate sets for one predictor; None leaves the predictor's own. ``prefix``: the beginning of the
    model's turn, for adapters that begin it. ``id``: a hash of the content, 12 hex digits, the same in every
    process."""

    instruction: str | None = None
    demos: tuple[Mapping[str, Any], ...] | None = None
    prefix: str | None = None

    @cached_property
    def id(self) -> str:
        """The hash of the content. Computed when it is first read, and cached, since demos may be long."""
        demos = None if self.demos is None else [dict(demo) for demo in self.demos]
        content: list[Any] = [self.instruction, demos]
        if self.prefix is not None:
            content.append(self.prefix)
        text = json.dumps(content, default=repr)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def parts_of(parts: Mapping[str, Any]) -> dict[str, Part]:
    """Convert the values of a candidate (an instruction, a mapping with ``instruction`` and ``demos``, or a Part) to
    Parts. Raises InputError for any other value."""
    if not isinstance(parts, Mapping):
        raise InputError(f"a candidate maps predictor paths to instructions, got {type(parts).__name__}")
    return {path: _part(path, value) for path, value in parts.items()}


def _part(path: object, value: object) -> Part:
    if not isinstance(path, str):
        raise InputError(f"a candidate is keyed by dotted paths, not by {type(path).__name__}")
    if isinstance(value, Part):
        return value
    if isinstance(value, str):
        return Part(value)
    if isinstance(value, Mapping) and set(value) <= {"instruction", "demos", "prefix"}:
        instruction = value.get("instruction")
        demos = value.get("demos")
        prefix = value.get("prefix")
        valid_texts = isinstance(instruction, str | None) and isinstance(prefix, str | None)
        valid_demos = isinstance(demos, Sequence | None) and not isinstance(demos, str)
        if valid_texts and valid_demos:
            return Part(instruction, None if demos is None else tuple(demos), prefix)
    raise InputError(f"the candidate for {path!r} must be an instruction or {{'instruction': …, 'demos': […]}}")


def resolve(parts: Mapping[str, Part], program: Any) -> dict[str, Part]:
    """Replace the paths of parts by predictor uids. Raises InputError for a path that the program does not have, and
    for two paths of one predictor."""
    predictors = dict(program.named_predictors())
    parts_by_uid: dict[str, Part] = {}
    for path, part in parts.items():
        listed_path = canonical(path, predictors, program)
        if listed_path is None:
            known = ", ".join(predictors) or "none"
            raise InputError(f"the program has no predictor {path!r}.{nearest(path, predictors)} It has: {known}")
        predictor = predictors[listed_path]
        if predictor.uid in parts_by_uid:
            raise InputError(f"the candidate names the predictor {listed_path!r} twice, by two of its paths")
        parts_by_uid[predictor.uid] = _with_field_names(part, predictor)
    return parts_by_uid


def _with_field_names(part: Part, predictor: object) -> Part:
    """The part, with the aliases in its demos replaced by the names of the predictor's fields."""
    by_name = getattr(getattr(predictor, "signature", None), "by_name", None)
    if by_name is None or not part.demos:
        return part
    demos = tuple(by_name(demo) for demo in part.demos)
    unchanged = all(new is old for new, old in zip(demos, part.demos, strict=True))
    return part if unchanged else replace(part, demos=demos)


def canonical(path: str, predictors: Mapping[str, Any], program: object) -> str | None:
    """The path under which the program lists a predictor, from any path that leads to it; None if there is none."""
    if path in predictors:
        return path
    if not hasattr(program, "resolve_path"):
        return None
    listed_path: str | None = program.resolve_path(path)
    return listed_path


class candidate(Block):  # noqa: N801  # used as a verb: with dn.candidate(...)
    """``with candidate({"answer": "Be brief."}, of=program)``: try other instructions and demos without setting them.

    Keys are dotted paths of the program. Values are an instruction, or a mapping with ``instruction`` and ``demos``.
    The innermost candidate that names a predictor applies; hints are composed onto it. Raises InputError for a wrong
    type, and for paths that the program does not have.

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
