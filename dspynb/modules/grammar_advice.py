"""What to do about an unusable reply of a model that is held to grammars: such models are small."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dspynb.adapters.base import Adapter
from dspynb.adapters.grammar import cut_outputs, value_rule
from dspynb.adapters.json import JSONAdapter
from dspynb.adapters.prefill import PrefillAdapter
from dspynb.errors import TruncatedReplyWarning
from dspynb.scope.core import warn_user
from dspynb.signatures.fields import Field
from dspynb.signatures.signature import Signature

__all__ = ["parse_advice", "truncation_advice", "warn_of_cut_outputs"]

_OTHER_MODEL = "use a larger model, such as dn.LM('openai/gpt-4.1-mini')"


def parse_advice(lm: object, adapter: Adapter, signature: type[Signature], name: str | None) -> str:
    """The way out if a reply could not be parsed. ``name``: the field that could not, None if it is not known. Empty if
    the model takes no grammars."""
    if not getattr(lm, "takes_grammar", False):
        return ""
    loose = [field for field in signature.output_fields.values() if _is_loose(field)]
    if not loose and name in signature.output_fields:
        return (
            f"{_name(lm)} keeps to types and limits, not to patterns, multiples and validators: drop that of `{name}`, "
            f"check it in the reward of a dn.Refine, or {_OTHER_MODEL}"
        )
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


def truncation_advice(lm: object, adapter: Adapter, signature: type[Signature]) -> str:
    """The way out if a reply was cut. Empty if the model takes no grammars."""
    if not getattr(lm, "takes_grammar", False):
        return ""
    ways = "ask for less"
    if len(signature.output_fields) == 1 and isinstance(adapter, PrefillAdapter):
        ways += ", end a text at its line with stop=['\\n']"
    return f"{_name(lm)} often fails to end long texts, lists and nested values: {ways}, or {_OTHER_MODEL}"


def warn_of_cut_outputs(signature: type[Signature], outputs: Mapping[str, Any]) -> None:
    """Warn of outputs that a grammar has probably cut, since they are as long as it allows."""
    names = cut_outputs(signature, outputs)
    if names:
        listed = ", ".join(f"`{name}`" for name in names)
        warn_user(
            f"{listed}: as long as the grammar of the embedded model allows, and probably cut there. Give the field a "
            "limit of its own (max_length=…), ask for it in a predictor of its own, or use a larger model",
            TruncatedReplyWarning,
        )


def _is_loose(field: Field) -> bool:
    return not field.is_text and not field.is_optional_text and value_rule(field) is None


def _name(lm: object) -> str:
    return str(getattr(lm, "name", type(lm).__name__))
