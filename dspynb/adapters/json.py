"""JSONAdapter: the reply is one JSON object, constrained by a schema where the model supports it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from pydantic import ConfigDict, create_model
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic_core import from_json

from dspynb.adapters.base import Adapter, Content, input_pieces, message_content, message_inputs
from dspynb.adapters.grammar import has_typed_outputs, reply_grammar
from dspynb.adapters.lenient_json import json_values
from dspynb.adapters.replies import FieldNames, clean_reply
from dspynb.adapters.schema import constraints_of, type_notes
from dspynb.adapters.values import parse_json, to_json_value
from dspynb.errors import ParseError
from dspynb.signatures.fields import Field
from dspynb.signatures.signature import Signature
from dspynb.thinking import BLANK

__all__ = ["JSONAdapter", "find_object"]


class JSONAdapter(Adapter):
    """Asks for one JSON object with the output fields. Its schema is made of their pydantic types.

    If a reply has several objects, the first one that has all outputs is used. Common errors of models are accepted
    (single quotes, trailing commas, comments, ``True``); an object that is cut off is not.

    >>> ask = dn.Predict("question -> answer: int", adapter=dn.JSONAdapter(), lm=dn.ScriptedLM(['Sure: {"answer": 4}']))
    >>> ask.run_sync(question="2+2?")
    Prediction(answer=4)
    """

    name = "json"

    def format_system(self, signature: type[Signature], instruction: str) -> str:
        keys = ", ".join(f'"{n}": {f.type_text}' for n, f in signature.output_fields.items())
        lines = [instruction]
        for name, field in {**message_inputs(signature), **signature.output_fields}.items():
            note = _note(field)
            if note:
                lines.append(f"- {name}: {note}")
        return "\n".join([*lines, f"Reply with one JSON object: {{{keys}}}", *type_notes(signature)])

    def format_input(
        self,
        signature: type[Signature],
        inputs: Mapping[str, Any],
        *,
        instruction: str,  # noqa: ARG002  # the system message has it
        hint: str | None = None,
    ) -> Content:
        pieces: list[Any] = []
        for field, value_pieces in input_pieces(signature, inputs):
            if pieces:
                pieces.append("\n")
            pieces += [f"{field.name}: ", *value_pieces]
        if hint:
            if pieces:
                pieces.append("\n")
            pieces.append(f"hint: {hint}")
        return message_content(pieces)

    def format_output(self, signature: type[Signature], outputs: Mapping[str, Any]) -> str:
        values = {n: to_json_value(f, outputs[n]) for n, f in signature.output_fields.items() if n in outputs}
        return json.dumps(values, ensure_ascii=False, default=str)

    def grammar(self, signature: type[Signature]) -> str | None:
        return _grammar(signature)

    def response_format(self, signature: type[Signature]) -> Mapping[str, Any] | None:
        return _schema(signature)

    def partial(self, signature: type[Signature], text: str) -> dict[str, str]:
        start = text.find("{")
        if start < 0:
            return {}
        try:
            body = from_json(text[start:], allow_partial="trailing-strings")
        except ValueError:  # the text is no JSON, or continues after the object
            return {}
        if not isinstance(body, dict):
            return {}
        texts = {}
        for name in signature.output_fields:
            if name in body:
                value = body[name]
                texts[name] = value if isinstance(value, str) else json.dumps(value)
        return texts

    def begins_reply(self, signature: type[Signature], text: str) -> bool:  # noqa: ARG002
        return text.lstrip(BLANK).startswith(("{", "```"))

    def names_outputs(self, signature: type[Signature]) -> bool:  # noqa: ARG002
        return True

    def parse(self, signature: type[Signature], reply: str) -> dict[str, Any]:
        try:
            body = find_object(signature.output_fields, clean_reply(reply))
        except ValueError as error:
            raise ParseError(f"the JSON object is not whole: {error}", raw=reply, stage="decode") from None
        if body is None:
            raise ParseError("the reply holds no JSON object", raw=reply, stage="decode")
        values = {}
        for name, field in signature.output_fields.items():
            if name not in body and field.may_be_left_out:
                values[name] = field.default()
                continue
            if name not in body:
                raise ParseError(f"the JSON object has no key {name!r}", raw=reply, stage="locate", field=name)
            values[name] = parse_json(field, body[name], reply)
        return values


def find_object(names: Iterable[str], text: str) -> dict[str, Any] | None:
    """Return the first JSON object in the text that has all the fields, with the field names as keys.

    If no object has all of them, return the first object, or None if there is no object at all. Raises ValueError for
    an object that is cut off.
    """
    keys = set(names)
    spellings = FieldNames(keys)
    first = None
    for value in json_values(text):
        body = _by_field(spellings, value)
        if keys <= set(body):
            return body
        if first is None:
            first = body
    return first


def _by_field(spellings: FieldNames, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of an object by field name. An exact key takes precedence over another spelling."""
    exact = {}
    similar = {}
    for key, value in body.items():
        name = spellings.find(str(key))
        if name is None:
            continue
        similar[name] = value
        if name == key:
            exact[name] = value
    return similar | exact


def _note(field: Field) -> str:
    """Return the description of a field, and for an output its constraints."""
    parts = [field.desc] if field.desc else []
    if field.kind == "output":
        constraints = constraints_of(field)
        if constraints:
            parts.append(constraints)
    return "; ".join(parts)


@lru_cache(maxsize=512)
def _grammar(signature: type[Signature]) -> str | None:
    """One object with all outputs. None if the schema has to do, as for nested types."""
    if not has_typed_outputs(signature):
        return None
    parts: list[str | Field] = []
    for name, field in signature.output_fields.items():
        before = ", " if parts else "{"
        parts += [f"{before}{json.dumps(name)}: ", field]
    return reply_grammar([*parts, "}"], in_json=True)


@lru_cache(maxsize=512)
def _schema(signature: type[Signature]) -> Mapping[str, Any] | None:
    """Return the JSON schema of the outputs, or None if a type has none. The prompt then describes the types alone."""
    definitions: dict[str, Any] = {n: (f.info.rebuild_annotation(), ...) for n, f in signature.output_fields.items()}
    model = create_model("Reply", __config__=ConfigDict(extra="forbid", protected_namespaces=()), **definitions)
    try:
        return model.model_json_schema()
    except PydanticInvalidForJsonSchema:
        return None
