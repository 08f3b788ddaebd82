"""NativeTools: the adapter for models that call tools natively, with tool calls beside the text of a reply."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from dspynb.adapters.base import Adapter, Content, Messages
from dspynb.errors import ParseError
from dspynb.signatures.signature import Signature

__all__ = ["NativeTools"]


class NativeTools(Adapter):
    """Wraps another adapter and sends tools in the provider's own format.

    Args:
        inner: The adapter that writes the messages.
        signature: The inputs of the predictor, and one output: the text beside the tool calls. The text is read
            leniently, since models leave it out or ignore its format.
        tools: The descriptions of the tools in the provider's format.
    """

    name = "native tools"

    def __init__(self, inner: Adapter, signature: type[Signature], tools: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(repair=False)  # any text is accepted
        self.inner = inner
        self.signature = signature
        self.tools = tuple(tools)
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
        signature: type[Signature],  # noqa: ARG002  # the adapter has a signature of its own
        inputs: Mapping[str, Any],
        *,
        instruction: str | None = None,
        demos: Sequence[Mapping[str, Any]] = (),
        hint: str | None = None,
        prefix: str | None = None,  # noqa: ARG002  # the assistant's turn is not prefilled
    ) -> Messages:
        """Format the messages with the inner adapter, and add the tool call of each demo to its reply."""
        messages = self.inner.format(self.signature, inputs, instruction=instruction, demos=demos, hint=hint)
        remaining_demos = iter(demos)  # each assistant message is the reply of the next demo
        turns: list[Mapping[str, Any]] = []
        for message in _without_prefill(messages):
            demo = next(remaining_demos, {}) if message["role"] == "assistant" else {}
            turns += _as_tool_turns(message, demo, f"demo_{len(turns)}", self.tool_names())
        return tuple(turns)

    def parse(self, signature: type[Signature], reply: str) -> dict[str, Any]:  # noqa: ARG002
        try:
            return self.inner.parse(self.signature, reply)
        except ParseError:
            return {self.output: reply.strip()}

    def grammar(self, signature: type[Signature]) -> str | None:  # noqa: ARG002
        """Return None: the text beside tool calls has no form."""
        return None

    def tool_names(self) -> set[str]:
        """The names of the tools."""
        return {tool["function"]["name"] for tool in self.tools}


def _without_prefill(messages: Messages) -> Messages:
    """Drop a prefilled assistant message at the end, which would keep the model from calling a tool."""
    return messages[:-1] if messages and messages[-1]["role"] == "assistant" else messages


def _as_tool_turns(
    message: Mapping[str, Any], demo: Mapping[str, Any], identity: str, names: set[str]
) -> list[Mapping[str, Any]]:
    """Return a demo's reply with its tool call, and a tool message, since providers require a result for every call."""
    name = demo.get("next_tool_name")
    args = demo.get("next_tool_args")
    if name not in names:
        return [message]
    arguments = args if isinstance(args, str) else json.dumps(args or {}, ensure_ascii=False, default=str)
    call = {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}
    answer = {"role": "tool", "tool_call_id": identity, "content": "(the result is left out of this example)"}
    return [{**message, "tool_calls": [call]}, answer]
