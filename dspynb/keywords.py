"""Keyword arguments, declared once in a signature: from it come checks, messages, what Shift+Tab shows, and run files.

``@configurable()`` on a function or constructor reads its signature. What a call passes is checked by pydantic against
the types there (see ``dspynb.options``), and all that is wrong is one ConfigurationError. The checks are made when they
are first used. ``fields_of`` gives the same declaration to what records settings.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, cached_property, wraps
from typing import Any, ForwardRef, ParamSpec, TypeVar, cast, is_typeddict
from weakref import WeakKeyDictionary

from dspynb.errors import ConfigurationError, nearest, shorten
from dspynb.options import Absent, NotRecorded, Recorded, is_checked, literals, metadata, type_text, words

__all__ = [
    "UNSET",
    "Declaration",
    "Field",
    "absent_settings",
    "configurable",
    "fields_of",
    "recorded_fields",
    "recorded_settings",
    "refuse_unknown",
    "shown",
]

P = ParamSpec("P")
R = TypeVar("R")
_SHORT = 3
_NEARLY = 0.85
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_KEYWORD = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class _Unset:
    """The default of a setting that is absent where it is not passed."""

    def __repr__(self) -> str:
        return "<unset>"


UNSET = _Unset()


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
    problems = _unknown(owner, names, known, renamed or {}, otherwise)
    if problems:
        raise ConfigurationError(" ".join(problems))


def _unknown(
    owner: str, names: Iterable[str], known: Collection[str], renamed: Mapping[str, str], otherwise: str
) -> list[str]:
    unknown = sorted(set(names).difference(known))
    problems = [f"{owner} has no setting {name!r}{_advice(name, known, renamed)}" for name in unknown]
    own = [name for name in unknown if name not in renamed]
    if own and otherwise:
        problems.append(otherwise.format(name=own[0]))
    return problems


def _advice(name: str, known: Collection[str], renamed: Mapping[str, str]) -> str:
    """The rest of the sentence: the known name that was meant, or what to do; misspelled names of DSPy too."""
    cutoff = 0.5 if len(name) > _SHORT else 0.7  # of a short name nearly every other one has half the letters
    names = {*known, *(theirs for theirs, ours in renamed.items() if ours in known)}
    swapped = [other for other in sorted(names) if sorted(other) == sorted(name)]
    close = swapped or get_close_matches(name, sorted(names), n=1, cutoff=cutoff)
    advised = get_close_matches(name, sorted({*renamed} - names), n=1, cutoff=_NEARLY)  # what to do, in a sentence
    meant = name if name in renamed else (advised or close or [""])[0]
    new = meant if meant in known else renamed.get(meant, "")
    if new in known:
        return f". Did you mean {new!r}?"
    return f": {new}." if " " in new else "."


@dataclass(frozen=True)
class Field:
    """A parameter as it was declared: its type, its default, and the names that its type is written with."""

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
        """The type; Any where its names are known to type checkers only."""
        try:
            return self._type
        except (AttributeError, NameError, SyntaxError, TypeError):  # TypeError: an alias that is text, as Rows is
            return Any

    @cached_property
    def _type(self) -> Any:
        written = self.parameter.annotation
        if written is inspect.Parameter.empty:
            return Any
        if not isinstance(written, str):
            return written
        return eval(written, dict(self.namespace))  # noqa: S307  # source of the package, or of the user's own class

    @cached_property
    def shown(self) -> inspect.Parameter:
        """The parameter as Shift+Tab shows it: with a plain type in place of one that carries checks."""
        annotation = self.annotation
        if not is_checked(annotation) and not metadata(annotation):
            return self.parameter
        return self.parameter.replace(annotation=type_text(annotation))

    def __reduce__(self) -> tuple[Any, ...]:
        """With its type in place of the namespace: that of a class in a notebook is all that the user has there."""
        return Field, (self.parameter.replace(annotation=self.annotation), {})

    @cached_property
    def recorded(self) -> bool:
        """Whether a run file records it, so that a resumed run must have the same value."""
        return not any(isinstance(item, NotRecorded) for item in metadata(self.annotation))

    @cached_property
    def absent(self) -> Any:
        """What it counts as in a run file that lacks it."""
        values = [item.value for item in metadata(self.annotation) if isinstance(item, Absent)]
        return values[0] if values else self.default

    @cached_property
    def record(self) -> Recorded:
        """Under which name a run file records it, and as what."""
        marks = [item for item in metadata(self.annotation) if isinstance(item, Recorded)]
        return marks[0] if marks else Recorded()


class _Check:
    """The check of one parameter, by pydantic."""

    __slots__ = ("annotation", "name", "validate")

    def __init__(self, name: str, annotation: Any) -> None:
        from pydantic import TypeAdapter

        self.name = name
        self.annotation = annotation
        self.validate: Callable[[Any], Any] = TypeAdapter(annotation).validator.validate_python

    def __call__(self, value: Any, problems: list[str]) -> Any:
        """The value as it is to be used. A sentence is added to ``problems`` where the type refuses it."""
        try:
            return self.validate(value)
        except ValueError as error:  # pydantic's ValidationError is one
            problems.append(self._sentence(error, value))
            return value

    def _sentence(self, error: Any, value: Any) -> str:
        for problem in error.errors(include_url=False):
            if problem["type"] == "sentence":  # of a check of its own, which says all of it
                sentence = str(problem["msg"])
                return sentence if sentence.startswith(self.name) else f"{self.name}: {sentence}"
        return _refusal(self.name, self.annotation, value)


class _Checks(dict[str, _Check | None]):
    def __init__(self, fields: Mapping[str, Field]) -> None:
        super().__init__()
        self._fields = fields

    def __missing__(self, name: str) -> _Check | None:
        if name not in self._fields:  # self, and keywords that are unknown or open
            return None
        annotation = self._fields[name].annotation
        check = _Check(name, annotation) if is_checked(annotation) else None
        self[name] = check
        return check


class Declaration:
    """The parameters of one function, read from its signature; those of ``passes_to`` stand for its ``**keywords``."""

    def __init__(self, fn: Callable[..., Any], passes_to: Any = None) -> None:
        self._fn = fn
        self.passes_to = passes_to

    @cached_property
    def _signature(self) -> inspect.Signature:
        return inspect.signature(self._fn)

    @cached_property
    def positional(self) -> tuple[str, ...]:
        """The names of the parameters that may be passed by position, with ``self``."""
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
        own = {
            name: Field(parameter, namespace)
            for name, parameter in self._signature.parameters.items()
            if parameter.kind in _KEYWORD and name != "self"
        }
        passed = {name: field for name, field in _fields_passed(self.passes_to).items() if name not in own}
        return {**own, **passed}

    def __getstate__(self) -> dict[str, Any]:
        """Without the namespace, which the fields replace by their types, and without checks, which are made again."""
        state = {**vars(self), "fields": self.fields, "_namespace": {}}
        state.pop("checks", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    @property
    def settings(self) -> Mapping[str, Field]:
        """The parameters that configure something, by name: those with a default."""
        return {name: field for name, field in self.fields.items() if field.has_default}

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of the parameters, without ``self``."""
        return frozenset(self.fields)

    @property
    def signature(self) -> inspect.Signature:
        """The signature with every keyword by its name, and plain types in place of those that carry checks."""
        return _ShownSignature(self)

    @cached_property
    def shown(self) -> Mapping[str, inspect.Parameter]:
        """The parameters of ``signature``."""
        fields = self.fields
        parameters = {}
        for name, parameter in self._signature.parameters.items():
            if name in fields:
                parameters[name] = fields[name].shown
            elif parameter.kind is not inspect.Parameter.VAR_KEYWORD or self.passes_to is None:
                parameters[name] = parameter
        for name, field in fields.items():
            if name not in parameters:
                parameters[name] = field.shown
        return inspect.Signature(list(parameters.values())).parameters  # which checks their order

    @property
    def returned(self) -> Any:
        """The annotation of what the function returns."""
        return self._signature.return_annotation

    @cached_property
    def checks(self) -> Mapping[str, _Check | None]:
        """The checks of the parameters by name, each made when it is first read; None for one that is not checked."""
        return _Checks(self.fields)

    def read(self, args: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[tuple[Any, ...], list[str]]:
        """The positional values as they are to be used, and what is wrong, in sentences. ``keywords`` are replaced in
        place."""
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


class _ShownSignature(inspect.Signature):
    """The signature of a declaration. Its types are read when it is: most functions are called and never shown, and
    reading the types of all of them would make up a tenth of the import."""

    __slots__ = ("_declaration",)

    def __init__(self, declaration: Declaration) -> None:
        super().__init__()
        self._declaration = declaration

    @property
    def parameters(self) -> Any:
        return self._declaration.shown

    @property
    def return_annotation(self) -> Any:
        return self._declaration.returned

    def replace(self, **changes: Any) -> inspect.Signature:  # type: ignore[override]
        plain = inspect.Signature(list(self.parameters.values()), return_annotation=self.return_annotation)
        return plain.replace(**changes)

    def __replace__(self, **changes: Any) -> Any:  # what copy.replace calls
        return self.replace(**changes)

    def __reduce__(self) -> Any:
        return self.replace().__reduce__()


def _refusal(name: str, annotation: Any, value: Any) -> str:
    choices = literals(annotation)
    near = nearest(value, choices) if isinstance(value, str) else ""
    return f"{name} must be {words(annotation)}, got {shorten(repr(value), 100)}{'.' + near if near else ''}"


def _fields_passed(target: Any) -> Mapping[str, Field]:
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
def _entries(target: Any) -> Mapping[str, Field]:
    namespace = vars(sys.modules[target.__module__])
    return {name: Field(_parameter(name, written), namespace) for name, written in target.__annotations__.items()}


def _parameter(name: str, written: Any) -> inspect.Parameter:
    annotation = written.__forward_arg__ if isinstance(written, ForwardRef) else written
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=UNSET, annotation=annotation)


def _declaration(fn: Callable[..., Any]) -> Declaration:
    declared = getattr(fn, "__declaration__", None)
    return declared if isinstance(declared, Declaration) else Declaration(fn)


def configurable(
    *, renamed: Mapping[str, str] | None = None, otherwise: str = "", passes_to: Any = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: the signature of the function is the declaration of its settings.

    ``passes_to``: the function, or the TypedDict, whose keywords the function's own ``**keywords`` are. They are
    checked and shown as if they were its own. ``renamed`` and ``otherwise``: see ``refuse_unknown``.

    A call with a keyword that is not known, or with values that their types refuse, raises one ConfigurationError that
    names the function or class, each argument, its value and what it must be.
    """

    def decorate(fn: Callable[P, R]) -> Callable[P, R]:
        declaration = _declaration(fn) if passes_to is None else Declaration(fn, passes_to)

        def checked(args: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Any, ...]:
            used, problems = declaration.read(args, keywords)
            known = declaration.names
            is_known = known.issuperset(keywords) or declaration.is_open
            if is_known and not problems:
                return used
            owner = _owner(fn, args)
            unknown: list[str] = []
            if not is_known:
                near = known | (_parameters_of_subclass(fn, args) - keywords.keys())
                unknown = _unknown(owner, keywords.keys() - known, near, renamed or {}, otherwise)
            raise ConfigurationError(" ".join([*unknown, *_sentences(owner, problems)]))

        wrapped = _wrapped(fn, checked)
        wrapped.__declaration__ = declaration  # type: ignore[attr-defined]
        wrapped.__signature__ = declaration.signature  # type: ignore[attr-defined]
        return cast("Callable[P, R]", wrapped)

    return decorate


def _wrapped(fn: Callable[..., Any], checked: Callable[..., tuple[Any, ...]]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(fn):

        @wraps(fn)
        async def awaited(*args: Any, **keywords: Any) -> Any:
            return await fn(*checked(args, keywords), **keywords)

        return awaited

    @wraps(fn)
    def called(*args: Any, **keywords: Any) -> Any:
        return fn(*checked(args, keywords), **keywords)

    return called


def _sentences(owner: str, problems: list[str]) -> list[str]:
    return [f"{owner}: {'; '.join(problems)}"] if problems else []


def _parameters_of_subclass(fn: Callable[..., Any], args: tuple[Any, ...]) -> frozenset[str]:
    """The settings of the class that is made, where its constructor is that of a base: one of them may be meant."""
    return frozenset(fields_of(type(args[0]))) if fn.__name__ == "__init__" and args else frozenset()


def _owner(fn: Callable[..., Any], args: tuple[Any, ...]) -> str:
    """``Refine`` for its constructor, ``GEPA.compile`` for a method, ``evaluate`` for a function."""
    place, _, name = fn.__qualname__.rpartition(".")
    if not place or place.endswith("<locals>"):
        return name
    kind = type(args[0]).__name__ if args else place
    return kind if name in ("__init__", "__call__") else f"{kind}.{name}"


_FIELDS: WeakKeyDictionary[type, Mapping[str, Field]] = WeakKeyDictionary()
_RECORDED: WeakKeyDictionary[type, Sequence[str]] = WeakKeyDictionary()


def fields_of(cls: type) -> Mapping[str, Field]:
    """The settings of a class: the parameters of its constructor and of those of its bases, by name."""
    fields = _FIELDS.get(cls)
    if fields is None:
        fields = _FIELDS[cls] = _gathered_fields(cls)
    return fields


def _gathered_fields(cls: type) -> dict[str, Field]:
    found: dict[str, Field] = {}
    for base in reversed(cls.__mro__):
        constructor = _constructor_in(base, cls)
        if constructor is not None and base is not object:
            found |= _declaration(constructor).settings
    return found


def _constructor_in(base: type, cls: type) -> Any:
    """The constructor that a base class has itself, None for one that has none. One that is made for each class that
    inherits it (a descriptor with ``of``) is that of ``cls``."""
    constructor = vars(base).get("__init__")
    made_for = getattr(constructor, "of", None)
    return constructor if made_for is None else made_for(cls)


def recorded_fields(cls: type) -> Sequence[str]:
    """The names of the settings that a run file records: those of constructors that are declared ``configurable``."""
    names = _RECORDED.get(cls)
    if names is None:
        names = _RECORDED[cls] = _gathered_names(cls)
    return names


def _gathered_names(cls: type) -> list[str]:
    names: list[str] = []
    for base in reversed(cls.__mro__):
        declaration = getattr(_constructor_in(base, cls), "__declaration__", None)
        if declaration is None:
            continue
        for name, field in declaration.settings.items():
            if name not in names and field.recorded:
                names.append(name)
    return names


def recorded_settings(configured: object, *parts: object) -> dict[str, Any]:
    """The settings of an object that a run file records, by their names in it.

    They are attributes of the object, or of one of its ``parts``.
    """
    places = (configured, *parts)
    fields = fields_of(type(configured))
    found = {}
    for name in recorded_fields(type(configured)):
        record = fields[name].record
        found[record.name or name] = record.written(_value(places, name))
    return found


def _value(places: Iterable[object], name: str, default: Any = None) -> Any:
    for place in places:
        if hasattr(place, name):
            return getattr(place, name)
    return default


def absent_settings(cls: type) -> dict[str, Any]:
    """What the settings of a class count as in a run file that lacks them, by their names in it."""
    found = {}
    for name, field in fields_of(cls).items():
        if field.has_default:
            found[field.record.name or name] = field.record.written(field.absent)
    return found


def shown(configured: object, *first: str, parts: Iterable[object] = ()) -> str:
    """The object as its class is called, with the settings that differ from their defaults, as in ``Refine(…, n=5)``.

    ``first``: the arguments without a default, as text. ``parts``: see ``recorded_settings``.
    """
    arguments = list(first)
    places = (configured, *parts)
    for name, field in fields_of(type(configured)).items():
        value = _value(places, name, field.default)
        if value is not field.default and repr(value) != repr(field.default):
            arguments.append(f"{name}={shorten(repr(value), 100)}")
    return f"{type(configured).__name__}({', '.join(arguments)})"
