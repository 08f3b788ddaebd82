"""States: what a program has learned, as JSON. Per predictor path its instruction, its demos and its signature.

Never in a state: hints and candidates (they are not the program's), models, keys, settings, code.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

import dspynb
from dspynb.errors import StateError, nearest, shorten
from dspynb.redact import redact
from dspynb.signatures.signature import Signature
from dspynb.state.demos import dump_demos, load_demo
from dspynb.state.dspy_json import DSPyPredictor, dspy_entries

__all__ = ["VERSION", "dump_state", "load_state", "with_state"]

VERSION = 1


class Program(Protocol):
    """What saving and loading need of a program."""

    def named_predictors(self) -> list[tuple[str, Any]]: ...

    def resolve_path(self, path: str) -> str | None: ...

    def advisor_uids(self) -> set[str]: ...


M = TypeVar("M", bound=Program)


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class SavedField(_Part):
    """A field as it was: ``type`` with constraints and default."""

    name: str
    kind: str
    type: str
    desc: str | None = None
    alias: str | None = None


class SavedSignature(_Part):
    """A signature as it was."""

    fingerprint: str
    instruction: str
    fields: list[SavedField]


class SavedPredictor(_Part):
    """What a predictor has learned; ``instruction`` is None where the signature's holds."""

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


def dump_state(program: Program) -> dict[str, Any]:
    """The state as JSON-able values. Raises StateError for demos that JSON cannot hold."""
    return {
        "dspynb_state": VERSION,
        "dspynb_version": dspynb.__version__,
        "program": type(program).__name__,
        "predictors": {path: _dumped(path, predictor) for path, predictor in program.named_predictors()},
    }


def _dumped(path: str, predictor: Any) -> dict[str, Any]:
    # program_fingerprint (evaluation/evaluator.py) hashes this result, and resuming compares the hash. So a field that
    # is new is written only where it is set, as ``prefix`` is: else runs that older versions stopped cannot resume.
    try:
        demos = dump_demos(predictor.signature, predictor.demos)
    except StateError as error:
        raise StateError(f"{path}: {error}") from None
    signature = _described(predictor.signature).model_dump()
    saved = {
        "instruction": _without_secrets(predictor.instruction),
        "demos": _without_secrets(demos),
        "signature": _without_secrets(signature),
    }
    return saved if predictor.prefix is None else {**saved, "prefix": _without_secrets(predictor.prefix)}


def _described(signature: type[Signature]) -> SavedSignature:
    fields = [
        SavedField(name=f.name, kind=f.kind, type=f.shape, desc=f.desc, alias=f.alias)
        for f in (*signature.input_fields.values(), *signature.output_fields.values())
    ]
    return SavedSignature(fingerprint=signature.fingerprint(), instruction=signature.instruction, fields=fields)


def _without_secrets(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value) if len(value) > 5 else value  # shorter ones are never redacted
    if isinstance(value, Mapping):
        return {_without_secrets(key): _without_secrets(item) for key, item in value.items()}
    return [_without_secrets(item) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class _Change:
    """What loading sets on one predictor, once all is known to fit."""

    predictor: Any
    instruction: str | None
    demos: list[dict[str, Any]]
    prefix: str | None


def load_state(program: Program, state: Mapping[str, Any], *, strict: bool = True) -> None:
    """Set instructions and demos from a state, all of them or, with a StateError that lists what differs, none.

    ``strict=False`` leaves out paths that the program lacks, and accepts signatures that differ in wording only
    (instruction, descriptions). States saved by DSPy as JSON are read too.
    """
    foreign = dspy_entries(state)
    entries: Mapping[str, Any] = _checked(state).predictors if foreign is None else foreign
    differences: list[str] = []
    changes: dict[str, _Change] = {}
    taken: dict[str, tuple[str, Any]] = {}
    predictors = dict(program.named_predictors())
    for given, saved in entries.items():
        path, entry = program.resolve_path(given), saved
        if path is None and foreign is not None:
            path, entry = _place_here(program, given, foreign[given])
        if path is None:
            differences += [f"{given}: not in the program.{nearest(given, predictors)}"] if strict else []
        elif path in taken and taken[path][1] != entry:
            differences.append(f"{path}: the state has two different entries for it, {taken[path][0]!r} and {given!r}")
        else:
            taken[path] = given, entry
            changes[path], found = _planned(predictors[path], entry, strict=strict)
            differences += [f"{path}: {text}" for text in found]
    needed = predictors if foreign is None else _known_to_dspy(program, predictors)
    differences += [f"{path}: missing in the state" for path in needed if path not in taken]
    if differences:
        raise StateError(_refusal(program), differences)
    for change in changes.values():
        change.predictor.instruction, change.predictor.demos = change.instruction, change.demos
        change.predictor.prefix = change.prefix


def _place_here(program: Program, given: str, entry: DSPyPredictor) -> tuple[str | None, DSPyPredictor]:
    """The path for an entry of DSPy's whose own path is not one here: there, what a Refine or BestOfN wraps stands
    under ``module``, and what is a plain predictor here may have been a ChainOfThought."""
    unwrapped = ".".join(step for step in given.split(".") if step != "module")
    if unwrapped != given and (path := program.resolve_path(unwrapped)) is not None:
        return path, entry
    if unwrapped.endswith(".predict"):
        return program.resolve_path(unwrapped.removesuffix(".predict")), entry.without_reasoning()
    return None, entry


def _known_to_dspy(program: Program, paths: Mapping[str, Any]) -> list[str]:
    """The paths but those of advisors: DSPy's Refine holds none."""
    advisors = program.advisor_uids()
    return [path for path, predictor in paths.items() if predictor.uid not in advisors]


def _refusal(program: Program) -> str:
    return (
        f"the state does not fit {type(program).__name__}, so nothing was loaded. Load it into the program it was "
        "saved from, or with strict=False if only paths are too many or wording has changed. What differs:"
    )


def _planned(predictor: Any, entry: Any, *, strict: bool) -> tuple[_Change, list[str]]:
    signature = predictor.signature
    foreign = not isinstance(entry, SavedPredictor)
    differences = entry.differences(signature, strict) if foreign else _differences(entry.signature, signature, strict)
    demos = []
    for i, demo in enumerate(() if differences else entry.demos):
        try:
            demos.append(load_demo(signature, demo, foreign=foreign))
        except StateError as error:
            differences.append(f"demo {i} {error}")
    own = None if foreign and entry.instruction == signature.instruction else entry.instruction
    return _Change(predictor, own, demos, getattr(entry, "prefix", None)), differences


def _differences(saved: SavedSignature, signature: type[Signature], strict: bool) -> list[str]:
    """How the program's signature differs from the saved one."""
    now = _described(signature)
    if saved.fingerprint == now.fingerprint:
        return []
    then, current = ({f.name: f for f in s.fields} for s in (saved, now))
    found = [f"field {name!r} is not in the program" for name in then if name not in current]
    found += [f"field {name!r} is not in the state" for name in current if name not in then]
    wording: list[str] = []
    for name in [n for n in then if n in current]:
        for what in ("kind", "type", "alias", "desc"):
            was, is_ = getattr(then[name], what), getattr(current[name], what)
            if was != is_:
                text = f"{what} of field {name!r} was {shorten(was, 120)}, is {shorten(is_, 120)}"
                (wording if what == "desc" else found).append(text)
    if not found and list(then) != list(current):
        found.append(f"the order of fields was {', '.join(then)}, is {', '.join(current)}")
    if saved.instruction != now.instruction:
        wording.append(
            f"the signature's instruction was {shorten(saved.instruction, 120)!r}, is {shorten(now.instruction, 120)!r}"
        )
    if not found and not wording:
        found.append(f"the signature's fingerprint was {saved.fingerprint}, is {now.fingerprint}")
    return found + (wording if strict else [])


def _checked(state: Any) -> SavedProgram:
    """The state, if it is one of this version. Raises StateError."""
    if not isinstance(state, Mapping):
        raise StateError(f"a state is a dict as dump_state() gives it, got {type(state).__name__}")
    version = state.get("dspynb_state")
    if version is None:
        raise StateError("this is no saved program: it has no 'dspynb_state', and is not DSPy's either")
    if isinstance(version, int) and version > VERSION:
        by = shorten(state.get("dspynb_version"), 40)
        raise StateError(f"the state has version {version} (dspynb {by}); this dspynb reads up to {VERSION}: update it")
    try:
        saved = SavedProgram.model_validate(dict(state))
    except ValidationError as error:
        raise StateError("the state is damaged or was edited", list(_problems(error))) from None
    if saved.dspynb_state != VERSION:
        raise StateError(f"there is no state version {saved.dspynb_state}; this dspynb reads {VERSION}")
    return saved


def _problems(error: ValidationError) -> Iterable[str]:
    for item in error.errors(include_url=False)[:20]:
        where = " → ".join(map(str, item["loc"]))
        yield f"{where}: {item['msg']}, got {shorten(repr(item['input']), 80)}"


def with_state(program: M, state: Mapping[str, Any], *, strict: bool = True) -> M:
    """A copy of the program with the state loaded; the program stays as it is. Raises StateError."""
    try:
        new = copy.deepcopy(program)
    except Exception as error:
        raise StateError(
            f"{type(program).__name__} cannot be copied ({type(error).__name__}: {shorten(error, 200)}); make another "
            "one and use load_state on it"
        ) from error
    load_state(new, state, strict=strict)
    return new
