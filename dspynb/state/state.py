"""States: what a program has learned, as JSON. A state has the instruction, demos and signature of each predictor.

A state never contains hints, candidates, models, API keys, settings or code.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import dspynb
from dspynb.errors import StateError, nearest, shorten
from dspynb.redact import redact
from dspynb.scope.core import warn_user
from dspynb.signatures.signature import Signature
from dspynb.state.demos import dump_demos, load_demo
from dspynb.state.dspy_json import DSPyPredictor, dspy_entries

__all__ = ["VERSION", "copy_program", "dump_state", "load_state", "with_state"]

VERSION = 1


class Program(Protocol):
    """The part of a program that saving and loading use."""

    def named_predictors(self) -> list[tuple[str, Any]]: ...

    def resolve_path(self, path: str) -> str | None: ...

    def advisor_uids(self) -> set[str]: ...


M = TypeVar("M", bound=Program)


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class SavedField(_Part):
    """A field of a saved signature. ``type`` includes constraints and default."""

    name: str
    kind: str
    type: str
    desc: str | None = None
    alias: str | None = None


class SavedSignature(_Part):
    """The signature of a predictor when it was saved."""

    fingerprint: str
    instruction: str
    fields: list[SavedField]


class SavedPredictor(_Part):
    """What a predictor has learned. ``instruction`` is None if the predictor uses its signature's."""

    instruction: str | None
    demos: list[dict[str, Any]]
    signature: SavedSignature
    prefix: str | None = None


class SavedProgram(_Part):
    """A whole state."""

    dspynb_state: int
    dspynb_version: str
    program: str
    predictors: dict[str, SavedPredictor]
    models: dict[str, Any] = Field(default_factory=dict)
    """The model and temperature of each predictor when the file was written; not loaded."""


def dump_state(program: Program) -> dict[str, Any]:
    """The state of a program as values that JSON can represent. Raises StateError for demos that JSON cannot."""
    return {
        "dspynb_state": VERSION,
        "dspynb_version": dspynb.__version__,
        "program": type(program).__name__,
        "predictors": {path: _dump_predictor(path, predictor) for path, predictor in program.named_predictors()},
    }


def _dump_predictor(path: str, predictor: Any) -> dict[str, Any]:
    # program_fingerprint (evaluation/evaluator.py) hashes this result, and resuming compares the hash. So a new field
    # must be left out where it is not set, as ``prefix`` is. Otherwise runs of older versions could not be resumed.
    try:
        demos = dump_demos(predictor.signature, predictor.demos)
    except StateError as error:
        raise StateError(f"{path}: {error}") from None
    signature = _saved_signature(predictor.signature).model_dump()
    saved = {
        "instruction": _without_secrets(predictor.instruction),
        "demos": _without_secrets(demos),
        "signature": _without_secrets(signature),
    }
    if predictor.prefix is not None:
        saved["prefix"] = _without_secrets(predictor.prefix)
    return saved


def _saved_signature(signature: type[Signature]) -> SavedSignature:
    fields = [
        SavedField(name=f.name, kind=f.kind, type=f.shape, desc=f.desc, alias=f.alias)
        for f in (*signature.input_fields.values(), *signature.output_fields.values())
    ]
    return SavedSignature(fingerprint=signature.fingerprint(), instruction=signature.instruction, fields=fields)


def _without_secrets(value: object) -> Any:
    if isinstance(value, str):
        return redact(value) if len(value) > 5 else value  # shorter texts are never redacted
    if isinstance(value, Mapping):
        return {_without_secrets(key): _without_secrets(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_secrets(item) for item in value]
    return value


@dataclass(frozen=True, slots=True)
class _Change:
    """The values that loading sets on one predictor, after the whole state was checked."""

    predictor: Any
    instruction: str | None
    demos: list[dict[str, Any]]
    prefix: str | None
    warning: str | None = None
    """A difference of the signature's instruction, which does not prevent loading."""


def load_state(program: Program, state: Mapping[str, Any], *, strict: bool = True) -> None:
    """Set instructions and demos from a state.

    ``strict=False`` ignores paths that the program does not have, and accepts signatures that differ in wording only
    (instruction, descriptions), and a Literal that has got more choices, such as the tools of an agent. A signature
    whose instruction differs is a warning, if the state has an instruction for its predictor, or with
    ``strict=False``. States saved by DSPy as JSON are read too. If the state does not fit the program,
    raises a StateError that lists the differences, and sets nothing.
    """
    dspy_predictors = dspy_entries(state)
    entries: Mapping[str, Any] = _checked(state).predictors if dspy_predictors is None else dspy_predictors
    differences: list[str] = []
    changes: dict[str, _Change] = {}
    sources: dict[str, tuple[str, Any]] = {}  # path in the program → path and entry in the state
    predictors = dict(program.named_predictors())
    for saved_path, saved_entry in entries.items():
        entry = saved_entry
        path = program.resolve_path(saved_path)
        if path is None and dspy_predictors is not None:
            path, entry = _match_dspy_entry(program, saved_path, saved_entry)
        if path is None:
            if strict:
                differences.append(f"{saved_path}: not in the program.{nearest(saved_path, predictors)}")
        elif path in sources and sources[path][1] != entry:
            first_path = sources[path][0]
            differences.append(f"{path}: the state has two different entries for it, {first_path!r} and {saved_path!r}")
        else:
            sources[path] = (saved_path, entry)
            changes[path], problems = _plan_change(predictors[path], entry, strict=strict)
            differences += [f"{path}: {problem}" for problem in problems]
    required = list(predictors) if dspy_predictors is None else _paths_without_advisors(program, predictors)
    differences += [f"{path}: missing in the state" for path in required if path not in sources]
    if differences:
        raise StateError(_mismatch_message(program), differences)
    warnings = [f"{path}: {change.warning}" for path, change in changes.items() if change.warning is not None]
    if warnings:
        warn_user(f"the state was loaded, though {'; '.join(warnings)}", UserWarning)
    for change in changes.values():
        change.predictor.instruction = change.instruction
        change.predictor.demos = change.demos
        change.predictor.prefix = change.prefix


def _match_dspy_entry(program: Program, saved_path: str, entry: DSPyPredictor) -> tuple[str | None, DSPyPredictor]:
    """The path in the program and the entry to load, for an entry of DSPy whose path the program does not have.

    In DSPy the program inside a Refine or BestOfN has ``module`` in its paths, and a predictor that is plain in this
    program may have been a ChainOfThought.
    """
    unwrapped = ".".join(step for step in saved_path.split(".") if step != "module")
    if unwrapped != saved_path:
        path = program.resolve_path(unwrapped)
        if path is not None:
            return path, entry
    if unwrapped.endswith(".predict"):
        return program.resolve_path(unwrapped.removesuffix(".predict")), entry.without_reasoning()
    return None, entry


def _paths_without_advisors(program: Program, predictors: Mapping[str, Any]) -> list[str]:
    """The paths of all predictors except advisors, which DSPy's Refine does not have."""
    advisors = program.advisor_uids()
    return [path for path, predictor in predictors.items() if predictor.uid not in advisors]


def _mismatch_message(program: Program) -> str:
    return (
        f"the state does not fit {type(program).__name__}, so nothing was loaded. Load it into the program it was "
        "saved from, or pass strict=False if only wording has changed or the state has further paths. Differences:"
    )


def _plan_change(predictor: Any, entry: SavedPredictor | DSPyPredictor, *, strict: bool) -> tuple[_Change, list[str]]:
    """The change that an entry makes to a predictor, and the ways in which it does not fit the predictor."""
    signature = predictor.signature
    from_dspy = isinstance(entry, DSPyPredictor)
    other_instruction: str | None = None
    instruction: str | None
    prefix: str | None
    if isinstance(entry, DSPyPredictor):
        differences = entry.differences(signature, strict)
        instruction = None if entry.instruction == signature.instruction else entry.instruction
        prefix = None
    else:
        differences = _signature_differences(entry.signature, signature, strict)
        other_instruction = _instruction_difference(entry.signature, signature)
        if other_instruction is not None and strict and entry.instruction is None:
            differences.append(other_instruction)
            other_instruction = None
        instruction = entry.instruction
        prefix = entry.prefix
    demos = []
    if not differences:
        for i, demo in enumerate(entry.demos):
            try:
                demos.append(load_demo(signature, demo, foreign=from_dspy))
            except StateError as error:
                differences.append(f"demo {i} {error}")
    return _Change(predictor, instruction, demos, prefix, other_instruction), differences


def _signature_differences(saved: SavedSignature, signature: type[Signature], strict: bool) -> list[str]:
    """How the program's signature differs from the saved one. Differences in descriptions count if ``strict``."""
    current = _saved_signature(signature)
    if saved.fingerprint == current.fingerprint:
        return []
    saved_fields = {field.name: field for field in saved.fields}
    current_fields = {field.name: field for field in current.fields}
    differences = [f"field {name!r} is not in the program" for name in saved_fields if name not in current_fields]
    differences += [f"field {name!r} is not in the state" for name in current_fields if name not in saved_fields]
    wording: list[str] = []
    for name, saved_field in saved_fields.items():
        if name not in current_fields:
            continue
        for attribute in ("kind", "type", "alias", "desc"):
            was = getattr(saved_field, attribute)
            is_now = getattr(current_fields[name], attribute)
            if was != is_now:
                text = f"{attribute} of field {name!r} was {shorten(was, 120)}, is {shorten(is_now, 120)}"
                may_differ = attribute == "desc" or (
                    not strict and attribute == "type" and _has_more_choices(was, is_now)
                )
                (wording if may_differ else differences).append(text)
    if not differences and list(saved_fields) != list(current_fields):
        differences.append(f"the order of fields was {', '.join(saved_fields)}, is {', '.join(current_fields)}")
    if not differences and not wording and saved.instruction == current.instruction:
        differences.append(f"the signature's fingerprint was {saved.fingerprint}, is {current.fingerprint}")
    return differences + (wording if strict else [])


def _has_more_choices(was: str, is_now: str) -> bool:
    """Whether a type is a Literal with all choices of the saved one and more, as of an agent that has got a tool."""
    if not (was.startswith("Literal[") and is_now.startswith("Literal[")):
        return False
    try:
        before = ast.literal_eval(was.removeprefix("Literal"))
        now = ast.literal_eval(is_now.removeprefix("Literal"))
    except (ValueError, SyntaxError):
        return False
    return all(choice in now for choice in before)


def _instruction_difference(saved: SavedSignature, signature: type[Signature]) -> str | None:
    """How the instruction of the program's signature differs from the saved one; None if it does not."""
    if saved.instruction == signature.instruction:
        return None
    was = shorten(saved.instruction, 120)
    return f"the signature's instruction was {was!r}, is {shorten(signature.instruction, 120)!r}"


def _checked(state: object) -> SavedProgram:
    """Validate a state of this version. Raises StateError."""
    if not isinstance(state, Mapping):
        raise StateError(f"a state is a dict as dump_state() returns it, got {type(state).__name__}")
    version = state.get("dspynb_state")
    if version is None:
        raise StateError("this is not a saved program: it has no 'dspynb_state', and DSPy did not write it either")
    if isinstance(version, int) and version > VERSION:
        writer = shorten(state.get("dspynb_version"), 40)
        raise StateError(
            f"the state has version {version} (dspynb {writer}); this dspynb reads up to {VERSION}: update it"
        )
    try:
        saved = SavedProgram.model_validate(dict(state))
    except ValidationError as error:
        raise StateError("the state is damaged or was edited", list(_problems(error))) from None
    if saved.dspynb_state != VERSION:
        raise StateError(f"there is no state version {saved.dspynb_state}; this dspynb reads version {VERSION}")
    return saved


def _problems(error: ValidationError) -> Iterable[str]:
    for item in error.errors(include_url=False)[:20]:
        where = " → ".join(map(str, item["loc"]))
        yield f"{where}: {item['msg']}, got {shorten(repr(item['input']), 80)}"


def with_state(program: M, state: Mapping[str, Any], *, strict: bool = True) -> M:
    """A copy of the program with the state loaded. The program itself does not change. Raises StateError."""
    new = copy_program(program, "create another program and use its load_state")
    load_state(new, state, strict=strict)
    return new


def copy_program(program: M, advice: str) -> M:
    """A copy of the program with predictors of its own. Models are shared. Raises StateError, with the advice for a
    program that cannot be copied."""
    try:
        return copy.deepcopy(program)
    except Exception as error:
        raise StateError(
            f"{type(program).__name__} cannot be copied ({type(error).__name__}: {shorten(error, 200)}); {advice}"
        ) from error
