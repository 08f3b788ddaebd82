"""Settings of optimizers: annotated attributes of a class. The constructor takes them, and run files record them."""

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


def _model_name(lm: object) -> str:
    if isinstance(lm, str):
        return lm
    return str(getattr(lm, "name", type(lm).__name__))


def _scorer(metric: Metric) -> Scorer:
    return metric if isinstance(metric, Scorer) else Scorer(metric, "metric")


def _optional_scorer(metric: Metric | None) -> Scorer | None:
    return None if metric is None else _scorer(metric)


MetricOption: TypeAlias = Annotated[Metric, Check(_scorer, "a function of (row, prediction)"), NOT_RECORDED]
"""A metric; the attribute is a Scorer. It is not recorded with the settings: run files have its name and source under
keys of their own."""
OptionalMetric: TypeAlias = Annotated[
    Metric | None, Check(_optional_scorer, "a function of (row, prediction), or None"), NOT_RECORDED
]
"""A metric, or None where the optimizer takes it from the program."""
ModelOption: TypeAlias = Annotated[Model, Recorded(value=_model_name)]
"""A model or its name, or None for the default of the setting."""
ProgramOption: TypeAlias = Annotated[Module, Instance("a program"), Recorded(value=program_fingerprint)]
"""A program."""


@dataclass(frozen=True, slots=True)
class _Setting:
    default: Any
    kw_only: bool


def setting(*, default: object = _EMPTY, kw_only: bool = True) -> Any:
    """Declare a setting that has no ``default``, or one that may be passed by position (``kw_only=False``)."""
    return _Setting(default, kw_only)


class _GeneratedConstructor:
    """The constructor of every configured class without an ``__init__``, generated when the class is first used.

    This descriptor is the ``__init__`` of Configured. A class may define an ``__init__``, by hand or with
    ``@dataclass``, and call this one through ``super()``. It then takes the settings of the bases that come after the
    last class with such an ``__init__`` in the method resolution order.
    """

    def __init__(self) -> None:
        self._constructors: WeakKeyDictionary[type, Callable[..., None]] = WeakKeyDictionary()

    def __get__(self, instance: object, owner: type | None = None) -> Callable[..., None]:
        if instance is None:
            return self.of(owner)
        cls = instance if isinstance(instance, type) else type(instance)  # inspect passes a class as the instance
        return MethodType(self.of(cls), instance)

    def of(self, cls: Any) -> Callable[..., None]:
        """The constructor made from the annotated attributes of a class and its bases."""
        for index, base in reversed(list(enumerate(cls.__mro__))):
            if vars(base).get("__init__", self) is not self and issubclass(base, Configured):
                cls = cls.__mro__[index + 1]
                break
        constructor = self._constructors.get(cls)
        if constructor is None:
            constructor = _make_constructor(cls)
            self._constructors[cls] = constructor
        return constructor


@dataclass_transform(eq_default=False, kw_only_default=True, field_specifiers=(setting,))
class Configured:
    """Base of classes whose annotated attributes are their settings, as the fields of a dataclass are.

    The attributes of a class and its bases are keywords of its constructor, with their types, checks and defaults (see
    ``dspynb.options``). Names that begin with ``_`` and attributes annotated as ``ClassVar`` are no settings. A class
    with an ``__init__`` must call that of its base; its own annotated attributes are no settings. ``__post_init__``
    runs after the attributes are set; rules about several of them belong there.
    """

    _passed: Sequence[str]  # names of the settings that the caller passed, for the repr

    _own: ClassVar[Mapping[str, Field]] = {}  # the settings declared in the class, without those of its bases

    if not TYPE_CHECKING:  # type checkers see a constructor from dataclass_transform
        __init__ = _GeneratedConstructor()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._own = {}
        if "__init__" not in vars(cls):
            cls._own = _own_fields(cls)

    def __post_init__(self) -> None:
        """Check rules about several settings, and set attributes that depend on them."""

    def __repr__(self) -> str:
        arguments = [f"{name}={_repr_value(getattr(self, name))}" for name in getattr(self, "_passed", ())]
        return f"{type(self).__name__}({', '.join(arguments)})"


class _ClassDeclaration(Declaration):
    """The settings of a class. The annotation of each is resolved in the module that declares it."""

    def __init__(self, constructor: Callable[..., None], fields: Mapping[str, Field]) -> None:
        super().__init__(constructor)
        self._fields = fields

    @property
    def fields(self) -> Mapping[str, Field]:
        """The settings by name."""
        return self._fields

    @property
    def settings(self) -> Mapping[str, Field]:
        """All settings by name, with those that have no default."""
        return self._fields


def _own_fields(cls: type) -> dict[str, Field]:
    """The settings declared in a class, without those of its bases."""
    namespace = getattr(sys.modules.get(cls.__module__), "__dict__", {})
    fields = {}
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
        fields[name] = Field(parameter, namespace)
    return fields


def _is_class_variable(annotation: object) -> bool:
    if isinstance(annotation, str):
        type_name = annotation.partition("[")[0]
        return type_name.rpartition(".")[2].strip() == "ClassVar"
    return annotation is ClassVar or get_origin(annotation) is ClassVar


def _make_constructor(cls: type[Configured]) -> Callable[..., None]:
    """Make the constructor of a class. It takes the settings of the class and its bases."""
    fields: dict[str, Field] = {}
    for base in cls.__mro__:
        for name, field in vars(base).get("_own", {}).items():
            fields.setdefault(name, field)
    finish = cls.__post_init__

    def __init__(self: Configured, *args: Any, **keywords: Any) -> None:  # noqa: N807  # it becomes the constructor of the class
        try:
            passed = signature.bind(self, *args, **keywords).arguments
        except TypeError as error:
            raise TypeError(f"{type(self).__name__}: {error}") from None
        passed.pop("self")
        for name in fields:
            setattr(self, name, passed[name] if name in passed else getattr(type(self), name))
        self._passed = list(passed)
        finish(self)  # of ``cls``: a subclass with an __init__ runs its own afterwards

    parameters = sorted((field.parameter for field in fields.values()), key=lambda parameter: parameter.kind)
    self_parameter = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    signature = inspect.Signature([self_parameter, *parameters], return_annotation="None")
    __init__.__qualname__ = f"{cls.__qualname__}.__init__"
    __init__.__module__ = cls.__module__
    __init__.__signature__ = signature  # type: ignore[attr-defined]
    __init__.__declaration__ = _ClassDeclaration(__init__, fields)  # type: ignore[attr-defined]
    return configurable(renamed=OPTIMIZER_OF_DSPY)(__init__)


def _repr_value(value: object) -> str:
    return value.name if isinstance(value, Scorer) else shorten(repr(value), 60)
