"""The recorded calls of a replay, found by predictor and prompt, or by order where the prompt has changed."""

from __future__ import annotations

import builtins
import json
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any

from dspynb import errors
from dspynb.errors import DspynbError, InputError, ModelError, shorten
from dspynb.events import NotRecorded, PredictorCalled, plain
from dspynb.lm.protocol import LMReply, LMRequest
from dspynb.lm.recorded_call import recorded_reply
from dspynb.lm.settings import merge_settings, recorded_settings
from dspynb.running.record import RunRecord
from dspynb.running.tables.diffs import PromptDiff, diff_messages
from dspynb.running.tables.spans import Span, spans_of

__all__ = ["Divergence", "Recording", "answer", "recording_of"]

_PROGRAM_KINDS = ("call", "module", "search")
_STOPS = ("RunStopped", "RunInterrupted", "ReplayDiverged", "Halted", "BudgetExhausted", "CancelledError")
Key = tuple[Any, ...]


@dataclass(frozen=True)
class Divergence:
    """A call of a replay that differs from the recorded one: in its prompt, its settings, its tools or its response
    format; or no call was recorded (``recorded`` is None).

    ``path`` and ``rollout``: of the call. ``sent``: its messages. ``message``: the number of the first message that
    differs, from 1; None where none does, or nothing was recorded. ``settings``: what differs beside the prompt, by
    name: the recorded value and that of the replay. ``diff``: the recorded prompt compared with the one that was sent.
    Its repr is text; a notebook shows HTML.
    """

    path: str
    rollout: int
    sent: tuple[Mapping[str, Any], ...]
    recorded: PredictorCalled | None = None
    settings: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    known: bool = True
    """Whether the recording has any call of this predictor."""

    @property
    def message(self) -> int | None:
        """The number of the first message that differs, from 1; None where none does, or nothing was recorded."""
        if self.recorded is None:
            return None
        recorded = [_text(message) for message in self.recorded.messages]
        sent = [_text(message) for message in self.sent]
        shared = min(len(recorded), len(sent))
        for i in range(shared):
            if recorded[i] != sent[i]:
                return i + 1
        return None if len(recorded) == len(sent) else shared + 1

    @property
    def diff(self) -> PromptDiff:
        """The difference from the recorded prompt to the prompt of the replay."""
        recorded = [] if self.recorded is None else [(self.path, self.recorded.messages)]
        return diff_messages(recorded, [(self.path, self.sent)], self.describe())

    def describe(self) -> str:
        """What differs, in a sentence."""
        if self.recorded is not None:
            texts = [f"{name} was {_short(was)} and is {_short(now)}" for name, (was, now) in self.settings.items()]
            if self.message is not None:
                texts.insert(0, f"message {self.message} of the prompt is not the recorded one")
            return f"{self.path}: {'; '.join(texts)}"
        if not self.known:
            return (
                f"{self.path}: the recording holds no call of this predictor (those of rewards and advisors are in a "
                "run's record, prediction.run, and not in a trace)"
            )
        return f"{self.path}: the recording holds no further call of this predictor with rollout {self.rollout}"

    def __repr__(self) -> str:
        return self.describe() if self.recorded is not None and self.message is None else repr(self.diff)

    def _repr_html_(self) -> str:
        if self.recorded is not None and self.message is None:
            return f"<div>{escape(self.describe())}</div>"
        return self.diff._repr_html_()


def _short(value: object) -> str:
    return "not set" if value is None else shorten(repr(value), 200)


def changed_settings(
    recorded: PredictorCalled, request: LMRequest, own_settings: Mapping[str, Any] | None
) -> dict[str, tuple[Any, Any]]:
    """What differs between a recorded call and a request beside the prompt: the recorded value and the new one, by
    name. Empty for a call from a file of an earlier version, which has no settings.

    ``own_settings``: those of the model, which the request completes; None where the model is not known, so that only
    the settings of the request are compared.
    """
    if isinstance(recorded.requested, NotRecorded):
        return {}
    sent = recorded_settings(merge_settings(own_settings or {}, request.settings))
    names = request.settings if own_settings is None else {**recorded.requested, **sent}
    changed: dict[str, tuple[Any, Any]] = {}
    for name in names:
        was = recorded.requested.get(name)
        if _text(was) != _text(sent.get(name)):
            changed[name] = (was, sent.get(name))
    for name, was, now in (
        ("tools", _tool_names(recorded.tools), _tool_names(request.tools)),
        ("response_format", recorded.response_format, request.response_format),
    ):
        if _text(was) != _text(now):
            changed[name] = (was, now)
    if "tools" not in changed and _text(recorded.tools) != _text(request.tools):
        changed["the descriptions of tools"] = (recorded.tools, request.tools)
    return changed


def _tool_names(tools: Iterable[Mapping[str, Any]]) -> list[Any]:
    return [(tool.get("function") or {}).get("name") for tool in tools]


class Recording:
    """The model calls of one recorded program call, the ``root``. Each is returned once. Can be used from any thread.

    ``paths``: the predictors that were called. ``native``: those of them whose model called tools itself.
    ``constrained``: those whose
    requests had a response format. ``native_reasoning``: those of them whose output ``reasoning`` is the model's own.
    """

    def __init__(self, root: Span, calls: Iterable[PredictorCalled], cancelled: frozenset[int] = frozenset()) -> None:
        """``cancelled``: the spans inside attempts that were cancelled."""
        self.root = root
        self.calls = sorted(filter(_has_answer, calls), key=lambda call: call.started)
        self.paths = {call.predictor for call in self.calls}
        self.native = {call.predictor for call in self.calls if call.tool_calls}
        self.constrained = {call.predictor for call in self.calls if call.response_format is not None}
        self.native_reasoning = {call.predictor for call in self.calls if _has_native_reasoning(call)}
        self._cancelled = cancelled
        self._used: set[int] = set()
        self._lock = threading.Lock()
        self._index: dict[Key, deque[PredictorCalled]] = {}
        for call in self.calls:
            for key in _keys(call.predictor, call.rollout, call.messages, call.inputs):
                self._index.setdefault(key, deque()).append(call)

    def take(
        self, path: str, rollout: int, messages: Sequence[Mapping[str, Any]], inputs: Mapping[str, Any]
    ) -> tuple[PredictorCalled | None, bool]:
        """The recorded call for a request, and whether its prompt is the same; (None, False) where none is left.

        Among the unused calls of the same predictor and rollout, it is one with the same prompt, else one with the same
        inputs, else the next in the order in which they started.
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
        """The recorded calls that no request has used, without those of attempts that were cancelled."""
        excluded = self._used | self._cancelled
        return [call for call in self.calls if call.span not in excluded]


def _keys(path: str, rollout: int, messages: Sequence[Mapping[str, Any]], inputs: Mapping[str, Any]) -> list[Key]:
    return [
        ("prompt", path, rollout, _text(messages)),
        ("inputs", path, rollout, _text(inputs)),
        ("order", path, rollout),
    ]


def _text(value: object) -> str:
    return json.dumps(plain(value), sort_keys=True, default=repr)


def _has_native_reasoning(call: PredictorCalled) -> bool:
    """Whether the model's own reasoning is an output of a call. A guess for files of earlier versions, which do not
    say."""
    if call.native_reasoning is not None:
        return call.native_reasoning
    return bool(call.reasoning) and (call.outputs or {}).get("reasoning") == call.reasoning


def _has_answer(call: PredictorCalled) -> bool:
    """Whether the provider answered a call, with a reply or an error. The error of a stopped call is no answer."""
    if call.reply is not None:
        return True
    error_class = (call.error or "").partition(":")[0]
    return error_class not in _STOPS


def answer(call: PredictorCalled) -> LMReply:
    """The recorded reply, marked as cached, so that it costs nothing. Raises the recorded error where there is none."""
    if call.reply is None:
        raise _recorded_error(call.error or "")
    return recorded_reply(call)


def _recorded_error(text: str) -> Exception:
    """An error of the recorded class, if dspynb or Python has it and it can be created from a text; else a
    ModelError."""
    name, _, message = text.partition(": ")
    for module, base in ((errors, DspynbError), (builtins, Exception)):
        error_class = getattr(module, name, None)
        if isinstance(error_class, type) and issubclass(error_class, base):
            try:
                error: Exception = error_class(message)
            except TypeError:  # it needs further arguments
                break
            return error
    return ModelError(text)


def recording_of(record: RunRecord, span: int | None, paths: Sequence[str]) -> Recording:
    """The recording of the program call in ``span``; None: of the only outermost call.

    ``paths``: of the predictors of the program that is replayed. Those of the recorded calls are relative to it, where
    it was a part of the traced program. Raises InputError where there is no such call, or several."""
    spans = spans_of(record)
    root = _root(spans, span)
    start = spans.index(root)
    inside = [root]
    for inner in spans[start + 1 :]:
        if inner.depth <= root.depth:
            break
        inside.append(inner)
    numbers = {inner.span for inner in inside}
    calls = [call for call in record.calls if call.span in numbers]
    return Recording(root, _with_relative_paths(calls, paths), _cancelled(inside))


def _with_relative_paths(calls: Sequence[PredictorCalled], paths: Sequence[str]) -> Sequence[PredictorCalled]:
    """The calls with the paths that their predictors have in a part of the traced program. Calls whose predictors have
    paths of this program already are unchanged."""
    recorded = {call.predictor for call in calls}
    if not recorded or recorded & set(paths):
        return calls
    best: dict[str, str] = {}
    for prefix in _prefixes(recorded, paths):
        relative = {}
        for path in recorded:
            rest = path.removeprefix(prefix).removeprefix(".") or "self"
            if path.startswith(prefix) and rest in paths:
                relative[path] = rest
        if len(relative) > len(best):
            best = relative
    return [replace(call, predictor=best.get(call.predictor, call.predictor)) for call in calls]


def _prefixes(recorded: Iterable[str], paths: Sequence[str]) -> list[str]:
    """The paths that the part may have in the traced program, shortest first."""
    prefixes = set()
    for path in recorded:
        for part_path in paths:
            if part_path == "self":
                prefixes.add(path)
            elif path.endswith(part_path if part_path.startswith("[") else f".{part_path}"):
                prefixes.add(path.removesuffix(part_path).removesuffix("."))
    return sorted(prefixes, key=lambda prefix: (len(prefix), prefix))


def _cancelled(spans: Sequence[Span]) -> frozenset[int]:
    """The attempts that were cancelled, and the spans inside them."""
    cancelled: set[int] = set()
    for span in spans:
        if span.parent in cancelled or (span.kind == "attempt" and span.error == "cancelled"):
            cancelled.add(span.span)
    return frozenset(cancelled)


def _root(spans: Sequence[Span], number: int | None) -> Span:
    by_number = {span.span: span for span in spans}
    if number is None:
        return _only(_outermost(spans))
    root = by_number.get(number)
    if root is None or root.kind not in _PROGRAM_KINDS:
        raise InputError(f"span {number} is not a recorded program call; there are: {_listed(_outermost(spans))}")
    parent = by_number.get(root.parent)
    while parent is not None:
        if parent.kind == "attempt":
            raise InputError(
                f"span {number} is inside {parent.path} of a search, and a replay of it alone would lack the "
                "attempt's hint; replay the search"
            )
        parent = by_number.get(parent.parent)
    return root


def _outermost(spans: Sequence[Span]) -> list[Span]:
    """The program calls that are not inside another one."""
    outermost: list[Span] = []
    depth: int | None = None  # of the program call that the loop is inside
    for span in spans:
        if depth is not None and span.depth > depth:
            continue
        if span.kind in _PROGRAM_KINDS:
            depth = span.depth
            outermost.append(span)
        else:
            depth = None
    return outermost


def _only(roots: Sequence[Span]) -> Span:
    if not roots:
        raise InputError("the recording holds no program call")
    if len(roots) > 1:
        raise InputError(
            f"the recording holds {len(roots)} program calls; choose one with span=, one of: {_listed(roots)}"
        )
    return roots[0]


def _listed(spans: Sequence[Span]) -> str:
    names = [f"{span.span} ({span.path})" for span in spans[:8]]
    if len(spans) > 8:
        names.append("…")
    return ", ".join(names) or "none"
