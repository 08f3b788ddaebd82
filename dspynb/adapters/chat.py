"""ChatAdapter: fields between ``[[ ## name ## ]]`` markers, for models that follow a format."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from dspynb.adapters.base import Adapter, shown
from dspynb.adapters.values import parse_value
from dspynb.errors import ParseError
from dspynb.signatures import Field, Signature

__all__ = ["ChatAdapter"]

_MARKER = re.compile(r"^[ \t]*\[\[ ## (\w+) ## \]\][ \t]*", re.MULTILINE)


class ChatAdapter(Adapter):
    """The default adapter (the format is DSPy's): every field under its marker, a ``completed`` marker at the end."""

    name = "chat"

    def format_system(self, signature: type[Signature], instruction: str) -> str:
        parts = ["Your input fields are:", *_listed(signature.input_fields)] if signature.input_fields else []
        parts += ["Your output fields are:", *_listed(signature.output_fields), ""]
        parts += ["All interactions are structured in the following way, with the values filled in.", ""]
        parts += [_section(n, "{" + n + "}") for n in signature.input_fields]
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
    ) -> str:
        sections = [_section(field.name, text) for field, text in shown(signature.input_fields, inputs)]
        if hint:
            sections.append(_section("hint", hint))
        order = ", then ".join(f"`[[ ## {n} ## ]]`" for n in signature.output_fields)
        return "\n".join([*sections, f"Respond with {order}, and then the marker `[[ ## completed ## ]]`."])

    def format_output(self, signature: type[Signature], outputs: Mapping[str, Any]) -> str:
        sections = [_section(field.name, text) for field, text in shown(signature.output_fields, outputs)]
        return "\n".join([*sections, "[[ ## completed ## ]]"])

    def partial(self, signature: type[Signature], text: str) -> dict[str, str]:
        found = self._located(signature, _without_marker(text))
        return {name: found[name] for name in signature.output_fields if name in found}

    def _located(self, signature: type[Signature], reply: str) -> dict[str, str]:
        """The text under each field's marker."""
        found: dict[str, str] = {}
        marks = [m for m in _MARKER.finditer(reply) if m[1] in signature.output_fields or m[1] == "completed"]
        for mark, following in zip_longest(marks, marks[1:]):
            end = following.start() if following else len(reply)
            found.setdefault(mark[1], reply[mark.end() : end].strip("\n"))
        return found

    def parse(self, signature: type[Signature], reply: str) -> dict[str, Any]:
        found, values = self._located(signature, reply), {}
        for name, field in signature.output_fields.items():
            if name not in found:
                raise ParseError(f"the reply has no `[[ ## {name} ## ]]`", raw=reply, stage="locate", field=name)
            values[name] = parse_value(field, found[name], reply)
        return values


def _without_marker(text: str) -> str:
    """The text before what may be the beginning of a marker."""
    before, _, line = text.rpartition("\n")
    begun = line.lstrip()
    return before if begun == "[" or (begun.startswith("[[") and "]]" not in begun) else text


def _section(name: str, text: str) -> str:
    return f"[[ ## {name} ## ]]\n{text}\n"


def _listed(fields: Mapping[str, Field]) -> list[str]:
    return [
        f"{i}. `{f.name}` ({f.type_text})" + (f": {f.desc}" if f.desc else "") for i, f in enumerate(fields.values(), 1)
    ]


def _placeholder(field: Field) -> str:
    return "{" + field.name + "}" + ("" if field.is_text else f"        # a value of type {field.type_text}")
