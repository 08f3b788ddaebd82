"""The detail of a row, which is shown when it is selected: its values, the prompts that were sent, and the replies."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NotRequired, TypedDict

from dspynb.data import tokens_text
from dspynb.events import CandidateProposed, Hint, PredictorCalled, plain
from dspynb.lm.providers.responses_request import REASONING_ITEMS
from dspynb.media.describe import content_text
from dspynb.running.record import RunRecord
from dspynb.running.record_rows import AttemptRow, SpanRow
from dspynb.running.streamed_calls import StreamedCall
from dspynb.running.tables.candidates import instructions_of
from dspynb.views.rows import Node
from dspynb.views.texts import Named, clip, named, score_text

__all__ = ["MOST", "Block", "Detail", "LiveCall", "build_detail", "make_block"]

MOST = 20_000
"""Characters of one text; a longer one ends with the number of characters that were cut."""
_MOST_CALLS = 100
"""Model calls of one row."""
_SHOWN_WAIT = 0.1
"""Seconds. A shorter wait of a call is not worth a word."""


class LiveCall(TypedDict):
    """The reply so far of a call that is being streamed."""

    id: int
    of: str
    """The path of the predictor."""
    characters: int
    """Of the thinking."""
    line: str
    """The last words of the thinking."""
    thinking: str
    reply: str


class Block(TypedDict):
    """A text under a heading."""

    kind: str
    """``sent`` (compared with the texts of other rows), ``reasoning`` (folded), ``live`` (a reply that is being
    streamed), ``reply``, or ``error``."""
    of: str
    """The path of the predictor."""
    heading: str
    text: str
    live: NotRequired[LiveCall]
    """Of a ``live`` block."""


class Detail(TypedDict):
    """Everything about a row that does not fit into its line."""

    values: list[tuple[str, Named]]
    """Pairs of a heading and named texts."""
    blocks: list[Block]
    edit: dict[str, str]
    """Path of a predictor → its instruction, for a candidate; else empty."""


def build_detail(node: Node, record: RunRecord) -> Detail:
    """What opens below a row of the view, an attempt, span, candidate or call: its full values and prompts."""
    match node.item:
        case AttemptRow():
            return _attempt_detail(node.item)
        case SpanRow():
            return _span_detail(node, node.item)
        case CandidateProposed():
            return _candidate_detail(node.item, record)
        case PredictorCalled():
            return _call_detail(node.item)
        case StreamedCall():
            return _detail([], [])


def _detail(values: Iterable[tuple[str, Named]], blocks: Iterable[Block], edit: dict[str, str] | None = None) -> Detail:
    """A detail without empty values."""
    return {"values": [pair for pair in values if pair[1]], "blocks": list(blocks), "edit": edit or {}}


def _attempt_detail(attempt: AttemptRow) -> Detail:
    values = [
        ("hint", _hint(attempt.hint)),
        ("outputs", named_at_length(attempt.outputs)),
        ("feedback", _text(attempt.feedback)),
        ("error", _text(attempt.error)),
    ]
    return _detail(values, _blocks_of_calls(attempt.calls))


def _hint(hint: Hint) -> Named:
    if isinstance(hint, Mapping):
        return named_at_length(hint)
    return _text(hint)


def _span_detail(node: Node, span: SpanRow) -> Detail:
    """A row of a batch, with the calls of its best attempt; without one, of its last."""
    attempts = node.attempts()
    best = [attempt for attempt in attempts if attempt.best]
    calls = [*node.calls]
    for attempt in best or attempts[-1:]:
        calls.extend(attempt.calls)
    values = [
        ("inputs", named_at_length(span.inputs)),
        ("outputs", named_at_length(span.outputs)),
        ("score", _text(score_text(span.score))),
        ("feedback", _text(span.feedback)),
        ("error", _text(span.error)),
    ]
    return _detail(values, _blocks_of_calls(calls))


def _call_detail(call: PredictorCalled) -> Detail:
    values = [
        ("inputs", named_at_length(call.inputs)),
        ("outputs", named_at_length(call.outputs)),
        ("hint", _text(call.hint)),
        ("error", _text(call.error)),
    ]
    return _detail(values, _blocks_of_calls([call]))


def _text(value: object) -> Named:
    return [["", clip(value, MOST)]] if value else []


def named_at_length(values: Mapping[str, Any] | None) -> Named:
    """The name and text of each value; only very long texts are cut."""
    return named(values, MOST)


def _blocks_of_calls(calls: list[PredictorCalled]) -> Iterator[Block]:
    """The messages that were sent, the reasoning (which the front end folds), the replies, tool calls and errors."""
    for call in calls[:_MOST_CALLS]:
        name = clip(call.predictor, 200)
        for message in call.messages:
            role = str(message.get("role", "message"))
            yield make_block("sent", name, f"{name} · {role}", content_text(message.get("content")))
        if call.reasoning or call.usage.reasoning_tokens:
            yield make_block("reasoning", name, f"{name} · reasoning{_reasoning_facts(call)}", call.reasoning or "")
        if call.reply is not None:
            yield make_block("reply", name, f"{name} · reply{_facts(call)}", call.reply)
        if call.tool_calls:
            yield make_block("reply", name, f"{name} · tool calls", "\n".join(map(_call_text, call.tool_calls)))
        if call.error is not None:
            facts = "" if call.reply else _facts(call)
            yield make_block("error", name, f"{name} · error{facts}", call.error)
        record = _record_text(call)
        if record:
            yield make_block("record", name, f"{name} · request", record)
    if len(calls) > _MOST_CALLS:
        yield make_block("reply", "", f"{len(calls) - _MOST_CALLS:,} more calls are in run.calls", "")


def _reasoning_facts(call: PredictorCalled) -> str:
    tokens = f" · {tokens_text(call.usage.reasoning_tokens)}" if call.usage.reasoning_tokens else ""
    return tokens if call.reasoning else f"{tokens} · its text is not available"


def _record_text(call: PredictorCalled) -> str:
    """What else is on record of a call, one line each: its settings, tools and schema, its end, its times, its ids."""
    sent = call.requested if call.sent is None else call.sent
    lines = [f"settings: {_plain_text(sent)}"] if sent else []
    if call.sent is not None and call.sent != call.requested:
        lines.append(f"settings as requested: {_plain_text(call.requested)}")
    if call.tools:
        lines.append(f"tools: {_plain_text(call.tools)}")
    if call.response_format is not None:
        lines.append(f"schema: {_plain_text(call.response_format)}")
    if call.first_token is not None:
        lines.append(f"first token after: {call.first_token:.2f} s")
    for label, value in (
        ("finish reason", call.finish),
        ("role", call.role),
        ("request id", call.request_id),
        ("response id", call.response_id),
        ("model of the response", call.response_model),
        ("server", call.server),
        ("price", call.price_source),
    ):
        if value:
            lines.append(f"{label}: {value}")
    return "\n".join(lines)


def _plain_text(value: object) -> str:
    return json.dumps(plain(value), ensure_ascii=False, default=str) if value else "none"


def _call_text(call: Mapping[str, Any]) -> str:
    """A tool call without the reasoning before it, which nobody but the provider can read."""
    return str({key: value for key, value in call.items() if key != REASONING_ITEMS})


def _facts(call: PredictorCalled) -> str:
    facts = [call.model, tokens_text(call.usage.tokens), f"{call.seconds:.2f} s"]
    if call.waited >= _SHOWN_WAIT:
        facts.append(f"waited {call.waited:.2f} s")
    if call.cached:
        facts.append("cached")
    if call.repair:
        facts.append("repair")
    return "".join(f" · {fact}" for fact in facts if fact)


def make_block(kind: str, of: str, heading: str, text: str) -> Block:
    """A text under a heading, both of limited length."""
    return {"kind": kind, "of": of, "heading": clip(heading, 300), "text": clip(text, MOST)}


def _candidate_detail(candidate: CandidateProposed, record: RunRecord) -> Detail:
    """The instructions, prefixes and demos of a candidate. The front end compares them with those of its parent."""
    instructions = instructions_of(candidate, record)
    names = record.candidate_names
    parents = [names[parent] for parent in candidate.parents if parent in names]
    values = [("origin", _text(candidate.origin)), ("parents", _text(", ".join(parents)))]
    blocks = [make_block("sent", path, f"{path} · instruction", text) for path, text in instructions.items()]
    for path, part in candidate.parts.items():
        if part.get("prefix"):
            blocks.append(make_block("sent", path, f"{path} · prefix", part["prefix"]))
        for i, demo in enumerate(part.get("demos") or (), start=1):
            lines = [f"{name}: {value}" for name, value in named_at_length(demo)]
            blocks.append(make_block("sent", path, f"{path} · demo {i}", "\n".join(lines)))
    edit = {path: clip(text, MOST) for path, text in instructions.items()}
    return _detail(values, blocks, edit)
