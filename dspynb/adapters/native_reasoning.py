"""NativeReasoning: the adapter for models that return their reasoning beside the text of a reply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from dspynb.adapters.base import Adapter, Content, Messages
from dspynb.errors import ParseError
from dspynb.signatures.signature import Signature
from dspynb.thinking import SplitReply

__all__ = ["NativeReasoning"]


class NativeReasoning(Adapter):
    """Wraps another adapter and leaves the output ``reasoning`` out of prompts and replies: the model reasons before it
    writes the reply, and the reasoning becomes the output.

    Args:
        inner: The adapter that writes and reads the other outputs.
        output: The name of the output that holds the reasoning.
    """

    name = "native reasoning"

    def __init__(self, inner: Adapter, output: str) -> None:
        super().__init__(repair=getattr(inner, "repair", False))
        self.inner = inner
        self.output = output

    def format_system(self, signature: type[Signature], instruction: str) -> str:
        return self.inner.format_system(_without(signature, self.output), instruction)

    def format_input(
        self, signature: type[Signature], inputs: Mapping[str, Any], *, instruction: str, hint: str | None = None
    ) -> Content:
        return self.inner.format_input(_without(signature, self.output), inputs, instruction=instruction, hint=hint)

    def format_output(self, signature: type[Signature], outputs: Mapping[str, Any]) -> str:
        return self.inner.format_output(_without(signature, self.output), outputs)

    def format(
        self,
        signature: type[Signature],
        inputs: Mapping[str, Any],
        *,
        instruction: str | None = None,
        demos: Sequence[Mapping[str, Any]] = (),
        hint: str | None = None,
        **options: Any,
    ) -> Messages:
        """Return the messages of the inner adapter. Demos are shown without their reasoning."""
        if instruction is None:
            instruction = signature.instruction
        return self.inner.format(
            _without(signature, self.output), inputs, instruction=instruction, demos=demos, hint=hint, **options
        )

    def format_repair(self, signature: type[Signature], messages: Messages, error: ParseError) -> Messages:
        return self.inner.format_repair(_without(signature, self.output), messages, error)

    def parse(self, signature: type[Signature], reply: str) -> dict[str, Any]:
        """Return the outputs beside the reasoning. Raises ParseError."""
        return self.inner.parse(_without(signature, self.output), reply)

    def with_reasoning(
        self, signature: type[Signature], values: Mapping[str, Any], reasoning: str | None
    ) -> dict[str, Any]:
        """Return the outputs with the reasoning, in the signature's order. None, where the provider returned no
        reasoning, becomes an empty text."""
        all_values = {**values, self.output: reasoning or ""}
        return {name: all_values[name] for name in signature.output_fields if name in all_values}

    def split_thinking(self, signature: type[Signature], reply: str) -> SplitReply:
        split_thinking = getattr(self.inner, "split_thinking", None)
        if split_thinking is None:  # a user's adapter that is no subclass
            return SplitReply("", reply)
        split: SplitReply = split_thinking(_without(signature, self.output), reply)
        return split

    def names_outputs(self, signature: type[Signature]) -> bool:
        return self.inner.names_outputs(_without(signature, self.output))

    def begins_reply(self, signature: type[Signature], text: str) -> bool:
        return self.inner.begins_reply(_without(signature, self.output), text)

    def partial(self, signature: type[Signature], text: str) -> dict[str, str]:
        return self.inner.partial(_without(signature, self.output), text)

    def opening(self, signature: type[Signature]) -> Messages:
        return self.inner.opening(_without(signature, self.output))

    def grammar(self, signature: type[Signature]) -> str | None:
        make_grammar = getattr(self.inner, "grammar", None)
        if make_grammar is None:  # a user's adapter that is no subclass
            return None
        grammar: str | None = make_grammar(_without(signature, self.output))
        return grammar

    def response_format(self, signature: type[Signature]) -> Mapping[str, Any] | None:
        return self.inner.response_format(_without(signature, self.output))


@lru_cache(maxsize=512)
def _without(signature: type[Signature], output: str) -> type[Signature]:
    """The signature without one output. Cached, so that the texts which adapters cache for it are found again."""
    return signature.delete(output)
