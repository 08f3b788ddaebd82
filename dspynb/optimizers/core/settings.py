"""Settings of optimizers: annotated attributes of a class, which its constructor takes and a run file records."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MethodType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeAlias, dataclass_transform, get_origin
from weakref import WeakKeyDictionary

from dspynb.aliases import Metric
from dspynb.errors import shorten
from dspynb.evaluation.evaluator import program_fingerprint
from dspynb.keywords import Declaration, Field, configurable
from dspynb.lm.resolve import Model
from dspynb.modules.module import Module
from dspynb.modules.scorer import Scorer
from dspynb.optimizers.names import OPTIMIZER_OF_DSPY
from dspynb.options import NOT_RECORDED, Check, Instance, Recorded

__all__ = [
    "Configured",
    "MetricOption",
    "ModelOption",
    "OptionalMetric",
    "ProgramOption",
    "setting",
]

_EMPTY = inspect.Parameter.empty


def _name(lm: Any) -> str:
    return lm if isinstance(lm, str) else str(getattr(lm, "name", type(lm).__name__))


def _scorer(metric: Any) -> Scorer:
    return metric if isinstance(metric, Scorer) else Scorer(metric, "metric")


def _optional_scorer(metric: Any) -> Scorer | None:
    return None if metric is None else _scorer(metric)


MetricOption: TypeAlias = Annotated[Metric, Check(_scorer, "a function of (row, prediction)"), NOT_RECORDED]
"""A metric; the attribute is a Scorer. Run files record its name and source in another place."""
OptionalMetric: TypeAlias = Annotated[
    Metric | None, Check(_optional_scorer, "a function of (row, prediction), or None"), NOT_RECORDED
]
"""A metric, or None for one that is known later."""
ModelOption: TypeAlias = Annotated[Model, Recorded(value=_name)]
"""A model or its name; None stands for another one."""
ProgramOption: TypeAlias = Annotated[Module, Instance("a program"), Recorded(value=program_fingerprint)]
"""A program."""


@dataclass(frozen=True, slots=True)
class _Setting:
    default: Any
    kw_only: bool


def setting(*, default: Any = _EMPTY, kw_only: bool = True) -> Any:
    """A setting that has no ``default``, or, with ``kw_only=False``, one that may be passed by position."""
    return _Setting(default, kw_only)


class _GeneratedConstructor:
    """The constructor of every configured class that has none of its own, made when the class is first used.

    It stands in the base class alone. So a class may get a constructor of its own in any way, by hand or from
    ``@dataclass``, and call this one through ``super()``: then it is that of the bases after the last such class.
    """

    def __init__(self) -> None:
        self._constructors: WeakKeyDictionary[type, Callable[..., None]] = WeakKeyDictionary()

    def __get__(self, instance: Any, owner: type | None = None) -> Callable[..., None]:
        if instance is None:
            return self.of(owner)
        kind = instance if isinstance(instance, type) else type(instance)  # inspect asks for that of a class this way
        return MethodType(self.of(kind), instance)

    def of(self, cls: Any) -> Callable[..., None]:
        """The constructor that a class has from its annotated attributes and those of its bases."""
        for place, base in reversed(list(enumerate(cls.__mro__))):
            if vars(base).get("__init__", self) is not self and issubclass(base, Configured):
                cls = cls.__mro__[place + 1]
                break
        constructor = self._constructors.get(cls)
        if constructor is None:
            constructor = self._constructors[cls] = _constructor(cls)
        return constructor


@dataclass_transform(eq_default=False, kw_only_default=True, field_specifiers=(setting,))
class Configured:
    """Base of classes whose annotated attributes are their settings, as the fields of a dataclass are.

    The attributes of a class and its bases are keywords of its constructor, with their types, checks and defaults (see
    ``dspynb.options``). Names that begin with ``_`` and those that are annotated as ``ClassVar`` are none. A class with
    an ``__init__`` of its own calls that of its base, and its attributes are its own affair. ``__post_init__`` comes
    after the attributes are set: rules that need several of them have their place there.
    """

    _passed: Sequence[str]  # the settings that the caller has set, for the repr

    _own: ClassVar[Mapping[str, Field]] = {}  # the settings that the class declares itself

    if not TYPE_CHECKING:  # type checkers read the annotated attributes
        __init__ = _GeneratedConstructor()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._own = {} if "__init__" in vars(cls) else _own_fields(cls)

    def __post_init__(self) -> None:
        """Check rules of several settings, and make what depends on them."""

    def __repr__(self) -> str:
        shown = [f"{name}={_shown(getattr(self, name))}" for name in getattr(self, "_passed", ())]
        return f"{type(self).__name__}({', '.join(shown)})"


class _ClassDeclaration(Declaration):
    """The settings of a class, each with the names of the module that declares it."""

    def __init__(self, constructor: Callable[..., None], fields: Mapping[str, Field]) -> None:
        super().__init__(constructor)
        self._fields = fields

    @property
    def fields(self) -> Mapping[str, Field]:
        """The settings by name."""
        return self._fields

    @property
    def settings(self) -> Mapping[str, Field]:
        """All of them, those that have to be passed too."""
        return self._fields


def _own_fields(cls: type) -> dict[str, Field]:
    """The settings that a class declares itself."""
    namespace = getattr(sys.modules.get(cls.__module__), "__dict__", {})
    found = {}
    for name, annotation in inspect.get_annotations(cls).items():
        if name.startswith("_") or _is_class_variable(annotation):
            continue
        declared = vars(cls).get(name, _EMPTY)
        if not isinstance(declared, _Setting):
            declared = _Setting(declared, kw_only=True)
        elif declared.default is _EMPTY:
            delattr(cls, name)
        else:
            setattr(cls, name, declared.default)
        kind = inspect.Parameter.KEYWORD_ONLY if declared.kw_only else inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameter = inspect.Parameter(name, kind, default=declared.default, annotation=annotation)
        found[name] = Field(parameter, namespace)
    return found


def _is_class_variable(annotation: Any) -> bool:
    if isinstance(annotation, str):
        written = annotation.partition("[")[0]
        return written.rpartition(".")[2].strip() == "ClassVar"
    return annotation is ClassVar or get_origin(annotation) is ClassVar


def _constructor(cls: type[Configured]) -> Callable[..., None]:
    """The constructor of a class: it takes the settings of its own, and those that its bases take."""
    fields: dict[str, Field] = {}
    for base in cls.__mro__:
        for name, field in vars(base).get("_own", {}).items():
            fields.setdefault(name, field)
    finish = cls.__post_init__

    def __init__(self: Configured, *args: Any, **keywords: Any) -> None:  # noqa: N807  # what it will be
        try:
            passed = signature.bind(self, *args, **keywords).arguments
        except TypeError as error:
            raise TypeError(f"{type(self).__name__}: {error}") from None
        passed.pop("self")
        for name in fields:
            setattr(self, name, passed[name] if name in passed else getattr(type(self), name))
        self._passed = list(passed)
        finish(self)  # not that of a class below, which calls this constructor from its own

    parameters = sorted((field.parameter for field in fields.values()), key=lambda parameter: parameter.kind)
    myself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    signature = inspect.Signature([myself, *parameters], return_annotation="None")
    __init__.__qualname__ = f"{cls.__qualname__}.__init__"
    __init__.__module__ = cls.__module__
    __init__.__signature__ = signature  # type: ignore[attr-defined]
    __init__.__declaration__ = _ClassDeclaration(__init__, fields)  # type: ignore[attr-defined]
    return configurable(renamed=OPTIMIZER_OF_DSPY)(__init__)


def _shown(value: Any) -> str:
    return value.name if isinstance(value, Scorer) else shorten(repr(value), 60)
