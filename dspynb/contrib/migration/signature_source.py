"""The source of a signature class that stands for one of DSPy."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dspynb.conversation import History
from dspynb.media.values import Medium
from dspynb.signatures.fields import Field
from dspynb.signatures.kinds import classes_in, source_text
from dspynb.signatures.shapes import constraint_texts
from dspynb.signatures.signature import Signature

__all__ = ["signature_source"]


def signature_source(name: str, signature: type[Signature]) -> str:
    """The source of the class ``signature``, under the name ``name``."""
    lines = [f"class {name}(dn.Signature):"]
    if signature.has_own_instruction:
        lines += [f'    """{_docstring(signature.instruction)}"""', ""]
    for field in (*signature.input_fields.values(), *signature.output_fields.values()):
        lines.append(f"    {_field_source(field)}")
    return "\n".join(lines)


def _docstring(instruction: str) -> str:
    """An instruction as it is written in an indented docstring."""
    text = instruction.replace("\\", "\\\\").replace('"""', '\\"\\"\\"').replace("\n", "\n    ")
    if text.endswith('"'):
        text = f'{text[:-1]}\\"'
    return text


def _field_source(field: Field) -> str:
    declare = "dn.Input" if field.kind == "input" else "dn.Output"
    annotation = source_text(field.annotation).replace("typing.", "")
    if any(issubclass(cls, Medium | History) for cls in classes_in(field.annotation)):
        annotation = re.sub(r"\b(Image|File|History)\b", r"dn.\1", annotation)
    return f"{field.name}: {annotation} = {declare}({', '.join(_field_arguments(field))})"


def _field_arguments(field: Field) -> Iterator[str]:
    if field.desc is not None:
        yield f"desc={field.desc!r}"
    if field.alias is not None:
        yield f"alias={field.alias!r}"
    yield from (text for text in constraint_texts(field.info.metadata) if "=" in text)
    if not field.info.is_required():
        yield f"default={field.info.get_default(call_default_factory=True)!r}"
