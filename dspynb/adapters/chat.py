"""ChatAdapter: fields between ``[[ ## name ## ]]`` markers, for models that follow a format."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from dspynb.adapters.base import Adapter, Content, content, inputs_of, shown, shown_outputs
from dspynb.adapters.json import object_in
from dspynb.adapters.labelled_lines import labelled
from dspynb.adapters.replies import Names, bare_reply, without_blank_ends
from dspynb.adapters.schema import constraints_of, type_notes
from dspynb.adapters.values import parse_json, parse_value
from dspynb.errors import ParseError
from dspynb.signatures.fields import Field
from dspynb.signatures.signature import Signature

__all__ = ["ChatAdapter"]

_END = "completed"
_BEFORE = "[ \\t>#\ufeff\u200b\u200e\u200f\u2060]*"
_SIGN = r"(?P<bold>\*\*|__|`)?\[\[[ \t]*#{1,3}[ \t]*(?P<name>\w+(?:[ \t-]\w+)*)[ \t]*#{1,3}[ \t]*\]\](?:(?P=bold))?"
_MARKER = re.compile(rf"^{_BEFORE}{_SIGN}:?[ \t]*", re.MULTILINE)
_ESCAPABLE = re.compile(rf"^({_BEFORE})(?=\\*+{_SIGN})", re.MULTILINE)
_ESCAPED = re.compile(rf"^({_BEFORE})\\(?=\\*+{_SIGN})", re.MULTILINE)
_LAST = re.compile(r"\s*\[\[ ?## ?completed ?## ?\]\]\s*\Z")


class ChatAdapter(Adapter):
    """The default adapter (the format is DSPy's): every field under its marker, a ``completed`` marker at the end.

    A line of a value that looks like a marker is written with a backslash before it, and read without. Blank lines
    around a text are not kept. A reply without any marker is read from ``Name: value`` lines or one JSON object that
    has all outputs.

    >>> print(dn.ChatAdapter().format_output(dn.Predict("question -> answer").signature, {"answer": "4"}))
    [[ ## answer ## ]]
    4
    <BLANKLINE>
    [[ ## completed ## ]]
    """

    name = "chat"

    def format_system(self, signature: type[Signature], instruction: str) -> str:
        given = inputs_of(signature)
        parts = ["Your input fields are:", *_listed(given)] if given else []
        parts += ["Your output fields are:", *_listed(signature.output_fields), *type_notes(signature), ""]
        parts += ["All interactions are structured in the following way, with the values filled in.", ""]
        parts += [_section(n, "{" + n + "}") for n in given]
        parts += [_section(n, _placeholder(f)) for n, f in signature.output_fields.items()]
        parts += ["[[ ## completed ## ]]", "", "Your objective is:", instruction]
        return "\n".join(parts)

    def format_input(
        self,
        signature: type[Signature],
        inputs: Mapping[str, Any],
        *,
        instruction: str,  # noqa: ARG002  # it stands in the system message
        hint: str | None = None,
    ) -> Content:
        pieces: list[Any] = []
        for field, told in shown(signature, inputs):
            written = [_escaped(piece) if isinstance(piece, str) else piece for piece in told]
            pieces += [f"[[ ## {field.name} ## ]]\n", *written, "\n\n"]
        if hint:
            pieces.append(_section("hint", _escaped(hint)) + "\n")
        return content([*pieces, _closing(signature)])

    def format_output(self, signature: type[Signature], outputs: Mapping[str, Any]) -> str:
        sections = [_section(field.name, _escaped(text)) for field, text in shown_outputs(signature, outputs)]
        return "\n".join([*sections, "[[ ## completed ## ]]"])

    def partial(self, signature: type[Signature], text: str) -> dict[str, str]:
        found = _marked(_names(signature), _without_marker(text))
        return {name: found[name] for name in signature.output_fields if name in found}

    def parse(self, signature: type[Signature], reply: str) -> dict[str, Any]:
        text = bare_reply(reply)
        found = _marked(_names(signature), text)
        if not found.keys() & signature.output_fields:
            return self._parse_unmarked(signature, text, reply)
        values = {}
        for name, field in signature.output_fields.items():
            if name not in found:
                raise ParseError(f"the reply has no `[[ ## {name} ## ]]`", raw=reply, stage="locate", field=name)
            values[name] = parse_value(field, found[name], reply)
        return values

    def _parse_unmarked(self, signature: type[Signature], text: str, reply: str) -> dict[str, Any]:
        """A reply in another form: labels, or a JSON object. Raises ParseError unless all outputs are there."""
        fields = signature.output_fields
        lines = labelled(signature, text)
        if set(lines) == set(fields):
            return {n: parse_value(f, without_blank_ends(lines[n]), reply) for n, f in fields.items()}
        try:
            body = object_in(fields, text)
        except ValueError:  # cut off
            body = None
        if body is not None and set(fields) <= set(body):
            return {n: parse_json(f, body[n], reply) for n, f in fields.items()}
        first = next(iter(fields))
        raise ParseError(f"the reply has no `[[ ## {first} ## ]]`", raw=reply, stage="locate", field=first)


@lru_cache(maxsize=512)
def _names(signature: type[Signature]) -> Names:
    return Names([*signature.output_fields, *([] if _END in signature.output_fields else [_END])])


@lru_cache(maxsize=512)
def _closing(signature: type[Signature]) -> str:
    order = ", then ".join(f"`[[ ## {n} ## ]]`" for n in signature.output_fields)
    return f"Respond with {order}, and then the marker `[[ ## completed ## ]]`."


def _marked(names: Names, text: str) -> dict[str, str]:
    """The text under each marker of a field, the first of each name; what stands under other markers is dropped."""
    if "[[" not in text:
        return {}
    text = _unfenced(text)
    marks = list(_MARKER.finditer(text))
    ends = [*[mark.start() for mark in marks[1:]], len(text)]
    found: dict[str, str] = {}
    for mark, end in zip(marks, ends, strict=False):
        name = names.find(mark["name"])
        if name is None or name in found:
            continue
        inside = text[mark.end() : end]
        if "[[" in inside:
            inside = _ESCAPED.sub(r"\1", inside if end < len(text) or name == _END else _LAST.sub("", inside))
        found[name] = without_blank_ends(inside)
    return found


def _unfenced(text: str) -> str:
    """What is in the code fence that some models put around a whole reply."""
    bare = text.strip()
    if not (bare.startswith("```") and bare.endswith("```")):
        return text
    body = bare.partition("\n")[2]
    return body.removesuffix("```") if _MARKER.match(body) else text


def _escaped(text: str) -> str:
    return _ESCAPABLE.sub(r"\1\\", text) if "[[" in text else text


def _without_marker(text: str) -> str:
    """The text before what may be the beginning of a marker."""
    before, _, line = text.rpartition("\n")
    begun = line.lstrip()
    return before if begun == "[" or (begun.startswith("[[") and "]]" not in begun) else text


def _section(name: str, text: str) -> str:
    return f"[[ ## {name} ## ]]\n{text}\n"


def _listed(fields: Mapping[str, Field]) -> list[str]:
    return [
        f"{i}. `{f.name}` ({_type(f)})" + (f": {f.desc}" if f.desc else "") for i, f in enumerate(fields.values(), 1)
    ]


def _type(field: Field) -> str:
    limits = constraints_of(field) if field.kind == "output" else ""
    return f"{field.type_text}, {limits}" if limits else field.type_text


def _placeholder(field: Field) -> str:
    return "{" + field.name + "}" + ("" if field.is_text else f"        # a value of type {field.type_text}")
