"""Reading the JSON that DSPy's ``program.save("….json")`` writes (its form in 3.4)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dspynb.errors import StateError
from dspynb.signatures.fields import Field
from dspynb.signatures.signature import Signature

__all__ = ["DSPyPredictor", "dspy_entries"]


@dataclass(frozen=True, slots=True)
class DSPyPredictor:
    """What DSPy saved of one predictor. Its model, traces and training rows are not read."""

    instruction: str
    demos: list[dict[str, Any]]
    prefixes: list[str]

    def without_reasoning(self) -> DSPyPredictor:
        """The same without the reasoning that DSPy's ChainOfThought adds, where the program has a plain predictor."""
        demos = [{name: value for name, value in demo.items() if name != "reasoning"} for demo in self.demos]
        kept = [prefix for prefix in self.prefixes if not _letters(prefix).startswith("reasoning")]
        return replace(self, demos=demos, prefixes=kept)

    def differences(self, signature: type[Signature], strict: bool) -> list[str]:
        """How the signature differs, as far as DSPy tells: it saves how many fields there are, and their prefixes."""
        fields = [*signature.input_fields.values(), *signature.output_fields.values()]
        if len(fields) != len(self.prefixes):
            told = ", ".join(self.prefixes)
            return [
                f"the signature has {len(self.prefixes)} fields in the state ({told}), {len(fields)} in the program"
            ]
        pairs = zip(self.prefixes, fields, strict=True)
        return [
            f"the field {prefix!r} of the state stands where the program has {field.name!r}"
            for prefix, field in pairs
            if strict and not _may_be(prefix, field)
        ]


def _may_be(prefix: str, field: Field) -> bool:
    said, name = _letters(prefix), _letters(prefix.partition(":")[0])  # "Reasoning: Let's think step by step …"
    return name in (_letters(field.name), _letters(field.label)) or (
        field.alias is not None and said.startswith(_letters(field.alias))
    )


def _letters(text: str) -> str:
    return re.sub(r"\W|_", "", text).casefold()


def dspy_entries(state: Any) -> dict[str, DSPyPredictor] | None:
    """Path → predictor; None for what DSPy did not write. Raises StateError for a DSPy state that is damaged."""
    if not isinstance(state, Mapping) or "dspynb_state" in state:
        return None
    entries = {"self": state} if _is_entry(state) else {k: v for k, v in state.items() if k != "metadata"}
    if not entries or not any(_is_entry(entry) for entry in entries.values()):
        return None
    return {path: _entry(path, entry) for path, entry in entries.items()}


def _is_entry(value: Any) -> bool:
    return isinstance(value, Mapping) and {"signature", "demos"} <= set(value)


def _entry(path: str, entry: Any) -> DSPyPredictor:
    try:
        signature, demos = entry["signature"], entry["demos"]
        read = DSPyPredictor(
            signature["instructions"],
            [dict(demo) for demo in demos],
            [field["prefix"] for field in signature["fields"]],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StateError(f"{path}: the DSPy state is damaged ({type(error).__name__}: {error})") from None
    if not all(isinstance(text, str) for text in (read.instruction, *read.prefixes)):
        raise StateError(f"{path}: the DSPy state is damaged: instructions and prefixes are texts")
    return read
