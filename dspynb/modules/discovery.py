"""Finding the predictors of a program, each under one dotted path."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from dspynb.errors import HiddenPredictorWarning
from dspynb.scope.core import Scope, warn_user

if TYPE_CHECKING:
    from dspynb.modules.module import Module
    from dspynb.modules.predict import Predict

__all__ = [
    "advisor_uids",
    "all_modules",
    "calls_inside",
    "hinted_paths",
    "inner_modules",
    "named_modules",
    "named_predictors",
    "resolve_path",
    "warn_of_hidden",
]

_counting = threading.local()  # .modules: the modules whose calls are being summed in this thread
_LEAVES = frozenset({str, int, float, bool, bytes, type(None)})


def named_predictors(root: object) -> list[tuple[str, Predict]]:
    """(path, predictor) in the order of attributes. A shared predictor is listed once, under its first path.

    Paths look like ``retrieve``, ``answer.predict``, ``steps[0]``, ``by['x']``, and ``self`` for a predictor that is
    the root. The search visits attributes of modules, lists, tuples, mappings and dataclasses.
    """
    return _find(root, _is_predictor, inside_found=False)


def named_modules(root: Module) -> list[tuple[str, Module]]:
    """(path, module) for the root, as ``self``, and every module inside it, each once, in the order of attributes."""
    return _find(root, _is_module, inside_found=True)


def _find(root: object, matches: Callable[[Any], bool], *, inside_found: bool) -> list[tuple[str, Any]]:
    """(path, value) of the values that match, each once. ``inside_found``: whether to search inside these, too."""
    matching: list[tuple[str, Any]] = []
    visited: dict[int, Any] = {}  # has the values too, since the id of a deleted value may be used again
    pending: list[tuple[str, Any]] = [("", root)]
    while pending:
        path, value = pending.pop()
        parts = _parts(value)
        if parts is None or id(value) in visited:
            continue
        visited[id(value)] = value
        if matches(value):
            matching.append((path or "self", value))
            if not inside_found:
                continue
        pending.extend((_join(path, step), part) for step, part in reversed(parts) if type(part) not in _LEAVES)
    return matching


def calls_inside(root: object) -> int:
    """The sum of ``most_calls`` of the modules and predictors in a module, each counted once. A module that contains
    itself adds nothing for the inner occurrence."""
    counting: set[int] = _counting.__dict__.setdefault("modules", set())
    if id(root) in counting:
        return 0
    counting.add(id(root))
    try:
        return sum(int(module.most_calls()) for module in inner_modules(root))
    finally:
        counting.remove(id(root))


def inner_modules(root: object) -> Iterator[Any]:
    """The modules directly inside a module, without those that these contain."""
    visited: dict[int, Any] = {id(root): root}
    pending = [part for _, part in _parts(root) or ()]
    while pending:
        value = pending.pop()
        parts = _parts(value)
        if parts is None or id(value) in visited:
            continue
        visited[id(value)] = value
        if _is_module(value):
            yield value
        else:
            pending.extend(part for _, part in parts)


def all_modules(root: object) -> list[Any]:
    """The program and all modules inside it."""
    visited: dict[int, Any] = {}
    pending = [root]
    while pending:
        module = pending.pop()
        if id(module) not in visited:
            visited[id(module)] = module
            pending += inner_modules(module)
    return list(visited.values())


def hinted_paths(program: Module) -> list[str] | None:
    """The paths of predictors to which a Refine in the program may give hints; None if no Refine can have a second
    wave."""
    hinted_programs: list[Any] = []
    for module in all_modules(program):
        hinted_programs += module.hinted()
    if not hinted_programs:
        return None
    uids: set[str] = set()
    for hinted_program in hinted_programs:
        uids.update(predictor.uid for _, predictor in hinted_program.named_predictors())
    return [path for path, predictor in program.named_predictors() if predictor.uid in uids]


def advisor_uids(program: object) -> set[str]:
    """The uids of a program's advisors."""
    uids: set[str] = set()
    for module in all_modules(program):
        uids.update(advisor.uid for advisor in module.advisors())
    return uids


def resolve_path(root: object, path: str) -> str | None:
    """The path under which ``named_predictors`` lists the predictor at ``path``; None if there is none. ``path`` may be
    any of several paths to a shared predictor."""
    listed = named_predictors(root)
    if path.endswith("."):
        return None
    target = next(_predictors_at(root, "" if path == "self" else path, frozenset()), None)
    return next((name for name, predictor in listed if predictor is target), None)


def _predictors_at(value: object, rest: str, visited: frozenset[tuple[int, str]]) -> Iterator[Any]:
    """The predictors to which the path ``rest`` leads from ``value``. ``visited``: pairs of the id of a value and the
    rest of the path, for the values between the root and this one."""
    if (id(value), rest) in visited:
        return
    if _is_predictor(value):
        if not rest:
            yield value
        return
    for step, part in _parts(value) or ():
        if rest == step or not step or rest.startswith((f"{step}.", f"{step}[")):
            yield from _predictors_at(part, rest[len(step) :].removeprefix("."), visited | {(id(value), rest)})


def _join(path: str, step: str) -> str:
    if not step or not path:
        return path + step
    return path + step if step.startswith("[") else f"{path}.{step}"


def _is_module(value: object) -> bool:
    return hasattr(type(value), "named_predictors")


def _is_predictor(value: object) -> bool:
    return _is_module(value) and getattr(value, "is_predictor", False)


def _parts(value: Any) -> list[tuple[str, Any]] | None:
    """The values inside a value that may be or contain predictors, each with its step of a path; None for a value that
    cannot contain any."""
    if callable(getattr(type(value), "submodules", None)):  # a module, or a tool that contains one
        return list(value.submodules())
    if isinstance(value, Mapping):
        return [(f"[{key!r}]", part) for key, part in value.items() if type(part) not in _LEAVES]
    if isinstance(value, list | tuple):
        return [(f"[{i}]", part) for i, part in enumerate(value) if type(part) not in _LEAVES]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(f.name, getattr(value, f.name, None)) for f in dataclasses.fields(value)]
    return None


_warned_names: WeakKeyDictionary[type, set[str]] = WeakKeyDictionary()  # type of a program → names of its runs


def warn_of_hidden(scope: Scope, run: Any, predictor: Predict) -> None:
    """Warn that the run's program called a predictor that discovery cannot find. Warns once for each program type and
    run name.

    Calls under a mask are ignored: they belong to a reward, a metric or an advisor, and not to the program.
    """
    program_type = getattr(run, "program_type", None)
    if program_type is None:
        return
    warned_names = _warned_names.setdefault(program_type, set())
    if run.name in warned_names:
        return
    if not any(layer.port is run for layer in scope.visible()):
        return
    warned_names.add(run.name)
    warn_user(
        f"{run.name} called {predictor._title()}, which is not among its parts: it is created in each call, global, or "
        "part of a closure. Hints to paths, candidates and saved states cannot reach it. Create it in "
        "__init__ and assign it to an attribute: self.name = dn.Predict(...)",
        HiddenPredictorWarning,
    )
