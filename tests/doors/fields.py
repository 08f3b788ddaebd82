"""What the record of a call has at each door: calls of seven kinds, and the fields that their record must have.

What a provider reports is a fact about the provider, from its documentation and SDK. A door names it in its
``Reports``, and the record must have exactly this.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import warnings
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dspynb as dn
from dspynb.contrib.doctor.model_checks import Facts, population
from dspynb.errors import DspynbError
from dspynb.events import PredictorCalled
from tests.doors.answers import THINKING
from tests.doors.fake_server import FakeServer
from tests.doors.registry import Door

__all__ = ["KINDS", "CallOnRecord", "DoorCalls", "expected", "make_calls", "observed", "row", "titles"]

_QUESTION = {"question": "What is the capital of France?"}
_TEXT = {"text": "Paris, the capital of France in Europe, has 2102650 inhabitants."}
_CUT_AT = 16
"""Tokens of the reply that is cut. OpenAI's Responses API takes no smaller limit."""
_THINKING_TOKENS = 14
"""Of each reply of a fake server that thinks."""


async def _plain() -> None:
    await dn.Predict("question -> answer")(**_QUESTION)


async def _streamed() -> None:
    async for _ in dn.Predict("question -> answer").stream(**_QUESTION):
        pass


async def _tools() -> None:
    agent = dn.ReAct("question -> answer", [population], max_iterations=2)
    await agent(question="How many people live in Oslo? Use the tool.")


async def _schema() -> None:
    await dn.Predict(Facts, adapter="json")(**_TEXT)


async def _thinking() -> None:
    await dn.Predict("question -> answer", effort="low")(**_QUESTION)


async def _cut() -> None:
    await dn.Predict(Facts, max_tokens=_CUT_AT)(**_TEXT)


async def _cancelled() -> None:
    """Stop listening after the first part, while the server holds back the end of the reply."""
    parts: Any = dn.Predict("question -> answer").stream(**_QUESTION)
    async with contextlib.aclosing(parts):
        async for _ in parts:
            break


KINDS: Mapping[str, Callable[[], Awaitable[None]]] = {
    "plain": _plain,
    "streamed": _streamed,
    "tools": _tools,
    "schema": _schema,
    "thinking": _thinking,
    "cut": _cut,
    "cancelled": _cancelled,
}
"""What is run for each kind of call. Its first call of the model counts."""


@dataclass(frozen=True, kw_only=True)
class CallOnRecord:
    """A call. ``event``: of the run's record. ``row``: of ``run.calls``. ``remembered``: the event in ``dn.history``.
    ``shown``: the call as ``dn.history`` prints it. ``settings``: those that the server received, None if it does not
    say. ``request_id``: the id that the server sent, None for none."""

    event: PredictorCalled
    row: Mapping[str, Any]
    remembered: PredictorCalled
    shown: str
    settings: Mapping[str, Any] | None = None
    request_id: str | None = None


@dataclass(frozen=True)
class DoorCalls:
    """The calls of a door, by kind. ``address``: the host and port of its server. ``problems``: see FakeServer."""

    address: str
    calls: dict[str, CallOnRecord] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def make_calls(door: Door) -> DoorCalls:
    """Make a call of each kind, each with a model that has learned nothing. A real server has no cancelled call, since
    it holds nothing back."""
    with door.server() as server:
        done = DoorCalls(server.base.partition("//")[2].partition("/")[0])
        for kind in KINDS:
            if isinstance(server, FakeServer):
                done.calls[kind] = _call_of_fake_server(door, server, kind)
            elif kind != "cancelled":
                done.calls[kind] = _call(door, server, kind)
        done.problems.extend(getattr(server, "problems", ()))
    return done


def _call_of_fake_server(door: Door, server: FakeServer, kind: str) -> CallOnRecord:
    server.holds_end = kind == "cancelled"
    server.bodies.clear()
    server.request_ids.clear()
    call = _call(door, server, kind)
    number = 0 if kind == "tools" else -1  # an agent has further calls; any other kind has one, which may be adapted
    facts: dict[str, Any] = {}
    if server.bodies:
        facts["settings"] = server.settings(server.bodies[number])
    if server.request_ids:
        facts["request_id"] = server.request_ids[number]
    return CallOnRecord(event=call.event, row=call.row, remembered=call.remembered, shown=call.shown, **facts)


def _call(door: Door, server: Any, kind: str) -> CallOnRecord:
    with warnings.catch_warnings(), dn.context(lm=door.lm(server), adapter=door.adapter, view="off", runs_dir=None):
        warnings.simplefilter("ignore")
        with contextlib.suppress(DspynbError):
            asyncio.run(KINDS[kind]())
    run = dn.last_run()
    calls = dn.history(len(run.record.calls))
    return CallOnRecord(
        event=run.record.calls[0],
        row=run.calls.to_dict("records")[0],
        remembered=calls[0],
        shown=repr(type(calls)(calls[:1])),
    )


def observed(call: CallOnRecord) -> dict[str, Any]:
    """The fields of the record of a call, without its times, which differ."""
    event = call.event
    return {
        "requested": dict(event.requested),
        "tools": [tool["function"]["name"] for tool in event.tools],
        "schema": event.response_format is not None,
        "finish": event.finish,
        "reasoning": event.reasoning,
        "reasoning_tokens": event.usage.reasoning_tokens,
        "tool_calls": [_read_call(tool_call) for tool_call in event.tool_calls],
        "is_streamed": event.first_token is not None,
        "request_id": event.request_id,
        "response_id": event.response_id is not None,
        "response_model": event.response_model,
        "server": event.server,
        "error": None if event.error is None else event.error.partition(":")[0],
    }


def _read_call(tool_call: Mapping[str, Any]) -> tuple[str, Any]:
    function = tool_call["function"]
    return function["name"], json.loads(function["arguments"])


_ENDS = {"cut": ("length", "ReplyTruncated"), "cancelled": (None, "CancelledError")}
"""The finish reason and the error of the calls that fail."""


def expected(door: Door, kind: str, done: DoorCalls) -> dict[str, Any]:
    """The fields that the record of a call must have at a door with a fake server."""
    reports = door.reports
    finish, error = _ENDS.get(kind, ("stop", None))
    has_tools = kind == "tools" and reports.tools != "text"
    if has_tools:
        finish, error = ("tool_calls", None) if reports.tools == "native" else (None, "UnsupportedParameter")
    has_reply = finish is not None
    # A cancelled call has the thinking that arrived before.
    thinks = (has_reply or kind == "cancelled") and _holds(reports.reasoning, kind)
    counts = has_reply and _holds(reports.reasoning_tokens, kind)
    return {
        "requested": {"thinking": {"effort": "low"}, "cut": {"max_tokens": _CUT_AT}}.get(kind, {}),
        "tools": ["population"] if has_tools else [],
        "schema": kind == "schema",
        "finish": finish,
        "reasoning": THINKING if thinks else None,
        "reasoning_tokens": _THINKING_TOKENS if counts else 0,
        "tool_calls": [("population", {"city": "Oslo"})] if finish == "tool_calls" else [],
        "is_streamed": kind in ("streamed", "cancelled"),
        "request_id": done.calls[kind].request_id,
        "response_id": has_reply and reports.response_id,
        "response_model": door.server.model if has_reply else None,
        "server": done.address,
        "error": error,
    }


def _holds(condition: str, kind: str) -> bool:
    """Whether a condition of ``Reports`` holds for a kind of call."""
    if condition == "without a schema":
        return kind != "schema"
    return condition == "always" or {"with effort": "thinking", "in streams": "streamed"}.get(condition) == kind


def titles() -> list[str]:
    """The titles of the columns of ``row``."""
    return ["server and model", "`request_id`", "`response_id`", "`reasoning`", "`reasoning_tokens`", "`tool_calls`"]


def row(door: Door, done: DoorCalls) -> list[str]:
    """What the record has at a door, as cells of the table in docs/models.md."""
    events = {kind: call.event for kind, call in done.calls.items()}
    plain = events["plain"]
    return [
        door.name,
        f"`{door.reports.request_id}`" if plain.request_id else "none",
        "yes" if plain.response_id else "none",
        _when({kind: event.reasoning for kind, event in events.items()}),
        _when({kind: event.usage.reasoning_tokens for kind, event in events.items()}),
        "yes" if _takes_tools(events["tools"]) else "as text",
    ]


def _takes_tools(event: PredictorCalled) -> bool:
    return bool(event.tools) and not (event.error or "").startswith("UnsupportedParameter")


def _when(values: Mapping[str, Any]) -> str:
    """When the record has a value."""
    if values["plain"]:
        return "yes"
    if values["thinking"]:
        return "with `effort`"
    return "in streams" if values["streamed"] else "none"
