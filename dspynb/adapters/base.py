"""What an adapter is, and the steps all adapters share.

A request is: a system message (``format_system``), demos as pairs of turns, past turns of a conversation likewise, and
the inputs as the last user message (``format_input``): what changes most stands last, so that providers' prefix caches
hit. The instruction comes per call, so that a hint or a candidate never has to be written anywhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from dspynb.adapters.cache_keys import Frozen
from dspynb.adapters.values import output_text, to_text
from dspynb.conversation import History
from dspynb.errors import InputError, ParseError, nearest
from dspynb.media.values import Medium
from dspynb.signatures.fields import Field
from dspynb.signatures.signature import Signature

__all__ = ["Adapter", "Content", "content", "inputs_of", "shown", "shown_outputs"]

Messages = tuple[Mapping[str, Any], ...]
_LONGEST_SHOWN = 8000
"""Characters of an unreadable reply that are sent back with it."""
Content = str | list[dict[str, Any]]
"""Of a message: text; or text and media as parts, in OpenAI's form."""


class Adapter(ABC):
    """Writes requests and reads replies. Subclasses say how: four building blocks, each public.

    ``repair``: whether a model whose reply could not be read is shown it, with what was wrong, and asked once more.
    """

    name: str

    def __init__(self, *, repair: bool = True) -> None:
        self.repair = repair

    @abstractmethod
    def format_system(self, signature: type[Signature], instruction: str) -> str:
        """The system message: fields, form of the reply, instruction."""

    @abstractmethod
    def format_input(
        self, signature: type[Signature], inputs: Mapping[str, Any], *, instruction: str, hint: str | None = None
    ) -> Content:
        """A user message: the inputs, and at its end a hint given as a field. ``instruction`` is the effective one, for
        adapters that repeat it here. A list of parts where an input is an image or file, else text."""

    @abstractmethod
    def format_output(self, signature: type[Signature], outputs: Mapping[str, Any]) -> str:
        """A reply with these outputs, as ``parse`` reads it: used for demos and past turns."""

    @abstractmethod
    def parse(self, signature: type[Signature], reply: str) -> dict[str, Any]:
        """Typed outputs from a reply. Raises ParseError."""

    def partial(self, signature: type[Signature], text: str) -> dict[str, str]:
        """The text of each output field, as far as it stands in the beginning of a reply: what a stream shows."""
        names = list(signature.output_fields)
        return {names[0]: text} if len(names) == 1 else {}

    def format(
        self,
        signature: type[Signature],
        inputs: Mapping[str, Any],
        *,
        instruction: str | None = None,
        demos: Sequence[Mapping[str, Any]] = (),
        hint: str | None = None,
        prefix: str | None = None,
    ) -> Messages:
        """All messages of a request. ``instruction`` overrides the signature's for this call; ``prefix`` is how the
        assistant's turn begins, where the adapter begins it.

        Raises InputError naming the past turn that is not one of the signature.
        """
        told = signature.instruction if instruction is None else instruction
        own = _Own.of(self)
        text = self.format_system(signature, told) if own is None else _system(own, signature, told)
        system = {"role": "system", "content": text}
        past = _past(self, signature, inputs, told)
        asked = self.format_input(signature, inputs, instruction=told, hint=hint)
        last = {"role": "user", "content": asked}
        opening = self.opening(signature)
        if prefix is not None and opening:
            opening = ({**opening[0], "content": prefix},)
        return (system, *_demos(self, own, signature, told, demos), *past, last, *opening)

    def format_repair(self, signature: type[Signature], messages: Messages, error: ParseError) -> Messages:
        """The request once more, followed by the reply that could not be read and what was wrong with it."""
        opening = self.opening(signature)
        asked = messages[: len(messages) - len(opening)]
        said = "".join(str(message["content"]) for message in opening) + error.raw
        if len(said) > _LONGEST_SHOWN:
            said = f"{said[: _LONGEST_SHOWN // 2]} … {said[-_LONGEST_SHOWN // 2 :]}"
        at = f" (field `{error.field}`)" if error.field else ""
        told = f"Your reply could not be read: {error.problem}{at}. Reply again, with all of it, in the form asked for."
        reply = {"role": "assistant", "content": said or "(nothing)"}
        return (*asked, reply, {"role": "user", "content": told}, *opening)

    def opening(self, signature: type[Signature]) -> Messages:  # noqa: ARG002
        """Messages after the user's: the beginning of the assistant's turn, where the adapter writes it."""
        return ()

    def response_format(self, signature: type[Signature]) -> Mapping[str, Any] | None:  # noqa: ARG002
        """The JSON schema that a model which can be constrained should be held to, or None."""
        return None

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class _Own:
    """An adapter as a key of caches: the object, and the values of its attributes, which a user may change."""

    __slots__ = ("_values", "adapter")

    def __init__(self, adapter: Adapter, values: Any) -> None:
        self.adapter, self._values = adapter, values

    @classmethod
    def of(cls, adapter: Adapter) -> _Own | None:
        """The key of an adapter; None for one that is not cached, since it has attributes of any kind, which may change
        in themselves. Those of this package do not."""
        attributes = vars(adapter)
        if type(adapter).__module__.startswith(_PACKAGE):
            return cls(adapter, tuple([value for value in attributes.values() if type(value) in _PLAIN]))
        frozen = Frozen.of([attributes])
        return None if frozen is None else cls(adapter, frozen)

    def __hash__(self) -> int:
        return hash((id(self.adapter), self._values))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Own) and self.adapter is other.adapter and self._values == other._values


_PACKAGE = f"{__name__.partition('.')[0]}."
_PLAIN = frozenset({str, int, float, bool, type(None)})


@lru_cache(maxsize=1024)
def _system(own: _Own, signature: type[Signature], instruction: str) -> str:
    """Written once, not once a call: a program's system messages change only with its instructions."""
    return own.adapter.format_system(signature, instruction)


def _turns(
    adapter: Adapter, signature: type[Signature], instruction: str, rows: Iterable[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Two messages a row: what was asked, and the reply."""
    for row in rows:
        yield {"role": "user", "content": adapter.format_input(signature, row, instruction=instruction)}
        yield {"role": "assistant", "content": adapter.format_output(signature, row)}


def _demos(
    adapter: Adapter,
    own: _Own | None,
    signature: type[Signature],
    instruction: str,
    demos: Sequence[Mapping[str, Any]],
) -> Iterable[dict[str, Any]]:
    """Written once for equal demos, as long as all their values are plain ones, whose equality is known to be safe."""
    if not demos:
        return ()
    frozen = Frozen.of(demos)
    if own is None or frozen is None:
        return _turns(adapter, signature, instruction, demos)
    return [dict(turn) for turn in _frozen_demos(own, signature, instruction, frozen)]


@lru_cache(maxsize=256)
def _frozen_demos(own: _Own, signature: type[Signature], instruction: str, demos: Frozen) -> Messages:
    return tuple(_turns(own.adapter, signature, instruction, demos.rows))


def _past(
    adapter: Adapter, signature: type[Signature], inputs: Mapping[str, Any], instruction: str
) -> Iterable[dict[str, Any]]:
    for name, field in signature.input_fields.items():
        if field.is_history and (history := inputs.get(name)) is not None:
            turns = history if isinstance(history, History) else History(history)
            checked = [_checked(signature, f"{name}, turn {i}", turn) for i, turn in enumerate(turns)]
            yield from _turns(adapter, signature, instruction, checked)


def _checked(signature: type[Signature], where: str, turn: Mapping[str, Any]) -> dict[str, Any]:
    """The turn's values, validated. Raises InputError."""
    fields = {**inputs_of(signature), **signature.output_fields}
    if unknown := [name for name in turn if name not in fields]:
        raise InputError(f"{where}: there is no field {unknown[0]!r}.{nearest(unknown[0], fields)}")
    if not any(name in turn for name in signature.output_fields):
        raise InputError(f"{where}: it has no output; one of: {', '.join(signature.output_fields)}")
    return {name: fields[name].checked(value, where) for name, value in turn.items()}


def inputs_of(signature: type[Signature]) -> dict[str, Field]:
    """The input fields that stand in a message: all but histories, which are messages of their own."""
    return {name: field for name, field in signature.input_fields.items() if not field.is_history}


def shown(signature: type[Signature], values: Mapping[str, Any]) -> list[tuple[Field, list[Any]]]:
    """The input fields that have a value, with its pieces: texts, and images or files."""
    return [
        (field, _pieces(field, values[name]))
        for name, field in signature.input_fields.items()
        if values.get(name) is not None and not field.is_history
    ]


def _pieces(field: Field, value: Any) -> list[Any]:
    if isinstance(value, Medium):
        return [value]
    if isinstance(value, list | tuple) and value and all(isinstance(item, Medium) for item in value):
        return list(value)
    return [to_text(field, value)]


def shown_outputs(signature: type[Signature], values: Mapping[str, Any]) -> list[tuple[Field, str]]:
    """The output fields that have a value, or None where that is one, with its text."""
    return [
        (field, output_text(field, values[name]))
        for name, field in signature.output_fields.items()
        if name in values and (values[name] is not None or field.takes_none)
    ]


def content(pieces: Sequence[Any]) -> Content:
    """The content of a message from texts and media: text alone where there are no media."""
    try:
        return "".join(pieces)
    except TypeError:  # there are media
        return _parts(pieces)


def _parts(pieces: Sequence[Any]) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    texts: list[str] = []
    for piece in pieces:
        if not isinstance(piece, Medium):
            texts.append(piece)
            continue
        if texts:
            parts.append({"type": "text", "text": "".join(texts)})
            texts = []
        parts.append(piece.part())
    return [*parts, {"type": "text", "text": "".join(texts)}] if texts else parts
