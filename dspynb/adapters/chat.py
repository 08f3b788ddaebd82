"""ChatAdapter: fields between ``[[ ## name ## ]]`` markers, for models that follow a format."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from dspynb.adapters.base import Adapter, Content, input_pieces, message_content, message_inputs, output_texts
from dspynb.adapters.json import find_object
from dspynb.adapters.labelled_lines import labelled_texts
from dspynb.adapters.replies import FieldNames, clean_reply, without_blank_ends
from dspynb.adapters.schema import constraints_of, type_notes
from dspynb.adapters.values import parse_json, parse_value, with_defaults
from dspynb.errors import ParseError
from dspynb.signatures.fields import Field
from dspynb.signatures.signature import Signature
from dspynb.thinking import BLANK

__all__ = ["ChatAdapter"]

_END_NAME = "completed"
_LINE_PREFIX = "[ \\t>#\ufeff\u200b\u200e\u200f\u2060]*"
_MARKER_PATTERN = (
    r"(?P<bold>\*\*|__|`)?\[\[[ \t]*#{1,3}[ \t]*(?P<name>\w+(?:[ \t-]\w+)*)[ \t]*#{1,3}[ \t]*\]\](?:(?P=bold))?"
)
_MARKER = re.compile(rf"^{_LINE_PREFIX}{_MARKER_PATTERN}:?[ \t]*", re.MULTILINE)
_MARKER_ANYWHERE = re.compile(rf"(?<!\\){_MARKER_PATTERN}:?[ \t]*")
"""A marker in the middle of a line, of which models write some that have fields missing at the beginning of lines."""
_ESCAPABLE = re.compile(rf"^({_LINE_PREFIX})(?=\\*+{_MARKER_PATTERN})", re.MULTILINE)
_ESCAPED = re.compile(rf"^({_LINE_PREFIX})\\(?=\\*+{_MARKER_PATTERN})", re.MULTILINE)
_END_MARKER = re.compile(r"\s*\[\[ ?## ?completed ?## ?\]\]\s*\Z")


class ChatAdapter(Adapter):
    """The default adapter, in DSPy's format: each field below its own marker, and a ``completed`` marker at the end.

    A line of a value that looks like a marker is escaped with a backslash, which is removed when it is read. Blank
    lines around a text are dropped. A reply without any marker is read as ``Name: value`` lines, or as one JSON object
    that has all outputs.

    >>> print(dn.ChatAdapter().format_output(dn.Predict("question -> answer").signature, {"answer": "4"}))
    [[ ## answer ## ]]
    4
    <BLANKLINE>
    [[ ## completed ## ]]
    """

    name = "chat"

    def format_system(self, signature: type[Signature], instruction: str) -> str:
        inputs = message_inputs(signature)
        outputs = signature.output_fields
        lines = []
        if inputs:
            lines += ["Your input fields are:", *_described(inputs)]
        lines += ["Your output fields are:", *_described(outputs), *type_notes(signature), ""]
        lines += ["All interactions are structured in the following way, with the values filled in.", ""]
        lines += [_section(name, "{" + name + "}") for name in inputs]
        lines += [_section(name, _placeholder(field)) for name, field in outputs.items()]
        lines += ["[[ ## completed ## ]]", "", "Your objective is:", instruction]
        return "\n".join(lines)

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
            pieces.append(f"[[ ## {field.name} ## ]]\n")
            pieces += [_escaped(piece) if isinstance(piece, str) else piece for piece in value_pieces]
            pieces.append("\n\n")
        if hint:
            pieces.append(_section("hint", _escaped(hint)) + "\n")
        pieces.append(_closing(signature))
        return message_content(pieces)

    def format_output(self, signature: type[Signature], outputs: Mapping[str, Any]) -> str:
        sections = [_section(field.name, _escaped(text)) for field, text in output_texts(signature, outputs)]
        return "\n".join([*sections, "[[ ## completed ## ]]"])

    def partial(self, signature: type[Signature], text: str) -> dict[str, str]:
        texts = _marked_texts(_names(signature), _without_open_marker(text))
        return {name: texts[name] for name in signature.output_fields if name in texts}

    def begins_reply(self, signature: type[Signature], text: str) -> bool:  # noqa: ARG002
        beginning = text.lstrip(BLANK)
        return beginning.startswith("```") or _MARKER.match(beginning) is not None

    def names_outputs(self, signature: type[Signature]) -> bool:  # noqa: ARG002
        return True

    def parse(self, signature: type[Signature], reply: str) -> dict[str, Any]:
        text = clean_reply(reply)
        names = _names(signature)
        texts = _marked_texts(names, text)
        if "[[" in text and not texts.keys() >= signature.output_fields.keys():
            anywhere = _marked_texts(names, text, _MARKER_ANYWHERE)
            if len(anywhere.keys() & signature.output_fields) > len(texts.keys() & signature.output_fields):
                texts = anywhere
        if not texts.keys() & signature.output_fields:
            return self._parse_unmarked(signature, text, reply)
        values = {}
        for name, field in signature.output_fields.items():
            if name not in texts and field.may_be_left_out:
                values[name] = field.default()
                continue
            if name not in texts:
                raise ParseError(f"the reply has no `[[ ## {name} ## ]]`", raw=reply, stage="locate", field=name)
            values[name] = parse_value(field, texts[name], reply)
        return values

    def _parse_unmarked(self, signature: type[Signature], text: str, reply: str) -> dict[str, Any]:
        """Parse a reply that has labels or a JSON object. Raises ParseError unless it has all outputs."""
        fields = signature.output_fields
        lines = labelled_texts(signature, text)
        required = {name for name, field in fields.items() if not field.may_be_left_out}
        if lines and required <= set(lines) <= set(fields):
            return with_defaults(
                fields, {n: parse_value(fields[n], without_blank_ends(lines[n]), reply) for n in lines}
            )
        try:
            body = find_object(fields, text)
        except ValueError:  # the object is cut off
            body = None
        if body and required <= set(body):
            return with_defaults(fields, {n: parse_json(f, body[n], reply) for n, f in fields.items() if n in body})
        first = next(iter(fields))
        raise ParseError(f"the reply has no `[[ ## {first} ## ]]`", raw=reply, stage="locate", field=first)


@lru_cache(maxsize=512)
def _names(signature: type[Signature]) -> FieldNames:
    names = list(signature.output_fields)
    if _END_NAME not in names:
        names.append(_END_NAME)
    return FieldNames(names)


@lru_cache(maxsize=512)
def _closing(signature: type[Signature]) -> str:
    order = ", then ".join(f"`[[ ## {n} ## ]]`" for n in signature.output_fields)
    return f"Respond with {order}, and then the marker `[[ ## completed ## ]]`."


def _marked_texts(names: FieldNames, text: str, marker: re.Pattern[str] = _MARKER) -> dict[str, str]:
    """Return the text below the first marker of each field. Text below other markers is dropped. Of a marker that is
    repeated at once, the text is below the last one."""
    if "[[" not in text:
        return {}
    text = _unfenced(text)
    marks = []
    for mark in marker.finditer(text):  # a loop lets other threads run while a reply of megabytes is read
        marks.append(mark)  # noqa: PERF402
    ends = [*[mark.start() for mark in marks[1:]], len(text)]
    texts: dict[str, str] = {}
    for mark, end in zip(marks, ends, strict=False):
        name = names.find(mark["name"])
        if name is None or texts.get(name):
            continue
        body = text[mark.end() : end]
        if "[[" in body:
            body = _without_repeated_marker(names, name, body)
            if end == len(text) and name != _END_NAME:
                body = _END_MARKER.sub("", body)
            body = _ESCAPED.sub(r"\1", body)
        if marker is _MARKER_ANYWHERE:
            body = body.rstrip(" \t")
        texts[name] = without_blank_ends(body)
    return texts


def _without_repeated_marker(names: FieldNames, name: str, body: str) -> str:
    """The text of a field without markers of the same field at its beginning."""
    mark = _MARKER.match(body)
    while mark is not None and names.find(mark["name"]) == name:
        body = body[mark.end() :]
        mark = _MARKER.match(body)
    return body


def _unfenced(text: str) -> str:
    """Remove the code fence that some models put around the whole reply."""
    bare = text.strip()
    if not (bare.startswith("```") and bare.endswith("```")):
        return text
    body = bare.partition("\n")[2]
    return body.removesuffix("```") if _MARKER.match(body) else text


def _escaped(text: str) -> str:
    return _ESCAPABLE.sub(r"\1\\", text) if "[[" in text else text


def _without_open_marker(text: str) -> str:
    """Drop the last line of a streamed text if it may be the beginning of a marker."""
    before, _, line = text.rpartition("\n")
    line = line.lstrip()
    may_be_marker = line == "[" or (line.startswith("[[") and "]]" not in line)
    return before if may_be_marker else text


def _section(name: str, text: str) -> str:
    return f"[[ ## {name} ## ]]\n{text}\n"


def _described(fields: Mapping[str, Field]) -> list[str]:
    """Return one numbered line for each field: its name, type and description."""
    lines = []
    for number, field in enumerate(fields.values(), 1):
        line = f"{number}. `{field.name}` ({_type(field)})"
        if field.desc:
            line += f": {field.desc}"
        lines.append(line)
    return lines


def _type(field: Field) -> str:
    """Return the type of a field, and for an output its constraints."""
    if field.kind == "output":
        constraints = constraints_of(field)
        if constraints:
            return f"{field.type_text}, {constraints}"
    return field.type_text


def _placeholder(field: Field) -> str:
    name = "{" + field.name + "}"
    return name if field.is_text else f"{name}        # a value of type {field.type_text}"
