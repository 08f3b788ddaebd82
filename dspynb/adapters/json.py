"""JSONAdapter: the reply is one JSON object, held to a schema where the model can be constrained."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from pydantic import ConfigDict, create_model
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic_core import from_json

from dspynb.adapters.base import Adapter, Content, content, inputs_of, shown
from dspynb.adapters.lenient_json import json_values
from dspynb.adapters.replies import Names, bare_reply
from dspynb.adapters.schema import constraints_of, type_notes
from dspynb.adapters.values import parse_json, plain
from dspynb.errors import ParseError
from dspynb.signatures.fields import Field
from dspynb.signatures.signature import Signature

__all__ = ["JSONAdapter", "object_in"]


class JSONAdapter(Adapter):
    """One JSON object with the output fields; its schema comes from their pydantic types.

    Of several objects in a reply the first that has all outputs is taken. JSON as models write it (single quotes,
    trailing commas, comments, ``True``) is read; JSON that is cut off is not.

    >>> ask = dn.Predict("question -> answer: int", adapter=dn.JSONAdapter(), lm=dn.ScriptedLM(['Sure: {"answer": 4}']))
    >>> ask.run_sync(question="2+2?")
    Prediction(answer=4)
    """

    name = "json"

    def format_system(self, signature: type[Signature], instruction: str) -> str:
        keys = ", ".join(f'"{n}": {f.type_text}' for n, f in signature.output_fields.items())
        fields = {**inputs_of(signature), **signature.output_fields}
        notes = [f"- {n}: {note}" for n, f in fields.items() if (note := _note(f))]
        return "\n".join([instruction, *notes, f"Reply with one JSON object: {{{keys}}}", *type_notes(signature)])

    def format_input(
        self,
        signature: type[Signature],
        inputs: Mapping[str, Any],
        *,
        instruction: str,  # noqa: ARG002  # it stands in the system message
        hint: str | None = None,
    ) -> Content:
        lines = [[f"{field.name}: ", *told] for field, told in shown(signature, inputs)]
        lines += [[f"hint: {hint}"]] if hint else []
        return content([piece for i, line in enumerate(lines) for piece in (["\n"] if i else []) + line])

    def format_output(self, signature: type[Signature], outputs: Mapping[str, Any]) -> str:
        known = {n: plain(f, outputs[n]) for n, f in signature.output_fields.items() if n in outputs}
        return json.dumps(known, ensure_ascii=False, default=str)

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
        try:
            body = object_in(signature.output_fields, bare_reply(reply))
        except ValueError as error:
            raise ParseError(f"the JSON object is not whole: {error}", raw=reply, stage="decode") from None
        if body is None:
            raise ParseError("the reply holds no JSON object", raw=reply, stage="decode")
        values = {}
        for name, field in signature.output_fields.items():
            if name not in body:
                raise ParseError(f"the JSON object has no key {name!r}", raw=reply, stage="locate", field=name)
            values[name] = parse_json(field, body[name], reply)
        return values


def object_in(wanted: Iterable[str], text: str) -> dict[str, Any] | None:
    """The first object in the text that has the wanted keys, else the first one, else None.

    Raises ValueError for one that is cut off.
    """
    names, keys, first = Names(wanted), set(wanted), None
    for value in json_values(text):
        body = _by_field(names, value)
        if keys <= set(body):
            return body
        first = body if first is None else first
    return first


def _by_field(names: Names, body: Mapping[str, Any]) -> dict[str, Any]:
    """The object by field; an exact key goes before one in another spelling."""
    spelled = {name: value for key, value in body.items() if (name := names.find(str(key))) is not None}
    return spelled | {key: value for key, value in body.items() if names.find(str(key)) == key}


def _note(field: Field) -> str:
    limits = constraints_of(field) if field.kind == "output" else ""
    return "; ".join(filter(None, [field.desc or "", limits]))


@lru_cache(maxsize=512)
def _schema(signature: type[Signature]) -> Mapping[str, Any] | None:
    """None where a type has no JSON schema: then the model is told in words only."""
    definitions: dict[str, Any] = {n: (f.info.rebuild_annotation(), ...) for n, f in signature.output_fields.items()}
    model = create_model("Reply", __config__=ConfigDict(extra="forbid", protected_namespaces=()), **definitions)
    try:
        return model.model_json_schema()
    except PydanticInvalidForJsonSchema:
        return None
