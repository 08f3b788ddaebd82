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
    """The instruction, demos and field prefixes that DSPy saved for one predictor."""

    instruction: str
    demos: list[dict[str, Any]]
    prefixes: list[str]

    def without_reasoning(self) -> DSPyPredictor:
        """A copy without the reasoning that DSPy's ChainOfThought adds, for a plain predictor."""
        demos = [_without_key(demo, "reasoning") for demo in self.demos]
        prefixes = [prefix for prefix in self.prefixes if not _letters(prefix).startswith("reasoning")]
        return replace(self, demos=demos, prefixes=prefixes)

    def differences(self, signature: type[Signature], strict: bool) -> list[str]:
        """How the program's signature differs from DSPy's, of which only the number and prefixes of fields are saved.
        Prefixes are compared only if ``strict``."""
        fields = [*signature.input_fields.values(), *signature.output_fields.values()]
        if len(fields) != len(self.prefixes):
            prefixes = ", ".join(self.prefixes)
            return [
                f"the signature has {len(self.prefixes)} fields in the state ({prefixes}), {len(fields)} in the program"
            ]
        if not strict:
            return []
        return [
            f"the field {prefix!r} of the state stands where the program has {field.name!r}"
            for prefix, field in zip(self.prefixes, fields, strict=True)
            if not _is_prefix_of(prefix, field)
        ]


def _is_prefix_of(prefix: str, field: Field) -> bool:
    """Whether DSPy's prefix, such as "Reasoning: Let's think step by step …", may be that of the field."""
    name = _letters(prefix.partition(":")[0])
    if name in (_letters(field.name), _letters(field.label)):
        return True
    return field.alias is not None and _letters(prefix).startswith(_letters(field.alias))


def _without_key(demo: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in demo.items() if key != name}


def _letters(text: str) -> str:
    """Letters and digits only, in lower case."""
    return re.sub(r"\W|_", "", text).casefold()


def dspy_entries(state: object) -> dict[str, DSPyPredictor] | None:
    """The predictors of a state by path; None for a state that DSPy did not write. Raises StateError for a damaged
    state of DSPy."""
    if not isinstance(state, Mapping) or "dspynb_state" in state:
        return None
    if _is_entry(state):
        entries = {"self": state}
    else:
        entries = {path: entry for path, entry in state.items() if path != "metadata"}
    if not any(_is_entry(entry) for entry in entries.values()):
        return None
    return {path: _read_entry(path, entry) for path, entry in entries.items()}


def _is_entry(value: object) -> bool:
    return isinstance(value, Mapping) and {"signature", "demos"} <= set(value)


def _read_entry(path: str, entry: Any) -> DSPyPredictor:
    try:
        signature = entry["signature"]
        predictor = DSPyPredictor(
            signature["instructions"],
            [dict(demo) for demo in entry["demos"]],
            [field["prefix"] for field in signature["fields"]],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StateError(f"{path}: the DSPy state is damaged ({type(error).__name__}: {error})") from None
    if not all(isinstance(text, str) for text in (predictor.instruction, *predictor.prefixes)):
        raise StateError(f"{path}: the DSPy state is damaged: instructions and prefixes must be texts")
    return predictor
