"""What to do about an unusable reply of a model that is held to grammars: such models are small."""

from __future__ import annotations

from dspynb.adapters.base import Adapter
from dspynb.adapters.grammar import value_rule
from dspynb.adapters.json import JSONAdapter
from dspynb.signatures.fields import Field
from dspynb.signatures.signature import Signature

__all__ = ["parse_advice", "truncation_advice"]

_OTHER_MODEL = "use a larger model, such as dn.LM('openai/gpt-4.1-mini')"


def parse_advice(lm: object, adapter: Adapter, signature: type[Signature]) -> str:
    """The way out if a reply could not be parsed. Empty if the model takes no grammars, or keeps to all types."""
    if not getattr(lm, "takes_grammar", False):
        return ""
    loose = [field for field in signature.output_fields.values() if _is_loose(field)]
    if not loose:
        return ""
    outputs = ", ".join(f"`{field.name}: {field.type_text}`" for field in loose)
    ways = "split it into such outputs"
    if not isinstance(adapter, JSONAdapter):
        ways = f"use adapter='json', {ways}"
    return (
        f"{_name(lm)} keeps to Literal, enum, bool, int, float, str and short lists of these, not to {outputs}: "
        f"{ways}, or {_OTHER_MODEL}"
    )


def truncation_advice(lm: object) -> str:
    """The way out if a reply was cut. Empty if the model takes no grammars."""
    if not getattr(lm, "takes_grammar", False):
        return ""
    return (
        f"{_name(lm)} often fails to end long texts, lists and nested values: ask for less, end a text at its line "
        f"with stop=['\\n'], or {_OTHER_MODEL}"
    )


def _is_loose(field: Field) -> bool:
    return not field.is_text and not field.is_optional_text and value_rule(field) is None


def _name(lm: object) -> str:
    return str(getattr(lm, "name", type(lm).__name__))
