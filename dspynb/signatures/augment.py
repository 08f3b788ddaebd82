"""Augmentations: outputs that are added to a signature, such as reasoning before the answer."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, ClassVar

from dspynb.errors import SignatureError
from dspynb.signatures.fields import Output, definition_of
from dspynb.signatures.signature import Signature, as_signature, build

__all__ = ["Augmentation", "Confidence", "Reasoning", "augment", "augment_missing", "reasoning_output"]


class Augmentation(Signature):
    """Base class of augmentations: output fields that ``augment`` adds before the outputs of a signature.

    >>> class Plan(dn.Augmentation):
    ...     plan: list[str] = dn.Output(desc="the steps, in order")
    >>> dn.augment("question -> answer", Plan).describe()
    'question: str -> plan: list[str], answer: str'

    The fields of ``class Checked(Augmentation, place="after")`` are added after them. The docstring is documentation
    only; the instruction of the signature is unchanged.
    """

    _is_base: ClassVar[bool] = True
    place: ClassVar[str] = "before"

    def __init_subclass__(cls, place: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)

    @classmethod
    def __pydantic_init_subclass__(cls, place: str | None = None, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if place not in (None, "before", "after"):
            raise SignatureError(f"{cls.__name__}: place must be 'before' or 'after' (the outputs), got {place!r}")
        if cls.input_fields:
            first = next(iter(cls.input_fields))
            raise SignatureError(f"{cls.__name__}: an augmentation has outputs only, but {first!r} is an input")
        if place is not None:
            cls.place = place


class Reasoning(Augmentation):
    """Reasoning in words, before the answer.

    A model that returns its own reasoning (by ``lm.profile.returns_reasoning``) is not asked for it: its reasoning
    becomes the output. ``dn.ChainOfThought(…, native=…)`` chooses one or the other for every model.

    >>> dn.augment("question -> answer", dn.Reasoning).describe()
    'question: str -> reasoning: str, answer: str'
    """

    reasoning: str = Output(desc="think step by step towards the answer")


class Confidence(Augmentation, place="after"):
    """The model's own confidence in its answer, from 0 to 1, after the answer.

    >>> lm = dn.ScriptedLM(["answer: 4\\nconfidence: 0.9"])
    >>> dn.Predict(dn.augment("question -> answer", dn.Confidence), lm=lm).run_sync(question="2+2?")
    Prediction(answer='4', confidence=0.9)
    """

    confidence: float = Output(desc="how likely the answer is right, from 0 to 1", ge=0, le=1)


@lru_cache(maxsize=1024)
def reasoning_output(signature: type[Signature]) -> str | None:
    """The name of the text output that an augmentation has added for the model's reasoning; None if there is none, or
    if it is the only output."""
    field = signature.output_fields.get("reasoning")
    if field is None or field.place != "before" or field.annotation is not str or len(signature.output_fields) < 2:
        return None
    return field.name


def augment(signature: type[Signature] | str, *augmentations: type[Augmentation]) -> type[Signature]:
    """Return a new signature with the outputs of the augmentations added around its own.

    Augmentations placed before are added directly before the signature's own outputs, in the order of the arguments;
    those placed after are added at the end. So ``augment(s, A, B)`` equals ``augment(augment(s, A), B)``. Raises
    SignatureError if two fields have the same name.

    >>> dn.augment("question -> answer", dn.Reasoning, dn.Confidence).describe()
    'question: str -> reasoning: str, answer: str, confidence: float'
    """
    result = as_signature(signature)
    for augmentation in augmentations:
        if not (isinstance(augmentation, type) and issubclass(augmentation, Augmentation)):
            raise SignatureError(f"augment takes dn.Augmentation classes such as dn.Reasoning, got {augmentation!r}")
        result = _add(result, augmentation)
    return result


def augment_missing(signature: type[Signature] | str, augmentation: type[Augmentation]) -> type[Signature]:
    """As ``augment``, but outputs of the augmentation that the signature has already are kept, with their types and
    descriptions, in the place of the augmentation's. Raises SignatureError if an input has the name of one."""
    own = as_signature(signature)
    is_augmentation = isinstance(augmentation, type) and issubclass(augmentation, Augmentation)
    present = [name for name in own.output_fields if is_augmentation and name in augmentation.output_fields]
    if not present:
        return augment(own, augmentation)
    fields = {name: own.output_fields[name] for name in present}
    others = {name: definition_of(f) for name, f in own.input_fields.items()}
    others |= {name: definition_of(f) for name, f in own.output_fields.items() if name not in fields}
    added = {
        n: definition_of(fields.get(n, f), place=augmentation.place) for n, f in augmentation.output_fields.items()
    }
    inputs = {name: others.pop(name) for name in own.input_fields}
    ordered = {**inputs, **added, **others} if augmentation.place == "before" else {**inputs, **others, **added}
    instruction = own.instruction if own.has_own_instruction else None
    return build(own.__name__, instruction, ordered)


def _add(signature: type[Signature], augmentation: type[Augmentation]) -> type[Signature]:
    old = {**signature.input_fields, **signature.output_fields}
    for name in augmentation.output_fields:
        if name in old:
            raise SignatureError(
                f"{augmentation.__name__} cannot add the output {name!r}: {signature.__name__} has a field of that name"
            )
    first: dict[str, Any] = {}  # inputs, and outputs of augmentations placed before
    last: dict[str, Any] = {}  # the other outputs
    for name, field in old.items():
        group = first if field.kind == "input" or field.place == "before" else last
        group[name] = definition_of(field)
    added = {n: definition_of(f, place=augmentation.place) for n, f in augmentation.output_fields.items()}
    fields = {**first, **added, **last} if augmentation.place == "before" else {**first, **last, **added}
    return build(signature.__name__, signature.instruction, fields)
