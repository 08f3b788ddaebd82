"""Finding the predictors of a program, each under one dotted path."""

from __future__ import annotations

import dataclasses
import threading
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from dspynb.errors import HiddenPredictorWarning
from dspynb.scope.core import Scope, users_line

if TYPE_CHECKING:
    from dspynb.modules.predict import Predict

__all__ = [
    "advisor_uids",
    "calls_inside",
    "hinted_paths",
    "inner_modules",
    "named_predictors",
    "resolve_path",
    "warn_of_hidden",
]

_counting = threading.local()  # modules whose calls are being added up
_LEAVES = frozenset({str, int, float, bool, bytes, type(None)})


def named_predictors(root: Any) -> list[tuple[str, Predict]]:
    """(path, predictor) in the order of attributes; one that is shared stands once, under its first path.

    Paths: ``retrieve``, ``answer.predict``, ``steps[0]``, ``by['x']``; ``self`` for a bare predictor. Looked into:
    attributes of modules, lists, tuples, mappings and dataclasses.
    """
    found: list[tuple[str, Predict]] = []
    seen: dict[int, Any] = {}  # the values too: an id may be given again once its value is gone
    left: list[tuple[str, Any]] = [("", root)]
    while left:
        path, value = left.pop()
        parts = _parts(value)
        if parts is None or id(value) in seen:
            continue
        seen[id(value)] = value
        if _is_predictor(value):
            found.append((path or "self", value))
            continue
        left.extend((_join(path, step), part) for step, part in reversed(parts) if type(part) not in _LEAVES)
    return found


def calls_inside(root: Any) -> int:
    """The sum of what the modules and predictors in a module say of their ``most_calls``, each counted once. One that
    is met again inside itself adds nothing."""
    counting: set[int] = _counting.__dict__.setdefault("modules", set())
    if id(root) in counting:
        return 0
    counting.add(id(root))
    try:
        return sum(int(module.most_calls()) for module in inner_modules(root))
    finally:
        counting.remove(id(root))


def inner_modules(root: Any) -> Iterator[Any]:
    """The modules that a module holds itself; those inside of them are theirs."""
    seen: dict[int, Any] = {id(root): root}
    left = [part for _, part in _parts(root) or ()]
    while left:
        value = left.pop()
        parts = _parts(value)
        if parts is None or id(value) in seen:
            continue
        seen[id(value)] = value
        if _is_module(value):
            yield value
        else:
            left.extend(part for _, part in parts)


def _all_modules(root: Any) -> list[Any]:
    """Every module in a program, itself included."""
    seen: dict[int, Any] = {}
    left = [root]
    while left:
        module = left.pop()
        if id(module) not in seen:
            seen[id(module)] = module
            left += inner_modules(module)
    return list(seen.values())


def hinted_paths(program: Any) -> list[str] | None:
    """The predictors that hints of a program's Refines may be for; None where no Refine comes to a second wave."""
    inner = [hinted for module in _all_modules(program) for hinted in module.hinted()]
    uids = {predictor.uid for module in inner for _, predictor in module.named_predictors()}
    return [path for path, predictor in program.named_predictors() if predictor.uid in uids] if inner else None


def advisor_uids(program: Any) -> set[str]:
    """The uids of a program's advisors."""
    return {advisor.uid for module in _all_modules(program) for advisor in module.advisors()}


def resolve_path(root: Any, path: str) -> str | None:
    """The one path of the predictor at ``path``, which may be any way to it; None if there is none."""
    known = named_predictors(root)
    if path.endswith("."):
        return None
    at = next(_at(root, "" if path == "self" else path, frozenset()), None)
    return next((name for name, predictor in known if predictor is at), None)


def _at(value: Any, rest: str, above: frozenset[tuple[int, str]]) -> Iterator[Any]:
    """The predictors that ``rest`` leads to from ``value``."""
    if (id(value), rest) in above:
        return
    if _is_predictor(value):
        if not rest:
            yield value
        return
    for step, part in _parts(value) or ():
        if rest == step or not step or rest.startswith((f"{step}.", f"{step}[")):
            yield from _at(part, rest[len(step) :].removeprefix("."), above | {(id(value), rest)})


def _join(path: str, step: str) -> str:
    if not step or not path:
        return path + step
    return path + step if step.startswith("[") else f"{path}.{step}"


def _is_module(value: Any) -> bool:
    return hasattr(type(value), "named_predictors")


def _is_predictor(value: Any) -> bool:
    return _is_module(value) and getattr(value, "is_predictor", False)


def _parts(value: Any) -> list[tuple[str, Any]] | None:
    """The places inside a value where predictors may be; None for a value that cannot hold any."""
    if callable(getattr(type(value), "submodules", None)):  # a module, or a tool that holds one
        return list(value.submodules())
    if isinstance(value, Mapping):
        return [(f"[{key!r}]", part) for key, part in value.items() if type(part) not in _LEAVES]
    if isinstance(value, list | tuple):
        return [(f"[{i}]", part) for i, part in enumerate(value) if type(part) not in _LEAVES]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(f.name, getattr(value, f.name, None)) for f in dataclasses.fields(value)]
    return None


_warned_of: WeakKeyDictionary[type, set[str]] = WeakKeyDictionary()  # type of a program → names of its runs


def warn_of_hidden(scope: Scope, run: Any, predictor: Any) -> None:
    """Warn that the run's program called a predictor that discovery cannot find; once a type of program.

    Calls under a mask are a reward's, a metric's or an advisor's own, and no part of the program.
    """
    program = getattr(run, "program_type", None)
    if program is None or run.name in (warned := _warned_of.setdefault(program, set())):
        return
    if not any(layer.port is run for layer in scope.visible()):
        return
    warned.add(run.name)
    warnings.warn_explicit(
        f"{run.name} called {predictor._title()}, which is not among its parts: it is made per call, global, or "
        "held in a closure. Hints to paths, candidates and saved states cannot reach it. Make it in "
        "__init__ and assign it to an attribute: self.name = dn.Predict(...)",
        HiddenPredictorWarning,
        *users_line(),
    )
