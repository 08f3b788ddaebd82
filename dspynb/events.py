"""Event records: everything that a run reports. RunRecord reads them, for tables, views and run files.

Every event has ``at`` (unix seconds), ``span`` (a number, unique in the process) and ``parent`` (the span around it, 0
for none). So nested work is one tree of spans.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from dspynb.data import Usage, usage_of
from dspynb.dataclass_init import fast_init
from dspynb.errors import shorten
from dspynb.json_checks import Check, check_of, checks_of, compile_reader, is_count, is_named
from dspynb.json_values import SCALARS, is_plain, plain

if TYPE_CHECKING:
    from types import MemberDescriptorType

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
    "NotRecorded",
    "PredictorCalled",
    "ProfileChanged",
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
"""A hint as tables show it: one text for all predictors, texts by predictor path, or None."""

_spans = itertools.count(1)


def spans_after(number: int) -> None:
    """Use only span numbers above this one from now on, since a resumed run has used those up to it."""
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
    """A run began. ``settings`` contain no secrets; ``paths`` lists the program's predictors. ``budget``: the limits of
    the run's own budget, by name."""

    kind: str
    name: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    paths: tuple[str, ...] = ()
    budget: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded(Event):
    """A run ended: ``status`` is finished, stopped, exhausted, max_errors, interrupted, cancelled or failed.
    ``reason``: why it did not go on, where that is not obvious."""

    status: str
    error: str | None = None
    reason: str = ""


@fast_init
@dataclass(frozen=True, slots=True, kw_only=True)
class SpanStarted(Event):
    """A module call, a tool call or one row of a batch began. ``kind`` is module, search, tool or row; ``name`` is its
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
"""Metadata of the fields of AttemptStarted and AttemptEnded that are columns of ``run.attempts``, in this order."""


@fast_init
@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStarted(Event):
    """An attempt of a search (Refine, BestOfN) began. ``parent`` is the search's span. ``hint_by``: ``person`` if a
    person suggested the hint during the run, else empty."""

    attempt: int = field(metadata=COLUMN)
    wave: int = field(metadata=COLUMN)
    hint: Hint = field(default=None, metadata=COLUMN)
    hint_by: str = ""


@fast_init
@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEnded(Event):
    """An attempt ended: ``state`` is passed, scored, failed or cancelled. ``seconds`` is its work, without ``waited``,
    the seconds in which it only waited for a slot, a rate limit, a retry or the end of a pause. A later event for the
    same span replaces an earlier one."""

    state: str
    outputs: Mapping[str, Any] | None = None
    score: float | None = field(default=None, metadata=COLUMN)
    feedback: str | None = field(default=None, metadata=COLUMN)
    parts: Mapping[str, float] = field(default_factory=dict)
    error: str | None = field(default=None, metadata=COLUMN)
    seconds: float = field(default=0.0, metadata=COLUMN)
    waited: float = field(default=0.0, metadata=COLUMN)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptChosen(Event):
    """The search in ``span`` chose the attempt with this number as its result."""

    attempt: int


@fast_init
@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutEnded(Event):
    """A program was run on a row and scored, or failed. ``repeat`` counts from 0.

    ``score``: that of the first metric. ``metrics``: the scores of all metrics by name. ``attempts``: how many attempts
    searches inside have made. ``seconds``: the work on the row. ``waited``: the seconds in which it only waited for a
    slot, a rate limit, a retry or the end of a pause. ``usage``: that of the program's calls. ``metric_usage``: that of
    the calls of metrics, such as a judge's. In an optimizer's run, ``candidate`` is the id of the candidate in force,
    and ``split`` that of the row: train, val or test.
    """

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
    waited: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateProposed(Event):
    """An optimizer proposed a candidate. ``parts``: what the candidate sets for each predictor, by path (instruction,
    demos, prefix). ``origin``: how it was made. ``step``: the optimizer's step. ``parents``: the ids of the candidates
    from which it was made."""

    id: str
    origin: str
    step: int = 0
    parents: tuple[str, ...] = ()
    parts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateScored(Event):
    """An optimizer recorded a candidate's mean score on ``rows`` rows of ``split``. ``full``: whether these are all
    rows of the split. ``best``: the id of the best candidate so far."""

    candidate: str
    split: str
    rows: int
    score: float
    full: bool
    step: int = 0
    best: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalEnded(Event):
    """The call of a proposal model ended. ``key``: the purpose of the proposal. ``outputs``: those of the call, or
    ``error``: why there are none."""

    key: str
    outputs: Mapping[str, Any] | None = None
    error: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HintFailed(Event):
    """The advisor could not write a hint for this wave, which then ran without one."""

    wave: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Steered(Event):
    """A person's request to a run took effect. ``action``: hint, propose, drop, pin, unpin, pause, unpause or budget.
    ``step``: the step of the optimizer, wave of the Refine, or row of the pool from which on the request applies.

    ``values`` depend on the action. hint: ``hint``, and in a batch or evaluation its ``row`` (and ``repeat``); propose:
    ``candidate`` and ``parent`` (ids) and ``instructions`` (texts by path); drop, pin: ``candidate``; budget: the
    limits. drop, pin and unpin also have ``best``, the best candidate from then on.
    """

    action: str
    step: int = 0
    values: Mapping[str, Any] = field(default_factory=dict)
    by: str = "person"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileChanged(Event):
    """Refusals of a server have changed the profile of a model, or had changed it before the run called the model.

    ``model``: its name. ``key``: identifies the model with its address and the profile that it was created with.
    ``changes``: all fields that refusals have changed so far, as ``dspynb.lm.learned_profile`` writes them. A later
    event of the same key replaces an earlier one. A resumed run applies the changes to the model again.
    """

    model: str
    key: str
    changes: Mapping[str, Any] = field(default_factory=dict)


class NotRecorded(dict[str, Any]):
    """The settings of a call in the file of an earlier version, which has none."""


@fast_init
@dataclass(frozen=True, slots=True, kw_only=True)
class PredictorCalled(Event):
    """A predictor called its model: the request, the reply, and the hint and candidate (its id) that were in force.

    ``seconds``: the work of the call. ``waited``: the seconds in which it waited besides: for a slot, a rate limit, a
    retry, or the end of a pause. ``first_token``: the seconds from sending to the first piece of a streamed reply,
    which may be reasoning or a tool call; else None.

    ``requested``: the settings of the request. ``sent``: the settings as they were sent, where the model does not take
    them as requested; else None. ``tools``, ``response_format``: the descriptions of tools and the JSON schema of the
    request.

    ``reasoning``: the model's reasoning, if the reply has one. ``completions``: the texts of all completions, if there
    is more than one. ``completion_reasoning``: the reasoning of each, None where it has none; empty if it is
    unknown. ``finish``: why the model stopped, in OpenAI's words (``stop``, ``length``, ``tool_calls``,
    ``content_filter``) where they fit. ``truncated``: whether the reply was cut at the limit of tokens, and accepted.
    ``request_id``, ``response_id``: the provider's ids; None if it reports none.
    ``response_model``: the name of the model that the response reports. ``server``: the host and port of the server, as
    in ``api.openai.com:443``; None if they are not known. ``price_source``: where the price in ``usage`` comes from,
    with the version and a short hash; None if it is unknown, or the call cost nothing.

    ``role``: what the call is for: task, proposal, judge, advisor or teacher; empty in files of earlier versions, which
    do not say.

    ``estimated``: how many of the tokens in ``usage`` are an estimate, since a try was stopped or timed out whose cost
    nobody knows. Its USD are an estimate then, too.

    ``native_reasoning``: whether the output ``reasoning`` is the model's own reasoning, which the prompt does not ask
    for. None if the predictor has no such output, and in files of earlier versions, which do not say.

    A call that was cancelled, for example by a stop, has the error ``CancelledError``, and what was known by then. A
    failed call has the reasoning, the finish reason and the ids of a reply that is no answer. A direct call (``await
    lm(…)``) has the predictor ``lm()``, no ``uid``, no inputs, and the output ``text``.
    """

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
    repair: bool = False  # whether the call repairs an earlier reply, which could not be parsed
    requested: Mapping[str, Any] = field(default_factory=NotRecorded)
    sent: Mapping[str, Any] | None = None
    reasoning: str | None = None
    completions: tuple[str, ...] = ()
    truncated: bool = False
    finish: str | None = None
    request_id: str | None = None
    response_id: str | None = None
    waited: float = 0.0
    first_token: float | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    response_format: Mapping[str, Any] | None = None
    response_model: str | None = None
    server: str | None = None
    price_source: str | None = None
    role: str = ""
    native_reasoning: bool | None = None
    completion_reasoning: tuple[str | None, ...] = ()
    estimated: int = 0

    @property
    def started(self) -> float:
        """The time at which the call began, in unix seconds."""
        return self.at - self.seconds - self.waited


class StoredValue(Protocol):
    """A value that is stored elsewhere, such as in a run file, and loaded when it is read."""

    def load(self) -> Any: ...


class _StorableField:
    """A field of an event whose value may be replaced by a StoredValue. Then each read of the attribute loads it.

    All references to the event stay valid, since only the place of its value changes.
    """

    def __init__(self, slot: MemberDescriptorType, kind: type) -> None:
        self._slot = slot
        self._kind = kind

    def __get__(self, event: object, owner: type | None = None) -> Any:
        if event is None:
            return self
        value = self._slot.__get__(event, owner)
        return value if type(value) is self._kind else value.load()

    def __set__(self, event: object, value: object) -> None:
        self._slot.__set__(event, value)


setattr(PredictorCalled, "messages", _StorableField(vars(PredictorCalled)["messages"], tuple))  # noqa: B010


def store_messages(call: PredictorCalled, stored: StoredValue) -> None:
    """Replace the messages of a call by a stored value. ``call.messages`` then loads them each time."""
    object.__setattr__(call, "messages", stored)


class Sink(Protocol):
    """Receives events: a run, a trace or a view."""

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
        ProfileChanged,
        PredictorCalled,
    )
}
FIELDS: dict[type[Event], tuple[str, ...]] = {cls: tuple(f.name for f in fields(cls)) for cls in EVENT_TYPES.values()}


def to_json(event: Event) -> dict[str, Any]:
    """The event as values that JSON can represent; any other value becomes its ``repr``."""
    body: dict[str, Any] = {"type": type(event).__name__}
    for name in FIELDS[type(event)]:
        value = getattr(event, name)
        body[name] = value if type(value) in SCALARS else plain(value)
    return body


def from_json(body: Mapping[str, Any]) -> Event | None:
    """The event that ``to_json`` wrote; None for a type that this version does not know.

    Every value is checked, since a file may come from anywhere, and tables need correct types. Raises KeyError if the
    type is missing, and TypeError, which names the field, for a value of a wrong type.
    """
    kind = body["type"]
    if not isinstance(kind, str):
        raise TypeError("type is no text")
    cls = EVENT_TYPES.get(kind)
    if cls is None:
        return None
    event: Event | None = _compiled_reader(kind)(body)
    return event or _read_slowly(kind, cls, body)


def _read_slowly(kind: str, cls: type[Event], body: Mapping[str, Any]) -> Event:
    """Read an event that the compiled reader has refused. Raises TypeError, which says what is wrong."""
    values = {name: body[name] for name in FIELDS[cls] if name in body}
    for name in ("usage", "metric_usage"):
        if name in values:
            values[name] = usage_of(values[name])  # invalid numbers become unknown, and the rest of the line is used
    for name, check in _checks_by_name(kind).items():
        if name in values and not check(values[name]):
            raise TypeError(f"{name} of {kind} is {shorten(repr(values[name])[:200], 80)}")
    for name in ("messages", "paths", "tool_calls", "parents", "completions", "tools", "completion_reasoning"):
        if name in values:
            values[name] = tuple(values[name])
    missing = [name for name in _required_names(kind) if name not in values]
    if missing:
        raise TypeError(f"{kind} lacks {', '.join(missing)}")
    return cls(**values)


@cache
def _compiled_reader(kind: str) -> Any:
    return compile_reader(EVENT_TYPES[kind], _special_checks(kind), _QUICK, {Usage: usage_of})


_TIME = "type({0}) is float and 0 <= {0} < 4e9"
_QUICK = {"span": "type({0}) is int and 0 < {0} < MAX_COUNT", "at": _TIME, "seconds": _TIME, "waited": _TIME}


@cache
def _required_names(kind: str) -> list[str]:
    declared = fields(EVENT_TYPES[kind])
    return [field.name for field in declared if field.default is MISSING and field.default_factory is MISSING]


@cache
def _checks_by_name(kind: str) -> dict[str, Check]:
    """The checks of values from files, by the fields of an event type."""
    return checks_of(EVENT_TYPES[kind]) | _special_checks(kind)


def _special_checks(kind: str) -> dict[str, Check]:
    """The checks of fields for which the check by type is too strict or too lax."""
    cls = EVENT_TYPES[kind]
    checks: dict[str, Check] = {"span": lambda value: is_count(value) and value > 0, "at": _is_time}
    for name in ("seconds", "waited"):
        if name in FIELDS[cls]:
            checks[name] = _is_time
    if "rollout" in FIELDS[cls]:  # in nested searches it may be larger than other counts
        checks["rollout"] = lambda value: type(value) is int and value >= 0
    if cls is Steered:
        checks["values"] = _is_request
    if "parts" in FIELDS[cls]:  # older versions wrote any value that a metric had put into the parts of a score
        checks["parts"] = is_named
    if cls is CandidateProposed:
        checks["parts"] = _are_parts
    if cls is RunEnded:
        checks["status"] = lambda value: value in _STATUSES
    if cls is AttemptEnded:
        checks["state"] = lambda value: value in _STATES
    return checks


_STATUSES = ("finished", "stopped", "exhausted", "max_errors", "interrupted", "cancelled", "failed")
_STATES = ("passed", "scored", "failed", "cancelled")


def _is_time(value: Any) -> bool:
    """Whether a value is a number of seconds that can be converted to a date."""
    return type(value) in (int, float) and 0 <= value < 4e9


def _is_request(values: Any) -> bool:
    """Whether a value is valid as ``values`` of a ``Steered`` event."""
    if not is_named(values):
        return False
    for name in ("best", "candidate", "parent"):
        if not isinstance(values.get(name), str | None):
            return False
    for name in ("row", "repeat"):
        if values.get(name) is not None and not is_count(values[name]):
            return False
    if "instructions" in values and not check_of(Mapping[str, str])(values["instructions"]):
        return False
    return check_of(Hint)(values.get("hint"))


def _are_parts(parts: Any) -> bool:
    """Whether a value is valid as ``parts`` of a ``CandidateProposed`` event."""
    return is_named(parts) and all(_is_part(part) for part in parts.values())


def _is_part(part: Any) -> bool:
    if not is_named(part):
        return False
    if not isinstance(part.get("instruction", ""), str) or not isinstance(part.get("prefix", ""), str):
        return False
    demos = part.get("demos", [])
    return isinstance(demos, list) and all(map(is_named, demos))
