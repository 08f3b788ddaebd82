"""One step of an agent: a predictor that returns a thought and the next tool calls."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, create_model

from dspynb.adapters.base import Adapter
from dspynb.adapters.lenient_json import read_json
from dspynb.adapters.native_tools import NativeTools
from dspynb.adapters.transcript import as_transcripts
from dspynb.agents.text_calls import calls_in_text
from dspynb.agents.tools.tool import Tool
from dspynb.data import Prediction
from dspynb.errors import ParseError, SignatureError, UnsupportedParameter
from dspynb.events import PredictorCalled
from dspynb.lm.protocol import LMProtocol, LMReply, is_truncated
from dspynb.lm.providers.responses_request import REASONING_ITEMS
from dspynb.lm.refused_settings import TOOL_SETTINGS
from dspynb.modules.predict import Predict
from dspynb.modules.predictor_call import Call, Listener
from dspynb.scope.core import Scope
from dspynb.signatures.fields import Input, Output
from dspynb.signatures.signature import Signature

__all__ = ["FINISH", "Act", "ToolCall", "Trajectory", "calls_of", "extract_signature", "has_reasoning", "turn_messages"]

FINISH = "finish"
_RESERVED_FIELDS = ("trajectory", "next_thought", "next_tool_name", "next_tool_args")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call requested by the model: a tool and its arguments (a mapping, or text that is no JSON object)."""

    name: str
    args: Mapping[str, Any] | str


class Trajectory(str):
    """The text of a trajectory, and its last turns as messages, with the reasoning that the model's provider encrypted.

    Args:
        text: The whole trajectory as text.
        before: The part before these turns, as text.
        turns: The messages of these turns: those of the model with its tool calls, and those of the tools.
    """

    before: str
    turns: tuple[Mapping[str, Any], ...]

    def __new__(cls, text: str, before: str, turns: Sequence[Mapping[str, Any]]) -> Trajectory:
        trajectory = super().__new__(cls, text)
        trajectory.before = before
        trajectory.turns = tuple(turns)
        return trajectory


def has_reasoning(event: PredictorCalled) -> bool:
    """Whether the reply of a call has reasoning that the next request should hand back."""
    return any(REASONING_ITEMS in call for call in event.tool_calls)


def turn_messages(event: PredictorCalled, observations: Sequence[str]) -> list[Mapping[str, Any]]:
    """A turn of an agent as messages: the model's with its tool calls, and one of a tool for each of them.

    ``observations``: the results of the calls, in their order, without those that finish.
    """
    messages: list[Mapping[str, Any]] = [
        {"role": "assistant", "content": event.reply or "", "tool_calls": list(event.tool_calls)}
    ]
    remaining = iter(observations)
    for call in event.tool_calls:
        text = "Not finished yet."
        if _native_call(call)["name"] != FINISH:
            text = next(remaining, text)
        messages.append({"role": "tool", "tool_call_id": call.get("id"), "content": text})
    return messages


class Act(Predict):
    """One turn of an agent: returns a thought and the next tool calls.

    A model that calls tools natively receives them with the request. Any other model writes ``next_thought``,
    ``next_tool_name`` and ``next_tool_args``. The prediction has these three fields in both cases, and ``tool_calls``,
    the list of all calls of the turn, which is empty when the agent finishes.

    Args:
        signature: The signature of the agent.
        tools: The tools by name.
        native: Whether tools are sent natively: True, False, or "auto" for the model's attribute ``native_tools``.
    """

    repairs = False  # an unreadable reply becomes an observation, and the next turn corrects it

    def __init__(self, signature: type[Signature], tools: Mapping[str, Tool], native: bool | str) -> None:
        super().__init__(_text_signature(signature, tools))
        self._native = native
        self._native_signature = _native_signature(signature)
        self._specs = [tool.spec() for tool in tools.values()]

    def most_calls(self) -> int:
        """One call, since a reply is not repaired."""
        return 1

    async def _answer(self, inputs: Mapping[str, Any], listener: Listener | None = None) -> Prediction:
        """Call the model. If it turns out to take no tools, ask it once more, with the tools as text."""
        try:
            return await super()._answer(inputs, listener)
        except UnsupportedParameter as error:
            if self._native == "auto" and error.parameter in TOOL_SETTINGS:
                return await super()._answer(inputs, listener)
            raise

    def _prepare(self, scope: Scope, inputs: Mapping[str, Any]) -> Call:
        """Prepare the call. The last turns of a ``Trajectory`` are messages of the request, if tools are sent natively,
        and are left out of its text."""
        call = super()._prepare(scope, inputs)
        trajectory = inputs.get("trajectory")
        if not isinstance(trajectory, Trajectory) or not isinstance(call.adapter, NativeTools):
            return call
        values = {**call.inputs, "trajectory": trajectory.before}
        messages = self._messages(call.adapter, values, call.reading, call.path)
        return replace(call, request=replace(call.request, messages=(*messages, *trajectory.turns)))

    def _fitted(self, adapter: Adapter, lm: LMProtocol, settings: Mapping[str, Any]) -> Adapter:  # noqa: ARG002
        native = self._native
        if native == "auto":
            native = getattr(lm, "native_tools", False)
            warn = getattr(lm, "warn_of_text_tools", None)
            if not native and warn is not None:
                warn()
        return NativeTools(adapter, self._native_signature, self._specs) if native else adapter

    def _read(self, adapter: Adapter, reply: LMReply) -> dict[str, Any]:
        if is_truncated(reply):  # a tool must not be called with a part of its arguments
            raise ParseError("the reply was cut at the limit of tokens", raw=reply.text, stage="locate")
        if not isinstance(adapter, NativeTools):
            values = super()._read(adapter, reply)
            name = values["next_tool_name"]
            calls = [] if name == FINISH else [{"name": name, "args": values["next_tool_args"]}]
            return {**values, "tool_calls": calls}
        calls = []
        for tool_call in reply.tool_calls:
            call = _native_call(tool_call)
            if call["name"] != FINISH:
                calls.append(call)
        if not reply.tool_calls:
            calls = calls_in_text(reply.text, adapter.tool_names())
        first = calls[0] if calls else {"name": FINISH, "args": {}}
        thought = ""
        if reply.text:
            thought = adapter.parse(self.signature, reply.text)["next_thought"]
        return {
            "next_thought": thought,
            "next_tool_name": first["name"],
            "next_tool_args": first["args"],
            "tool_calls": calls,
        }


def calls_of(turn: Prediction) -> list[ToolCall]:
    """Return the tool calls of a turn. Empty if the agent finishes."""
    return [ToolCall(call["name"], call["args"]) for call in turn["tool_calls"]]


def _native_call(call: Mapping[str, Any]) -> dict[str, Any]:
    """Return the name and arguments of a call in OpenAI's format. Arguments that are no JSON object stay as text."""
    function = call.get("function")
    if not isinstance(function, Mapping):
        function = {}
    args = function.get("arguments") or {}
    if isinstance(args, str):
        with contextlib.suppress(ValueError):
            value = read_json(args)
            if isinstance(value, dict):
                args = value
    if not isinstance(args, Mapping):
        args = str(args)
    return {"name": str(function.get("name") or ""), "args": args}


def _text_signature(signature: type[Signature], tools: Mapping[str, Tool]) -> type[Signature]:
    tool_list = "\n".join(f"- {tool}" for tool in tools.values()) or "(none)"
    name_desc = f"the tool to call, or {FINISH!r} once the trajectory holds all that is needed. The tools:\n{tool_list}"
    outputs = {
        "next_thought": (str, Output(desc="what is known, and what to do next")),
        "next_tool_name": (Literal[(*tools, FINISH)], Output(desc=name_desc)),
        "next_tool_args": (
            Annotated[dict[str, Any], BeforeValidator(_no_arguments)],
            Output(desc=f"the tool's arguments as a JSON object; {{}} for {FINISH!r}"),
        ),
    }
    return _create_signature("Act", _instruction(signature), {**_inputs(signature), **outputs})


def _native_signature(signature: type[Signature]) -> type[Signature]:
    desc = "what is known, and what to do next; to finish, reply without calling a tool"
    return _create_signature("ActNatively", "", {**_inputs(signature), "next_thought": (str, Output(desc=desc))})


def extract_signature(signature: type[Signature]) -> type[Signature]:
    """Return the signature that produces the outputs of ``signature`` from its inputs and a trajectory."""
    outputs = {n: (f.info.rebuild_annotation(), f.info) for n, f in signature.output_fields.items()}
    return _create_signature("Extract", signature.instruction, {**_inputs(signature, transcripts=False), **outputs})


def _inputs(signature: type[Signature], *, transcripts: bool = True) -> dict[str, Any]:
    """Return the definitions of the inputs. ``transcripts``: whether histories are written as text."""
    for name in (*signature.input_fields, *signature.output_fields):
        if name in _RESERVED_FIELDS:
            raise SignatureError(f"ReAct reserves the field name {name!r}; rename the signature's field")
    if transcripts:
        inputs = as_transcripts(signature)
    else:
        inputs = {n: (f.info.rebuild_annotation(), f.info) for n, f in signature.input_fields.items()}
    return {**inputs, "trajectory": (str, Input(desc="thoughts, tool calls and what they returned, so far"))}


def _create_signature(name: str, instruction: str, fields: Mapping[str, Any]) -> type[Signature]:
    return create_model(name, __base__=Signature, __doc__=instruction, __module__=__name__, **fields)


def _instruction(signature: type[Signature]) -> str:
    """Return the task and how an agent works. The fields describe the format, so optimizers may replace this text."""
    outputs = ", ".join(f"`{name}`" for name in signature.output_fields)
    return (
        f"{signature.instruction}\n\n"
        f"You are an agent that uses tools to collect what is needed to produce {outputs}. `trajectory` shows what you "
        "have done and seen so far. In each turn, think about where you stand, then call the tool that helps most, and "
        f"finish once all that is needed is known. {outputs} will be written afterwards from the trajectory."
    )


def _no_arguments(value: object) -> Any:
    if isinstance(value, str) and value.strip() in ("", "None", "null"):
        return {}
    return value


_no_arguments.saved_as = "dspynb.modules.acting._no_arguments"  # type: ignore[attr-defined]  # the name in states of 0.1
