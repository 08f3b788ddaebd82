"""PrefillAdapter: the assistant's turn is begun with the output's label; for models too small for a format."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from dspynb.adapters.base import Adapter, Content, Messages, content, shown, shown_outputs
from dspynb.adapters.labelled_lines import labels_of
from dspynb.adapters.replies import bare_reply
from dspynb.adapters.schema import constraints_of, type_notes
from dspynb.adapters.values import parse_value
from dspynb.errors import ParseError
from dspynb.signatures.signature import Signature

__all__ = ["PrefillAdapter"]


class PrefillAdapter(Adapter):
    """``Label: value`` lines, then the instruction; the model goes on after the first output's label.

    The instruction stands at the end of the user's message: a small model follows it there, and hardly in the system
    message. With one output, all that comes back is its value. With several, each starts a line with its label. A line
    of an output that looks like a label is written with a backslash before it, and read without. White space around a
    text is not kept.

    >>> lm = dn.ScriptedLM([" 4"])
    >>> dn.Predict("question -> answer", adapter=dn.PrefillAdapter(), lm=lm).run_sync(question="2+2?").answer
    '4'
    >>> lm.requests[0].messages[-1]
    {'role': 'assistant', 'content': 'Answer:'}
    """

    name = "prefill"

    def __init__(self, *, repair: bool = False) -> None:  # a small model does not learn from being told
        super().__init__(repair=repair)

    def format_system(self, signature: type[Signature], instruction: str) -> str:  # noqa: ARG002
        return "You are a helpful assistant."  # without one, a chat template may put in something worse

    def format_input(
        self, signature: type[Signature], inputs: Mapping[str, Any], *, instruction: str, hint: str | None = None
    ) -> Content:
        lines = [[f"{field.label}: ", *told] for field, told in shown(signature, inputs)]
        given = [piece for i, line in enumerate(lines) for piece in (["\n"] if i else []) + line]
        asked = "\n\n".join(filter(None, [instruction, _form(signature), f"Hint: {hint}" if hint else ""]))
        return content([*given, "\n\n" if given and asked else "", asked])

    def format_output(self, signature: type[Signature], outputs: Mapping[str, Any]) -> str:
        labels = labels_of(signature)
        told = shown_outputs(signature, outputs)
        return "\n".join(f"{labels.written[field.name]}: {labels.escape(text)}" for field, text in told)

    def opening(self, signature: type[Signature]) -> Messages:
        return ({"role": "assistant", "content": f"{_first_label(signature)}:"},)

    def partial(self, signature: type[Signature], text: str) -> dict[str, str]:
        whole, _, begun = text.rpartition("\n")  # a line that has only begun may turn out to be a label
        if len(signature.output_fields) > 1 and ":" not in begun:
            text = whole
        return {name: value.strip() for name, value in _located(signature, text).items()}

    def parse(self, signature: type[Signature], reply: str) -> dict[str, Any]:
        labels, found = labels_of(signature), _located(signature, bare_reply(reply))
        values = {}
        for name, field in signature.output_fields.items():
            if name not in found:
                label = labels.written[name]
                raise ParseError(f"the reply has no line `{label}:`", raw=reply, stage="locate", field=name)
            values[name] = parse_value(field, labels.unescape(found[name].strip()), reply)
        return values


def _located(signature: type[Signature], text: str) -> dict[str, str]:
    """The text of each field. What stands before the first label belongs to the first field: its label was sent."""
    before, found = labels_of(signature).split(text)
    if before.strip() or not found:
        found[next(iter(signature.output_fields))] = before
    return found


def _first_label(signature: type[Signature]) -> str:
    return next(iter(labels_of(signature).written.values()))


@lru_cache(maxsize=512)
def _form(signature: type[Signature]) -> str:
    """The lines of the answer, where there is more to be said of them than one label, which is sent already."""
    fields, notes = signature.output_fields, type_notes(signature)
    limits = {name: constraints_of(field) for name, field in fields.items()}
    if len(fields) == 1 and not notes and not any(limits.values()):
        return ""
    written = labels_of(signature).written
    lines = [
        f"{written[name]}: " + ", ".join(filter(None, [field.desc or field.type_text, limits[name]]))
        for name, field in fields.items()
    ]
    return "\n".join([f"Answer with th{'ese lines' if len(lines) > 1 else 'is line'}:", *lines, *notes])
