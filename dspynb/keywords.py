"""Keyword arguments that a class or function does not have: one error that names the one that was meant."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

from dspynb.errors import ConfigurationError

__all__ = ["parameters_of", "refuse_unknown", "with_known_keywords"]

P = ParamSpec("P")
R = TypeVar("R")
_SHORT = 3
_NEARLY = 0.85
_KEYWORD = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def refuse_unknown(
    owner: str,
    names: Iterable[str],
    known: Collection[str],
    renamed: Mapping[str, str] | None = None,
    otherwise: str = "",
) -> None:
    """Raise ConfigurationError where some of ``names`` are not ``known``.

    ``owner``: the class or function, as the error calls it. ``renamed``: for names of DSPy, litellm or OpenAI, the
    known name that means the same, or a sentence that says what to do. ``otherwise``: what to do where no known name
    is meant, with ``{name}`` for the unknown one.
    """
    unknown = sorted(set(names).difference(known))
    if not unknown:
        return
    renamed = renamed or {}
    problems = [f"{owner} has no setting {name!r}{_advice(name, known, renamed)}" for name in unknown]
    own = [name for name in unknown if name not in renamed]
    if own and otherwise:
        problems.append(otherwise.format(name=own[0]))
    raise ConfigurationError(" ".join(problems))


def _advice(name: str, known: Collection[str], renamed: Mapping[str, str]) -> str:
    """The rest of the sentence: the known name that was meant, or what to do; misspelled names of DSPy too."""
    cutoff = 0.5 if len(name) > _SHORT else 0.7  # of a short name nearly every other one has half the letters
    names = {*known, *(theirs for theirs, ours in renamed.items() if ours in known)}
    close = get_close_matches(name, sorted(names), n=1, cutoff=cutoff)
    advised = get_close_matches(name, sorted({*renamed} - names), n=1, cutoff=_NEARLY)  # what to do, in a sentence
    meant = name if name in renamed else (advised or close or [""])[0]
    new = meant if meant in known else renamed.get(meant, "")
    if new in known:
        return f". Did you mean {new!r}?"
    return f": {new}." if " " in new else "."


def parameters_of(fn: Callable[..., Any]) -> frozenset[str]:
    """The names of the parameters that may be passed by keyword; without ``self``."""
    parameters = inspect.signature(fn).parameters.values()
    return frozenset(p.name for p in parameters if p.kind in _KEYWORD and p.name != "self")


def with_known_keywords(
    *, also: Iterable[str] = (), renamed: Mapping[str, str] | None = None, otherwise: str = ""
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: a keyword that the function does not have is a ConfigurationError in place of a TypeError.

    ``also``: names that it takes through ``**settings``. The others are those of ``refuse_unknown``. The signature
    that ``help`` shows is that of the function itself.
    """

    def decorate(fn: Callable[P, R]) -> Callable[P, R]:
        known = parameters_of(fn) | frozenset(also)

        def check(args: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
            if not known.issuperset(keywords):
                refuse_unknown(_owner(fn, args), keywords, known, renamed, otherwise)

        if inspect.iscoroutinefunction(fn):

            @wraps(fn)
            async def awaited(*args: P.args, **keywords: P.kwargs) -> Any:
                check(args, keywords)
                return await fn(*args, **keywords)

            return cast("Callable[P, R]", awaited)

        @wraps(fn)
        def called(*args: P.args, **keywords: P.kwargs) -> R:
            check(args, keywords)
            return fn(*args, **keywords)

        return called

    return decorate


def _owner(fn: Callable[..., Any], args: tuple[Any, ...]) -> str:
    """``Refine`` for its constructor, ``GEPA.compile`` for a method, ``evaluate`` for a function."""
    place, _, name = fn.__qualname__.rpartition(".")
    if not place or place.endswith("<locals>"):
        return name
    kind = type(args[0]).__name__ if args else place
    return kind if name in ("__init__", "__call__") else f"{kind}.{name}"
