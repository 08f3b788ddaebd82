"""NativeTools: a reply whose tool calls come beside its text, from models that call tools by themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from dspynb.adapters.base import Adapter, Content, Messages
from dspynb.errors import ParseError
from dspynb.signatures.signature import Signature

__all__ = ["NativeTools"]


class NativeTools(Adapter):
    """Another adapter, used with the tools that a model calls natively.

    ``signature`` has the same inputs as the predictor's and one output, the text beside the calls; ``tools`` are the
    tools' descriptions as providers take them. The text is read leniently: models leave it out, or leave its form.
    """

    name = "native tools"

    def __init__(self, inner: Adapter, signature: type[Signature], tools: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(repair=False)  # its text is read whatever it is
        self.inner, self.signature, self.tools = inner, signature, tuple(tools)
        (self.output,) = signature.output_fields

    def format_system(self, signature: type[Signature], instruction: str) -> str:  # noqa: ARG002
        return self.inner.format_system(self.signature, instruction)

    def format_input(
        self,
        signature: type[Signature],  # noqa: ARG002
        inputs: Mapping[str, Any],
        *,
        instruction: str,
        hint: str | None = None,
    ) -> Content:
        return self.inner.format_input(self.signature, inputs, instruction=instruction, hint=hint)

    def format_output(self, signature: type[Signature], outputs: Mapping[str, Any]) -> str:  # noqa: ARG002
        return self.inner.format_output(self.signature, outputs)

    def format(
        self,
        signature: type[Signature],  # noqa: ARG002
        inputs: Mapping[str, Any],
        *,
        instruction: str | None = None,
        demos: Sequence[Mapping[str, Any]] = (),
        hint: str | None = None,
        prefix: str | None = None,  # noqa: ARG002  # the model's turn is not begun for it
    ) -> Messages:
        plain = self.inner.format(self.signature, inputs, instruction=instruction, demos=demos, hint=hint)
        made = iter(demos)
        turns: list[Mapping[str, Any]] = []
        for message in _without_opening(plain):
            demo = next(made, {}) if message["role"] == "assistant" else {}
            turns += _with_call(message, demo, f"demo_{len(turns)}", self._names())
        return tuple(turns)

    def parse(self, signature: type[Signature], reply: str) -> dict[str, Any]:  # noqa: ARG002
        try:
            return self.inner.parse(self.signature, reply)
        except ParseError:
            return {self.output: reply.strip()}

    def _names(self) -> set[str]:
        return {tool["function"]["name"] for tool in self.tools}


def _without_opening(messages: Messages) -> Messages:
    """The messages up to the user's last: a turn that is begun for the model would keep it from calling a tool."""
    return messages[:-1] if messages and messages[-1]["role"] == "assistant" else messages


def _with_call(
    message: Mapping[str, Any], demo: Mapping[str, Any], identity: str, names: set[str]
) -> list[Mapping[str, Any]]:
    """A demo's reply with the tool call it made; providers want every call answered."""
    name, args = demo.get("next_tool_name"), demo.get("next_tool_args")
    if name not in names:
        return [message]
    arguments = args if isinstance(args, str) else json.dumps(args or {}, ensure_ascii=False, default=str)
    call = {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}
    answer = {"role": "tool", "tool_call_id": identity, "content": "(the result is left out of this example)"}
    return [{**message, "tool_calls": [call]}, answer]
