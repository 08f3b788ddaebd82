"""``Label: value`` lines: a label at the beginning of a line starts the text of a field."""

from __future__ import annotations

import re
from functools import lru_cache

from dspynb.adapters.replies import FieldNames
from dspynb.signatures.signature import Signature

__all__ = ["Labels", "labelled_texts", "labels_of"]

_LINE_PREFIX = r"[ \t>#]*"


class Labels:
    """Finds the labels of a signature's outputs in a text, and escapes text that looks like a label.

    ``written`` is the label of each field: its name in words, or the name itself if two fields would look alike.
    """

    def __init__(self, signature: type[Signature]) -> None:
        fields = signature.output_fields
        names_by_form: dict[str, set[str]] = {}
        for name, field in fields.items():
            names_by_form.setdefault(_folded(name), set()).add(name)
            names_by_form.setdefault(_folded(field.label), set()).add(name)
        self.written: dict[str, str] = {}
        for name, field in fields.items():
            is_unique = names_by_form[_folded(field.label)] == {name}
            self.written[name] = field.label if is_unique else name
        self._names = {label: name for name, label in self.written.items()}
        self._spellings = FieldNames(fields)
        forms = {*self.written.values(), *fields, *(field.label for field in fields.values())}
        alternatives = "|".join(map(re.escape, sorted(forms, key=len, reverse=True)))
        label = rf"(?P<bold>\*\*|__)?(?P<label>{alternatives})(?:(?P=bold))?[ \t]*[:：](?:(?P=bold))?"
        self._line = re.compile(rf"^{_LINE_PREFIX}{label}", re.MULTILINE | re.IGNORECASE)
        self._escapable = re.compile(rf"^({_LINE_PREFIX})(?=\\*+{label})", re.MULTILINE | re.IGNORECASE)
        self._escaped = re.compile(rf"^({_LINE_PREFIX})\\(?=\\*+{label})", re.MULTILINE | re.IGNORECASE)

    def escape(self, text: str) -> str:
        """Put a backslash before everything that looks like a label at the beginning of a line."""
        return self._escapable.sub(r"\1\\", text)

    def unescape(self, text: str) -> str:
        """Undo `escape`."""
        return self._escaped.sub(r"\1", text)

    def split(self, text: str) -> tuple[str, dict[str, str]]:
        """Return the text before the first label, and the text after the first label of each field."""
        marks = []
        for mark in self._line.finditer(text):
            name = self._field(mark["label"])
            if name is not None:
                marks.append((name, mark))
        if not marks:
            return text, {}
        ends = [*(mark.start() for _, mark in marks[1:]), len(text)]
        texts: dict[str, str] = {}
        for (name, mark), end in zip(marks, ends, strict=True):
            texts.setdefault(name, text[mark.end() : end])
        return text[: marks[0][1].start()], texts

    def _field(self, label: str) -> str | None:
        return self._names.get(label) or self._spellings.find(label)


def _folded(form: str) -> str:
    return re.sub(r"[\s_-]+", "", form).casefold()


@lru_cache(maxsize=512)
def labels_of(signature: type[Signature]) -> Labels:
    """Return the labels of a signature's outputs. Cached."""
    return Labels(signature)


def labelled_texts(signature: type[Signature], text: str) -> dict[str, str]:
    """Return the text after each field's label, without leading blanks and escapes."""
    labels = labels_of(signature)
    _, texts = labels.split(text)
    return {name: labels.unescape(part.lstrip(" \t")) for name, part in texts.items()}
