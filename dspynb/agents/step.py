"""The step of an agent: a predictor that gives a thought and the tools to call next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, create_model

from dspynb.adapters.base import Adapter
from dspynb.adapters.lenient_json import read_json
from dspynb.adapters.native_tools import NativeTools
from dspynb.agents.tools.tool import Tool
from dspynb.data import Prediction
from dspynb.errors import SignatureError
from dspynb.lm.protocol import LMProtocol, LMReply
from dspynb.modules.predict import Predict
from dspynb.signatures.fields import Input, Output
from dspynb.signatures.signature import Signature

__all__ = ["FINISH", "Act", "ToolCall", "calls_of", "extract_signature"]

FINISH = "finish"
_OWN = ("trajectory", "next_thought", "next_tool_name", "next_tool_args")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """What a model asked for: a tool's name, and arguments as it gave them (a mapping, or text that is none)."""

    name: str
    args: Mapping[str, Any] | str


class Act(Predict):
    """One turn of an agent. A model that calls tools natively is given them with the request; any other one writes
    ``next_thought``, ``next_tool_name`` and ``next_tool_args``.

    The prediction has these three fields either way, and ``tool_calls``, all calls of the turn: none to finish.
    ``native``: True, False, or "auto" for what the model's ``native_tools`` says.
    """

    repairs = False  # what could not be read becomes an observation, and the next turn repairs it

    def __init__(self, signature: type[Signature], tools: Mapping[str, Tool], native: bool | str) -> None:
        super().__init__(_text_signature(signature, tools))
        self._native, self._native_signature = native, _native_signature(signature)
        self._specs = [tool.spec() for tool in tools.values()]

    def most_calls(self) -> int:
        """The call: its reply is not repaired."""
        return 1

    def _fitted(self, adapter: Adapter, lm: LMProtocol) -> Adapter:
        native = getattr(lm, "native_tools", False) if self._native == "auto" else self._native
        return NativeTools(adapter, self._native_signature, self._specs) if native else adapter

    def _read(self, adapter: Adapter, reply: LMReply) -> dict[str, Any]:
        if not isinstance(adapter, NativeTools):
            values = super()._read(adapter, reply)
            name, args = values["next_tool_name"], values["next_tool_args"]
            return {**values, "tool_calls": [] if name == FINISH else [{"name": name, "args": args}]}
        calls = [call for call in map(_native_call, reply.tool_calls) if call["name"] != FINISH]
        first = calls[0] if calls else {"name": FINISH, "args": {}}
        thought = adapter.parse(self.signature, reply.text)["next_thought"] if reply.text else ""
        named = {"next_thought": thought, "next_tool_name": first["name"], "next_tool_args": first["args"]}
        return {**named, "tool_calls": calls}


def calls_of(turn: Prediction) -> list[ToolCall]:
    """The calls of a turn; none where it finishes."""
    return [ToolCall(call["name"], call["args"]) for call in turn["tool_calls"]]


def _native_call(call: Mapping[str, Any]) -> dict[str, Any]:
    """Name and arguments of a call in OpenAI's form; arguments that cannot be read stay the text they are."""
    function = call.get("function")
    function = function if isinstance(function, Mapping) else {}
    args = function.get("arguments") or {}
    if isinstance(args, str):
        try:
            read = read_json(args)
        except ValueError:
            read = args
        args = read if isinstance(read, dict) else args
    return {"name": str(function.get("name") or ""), "args": args if isinstance(args, Mapping) else str(args)}


def _text_signature(signature: type[Signature], tools: Mapping[str, Tool]) -> type[Signature]:
    listed = "\n".join(f"- {tool}" for tool in tools.values())
    which = f"the tool to call, or {FINISH!r} once the trajectory holds all that is needed. The tools:\n{listed}"
    outputs = {
        "next_thought": (str, Output(desc="what is known, and what to do next")),
        "next_tool_name": (Literal[(*tools, FINISH)], Output(desc=which)),
        "next_tool_args": (
            Annotated[dict[str, Any], BeforeValidator(_no_arguments)],
            Output(desc=f"the tool's arguments as a JSON object; {{}} for {FINISH!r}"),
        ),
    }
    return _derived("Act", _instruction(signature), {**_inputs(signature), **outputs})


def _native_signature(signature: type[Signature]) -> type[Signature]:
    told = "what is known, and what to do next; to finish, reply without calling a tool"
    return _derived("ActNatively", "", {**_inputs(signature), "next_thought": (str, Output(desc=told))})


def extract_signature(signature: type[Signature]) -> type[Signature]:
    """The signature's outputs from its inputs and a trajectory."""
    outputs = {n: (f.info.rebuild_annotation(), f.info) for n, f in signature.output_fields.items()}
    return _derived("Extract", signature.instruction, {**_inputs(signature), **outputs})


def _inputs(signature: type[Signature]) -> dict[str, Any]:
    for name in (*signature.input_fields, *signature.output_fields):
        if name in _OWN:
            raise SignatureError(
                f"ReAct keeps the field name {name!r} for itself; name the signature's field otherwise"
            )
    given = {n: (f.info.rebuild_annotation(), f.info) for n, f in signature.input_fields.items()}
    return {**given, "trajectory": (str, Input(desc="thoughts, tool calls and what they returned, so far"))}


def _derived(name: str, instruction: str, fields: Mapping[str, Any]) -> type[Signature]:
    return create_model(name, __base__=Signature, __doc__=instruction, __module__=__name__, **fields)


def _instruction(signature: type[Signature]) -> str:
    """The task, and how to go about it; the form of the reply is in the fields, so that this may be rewritten."""
    wanted = ", ".join(f"`{name}`" for name in signature.output_fields)
    return (
        f"{signature.instruction}\n\n"
        f"You are an agent that uses tools to collect what is needed to produce {wanted}. `trajectory` shows what you "
        "have done and seen so far. In each turn, think about where you stand, then call the tool that helps most, and "
        f"finish once all that is needed is known. {wanted} will be written afterwards from the trajectory."
    )


def _no_arguments(value: Any) -> Any:
    return {} if isinstance(value, str) and value.strip() in ("", "None", "null") else value


_no_arguments.saved_as = "dspynb.modules.acting._no_arguments"  # type: ignore[attr-defined]  # in states of 0.1
