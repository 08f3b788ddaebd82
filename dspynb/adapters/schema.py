"""Describes types in short words, for models that cannot be constrained by a schema: nested fields, choices, limits.

The text is made of pydantic's JSON schema, so models, dataclasses, typed dicts and aliases are described alike.
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
    """Return the constraints of the field in words, such as ``at least 0, at most 1``. Empty if it has none."""
    return ", ".join(_limits(field.schema))


@lru_cache(maxsize=1024)
def type_notes(signature: type[Signature]) -> tuple[str, ...]:
    """Return lines that describe the nested types of the outputs. Empty if the names of the types are enough."""
    definitions: dict[str, _Schema] = {}
    lines = []
    for field in signature.output_fields.values():
        schema = _named(field.schema)
        if "$defs" in schema or any(_limits(part) for part in _inner(schema)):
            definitions |= schema.get("$defs", {})
            lines.append(f"`{field.name}` is JSON: {_type_text(schema)}")
    for name, body in definitions.items():
        lines += _definition_lines(name, body)
    return tuple(lines)


def _named(schema: _Schema) -> _Schema:
    """Move an object schema into ``$defs`` under its title, where the schemas inside it are."""
    if "properties" not in schema:
        return schema
    body = {key: value for key, value in schema.items() if key != "$defs"}
    name = str(schema.get("title", "Object"))
    return {"$ref": f"#/$defs/{name}", "$defs": {name: body, **schema.get("$defs", {})}}


def _inner(schema: _Schema) -> Iterator[_Schema]:
    """Yield the schemas of the items of lists and the values of mappings, at all depths and in all alternatives."""
    for part in schema.get("anyOf", ()):
        yield from _inner(part)
    for part in (schema.get("items"), schema.get("additionalProperties"), *schema.get("prefixItems", ())):
        if isinstance(part, Mapping):
            yield part
            yield from _inner(part)


def _limits(schema: _Schema) -> list[str]:
    limits = [_limit_text(template, schema[key]) for key, template in _LIMITS.items() if key in schema]
    if "prefixItems" in schema:  # the text of a tuple shows its number of items
        limits = []
    alternatives = [part for part in schema.get("anyOf", ()) if part.get("type") != "null"]
    if len(alternatives) == 1:
        limits += _limits(alternatives[0])
    return limits


def _limit_text(template: str, value: object) -> str:
    text = template.format(_number_text(value))
    if value == 1 and "{} " in template:
        return text.removesuffix("s")
    return text


def _number_text(value: object) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def _definition_lines(name: str, body: _Schema) -> Iterator[str]:
    """Yield the description of a named schema: one line, or for an object one more line for each property."""
    description = _description(body)
    if "properties" not in body:
        line = f"{name}: {_type_text(body)}"
        yield f"{line} ({description})" if description else line
        return
    line = f"{name} is an object:"
    yield f"{line} {description}" if description else line
    required = set(body.get("required", ()))
    for key, part in body["properties"].items():
        yield f"- {json.dumps(key, ensure_ascii=False)}: {_property_text(part, required=key in required)}"


def _description(body: _Schema) -> str:
    return " ".join(str(body.get("description", "")).split())


def _property_text(part: _Schema, *, required: bool) -> str:
    """Describe a property of an object: its type, whether it may be left out, and its description."""
    text = _type_text(part)
    if not required:
        default = part.get("default")
        if default is None:
            text += ", may be left out"
        else:
            text += f", {json.dumps(default, default=str)} if left out"
    description = _description(part)
    if description:
        text += f" — {description}"
    return text


def _type_text(schema: _Schema) -> str:
    """Describe a schema as a type: ``list of Person``, ``integer, at least 0``, ``"a" or "b"``."""
    kind = _kind(schema)
    limits = _limits(schema) if "anyOf" not in schema else []
    return ", ".join([kind, *limits])


def _kind(schema: _Schema) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "enum" in schema or "const" in schema:
        choices = schema.get("enum", [schema.get("const")])
        return " or ".join(json.dumps(choice, ensure_ascii=False) for choice in choices)
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            texts = [_type_text(part) for part in schema[key]]
            return " or ".join(f"({text})" if "," in text else text for text in texts)
    if schema.get("type") in ("array", "object"):
        return _container(schema)
    return _simple(schema)


def _simple(schema: _Schema) -> str:
    return _FORMATS.get(schema.get("format", ""), str(schema.get("type", "any value")))


def _container(schema: _Schema) -> str:
    if "prefixItems" in schema:
        return f"[{', '.join(map(_type_text, schema['prefixItems']))}]"
    if schema["type"] == "array":
        items = schema.get("items")
        return f"list of {_grouped(items)}" if items else "list"
    if "properties" in schema:
        properties = [f"{json.dumps(key)}: {_type_text(part)}" for key, part in schema["properties"].items()]
        return "{" + ", ".join(properties) + "}"
    values = schema.get("additionalProperties")
    if isinstance(values, Mapping) and values:
        return f"object with values of {_grouped(values)}"
    return "object"


def _grouped(schema: _Schema) -> str:
    """Put the type into brackets if it would be ambiguous after ``of``."""
    text = _type_text(schema)
    return f"({text})" if "," in text or " or " in text else text
