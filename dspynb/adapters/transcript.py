"""Past turns as text, for predictors whose outputs are not those of the conversation."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator

from dspynb.adapters.example_turns import past_turns
from dspynb.adapters.values import output_text, to_text
from dspynb.signatures.fields import Field, Input
from dspynb.signatures.signature import Signature

__all__ = ["as_transcripts"]


class _TurnsAsText:
    """Validates a history against the signature of the conversation and writes it as text."""

    saved_as = "dspynb.past_turns"

    def __init__(self, signature: type[Signature], name: str) -> None:
        self.signature = signature
        self.name = name

    def __call__(self, value: Any) -> Any:
        if value is None or isinstance(value, str):
            return value
        signature = self.signature
        texts = []
        for number, turn in enumerate(past_turns(signature, self.name, value), 1):
            lines = [f"Turn {number}"]
            for name, item in turn.items():
                if name in signature.input_fields:
                    lines.append(f"{name}: {to_text(signature.input_fields[name], item)}")
                else:
                    lines.append(f"{name}: {output_text(signature.output_fields[name], item)}")
            texts.append("\n".join(lines))
        return "\n\n".join(texts) or "(no turns yet)"


def as_transcripts(signature: type[Signature]) -> dict[str, Any]:
    """Return the definitions of the inputs of a signature, with each history as a text.

    A program has predictors whose outputs are not those of its signature. The turns of a conversation do not have these
    outputs, so such a predictor gets the turns as one input, instead of turns that would teach it a wrong reply. The
    turns are validated against ``signature``.
    """
    definitions: dict[str, Any] = {}
    for name, field in signature.input_fields.items():
        definitions[name] = _transcript(signature, field) if field.is_history else _definition(field)
    return definitions


def _definition(field: Field) -> tuple[Any, Any]:
    return field.info.rebuild_annotation(), field.info


def _transcript(signature: type[Signature], field: Field) -> tuple[Any, Any]:
    annotation: Any = Annotated[str, BeforeValidator(_TurnsAsText(signature, field.name))]
    desc = field.desc or "the past turns of the conversation"
    if field.info.is_required():
        return annotation, Input(desc=desc)
    return annotation | None, Input(desc=desc, default=None)
