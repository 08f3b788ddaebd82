"""``Label: value`` lines: where a label begins a line, it begins a field."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import zip_longest

from dspynb.adapters.replies import Names
from dspynb.signatures.signature import Signature

__all__ = ["Labels", "labelled", "labels_of"]

_BEFORE = r"[ \t>#]*"


class Labels:
    """The labels of a signature's outputs, found and kept apart from text that looks like one.

    ``written`` is the label of each field: its name in words, or the name itself where two would look alike.
    """

    def __init__(self, signature: type[Signature]) -> None:
        fields = signature.output_fields
        alike: dict[str, set[str]] = {}
        for name, field in fields.items():
            for form in (name, field.label):
                alike.setdefault(_folded(form), set()).add(name)
        self.written = {n: f.label if alike[_folded(f.label)] == {n} else n for n, f in fields.items()}
        self._names = {label: name for name, label in self.written.items()}
        self._forms = Names(fields)
        forms = sorted({*self.written.values(), *fields, *(f.label for f in fields.values())}, key=len, reverse=True)
        label = (
            rf"(?P<bold>\*\*|__)?(?P<label>{'|'.join(map(re.escape, forms))})(?:(?P=bold))?[ \t]*[:：](?:(?P=bold))?"
        )
        self._line = re.compile(rf"^{_BEFORE}{label}", re.MULTILINE | re.IGNORECASE)
        self._escapable = re.compile(rf"^({_BEFORE})(?=\\*+{label})", re.MULTILINE | re.IGNORECASE)
        self._escaped = re.compile(rf"^({_BEFORE})\\(?=\\*+{label})", re.MULTILINE | re.IGNORECASE)

    def escape(self, text: str) -> str:
        """The text with a backslash before what looks like a label at the beginning of a line."""
        return self._escapable.sub(r"\1\\", text)

    def unescape(self, text: str) -> str:
        """The text that ``escape`` was given."""
        return self._escaped.sub(r"\1", text)

    def split(self, text: str) -> tuple[str, dict[str, str]]:
        """What stands before the first label, and the text after the first label of each field."""
        found: dict[str, str] = {}
        marks = [(name, m) for m in self._line.finditer(text) if (name := self._field(m["label"])) is not None]
        for (name, mark), following in zip_longest(marks, marks[1:]):
            found.setdefault(name, text[mark.end() : following[1].start() if following else len(text)])
        return text[: marks[0][1].start()] if marks else text, found

    def _field(self, label: str) -> str | None:
        return self._names.get(label) or self._forms.find(label)


def _folded(form: str) -> str:
    return re.sub(r"[\s_-]+", "", form).casefold()


@lru_cache(maxsize=512)
def labels_of(signature: type[Signature]) -> Labels:
    """The labels of a signature's outputs, made once."""
    return Labels(signature)


def labelled(signature: type[Signature], text: str) -> dict[str, str]:
    """The text after each label, unescaped."""
    labels = labels_of(signature)
    return {name: labels.unescape(part.lstrip(" \t")) for name, part in labels.split(text)[1].items()}
