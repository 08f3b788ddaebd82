"""What is shown of one row when it is opened: its values, the prompts that were sent, and the replies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypedDict

from dspynb.data import tokens_text
from dspynb.events import CandidateProposed, PredictorCalled
from dspynb.media.describe import content_text
from dspynb.running.record import RunRecord
from dspynb.running.record_rows import AttemptRow, SpanRow
from dspynb.running.tables.candidates import instructions_of
from dspynb.views.rows import Node
from dspynb.views.texts import Named, clip, named, number

__all__ = ["Block", "Detail", "detail_of"]

MOST = 20_000
"""Characters of one text; what is cut is counted in it."""
_MOST_CALLS = 100
"""Calls of one row."""


class Block(TypedDict):
    """A text under a heading. ``kind``: sent (compared with other rows'), reply, or error; ``of``: the predictor."""

    kind: str
    of: str
    heading: str
    text: str


class Detail(TypedDict):
    """``values``: pairs of a name and named texts; ``edit``: path → instruction, of a candidate."""

    values: list[tuple[str, Named]]
    blocks: list[Block]
    edit: dict[str, str]


def detail_of(node: Node, record: RunRecord) -> Detail:
    """Everything about a row that its line has no room for."""
    match node.of:
        case AttemptRow():
            attempt = node.of
            hint = named_at_length(attempt.hint) if isinstance(attempt.hint, Mapping) else _text(attempt.hint)
            values = [
                ("hint", hint),
                ("outputs", named_at_length(attempt.outputs)),
                ("feedback", _text(attempt.feedback)),
            ]
            return _detail([*values, ("error", _text(attempt.error))], _calls(attempt.calls))
        case SpanRow():
            span = node.of
            attempts = [attempt for attempt in node.attempts() if attempt.best] or node.attempts()[-1:]
            calls = [*node.calls, *(call for attempt in attempts for call in attempt.calls)]
            values = [("inputs", named_at_length(span.inputs)), ("outputs", named_at_length(span.outputs))]
            values += [("score", _text(None if span.score is None else number(span.score)))]
            return _detail([*values, ("feedback", _text(span.feedback)), ("error", _text(span.error))], _calls(calls))
        case CandidateProposed():
            return _candidate(node.of, record)
        case PredictorCalled():
            call = node.of
            values = [("inputs", named_at_length(call.inputs)), ("outputs", named_at_length(call.outputs))]
            return _detail([*values, ("hint", _text(call.hint)), ("error", _text(call.error))], _calls([call]))


def _detail(values: Iterable[tuple[str, Named]], blocks: Iterable[Block], edit: dict[str, str] | None = None) -> Detail:
    return {"values": [pair for pair in values if pair[1]], "blocks": list(blocks), "edit": edit or {}}


def _text(value: Any) -> Named:
    return [["", clip(value, MOST)]] if value else []


def named_at_length(values: Mapping[str, Any] | None) -> Named:
    """Name and text of each value, cut only where it is very long."""
    return named(values, MOST)


def _calls(calls: list[PredictorCalled]) -> Iterator[Block]:
    """The messages that were sent, and what came back."""
    for call in calls[:_MOST_CALLS]:
        name = clip(call.predictor, 200)
        for message in call.messages:
            role = str(message.get("role", "message"))
            yield _block("sent", name, f"{name} · {role}", content_text(message.get("content")))
        if call.reply is not None:
            yield _block("reply", name, f"{name} · reply{_facts(call)}", call.reply)
        if call.tool_calls:
            told = "\n".join(map(str, call.tool_calls))
            yield _block("reply", name, f"{name} · tool calls", told)
        if call.error is not None:
            yield _block("error", name, f"{name} · error{'' if call.reply else _facts(call)}", call.error)
    if len(calls) > _MOST_CALLS:
        yield _block("reply", "", f"{len(calls) - _MOST_CALLS:,} more calls are in run.calls", "")


def _facts(call: PredictorCalled) -> str:
    usage = call.usage
    told = [call.model, tokens_text(usage.tokens), f"{call.seconds:.2f} s"]
    told += ["cached" if call.cached else "", "repair" if call.repair else ""]
    return "".join(f" · {part}" for part in told if part)


def _block(kind: str, of: str, heading: str, text: str) -> Block:
    return {"kind": kind, "of": of, "heading": clip(heading, 300), "text": clip(text, MOST)}


def _candidate(candidate: CandidateProposed, record: RunRecord) -> Detail:
    """Its instructions and demos; the parent's are compared with them."""
    own = instructions_of(candidate, record)
    parents = [str(list(record.candidates).index(p)) for p in candidate.parents if p in record.candidates]
    values = [("made in", _text(candidate.origin)), ("parents", _text(", ".join(parents)))]
    blocks = [_block("sent", path, f"{path} · instruction", text) for path, text in own.items()]
    for path, part in candidate.parts.items():
        if part.get("prefix"):
            blocks.append(_block("sent", path, f"{path} · prefix", part["prefix"]))
        for i, demo in enumerate(part.get("demos") or (), start=1):
            told = "\n".join(f"{name}: {value}" for name, value in named_at_length(demo))
            blocks.append(_block("sent", path, f"{path} · demo {i}", told))
    return _detail(values, blocks, {path: clip(text, MOST) for path, text in own.items()})
