"""Event records: all that a run tells about itself. Tables, views and journals are made of them, by RunRecord.

Every event carries ``at`` (unix seconds), ``span`` (a number, unique in the process) and ``parent`` (the span it
happened in, 0 for none). Nested work is one tree of spans.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from typing import Any, Protocol

from dspynb.data import Usage, usage_of
from dspynb.dataclass_init import fast_init
from dspynb.errors import shorten
from dspynb.json_checks import Check, check_of, checks_of, compile_reader, is_count, is_named
from dspynb.json_values import SCALARS, is_plain, plain

__all__ = [
    "EVENT_TYPES",
    "FIELDS",
    "AttemptChosen",
    "AttemptEnded",
    "AttemptStarted",
    "CandidateProposed",
    "CandidateScored",
    "Event",
    "HintFailed",
    "PredictorCalled",
    "ProposalEnded",
    "RolloutEnded",
    "RunEnded",
    "RunStarted",
    "Sink",
    "SpanEnded",
    "SpanStarted",
    "Steered",
    "StoredValue",
    "from_json",
    "is_plain",
    "new_span",
    "plain",
    "store_messages",
    "to_json",
]

Hint = str | Mapping[str, str] | None
"""A hint as shown: one text for all predictors, or path → text, or none."""

_spans = itertools.count(1)


def spans_after(number: int) -> None:
    """Give out only numbers above this one from now on: a run that is resumed brings its own."""
    global _spans  # noqa: PLW0603
    _spans = itertools.count(max(number + 1, next(_spans)))


def new_span() -> int:
    """A span number that no other span of this process has."""
    return next(_spans)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events."""

    span: int
    parent: int = 0
    at: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """A run began. ``settings`` hold no secrets; ``paths`` lists the program's predictors."""

    kind: str
    name: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded(Event):
    """A run ended: ``status`` is finished, stopped, exhausted, interrupted, cancelled or failed."""

    status: str
    error: str | None = None


@fast_init
@dataclass(frozen=True, slots=True, kw_only=True)
class SpanStarted(Event):
    """A module call, a tool call or one row of a batch began. ``kind`` is module, search, tool or row; ``name`` its
    path or type."""

    kind: str
    name: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    row: int | None = None


@fast_init
@dataclass(frozen=True, slots=True, kw_only=True)
class SpanEnded(Event):
    """A module call, tool call or row ended, with outputs or an error."""

    outputs: Mapping[str, Any] | None = None
    error: str | None = None


COLUMN: Mapping[str, Any] = {"column": True}
"""Metadata of a field of AttemptStarted or AttemptEnded that is a column of ``run.attempts``, in this order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStarted(Event):
    """An attempt of a search (Refine, BestOfN) began; ``parent`` is the search's span. ``hint_by``: ``person`` where
    the hint was suggested while the run ran, else empty."""

    attempt: int = field(metadata=COLUMN)
    wave: int = field(metadata=COLUMN)
    hint: Hint = field(default=None, metadata=COLUMN)
    hint_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEnded(Event):
    """An attempt ended: ``state`` is passed, scored, failed or cancelled. A later one for the same span replaces it."""

    state: str
    outputs: Mapping[str, Any] | None = None
    score: float | None = field(default=None, metadata=COLUMN)
    feedback: str | None = field(default=None, metadata=COLUMN)
    parts: Mapping[str, float] = field(default_factory=dict)
    error: str | None = field(default=None, metadata=COLUMN)
    seconds: float = field(default=0.0, metadata=COLUMN)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptChosen(Event):
    """The search in ``span`` took this attempt (its number) as its result."""

    attempt: int


@fast_init
@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutEnded(Event):
    """A program was run on a row and scored, or failed. ``repeat`` counts from 0; ``score`` is the first metric's,
    ``metrics`` holds all by name; ``attempts``: those of searches inside; ``usage``: of the program's calls;
    ``metric_usage``: of those that its metrics made (a judge's). In an optimizer's run, ``candidate`` (its id) was in
    force and the row is of ``split``: train, val or test."""

    row: int
    repeat: int = 0
    outputs: Mapping[str, Any] | None = None
    score: float | None = None
    feedback: str | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    seconds: float = 0.0
    usage: Usage = field(default_factory=Usage)
    metric_usage: Usage = field(default_factory=Usage)
    cached: bool = False
    attempts: int = 0
    candidate: str | None = None
    split: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateProposed(Event):
    """An optimizer made a candidate: ``parts`` has what it says of each predictor (path → instruction, demos, prefix),
    ``origin`` how it was made, ``step`` the optimizer's step, ``parents`` the ids of those it was made from."""

    id: str
    origin: str
    step: int = 0
    parents: tuple[str, ...] = ()
    parts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateScored(Event):
    """An optimizer took note of a candidate's mean score on ``rows`` rows of ``split``; ``full``: on all of them.
    ``best``: the best candidate so far, by its id."""

    candidate: str
    split: str
    rows: int
    score: float
    full: bool
    step: int = 0
    best: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalEnded(Event):
    """A model was asked for a proposal: ``key`` says for what, ``outputs`` what it said, or ``error`` why nothing."""

    key: str
    outputs: Mapping[str, Any] | None = None
    error: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HintFailed(Event):
    """The advisor could not write a hint for this wave; the wave went on without one."""

    wave: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Steered(Event):
    """What somebody asked of the run while it ran took effect. ``action``: hint, propose, drop, pin, unpin, pause,
    unpause or budget; ``step``: of the optimizer, wave of the Refine, or row of the pool, from which on it holds.

    ``values``, by action: hint: ``hint``, and in a batch or evaluation its ``row`` (and ``repeat``); propose:
    ``candidate`` and ``parent`` (ids) and ``instructions`` (path → text); drop, pin: ``candidate``; budget: the limits.
    Those of drop, pin and unpin also have ``best``, the best candidate from then on.
    """

    action: str
    step: int = 0
    values: Mapping[str, Any] = field(default_factory=dict)
    by: str = "person"


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictorCalled(Event):
    """A predictor called its model: what was sent, what came back, under which hint and candidate (its id)."""

    predictor: str
    uid: str
    inputs: Mapping[str, Any]
    messages: tuple[Mapping[str, Any], ...]
    hint: str | None = None
    candidate: str | None = None
    reply: str | None = None
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    outputs: Mapping[str, Any] | None = None
    error: str | None = None
    usage: Usage = field(default_factory=Usage)
    cached: bool = False
    seconds: float = 0.0
    rollout: int = 0
    model: str = ""
    repair: bool = False  # asked because the reply before could not be read


class StoredValue(Protocol):
    """A value that is kept elsewhere, such as in a run file, and read when it is asked for."""

    def load(self) -> Any: ...


class _StorableField:
    """A field of an event whose value may be replaced by a StoredValue: reading the attribute loads it each time.

    The event stays what it is, wherever it is held: only where its value stands changes.
    """

    def __init__(self, slot: Any, kind: type) -> None:
        self._slot = slot
        self._kind = kind

    def __get__(self, event: Any, owner: type | None = None) -> Any:
        if event is None:
            return self
        value = self._slot.__get__(event, owner)
        return value if type(value) is self._kind else value.load()

    def __set__(self, event: Any, value: Any) -> None:
        self._slot.__set__(event, value)


setattr(PredictorCalled, "messages", _StorableField(vars(PredictorCalled)["messages"], tuple))  # noqa: B010


def store_messages(call: PredictorCalled, stored: StoredValue) -> None:
    """Keep the messages of a call elsewhere: ``call.messages`` loads them from there from now on."""
    object.__setattr__(call, "messages", stored)


class Sink(Protocol):
    """Whatever takes events: a run, a collector, a view."""

    def emit(self, event: Event) -> None: ...


EVENT_TYPES: dict[str, type[Event]] = {
    cls.__name__: cls
    for cls in (
        RunStarted,
        RunEnded,
        SpanStarted,
        SpanEnded,
        AttemptStarted,
        AttemptEnded,
        AttemptChosen,
        RolloutEnded,
        CandidateProposed,
        CandidateScored,
        ProposalEnded,
        HintFailed,
        Steered,
        PredictorCalled,
    )
}
FIELDS: dict[type[Event], tuple[str, ...]] = {cls: tuple(f.name for f in fields(cls)) for cls in EVENT_TYPES.values()}


def to_json(event: Event) -> dict[str, Any]:
    """The event as JSON-able values; a value JSON does not know becomes its ``repr``."""
    body: dict[str, Any] = {"type": type(event).__name__}
    for name in FIELDS[type(event)]:
        value = getattr(event, name)
        body[name] = value if type(value) in SCALARS else plain(value)
    return body


def from_json(body: Mapping[str, Any]) -> Event | None:
    """The event that ``to_json`` wrote; None for a type this version does not know.

    Every value is checked, since a file may come from anywhere and a table cannot be made of wrong types. Raises
    KeyError where the type is missing, TypeError that names the field where a value is not what it is declared as.
    """
    kind = body["type"]
    if not isinstance(kind, str):
        raise TypeError("type is no text")
    cls = EVENT_TYPES.get(kind)
    if cls is None:
        return None
    event: Event | None = _reader(kind)(body)
    return event or _checked(kind, cls, body)  # the same once more, to say what is wrong


def _checked(kind: str, cls: type[Event], body: Mapping[str, Any]) -> Event:
    known = {name: body[name] for name in FIELDS[cls] if name in body}
    for name in ("usage", "metric_usage"):
        if name in known:
            known[name] = usage_of(known[name])  # odd values are unknown: the rest of the line is sound
    for name, check in _checks_by_name(kind).items():
        if name in known and not check(known[name]):
            raise TypeError(f"{name} of {kind} is {shorten(repr(known[name])[:200], 80)}")
    for name in ("messages", "paths", "tool_calls", "parents"):
        if name in known:
            known[name] = tuple(known[name])
    if missing := [name for name in _needed(kind) if name not in known]:
        raise TypeError(f"{kind} lacks {', '.join(missing)}")
    return cls(**known)


@cache
def _reader(kind: str) -> Any:
    return compile_reader(EVENT_TYPES[kind], _own_checks(kind), _QUICK, {Usage: usage_of})


_TIME = "type({0}) is float and 0 <= {0} < 4e9"
_QUICK = {"span": "type({0}) is int and 0 < {0} < MAX_COUNT", "at": _TIME, "seconds": _TIME}


@cache
def _needed(kind: str) -> list[str]:
    listed = fields(EVENT_TYPES[kind])
    return [field.name for field in listed if field.default is MISSING and field.default_factory is MISSING]


@cache
def _checks_by_name(kind: str) -> dict[str, Check]:
    """Of each field of an event type, the check that a value read from a file has to pass."""
    return checks_of(EVENT_TYPES[kind]) | _own_checks(kind)


def _own_checks(kind: str) -> dict[str, Check]:
    """Those that are stricter, or laxer, than the types of the fields."""
    cls = EVENT_TYPES[kind]
    checks: dict[str, Check] = {"span": lambda value: is_count(value) and value > 0, "at": _is_time}
    if "seconds" in FIELDS[cls]:
        checks["seconds"] = _is_time
    if "rollout" in FIELDS[cls]:  # of nested searches; it may be larger than other counts
        checks["rollout"] = lambda value: type(value) is int and value >= 0
    if cls is Steered:
        checks["values"] = _is_request
    if "parts" in FIELDS[cls]:  # of scores; older versions wrote whatever a metric had put there
        checks["parts"] = is_named
    if cls is CandidateProposed:
        checks["parts"] = _are_parts
    if cls is RunEnded:
        checks["status"] = lambda value: value in _STATUSES
    if cls is AttemptEnded:
        checks["state"] = lambda value: value in _STATES
    return checks


_STATUSES = ("finished", "stopped", "exhausted", "interrupted", "cancelled", "failed")
_STATES = ("passed", "scored", "failed", "cancelled")


def _is_time(value: Any) -> bool:
    """Whether a value is a number of seconds that a date can be made of."""
    return type(value) in (int, float) and 0 <= value < 4e9


def _is_request(values: Any) -> bool:
    """Whether a value is what a ``Steered`` event says was asked for."""
    texts = (str, type(None))
    return (
        is_named(values)
        and all(isinstance(values.get(name), texts) for name in ("best", "candidate", "parent"))
        and all(is_count(values[name]) for name in ("row", "repeat") if values.get(name) is not None)
        and ("instructions" not in values or check_of(Mapping[str, str])(values["instructions"]))
        and check_of(Hint)(values.get("hint"))
    )


def _are_parts(parts: Any) -> bool:
    """Whether a value is what a ``CandidateProposed`` event says of each predictor."""
    return is_named(parts) and all(
        is_named(part)
        and isinstance(part.get("instruction", ""), str)
        and isinstance(part.get("prefix", ""), str)
        and isinstance(part.get("demos", []), list)
        and all(map(is_named, part.get("demos", [])))
        for part in parts.values()
    )
