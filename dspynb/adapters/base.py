"""The base class of adapters, and the steps that all adapters share.

A request consists of a system message (``format_system``), the demos as pairs of user and assistant messages, the past
turns of a conversation in the same form, and the inputs as the last user message (``format_input``). The part that
changes most is last, so that the prefix caches of providers hit. The instruction is an argument of each call, so a hint
or a candidate is never stored in the adapter or the signature.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from dspynb.adapters.cache_keys import FrozenRows
from dspynb.adapters.example_turns import complete_demos, message_inputs, past_turns
from dspynb.adapters.grammar import form_grammar
from dspynb.adapters.nested_media import text_and_media
from dspynb.adapters.replies import separate_thinking
from dspynb.adapters.values import output_text, parse_value, to_text
from dspynb.errors import ParseError
from dspynb.media.values import Medium
from dspynb.signatures.fields import Field
from dspynb.signatures.signature import Signature
from dspynb.thinking import SplitReply, tags_beside

__all__ = ["Adapter", "Content", "input_pieces", "message_content", "message_inputs", "output_texts", "outputs_so_far"]

Messages = tuple[Mapping[str, Any], ...]
_MAX_REPEATED_REPLY = 8000
"""Characters of an unreadable reply that the repair request repeats; the middle of a longer reply is left out."""
Content = str | list[dict[str, Any]]
"""The content of a message: a text, or a list of text and media parts in OpenAI's format."""


class Adapter(ABC):
    """Writes requests and reads replies. A subclass implements four public methods.

    Args:
        repair: Whether a reply that cannot be read is sent back to the model once, with the error, for a second try.
    """

    name: str

    def __init__(self, *, repair: bool = True) -> None:
        self.repair = repair

    @abstractmethod
    def format_system(self, signature: type[Signature], instruction: str) -> str:
        """Return the system message: the fields, the format of the reply, and the instruction."""

    @abstractmethod
    def format_input(
        self, signature: type[Signature], inputs: Mapping[str, Any], *, instruction: str, hint: str | None = None
    ) -> Content:
        """Return the content of a user message: the inputs, then the hint as one more field.

        ``instruction`` is the effective instruction, for adapters that repeat it in the user message. The result is a
        list of parts if an input is an image or a file, else a text.
        """

    @abstractmethod
    def format_output(self, signature: type[Signature], outputs: Mapping[str, Any]) -> str:
        """Return the text of a reply with these outputs, as ``parse`` reads it. Used for demos and past turns."""

    @abstractmethod
    def parse(self, signature: type[Signature], reply: str) -> dict[str, Any]:
        """Return the typed outputs of a reply. Raises ParseError if it cannot be read."""

    def split_thinking(self, signature: type[Signature], reply: str) -> SplitReply:
        """Split the thinking off a reply: at its beginning after an opening tag, or before a closing tag without one.

        A closing tag ends thinking if ``parse`` can read the text after it, and either `names_outputs` is true, or the
        tag ends its line or begins the reply. Any other tag is a part of the answer, and so is one that has the name of
        an output, such as ``<reasoning>``. Only tags of thinking are dropped.
        """

        def is_reply(text: str) -> bool:
            try:
                self.parse(signature, text)
            except ParseError as error:  # where only a value cannot be read, the text is still a reply
                return error.field is not None and error.stage != "locate"
            return True

        thinking_tags = tags_beside(signature.output_fields)
        return separate_thinking(
            reply, is_reply, names_outputs=self.names_outputs(signature), thinking_tags=thinking_tags
        )

    def names_outputs(self, signature: type[Signature]) -> bool:  # noqa: ARG002
        """Return whether each output has its name in a reply, so that ``parse`` refuses any other text."""
        return False

    def begins_reply(self, signature: type[Signature], text: str) -> bool:  # noqa: ARG002
        """Return whether the beginning of a text is that of a reply. A stream shows no part of any other text before
        its end, since it may be thinking."""
        return True

    def partial(self, signature: type[Signature], text: str) -> dict[str, str]:
        """Return the text so far of each output field, from the beginning of a reply that is being streamed."""
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
        """Return all messages of a request.

        ``instruction`` overrides the instruction of the signature for this call. ``prefix`` replaces the text of
        `opening`, if the adapter has one. Raises InputError for a past turn that does not fit the signature.
        """
        if instruction is None:
            instruction = signature.instruction
        cache_key = _AdapterKey.of(self)
        if cache_key is None:
            system_text = self.format_system(signature, instruction)
        else:
            system_text = _cached_system(cache_key, signature, instruction)
        system = {"role": "system", "content": system_text}
        past = _past_turns(self, signature, inputs, instruction)
        last = {"role": "user", "content": self.format_input(signature, inputs, instruction=instruction, hint=hint)}
        opening = self.opening(signature)
        if prefix is not None and opening:
            opening = ({**opening[0], "content": prefix},)
        return (system, *_demo_turns(self, cache_key, signature, instruction, demos), *past, last, *opening)

    def format_repair(self, signature: type[Signature], messages: Messages, error: ParseError) -> Messages:
        """Return the request for a repair: the first request, the unreadable reply, and what was wrong with it."""
        opening = self.opening(signature)
        request = messages[: len(messages) - len(opening)]
        reply = "".join(str(message["content"]) for message in opening) + error.raw
        if len(reply) > _MAX_REPEATED_REPLY:
            reply = f"{reply[: _MAX_REPEATED_REPLY // 2]} … {reply[-_MAX_REPEATED_REPLY // 2 :]}"
        problem = error.problem
        if error.field:
            problem += f" (field `{error.field}`)"
        feedback = f"Your reply could not be read: {problem}. Reply again, with all of it, in the form asked for."
        return (
            *request,
            {"role": "assistant", "content": reply or "(nothing)"},
            {"role": "user", "content": feedback},
            *opening,
        )

    def opening(self, signature: type[Signature]) -> Messages:  # noqa: ARG002
        """Return the beginning of the assistant's reply as a message, or an empty tuple if the adapter writes none."""
        return ()

    def grammar(self, signature: type[Signature]) -> str | None:
        """Return a grammar of the reply in GBNF, for models that take grammars and so keep to the types of the outputs.

        It is made of the form that ``format_output`` writes, if ``parse`` reads it. None if all outputs are text, or of
        types that no grammar can hold, such as nested models. A model that takes grammars is not sent the
        ``response_format`` beside one.
        """
        cache_key = _AdapterKey.of(self)
        if cache_key is None:
            return _form_grammar(self, signature)
        return _cached_grammar(cache_key, signature)

    def response_format(self, signature: type[Signature]) -> Mapping[str, Any] | None:  # noqa: ARG002
        """Return the JSON schema of the reply for models that support constrained output, or None."""
        return None

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class _AdapterKey:
    """An adapter as a cache key: the object and the values of its attributes, since a user may change an attribute."""

    __slots__ = ("_values", "adapter")

    def __init__(self, adapter: Adapter, values: object) -> None:
        self.adapter = adapter
        self._values = values

    @classmethod
    def of(cls, adapter: Adapter) -> _AdapterKey | None:
        """Return the key of an adapter, or None if its texts must not be cached.

        An adapter with a mutable attribute is not cached: the attribute could change without changing the key. The
        adapters of this package never change their mutable attributes, so their plain values are enough.
        """
        attributes = vars(adapter)
        if type(adapter).__module__.startswith(_PACKAGE):
            return cls(adapter, tuple([value for value in attributes.values() if type(value) in _PLAIN]))
        frozen = FrozenRows.of([attributes])
        return None if frozen is None else cls(adapter, frozen)

    def __hash__(self) -> int:
        return hash((id(self.adapter), self._values))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _AdapterKey) and self.adapter is other.adapter and self._values == other._values


_PACKAGE = f"{__name__.partition('.')[0]}."
_PLAIN = frozenset({str, int, float, bool, type(None)})


@lru_cache(maxsize=1024)
def _cached_system(key: _AdapterKey, signature: type[Signature], instruction: str) -> str:
    """Cached, since the system messages of a program change only with its instructions."""
    return key.adapter.format_system(signature, instruction)


@lru_cache(maxsize=512)
def _cached_grammar(key: _AdapterKey, signature: type[Signature]) -> str | None:
    return _form_grammar(key.adapter, signature)


def _form_grammar(adapter: Adapter, signature: type[Signature]) -> str | None:
    opening = "".join(str(message["content"]) for message in adapter.opening(signature))
    return form_grammar(signature, adapter.format_output, adapter.parse, opening)


def _turns(
    adapter: Adapter, signature: type[Signature], instruction: str, rows: Iterable[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yield two messages for each row: the user's with the inputs, and the assistant's with the outputs."""
    for row in rows:
        yield {"role": "user", "content": adapter.format_input(signature, row, instruction=instruction)}
        yield {"role": "assistant", "content": adapter.format_output(signature, row)}


def _demo_turns(
    adapter: Adapter,
    key: _AdapterKey | None,
    signature: type[Signature],
    instruction: str,
    demos: Sequence[Mapping[str, Any]],
) -> Iterable[dict[str, Any]]:
    """Return the messages of the demos. Equal demos are formatted once, if `FrozenRows` can compare their values."""
    if not demos:
        return ()
    frozen = FrozenRows.of(demos)
    if key is None or frozen is None:
        return _turns(adapter, signature, instruction, complete_demos(signature, demos))
    return [dict(turn) for turn in _cached_demo_turns(key, signature, instruction, frozen)]


@lru_cache(maxsize=256)
def _cached_demo_turns(key: _AdapterKey, signature: type[Signature], instruction: str, demos: FrozenRows) -> Messages:
    return tuple(_turns(key.adapter, signature, instruction, complete_demos(signature, demos.rows)))


def _past_turns(
    adapter: Adapter, signature: type[Signature], inputs: Mapping[str, Any], instruction: str
) -> Iterable[dict[str, Any]]:
    """Yield the messages of all histories among the inputs."""
    for name, field in signature.input_fields.items():
        if field.is_history and inputs.get(name) is not None:
            yield from _turns(adapter, signature, instruction, past_turns(signature, name, inputs[name]))


def input_pieces(signature: type[Signature], values: Mapping[str, Any]) -> list[tuple[Field, list[Any]]]:
    """Return each input field that has a value, with the pieces of its value: texts, images and files."""
    return [
        (field, _pieces(field, values[name]))
        for name, field in signature.input_fields.items()
        if values.get(name) is not None and not field.is_history
    ]


def _pieces(field: Field, value: object) -> list[Any]:
    if isinstance(value, Medium):
        return [value]
    if isinstance(value, list | tuple) and value and all(isinstance(item, Medium) for item in value):
        return list(value)
    if field.holds_media or (field.is_untyped and not isinstance(value, str)):
        return text_and_media(value)
    return [to_text(field, value)]


def output_texts(signature: type[Signature], values: Mapping[str, Any]) -> list[tuple[Field, str]]:
    """Return each output field that has a value, with its text. None counts as a value where the type allows it."""
    return [
        (field, output_text(field, values[name]))
        for name, field in signature.output_fields.items()
        if name in values and (values[name] is not None or field.takes_none)
    ]


def message_content(pieces: Sequence[Any]) -> Content:
    """Join texts and media into the content of a message: one text if there are no media, else a list of parts."""
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
    if texts:
        parts.append({"type": "text", "text": "".join(texts)})
    return parts


def outputs_so_far(adapter: Adapter, signature: type[Signature], text: str, error: ParseError) -> dict[str, Any]:
    """Return the outputs in the beginning of a reply. Outputs that it does not reach, or that cannot be read, are None.

    ``error``: why the whole text cannot be parsed. Raises it if no output can be read.
    """
    texts = adapter.partial(signature, text)
    values: dict[str, Any] = {}
    for name, field in signature.output_fields.items():
        values[name] = None
        if name in texts:
            with contextlib.suppress(ParseError):
                values[name] = parse_value(field, texts[name], text)
    if all(value is None for value in values.values()):
        raise error
    return values
