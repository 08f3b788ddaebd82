"""Recorded calls, as a replay asks for them: by predictor and prompt first, by order where the prompt has changed."""

from __future__ import annotations

import builtins
import json
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dspynb import errors
from dspynb.errors import DspynbError, InputError, ModelError
from dspynb.events import PredictorCalled, plain
from dspynb.lm.protocol import LMReply
from dspynb.running.record import RunRecord
from dspynb.running.tables.diffs import PromptDiff, diff_messages
from dspynb.running.tables.spans import Span, spans_of

__all__ = ["Divergence", "Recording", "answer", "recording_of"]

_CALLS = ("call", "module", "search")
_STOPS = ("RunStopped", "ReplayDiverged", "Halted", "BudgetExhausted")
Key = tuple[Any, ...]


@dataclass(frozen=True)
class Divergence:
    """A call of a replay that is not the recorded one: the prompt differs, or none was recorded (``recorded`` is None).

    ``path`` and ``rollout`` of the call; ``message``: the number of the first message that differs, from 1, or None
    where nothing was recorded; ``diff``: what was recorded against what was sent. Shows itself as text and HTML.
    """

    path: str
    rollout: int
    sent: tuple[Mapping[str, Any], ...]
    recorded: PredictorCalled | None = None
    known: bool = True
    """Whether the recording has any call of this predictor."""

    @property
    def message(self) -> int | None:
        """The number of the first message that differs, from 1; None where nothing was recorded."""
        if self.recorded is None:
            return None
        before = [_text(m) for m in self.recorded.messages]
        after = [_text(m) for m in self.sent]
        same = zip(before, after, strict=False)
        return next((i for i, (a, b) in enumerate(same, 1) if a != b), min(len(before), len(after)) + 1)

    @property
    def diff(self) -> PromptDiff:
        """Recorded prompt → prompt of the replay."""
        before = [] if self.recorded is None else [(self.path, self.recorded.messages)]
        return diff_messages(before, [(self.path, self.sent)], self.describe())

    def describe(self) -> str:
        """What is the matter, in a sentence."""
        if self.message is not None:
            return f"{self.path}: message {self.message} of the prompt is not the recorded one"
        if not self.known:
            return (
                f"{self.path}: the recording holds no call of this predictor (those of rewards and advisors are in a "
                "run's record, prediction.run, and not in a trace)"
            )
        return f"{self.path}: the recording holds no further call of this predictor with rollout {self.rollout}"

    def __repr__(self) -> str:
        return repr(self.diff)

    def _repr_html_(self) -> str:
        return self.diff._repr_html_()


class Recording:
    """The calls of one recorded program call, each given out once. From any thread."""

    def __init__(self, root: Span, calls: Iterable[PredictorCalled], dropped: frozenset[int] = frozenset()) -> None:
        self.root = root
        self.calls = sorted(filter(_has_answer, calls), key=lambda call: call.at - call.seconds)
        self.paths = {call.predictor for call in self.calls}
        self.native = {call.predictor for call in self.calls if call.tool_calls}  # their model called tools itself
        self._dropped = dropped  # spans of calls in attempts that count for nothing
        self._used: set[int] = set()
        self._lock = threading.Lock()
        self._index: dict[Key, deque[PredictorCalled]] = {}
        for call in self.calls:
            for key in _keys(call.predictor, call.rollout, call.messages, call.inputs):
                self._index.setdefault(key, deque()).append(call)

    def take(
        self, path: str, rollout: int, messages: Sequence[Mapping[str, Any]], inputs: Mapping[str, Any]
    ) -> tuple[PredictorCalled | None, bool]:
        """The call recorded for a request and whether its prompt is the same; (None, False) where none is left.

        Of one predictor and rollout: the same prompt, else the same inputs, else the next in the order of starting.
        """
        with self._lock:
            for rank, key in enumerate(_keys(path, rollout, messages, inputs)):
                queue = self._index.get(key, deque())
                while queue and queue[0].span in self._used:
                    queue.popleft()
                if queue:
                    self._used.add(queue[0].span)
                    return queue[0], rank == 0
        return None, False

    def unused(self) -> list[PredictorCalled]:
        """The calls that were not asked for, but those of attempts that were cancelled."""
        return [call for call in self.calls if call.span not in self._used | self._dropped]


def _keys(path: str, rollout: int, messages: Sequence[Mapping[str, Any]], inputs: Mapping[str, Any]) -> list[Key]:
    return [
        ("prompt", path, rollout, _text(messages)),
        ("inputs", path, rollout, _text(inputs)),
        ("order", path, rollout),
    ]


def _text(value: Any) -> str:
    return json.dumps(plain(value), sort_keys=True, default=repr)


def _has_answer(call: PredictorCalled) -> bool:
    """A call that was stopped has none: nothing was refused or answered by a model."""
    return call.reply is not None or (call.error or "").partition(":")[0] not in _STOPS


def answer(call: PredictorCalled) -> LMReply:
    """The reply as recorded, paid for by no one. Raises the recorded error where there was no reply."""
    if call.reply is None:
        raise _error(call.error or "")
    return LMReply(call.reply, call.tool_calls, usage=call.usage.as_cached(), cached=True)


def _error(told: str) -> Exception:
    """An error of the recorded class, where that is one of ours or Python's and takes a text; else a ModelError."""
    name, _, message = told.partition(": ")
    for home in (errors, builtins):
        kind = getattr(home, name, None)
        if isinstance(kind, type) and issubclass(kind, DspynbError if home is errors else Exception):
            try:
                made: Exception = kind(message)
            except TypeError:  # it takes more than a text
                break
            return made
    return ModelError(told)


def recording_of(record: RunRecord, span: int | None) -> Recording:
    """The recorded call in ``span``, or the only outermost one. Raises InputError where that does not say which."""
    spans = spans_of(record)
    root = _root(spans, span)
    start = spans.index(root)
    inside = [root]
    for below in spans[start + 1 :]:
        if below.depth <= root.depth:
            break
        inside.append(below)
    numbers = {s.span for s in inside}
    calls = [call for call in record.calls if call.span in numbers]
    return Recording(root, calls, _dropped(inside))


def _dropped(spans: Sequence[Span]) -> frozenset[int]:
    dropped: set[int] = set()
    for span in spans:
        if span.parent in dropped or (span.kind == "attempt" and span.error == "cancelled"):
            dropped.add(span.span)
    return frozenset(dropped)


def _root(spans: Sequence[Span], number: int | None) -> Span:
    by_number = {span.span: span for span in spans}
    if number is None:
        return _only(_outermost(spans))
    root = by_number.get(number)
    if root is None or root.kind not in _CALLS:
        raise InputError(f"span {number} is no recorded program call; there are: {_listed(_outermost(spans))}")
    above = by_number.get(root.parent)
    while above is not None:
        if above.kind == "attempt":
            raise InputError(
                f"span {number} is inside {above.path} of a search, whose hint a replay of it alone would lack; "
                "replay the search"
            )
        above = by_number.get(above.parent)
    return root


def _outermost(spans: Sequence[Span]) -> list[Span]:
    found: list[Span] = []
    depth: int | None = None  # of the call we are in
    for span in spans:
        if depth is not None and span.depth > depth:
            continue
        depth = span.depth if span.kind in _CALLS else None
        found += [span] if depth is not None else []
    return found


def _only(roots: Sequence[Span]) -> Span:
    if not roots:
        raise InputError("the recording holds no program call")
    if len(roots) > 1:
        raise InputError(
            f"the recording holds {len(roots)} program calls; say which with span=, one of: {_listed(roots)}"
        )
    return roots[0]


def _listed(spans: Sequence[Span]) -> str:
    names = [f"{span.span} ({span.path})" for span in spans[:8]]
    return ", ".join([*names, "…"] if len(spans) > 8 else names) or "none"
