"""Hints: text that is composed onto the instructions of predictors inside a block, and never stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from dspynb.errors import HintError, nearest
from dspynb.scope.call_context import Role
from dspynb.scope.candidates import canonical
from dspynb.scope.core import Block, HintAs, HintLayer, Layer, current_scope

__all__ = ["Addressable", "address", "current_hint", "hints", "mask"]


@runtime_checkable
class Addressable(Protocol):
    """The part of a predictor that hints use: its ``uid``."""

    @property
    def uid(self) -> str: ...


def address(hint: Any, of: Any = None) -> dict[str, str]:
    """Replace the keys of a mapping of hints (predictors, or dotted paths of the program ``of``) by predictor uids.

    Raises HintError for a wrong type, a path that the program does not have, and two hints for one predictor.
    """
    if not isinstance(hint, Mapping):
        raise HintError(f"a hint must be text, or a mapping of predictors or paths to text, got {type(hint).__name__}")
    paths: dict[str, Any] = dict(of.named_predictors()) if of is not None else {}
    by_uid = {_uid(key, paths, of): _text(key, text) for key, text in hint.items()}
    if len(by_uid) < len(hint):
        raise HintError(f"two of the hints for {', '.join(map(str, hint))} are for one predictor; give it one text")
    return by_uid


def _uid(key: object, paths: Mapping[str, Any], of: object) -> str:
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


def _text(key: object, text: object) -> str:
    if isinstance(text, str):
        return text
    name = key if isinstance(key, str) else repr(type(key).__name__)
    raise HintError(f"the hint for {name} must be text, got {text!r}")


class hints(Block):  # noqa: N801  # used as a verb: with dn.hints(...)
    """``with hints(x)``: hints for the predictors called inside the block.

    ``x``: a text for all predictors, or a mapping to texts whose keys are predictors, or dotted paths with
    ``of=program``. ``hint_as``: ``"instruction"`` appends the hint to the instruction, ``"field"`` puts it at the end
    of the last user message. Nested blocks compose, outermost first. Raises HintError for a wrong type, for paths that
    the program does not have, and for two hints for one predictor.

    >>> answer = dn.Predict("question -> answer")
    >>> with dn.hints("Be brief."), dn.hints({answer: "Give the year only."}):
    ...     print(dn.current_hint(answer))
    Be brief.
    Give the year only.
    """

    __slots__ = ("_hints",)

    def __init__(self, hint: str | Mapping[Any, str], *, of: Any = None, hint_as: HintAs = "instruction") -> None:
        super().__init__()
        if hint_as not in ("instruction", "field"):
            raise HintError(f"hint_as must be 'instruction' or 'field', got {hint_as!r}")
        if isinstance(hint, str):
            self._hints = HintLayer(hint, {}, hint_as)
        else:
            self._hints = HintLayer(None, address(hint, of), hint_as)

    def _layer(self) -> Layer:
        return Layer("a hints(...) block", hints=self._hints)


def mask(role: Role) -> Layer:
    """``with mask("judge")``: hides hints, candidates and traces from rewards, advisors and proposals. Settings and
    budgets stay.

    ``role``: what the model calls of the block are for. Sampling and retries are those outside the attempt, so that a
    judge is not sampled as the program is.
    """
    scope = current_scope()
    return Layer("a masked block", outer=scope.nearest_lease, masks=True, context=scope.context.masked(role))


def current_hint(predictor: Addressable | None = None) -> str | None:
    """The composed hint in force here for a predictor (outermost first), or None.

    Without a predictor: the hints for all predictors only.

    >>> with dn.hints("Be brief."):
    ...     dn.current_hint()
    'Be brief.'
    >>> dn.current_hint() is None  # the block has ended
    True
    """
    if predictor is not None and not isinstance(predictor, Addressable):
        raise HintError(f"current_hint takes a predictor, got {type(predictor).__name__}")
    if predictor is None:
        return current_scope().untargeted_hint()
    return current_scope().read(predictor.uid).hint()
