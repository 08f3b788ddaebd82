"""JSONAdapter: the reply is one JSON object, held to a schema where the model can be constrained."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from pydantic import ConfigDict, create_model
from pydantic_core import from_json

from dspynb.adapters.base import Adapter, shown
from dspynb.adapters.values import jsonable, parse_value
from dspynb.errors import ParseError
from dspynb.signatures import Signature

__all__ = ["JSONAdapter"]


class JSONAdapter(Adapter):
    """One JSON object with the output fields; its schema comes from their pydantic types."""

    name = "json"

    def format_system(self, signature: type[Signature], instruction: str) -> str:
        keys = ", ".join(f'"{n}": {f.type_text}' for n, f in signature.output_fields.items())
        notes = [f"- {n}: {f.desc}" for n, f in {**signature.input_fields, **signature.output_fields}.items() if f.desc]
        return "\n".join([instruction, *notes, f"Reply with one JSON object: {{{keys}}}"])

    def format_input(
        self,
        signature: type[Signature],
        inputs: Mapping[str, Any],
        *,
        instruction: str,  # noqa: ARG002  # it stands in the system message
        hint: str | None = None,
    ) -> str:
        lines = [f"{field.name}: {text}" for field, text in shown(signature.input_fields, inputs)]
        return "\n".join([*lines, *([f"hint: {hint}"] if hint else [])])

    def format_output(self, signature: type[Signature], outputs: Mapping[str, Any]) -> str:
        known = {n: outputs[n] for n in signature.output_fields if n in outputs}
        return json.dumps(jsonable(known), ensure_ascii=False)

    def response_format(self, signature: type[Signature]) -> Mapping[str, Any] | None:
        return _schema(signature)

    def partial(self, signature: type[Signature], text: str) -> dict[str, str]:
        begins = text.find("{")
        try:
            body = from_json(text[begins:], allow_partial="trailing-strings") if begins >= 0 else {}
        except ValueError:  # more than one object, or none
            return {}
        known = {n: body[n] for n in signature.output_fields if n in body} if isinstance(body, dict) else {}
        return {n: value if isinstance(value, str) else json.dumps(value) for n, value in known.items()}

    def parse(self, signature: type[Signature], reply: str) -> dict[str, Any]:
        body = _object(reply, signature.output_fields)
        values = {}
        for name, field in signature.output_fields.items():
            if name not in body:
                raise ParseError(f"the JSON object has no key {name!r}", raw=reply, stage="locate", field=name)
            given = body[name]
            text = given if isinstance(given, str) else json.dumps(given)
            values[name] = parse_value(field, text, reply)
        return values


def _object(reply: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The first object in the reply that has the wanted keys, else the first one. Raises ParseError."""
    found = list(_objects(reply))
    if not found:
        raise ParseError("the reply holds no JSON object", raw=reply, stage="decode")
    return next((body for body in found if set(wanted) <= set(body)), found[0])


def _objects(reply: str) -> Iterator[dict[str, Any]]:
    decoder, end = json.JSONDecoder(strict=False), 0
    for match in re.finditer(r"\{", reply):
        if match.start() < end:  # inside an object that was read
            continue
        try:
            value, end = decoder.raw_decode(reply, match.start())
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            yield value


@lru_cache(maxsize=512)
def _schema(signature: type[Signature]) -> Mapping[str, Any]:
    definitions: dict[str, Any] = {n: (f.info.rebuild_annotation(), ...) for n, f in signature.output_fields.items()}
    model = create_model("Reply", __config__=ConfigDict(extra="forbid", protected_namespaces=()), **definitions)
    return model.model_json_schema()
