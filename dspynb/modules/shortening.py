"""Requests that are too long for a model are repeated with less text, until one fits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from dspynb.data import Prediction
from dspynb.errors import ContextTooLong
from dspynb.modules.excerpts import excerpt_of_parts
from dspynb.modules.predict import Predict

__all__ = ["call_shortened", "repeat_until_it_fits"]

_SHORTEST = 200
"""Texts of up to so many characters stay whole."""


async def repeat_until_it_fits(call: Callable[[], Awaitable[Prediction]], shorten: Callable[[], bool]) -> Prediction:
    """Await ``call()``, and again after each ``shorten()``, until its request is not too long for the model.

    ``shorten``: leaves something out of the next request, and returns False if there is nothing left to leave out.
    ContextTooLong is raised then.
    """
    while True:
        try:
            return await call()
        except ContextTooLong:
            if not shorten():
                raise


async def call_shortened(predict: Predict, inputs: Mapping[str, Any]) -> Prediction:
    """Call a predictor. If the request is too long for its model, repeat it with half of the text in the inputs, then a
    quarter, and so on.

    The longest texts are cut first, in the middle, between examples or lines where that is possible. How a text is cut
    depends on the inputs only, so that a resumed run or a replay sends the same requests. Raises ContextTooLong if the
    request does not fit after every text has been cut to about 200 characters.
    """
    shortened = _ShortenedInputs(inputs)
    return await repeat_until_it_fits(lambda: predict(**shortened.values), shortened.halve)


class _ShortenedInputs:
    """The inputs of a call, with less text after each ``halve``."""

    def __init__(self, inputs: Mapping[str, Any]) -> None:
        self._inputs = inputs
        self._lengths = sorted(len(text) for value in inputs.values() for text in _texts(value))
        self._characters = sum(self._lengths)
        self.values = dict(inputs)

    def halve(self) -> bool:
        """Cut the texts to half of the characters that they had. Returns False if they cannot be cut any more."""
        self._characters //= 2
        limit = max(_SHORTEST, self._limit())
        shorter = {name: _cut(value, limit) for name, value in self._inputs.items()}
        is_shorter = shorter != self.values
        self.values = shorter
        return is_shorter

    def _limit(self) -> int:
        """The greatest length of a text at which all texts together have at most ``_characters`` characters."""
        left = self._characters
        for position, length in enumerate(self._lengths):
            share = left // (len(self._lengths) - position)
            if length > share:
                return share
            left -= length
        return left


def _texts(value: Any) -> list[str]:
    """The texts that may be cut: a text, or those in a list."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list | tuple):
        return [item for item in value if isinstance(item, str)]
    return []


def _cut(value: Any, limit: int) -> Any:
    if isinstance(value, str):
        return excerpt_of_parts(value, limit)
    if isinstance(value, list | tuple):
        return [excerpt_of_parts(item, limit) if isinstance(item, str) else item for item in value]
    return value
