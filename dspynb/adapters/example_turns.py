"""Demos and past turns as turns of a prompt. Values that they lack are marked as not supplied.

A model imitates the turns that it sees. In a turn of the assistant without one of the outputs, it learns to leave that
output out, which costs a repair.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dspynb.conversation import History
from dspynb.errors import InputError, nearest
from dspynb.signatures.fields import Field
from dspynb.signatures.signature import Signature

__all__ = ["NOT_SUPPLIED", "NotSupplied", "complete_demos", "has_outputs", "message_inputs", "past_turns"]


class NotSupplied(str):
    """The text that stands for a value which an example does not have."""

    __slots__ = ()


NOT_SUPPLIED = NotSupplied("Not supplied for this example.")


def message_inputs(signature: type[Signature]) -> dict[str, Field]:
    """Return the input fields that are written into a message: all but histories, which become messages themselves."""
    return {name: field for name, field in signature.input_fields.items() if not field.is_history}


def has_outputs(signature: type[Signature], row: Mapping[str, Any]) -> bool:
    """Whether a row has a value for an output of the signature."""
    return any(name in row and _is_value(field, row[name]) for name, field in signature.output_fields.items())


def complete_demos(signature: type[Signature], demos: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the demos that have outputs. Required inputs and outputs that a demo lacks are marked as not supplied."""
    required = [
        name for name, field in message_inputs(signature).items() if field.info.is_required() and not field.takes_none
    ]
    return [
        {**dict.fromkeys(required, NOT_SUPPLIED), **_with_outputs(signature, demo)}
        for demo in demos
        if has_outputs(signature, demo)
    ]


def past_turns(signature: type[Signature], name: str, history: Any) -> list[dict[str, Any]]:
    """Return the turns of a history with the values of the signature's fields, validated.

    ``name``: the field of the history. Other columns of a turn are ignored. Outputs that a turn lacks are marked as not
    supplied. Raises InputError for a value of a wrong type, and for a turn that has no field of the signature.
    """
    turns = history if isinstance(history, History) else History(history)
    fields = {**message_inputs(signature), **signature.output_fields}
    return [
        _with_outputs(signature, _validated(signature, fields, f"{name}, turn {number}", turn))
        for number, turn in enumerate(turns)
    ]


def _validated(
    signature: type[Signature], fields: Mapping[str, Field], where: str, turn: Mapping[str, Any]
) -> dict[str, Any]:
    named = signature.by_name(turn)
    known = {key: value for key, value in named.items() if key in fields}
    if not any(key in signature.output_fields for key in known):
        for column in named:
            advice = nearest(column, signature.output_fields)
            if column not in known and (advice or not known):
                raise InputError(f"{where}: there is no field {column!r}.{advice} Its fields: {', '.join(fields)}")
    return {key: fields[key].checked(value, where) for key, value in known.items() if _is_value(fields[key], value)}


def _with_outputs(signature: type[Signature], row: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a row, with a mark for each output that it lacks. An output with a default may be lacking."""
    values = {key: row[key] for key in row if key not in signature.output_fields}
    for name, field in signature.output_fields.items():
        if name in row and _is_value(field, row[name]):
            values[name] = row[name]
        elif field.info.is_required():
            values[name] = NOT_SUPPLIED
    return {name: value for name, value in values.items() if value is not None or name in signature.output_fields}


def _is_value(field: Field, value: object) -> bool:
    return value is not None or field.takes_none
