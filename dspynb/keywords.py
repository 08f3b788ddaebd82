"""Keyword arguments, declared once in a signature, which gives checks, messages, tooltips and the entries of run files.

``@configurable()`` on a function or constructor reads its signature. pydantic checks the arguments of each call against
the types there (see ``dspynb.options``), and all problems are one ConfigurationError. The checks are built when they
are first used. ``settings_of`` reads the same declaration for code that records settings.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, wraps
from typing import Any, ForwardRef, ParamSpec, TypeVar, cast, is_typeddict
from weakref import WeakKeyDictionary

from dspynb.errors import ConfigurationError, nearest, shorten
from dspynb.name_advice import unknown_name_problems
from dspynb.not_awaited import explains_await
from dspynb.options import Absent, NotRecorded, Recorded, is_checked, literals, metadata, requirement, type_text

__all__ = [
    "UNSET",
    "Declaration",
    "Field",
    "absent_settings",
    "configurable",
    "recorded_fields",
    "recorded_settings",
    "settings_of",
    "settings_repr",
]

P = ParamSpec("P")
R = TypeVar("R")

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_KEYWORD = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class _Unset:
    """The default of a setting that has no value unless it is passed."""

    def __repr__(self) -> str:
        return "<unset>"


UNSET = _Unset()


@dataclass(frozen=True)
class Field:
    """A declared parameter. ``namespace``: the names that its annotation may use, if that is text."""

    parameter: inspect.Parameter
    namespace: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.parameter.name

    @property
    def default(self) -> Any:
        return self.parameter.default

    @property
    def has_default(self) -> bool:
        return self.default is not inspect.Parameter.empty

    @property
    def annotation(self) -> Any:
        """The type of the parameter; Any if its names exist for type checkers only."""
        try:
            return self._type
        except (AttributeError, NameError, SyntaxError, TypeError):  # TypeError: an alias that is text, as Rows is
            return Any

    @cached_property
    def _type(self) -> Any:
        annotation = self.parameter.annotation
        if annotation is inspect.Parameter.empty:
            return Any
        if not isinstance(annotation, str):
            return annotation
        return eval(annotation, dict(self.namespace))  # noqa: S307  # source of the package, or of the user's own class

    @cached_property
    def displayed_parameter(self) -> inspect.Parameter:
        """The parameter as Shift+Tab shows it, with a plain type instead of one that carries checks."""
        annotation = self.annotation
        if not is_checked(annotation) and not metadata(annotation):
            return self.parameter
        return self.parameter.replace(annotation=type_text(annotation))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the type and not the namespace, which in a notebook has all of the user's variables."""
        return Field, (self.parameter.replace(annotation=self.annotation), {})

    @cached_property
    def is_recorded(self) -> bool:
        """Whether run files record the setting, so that a resumed run must have the same value."""
        return not any(isinstance(item, NotRecorded) for item in metadata(self.annotation))

    @cached_property
    def value_if_absent(self) -> Any:
        """The value that a run file without this setting stands for."""
        for item in metadata(self.annotation):
            if isinstance(item, Absent):
                return item.value
        return self.default

    @cached_property
    def file_format(self) -> Recorded:
        """The name and the form in which run files record the setting."""
        for item in metadata(self.annotation):
            if isinstance(item, Recorded):
                return item
        return Recorded()


class _Check:
    """Checks the values of one parameter with pydantic."""

    __slots__ = ("annotation", "name", "validate")

    def __init__(self, name: str, annotation: Any) -> None:
        from pydantic import TypeAdapter

        self.name = name
        self.annotation = annotation
        self.validate: Callable[[Any], Any] = TypeAdapter(annotation).validator.validate_python

    def __call__(self, value: object, problems: list[str]) -> Any:
        """Return the value to use. If the type refuses the value, add a sentence to ``problems``."""
        try:
            return self.validate(value)
        except ValueError as error:  # pydantic's ValidationError is one
            problems.append(self._sentence(error, value))
            return value

    def _sentence(self, error: Any, value: object) -> str:
        for problem in error.errors(include_url=False):
            if problem["type"] == "sentence":  # a whole sentence, from a Check option
                sentence = str(problem["msg"])
                return sentence if sentence.startswith(self.name) else f"{self.name}: {sentence}"
        return _refusal(self.name, self.annotation, value)


class _Checks(dict[str, _Check | None]):
    """Checks by parameter name, each built when it is first read; None for parameters that are not checked."""

    def __init__(self, fields: Mapping[str, Field]) -> None:
        super().__init__()
        self._fields = fields

    def __missing__(self, name: str) -> _Check | None:
        if name not in self._fields:  # ``self``, and keywords that are not declared
            return None
        annotation = self._fields[name].annotation
        check = _Check(name, annotation) if is_checked(annotation) else None
        self[name] = check
        return check


class Declaration:
    """The parameters of one function, read from its signature. The parameters of ``passes_to`` replace its
    ``**keywords``."""

    def __init__(self, fn: Callable[..., Any], passes_to: Callable[..., Any] | None = None) -> None:
        self._fn = fn
        self.passes_to = passes_to

    @cached_property
    def _signature(self) -> inspect.Signature:
        return inspect.signature(self._fn)

    @cached_property
    def positional(self) -> tuple[str, ...]:
        """The names of the parameters that may be passed by position, including ``self``."""
        return tuple(p.name for p in self._signature.parameters.values() if p.kind in _POSITIONAL)

    @cached_property
    def is_open(self) -> bool:
        """Whether a call may pass keywords that are not declared."""
        kinds = [parameter.kind for parameter in self._signature.parameters.values()]
        return self.passes_to is None and inspect.Parameter.VAR_KEYWORD in kinds

    @cached_property
    def fields(self) -> Mapping[str, Field]:
        """The parameters by name, without ``self``."""
        namespace: Mapping[str, Any] = getattr(self._fn, "__globals__", {})
        declared = {
            name: Field(parameter, namespace)
            for name, parameter in self._signature.parameters.items()
            if parameter.kind in _KEYWORD and name != "self"
        }
        passed_on = {name: field for name, field in _keyword_fields(self.passes_to).items() if name not in declared}
        return {**declared, **passed_on}

    def __getstate__(self) -> dict[str, Any]:
        """The state without the namespace, since pickled fields have types instead, and without checks, which are built
        again."""
        state = {**vars(self), "fields": self.fields, "_namespace": {}}
        state.pop("checks", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    @property
    def settings(self) -> Mapping[str, Field]:
        """The parameters with a default, by name."""
        return {name: field for name, field in self.fields.items() if field.has_default}

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of the parameters, without ``self``."""
        return frozenset(self.fields)

    @property
    def signature(self) -> inspect.Signature:
        """The signature for display: with all keywords by name, and with plain types instead of those with checks."""
        return _DisplayedSignature(self)

    @cached_property
    def displayed_parameters(self) -> Mapping[str, inspect.Parameter]:
        """The parameters of ``signature``."""
        fields = self.fields
        parameters = {}
        for name, parameter in self._signature.parameters.items():
            if name in fields:
                parameters[name] = fields[name].displayed_parameter
            elif parameter.kind is not inspect.Parameter.VAR_KEYWORD or self.passes_to is None:
                parameters[name] = parameter
        for name, field in fields.items():
            if name not in parameters:
                parameters[name] = field.displayed_parameter
        return inspect.Signature(list(parameters.values())).parameters  # Signature checks their order

    @property
    def return_annotation(self) -> Any:
        """The return annotation of the function."""
        return self._signature.return_annotation

    @cached_property
    def checks(self) -> Mapping[str, _Check | None]:
        """The checks of the parameters by name; None for a parameter that is not checked."""
        return _Checks(self.fields)

    def check(self, args: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[tuple[Any, ...], list[str]]:
        """Check the arguments of a call. Returns the positional values to use, and a sentence for each problem. Values
        in ``keywords`` are replaced in place by those to use."""
        problems: list[str] = []
        checks = self.checks
        for name, value in keywords.items():
            check = checks[name]
            if check is not None:
                keywords[name] = check(value, problems)
        if not args:
            return args, problems
        values = list(args)
        for i, name in enumerate(self.positional[: len(values)]):
            check = checks[name]
            if check is not None:
                values[i] = check(values[i], problems)
        return tuple(values), problems


class _DisplayedSignature(inspect.Signature):
    """The signature of a declaration. The types are read when the signature is: reading those of all functions would
    take a tenth of the time of the import, and most are called and never displayed."""

    __slots__ = ("_declaration",)

    def __init__(self, declaration: Declaration) -> None:
        super().__init__()
        self._declaration = declaration

    @property
    def parameters(self) -> Any:
        return self._declaration.displayed_parameters

    @property
    def return_annotation(self) -> Any:
        return self._declaration.return_annotation

    def replace(self, **changes: Any) -> inspect.Signature:  # type: ignore[override]
        plain = inspect.Signature(list(self.parameters.values()), return_annotation=self.return_annotation)
        return plain.replace(**changes)

    def __replace__(self, **changes: Any) -> Any:  # what copy.replace calls
        return self.replace(**changes)

    def __reduce__(self) -> Any:
        return self.replace().__reduce__()


def _refusal(name: str, annotation: object, value: object) -> str:
    from dspynb.redact import redact

    sentence = f"{name} must be {requirement(annotation)}, got {shorten(redact(repr(value)), 100)}"
    suggestion = nearest(value, literals(annotation)) if isinstance(value, str) else ""
    return f"{sentence}.{suggestion}" if suggestion else sentence


def _keyword_fields(target: Callable[..., Any] | None) -> Mapping[str, Field]:
    """The keyword parameters of a function, or the entries of a TypedDict, which have no defaults."""
    if target is None:
        return {}
    if is_typeddict(target):
        return _entries(target)
    declared = _declaration(target).fields
    return {
        name: Field(field.parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY), field.namespace)
        for name, field in declared.items()
        if field.parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


@cache
def _entries(target: Callable[..., Any]) -> Mapping[str, Field]:
    namespace = vars(sys.modules[target.__module__])
    return {name: Field(_parameter(name, annotation), namespace) for name, annotation in target.__annotations__.items()}


def _parameter(name: str, annotation: object) -> inspect.Parameter:
    if isinstance(annotation, ForwardRef):
        annotation = annotation.__forward_arg__
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=UNSET, annotation=annotation)


def _declaration(fn: Callable[..., Any]) -> Declaration:
    declared = getattr(fn, "__declaration__", None)
    return declared if isinstance(declared, Declaration) else Declaration(fn)


def configurable(
    *, renamed: Mapping[str, str] | None = None, otherwise: str = "", passes_to: Callable[..., Any] | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: checks the arguments of each call against the signature of the function, which declares its settings.

    ``passes_to``: a function or TypedDict that declares the function's ``**keywords``. They are checked and shown as if
    the function's own signature declared them. ``renamed`` and ``otherwise``: see ``name_advice.refuse_unknown``.

    A call with unknown keywords, or with values that their types refuse, raises one ConfigurationError. It names the
    function or class, each argument, its value and the requirement.
    """

    def decorate(fn: Callable[P, R]) -> Callable[P, R]:
        declaration = _declaration(fn) if passes_to is None else Declaration(fn, passes_to)

        def check_arguments(args: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Any, ...]:
            values, problems = declaration.check(args, keywords)
            known = declaration.names
            is_known = known.issuperset(keywords) or declaration.is_open
            if is_known and not problems:
                return values
            owner = _owner(fn, args)
            sentences: list[str] = []
            if not is_known:
                suggested_names = known | (_settings_of_subclass(fn, args) - keywords.keys())
                unknown = keywords.keys() - known
                sentences = unknown_name_problems(owner, unknown, suggested_names, renamed or {}, otherwise)
            if problems:
                sentences.append(f"{owner}: {'; '.join(problems)}")
            raise ConfigurationError(" ".join(sentences))

        wrapper = _wrap(fn, check_arguments)
        wrapper.__declaration__ = declaration  # type: ignore[attr-defined]
        wrapper.__signature__ = declaration.signature  # type: ignore[attr-defined]
        return cast("Callable[P, R]", wrapper)

    return decorate


def _wrap(fn: Callable[..., Any], check_arguments: Callable[..., tuple[Any, ...]]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(fn):

        @wraps(fn)
        async def awaited(*args: Any, **keywords: Any) -> Any:
            return await fn(*check_arguments(args, keywords), **keywords)

        return explains_await(awaited)

    @wraps(fn)
    def called(*args: Any, **keywords: Any) -> Any:
        return fn(*check_arguments(args, keywords), **keywords)

    return called


def _settings_of_subclass(fn: Callable[..., Any], args: tuple[Any, ...]) -> frozenset[str]:
    """The settings of the class that is created by a base class's constructor ``fn``: one of them may be meant."""
    if fn.__name__ != "__init__" or not args:
        return frozenset()
    return frozenset(settings_of(type(args[0])))


def _owner(fn: Callable[..., Any], args: tuple[Any, ...]) -> str:
    """``Refine`` for its constructor, ``GEPA.compile`` for a method, ``evaluate`` for a function."""
    place, _, name = fn.__qualname__.rpartition(".")
    if not place or place.endswith("<locals>"):
        return name
    kind = type(args[0]).__name__ if args else place
    return kind if name in ("__init__", "__call__") else f"{kind}.{name}"


_SETTINGS: WeakKeyDictionary[type, Mapping[str, Field]] = WeakKeyDictionary()
_RECORDED: WeakKeyDictionary[type, Sequence[str]] = WeakKeyDictionary()


def settings_of(cls: type) -> Mapping[str, Field]:
    """The settings of a class, by name.

    A setting is a parameter that has a default, in the constructor of the class or of one of its bases.
    """
    settings = _SETTINGS.get(cls)
    if settings is None:
        settings = _collect_settings(cls)
        _SETTINGS[cls] = settings
    return settings


def _collect_settings(cls: type) -> dict[str, Field]:
    fields: dict[str, Field] = {}
    for base in reversed(cls.__mro__):
        constructor = _constructor_in(base, cls)
        if constructor is not None and base is not object:
            fields |= _declaration(constructor).settings
    return fields


def _constructor_in(base: type, cls: type) -> Any:
    """The constructor that a base class defines itself, or None. A descriptor that generates a constructor for each
    inheriting class (it has a method ``of``) gives that of ``cls``."""
    constructor = vars(base).get("__init__")
    generate_for = getattr(constructor, "of", None)
    return constructor if generate_for is None else generate_for(cls)


def recorded_fields(cls: type) -> Sequence[str]:
    """The names of the settings that run files record: those of constructors with the decorator ``configurable``."""
    names = _RECORDED.get(cls)
    if names is None:
        names = _collect_recorded_names(cls)
        _RECORDED[cls] = names
    return names


def _collect_recorded_names(cls: type) -> list[str]:
    names: list[str] = []
    for base in reversed(cls.__mro__):
        declaration = getattr(_constructor_in(base, cls), "__declaration__", None)
        if declaration is None:
            continue
        for name, field in declaration.settings.items():
            if name not in names and field.is_recorded:
                names.append(name)
    return names


def recorded_settings(configured: object, *parts: object) -> dict[str, Any]:
    """The settings of an object that run files record, by their names in the file.

    The values are attributes of the object, or of one of its ``parts``.
    """
    owners = (configured, *parts)
    fields = settings_of(type(configured))
    settings = {}
    for name in recorded_fields(type(configured)):
        file_format = fields[name].file_format
        settings[file_format.name or name] = file_format.to_file(_attribute(owners, name))
    return settings


def _attribute(owners: Iterable[object], name: str, default: object = None) -> Any:
    """The attribute of the first owner that has it."""
    for owner in owners:
        if hasattr(owner, name):
            return getattr(owner, name)
    return default


def absent_settings(cls: type) -> dict[str, Any]:
    """The values that a run file without them stands for, by the names of the settings in the file."""
    settings = {}
    for name, field in settings_of(cls).items():
        if field.has_default:
            settings[field.file_format.name or name] = field.file_format.to_file(field.value_if_absent)
    return settings


def settings_repr(configured: object, *first: str, parts: Iterable[object] = ()) -> str:
    """The class name with the settings that differ from their defaults, as in ``Refine(…, n=5)``.

    ``first``: the arguments without a default, as text. ``parts``: see ``recorded_settings``.
    """
    arguments = list(first)
    owners = (configured, *parts)
    for name, field in settings_of(type(configured)).items():
        value = _attribute(owners, name, field.default)
        if value is not field.default and repr(value) != repr(field.default):
            arguments.append(f"{name}={shorten(repr(value), 100)}")
    return f"{type(configured).__name__}({', '.join(arguments)})"
