"""PrefillAdapter: begins the assistant's turn with the label of the output. For models too small for a format."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from dspynb.adapters.base import Adapter, Content, Messages, input_pieces, message_content, output_texts
from dspynb.adapters.grammar import value_rule
from dspynb.adapters.labelled_lines import labels_of
from dspynb.adapters.replies import clean_reply
from dspynb.adapters.schema import constraints_of, type_notes
from dspynb.adapters.values import parse_value
from dspynb.errors import ParseError
from dspynb.signatures.signature import Signature

__all__ = ["PrefillAdapter"]


class PrefillAdapter(Adapter):
    """Writes ``Label: value`` lines, then the instruction; the model continues after the label of the first output.

    The instruction is at the end of the user's message, since small models rarely follow it in the system message when
    they write text. Where each output is a choice, a truth value, a number or a short list, the instruction and the
    types are the system message: answers are then right more often (tests/campaigns/embedded_model.py).
    With one output, the whole reply is its value. With several outputs, each starts a line with its label. A line of an
    output that looks like a label is escaped with a backslash, which is removed when it is read. White space around a
    text is dropped.

    >>> lm = dn.ScriptedLM([" 4"])
    >>> dn.Predict("question -> answer", adapter=dn.PrefillAdapter(), lm=lm).run_sync(question="2+2?").answer
    '4'
    >>> lm.requests[0].messages[-1]
    {'role': 'assistant', 'content': 'Answer:'}
    """

    name = "prefill"

    def __init__(self, *, repair: bool = False) -> None:  # small models rarely learn from an error message
        super().__init__(repair=repair)

    def format_system(self, signature: type[Signature], instruction: str) -> str:
        if _is_typed(signature):
            return "\n".join(filter(None, [instruction, _answer_lines(signature)]))
        return "You are a helpful assistant."  # without it, a chat template may insert a worse one

    def format_input(
        self, signature: type[Signature], inputs: Mapping[str, Any], *, instruction: str, hint: str | None = None
    ) -> Content:
        pieces: list[Any] = []
        for field, value_pieces in input_pieces(signature, inputs):
            if pieces:
                pieces.append("\n")
            pieces += [f"{field.label}: ", *value_pieces]
        paragraphs = [] if _is_typed(signature) else [instruction, _answer_format(signature)]
        if hint:
            paragraphs.append(f"Hint: {hint}")
        request = "\n\n".join(filter(None, paragraphs))
        if pieces and request:
            pieces.append("\n\n")
        pieces.append(request)
        return message_content(pieces)

    def format_output(self, signature: type[Signature], outputs: Mapping[str, Any]) -> str:
        labels = labels_of(signature)
        texts = output_texts(signature, outputs)
        return "\n".join(f"{labels.written[field.name]}: {labels.escape(text)}" for field, text in texts)

    def opening(self, signature: type[Signature]) -> Messages:
        return ({"role": "assistant", "content": f"{_first_label(signature)}:"},)

    def partial(self, signature: type[Signature], text: str) -> dict[str, str]:
        complete_lines, _, last_line = text.rpartition("\n")
        if len(signature.output_fields) > 1 and ":" not in last_line:  # the last line may become a label
            text = complete_lines
        return {name: value.strip() for name, value in _split_fields(signature, text).items()}

    def parse(self, signature: type[Signature], reply: str) -> dict[str, Any]:
        labels = labels_of(signature)
        texts = _split_fields(signature, clean_reply(reply, signature.output_fields))
        values = {}
        for name, field in signature.output_fields.items():
            if name not in texts and field.may_be_left_out:
                values[name] = field.default()
                continue
            if name not in texts:
                label = labels.written[name]
                raise ParseError(f"the reply has no line `{label}:`", raw=reply, stage="locate", field=name)
            values[name] = parse_value(field, labels.unescape(texts[name].strip()), reply)
        return values


def _split_fields(signature: type[Signature], text: str) -> dict[str, str]:
    """Return the text of each field. Text before the first label is that of the first field, and so is the first line
    of a reply that repeats no label of it: the request ends with this label."""
    labels = labels_of(signature)
    first = next(iter(signature.output_fields))
    before, texts = labels.split(text)
    if before.strip() or not texts:
        texts[first] = before
    elif first not in texts:
        first_line, line_end, rest = text.partition("\n")
        if first_line.strip():
            before, texts = labels.split(rest)
            texts[first] = f"{first_line}{line_end}{before}"
    return texts


@lru_cache(maxsize=1024)
def _is_typed(signature: type[Signature]) -> bool:
    """Whether a grammar can hold every output to its type."""
    return all(value_rule(field) is not None for field in signature.output_fields.values())


def _first_label(signature: type[Signature]) -> str:
    return next(iter(labels_of(signature).written.values()))


@lru_cache(maxsize=512)
def _answer_format(signature: type[Signature]) -> str:
    """Describe the lines of the answer. Empty for one output without notes, whose label the prompt ends with."""
    fields = signature.output_fields
    if len(fields) == 1 and not type_notes(signature) and not any(map(constraints_of, fields.values())):
        return ""
    heading = "Answer with these lines:" if len(fields) > 1 else "Answer with this line:"
    return f"{heading}\n{_answer_lines(signature)}"


@lru_cache(maxsize=512)
def _answer_lines(signature: type[Signature]) -> str:
    """The label of each output with its type and constraints, and notes about nested types."""
    written = labels_of(signature).written
    lines = []
    for name, field in signature.output_fields.items():
        texts = [] if value_rule(field) is None else [field.type_text]
        texts.append(field.desc or ("" if texts else field.type_text))
        texts.append(constraints_of(field))
        lines.append(f"{written[name]}: {', '.join(filter(None, texts))}")
    return "\n".join([*lines, *type_notes(signature)])
