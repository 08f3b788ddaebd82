"""Strict validation of requests and replies against the types of a provider's official SDK."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from typing import Any

import pydantic
from pydantic_core import SchemaValidator

__all__ = ["check_event", "check_reply", "request_check"]


@cache
def request_check(request_type: Any) -> Callable[[bytes], None]:
    """A function that raises pydantic.ValidationError, a ValueError, for a body that is no request of this type.

    ``request_type``: a TypedDict, or a union of some, as the SDKs of OpenAI, Anthropic and Mistral have for the
    parameters of their methods; or a pydantic model. Unknown keys are an error at any depth, and so are values that
    would have to be converted.
    """
    validator = SchemaValidator(_with_lists(pydantic.TypeAdapter(request_type).core_schema))

    def check(body: bytes) -> None:
        validator.validate_json(body, strict=True, extra="forbid")

    return check


def _with_lists(schema: Any) -> Any:
    """A core schema with lists in place of iterables, whose items pydantic would validate only when they are read."""
    if isinstance(schema, list):
        return [_with_lists(part) for part in schema]
    if isinstance(schema, tuple):
        return tuple(_with_lists(part) for part in schema)
    if not isinstance(schema, dict):
        return schema
    converted = {name: part if name == "metadata" else _with_lists(part) for name, part in schema.items()}
    if converted.get("type") == "generator":
        converted["type"] = "list"
    return converted


def check_reply(reply_type: type[pydantic.BaseModel], body: Mapping[str, Any], added: Collection[str] = ()) -> None:
    """Raise ValueError for a body that is no reply of this type.

    ``reply_type``: the SDK's type of a reply, or of one piece of a stream. ``added``: keys that the provider adds to
    the type, as paths without list positions, such as ``choices.message.reasoning_content``; what is below them is not
    checked.
    """
    encoded = pydantic.TypeAdapter(Any).dump_json(body)
    reply = reply_type.model_validate_json(encoded, strict=True)
    unknown = sorted(set(_unknown_keys(reply, "")) - set(added))
    if unknown:
        raise ValueError(f"{reply_type.__name__} has no {', '.join(unknown)}")


def check_event(event_type: pydantic.TypeAdapter[Any], event: Mapping[str, Any]) -> None:
    """Raise ValueError for an event of a stream that is none of a union of the SDK's types."""
    parsed = event_type.validate_json(pydantic.TypeAdapter(Any).dump_json(event), strict=True)
    unknown = sorted(set(_unknown_keys(parsed, "")))
    if unknown:
        raise ValueError(f"{type(parsed).__name__} has no {', '.join(unknown)}")


def _unknown_keys(value: Any, path: str) -> Iterator[str]:
    """The paths of all keys that the SDK's types do not declare."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from _unknown_keys(item, path)
    if not isinstance(value, pydantic.BaseModel):
        return
    for name in value.model_extra or {}:
        yield f"{path}{name}"
    for name, field in type(value).model_fields.items():
        yield from _unknown_keys(getattr(value, name), f"{path}{field.alias or name}.")
