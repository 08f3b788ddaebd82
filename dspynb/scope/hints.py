"""Hints: text that is composed onto predictors' instructions for the length of a block, and nowhere kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from dspynb.errors import HintError, nearest
from dspynb.scope.candidates import canonical
from dspynb.scope.core import Block, HintAs, HintLayer, Layer, current_scope

__all__ = ["Addressable", "address", "current_hint", "hints", "mask"]


@runtime_checkable
class Addressable(Protocol):
    """A predictor, as far as hints care: something with a ``uid``."""

    @property
    def uid(self) -> str: ...


def address(hint: Any, of: Any = None) -> dict[str, str]:
    """Predictor uid → text, from a mapping of predictors or of dotted paths of the program ``of``.

    Raises HintError for a wrong type, a path that the program does not have, and two hints for one predictor.
    """
    if not isinstance(hint, Mapping):
        raise HintError(f"a hint must be text, or a mapping of predictors or paths to text, got {type(hint).__name__}")
    paths: dict[str, Any] = dict(of.named_predictors()) if of is not None else {}
    found = [(_uid(key, paths, of), _text(key, text)) for key, text in hint.items()]
    by_uid = dict(found)
    if len(by_uid) < len(found):
        raise HintError(f"two of the hints for {', '.join(map(str, hint))} are for one predictor; give it one text")
    return by_uid


def _uid(key: Any, paths: Mapping[str, Any], of: Any) -> str:
    if isinstance(key, str):
        if of is None:
            raise HintError(f"a hint for the path {key!r} needs its program: hints({{...}}, of=program)")
        path = canonical(key, paths, of)
        if path is None:
            raise HintError(f"the program has no predictor {key!r}.{nearest(key, paths)} It has: {', '.join(paths)}")
        return str(paths[path].uid)
    if isinstance(key, Addressable) and isinstance(key.uid, str):
        return key.uid
    raise HintError(f"hints are addressed to predictors or their paths, not to {type(key).__name__}")


def _text(key: Any, text: Any) -> str:
    if isinstance(text, str):
        return text
    raise HintError(f"the hint for {key if isinstance(key, str) else type(key).__name__!r} must be text, got {text!r}")


class hints(Block):  # noqa: N801  # used as a verb: with dn.hints(...)
    """``with hints(x)``: hints for the predictors called inside the block.

    ``x``: a text for every predictor, or a mapping whose keys are predictors, or dotted paths with ``of=program``.
    ``hint_as``: ``"instruction"`` appends it to the instruction, ``"field"`` puts it at the end of the last user
    message. Nested blocks compose, outermost first. Raises HintError when it is made.

    >>> answer = dn.Predict("question -> answer")
    >>> with dn.hints("Be brief."), dn.hints({answer: "Give the year only."}):
    ...     print(dn.current_hint(answer))
    Be brief.
    Give the year only.
    """

    __slots__ = ("_hints",)

    def __init__(self, hint: Any, *, of: Any = None, hint_as: HintAs = "instruction") -> None:
        super().__init__()
        if hint_as not in ("instruction", "field"):
            raise HintError(f"hint_as must be 'instruction' or 'field', got {hint_as!r}")
        text = hint if isinstance(hint, str) else None
        self._hints = HintLayer(text, {} if text is not None else address(hint, of), hint_as)

    def _layer(self) -> Layer:
        return Layer("a hints(...) block", hints=self._hints)


def mask() -> Layer:
    """``with mask()``: hides hints, candidates and traces, for rewards and advisors; the rest stays.

    Sampling is what it was outside the attempt: a judge is not sampled as the program is, and tries again as it always
    does, where a program must not.
    """
    scope = current_scope()
    return Layer("a masked block", outer=scope.nearest_lease, masks=True, context=scope.context.masked())


def current_hint(predictor: Addressable | None = None) -> str | None:
    """The composed hint in force here for a predictor (outermost first), or None.

    Without a predictor: the untargeted text only.

    >>> with dn.hints("Be brief."):
    ...     dn.current_hint()
    'Be brief.'
    >>> dn.current_hint() is None  # gone with its block
    True
    """
    if predictor is not None and not isinstance(predictor, Addressable):
        raise HintError(f"current_hint takes a predictor, got {type(predictor).__name__}")
    return current_scope().untargeted_hint() if predictor is None else current_scope().read(predictor.uid).hint()
