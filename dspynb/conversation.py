"""History: the past turns of a conversation, as an input of a predictor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, overload

from dspynb.data import Example
from dspynb.errors import InputError

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler

__all__ = ["History"]


class History(Sequence[Example]):
    """The past turns of a conversation, each a mapping of input and output values. Immutable; compared by content.

    An input field of this type becomes turns in the prompt, between the demos and the inputs of the call:

    >>> lm = dn.ScriptedLM(["answer: 5"])
    >>> history = dn.History().append(question="2+2?", answer="4")
    >>> chat = dn.Predict("history: History, question -> answer", lm=lm)
    >>> chat.run_sync(history=history, question="And one more?").answer
    '5'
    >>> [message["role"] for message in lm.requests[0].messages]
    ['system', 'user', 'assistant', 'user']

    Raises InputError for a turn that is empty or no mapping, or has a field whose name is no text. The message has the
    turn's number.
    """

    __slots__ = ("_turns",)
    _turns: tuple[Example, ...]

    def __init__(self, turns: Iterable[Mapping[str, Any]] = ()) -> None:
        if isinstance(turns, str | bytes | Mapping) or not isinstance(turns, Iterable):
            raise InputError(f"History takes a list of turns, each a mapping of values, got {type(turns).__name__}")
        object.__setattr__(self, "_turns", tuple(_turn(i, turn) for i, turn in enumerate(turns)))

    def append(self, *parts: Mapping[str, Any], **values: Any) -> Self:
        """Return a new History with one more turn, merged from ``parts`` (inputs, a Prediction) and ``values``."""
        turn: dict[str, Any] = {}
        for part in parts:
            turn.update(_turn(len(self._turns), part).items())
        turn.update(values)
        return type(self)([*self._turns, turn])

    @property
    def messages(self) -> tuple[Example, ...]:
        """The turns. DSPy's name for them; ``append`` returns a History with one more."""
        return self._turns

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Example | Self:
        if isinstance(index, slice):
            return type(self)(self._turns[index])
        return self._turns[index]

    def __len__(self) -> int:
        return len(self._turns)

    def __iter__(self) -> Iterator[Example]:
        return iter(self._turns)

    def __setattr__(self, name: str, _: object) -> None:
        raise AttributeError(f"History is immutable; {name!r} cannot be set: append() returns a new one")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, History) and self._turns == other._turns

    __hash__ = None  # type: ignore[assignment]  # turns may hold lists

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (list(self._turns),)

    def __repr__(self) -> str:
        plural = "" if len(self) == 1 else "s"
        return f"History({len(self)} turn{plural})"

    def to_list(self) -> list[dict[str, Any]]:
        """Return the turns as new dicts."""
        return [turn.to_dict() for turn in self._turns]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> Any:
        from pydantic_core import core_schema

        serialization = core_schema.plain_serializer_function_ser_schema(cls.to_list)
        return core_schema.no_info_plain_validator_function(cls._validated, serialization=serialization)

    @classmethod
    def _validated(cls, value: Any) -> History:
        return value if isinstance(value, History) else cls(value)


def _turn(number: int, turn: object) -> Example:
    if not isinstance(turn, Mapping):
        raise InputError(f"History, turn {number}: a turn is a mapping of values, got {type(turn).__name__}")
    if not turn:
        raise InputError(f"History, turn {number}: the turn is empty")
    for name in turn:
        if not isinstance(name, str):
            raise InputError(f"History, turn {number}: a field's name is a text, got {name!r}")
    return Example(turn)
