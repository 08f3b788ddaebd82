"""PrefillAdapter: the assistant's turn is begun with the output's label; for models too small for a format."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dspynb.adapters.base import Adapter, Messages, shown
from dspynb.adapters.values import parse_value
from dspynb.errors import ParseError
from dspynb.signatures import Field, Signature

__all__ = ["PrefillAdapter"]


class PrefillAdapter(Adapter):
    """``Label: value`` lines, then the instruction; the model goes on after the first output's label.

    The instruction stands at the end of the user's message: a small model follows it there, and hardly in the system
    message. With one output, all that comes back is its value. With several, each starts a line with its label.
    """

    name = "prefill"

    def __init__(self, *, repair: bool = False) -> None:  # a small model does not learn from being told
        super().__init__(repair=repair)

    def format_system(self, signature: type[Signature], instruction: str) -> str:  # noqa: ARG002
        return "You are a helpful assistant."  # without one, a chat template may put in something worse

    def format_input(
        self, signature: type[Signature], inputs: Mapping[str, Any], *, instruction: str, hint: str | None = None
    ) -> str:
        given = "\n".join(f"{field.label}: {text}" for field, text in shown(signature.input_fields, inputs))
        wanted = signature.output_fields.values()
        lines = [f"{field.label}: {field.desc or field.type_text}" for field in wanted] if len(wanted) > 1 else []
        form = "\n".join(["Answer with these lines:", *lines]) if lines else ""
        return "\n\n".join(filter(None, [given, instruction, form, f"Hint: {hint}" if hint else ""]))

    def format_output(self, signature: type[Signature], outputs: Mapping[str, Any]) -> str:
        return "\n".join(f"{field.label}: {text}" for field, text in shown(signature.output_fields, outputs))

    def opening(self, signature: type[Signature]) -> Messages:
        return ({"role": "assistant", "content": f"{_first(signature).label}:"},)

    def partial(self, signature: type[Signature], text: str) -> dict[str, str]:
        fields = list(signature.output_fields.values())
        whole, _, begun = text.rpartition("\n")  # a line that has only begun may turn out to be a label
        if len(fields) > 1 and ":" not in begun:
            text = whole
        return {name: value.strip() for name, value in _split(fields, text).items()}

    def parse(self, signature: type[Signature], reply: str) -> dict[str, Any]:
        found = _split(list(signature.output_fields.values()), reply)
        values = {}
        for name, field in signature.output_fields.items():
            if name not in found:
                raise ParseError(f"the reply has no line `{field.label}:`", raw=reply, stage="locate", field=name)
            values[name] = parse_value(field, found[name], reply)
        return values


def _first(signature: type[Signature]) -> Field:
    return next(iter(signature.output_fields.values()))


def _split(fields: list[Field], reply: str) -> dict[str, str]:
    """The text of each field. What stands before the first label belongs to the first field: its label was sent."""
    labels = "|".join(re.escape(f.label) for f in fields)
    parts = re.split(rf"^[ \t]*({labels})[ \t]*:", reply, flags=re.MULTILINE | re.IGNORECASE)
    names = {f.label.casefold(): f.name for f in fields}
    pairs = [(fields[0].name, parts[0])] if parts[0].strip() or len(parts) == 1 else []
    pairs += [(names[label.casefold()], text) for label, text in zip(parts[1::2], parts[2::2], strict=True)]
    found: dict[str, str] = {}
    for name, text in pairs:
        found.setdefault(name, text.strip())
    return found
