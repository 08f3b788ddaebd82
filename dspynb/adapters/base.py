"""What an adapter is, and the steps all adapters share.

A request is: a system message (``format_system``), demos as pairs of turns, and the inputs as the last user message
(``format_input``). The instruction comes per call, so that a hint or a candidate never has to be written anywhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from dspynb.adapters.values import to_text
from dspynb.errors import ConfigurationError, ParseError, nearest
from dspynb.signatures import Field, Signature

__all__ = ["Adapter", "resolve_adapter"]

Messages = tuple[Mapping[str, Any], ...]
_LONGEST_SHOWN = 8000
"""Characters of an unreadable reply that are sent back with it."""


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
    ) -> str:
        """A user message: the inputs, and at its end a hint given as a field. ``instruction`` is the effective one, for
        adapters that repeat it here."""

    @abstractmethod
    def format_output(self, signature: type[Signature], outputs: Mapping[str, Any]) -> str:
        """A reply with these outputs, as ``parse`` reads it: used for demos."""

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
    ) -> Messages:
        """All messages of a request. ``instruction`` overrides the signature's for this call."""
        told = signature.instruction if instruction is None else instruction
        turns: list[dict[str, Any]] = [{"role": "system", "content": _system(self, signature, told)}]
        for demo in demos:
            turns += [
                {"role": "user", "content": self.format_input(signature, demo, instruction=told)},
                {"role": "assistant", "content": self.format_output(signature, demo)},
            ]
        asked = self.format_input(signature, inputs, instruction=told, hint=hint)
        turns.append({"role": "user", "content": asked})
        return (*turns, *self.opening(signature))

    def format_repair(self, signature: type[Signature], messages: Messages, error: ParseError) -> Messages:
        """The request once more, followed by the reply that could not be read and what was wrong with it."""
        opening = self.opening(signature)
        asked = messages[: len(messages) - len(opening)]
        said = "".join(message["content"] for message in opening) + error.raw
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


@lru_cache(maxsize=1024)
def _system(adapter: Adapter, signature: type[Signature], instruction: str) -> str:
    """Written once, not once a call: a program's system messages change only with its instructions."""
    return adapter.format_system(signature, instruction)


def shown(fields: Mapping[str, Field], values: Mapping[str, Any]) -> list[tuple[Field, str]]:
    """The fields that have a value, with its text."""
    return [(field, to_text(field, values[name])) for name, field in fields.items() if values.get(name) is not None]


def resolve_adapter(choice: Any) -> Adapter:
    """An adapter from its name (chat, json, prefill) or an adapter itself; ``chat`` for None."""
    from dspynb.adapters import ChatAdapter, JSONAdapter, PrefillAdapter

    if isinstance(choice, Adapter):
        return choice
    if choice is not None and not isinstance(choice, str):
        return choice  # type: ignore[no-any-return]  # a user's own, with the same methods
    if not _named:
        _named.update({a.name: a for a in (ChatAdapter(), JSONAdapter(), PrefillAdapter())})
    if (choice or "chat") not in _named:
        raise ConfigurationError(
            f"there is no adapter {choice!r}.{nearest(str(choice), _named)} Adapters: {', '.join(_named)}"
        )
    return _named[choice or "chat"]


_named: dict[str, Adapter] = {}
