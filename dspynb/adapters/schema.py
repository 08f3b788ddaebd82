"""A type told to a model that cannot be held to a schema: nested fields, choices and constraints, in few words.

Read from pydantic's JSON schema, so that models, dataclasses, typed dicts and aliases are all told alike.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from dspynb.signatures.fields import Field
from dspynb.signatures.signature import Signature

__all__ = ["constraints_of", "type_notes"]

_Schema = Mapping[str, Any]
_LIMITS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "exclusiveMinimum": "more than {}",
    "exclusiveMaximum": "less than {}",
    "multipleOf": "a multiple of {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "minProperties": "at least {} keys",
    "maxProperties": "at most {} keys",
    "pattern": "matches {}",
}
_FORMATS = {
    "date-time": "date and time, ISO 8601",
    "date": "date, YYYY-MM-DD",
    "time": "time, HH:MM:SS",
    "duration": "duration, ISO 8601",
}


def constraints_of(field: Field) -> str:
    """The field's own constraints in words: ``at least 0, at most 1``; empty without any."""
    return ", ".join(_limits(field.schema))


@lru_cache(maxsize=1024)
def type_notes(signature: type[Signature]) -> tuple[str, ...]:
    """Lines that spell out the outputs' nested types; none where the types' names say all."""
    definitions: dict[str, _Schema] = {}
    lines = []
    for field in signature.output_fields.values():
        schema = _named(field.schema)
        if "$defs" in schema or any(_limits(part) for part in _inner(schema)):
            definitions |= schema.get("$defs", {})
            lines.append(f"`{field.name}` is JSON: {_told(schema)}")
    return (*lines, *(line for name, body in definitions.items() for line in _defined(name, body)))


def _named(schema: _Schema) -> _Schema:
    """The schema with its outermost object under its name, like those inside it."""
    if "properties" not in schema:
        return schema
    body = {key: value for key, value in schema.items() if key != "$defs"}
    name = str(schema.get("title", "Object"))
    return {"$ref": f"#/$defs/{name}", "$defs": {name: body, **schema.get("$defs", {})}}


def _inner(schema: _Schema) -> Iterator[_Schema]:
    """All schemas within lists and mappings; alternatives belong to where they stand."""
    for part in schema.get("anyOf", ()):
        yield from _inner(part)
    for part in (schema.get("items"), schema.get("additionalProperties"), *schema.get("prefixItems", ())):
        if isinstance(part, Mapping):
            yield part
            yield from _inner(part)


def _limits(schema: _Schema) -> list[str]:
    own = [_limit(told, schema[key]) for key, told in _LIMITS.items() if key in schema]
    if "prefixItems" in schema:  # their number is seen
        own = []
    some = [part for part in schema.get("anyOf", ()) if part.get("type") != "null"]
    return own + (_limits(some[0]) if len(some) == 1 else [])


def _limit(told: str, value: Any) -> str:
    text = told.format(_plain(value))
    return text.removesuffix("s") if value == 1 and "{} " in told else text


def _plain(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else str(value)


def _defined(name: str, body: _Schema) -> Iterator[str]:
    if "properties" not in body:
        yield f"{name}: {_told(body)}" + (f" ({described})" if (described := _description(body)) else "")
        return
    required = set(body.get("required", ()))
    yield f"{name} is an object:" + (f" {described}" if (described := _description(body)) else "")
    for key, part in body["properties"].items():
        yield f"- {json.dumps(key, ensure_ascii=False)}: {_entry(part, required=key in required)}"


def _description(body: _Schema) -> str:
    return " ".join(str(body.get("description", "")).split())


def _entry(part: _Schema, *, required: bool) -> str:
    default = (
        "" if required or part.get("default") is None else f", {json.dumps(part['default'], default=str)} if left out"
    )
    said = _description(part)
    optional = "" if required or default else ", may be left out"
    return _told(part) + default + optional + (f" — {said}" if said else "")


def _told(schema: _Schema) -> str:
    """A schema as a type: ``list of Person``, ``integer, at least 0``, ``"a" or "b"``."""
    kind = _kind(schema)
    limits = _limits(schema) if "anyOf" not in schema else []
    return ", ".join([kind, *limits])


def _kind(schema: _Schema) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "enum" in schema or "const" in schema:
        return " or ".join(json.dumps(v, ensure_ascii=False) for v in schema.get("enum", [schema.get("const")]))
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return " or ".join(f"({told})" if "," in told else told for told in map(_told, schema[key]))
    return _container(schema) if schema.get("type") in ("array", "object") else _simple(schema)


def _simple(schema: _Schema) -> str:
    return _FORMATS.get(schema.get("format", ""), str(schema.get("type", "any value")))


def _container(schema: _Schema) -> str:
    if "prefixItems" in schema:
        return f"[{', '.join(map(_told, schema['prefixItems']))}]"
    if schema["type"] == "array":
        inner = schema.get("items")
        return f"list of {_grouped(inner)}" if inner else "list"
    if "properties" in schema:
        return "{" + ", ".join(f"{json.dumps(k)}: {_told(v)}" for k, v in schema["properties"].items()) + "}"
    extra = schema.get("additionalProperties")
    return f"object with values of {_grouped(extra)}" if isinstance(extra, Mapping) and extra else "object"


def _grouped(schema: _Schema) -> str:
    told = _told(schema)
    return f"({told})" if "," in told or " or " in told else told
